//! A real single-node Kubernetes with what MLflow needs around it: registries, PostgreSQL, a fake
//! Google Cloud Storage. In namespaces of this machine; `down` leaves nothing.
//!
//! Nothing here knows what is deployed to it. Its own programs come from Go modules and Debian
//! packages; every image on it is made of files of this machine.

mod cgroup;
mod components;
mod config;
mod control;
mod database;
mod down;
pub(crate) mod error;
mod forward;
pub mod google;
mod image;
pub mod kind;
pub(crate) mod lock;
mod network;
pub mod node;
mod options;
mod pki;
pub(crate) mod program;
mod programs;
mod progress;
mod ready;
mod state;
mod status;
mod tools;
mod up;

pub use components::BUCKET;
pub use control::{ComponentStatus, How};
pub use down::{Down, down};
pub use error::{Error, Kind, Result};
pub use image::{Image, Item};
pub use options::{Network, Options, ROOT};
pub use programs::{
    ACTIONLINT, CLOUD_SQL_PROXY, COSIGN, FAKE_GCS, FOR_TESTS, GO, GOOGLE_PROVIDER, KUBERNETES, MODULES, Module,
    OAUTH2_PROXY, go_candidates, is_recent_go, provide, provide_in,
};
pub use progress::{Progress, Silent};
pub use state::{CONTEXT, DATABASE_ADMIN_URI, DATABASE_URI, KUBECONFIG, RECORD, REGISTRY_LOGIN, Testbed};
pub use status::{Health, Status, start, status, stop};
pub use tools::TOOLS;
pub use up::{Up, up};
