//! A client of container registries (OCI distribution-spec).
