//! Registered models and who uses them.

use api::{
    DeploymentId, DeploymentSpec,
    registry::{ModelContent, ModelVersionSpec, RegisteredModelSpec},
};
use serde_json::json;
use store::{DeploymentFilter, Store, StoreError};

use crate::support::{Database, NOW, SECOND, create, hold, on_both, spec};

on_both! {
    models_and_versions_are_kept
    versions_are_listed_as_numbers_then_by_creation
    a_deployment_runs_what_its_registered_version_consists_of
    a_version_in_use_cannot_be_deleted
    a_version_deleted_while_it_is_being_deployed_is_either_gone_or_used
}

fn model(name: &str) -> RegisteredModelSpec {
    RegisteredModelSpec { name: name.into(), description: "flowers".into(), labels: [("a".into(), "b".into())].into() }
}

fn version(name: &str) -> ModelVersionSpec {
    ModelVersionSpec::from_json(json!({"version": name, "uri": format!("s3://b/{name}"), "format": "onnx"})).unwrap()
}

fn serving(version: &str) -> DeploymentSpec {
    spec(json!({"model": {"name": "iris", "version": version}}))
}

async fn with_versions(store: &Store, versions: &[&str]) {
    store.model_create(&model("iris"), NOW).await.unwrap();
    for (name, age) in versions.iter().zip(0..) {
        store.model_version_create("iris", &version(name), NOW.after(SECOND * age)).await.unwrap();
    }
}

fn conflict<T: std::fmt::Debug>(outcome: Result<T, StoreError>) -> (&'static str, String) {
    match outcome {
        Err(StoreError::Conflict { code, reason }) => (code, reason),
        other => panic!("not a conflict: {other:?}"),
    }
}

async fn models_and_versions_are_kept(database: Database) {
    let store = database.open().await;
    for name in ["rose", "iris", "digits"] {
        store.model_create(&model(name), NOW).await.unwrap();
    }
    assert_eq!(conflict(store.model_create(&model("iris"), NOW).await).0, "name_taken");
    assert_eq!(store.model_get("iris").await.unwrap().spec, model("iris"));
    let (page, next) = store.model_list(None, 2).await.unwrap();
    assert_eq!(page.iter().map(|model| model.spec.name.as_str()).collect::<Vec<_>>(), ["digits", "iris"]);
    let (page, next) = store.model_list(next.as_deref(), 2).await.unwrap();
    assert_eq!((page.len(), next), (1, None));

    let made = store.model_version_create("iris", &version("v1"), NOW).await.unwrap();
    assert_eq!(store.model_version_get("iris", "v1").await.unwrap(), made);
    assert_eq!(conflict(store.model_version_create("iris", &version("v1"), NOW).await).0, "exists");
    assert!(matches!(store.model_version_create("lily", &version("v1"), NOW).await, Err(StoreError::NotFound { .. })));
    assert_eq!(conflict(store.model_delete("iris").await).0, "in_use");
    store.model_version_delete("iris", "v1").await.unwrap();
    assert!(matches!(store.model_version_delete("iris", "v1").await, Err(StoreError::NotFound { .. })));
    store.model_delete("iris").await.unwrap();
    assert!(matches!(store.model_delete("iris").await, Err(StoreError::NotFound { .. })));
    assert!(matches!(store.model_version_list("iris").await, Err(StoreError::NotFound { .. })));
    assert_eq!(store.model_version_list("rose").await.unwrap(), []);
}

async fn versions_are_listed_as_numbers_then_by_creation(database: Database) {
    let store = database.open().await;
    with_versions(&store, &["10", "v2", "9", "v1", "1"]).await;
    let listed = store.model_version_list("iris").await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.version.as_str()).collect::<Vec<_>>(), ["1", "9", "10", "v2", "v1"]);
}

async fn a_deployment_runs_what_its_registered_version_consists_of(database: Database) {
    let store = database.open().await;
    with_versions(&store, &["v1", "v2"]).await;
    let id = create(&store, &serving("v1")).await;
    let (_, revisions) = store.deployment_wanted(id, &[]).await.unwrap().unwrap();
    assert_eq!(revisions[0].spec.content, ModelContent::Artifact { uris: vec!["s3://b/v1".into()], digest: None });
    assert_eq!(revisions[0].spec.model_version, "v1");
    let changed = store.deployment_replace(id, &serving("v2"), None, NOW).await.unwrap();
    assert_eq!(changed.revision.0, 2);
    for missing in [serving("v9"), spec(json!({"model": {"name": "lily", "version": "v1"}}))] {
        assert!(matches!(store.deployment_create(&missing, None, NOW).await, Err(StoreError::NotFound { .. })));
        assert!(matches!(store.deployment_replace(id, &missing, None, NOW).await, Err(StoreError::NotFound { .. })));
    }
    let of = async |name: &str| {
        let filter = DeploymentFilter { model: Some(name.into()), ..DeploymentFilter::default() };
        store.deployment_list(&filter, None, 9).await.unwrap().items.len()
    };
    assert_eq!((of("iris").await, of("lily").await), (1, 0));
}

async fn a_version_in_use_cannot_be_deleted(database: Database) {
    let store = database.open().await;
    with_versions(&store, &["v1", "v2"]).await;
    let id = create(&store, &serving("v1")).await;
    let (code, reason) = conflict(store.model_version_delete("iris", "v1").await);
    assert_eq!((code, reason.contains("deployment 1")), ("in_use", true), "{reason}");
    store.deployment_replace(id, &serving("v2"), None, NOW).await.unwrap();
    assert_eq!(conflict(store.model_version_delete("iris", "v1").await).0, "in_use", "it can still be gone back to");
    store.deployment_delete(id, None, NOW).await.unwrap();
    store.model_version_delete("iris", "v1").await.unwrap();
    store.model_version_delete("iris", "v2").await.unwrap();
    let lease = hold(&store, id).await;
    store.deployment_purge(&lease, NOW).await.unwrap();
}

async fn a_version_deleted_while_it_is_being_deployed_is_either_gone_or_used(database: Database) {
    let (one, other) = (database.open().await, database.open().await);
    with_versions(&one, &["v1"]).await;
    for n in 1..10_i64 {
        let name = format!("w{n}");
        one.model_version_create("iris", &version(&name), NOW).await.unwrap();
        let wanted = serving(&name);
        let (made, deleted) =
            tokio::join!(one.deployment_create(&wanted, None, NOW), other.model_version_delete("iris", &name));
        match (made, deleted) {
            (Ok(made), Err(StoreError::Conflict { code: "in_use", .. })) => {
                one.deployment_delete(made.id, None, NOW).await.unwrap();
            }
            (Err(StoreError::NotFound { .. }), Ok(())) => {}
            other => panic!("{other:?}"),
        }
    }
    let _: DeploymentId = create(&one, &serving("v1")).await;
}
