//! The three locks in `mlflow_server/`. None of them holds an address.

mod debian;
mod image;
mod requirements;

pub use debian::{DebPackage, DebianLock};
pub use image::{ImageLock, LayerInfo, LayerKind, LockedLayer, Wheel};
pub use requirements::{Requirement, Requirements};
