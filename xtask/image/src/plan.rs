//! Locks -> the list of layers, without touching a single package file.

use crate::lock::{DebPackage, LayerInfo, LayerKind, Wheel};
use crate::{Digest, Platform};

/// Raised when the bytes of any layer change for the same inputs; part of every layer's key.
pub const LAYOUT: u32 = 1;

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Gzip whose members are the wheels' own deflate streams (RFC 1952, section 2.2).
    #[default]
    Splice,
    /// One ordinary gzip member, libdeflate level 6.
    Gzip,
    /// Zstandard, level 3.
    Zstd,
}

/// What a layer is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Debian packages, flattened.
    Debs(Vec<DebPackage>),
    /// Wheels, installed into the virtual environment.
    Wheels(Vec<Wheel>),
    /// Our own files.
    Own(Vec<OwnFile>),
}

/// A file of ours, by its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// The path in the image, without a leading slash.
    pub path: String,
    /// Whether it is executable (mode 0755, else 0644).
    pub executable: bool,
    /// Its content.
    pub content: Vec<u8>,
}

/// One layer to be: what goes in, and what comes out where that is known already.
#[derive(Clone, Debug)]
pub struct LayerPlan {
    /// For people: `base`, a wheel's name, `wheels-3`, `own`.
    pub name: String,
    /// What it is made of.
    pub kind: LayerKind,
    /// The platform.
    pub platform: Platform,
    /// What goes in.
    pub source: Source,
    /// Digest over all that the bytes depend on.
    pub key: Digest,
    /// The result, where the image lock foretells it.
    pub known: Option<LayerInfo>,
}
