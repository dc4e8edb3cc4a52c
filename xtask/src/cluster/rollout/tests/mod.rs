//! Verdicts as tables.
