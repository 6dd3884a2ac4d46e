use std::collections::HashMap;

use api::{
    DeploymentId, EndpointId, ReplicaId, RevisionNumber, State,
    deployment::LogPayloads,
    route::{Policy, RouteReplica, RouteRevision, Targets},
};
use proptest::prelude::*;

use super::*;
use crate::{choose::split::revision, table::endpoint::Endpoint};

fn endpoint(weights: &[u32], replicas: usize) -> Arc<Endpoint> {
    let revisions = weights
        .iter()
        .zip(1..)
        .map(|(weight, number)| RouteRevision {
            number: RevisionNumber(number),
            model_version: format!("v{number}"),
            weight: *weight,
            replicas: (0..replicas)
                .map(|index| RouteReplica {
                    id: ReplicaId(format!("r{number}-{index}")),
                    address: format!("127.0.0.1:{}", 1000 + index).parse().expect("an address"),
                })
                .collect(),
        })
        .collect();
    let targets = Targets { state: State::Active, reason: None, answers_to: None, revisions };
    let policy = Policy {
        deployment: DeploymentId(1),
        name: None,
        deleting: false,
        requires: Vec::new(),
        request_timeout_ms: 1,
        idempotent: true,
        log_payloads: LogPayloads::None,
    };
    Arc::new(Endpoint::new(EndpointId(1), policy, Some(targets), None))
}

proptest! {
    #[test]
    fn requests_divide_as_the_weights_say(weights in proptest::collection::vec(0_u32..1000, 1..5)) {
        prop_assume!(weights.iter().any(|weight| *weight > 0));
        let endpoint = endpoint(&weights, 1);
        let mut counts: HashMap<u32, f64> = HashMap::new();
        let n = 2_000;
        for _ in 0..n {
            *counts.entry(revision(&endpoint, None).expect("all have replicas").number).or_default() += 1.0;
        }
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (weight, number) in weights.iter().zip(1..) {
            let share = counts.get(&number).copied().unwrap_or(0.0) / f64::from(n);
            let wanted = f64::from(*weight) / total;
            if weights.len() > 1 {
                prop_assert!((share - wanted).abs() < 0.01, "revision {number}: {share} instead of {wanted}");
            }
            if weights.len() > 1 && *weight == 0 {
                prop_assert_eq!(share, 0.0);
            }
        }
    }

    #[test]
    fn the_replica_with_the_fewest_outstanding_wins(loads in proptest::collection::vec(0_u32..50, 1..=FEW)) {
        let endpoint = endpoint(&[1], loads.len());
        let revision = revision(&endpoint, None).expect("it has replicas");
        for (replica, load) in revision.replicas.iter().zip(&loads) {
            replica.outstanding.store(*load, Ordering::Relaxed);
        }
        let chosen = choose(revision, &[], || 1).expect("there is one");
        prop_assert_eq!(outstanding(chosen), *loads.iter().min().expect("not empty"));
    }

    #[test]
    fn many_replicas_with_equal_work_stay_even(replicas in FEW + 1..40) {
        let endpoint = endpoint(&[1], replicas);
        let revision = revision(&endpoint, None).expect("it has replicas");
        for _ in 0..replicas * 50 {
            choose(revision, &[], || 1).expect("there is one").outstanding.fetch_add(1, Ordering::Relaxed);
        }
        let most = revision.replicas.iter().map(|replica| outstanding(replica)).max().expect("not empty");
        prop_assert!(most <= 60, "one of {replicas} got {most} where 50 are its share");
    }

    #[test]
    fn whatever_failed_somebody_is_chosen(replicas in 1_usize..20, ejected in any::<u32>(), tried in any::<u32>()) {
        let endpoint = endpoint(&[1], replicas);
        let revision = revision(&endpoint, None).expect("it has replicas");
        let mut had = Vec::new();
        for (index, replica) in revision.replicas.iter().enumerate() {
            if ejected >> index & 1 == 1 {
                replica.eject(1);
            }
            if tried >> index & 1 == 1 {
                had.push(Arc::clone(replica));
            }
        }
        let chosen = choose(revision, &had, || 1);
        prop_assert_eq!(chosen.is_some(), had.len() < replicas || replicas == 1 && had.is_empty());
        if let Some(chosen) = chosen {
            prop_assert!(!had.iter().any(|had| Arc::ptr_eq(had, chosen)));
            let healthy_left = revision.replicas.iter().any(|replica| {
                !replica.is_ejected(|| 1) && !had.iter().any(|had| Arc::ptr_eq(had, replica))
            });
            prop_assert!(!(healthy_left && chosen.is_ejected(|| 1)), "an ejected one while a healthy one was left");
        }
    }
}

#[test]
fn equals_take_turns() {
    let endpoint = endpoint(&[1], 3);
    let revision = revision(&endpoint, None).expect("it has replicas");
    let mut counts: HashMap<&str, u32> = HashMap::new();
    for _ in 0..30 {
        *counts.entry(&choose(revision, &[], || 1).expect("there is one").id).or_default() += 1;
    }
    assert!(counts.values().all(|count| *count == 10), "{counts:?}");
}

#[test]
fn a_version_is_reached_whatever_its_weight() {
    let endpoint = endpoint(&[100, 0], 1);
    assert_eq!(revision(&endpoint, Some("v2")).map(|revision| revision.number), Some(2));
    assert!(revision(&endpoint, Some("v3")).is_none());
}

#[test]
fn ejections_double_and_are_forgotten_after_a_good_answer() {
    let endpoint = endpoint(&[1], 1);
    let replica = &endpoint.revisions[0].replicas[0];
    replica.eject(1_000);
    assert!(replica.is_ejected(|| 1_499) && !replica.is_ejected(|| 1_700));
    replica.eject(2_000);
    assert!(replica.is_ejected(|| 2_999) && !replica.is_ejected(|| 3_300));
    replica.answered_well();
    assert!(!replica.is_ejected(|| 2_001));
    replica.eject(4_000);
    assert!(!replica.is_ejected(|| 4_700), "it begins anew");
}
