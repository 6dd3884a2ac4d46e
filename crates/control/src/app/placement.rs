//! Which placements workers serve, and what a deployment shows while nobody serves its own.

use std::{collections::BTreeSet, time::Duration};

use api::{State, deployment::StatusError};
use store::{DeploymentRecord, WorkerRecord};

use super::{App, PING_PATIENCE};
use crate::error::Error;

impl App {
    /// The workers that were seen lately, the latest first.
    pub(super) async fn live_workers(&self) -> Result<Vec<WorkerRecord>, Error> {
        let window = Duration::from_millis(self.config.worker_seen_ms);
        let since = self.clock.now().checked_sub(window).unwrap_or(std::time::UNIX_EPOCH);
        Ok(self.store.worker_list(since.into()).await?)
    }

    /// Says in the status of each deployment whose placement no worker serves that this is so: as the error of one that is
    /// pending, and as a note of any other, whose status may be out of date.
    ///
    /// This depends on the time and is stored nowhere. If the workers cannot be read, nothing is said: a change that was
    /// made must not be answered with an error.
    pub(super) async fn say_unserved(&self, records: &mut [DeploymentRecord]) {
        if records.is_empty() {
            return;
        }
        let workers = match tokio::time::timeout(PING_PATIENCE, self.live_workers()).await {
            Ok(Ok(workers)) => workers,
            Ok(Err(error)) => {
                tracing::warn!("cannot see which placements are served: {error}");
                return;
            }
            Err(_) => {
                tracing::warn!("cannot see which placements are served: the database does not answer");
                return;
            }
        };
        let served: BTreeSet<_> = workers.iter().map(|worker| worker.placement.as_str()).collect();
        for record in records.iter_mut().filter(|record| !served.contains(record.spec.placement())) {
            let reason = reason(record.spec.placement(), &served);
            if record.status.state == State::Pending {
                let (code, revision) = ("no_worker".to_owned(), record.revision);
                record.status.error = Some(StatusError { code, message: reason, revision, log: Vec::new() });
            } else {
                record.status.notes.push(format!("{reason}. What is shown here was seen before"));
            }
        }
    }
}

fn reason(placement: &str, served: &BTreeSet<&str>) -> String {
    let start = format!("start one with `modelway worker --placement {placement}`");
    if served.is_empty() {
        return format!("no worker runs, so none serves the placement `{placement}`; {start}");
    }
    let served: Vec<_> = served.iter().map(|placement| format!("`{placement}`")).collect();
    format!("no worker serves the placement `{placement}`; served are {}; {start}", served.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_names_the_placement_and_those_that_are_served() {
        let reason = reason("east", &BTreeSet::from(["local", "west"]));
        for part in ["`east`", "`local`, `west`", "--placement east"] {
            assert!(reason.contains(part), "{reason}");
        }
    }
}
