//! Wheels: reading them and installing them (PyPA specifications, "Binary distribution format").

pub(crate) mod archive;
mod entry_points;
pub(crate) mod install;
mod record;

pub(crate) use archive::Archive;
