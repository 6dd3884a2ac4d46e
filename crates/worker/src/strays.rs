//! Stray replicas: running replicas that do not belong to this database. They are reported, and ended only when a
//! person asks for it.

use api::{DeploymentId, Epoch, Timestamp, event::NewEvent, stray::Stray, stray::StrayReason};
use backend::Replica;
use serde_json::json;

use crate::reconcile::{PassError, Reconciler};

/// The report about a stray.
pub(crate) fn stray(replica: Replica, reason: StrayReason) -> Stray {
    Stray {
        replica: replica.id,
        deployment: replica.deployment,
        revision: replica.revision,
        state: replica.state,
        reason,
        epoch: replica.origin.map(|origin| origin.epoch),
        started_at: replica.started_at,
        // Only the database knows these two.
        since: Timestamp(0),
        ending: false,
    }
}

impl Reconciler {
    /// Stores the current strays, reports new ones, and ends those that a person wants to end.
    pub(crate) async fn strays_seen(&self, seen: &[Stray]) -> Result<(), PassError> {
        let now = self.now();
        let strays = self.store.strays_seen(&self.backend.scope(), seen, now).await?;
        let ours = self.store.lineage().await?.current;
        for stray in &strays {
            if stray.ending {
                tracing::info!(replica = %stray.replica, "ending a stray replica, as a person requested");
                if stray.epoch.as_ref() == Some(&ours) && self.has_no_place_here(stray.deployment).await? {
                    // No replica has an empty epoch, so this ends it.
                    self.backend.end_stray(&stray.replica, &Epoch(String::new())).await?;
                } else {
                    self.backend.end_stray(&stray.replica, &ours).await?;
                }
            } else if stray.since == now {
                self.tell(stray).await?;
            }
        }
        Ok(())
    }

    /// Whether no replica of this deployment may run here: then one of this epoch is a stray too.
    async fn has_no_place_here(&self, id: DeploymentId) -> Result<bool, PassError> {
        let wanted = self.store.deployment_wanted(id, &[]).await?;
        Ok(wanted.is_none_or(|(record, _)| record.spec.placement() != self.store.placement()))
    }

    async fn tell(&self, stray: &Stray) -> Result<(), PassError> {
        let message = words(stray, self.store.placement());
        tracing::warn!(replica = %stray.replica, "{message}");
        let event = NewEvent {
            revision: None,
            actor: "worker",
            kind: "stray_found",
            message,
            evidence: json!({ "replica": stray.replica, "epoch": stray.epoch, "reason": stray.reason }),
        };
        let started_at = stray.started_at.unwrap_or(Timestamp(0)).0;
        let key = format!("{}:{started_at}", stray.replica);
        Ok(self.store.event_of_stray(stray.deployment, &key, event, self.now()).await?)
    }
}

fn words(stray: &Stray, placement: &str) -> String {
    let why = match stray.reason {
        StrayReason::OtherDatabase => "another database started it".to_owned(),
        StrayReason::UnknownDeployment => format!("this database has no deployment {}", stray.deployment),
        StrayReason::UnknownRevision => format!(
            "this database does not have revision {}, for which it was started; the database may have been restored from an older copy",
            stray.revision
        ),
        StrayReason::OtherPlacement => {
            format!("{} is placed elsewhere, and this worker's placement is `{placement}`", stray.deployment)
        }
    };
    let replica = &stray.replica;
    let (fate, when) = match stray.reason {
        StrayReason::OtherPlacement => (
            "It may still get requests until a worker of that placement runs its replicas",
            ", once it serves from there,",
        ),
        StrayReason::OtherDatabase | StrayReason::UnknownDeployment | StrayReason::UnknownRevision => {
            ("It gets no requests", "")
        }
    };
    format!(
        "{replica} runs here and does not belong here: {why}. {fate}, and is left alone; end it{when} with \
         `modelway strays --end {replica}`"
    )
}
