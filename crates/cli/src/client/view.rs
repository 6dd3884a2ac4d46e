//! Prints deployments for people.

use std::fmt::Write as _;

use api::{
    Deployment, Event, Timestamp,
    deployment::{DEFAULT_PLACEMENT, ModelSource, StatusError},
    registry::ModelContent,
    revision::RevisionView,
};

use base::visible;

use super::secret;
use crate::output::{Table, age, at, time};

/// `iris (md-1)`, or `md-1` if it has no name.
pub(super) fn who(deployment: &Deployment) -> String {
    let id = deployment.id;
    deployment.spec.name.as_ref().map_or_else(|| id.to_string(), |name| format!("{} ({id})", visible::line(name)))
}

/// One line per deployment.
pub(super) fn table(deployments: &[Deployment], now: Timestamp) -> String {
    let placed = deployments.iter().any(|deployment| deployment.spec.placement() != DEFAULT_PLACEMENT);
    let header = ["ID", "NAME", "STATUS", "READY", "REVISION", "DIGEST", "MODEL", "AGE"];
    let mut table = Table::new(header.into_iter().chain(placed.then_some("PLACEMENT")));
    for deployment in deployments {
        let status = &deployment.status;
        let serving = status.serving_revision.filter(|serving| *serving != deployment.revision);
        let placement = placed.then(|| deployment.spec.placement().to_owned());
        let cells = [
            deployment.id.to_string(),
            deployment.spec.name.clone().unwrap_or_else(|| "-".to_owned()),
            status.state.to_string(),
            format!("{}/{}", status.ready_replicas, deployment.spec.replicas),
            match serving {
                Some(serving) => format!("{serving} -> {}", deployment.revision),
                None => deployment.revision.to_string(),
            },
            status.digest.as_deref().map_or_else(|| "-".to_owned(), short),
            serving_model(deployment),
            age(now.since(deployment.created_at)),
        ];
        table.row(cells.into_iter().chain(placement));
    }
    table.text()
}

/// The model that answers requests; it differs from the wanted one while a newer revision loads or has failed.
fn serving_model(deployment: &Deployment) -> String {
    let status = &deployment.status;
    match status.serving_revision {
        Some(serving) if serving != deployment.revision => status.artifact.clone().unwrap_or_else(|| "-".to_owned()),
        _ => model(&deployment.spec.model),
    }
}

/// The source of a model, in short.
pub(super) fn model(source: &ModelSource) -> String {
    match source {
        ModelSource::Registered(model) => format!("models:/{}/{}", model.name, model.version),
        ModelSource::Bucket(model) => {
            let bucket = model.bucket.trim_end_matches('/');
            let prefix = model.prefix.trim_matches('/');
            let gap = if prefix.is_empty() { "" } else { "/" };
            format!("{bucket}{gap}{prefix} ({})", model.version)
        }
    }
}

/// The lines of a log that add something to the reason of an error: `serve` prints the reason itself at the end.
pub(super) fn log_lines(error: &StatusError) -> Vec<&str> {
    let new = |line: &&str| line.strip_prefix("error: ") != Some(error.message.as_str());
    error.log.iter().map(String::as_str).filter(new).collect()
}

/// The error, with the last lines of the log; empty if there is none.
pub(super) fn trouble(deployment: &Deployment) -> String {
    let Some(error) = &deployment.status.error else { return String::new() };
    let (code, message) = (visible::line(&error.code), visible::part(&error.message));
    let mut text = format!("\nError ({code}, revision {}): {message}\n", error.revision);
    for line in log_lines(error) {
        let _ = writeln!(text, "  {}", visible::line(line));
    }
    text
}

