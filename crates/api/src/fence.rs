//! Which database a replica belongs to, and which worker may change it.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Names one history of one database. A new database makes one at random. A database that was restored from an older copy
/// gets a new one as soon as a worker notices, because it will give its numbers a second time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub String);

/// A worker's right to change the replicas of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The history that the number belongs to.
    pub epoch: Epoch,
    /// The histories that this one continues. Whoever still comes with one of them is refused.
    pub former: Vec<Epoch>,
    /// Grows with each taking of the deployment's lease.
    pub number: i64,
}

/// Who started a replica, and for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The database's history.
    pub epoch: Epoch,
    /// The number of the fence.
    pub fence: i64,
    /// When the replica's revision was made: it tells two revisions of the same number apart.
    pub made_at: Timestamp,
}

impl Fence {
    /// What a replica is marked with whose revision was made at `made_at`.
    #[must_use]
    pub fn origin(&self, made_at: Timestamp) -> Origin {
        Origin { epoch: self.epoch.clone(), fence: self.number, made_at }
    }
}
