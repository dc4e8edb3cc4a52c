//! The lines by which `deploy` says how far it is.

/// It holds the lock, and begins to record.
pub const LOCKED: &str = "Recording";
/// The first object is about to be applied.
pub const APPLYING: &str = "Applying";
/// All is applied, and the pods are looked at.
pub const FOLLOWING: &str = "Following";
/// The new pods are up, and watched.
pub const SOAKING: &str = "Watching";
/// The new server is asked.
pub const SMOKING: &str = "Proving";
