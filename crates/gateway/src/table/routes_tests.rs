use std::sync::atomic::AtomicUsize;

use api::{
    ReplicaId, RevisionNumber, State,
    deployment::LogPayloads,
    route::{RouteReplica, RouteRevision, form1::Route},
};

use super::*;

fn route(name: Option<&str>, replicas: &[&str]) -> Route {
    let replicas = replicas
        .iter()
        .map(|id| RouteReplica { id: ReplicaId((*id).to_owned()), address: "127.0.0.1:1".parse().expect("an address") })
        .collect();
    Route {
        name: name.map(str::to_owned),
        former: None,
        state: State::Active,
        reason: None,
        revisions: vec![RouteRevision {
            number: RevisionNumber(1),
            model_version: "v1".to_owned(),
            weight: 100,
            replicas,
        }],
        request_timeout_ms: 1_000,
        idempotent: true,
        log_payloads: LogPayloads::None,
    }
}

/// The changes of deployments and their endpoints.
fn changes(of: impl IntoIterator<Item = (i64, Option<Route>)>) -> Vec<Change> {
    let both = of.into_iter().flat_map(|(id, route)| {
        let (policy, targets) = route.map(|route| route.split(DeploymentId(id))).unzip();
        let endpoint = Entry::Endpoint { key: EndpointId(id), value: policy };
        [endpoint, Entry::Targets { key: DeploymentId(id), value: targets }]
    });
    both.map(|entry| Change { version: 1, entry }).collect()
}

fn has(table: &Table, name: &str) -> bool {
    table.find(name).is_some()
}

#[test]
fn what_is_alive_survives_a_change_of_the_route() {
    let table = Table::new();
    table.apply(changes([(1, Some(route(Some("iris"), &["a", "b"])))]), 1, false);
    let before = table.find("iris").expect("it is there");
    before.revisions[0].replicas[0].outstanding.store(7, Ordering::Relaxed);
    before.revisions[0].live.stats.get().count(200);
    table.apply(changes([(1, Some(route(Some("iris"), &["a", "c"])))]), 2, false);
    let after = table.find("md-1").expect("it is there");
    assert_eq!(after.revisions[0].replicas[0].outstanding.load(Ordering::Relaxed), 7);
    assert_eq!(after.revisions[0].live.stats.get().codes(), [(200, 1)]);
    assert_eq!(after.revisions[0].replicas[1].id, "c");
}

#[test]
fn names_follow_their_deployments() {
    let table = Table::new();
    table.apply(changes([(1, Some(route(Some("iris"), &[]))), (2, Some(route(None, &[])))]), 1, false);
    assert!(has(&table, "iris") && has(&table, "md-1") && has(&table, "md-2"));
    // The name passes from one to the other in one batch, in whichever order they come.
    table.apply(changes([(2, Some(route(Some("iris"), &[]))), (1, Some(route(Some("old"), &[])))]), 2, false);
    assert_eq!(table.find("iris").map(|endpoint| endpoint.id), Some(DeploymentId(2)));
    assert_eq!(table.find("old").map(|endpoint| endpoint.id), Some(DeploymentId(1)));
    table.apply(changes([(2, None)]), 3, false);
    assert!(!has(&table, "iris") && !has(&table, "md-2") && has(&table, "md-1"));
    assert_eq!((table.endpoints(), table.version()), (1, 3));
    assert_eq!(table.first_names(10).len(), 2);
}

#[test]
fn a_name_that_has_passed_to_another_endpoint_stays_there_when_the_first_one_goes() {
    let table = Table::new();
    table.apply(changes([(1, Some(route(Some("iris"), &[]))), (2, Some(route(None, &[])))]), 1, false);
    table.apply(changes([(2, Some(route(Some("iris"), &[])))]), 2, false);
    table.apply(changes([(1, None)]), 3, false);
    assert_eq!(table.find("iris").map(|endpoint| endpoint.id), Some(DeploymentId(2)));
    assert_eq!(table.first_names(10), ["iris", "md-2"]);
    assert_eq!(table.first_names(1), ["iris"]);
}

#[test]
fn the_first_names_are_those_that_come_first_in_the_alphabet() {
    let table = Table::new();
    let named = |id: i64| (id % 3 == 0).then(|| format!("m{id}"));
    table.apply(changes((1..=1_234).map(|id| (id, Some(route(named(id).as_deref(), &[]))))), 1, false);
    let mut all: Vec<_> = (1..=1_234).map(|id| format!("md-{id}")).chain((1..=1_234).filter_map(named)).collect();
    all.sort_unstable();
    for most in [0, 1, 7, 400, 1_234, 5_000] {
        assert_eq!(table.first_names(most), all[..most.min(all.len())], "{most}");
    }
}

