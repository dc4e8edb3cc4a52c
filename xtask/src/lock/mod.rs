//! Refreshing the locks.

/// The Python lock, below the repository's root.
pub const REQUIREMENTS_LOCK: &str = "mlflow_server/requirements.lock";
