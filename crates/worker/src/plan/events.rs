//! The events of a step: only differences from the last written status, so that a repeated step writes no event twice.

use api::{DeploymentStatus, State, event::NewEvent};
use serde_json::{Value, json};
use store::DeploymentRecord;

use super::groups::Groups;

const ACTOR: &str = "worker";

pub(super) fn events(record: &DeploymentRecord, after: &DeploymentStatus, groups: &Groups<'_>) -> Vec<NewEvent> {
    let before = &record.status;
    let restarts = groups.observed.iter().map(|replica| replica.restarts).max().unwrap_or(0);
    let evidence = json!({ "ready": after.ready_replicas, "wanted": groups.want, "restarts": restarts });
    let event = |kind: &'static str, message: String, evidence: Value| NewEvent {
        revision: Some(after.error.as_ref().map_or(groups.newest, |error| error.revision)),
        actor: ACTOR,
        kind,
        message,
        evidence,
    };
    let mut events = Vec::new();
    if let (Some(from), Some(to)) = (before.serving_revision, after.serving_revision)
        && from != to
    {
        let message = if to == groups.newest {
            format!("traffic moved from revision {from} to {to}, whose replicas are ready")
        } else {
            format!("traffic moved from revision {from}, which has no ready replica, to {to}")
        };
        let mut moved = event("traffic_moved", message, evidence.clone());
        moved.evidence["traffic"] = json!(after.traffic);
        moved.revision = Some(to);
        events.push(moved);
    }
    let cause = |otherwise: String| after.error.as_ref().map_or(otherwise, |error| error.message.clone());
    let ready = format!("{} of {} replicas are ready", after.ready_replicas, groups.want);
    // While the previous revision serves well next to the newest one, the change itself is the news, and is already
    // written.
    let rolling_out = after.state == State::Active && after.serving_revision != Some(groups.newest);
    if before.state != after.state && !rolling_out {
        let (kind, message) = match after.state {
            State::Pending => ("pending", cause(format!("nothing serves yet: {ready}"))),
            State::Active => ("active", format!("it serves: {ready}")),
            State::Degraded => ("degraded", cause(ready)),
            State::Failed => ("failed", cause("nothing serves".to_owned())),
            State::Idle => ("idle", "it is scaled to 0 replicas".to_owned()),
            State::Deleting => ("deleting", "its replicas drain and end".to_owned()),
        };
        events.push(event(kind, message, evidence));
    } else if let Some(error) = &after.error
        && before.error.as_ref().is_none_or(|old| (&old.code, old.revision) != (&error.code, error.revision))
    {
        events.push(event("replica_failed", error.message.clone(), evidence));
    }
    events
}