#[test]
fn an_id_is_a_name_only_as_it_is_written() {
    let table = Table::new();
    table.apply(changes([(7, Some(route(Some("md-07"), &[]))), (8, Some(route(None, &[])))]), 1, false);
    assert_eq!(table.find("md-07").map(|endpoint| endpoint.id), Some(DeploymentId(7)), "it is the name of 7");
    for wrong in ["md-08", "md-+8", "md-", "md-8 ", "8", "md--8", "md-99999999999999999999"] {
        assert!(!has(&table, wrong), "{wrong}");
    }
    assert!(has(&table, "md-8"));
}

#[test]
fn a_reset_forgets_what_it_does_not_name() {
    let table = Table::new();
    table.apply(changes((1..=50).map(|id| (id, Some(route(Some(&format!("m{id}")), &[]))))), 1, false);
    assert_eq!(table.endpoints(), 50);
    table.apply(changes([(7, Some(route(Some("m7"), &[])))]), 9, true);
    assert_eq!(table.endpoints(), 1);
    assert!(has(&table, "m7") && !has(&table, "m8") && !has(&table, "md-8"));
}

#[test]
fn near_names_are_found_in_a_small_table_and_bounded_in_a_large_one() {
    let table = Table::new();
    table.apply(changes([(1, Some(route(Some("iris"), &[]))), (2, Some(route(Some("digits"), &[])))]), 1, false);
    assert_eq!(table.near_names("irsi"), ["iris"]);
    assert!(table.near_names("something-else").is_empty());
    assert!(table.near_names(&"x".repeat(100_000)).is_empty());
    table.apply(changes((3..=20_000).map(|id| (id, Some(route(Some(&format!("model-{id}")), &[]))))), 2, false);
    assert_eq!(table.near_names("digit").first().map(String::as_str), Some("digits"));
}

#[test]
fn a_name_that_is_being_lost_leads_to_its_endpoint_until_it_is_gone_or_taken() {
    let table = Table::new();
    let losing = |former: &str, name: &str| Route { former: Some(former.to_owned()), ..route(Some(name), &["a"]) };
    let id = |name: &str| table.find(name).map(|endpoint| endpoint.id.0);
    table.apply(changes([(1, Some(route(Some("old"), &["a"])))]), 1, false);
    table.apply(changes([(1, Some(losing("old", "new")))]), 2, false);
    assert_eq!((id("old"), id("new"), id("md-1")), (Some(1), Some(1), Some(1)));
    // Somebody else takes the name, and gives it away again, while the first still answers to it.
    table.apply(changes([(2, Some(route(Some("old"), &["b"])))]), 3, false);
    assert_eq!(id("old"), Some(2));
    table.apply(changes([(2, Some(route(Some("other"), &["b"])))]), 4, false);
    assert_eq!(id("old"), Some(1));
    table.apply(changes([(1, Some(route(Some("new"), &["c"])))]), 5, false);
    assert_eq!((id("old"), id("new")), (None, Some(1)));
    table.apply(changes([(1, Some(losing("new", "newer")))]), 6, false);
    table.apply(changes([(1, None)]), 7, false);
    assert_eq!((id("new"), id("newer")), (None, None));
}

#[test]
fn a_name_that_is_being_lost_is_found_at_every_moment() {
    let table = Table::new();
    let losing = |former: &str, name: &str| Route { former: Some(former.to_owned()), ..route(Some(name), &["a"]) };
    let name = |step: usize| format!("name-{step}");
    table.apply(changes([(1, Some(route(Some(&name(0)), &["a"])))]), 1, false);
    let (now, last) = (AtomicUsize::new(0), 5_000);
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut missed = 0_u32;
            loop {
                let step = now.load(Ordering::SeqCst);
                if step == last {
                    return missed;
                }
                let found = has(&table, &name(step));
                missed += u32::from(!found && now.load(Ordering::SeqCst) == step);
            }
        });
        for step in 0..last {
            table.apply(changes([(1, Some(losing(&name(step), &name(step + 1))))]), 2, false);
            now.store(step + 1, Ordering::SeqCst);
            table.apply(changes([(1, Some(route(Some(&name(step + 1)), &["a"])))]), 3, false);
        }
        assert_eq!(looking.join().expect("no panic"), 0);
    });
}

fn policy(id: i64, deployment: i64, requires: &[&str]) -> Entry {
    let (policy, _) = route(None, &[]).split(DeploymentId(deployment));
    let requires = requires.iter().map(|name| (*name).to_owned()).collect();
    Entry::Endpoint { key: EndpointId(id), value: Some(Policy { requires, ..policy }) }
}

fn targets(id: i64, replicas: &[&str]) -> Entry {
    let (_, targets) = route(None, replicas).split(DeploymentId(id));
    Entry::Targets { key: DeploymentId(id), value: Some(targets) }
}

fn apply(table: &Table, entries: impl IntoIterator<Item = Entry>) {
    table.apply(entries.into_iter().map(|entry| Change { version: 1, entry }).collect(), 1, false);
}

fn replicas(table: &Table, name: &str) -> Vec<String> {
    let endpoint = table.find(name).expect("it is there");
    endpoint.revisions.iter().flat_map(|revision| revision.replicas.iter().map(|it| it.id.clone())).collect()
}

