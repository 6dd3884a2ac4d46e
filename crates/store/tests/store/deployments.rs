//! What people do to deployments, and what of it workers see.

use api::{
    DeploymentId, DeploymentStatus, RevisionNumber, State,
    deployment::StatusError,
    event::NewEvent,
    traffic::{Role, Share, all_to},
};
use serde_json::{Value, json};
use store::{DeploymentFilter, Idempotent, Order, StoreError};

use crate::support::{
    Database, NOW, SECOND, content, create, event_kinds, execute, hold, named, on_both, spec, status, targets,
};

on_both! {
    a_new_deployment_is_there_with_all_that_belongs_to_it
    ids_are_never_given_twice
    a_name_belongs_to_one_deployment_and_is_free_when_its_deletion_is_asked_for
    one_name_that_many_ask_for_at_once_goes_to_one
    changing_what_runs_makes_a_revision_and_nothing_else_does
    the_same_words_again_are_a_new_revision
    going_back_takes_the_revision_itself_again
    old_revisions_go_but_never_one_that_is_served
    replacing_with_the_same_changes_nothing
    a_change_is_refused_when_somebody_was_faster
    of_two_changes_at_once_one_is_stale
    a_change_of_what_runs_is_no_longer_active
    asking_twice_for_the_deletion_changes_nothing
    an_idempotency_key_makes_one_deployment
    one_idempotency_key_used_many_times_at_once_makes_one_deployment
    an_idempotency_key_is_forgotten_after_a_day
    a_list_is_filtered_and_paged
    text_with_a_nul_is_kept_out_of_the_index_and_in_the_specification
    a_scan_sees_what_is_settled
    traffic_is_kept_and_what_0_1_0_says_of_it_holds
    states_are_counted
    events_are_paged_and_outlive_their_deployment
    an_event_keeps_what_it_was_given
    what_cannot_be_read_is_said
}

async fn a_new_deployment_is_there_with_all_that_belongs_to_it(database: Database) {
    let store = database.open().await;
    let spec = spec(json!({"name": "iris", "labels": {"team": "a"}, "request_timeout_ms": 77}));
    let made = store.deployment_create(&spec, None, NOW).await.unwrap();
    assert_eq!((made.id, made.revision, made.generation), (DeploymentId(1), RevisionNumber(1), 1));
    assert_eq!((made.created_at, made.updated_at, made.deleting_since), (NOW, NOW, None));
    assert_eq!(made.status, DeploymentStatus::pending());
    let other = database.open().await;
    assert_eq!(other.deployment_get(made.id).await.unwrap(), made, "another process reads the same");

    let (record, revisions) = other.deployment_wanted(made.id, &[]).await.unwrap().expect("it is there");
    assert_eq!(record, made);
    assert_eq!(revisions.len(), 1);
    assert_eq!((revisions[0].number, revisions[0].spec.name.as_deref()), (RevisionNumber(1), Some("iris")));
    assert_eq!(event_kinds(&store, made.id).await, ["created"]);
    let routes = other.route_changes(0, 10).await.unwrap().whole_routes();
    let route = routes[0].route.as_ref().expect("it has a route at once");
    assert_eq!((route.name.as_deref(), route.state, route.request_timeout_ms), (Some("iris"), State::Pending, 77));
    assert!(route.revisions.is_empty() && route.reason.is_some());
    assert_eq!(other.deployment_wanted(DeploymentId(9), &[]).await.unwrap(), None);
    assert!(matches!(other.deployment_get(DeploymentId(9)).await, Err(StoreError::NotFound { .. })));
}

async fn ids_are_never_given_twice(database: Database) {
    let store = database.open().await;
    let first = create(&store, &spec(json!({}))).await;
    store.deployment_delete(first, None, NOW).await.unwrap();
    let lease = hold(&store, first).await;
    store.deployment_purge(&lease, NOW).await.unwrap();
    drop(store);
    let store = database.open().await;
    assert_eq!(create(&store, &spec(json!({}))).await, DeploymentId(2));
}

