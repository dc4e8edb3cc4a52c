//! The database's schema: which revisions an image's MLflow knows.
//!
//! `python`, `revisions`, `layers` and `verdict` are pure; `image` reads images, `sqlite` a local
//! database. MLflow works with one revision only, the newest that it knows, and refuses any other.

mod answer;
pub mod gate;
pub mod image;
mod layers;
pub mod migrate;
mod python;
mod revisions;
pub mod sqlite;
pub mod status;
pub mod verdict;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use revisions::Revisions;

/// What an image's MLflow knows about its databases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// Of experiments, runs, models and traces.
    pub tracking: Revisions,
    /// Of users and permissions; `None` for an MLflow of before 3.6, which does not migrate it.
    pub login: Option<Revisions>,
}

impl Schema {
    /// The revisions of a store; `None` where this MLflow does not migrate it.
    pub fn of(&self, store: Store) -> Option<&Revisions> {
        match store {
            Store::Tracking => Some(&self.tracking),
            Store::Login => self.login.as_ref(),
        }
    }

    /// The revisions that a server works with, which keeps users or does not.
    pub fn heads(&self, login: bool) -> Heads {
        let login = self.login.as_ref().filter(|_| login).map(|login| login.head().to_owned());
        Heads { tracking: self.tracking.head().to_owned(), login }
    }
}

/// The revisions that a server works with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Of experiments, runs, models and traces.
    pub tracking: String,
    /// Of users and permissions; `None`: it keeps none.
    pub login: Option<String>,
}

impl Heads {
    /// Whether databases that have these revisions fit a server that works with `wanted`.
    pub fn fit(&self, wanted: &Self) -> bool {
        self.tracking == wanted.tracking && (wanted.login.is_none() || self.login == wanted.login)
    }
}

/// Some of the tables that every tracking store has had (`Store.tables` in `stores.py`).
const TRACKING_TABLES: [&str; 3] = ["experiments", "runs", "metrics"];

/// A store with a schema of its own. Both may be in one database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// Experiments, runs, models and traces.
    Tracking,
    /// Users and permissions.
    Login,
}

impl Store {
    /// Where its migrations are, below the folder of Python's packages.
    const fn folder(self) -> &'static str {
        match self {
            Self::Tracking => "mlflow/store/db_migrations/versions",
            Self::Login => "mlflow/server/auth/db/migrations/versions",
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tracking => "tracking",
            Self::Login => "login",
        })
    }
}