#[test]
fn a_policy_and_targets_meet_in_whichever_order_they_come() {
    let table = Table::new();
    apply(&table, [targets(1, &["a"])]);
    assert!(!has(&table, "md-1"), "nobody was told of an endpoint");
    apply(&table, [policy(1, 1, &[])]);
    assert_eq!(replicas(&table, "md-1"), ["a"]);
    apply(&table, [policy(2, 2, &[])]);
    assert!(replicas(&table, "md-2").is_empty());
    apply(&table, [targets(2, &["b"])]);
    assert_eq!(replicas(&table, "md-2"), ["b"]);
    table.find("md-2").expect("it is there").revisions[0].live.stats.get().count(200);
    apply(&table, [policy(2, 2, &[])]);
    let endpoint = table.find("md-2").expect("it is there");
    assert_eq!(endpoint.revisions[0].live.stats.get().codes(), [(200, 1)], "a new policy starts nothing anew");
    assert_eq!(table.waiting(), []);
}

#[test]
fn an_endpoint_that_requires_an_unknown_capability_serves_nothing_until_it_does_not() {
    let table = Table::new();
    apply(&table, [policy(1, 1, &["keys"]), targets(1, &["a"])]);
    apply(&table, [targets(1, &["b"])]);
    let endpoint = table.find("md-1").expect("it is known");
    assert!(endpoint.is_refused() && replicas(&table, "md-1").is_empty());
    let refusal = crate::choose::split::choose(&endpoint, Some("v1")).expect_err("nothing serves");
    assert_eq!(refusal.status, http::StatusCode::SERVICE_UNAVAILABLE);
    assert!(endpoint.why_not("md-1").contains("requires `keys`"), "{}", endpoint.why_not("md-1"));
    apply(&table, [policy(1, 1, &[])]);
    assert_eq!(replicas(&table, "md-1"), ["b"]);
    apply(&table, [policy(1, 1, &["keys", "quotas"])]);
    assert!(replicas(&table, "md-1").is_empty());
    apply(&table, [policy(1, 1, &[])]);
    assert_eq!(replicas(&table, "md-1"), ["b"], "what it was told meanwhile is not forgotten");
}

#[test]
fn an_endpoint_leads_where_its_policy_says() {
    let table = Table::new();
    apply(&table, [policy(1, 1, &[]), targets(1, &["a"]), targets(2, &["b"])]);
    apply(&table, [policy(7, 1, &[])]);
    assert_eq!((replicas(&table, "md-1"), replicas(&table, "md-7")), (vec!["a".to_owned()], vec!["a".to_owned()]));
    apply(&table, [targets(1, &["c"])]);
    assert_eq!((replicas(&table, "md-1"), replicas(&table, "md-7")), (vec!["c".to_owned()], vec!["c".to_owned()]));
    apply(&table, [policy(7, 2, &[])]);
    assert_eq!((replicas(&table, "md-1"), replicas(&table, "md-7")), (vec!["c".to_owned()], vec!["b".to_owned()]));
    apply(&table, [policy(1, 2, &[]), Entry::Endpoint { key: EndpointId(7), value: None }]);
    assert_eq!((replicas(&table, "md-1"), has(&table, "md-7")), (vec!["b".to_owned()], false));
    apply(&table, [Entry::Targets { key: DeploymentId(2), value: None }]);
    assert!(replicas(&table, "md-1").is_empty());
    apply(&table, [policy(1, 1, &[])]);
    assert_eq!(replicas(&table, "md-1"), ["c"], "targets stay until they are said to be gone");
}

#[test]
fn a_batch_that_is_brought_in_by_parts_is_brought_in_whole() {
    let table = Table::new();
    let half = i64::try_from(AT_ONCE).expect("a small number") / 2;
    // The parts end between an endpoint and its targets, and some hold nothing that is known.
    let unknown = std::iter::repeat_n(Entry::Unknown, AT_ONCE + 1);
    let many = (1..=2 * half).flat_map(|id| [policy(id, id, &[]), targets(id, &["a"])]);
    let all: Vec<_> = unknown.clone().chain(many).chain(unknown).chain([policy(1, 1, &["keys"])]).collect();
    apply(&table, all);
    assert_eq!(table.endpoints(), AT_ONCE);
    assert!((2..=2 * half).all(|id| replicas(&table, &format!("md-{id}")) == ["a"]));
    assert!(replicas(&table, "md-1").is_empty(), "the last change of an entry counts");
    let rest = [policy(5, 5, &[]), targets(5, &["b"]), targets(1, &["c"])];
    table.apply(rest.map(|entry| Change { version: 2, entry }).into(), 2, true);
    assert_eq!((table.endpoints(), replicas(&table, "md-5")), (1, vec!["b".to_owned()]));
    assert_eq!(table.waiting().len(), 1, "targets that were named stay");
}