async fn a_name_belongs_to_one_deployment_and_is_free_when_its_deletion_is_asked_for(database: Database) {
    let store = database.open().await;
    let first = create(&store, &named("iris")).await;
    let refused = store.deployment_create(&named("iris"), None, NOW).await.unwrap_err();
    assert!(matches!(&refused, StoreError::Conflict { code: "name_taken", reason } if reason.contains("deployment 1")));
    let second = create(&store, &named("digits")).await;
    let refused = store.deployment_replace(second, &named("iris"), None, NOW).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { code: "name_taken", .. }));
    assert_eq!(second, DeploymentId(2), "what was refused took no id");

    store.deployment_delete(first, None, NOW).await.unwrap();
    store.deployment_replace(second, &named("iris"), None, NOW).await.unwrap();
    let names = |page: store::RoutePage| -> Vec<_> {
        page.whole_routes()
            .into_iter()
            .filter_map(|change| change.route?.name.map(|name| (change.deployment.0, name)))
            .collect()
    };
    assert_eq!(names(store.route_changes(0, 10).await.unwrap()), [(2, "iris".to_owned())]);
    assert_eq!(store.deployment_get(first).await.unwrap().spec.name.as_deref(), Some("iris"), "as it was asked for");
}

async fn one_name_that_many_ask_for_at_once_goes_to_one(database: Database) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = database.open().await;
        tasks.spawn(async move { store.deployment_create(&named("iris"), None, NOW).await });
    }
    let outcomes = tasks.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refused in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(refused, StoreError::Conflict { code: "name_taken", .. }), "{refused:?}");
    }
}

async fn changing_what_runs_makes_a_revision_and_nothing_else_does(database: Database) {
    let store = database.open().await;
    let id = create(&store, &named("iris")).await;
    let change = async |changes: Value| {
        let mut whole = json!({"name": "iris"});
        whole.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        let record = store.deployment_replace(id, &spec(whole), None, NOW.after(SECOND)).await.unwrap();
        assert_eq!(record, store.deployment_get(id).await.unwrap());
        (record.revision.0, record.generation)
    };
    assert_eq!(change(json!({"replicas": 3})).await, (1, 2));
    assert_eq!(change(json!({"replicas": 3, "labels": {"a": "b"}})).await, (1, 3));
    assert_eq!(change(json!({"replicas": 3, "idempotent": false})).await, (1, 4));
    // Replicas are started with the time-out, and hold their runs to it.
    assert_eq!(change(json!({"replicas": 3, "request_timeout_ms": 5})).await, (2, 5));
    assert_eq!(change(json!({"replicas": 3, "env": {"A": "1"}})).await, (3, 6));
    assert_eq!(change(json!({"replicas": 3, "limit_res": {"cpu": "2"}})).await, (4, 7));
    assert_eq!(
        event_kinds(&store, id).await,
        [
            "created",
            "scaled",
            "updated",
            "updated",
            "revision_created",
            "updated",
            "revision_created",
            "updated",
            "revision_created"
        ]
    );
    assert_eq!(store.deployment_get(id).await.unwrap().updated_at, NOW.after(SECOND));
}

async fn the_same_words_again_are_a_new_revision(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    for (n, number) in [(2, 2), (1, 3), (1, 3), (2, 4)] {
        let changed = store.deployment_replace(id, &content(n), None, NOW).await.unwrap();
        assert_eq!(changed.revision, RevisionNumber(number), "the files may have changed since, and numbers only grow");
    }
}

