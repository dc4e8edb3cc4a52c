//! A client of Google's APIs, as small as what is asked of them: who we are, and JSON over HTTP.
//!
//! Google's tools stay in charge of what they are good at; this is for questions that need neither
//! terraform nor gcloud, and for what must not pass through their arguments or files.

mod api;
mod failure;
pub mod gke_login;
pub mod id_token;
pub mod keys;
#[cfg(test)]
pub mod tests;
mod token;

pub use api::{Ask, Google, Repeat, Service};
pub use failure::link_billing;
pub use token::Login;
