//! The image crate against made archives and against other programs that read and install them.

mod archives;
mod hostile_debs;
mod hostile_wheels;
mod installed;
mod readers;
mod zip;
