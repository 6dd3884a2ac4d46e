//! Which database a replica belongs to, and which worker may change it.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The random name of one history of one database. A new database gets one. A database that was restored from an older
/// copy gets a new one as soon as a worker notices, because it will assign its numbers a second time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub String);

/// A worker's right to change the replicas of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// The epoch that the number belongs to.
    pub epoch: Epoch,
    /// The former epochs of this database. A worker that still uses one of them is refused.
    pub former: Vec<Epoch>,
    /// Increases each time the lease of the deployment is taken.
    pub number: i64,
}

/// Who started a replica, and for which revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The epoch of the database.
    pub epoch: Epoch,
    /// The number of the fence.
    pub fence: i64,
    /// When the revision of the replica was created. It distinguishes two revisions with the same number.
    pub made_at: Timestamp,
}

impl Fence {
    /// The mark of a replica whose revision was created at `made_at`.
    #[must_use]
    pub fn origin(&self, made_at: Timestamp) -> Origin {
        Origin { epoch: self.epoch.clone(), fence: self.number, made_at }
    }
}
