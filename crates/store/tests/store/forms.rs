//! What records look like in the database. Each form that a release wrote has a golden file: column by column, the text that
//! is stored. A change of the present one is a new form, and the older ones stay readable.

use std::collections::BTreeMap;

use api::{
    DeploymentId, DeploymentSpec, DeploymentStatus, Epoch, ReplicaId, RevisionNumber, State,
    deployment::{ReplicaView, StatusError},
    replica::ReplicaState,
    stray::{Stray, StrayReason},
    traffic::{Role, Share},
};
use serde_json::{Value, json};
use store::{Store, StoreError};

use crate::support::{Database, NOW, execute, hold, on_both, spec, targets, text_of};

on_both! {
    records_are_written_in_the_present_form
    records_of_every_form_are_read
    a_record_of_a_later_form_is_refused_in_words
}

const PRESENT: (&str, &str) = ("2", include_str!("forms/2.json"));
const FORMS: [(&str, &str); 2] = [("1", include_str!("forms/1.json")), PRESENT];
const COLUMNS: [(&str, &str); 7] = [
    ("deployment", "spec"),
    ("deployment", "status"),
    ("deployment", "traffic"),
    ("revision", "spec"),
    ("route", "policy"),
    ("route", "targets"),
    ("stray", "stray"),
];

/// One with each field.
fn whole_spec() -> DeploymentSpec {
    spec(json!({
        "name": "iris", "placement": "local", "labels": {"team": "garden"}, "type": "gpu", "replicas": 2, "env": {"COLOUR": "blue"},
        "env_from_file": {"KEY": "/run/key"}, "request_timeout_ms": 70, "idempotent": false, "log_payloads": "sample", "python": "/usr/bin/python3",
        "model": {"version": "v1", "type": "single", "bucket": "/srv", "prefix": "iris", "digest": format!("sha256:{}", "a".repeat(64))},
    }))
}

fn whole_status() -> DeploymentStatus {
    let share = |revision, weight, role| Share { revision: RevisionNumber(revision), weight, role };
    DeploymentStatus {
        state: State::Degraded,
        ready_replicas: 1,
        serving_revision: Some(RevisionNumber(1)),
        traffic: vec![share(1, 100, Role::Stable), share(2, 0, Role::Pinned)],
        artifact: Some("/srv/iris/v1".into()),
        digest: Some(format!("sha256:{}", "b".repeat(64))),
        error: Some(StatusError {
            code: "crashed".into(),
            message: "it exited with status 1".into(),
            revision: RevisionNumber(1),
            log: vec!["a line".into()],
        }),
        notes: vec!["a note".into()],
        replica_status: vec![ReplicaView {
            id: ReplicaId("md-1-r1-0".into()),
            revision: RevisionNumber(1),
            state: ReplicaState::BackingOff,
            restarts: 3,
            started_at: Some(NOW),
            reason: Some("it exited with status 1".into()),
        }],
    }
}

fn stray() -> Stray {
    Stray {
        replica: ReplicaId("md-2-r1-0".into()),
        deployment: DeploymentId(2),
        revision: RevisionNumber(1),
        state: ReplicaState::Ready,
        reason: StrayReason::OtherDatabase,
        epoch: Some(Epoch("another".into())),
        started_at: Some(NOW),
        since: NOW,
        ending: false,
    }
}

/// A deployment, an endpoint, a revision and a stray replica with each field.
async fn write(store: &Store) {
    let id = store.deployment_create(&whole_spec(), None, NOW).await.unwrap().id;
    let lease = hold(store, id).await;
    store.deployment_observed(&lease, &whole_status(), Some(&targets(1, "h:1")), &[], None, NOW).await.unwrap();
    store.strays_seen("here", &[stray()], NOW).await.unwrap();
}

fn golden(text: &str) -> BTreeMap<String, Value> {
    serde_json::from_str(text).unwrap()
}

async fn records_are_written_in_the_present_form(database: Database) {
    let store = database.open().await;
    write(&store).await;
    let mut written = BTreeMap::new();
    for (table, column) in COLUMNS {
        let text = text_of(&database.url, &format!("SELECT {column} AS text FROM {table}")).await;
        written.insert(format!("{table}.{column}"), serde_json::from_str::<Value>(&text).unwrap());
    }
    let (form, expected) = PRESENT;
    assert_eq!(
        written,
        golden(expected),
        "form {form} is released: what is stored otherwise is a new form. Now it is\n{}",
        serde_json::to_string_pretty(&written).unwrap()
    );
}

async fn records_of_every_form_are_read(database: Database) {
    let store = database.open().await;
    write(&store).await;
    let read = async || {
        let (record, revisions) = store.deployment_wanted(DeploymentId(1), &[]).await.unwrap().unwrap();
        (record, revisions, store.route_changes(0, 9).await.unwrap().changes(0))
    };
    let mut expected = read().await;
    assert_eq!((&expected.0.spec, &expected.0.status), (&whole_spec(), &whole_status()));
    let present = expected.clone();
    for (form, text) in FORMS {
        expected = present.clone();
        if form == "1" {
            // It has no place for these.
            expected.0.spec.python = None;
            expected.0.status.digest = None;
            expected.1.iter_mut().for_each(|revision| revision.spec.python = None);
        }
        for (place, value) in golden(text) {
            let (table, column) = place.split_once('.').unwrap();
            let value = value.to_string().replace('\'', "''");
            execute(&database.url, &format!("UPDATE {table} SET {column} = '{value}'")).await;
        }
        if form == "1" {
            execute(&database.url, "UPDATE route SET policy_version = NULL, targets_version = NULL").await;
        }
        let (record, revisions, routes) = read().await;
        let mut wanted = expected.0.clone();
        if form == "1" {
            // It had no such field.
            wanted.status.digest = None;
        }
        assert_eq!((record, revisions), (wanted, expected.1.clone()), "form {form}");
        assert_eq!(store.stray_list().await.unwrap(), [stray()], "form {form}");
        let entries = |changes: &[api::route::Change]| changes.iter().map(|it| it.entry.clone()).collect::<Vec<_>>();
        assert_eq!(entries(&routes), entries(&expected.2), "form {form}");
        execute(&database.url, "UPDATE route SET policy_version = version, targets_version = version").await;
    }
}

async fn a_record_of_a_later_form_is_refused_in_words(database: Database) {
    let store = database.open().await;
    write(&store).await;
    execute(&database.url, r#"UPDATE deployment SET spec = '{"form":3,"anything":1}'"#).await;
    let error = store.deployment_get(DeploymentId(1)).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("format 3") && source.contains("upgrade"), "{source}");
}