/// Everything about one deployment.
pub(super) fn describe(
    deployment: &Deployment,
    revisions: &[RevisionView],
    events: &[Event],
    now: Timestamp,
) -> String {
    let (spec, status) = (&deployment.spec, &deployment.status);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{:<18}{}", format!("{name}:"), visible::line(value));
    };
    let none = "-".to_owned();
    line("Deployment", &who(deployment));
    line("Status", &status.state.to_string());
    if spec.placement() != DEFAULT_PLACEMENT {
        line("Placement", spec.placement());
    }
    line("Endpoint", deployment.url.as_ref().unwrap_or(&none));
    line("Model", &model(&spec.model));
    line("Artefact", status.artifact.as_ref().unwrap_or(&none));
    line("Digest", status.digest.as_ref().unwrap_or(&none));
    if let Some(python) = &spec.python {
        line("Python", python);
    }
    let serving = status.serving_revision.map_or(none.clone(), |serving| serving.to_string());
    line("Revision", &format!("{} (serving: {serving})", deployment.revision));
    line("Replicas", &format!("{} ready, {} wanted", status.ready_replicas, spec.replicas));
    let amounts = |resources: &api::deployment::Resources| {
        let amount =
            |amount: &Option<api::quantity::Quantity>| amount.as_ref().map_or(none.clone(), ToString::to_string);
        format!("cpu {}, memory {}", amount(&resources.cpu), amount(&resources.memory))
    };
    line("Promised", &amounts(&spec.request_res));
    line("Limits", &amounts(&spec.limit_res));
    line("Request timeout", &time(spec.request_timeout_ms));
    line("Idempotent", if spec.idempotent { "yes" } else { "no" });
    for (key, value) in &spec.labels {
        line("Label", &format!("{key}={value}"));
    }
    for (key, value) in &spec.env {
        line("Environment", &format!("{key}={}", secret::shown(key, value)));
    }
    for (name, path) in &spec.env_from_file {
        line("Environment", &format!("{name} from the file {path}"));
    }
    line("Created", &format!("{} ({} ago)", at(deployment.created_at), age(now.since(deployment.created_at))));
    line("Changed", &format!("{} ({} ago)", at(deployment.updated_at), age(now.since(deployment.updated_at))));
    for note in &status.notes {
        line("Note", note);
    }
    text.push_str(&trouble(deployment));
    if !status.replica_status.is_empty() {
        let mut table = Table::new(["REPLICA", "REVISION", "STATE", "RESTARTS", "AGE", "REASON"]);
        for replica in &status.replica_status {
            table.row([
                replica.id.to_string(),
                replica.revision.to_string(),
                replica.state.to_string(),
                replica.restarts.to_string(),
                replica.started_at.map_or(none.clone(), |start| age(now.since(start))),
                replica.reason.clone().unwrap_or_default(),
            ]);
        }
        let _ = write!(text, "\nReplicas\n{}", table.text());
    }
    if !revisions.is_empty() {
        let _ = write!(text, "\nRevisions\n{}", revision_table(revisions, now));
    }
    if !events.is_empty() {
        let _ = write!(text, "\nLast events\n{}", event_table(events, false));
    }
    text
}

/// The digest of a revision's files, once it is known.
fn digest(revision: &RevisionView) -> Option<&str> {
    match (&revision.pin, &revision.content) {
        (Some(pin), _) => Some(&pin.files.digest),
        (None, ModelContent::Artifact { digest, .. }) => digest.as_deref(),
        (None, ModelContent::Image { .. }) => None,
    }
}

/// A shortened digest.
fn short(digest: &str) -> String {
    digest.trim_start_matches("sha256:").chars().take(12).collect()
}

fn revision_table(revisions: &[RevisionView], now: Timestamp) -> String {
    let mut table = Table::new(["REVISION", "MODEL VERSION", "AGE", "STATE", "DIGEST", "CONTENT"]);
    for revision in revisions {
        let state = match (revision.serving, revision.wanted) {
            (true, _) => "serving",
            (false, true) => "wanted",
            (false, false) => "kept",
        };
        table.row([
            revision.number.to_string(),
            revision.model_version.clone(),
            age(now.since(revision.created_at)),
            state.to_owned(),
            digest(revision).map_or_else(|| "-".to_owned(), short),
            match &revision.content {
                ModelContent::Artifact { uris, .. } => match &revision.pin {
                    Some(pin) => pin.files.uri.clone(),
                    None => uris.join(" or "),
                },
                ModelContent::Image { reference } => reference.clone(),
            },
        ]);
    }
    table.text()
}

/// An event as it is printed while following: its columns have the widths of typical values.
pub(super) fn event_line(event: &Event, with_deployment: bool) -> String {
    let cells = event_cells(event, with_deployment);
    let widths: &[usize] = if with_deployment { &[24, 10, 6, 18, 0] } else { &[24, 6, 18, 0] };
    let columns = cells.iter().zip(widths).map(|(cell, &width)| format!("{:<width$}", visible::line(cell)));
    columns.collect::<Vec<_>>().join("   ") + "\n"
}

