//! Refreshing the locks.
