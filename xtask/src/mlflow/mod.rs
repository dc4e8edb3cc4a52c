//! A client of the MLflow server, and the smoke test.