async fn going_back_takes_the_revision_itself_again(database: Database) {
    let store = database.open().await;
    let id = create(&store, &spec(json!({"name": "iris", "env": {"A": "1"}}))).await;
    let change = async |more: Value| store.deployment_replace(id, &spec(more), None, NOW).await.unwrap();
    change(json!({"name": "iris", "env": {"A": "2"}, "limit_res": {"cpu": "1"}})).await;
    change(json!({"name": "iris", "env": {"A": "3"}, "replicas": 4, "labels": {"a": "b"}})).await;
    let back = store.deployment_restore(id, RevisionNumber(1), None, NOW).await.unwrap();
    assert_eq!((back.revision, back.generation), (RevisionNumber(1), 4));
    assert_eq!((back.spec.env["A"].as_str(), back.spec.replicas, back.spec.labels.len()), ("1", 4, 1));
    let (record, revisions) =
        store.deployment_wanted(id, &[RevisionNumber(3), RevisionNumber(9)]).await.unwrap().unwrap();
    assert_eq!((record.revision, &record.spec), (RevisionNumber(1), &back.spec));
    assert_eq!(revisions.iter().map(|revision| revision.number.0).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(event_kinds(&store, id).await.last().unwrap(), "revision_restored");
    let again = store.deployment_restore(id, RevisionNumber(1), None, NOW).await.unwrap();
    assert_eq!(again.generation, 4, "it is there already");
    for number in [0, 4] {
        let missing = store.deployment_restore(id, RevisionNumber(number), None, NOW).await.unwrap_err();
        assert!(matches!(missing, StoreError::NotFound { .. }), "{missing:?}");
    }
    let stale = store.deployment_restore(id, RevisionNumber(2), Some(3), NOW).await.unwrap_err();
    assert!(matches!(stale, StoreError::Stale));
    // A number is never given to another content; and a replica answers to the name that it was started with.
    assert_eq!(change(json!({"name": "flowers", "env": {"A": "1"}})).await.revision, RevisionNumber(4));
    let renamed = store.deployment_restore(id, RevisionNumber(2), None, NOW).await.unwrap();
    assert_eq!((renamed.revision, renamed.spec.name.as_deref()), (RevisionNumber(5), Some("flowers")));
    assert_eq!(renamed.spec.env["A"], "2");
}

async fn old_revisions_go_but_never_one_that_is_served(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    store.deployment_replace(id, &content(2), None, NOW).await.unwrap();
    let lease = hold(&store, id).await;
    let serving = status(State::Active, Some(2));
    store.deployment_observed(&lease, &serving, Some(&targets(2, "h:1")), &[], None, NOW).await.unwrap();
    for n in 3..=20 {
        store.deployment_replace(id, &content(n), None, NOW).await.unwrap();
    }
    let all: Vec<_> = (1..=20).map(RevisionNumber).collect();
    let (_, kept) = store.deployment_wanted(id, &all).await.unwrap().unwrap();
    let kept: Vec<_> = kept.iter().map(|revision| revision.number.0).collect();
    assert_eq!(kept, [2, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
    // The content of one that went is a new revision.
    assert_eq!(store.deployment_replace(id, &content(1), None, NOW).await.unwrap().revision, RevisionNumber(21));
}

async fn replacing_with_the_same_changes_nothing(database: Database) {
    let store = database.open().await;
    let id = create(&store, &named("iris")).await;
    let before = (store.deployment_get(id).await.unwrap(), store.route_changes(0, 10).await.unwrap().version);
    let same = store.deployment_replace(id, &named("iris"), Some(1), NOW.after(SECOND)).await.unwrap();
    assert_eq!((same, store.route_changes(0, 10).await.unwrap().version), before);
    assert_eq!(event_kinds(&store, id).await, ["created"]);
}

async fn a_change_is_refused_when_somebody_was_faster(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let changed = store.deployment_replace(id, &content(2), Some(1), NOW).await.unwrap();
    assert_eq!(changed.generation, 2);
    assert!(matches!(store.deployment_replace(id, &content(3), Some(1), NOW).await, Err(StoreError::Stale)));
    assert!(matches!(store.deployment_delete(id, Some(1), NOW).await, Err(StoreError::Stale)));
    assert_eq!(store.deployment_get(id).await.unwrap(), changed, "what is refused leaves nothing behind");
    assert!(matches!(
        store.deployment_replace(DeploymentId(9), &content(3), None, NOW).await,
        Err(StoreError::NotFound { .. })
    ));
}

async fn of_two_changes_at_once_one_is_stale(database: Database) {
    let stores = [database.open().await, database.open().await];
    let id = create(&stores[0], &content(1)).await;
    for round in 1..10_i64 {
        let n = usize::try_from(round).unwrap() * 10;
        let specs = [content(n), content(n + 1)];
        let (one, other) = tokio::join!(
            stores[0].deployment_replace(id, &specs[0], Some(round), NOW),
            stores[1].deployment_replace(id, &specs[1], Some(round), NOW),
        );
        let stale = [&one, &other].into_iter().filter(|outcome| matches!(outcome, Err(StoreError::Stale))).count();
        let done = [&one, &other].into_iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!((done, stale), (1, 1), "{one:?} {other:?}");
    }
}

async fn a_change_of_what_runs_is_no_longer_active(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let lease = hold(&store, id).await;
    let observe = async |seen: DeploymentStatus| {
        store.deployment_observed(&lease, &seen, None, &[], None, NOW).await.unwrap();
    };
    let error =
        StatusError { code: "crash_loop".into(), message: "x".into(), revision: RevisionNumber(1), log: vec![] };
    observe(status(State::Active, Some(1))).await;
    let changed = store.deployment_replace(id, &content(2), None, NOW).await.unwrap();
    assert_eq!(changed.status.state, State::Degraded, "it serves an older revision");
    observe(DeploymentStatus { error: Some(error), ..status(State::Failed, None) }).await;
    let changed = store.deployment_replace(id, &content(3), None, NOW).await.unwrap();
    assert_eq!((changed.status.state, changed.status.error), (State::Pending, None), "the new one has not failed");
    observe(status(State::Active, Some(3))).await;
    let labelled = spec(json!({"name": "iris", "env": {"N": "3"}, "labels": {"a": "b"}}));
    let changed = store.deployment_replace(id, &labelled, None, NOW).await.unwrap();
    assert_eq!(changed.status.state, State::Active, "labels change nothing that runs");
}

async fn asking_twice_for_the_deletion_changes_nothing(database: Database) {
    let store = database.open().await;
    let id = create(&store, &named("iris")).await;
    let asked = store.deployment_delete(id, Some(1), NOW).await.unwrap();
    assert_eq!((asked.status.state, asked.deleting_since), (State::Deleting, Some(NOW)));
    assert_eq!(store.deployment_get(id).await.unwrap(), asked);
    assert_eq!(store.deployment_delete(id, None, NOW.after(SECOND)).await.unwrap(), asked);
    assert_eq!(event_kinds(&store, id).await, ["created", "deletion_requested"]);
    let refused = store.deployment_replace(id, &named("other"), None, NOW).await.unwrap_err();
    assert!(matches!(refused, StoreError::Conflict { code: "deleting", .. }));
}

fn key(payload: &str) -> Option<Idempotent> {
    Some(Idempotent { key: "k".into(), payload: payload.into() })
}

async fn an_idempotency_key_makes_one_deployment(database: Database) {
    let store = database.open().await;
    let made = store.deployment_create(&content(1), key("p").as_ref(), NOW).await.unwrap();
    let again = store.deployment_create(&content(1), key("p").as_ref(), NOW.after(SECOND)).await.unwrap();
    assert_eq!(again, made);
    let refused = store.deployment_create(&content(2), key("q").as_ref(), NOW).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Conflict { code: "idempotency_key_reused", reason } if reason.contains("md-1"))
    );
    let changed = store.deployment_replace(made.id, &content(3), None, NOW).await.unwrap();
    assert_eq!(store.deployment_create(&content(1), key("p").as_ref(), NOW).await.unwrap(), changed, "as it is now");
    assert_eq!(create(&store, &spec(json!({}))).await, DeploymentId(2));
}

async fn one_idempotency_key_used_many_times_at_once_makes_one_deployment(database: Database) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let store = database.open().await;
        tasks.spawn(async move { store.deployment_create(&named("iris"), key("p").as_ref(), NOW).await.unwrap().id });
    }
    assert_eq!(tasks.join_all().await, [DeploymentId(1); 4]);
}

