//! Measurements: what this program does beside those that do the same.

pub mod image;
pub mod start;
