//! The three locks in `mlflow_server/`. None of them holds an address.

mod debian;
mod image;
mod requirements;

pub use debian::{DebPackage, DebianLock, MAIN_ARCHIVE};
pub use image::{ImageLock, LayerInfo, LayerKind, LockedLayer, Wheel};
pub use requirements::{Header, Requirement, Requirements, normalize};

/// A TOML string with its quotes.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
