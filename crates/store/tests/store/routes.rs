//! The route table as gateways follow it.

use api::{DeploymentId, State};
use serde_json::json;

use crate::support::{Database, NOW, create, hold, on_both, route, spec, status};

on_both! {
    a_follower_sees_each_endpoints_newest_route_once
    a_route_that_is_the_same_makes_no_version
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
    store.deployment_observed(&lease, &active, Some(&route(1, "h:1")), &[], None, NOW).await.unwrap();
    let mut seen = Vec::new();
    let mut after = 0;
    loop {
        let page = store.route_changes(after, 2).await.unwrap();
        seen.extend(page.changes.iter().map(|change| change.deployment.0));
        after = page.version;
        if !page.more {
            break;
        }
    }
    assert_eq!((seen, after), (vec![1, 3, 4, 5, 2], 6));
    let page = store.route_changes(after, 2).await.unwrap();
    assert_eq!((page.changes.len(), page.version, page.more), (0, 6, false));
}

async fn a_route_that_is_the_same_makes_no_version(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({}))).await;
    let lease = hold(&store, id).await;
    for address in ["h:1", "h:1", "h:2"] {
        let active = status(State::Active, Some(1));
        store.deployment_observed(&lease, &active, Some(&route(1, address)), &[], None, NOW).await.unwrap();
    }
    store.deployment_observed(&lease, &status(State::Active, Some(1)), None, &[], None, NOW).await.unwrap();
    let page = store.route_changes(0, 9).await.unwrap();
    assert_eq!((page.version, page.changes[0].version), (3, 3));
}

async fn a_renamed_endpoint_keeps_the_name_that_its_replicas_answer_to(database: Database) {
    let store = database.open().await;
    let names = async || {
        let route = store.route_changes(0, 9).await.unwrap().changes.remove(0).route.unwrap();
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
    let serving = api::route::Route { name: name("old"), ..route(1, "h:1") };
    let observe = async |route: &api::route::Route| {
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
    observe(&api::route::Route { name: name("new"), ..route(2, "h:2") }).await;
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
    assert_eq!(news.changes.len(), 1);
    assert_eq!((news.changes[0].deployment, news.changes[0].route.is_none()), (id, true));
    let whole = store.route_changes(0, 9).await.unwrap();
    assert_eq!((whole.changes.len(), whole.version), (1, news.version), "a newcomer is told of what is there only");
}

async fn a_version_that_the_table_never_had_counts_as_none(database: Database) {
    let store = database.open().await;
    create(&store, &spec(json!({}))).await;
    let page = store.route_changes(99, 9).await.unwrap();
    assert_eq!((page.changes.len(), page.version), (1, 1));
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
        for change in page.changes {
            assert!(change.version > after, "in order");
            assert!(seen.insert(change.deployment), "{} came twice", change.deployment);
        }
        after = page.version;
        if over && !page.more {
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
