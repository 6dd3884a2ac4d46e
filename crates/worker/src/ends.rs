//! Events for replicas that ended by themselves since the last observation. Otherwise the status of a deployment that
//! keeps serving would not show it.

use api::{deployment::ReplicaView, event::NewEvent, replica::ReplicaState};
use serde_json::json;

/// The events, from the stored replicas and the current ones.
pub(crate) fn events(before: &[ReplicaView], after: &[ReplicaView]) -> Vec<NewEvent> {
    let ended = after.iter().filter(|now| {
        let was = before.iter().find(|was| was.id == now.id);
        was.map_or(waits(now), |was| has_ended(was, now))
    });
    ended.map(event).collect()
}

fn waits(replica: &ReplicaView) -> bool {
    replica.state == ReplicaState::BackingOff
}

/// Whether a replica ended between two observations. The restart after an end that was already observed does not count.
fn has_ended(was: &ReplicaView, now: &ReplicaView) -> bool {
    let known = was.restarts + u32::from(waits(was));
    now.restarts + u32::from(waits(now)) > known
}

fn event(replica: &ReplicaView) -> NewEvent {
    let id = &replica.id;
    NewEvent {
        revision: Some(replica.revision),
        actor: "worker",
        kind: "replica_ended",
        message: match &replica.reason {
            Some(reason) => format!("{id} ended by itself and will be restarted: {reason}"),
            None => format!("{id} ended by itself and was restarted"),
        },
        evidence: json!({ "replica": id, "restarts": replica.restarts, "reason": replica.reason }),
    }
}

#[cfg(test)]
mod tests {
    use api::{ReplicaId, RevisionNumber};

    use super::*;

    fn view(state: ReplicaState, restarts: u32) -> ReplicaView {
        ReplicaView {
            id: ReplicaId("md-1-r1-0".to_owned()),
            revision: RevisionNumber(1),
            state,
            restarts,
            started_at: None,
            reason: (state == ReplicaState::BackingOff).then(|| "killed by signal 9 (SIGKILL)".to_owned()),
        }
    }

    #[test]
    fn each_end_is_told_of_once_however_late_it_is_seen() {
        use ReplicaState::{BackingOff, Ready, Starting};
        let told = |was, now| events(&[was], &[now]).len();
        assert_eq!(told(view(Ready, 0), view(BackingOff, 0)), 1);
        assert_eq!(told(view(BackingOff, 0), view(BackingOff, 0)), 0);
        assert_eq!(told(view(BackingOff, 0), view(Starting, 1)), 0, "that was told of when it ended");
        assert_eq!(told(view(Starting, 1), view(BackingOff, 1)), 1);
        assert_eq!(told(view(Ready, 1), view(Ready, 2)), 1, "nobody saw it wait");
        assert_eq!(told(view(BackingOff, 0), view(BackingOff, 1)), 1);
        assert_eq!(events(&[], &[view(BackingOff, 0)]).len(), 1);
        assert_eq!(events(&[], &[view(Ready, 3)]).len(), 0, "how often it ended before is not known");
        let told = events(&[view(Ready, 0)], &[view(BackingOff, 0)]).remove(0);
        assert!(told.message.starts_with("md-1-r1-0 ") && told.message.contains("signal 9"), "{}", told.message);
    }
}
