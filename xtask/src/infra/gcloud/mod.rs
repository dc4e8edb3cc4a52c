//! `--via gcloud`: the environment's resources, made by the Google Cloud CLI.
//!
//! [`observe`] asks, [`plan`] and [`destruction`] decide, [`execute`] does. There is no state but
//! Google's own: whatever was interrupted is found again by asking.

mod calls;
mod database_role;
mod execute;
mod observe;
mod observed;
mod outputs;
mod plan;
mod resources;
mod steps;
#[cfg(test)]
mod tests;

pub use execute::{execute, set_password};
pub use observe::observe;
pub use outputs::outputs;
pub use plan::{destruction, plan};
pub use steps::Step;
