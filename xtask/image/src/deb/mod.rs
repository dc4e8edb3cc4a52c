//! Debian packages: reading them, and making of several the base of an image.

mod archive;
mod base;

pub(crate) use base::{extract, flatten};