async fn an_idempotency_key_is_forgotten_after_a_day(database: Database) {
    let store = database.open().await;
    let anonymous = spec(json!({}));
    let first = store.deployment_create(&anonymous, key("p").as_ref(), NOW).await.unwrap().id;
    let later = NOW.after(SECOND * 24 * 3600);
    let second = store.deployment_create(&anonymous, key("q").as_ref(), later).await.unwrap().id;
    assert_ne!(first, second);
}

async fn a_list_is_filtered_and_paged(database: Database) {
    let store = database.open().await;
    for n in 1..=7 {
        let tier = if n % 2 == 0 { "even" } else { "odd" };
        create(&store, &spec(json!({"name": format!("m{n}"), "labels": {"tier": tier, "n": n.to_string()}}))).await;
    }
    let list = async |filter: DeploymentFilter, after, limit| {
        let page = store.deployment_list(&filter, after, limit).await.unwrap();
        (page.items.iter().map(|record| record.id.0).collect::<Vec<_>>(), page.next)
    };
    let all = DeploymentFilter::default;
    assert_eq!(list(all(), None, 3).await, (vec![1, 2, 3], Some(3)));
    assert_eq!(list(all(), Some(3), 4).await, (vec![4, 5, 6, 7], None));
    assert_eq!(list(all(), Some(7), 3).await, (vec![], None));
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let odd = DeploymentFilter { labels: vec![label("tier", "odd")], ..all() };
    assert_eq!(list(odd.clone(), None, 3).await, (vec![1, 3, 5], Some(5)));
    assert_eq!(list(odd.clone(), Some(5), 3).await, (vec![7], None));
    let both = DeploymentFilter { labels: vec![label("tier", "odd"), label("n", "5")], ..all() };
    assert_eq!(list(both, None, 3).await, (vec![5], None));
    assert_eq!(list(DeploymentFilter { name: Some("m4".into()), ..all() }, None, 3).await, (vec![4], None));
    assert_eq!(list(DeploymentFilter { name: Some("m4".into()), ..odd }, None, 3).await, (vec![], None));

    store.deployment_delete(DeploymentId(2), None, NOW).await.unwrap();
    let deleting = DeploymentFilter { state: Some(State::Deleting), ..all() };
    assert_eq!(list(deleting, None, 3).await, (vec![2], None));
    let unlabelled = store.deployment_replace(DeploymentId(1), &named("m1"), None, NOW).await.unwrap();
    assert!(unlabelled.spec.labels.is_empty());
    let odd = DeploymentFilter { labels: vec![label("tier", "odd")], ..all() };
    assert_eq!(list(odd, None, 9).await, (vec![3, 5, 7], None), "a label that was taken away no longer finds it");
}

