//! The route table as gateways follow it.

use api::{
    DeploymentId, EndpointId, State,
    route::{Entry, Targets},
};
use serde_json::json;

use crate::support::{Database, NOW, create, execute, hold, on_both, spec, status, targets};

on_both! {
    a_follower_sees_each_endpoints_newest_route_once
    a_route_that_is_the_same_makes_no_version
    only_the_half_of_a_route_that_changed_is_told
    what_a_process_of_0_1_0_writes_beside_this_version_is_told
    a_renamed_endpoint_keeps_the_name_that_its_replicas_answer_to
    a_gone_endpoint_leaves_a_tombstone_for_those_who_knew_it
    a_version_that_the_table_never_had_counts_as_none
    a_follower_misses_nothing_while_many_write
    hints_tell_of_this_processs_own_commits
}

async fn a_follower_sees_each_endpoints_newest_route_once(database: Database) {
    let store = database.open().await;
    for _ in 0..5 {
        create(&store, &spec(json!({}))).await;
    }
    let id = DeploymentId(2);
    let lease = hold(&store, id).await;
    let active = status(State::Active, Some(1));
    store.deployment_observed(&lease, &active, Some(&targets(1, "h:1")), &[], None, NOW).await.unwrap();
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = store.route_changes(after, 2).await.unwrap();
        after = page.version;
        let more = page.more;
        seen.extend(page.whole_routes().iter().map(|change| change.deployment.0));
        if !more {
            break;
        }
    }
    assert_eq!((seen, after), (vec![1, 3, 4, 5, 2], 6));
    let page = store.route_changes(after, 2).await.unwrap();
    assert_eq!((page.version, page.more, page.changes(i64::MAX)), (6, false, vec![]));
}

async fn a_route_that_is_the_same_makes_no_version(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({}))).await;
    let lease = hold(&store, id).await;
    for address in ["h:1", "h:1", "h:2"] {
        let active = status(State::Active, Some(1));
        store.deployment_observed(&lease, &active, Some(&targets(1, address)), &[], None, NOW).await.unwrap();
    }
    store.deployment_observed(&lease, &status(State::Active, Some(1)), None, &[], None, NOW).await.unwrap();
    let page = store.route_changes(0, 9).await.unwrap();
    assert_eq!((page.version, page.whole_routes()[0].version), (3, 3));
}

/// The kinds and keys of what changed after a version.
async fn entries(store: &store::Store, after: i64) -> Vec<(&'static str, i64, bool)> {
    let changes = store.route_changes(after, 9).await.unwrap().changes(after).into_iter();
    let told = |entry| match entry {
        Entry::Endpoint { key: EndpointId(key), value } => ("endpoint", key, value.is_some()),
        Entry::Targets { key: DeploymentId(key), value } => ("targets", key, value.is_some()),
        Entry::Unknown => ("unknown", 0, false),
    };
    changes.map(|change| told(change.entry)).collect()
}

async fn only_the_half_of_a_route_that_changed_is_told(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({"name": "iris"}))).await;
    assert_eq!(entries(&store, 0).await, [("endpoint", 1, true), ("targets", 1, true)]);
    let lease = hold(&store, id).await;
    let active = status(State::Active, Some(1));
    store.deployment_observed(&lease, &active, Some(&targets(1, "h:1")), &[], None, NOW).await.unwrap();
    assert_eq!(entries(&store, 1).await, [("targets", 1, true)]);
    store.deployment_replace(id, &spec(json!({"name": "rose"})), None, NOW).await.unwrap();
    assert_eq!(entries(&store, 2).await, [("endpoint", 1, true)]);
    assert_eq!(entries(&store, 1).await, [("endpoint", 1, true), ("targets", 1, true)]);
    store.deployment_delete(id, None, NOW).await.unwrap();
    assert_eq!(entries(&store, 3).await, [("endpoint", 1, true)], "its replicas go on until they are drained");
    store.deployment_purge(&lease, NOW).await.unwrap();
    assert_eq!(entries(&store, 4).await, [("endpoint", 1, false), ("targets", 1, false)]);
    assert_eq!(entries(&store, 0).await, []);
}

async fn what_a_process_of_0_1_0_writes_beside_this_version_is_told(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({"name": "iris"}))).await;
    let old = async |version: i64, route: &str| {
        let text = format!(
            "UPDATE counter SET value = {version} WHERE name = 'route'; \
             UPDATE route SET version = {version}, route = {route} WHERE deployment = 1"
        );
        execute(&database.url, &text).await;
    };
    let route = r#"'{"name":"rose","state":"active","revisions":[{"number":1,"model_version":"v1","weight":100,"replicas":[{"id":"r","address":"h:1"}]}],"request_timeout_ms":5,"idempotent":false,"log_payloads":"all"}'"#;
    old(2, route).await;
    assert_eq!(entries(&store, 1).await, [("endpoint", 1, true), ("targets", 1, true)]);
    let told = store.route_changes(0, 9).await.unwrap().whole_routes().remove(0).route.unwrap();
    assert_eq!((told.name.as_deref(), told.request_timeout_ms, told.revisions.len()), (Some("rose"), 5, 1));
    // Either of this version's writers goes on from it.
    let lease = hold(&store, id).await;
    let active = status(State::Active, Some(1));
    store.deployment_observed(&lease, &active, Some(&targets(1, "h:2")), &[], None, NOW).await.unwrap();
    assert_eq!(entries(&store, 2).await, [("targets", 1, true)]);
    let told = store.route_changes(0, 9).await.unwrap().whole_routes().remove(0).route.unwrap();
    assert_eq!((told.name.as_deref(), told.request_timeout_ms), (Some("rose"), 5));
    old(4, "NULL").await;
    assert_eq!(entries(&store, 3).await, [("endpoint", 1, false), ("targets", 1, false)]);
}

