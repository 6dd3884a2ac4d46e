//! Waits until a deployment has reached the requested state.

use std::time::{Duration, Instant};

use api::{Deployment, DeploymentId, RevisionNumber, State, deployment::StatusError};
use base::visible;
use reqwest::StatusCode;

use super::{
    Config,
    http::{Control, Found, parse_url},
    view::{log_lines, who},
};
use crate::{
    exit::{Exit, Failure},
    output::count,
    progress::Progress,
};

/// Interval of asking the control plane. A new deployment takes about a second, so the interval is noticeable.
const LOOK: Duration = Duration::from_millis(100);
/// How long the gateway may take to get the routes from the control plane.
const GATEWAY_PATIENCE: Duration = Duration::from_secs(5);

/// The progress of a revision that somebody waits for.
#[derive(Debug, PartialEq, Eq)]
enum Outlook {
    /// The requested state is reached.
    Done,
    /// Not yet.
    NotYet(String),
    /// It will not reach the requested state without a change.
    Hopeless(Box<StatusError>),
}

/// Waits until `revision` of a deployment serves with all its replicas (or has none, if none are wanted).
///
/// # Errors
/// If it failed, the reason and the last lines of the log; [`Exit::TimedOut`] after `patience`.
pub(super) async fn until_serving(
    control: &Control,
    config: &Config,
    id: DeploymentId,
    revision: RevisionNumber,
    patience: Duration,
) -> Result<Found, Failure> {
    let mut progress = Progress::new();
    let end = Instant::now() + patience;
    loop {
        let found = control.by_id(id).await?;
        let reason = match outlook(&found.deployment, revision) {
            Outlook::Done => {
                if found.deployment.spec.replicas > 0 {
                    until_routed(config, id, end.min(Instant::now() + GATEWAY_PATIENCE)).await;
                }
                return Ok(found);
            }
            Outlook::Hopeless(error) => return Err(broken(&found.deployment, &error)),
            Outlook::NotYet(reason) => reason,
        };
        progress.say(format!("{}: {reason}", who(&found.deployment)));
        if Instant::now() >= end {
            let who = who(&found.deployment);
            let id = found.deployment.id;
            let message = format!("{who} is not there after {} s: {reason}", patience.as_secs());
            return Err(Failure::new(Exit::TimedOut, message)
                .next(format!("It continues in the background. See its progress: modelway describe {id}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until a deployment is removed.
pub(super) async fn until_gone(control: &Control, id: DeploymentId, end: Instant) -> Result<(), Failure> {
    let mut progress = Progress::new();
    loop {
        match control.by_id(id).await {
            Err(failure) if failure.exit == Exit::NotFound => return Ok(()),
            Err(failure) => return Err(failure),
            Ok(found) if Instant::now() >= end => {
                let who = who(&found.deployment);
                return Err(Failure::new(Exit::TimedOut, format!("{who} is still being deleted"))
                    .next(format!("It continues in the background. See its progress: modelway describe {id}")));
            }
            Ok(found) => {
                let left = found.deployment.status.replica_status.len();
                progress.say(format!("{}: {} left to end", who(&found.deployment), count(left, "replica")));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits a short time until the gateway serves a deployment that has just become active, so that the next command finds
/// it. The gateway may not be reachable from this machine, which is not an error.
async fn until_routed(config: &Config, id: DeploymentId, end: Instant) {
    let Ok(mut url) = parse_url("client.gateway_url", &config.gateway_url) else { return };
    url.set_path(&format!("{}/v2/models/{id}/ready", url.path().trim_end_matches('/')));
    let Ok(http) = base::client::builder_for(&config.gateway_url).build() else { return };
    while Instant::now() < end {
        match http.get(url.clone()).timeout(GATEWAY_PATIENCE).send().await {
            Ok(answer) if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::SERVICE_UNAVAILABLE) => {}
            Ok(_) | Err(_) => return,
        }
        tokio::time::sleep(LOOK / 5).await;
    }
}

fn outlook(deployment: &Deployment, revision: RevisionNumber) -> Outlook {
    let status = &deployment.status;
    let (ready, wanted) = (status.ready_replicas, deployment.spec.replicas);
    // If the deployment was changed again in the meantime, waits for that change.
    let ours = status.error.as_ref().filter(|error| [revision, deployment.revision].contains(&error.revision));
    let serves = status.serving_revision.is_some_and(|serving| [revision, deployment.revision].contains(&serving));
    match status.state {
        // Right after scaling, the status may still be the old one.
        State::Active if serves && ready == wanted => Outlook::Done,
        State::Idle if wanted == 0 => Outlook::Done,
        State::Failed if ours.is_some() => hopeless(ours),
        // The old revision keeps serving, and the new one will never replace it.
        State::Degraded if !serves && ours.is_some() => hopeless(ours),
        State::Degraded | State::Pending => match ours {
            Some(error) => {
                Outlook::NotYet(format!("{ready} of {wanted} replicas are ready: {}", visible::line(&error.message)))
            }
            None => Outlook::NotYet(format!("{ready} of {wanted} replicas are ready")),
        },
        State::Failed | State::Active | State::Idle => {
            Outlook::NotYet(format!("{ready} of {wanted} replicas are ready"))
        }
        State::Deleting => Outlook::NotYet("it is being deleted".to_owned()),
    }
}

fn hopeless(error: Option<&StatusError>) -> Outlook {
    error.map_or_else(|| Outlook::NotYet(String::new()), |error| Outlook::Hopeless(Box::new(error.clone())))
}

/// The error of a deployment as the failure of the command that waited for it.
fn broken(deployment: &Deployment, error: &StatusError) -> Failure {
    let reason = visible::part(&error.message);
    let mut message = format!("{} does not serve revision {}: {reason}", who(deployment), error.revision);
    let log: Vec<_> = log_lines(error).into_iter().map(visible::line).collect();
    if !log.is_empty() {
        message.push_str("\n\nThe last lines of its log:\n  ");
        message.push_str(&log.join("\n  "));
    }
    let id = deployment.id;
    let again = deployment.spec.name.as_deref().map_or_else(
        || format!("Fix the model and deploy it again; modelway delete {id} removes this one."),
        |name| format!("Fix the model and deploy it again with --name {name}."),
    );
    let stays = match deployment.status.serving_revision.filter(|_| deployment.status.state == State::Degraded) {
        Some(serving) if serving != deployment.revision => {
            let handle = deployment.spec.name.as_deref().map_or_else(|| id.to_string(), |it| visible::line(it).into());
            format!("Revision {serving} keeps serving. To go back to it: modelway rollback {handle}\n")
        }
        Some(serving) => format!("Revision {serving} keeps serving. "),
        None => String::new(),
    };
    Failure::failed(message).next(format!("{stays}{again}\nSee more: modelway describe {id}; modelway logs {id}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(state: &str, serving: Option<u32>, error_of: Option<u32>) -> Deployment {
        let ready = u32::from(state == "active");
        let error = error_of.map(|revision| json!({"code": "crash_loop", "message": "it dies", "revision": revision}));
        serde_json::from_value(json!({
            "id": 1, "model": {"version": "1", "type": "single", "bucket": "/m", "prefix": ""}, "replicas": 1,
            "request_timeout_ms": 1, "idempotent": true, "status": state, "ready_replicas": ready,
            "serving_revision": serving, "error": error, "url": null, "revision": 2,
            "created_at": "2025-03-09T02:16:33.792720", "updated_at": "2025-03-09T02:16:33.792720"
        }))
        .expect("a deployment")
    }

    fn looks(state: &str, serving: Option<u32>, error_of: Option<u32>) -> &'static str {
        match outlook(&deployment(state, serving, error_of), RevisionNumber(2)) {
            Outlook::Done => "done",
            Outlook::NotYet(_) => "not yet",
            Outlook::Hopeless(_) => "hopeless",
        }
    }

    #[test]
    fn it_is_done_when_the_awaited_revision_serves_and_hopeless_when_that_one_failed() {
        assert_eq!(looks("active", Some(2), None), "done");
        let mut again = deployment("active", Some(1), None);
        again.revision = RevisionNumber(1);
        assert_eq!(outlook(&again, RevisionNumber(2)), Outlook::Done, "somebody went back meanwhile");
        assert!(matches!(outlook(&deployment("active", Some(2), None), RevisionNumber(1)), Outlook::Done));
        let mut back = deployment("active", Some(2), None);
        back.revision = RevisionNumber(1);
        assert!(matches!(outlook(&back, RevisionNumber(1)), Outlook::NotYet(_)), "the newer one serves still");
        assert_eq!(looks("active", Some(1), None), "not yet", "the old revision serves");
        assert_eq!(looks("failed", None, Some(2)), "hopeless");
        assert_eq!(looks("failed", None, Some(1)), "not yet", "that was the revision before");
        assert_eq!(looks("degraded", Some(1), Some(2)), "hopeless");
        assert_eq!(looks("degraded", Some(2), Some(2)), "not yet", "it serves, and more may come");
        assert_eq!(looks("pending", None, None), "not yet");
        let mut scaled = deployment("active", Some(2), None);
        scaled.spec.replicas = 2;
        assert!(matches!(outlook(&scaled, RevisionNumber(2)), Outlook::NotYet(_)), "the status is that of before");
        scaled.spec.replicas = 0;
        assert!(matches!(outlook(&scaled, RevisionNumber(2)), Outlook::NotYet(_)), "it still runs");
    }

    #[test]
    fn a_failure_says_why_with_the_log_and_what_to_do() {
        let deployment = deployment("degraded", Some(1), Some(2));
        let error = StatusError {
            code: "model_invalid".into(),
            message: "model.onnx is no ONNX file".into(),
            revision: RevisionNumber(2),
            log: vec!["line one".into(), "error: model.onnx is no ONNX file".into()],
        };
        let failure = broken(&deployment, &error);
        assert_eq!(failure.exit, Exit::Failed);
        let text = failure.to_string();
        for part in [
            "revision 2: model.onnx is no ONNX file",
            "\n  line one",
            "Revision 1 keeps serving. To go back to it: modelway rollback md-1",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert_eq!(text.matches("is no ONNX file").count(), 1, "the log does not repeat the reason: {text}");
    }
}