async fn text_with_a_nul_is_kept_out_of_the_index_and_in_the_specification(database: Database) {
    let store = database.open().await;
    // A payload with such a label is refused; older rows may have one.
    let mut odd = spec(json!({"placement": "local"}));
    odd.labels.insert("a\0b".into(), "c\0".into());
    let id = create(&store, &odd).await;
    assert_eq!(store.deployment_get(id).await.unwrap().spec, odd);
    let filter = DeploymentFilter { labels: vec![("a\0b".into(), "c\0".into())], ..DeploymentFilter::default() };
    assert_eq!(store.deployment_list(&filter, None, 9).await.unwrap().items.len(), 1);
    assert!(matches!(store.model_get("a\0b").await, Err(StoreError::NotFound { .. })));
}

async fn traffic_is_kept_and_what_0_1_0_says_of_it_holds(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    for n in 2..=20 {
        store.deployment_replace(id, &content(n), None, NOW).await.unwrap();
    }
    let share = |revision, weight, role| Share { revision: RevisionNumber(revision), weight, role };
    let shares = vec![share(20, 100, Role::Stable), share(12, 0, Role::Pinned)];
    let lease = hold(&store, id).await;
    let serving = DeploymentStatus { traffic: shares.clone(), ..status(State::Active, Some(20)) };
    store.deployment_observed(&lease, &serving, None, &[], None, NOW).await.unwrap();
    let traffic = async || store.deployment_get(id).await.unwrap().status.traffic;
    assert_eq!(traffic().await, shares);
    for n in 21..=40 {
        store.deployment_replace(id, &content(n), None, NOW).await.unwrap();
    }
    let (_, kept) = store.deployment_wanted(id, &[]).await.unwrap().unwrap();
    let kept: Vec<_> = kept.iter().map(|revision| revision.number.0).collect();
    assert_eq!(kept, [12, 20, 40], "a worker gets each revision that has a share");
    for (serving, expected) in [
        ("25", vec![share(25, 100, Role::Stable), share(12, 0, Role::Pinned)]),
        ("12", vec![share(12, 100, Role::Pinned)]),
        ("NULL", vec![share(12, 0, Role::Pinned)]),
    ] {
        execute(&database.url, &format!("UPDATE deployment SET serving_revision = {serving}")).await;
        assert_eq!(traffic().await, expected);
    }
    execute(&database.url, "UPDATE deployment SET serving_revision = 3, traffic = NULL").await;
    assert_eq!(traffic().await, [all_to(RevisionNumber(3))]);
}