async fn a_renamed_endpoint_keeps_the_name_that_its_replicas_answer_to(database: Database) {
    let store = database.open().await;
    let names = async || {
        let route = store.route_changes(0, 9).await.unwrap().whole_routes().remove(0).route.unwrap();
        (route.name, route.former)
    };
    let name = |name: &str| Some(name.to_owned());
    let id = create(&store, &spec(json!({"name": "old"}))).await;
    let rename = async |to: serde_json::Value| {
        store.deployment_replace(id, &spec(json!({"name": to})), None, NOW).await.unwrap();
    };
    rename(json!("early")).await;
    assert_eq!(names().await, (name("early"), None), "nothing serves that could answer to another name");
    rename(json!("old")).await;
    let lease = hold(&store, id).await;
    let serving = Targets { answers_to: name("old"), ..targets(1, "h:1") };
    let observe = async |route: &Targets| {
        store.deployment_observed(&lease, &status(State::Active, Some(1)), Some(route), &[], None, NOW).await.unwrap();
    };
    observe(&serving).await;
    assert_eq!(names().await, (name("old"), None));
    rename(json!("new")).await;
    assert_eq!(names().await, (name("new"), name("old")));
    // The worker does not know of the change yet.
    observe(&serving).await;
    assert_eq!(names().await, (name("new"), name("old")));
    rename(json!("newer")).await;
    assert_eq!(names().await, (name("newer"), name("old")), "what serves still answers to the first name");
    rename(json!("old")).await;
    assert_eq!(names().await, (name("old"), None));
    rename(json!(null)).await;
    assert_eq!(names().await, (None, name("old")));
    rename(json!("new")).await;
    observe(&Targets { answers_to: name("new"), ..targets(2, "h:2") }).await;
    assert_eq!(names().await, (name("new"), None), "a replica answers to the new name");
    store.deployment_delete(id, None, NOW).await.unwrap();
    assert_eq!(names().await, (None, None));
}

async fn a_gone_endpoint_leaves_a_tombstone_for_those_who_knew_it(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({}))).await;
    create(&store, &spec(json!({}))).await;
    let known = store.route_changes(0, 9).await.unwrap().version;
    store.deployment_delete(id, None, NOW).await.unwrap();
    let lease = hold(&store, id).await;
    store.deployment_purge(&lease, NOW).await.unwrap();
    let news = store.route_changes(known, 9).await.unwrap();
    let version = news.version;
    let told = news.whole_routes();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].deployment, told[0].route.is_none()), (id, true));
    let whole = store.route_changes(0, 9).await.unwrap();
    assert_eq!((whole.version, whole.whole_routes().len()), (version, 1), "a newcomer is told of what is there only");
}

async fn a_version_that_the_table_never_had_counts_as_none(database: Database) {
    let store = database.open().await;
    create(&store, &spec(json!({}))).await;
    let page = store.route_changes(99, 9).await.unwrap();
    assert_eq!((page.version, page.whole_routes().len()), (1, 1));
}

async fn a_follower_misses_nothing_while_many_write(database: Database) {
    const EACH: usize = 15;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let store = database.open().await;
        writers.spawn(async move {
            for _ in 0..EACH {
                create(&store, &spec(json!({}))).await;
            }
        });
    }
    let store = database.open().await;
    let mut seen = std::collections::BTreeSet::new();
    let mut after = 0;
    loop {
        let over = writers.is_empty();
        let page = store.route_changes(after, 7).await.unwrap();
        let (version, more) = (page.version, page.more);
        for change in page.whole_routes() {
            assert!(change.version > after, "in order");
            assert!(seen.insert(change.deployment), "{} came twice", change.deployment);
        }
        after = version;
        if over && !more {
            break;
        }
        while writers.try_join_next().transpose().unwrap().is_some() {}
        tokio::task::yield_now().await;
    }
    assert_eq!(seen.len(), 3 * EACH, "one that committed late was not passed over");
}

async fn hints_tell_of_this_processs_own_commits(database: Database) {
    let store = database.open().await;
    let mut hints = store.clone().hints();
    assert!(!hints.has_changed().unwrap());
    let id = create(&store, &spec(json!({}))).await;
    assert!(hints.has_changed().unwrap());
    hints.mark_unchanged();
    hold(&store, id).await;
    assert!(!hints.has_changed().unwrap(), "nobody waits for a lease");
}
