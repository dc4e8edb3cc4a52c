//! Verdicts as tables: what the cluster says, and what it means.

mod causes;
mod complete;
mod patience;
mod scene;
mod words;