async fn a_scan_sees_what_is_settled(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let scan = async || store.deployment_scan(None, 10).await.unwrap().items.remove(0);
    assert!(!scan().await.settled);
    let lease = hold(&store, id).await;
    let active = status(State::Active, Some(1));
    store.deployment_observed(&lease, &active, None, &[], Some(1), NOW).await.unwrap();
    let seen = scan().await;
    assert_eq!((seen.settled, seen.state, seen.traffic), (true, State::Active, vec![all_to(RevisionNumber(1))]));
    store.deployment_replace(id, &content(2), None, NOW).await.unwrap();
    assert!(!scan().await.settled, "a change unsettles it");
    store.deployment_observed(&lease, &active, None, &[], Some(1), NOW).await.unwrap();
    assert!(!scan().await.settled, "an older generation does not settle it");
    store.deployment_observed(&lease, &active, None, &[], Some(2), NOW).await.unwrap();
    assert!(scan().await.settled);
    store.deployment_delete(id, None, NOW).await.unwrap();
    let seen = scan().await;
    assert_eq!((seen.settled, seen.state), (false, State::Deleting));
}

async fn states_are_counted(database: Database) {
    let store = database.open().await;
    for _ in 0..3 {
        create(&store, &spec(json!({}))).await;
    }
    store.deployment_delete(DeploymentId(2), None, NOW).await.unwrap();
    let counts = store.deployment_count().await.unwrap();
    assert_eq!(counts.len(), State::ALL.len(), "a state that nothing stands in is 0, not absent");
    let of = |state| counts.iter().find(|(found, _)| *found == state).unwrap().1;
    assert_eq!((of(State::Pending), of(State::Deleting), of(State::Active)), (2, 1, 0));
}

async fn events_are_paged_and_outlive_their_deployment(database: Database) {
    let store = database.open().await;
    let ids = [create(&store, &content(1)).await, create(&store, &spec(json!({}))).await];
    store.deployment_delete(ids[0], None, NOW).await.unwrap();
    let lease = hold(&store, ids[0]).await;
    store.deployment_purge(&lease, NOW).await.unwrap();
    assert_eq!(event_kinds(&store, ids[0]).await, ["created", "deletion_requested", "deleted"]);
    let first = store.event_list(None, Order::OldestFirst, None, 2).await.unwrap();
    assert_eq!(first.items.iter().map(|event| event.deployment).collect::<Vec<_>>(), ids);
    let rest = store.event_list(None, Order::OldestFirst, first.next, 2).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (2, None));
    let numbers = |page: &store::Page<api::Event>| page.items.iter().map(|event| event.id).collect::<Vec<_>>();
    let all = [numbers(&first), numbers(&rest)].concat();
    let newest = store.event_list(None, Order::NewestFirst, None, 3).await.unwrap();
    assert_eq!((numbers(&newest), newest.next), (vec![all[3], all[2], all[1]], Some(all[1])));
    let oldest = store.event_list(None, Order::NewestFirst, newest.next, 3).await.unwrap();
    assert_eq!((numbers(&oldest), oldest.next), (vec![all[0]], None));
    let of_one = store.event_list(Some(ids[0]), Order::NewestFirst, Some(all[3]), 1).await.unwrap();
    assert_eq!((numbers(&of_one), of_one.next), (vec![all[2]], Some(all[2])));
}

async fn an_event_keeps_what_it_was_given(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    let lease = hold(&store, id).await;
    let event = |message: String| NewEvent {
        revision: Some(RevisionNumber(1)),
        actor: "worker",
        kind: "failed",
        message,
        evidence: json!({"restarts": 5}),
    };
    let events = [event("it ended\0 by itself".into()), event("ü".repeat(20_000))];
    store
        .deployment_observed(&lease, &DeploymentStatus::pending(), None, &events, None, NOW.after(SECOND))
        .await
        .unwrap();
    let kept = store.event_list(Some(id), Order::OldestFirst, None, 10).await.unwrap().items.split_off(1);
    assert_eq!((kept[0].revision, kept[0].at), (Some(RevisionNumber(1)), NOW.after(SECOND)));
    assert_eq!((kept[0].actor.as_str(), &kept[0].evidence), ("worker", &json!({"restarts": 5})));
    assert_eq!(kept[0].message, "it ended\u{fffd} by itself");
    assert!(kept[1].message.len() <= 8 * 1024, "messages are bounded");
}

async fn what_cannot_be_read_is_said(database: Database) {
    let store = database.open().await;
    let id = create(&store, &content(1)).await;
    execute(&database.url, "UPDATE deployment SET spec = '{'").await;
    let error = store.deployment_get(id).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { what: "deployment's specification", .. }), "{error:?}");
}