/// One line per event.
pub(super) fn event_table(events: &[Event], with_deployment: bool) -> String {
    let mut table = match with_deployment {
        true => Table::new(["TIME", "DEPLOYMENT", "ACTOR", "KIND", "MESSAGE"]),
        false => Table::new(["TIME", "ACTOR", "KIND", "MESSAGE"]),
    };
    for event in events {
        table.row(event_cells(event, with_deployment));
    }
    table.text()
}

/// An event as the columns of [`event_table`].
fn event_cells(event: &Event, with_deployment: bool) -> Vec<String> {
    let mut cells = vec![at(event.at)];
    if with_deployment {
        cells.push(event.deployment.to_string());
    }
    cells.extend([event.actor.clone(), event.kind.clone(), event.message.clone()]);
    cells
}

#[cfg(test)]
mod tests {
    use api::revision::{FoundFiles, Pin};
    use serde_json::json;

    use super::*;

    fn sample() -> Deployment {
        serde_json::from_value(json!({
            "id": 26, "name": "iris", "labels": {"team": "botany"},
            "model": {"version": "3", "type": "single", "bucket": "s3://models/", "prefix": "iris"},
            "replicas": 2, "request_res": {"cpu": "500m"}, "limit_res": {}, "env": {"A": "1"},
            "request_timeout_ms": 30000, "idempotent": true, "status": "degraded", "ready_replicas": 1,
            "serving_revision": 1, "artifact": "s3://models/iris/2",
            "digest": "sha256:5e6e9f09b64d2d1a8ae9e7c0f3a1c0b1e9c1d7b5a2f64a3e5a0f5b7d8c9e0f12",
            "error": {"code": "crash_loop", "message": "the model cannot be read; export it again", "revision": 2,
                      "log": ["loading", "not an ONNX file"]},
            "notes": ["memory limits are not enforced on this machine"],
            "replica_status": [
                {"id": "md-26-r1-0", "revision": 1, "state": "ready", "restarts": 0, "started_at": "2025-03-09T02:16:40.000000"},
                {"id": "md-26-r2-0", "revision": 2, "state": "backing_off", "restarts": 4, "started_at": null, "reason": "exit status 78"}
            ],
            "url": "http://127.0.0.1:8080/v2/models/md-26/infer", "revision": 2,
            "created_at": "2025-03-09T02:16:33.792720", "updated_at": "2025-03-09T02:16:33.792735"
        }))
        .expect("a deployment")
    }

    fn now() -> Timestamp {
        "2025-03-09T02:21:33.800000".parse().expect("a time")
    }

    #[test]
    fn an_event_that_is_followed_stands_below_the_one_before() {
        let event = |kind: &str| Event {
            id: 1,
            deployment: api::DeploymentId(26),
            revision: None,
            at: now(),
            actor: "user".into(),
            kind: kind.into(),
            message: "why".into(),
            evidence: json!(null),
        };
        let place = |kind: &str, all: bool| event_line(&event(kind), all).find("why");
        assert_eq!(place("created", true), place("deletion_requested", true));
        assert_eq!(place("created", false), place("deletion_requested", false));
    }

    #[test]
    fn a_list_is_a_line_each() {
        insta::assert_snapshot!(table(&[sample()], now()));
    }

    #[test]
    fn a_description_shows_replicas_revisions_the_error_with_its_log_notes_and_events() {
        let event = Event {
            id: 1,
            deployment: api::DeploymentId(26),
            revision: None,
            at: now(),
            actor: "user".into(),
            kind: "created".into(),
            message: "created with 2 replicas".into(),
            evidence: json!(null),
        };
        let revision = |number: u32, serving: bool| RevisionView {
            number: api::RevisionNumber(number),
            wanted: !serving,
            serving,
            model_version: number.to_string(),
            content: ModelContent::Artifact {
                uris: vec![format!("s3://models/iris/{number}"), "s3://models/iris".to_owned()],
                digest: None,
            },
            pin: serving.then(|| Pin {
                files: FoundFiles {
                    uri: "s3://models/iris/1".into(),
                    digest: sample().status.digest.unwrap_or_default(),
                    fingerprint: None,
                },
                at: now(),
            }),
            created_at: sample().created_at,
        };
        let revisions = [revision(2, false), revision(1, true)];
        insta::assert_snapshot!(describe(&sample(), &revisions, &[event], now()));
    }
}
