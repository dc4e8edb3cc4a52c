//! A layer's inputs -> its blob.

use std::io::Write;
use std::path::PathBuf;

use crate::bytecode::Compiler;
use crate::exclude::Exclude;
use crate::lock::LayerInfo;
use crate::plan::{Format, LayerPlan};
use crate::{Digest, Result};

/// What building a layer needs besides its plan.
pub struct Inputs<'a> {
    /// Where the .deb or wheel with this digest is; the content is verified while it is read.
    pub file: &'a (dyn Fn(&Digest) -> PathBuf + Sync),
    /// What is left out of wheels.
    pub exclude: &'a Exclude,
    /// Compiles Python sources; `None` leaves the .pyc files out.
    pub compiler: Option<&'a (dyn Compiler + Sync)>,
    /// How to compress.
    pub format: Format,
}

/// Builds the layer into `out` and tells its digests.
pub fn write(_plan: &LayerPlan, _inputs: &Inputs<'_>, _out: &mut dyn Write) -> Result<LayerInfo> {
    unimplemented!()
}
