//! Decides whose a replica is: a pure function of its mark and of the data in the database.
//!
//! A replica belongs to this database if it was started in the current epoch. A replica of an earlier epoch, or of
//! version 0.1.0, which wrote no marks, is taken over if it runs what the database records under that number. All
//! others are strays: they belong to another database, or to this one before it was restored from an older copy, and
//! may serve clients.
//!
//! A replica can also prove that the database went back in time: it carries a number of the current epoch that the
//! database has not assigned yet.

use std::time::Duration;

use api::{Revision, Timestamp, stray::StrayReason};
use backend::Replica;
use store::Lineage;

/// The maximum clock difference between a control plane and a worker.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// The data of a deployment in the database.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'k> {
    /// When it was created.
    pub(crate) created_at: Timestamp,
    /// The highest assigned fence.
    pub(crate) fence: i64,
    /// Its kept revisions, including the newest.
    pub(crate) revisions: &'k [Revision],
}

/// Whose a replica is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It belongs to this database.
    Ours,
    /// It runs what this database wants under that number, and must be marked with the creation time of its revision.
    Heir(Timestamp),
    /// A stray.
    Stray(StrayReason),
    /// It belongs to this database, which was restored since; the text is the evidence.
    Ahead(String),
}

/// Whose `replica` is. `known` is the data of its deployment, read after the replica was observed.
pub(crate) fn standing(replica: &Replica, lineage: &Lineage, known: Option<Known<'_>>) -> Standing {
    let Some(known) = known else {
        let other = replica.origin.as_ref().is_some_and(|origin| !is_of(lineage, origin));
        return Standing::Stray(if other { StrayReason::OtherDatabase } else { StrayReason::UnknownDeployment });
    };
    let made_at = known.revisions.iter().find(|it| it.number == replica.revision).map(|revision| revision.created_at);
    let is_new = known.revisions.iter().all(|revision| revision.number < replica.revision);
    let Some(origin) = &replica.origin else {
        // It cannot have been started before its revision was created.
        let made_at = made_at.unwrap_or(known.created_at);
        let is_older = replica.started_at.is_some_and(|started| started.after(CLOCK_SKEW) < made_at);
        return match (is_new, is_older) {
            (true, _) => Standing::Stray(StrayReason::UnknownRevision),
            (_, true) => Standing::Stray(StrayReason::OtherDatabase),
            (false, false) => Standing::Heir(made_at),
        };
    };
    if origin.epoch == lineage.current {
        let id = &replica.id;
        return if origin.fence > known.fence {
            let (given, newest) = (origin.fence, known.fence);
            Standing::Ahead(format!(
                "{id} was started under fence {given}, but the highest fence in the database is {newest}"
            ))
        } else if is_new {
            Standing::Ahead(format!("{id} runs a revision that the database has not created yet"))
        } else if made_at.is_some_and(|made_at| made_at != origin.made_at) {
            Standing::Ahead(format!("{id} runs another revision than the one with that number in the database"))
        } else {
            Standing::Ours
        };
    }
    match made_at {
        _ if !is_of(lineage, origin) => Standing::Stray(StrayReason::OtherDatabase),
        Some(made_at) if made_at == origin.made_at => Standing::Heir(made_at),
        _ => Standing::Stray(StrayReason::UnknownRevision),
    }
}

fn is_of(lineage: &Lineage, origin: &api::Origin) -> bool {
    origin.epoch == lineage.current || lineage.former.contains(&origin.epoch)
}

#[cfg(test)]
mod tests {
    use api::{DeploymentId, Epoch, Origin, ReplicaId, RevisionNumber, replica::ReplicaState};
    use backend::conformance;

    use super::*;

    const DAY: i64 = 24 * 3_600 * 1_000_000;

    fn lineage() -> Lineage {
        Lineage { current: Epoch("now".to_owned()), former: vec![Epoch("then".to_owned())] }
    }

    fn replica(revision: u32, origin: Option<(&str, i64, i64)>) -> Replica {
        Replica {
            id: ReplicaId(format!("md-1-r{revision}-0")),
            deployment: DeploymentId(1),
            revision: RevisionNumber(revision),
            state: ReplicaState::Ready,
            address: None,
            started_at: Some(Timestamp(10 * DAY)),
            restarts: 0,
            failure: None,
            retry_at: None,
            artifact: None,
            files: None,
            notes: Vec::new(),
            origin: origin.map(|(epoch, fence, made_at)| Origin {
                epoch: Epoch(epoch.to_owned()),
                fence,
                made_at: Timestamp(made_at),
            }),
        }
    }

    /// In a database whose deployment 1 has the revisions 1 and 2, made at 100 and 200, and has given fence 7.
    fn stands(replica: &Replica) -> Standing {
        let revisions: Vec<_> = [(1, 100), (2, 200)]
            .into_iter()
            .map(|(number, at)| {
                let revision = conformance::revision(DeploymentId(1), RevisionNumber(number), "/m");
                Revision { created_at: Timestamp(at), ..revision }
            })
            .collect();
        let known = Known { created_at: Timestamp(100), fence: 7, revisions: &revisions };
        standing(replica, &lineage(), Some(known))
    }

    #[test]
    fn what_this_database_started_is_its_own_also_after_the_revision_was_forgotten() {
        assert_eq!(stands(&replica(2, Some(("now", 7, 200)))), Standing::Ours);
        assert_eq!(stands(&replica(0, Some(("now", 1, 50)))), Standing::Ours);
    }

    #[test]
    fn what_it_started_before_it_was_put_back_is_taken_over_only_if_it_is_the_same() {
        assert_eq!(stands(&replica(2, Some(("then", 900, 200)))), Standing::Heir(Timestamp(200)));
        let changed = replica(2, Some(("then", 900, 201)));
        assert_eq!(stands(&changed), Standing::Stray(StrayReason::UnknownRevision));
        assert_eq!(stands(&replica(3, Some(("then", 900, 300)))), Standing::Stray(StrayReason::UnknownRevision));
        assert_eq!(standing(&changed, &lineage(), None), Standing::Stray(StrayReason::UnknownDeployment));
    }

    #[test]
    fn another_database_s_replicas_are_strays() {
        let other = replica(2, Some(("other", 1, 200)));
        assert_eq!(stands(&other), Standing::Stray(StrayReason::OtherDatabase));
        assert_eq!(standing(&other, &lineage(), None), Standing::Stray(StrayReason::OtherDatabase));
    }

    #[test]
    fn numbers_that_were_not_given_yet_prove_that_the_database_was_put_back() {
        for (revision, fence, made_at) in [(2, 8, 200), (3, 7, 300), (2, 7, 201)] {
            let ahead = replica(revision, Some(("now", fence, made_at)));
            assert!(matches!(stands(&ahead), Standing::Ahead(_)), "{ahead:?}");
        }
    }

    #[test]
    fn a_replica_of_0_1_0_is_taken_over_unless_it_is_older_than_its_revision() {
        let mut replica = replica(2, None);
        assert_eq!(stands(&replica), Standing::Heir(Timestamp(200)));
        replica.started_at = Some(Timestamp(0));
        assert_eq!(stands(&replica), Standing::Heir(Timestamp(200)), "clocks differ");
        replica.started_at = Some(Timestamp(-DAY));
        assert_eq!(stands(&replica), Standing::Stray(StrayReason::OtherDatabase));
        assert_eq!(standing(&replica, &lineage(), None), Standing::Stray(StrayReason::UnknownDeployment));
        replica.revision = RevisionNumber(9);
        assert_eq!(stands(&replica), Standing::Stray(StrayReason::UnknownRevision));
    }
}
