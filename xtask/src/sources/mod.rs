//! Where wheels and Debian packages come from: uv's answers, Debian mirrors, the cache.
//!
//! No registry's address is written here: uv knows the user's indices, and a Debian host its
//! mirrors. What comes in is verified against the locks' digests before it gets its name.

pub mod debian;
pub mod download;
mod pylock;
mod tags;
pub mod uv;
pub mod wheels;

pub use debian::{FetchDebsError, Mirrors, fetch_debs};
pub use tags::uv_args as python_args;
pub use wheels::fetch as fetch_wheels;
