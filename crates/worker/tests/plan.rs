//! The plan, driven by hand and by chance, against a pretended machine that does what it is told.

#[path = "plan/world.rs"]
mod world;

use std::time::Duration;

use api::{
    ReplicaId, RevisionNumber, State,
    replica::ReplicaState,
    traffic::{Role, Share, all_to},
};
use modelway_worker::plan::Memory;
use proptest::prelude::*;
use world::{BACKOFF, RULES, World, found};

#[test]
fn a_new_deployment_is_pending_and_then_active() {
    let mut world = World::new(2);
    assert!(!world.pass().settled);
    assert_eq!((world.record.status.state, world.alive(1)), (State::Pending, 2));
    assert!(world.committed.as_ref().unwrap().reason.as_ref().unwrap().contains("revision 1 is starting"));
    world.become_ready(|r| r.id.0.ends_with("-0"));
    world.pass();
    assert_eq!((world.record.status.state, world.record.status.ready_replicas), (State::Pending, 1));
    assert_eq!(world.serving(), [1], "the first replica serves already");
    world.crash(false, |r| r.id.0.ends_with("-1"));
    world.pass();
    assert_eq!(world.record.status.state, State::Pending, "a replica that is started again is no other state");
    world.wait(BACKOFF);
    world.pass();
    world.become_ready(|_| true);
    let step = world.pass();
    assert_eq!(world.events.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), ["replica_failed", "active"]);
    assert!(step.settled && step.acts.is_empty() && step.look_again.is_none(), "{step:?}");
    assert_eq!(world.record.status.state, State::Active);
    assert_eq!(world.record.status.serving_revision, Some(RevisionNumber(1)));
    assert_eq!(world.serving(), [1]);
}

#[test]
fn a_pinned_revision_keeps_a_replica_and_is_routed_without_a_share() {
    let mut world = World::serving_revision_1(3);
    world.record.status.traffic[0].role = Role::Pinned;
    world.change();
    let settle = |world: &mut World| {
        for _ in 0..20 {
            world.become_ready(|_| true);
            world.finish_stopping();
            if world.pass().settled {
                return;
            }
            world.wait(RULES.route_settle);
        }
        panic!("it does not settle: {:?}", world.record.status);
    };
    settle(&mut world);
    let pinned = Share { revision: RevisionNumber(1), weight: 0, role: Role::Pinned };
    assert_eq!(world.record.status.traffic, [all_to(RevisionNumber(2)), pinned]);
    assert_eq!((world.alive(1), world.alive(2), world.record.status.ready_replicas), (1, 3, 3));
    let targets = world.committed.clone().unwrap();
    let routed = targets.revisions.iter().map(|it| (it.number.0, it.weight, it.replicas.len()));
    assert_eq!(routed.collect::<Vec<_>>(), [(2, 100, 3), (1, 0, 1)]);

    world.crash(false, |replica| replica.revision.0 == 1);
    world.pass();
    assert_eq!(world.record.status.state, State::Degraded, "its replica is missing");
    world.wait(BACKOFF);
    world.pass();
    settle(&mut world);
    assert_eq!((world.record.status.state, world.alive(1)), (State::Active, 1));

    world.scale(0);
    settle(&mut world);
    assert_eq!((world.record.status.state, world.alive(1), world.alive(2)), (State::Idle, 0, 0));
    assert_eq!(world.record.status.traffic, [pinned], "it is pinned again when it is scaled up");
    world.scale(2);
    settle(&mut world);
    assert_eq!((world.alive(1), world.alive(2)), (1, 2));
    world.delete();
    world.pass();
    world.wait(RULES.route_settle);
    world.pass();
    world.finish_stopping();
    assert_eq!((world.alive(1), world.alive(2)), (0, 0));
}

#[test]
fn one_replica_looks_what_is_there_before_the_others_start() {
    let mut world = World::new(3);
    world.silent = true;
    world.pass();
    assert_eq!(world.alive(1), 1, "two might find different files");
    world.crash(false, |_| true);
    world.pass();
    world.wait(BACKOFF);
    world.pass();
    assert_eq!(world.alive(1), 1, "it has not said yet what it found");
    world.machine.values_mut().for_each(|replica| replica.files = Some(found("one")));
    world.pass();
    assert_eq!(world.alive(1), 3);

    // Replicas of a version that does not tell what it serves stay, and a new one looks.
    let mut world = World::serving_revision_1(2);
    world.machine.values_mut().for_each(|replica| replica.files = None);
    world.revisions[0].pin = None;
    world.silent = true;
    assert!(world.pass().settled);
    world.scale(4);
    world.pass();
    assert_eq!(world.alive(1), 3);
}

#[test]
fn a_settled_deployment_needs_nothing_and_says_nothing_twice() {
    let mut world = World::serving_revision_1(2);
    let said = world.events.len();
    for _ in 0..3 {
        world.wait(Duration::from_hours(1));
        let step = world.pass();
        assert!(step.settled && step.acts.is_empty() && step.events.is_empty(), "{step:?}");
    }
    assert_eq!(world.events.len(), said);
}

#[test]
fn the_old_revision_serves_until_all_of_the_new_one_is_ready_and_then_drains() {
    let mut world = World::serving_revision_1(2);
    world.change();
    // What the store writes with a change, until a worker has looked at it.
    world.record.status.state = State::Degraded;
    assert!(world.pass().events.is_empty(), "the change is written already");
    assert_eq!((world.serving(), world.alive(1), world.alive(2)), (vec![1], 2, 2));
    assert_eq!(world.record.status.state, State::Active);
    assert_eq!(world.record.status.notes, ["revision 2 is starting; revision 1 serves until it is ready"]);

    world.become_ready(|r| r.id.0.ends_with("-0"));
    world.pass();
    assert_eq!(world.serving(), [1], "one of two is not enough");

    world.become_ready(|_| true);
    let step = world.pass();
    assert_eq!((world.serving(), world.alive(1)), (vec![2], 2), "the old one runs until the gateways have seen it");
    assert_eq!(step.settle, Some(RULES.route_settle));
    world.wait(Duration::from_millis(200));
    assert_eq!(world.pass().settle, Some(Duration::from_millis(300)));
    assert_eq!(world.alive(1), 2);
    world.wait(Duration::from_millis(300));
    world.pass();
    assert_eq!(world.alive(1), 0);
    world.finish_stopping();
    assert!(world.pass().settled);
    let kinds: Vec<_> = world.events.iter().map(|(kind, _)| *kind).collect();
    assert!(kinds.contains(&"traffic_moved"), "{kinds:?}");
}

#[test]
fn the_revision_that_serves_is_scaled_while_a_newer_one_loads_or_fails() {
    let mut loads = World::serving_revision_1(2);
    loads.change();
    loads.pass();
    for mut world in [loads, World::with_a_broken_change(2)] {
        world.scale(4);
        world.pass();
        assert_eq!((world.alive(1), world.alive(2), world.serving()), (4, 4, vec![1]));
        world.become_ready(|r| r.revision.0 == 1);
        world.pass();
        assert_eq!(world.record.status.ready_replicas, 4);
        assert_eq!(world.committed.as_ref().unwrap().revisions[0].replicas.len(), 4, "all of them serve");
        world.scale(1);
        world.pass();
        world.wait(RULES.route_settle);
        world.pass();
        assert_eq!((world.alive(1), world.alive(2), world.record.status.ready_replicas), (1, 1, 1));
        // One that ends is replaced, although a newer revision is wanted.
        world.machine.retain(|_, replica| replica.revision.0 != 1);
        world.pass();
        assert_eq!(world.alive(1), 1);
    }
}

#[test]
fn replicas_of_two_revisions_are_not_counted_as_one_lot() {
    let mut world = World::serving_revision_1(3);
    world.change();
    world.pass();
    world.become_ready(|_| true);
    world.pass();
    assert_eq!((world.alive(1), world.alive(2), world.record.status.ready_replicas), (3, 3, 3));
    assert!(world.events.iter().all(|(_, message)| !message.contains("6 of 3")), "{:?}", world.events);
}

#[test]
fn a_worker_without_memory_waits_for_the_gateways_anew() {
    let mut world = World::serving_revision_1(1);
    world.change();
    world.pass();
    world.become_ready(|_| true);
    world.pass();
    world.wait(RULES.route_settle);
    world.memory = Memory::default();
    assert_eq!(world.pass().settle, Some(RULES.route_settle));
    assert_eq!(world.alive(1), 1);
    world.wait(RULES.route_settle);
    world.pass();
    assert_eq!(world.alive(1), 0);
}

#[test]
fn a_new_revision_that_cannot_run_leaves_the_old_one_serving_and_says_so() {
    let mut world = World::with_a_broken_change(2);
    let status = &world.record.status;
    assert_eq!((status.state, status.serving_revision), (State::Degraded, Some(RevisionNumber(1))));
    let error = status.error.as_ref().unwrap();
    assert_eq!((error.code.as_str(), error.revision.0), ("model_invalid", 2));
    assert_eq!(error.log, ["the last line"]);
    assert_eq!(world.serving(), [1]);

    world.change();
    world.pass();
    assert_eq!((world.alive(2), world.alive(3)), (0, 2), "a replaced revision that never served goes at once");
    world.become_ready(|_| true);
    world.pass();
    assert_eq!((world.record.status.state, &world.record.status.error), (State::Active, &None));
    assert_eq!(world.serving(), [3]);
}

#[test]
fn the_old_revision_comes_back_where_the_new_one_cannot_run() {
    let mut world = World::with_a_broken_change(2);

    // Everything was ended and started again: nothing runs, and nothing is remembered.
    world.machine.clear();
    world.memory = Memory::default();
    world.pass();
    assert_eq!((world.alive(1), world.alive(2)), (2, 2));
    assert_eq!(world.serving(), Vec::<u32>::new());
    world.crash(true, |r| r.revision.0 == 2);
    world.pass();
    assert_eq!((world.record.status.state, world.alive(1)), (State::Failed, 2), "it is not given up");
    world.become_ready(|r| r.revision.0 == 1);
    world.pass();
    assert_eq!((world.record.status.state, world.serving()), (State::Degraded, vec![1]));

    // All of the old one's replicas crash at once.
    world.crash(false, |r| r.revision.0 == 1);
    world.pass();
    assert_eq!((world.alive(1), world.serving()), (2, Vec::<u32>::new()));
    world.wait(BACKOFF);
    world.pass();
    world.become_ready(|r| r.revision.0 == 1);
    world.pass();
    assert_eq!(world.serving(), [1]);
}

#[test]
fn a_crash_loop_fails_the_deployment_and_recovery_clears_it() {
    let mut world = World::new(1);
    world.pass();
    for restart in 0..3 {
        world.crash(false, |_| true);
        let step = world.pass();
        assert_eq!(world.record.status.state, State::Pending, "after {restart} restarts");
        assert_eq!(step.look_again, Some(BACKOFF));
        assert!(world.record.status.error.is_some(), "what happened is said at once");
        world.wait(BACKOFF);
        world.pass();
    }
    assert_eq!(world.record.status.state, State::Failed);
    let error = world.record.status.error.clone().unwrap();
    assert_eq!((error.code.as_str(), error.revision.0), ("crash_loop", 1));
    assert!(error.message.contains("started 4 times"), "{}", error.message);
    assert_eq!(world.committed.as_ref().unwrap().reason.as_ref(), Some(&error.message));
    world.become_ready(|_| true);
    assert!(world.pass().settled);
    assert_eq!((world.record.status.state, &world.record.status.error), (State::Active, &None));
}

#[test]
fn a_replica_that_crashes_makes_it_degraded_until_it_is_back() {
    let mut world = World::serving_revision_1(2);
    world.crash(false, |r| r.id.0.ends_with("-1"));
    world.pass();
    assert_eq!(world.record.status.state, State::Degraded);
    assert_eq!(world.record.status.error.as_ref().unwrap().code, "crashed");
    assert_eq!(world.committed.as_ref().unwrap().revisions[0].replicas.len(), 1);
    world.wait(BACKOFF);
    world.pass();
    world.become_ready(|_| true);
    assert!(world.pass().settled);
}

#[test]
fn a_revision_that_is_never_ready_fails_at_its_deadline_and_stays_so_for_a_new_worker() {
    let mut world = World::new(1);
    let step = world.pass();
    assert!(step.look_again.is_some_and(|again| again <= RULES.start_deadline));
    world.wait(RULES.start_deadline);
    world.pass();
    assert_eq!(world.record.status.state, State::Failed);
    assert_eq!(world.record.status.error.as_ref().unwrap().code, "start_timeout");
    world.memory = Memory::default();
    world.pass();
    assert_eq!(world.record.status.state, State::Failed);
    world.become_ready(|_| true);
    assert!(world.pass().settled);
}

#[test]
fn scaling_down_takes_replicas_off_the_route_before_they_end() {
    let mut world = World::serving_revision_1(3);
    world.scale(1);
    let step = world.pass();
    assert_eq!(world.committed.as_ref().unwrap().revisions[0].replicas.len(), 1);
    assert_eq!((world.alive(1), step.settle), (3, Some(RULES.route_settle)));
    assert_eq!(world.record.status.state, State::Active);
    world.wait(RULES.route_settle);
    world.pass();
    assert_eq!(world.alive(1), 1);
}

#[test]
fn no_replicas_is_idle_and_the_endpoint_says_why() {
    let mut world = World::serving_revision_1(1);
    world.scale(0);
    world.pass();
    assert_eq!(world.record.status.state, State::Idle);
    assert!(world.committed.as_ref().unwrap().reason.as_ref().unwrap().contains("0 replicas"));
    world.wait(RULES.route_settle);
    world.pass();
    world.finish_stopping();
    assert!(world.pass().settled);
    assert!(world.machine.is_empty());
}

#[test]
fn a_deleted_deployment_drains_and_is_then_gone() {
    let mut world = World::serving_revision_1(2);
    world.delete();
    world.pass();
    assert_eq!((world.record.status.state, world.serving(), world.alive(1)), (State::Deleting, vec![], 2));
    world.wait(RULES.route_settle);
    world.pass();
    assert_eq!((world.alive(1), world.gone), (0, false), "its replicas are still stopping");
    world.finish_stopping();
    assert!(world.pass().gone);
}

#[test]
fn a_rejected_deployment_fails_with_the_backends_reason() {
    let mut world = World::new(1);
    world.rejects = Some("it needs a container");
    world.pass();
    let error = world.record.status.error.as_ref().unwrap();
    assert_eq!((world.record.status.state, error.code.as_str()), (State::Failed, "backend_rejected"));
    assert_eq!(error.message, "it needs a container");
}

#[derive(Clone, Debug)]
enum Chance {
    Change,
    Scale(u32),
    Ready(usize),
    Crash(usize, bool),
    Vanish(usize),
    Stopped,
    Wait(u64),
    Forget,
    Delete,
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        2 => Just(Chance::Change),
        2 => (0_u32..5).prop_map(Chance::Scale),
        8 => (0_usize..12).prop_map(Chance::Ready),
        4 => (0_usize..12, any::<bool>()).prop_map(|(which, permanent)| Chance::Crash(which, permanent)),
        1 => (0_usize..12).prop_map(Chance::Vanish),
        3 => Just(Chance::Stopped),
        6 => (0_u64..2_000).prop_map(Chance::Wait),
        1 => Just(Chance::Forget),
        1 => Just(Chance::Delete),
    ]
}

fn nth(world: &World, which: usize) -> Option<ReplicaId> {
    world.machine.keys().nth(which % world.machine.len().max(1)).cloned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// What holds after every step is asserted where the steps are taken; here is what holds in the end.
    #[test]
    fn whatever_happens_the_route_is_true_and_things_settle(
        replicas in 0_u32..4,
        chances in prop::collection::vec((chance(), any::<bool>()), 0..60),
    ) {
        let mut world = World::new(replicas);
        for (chance, look) in chances {
            match chance {
                Chance::Change => world.change(),
                Chance::Scale(replicas) => world.scale(replicas),
                Chance::Ready(which) => if let Some(id) = nth(&world, which) {
                    world.become_ready(|r| r.id == id);
                },
                Chance::Crash(which, permanent) => if let Some(id) = nth(&world, which) {
                    world.crash(permanent, |r| r.id == id);
                },
                Chance::Vanish(which) => if let Some(id) = nth(&world, which) {
                    world.machine.remove(&id);
                },
                Chance::Stopped => world.finish_stopping(),
                Chance::Wait(millis) => world.wait(Duration::from_millis(millis)),
                Chance::Forget => world.memory = Memory::default(),
                Chance::Delete => world.delete(),
            }
            if look {
                world.pass();
            }
        }
        // The machine heals, and time passes.
        let mut settled = false;
        for _ in 0..20 {
            world.wait(BACKOFF);
            let step = world.pass();
            world.finish_stopping();
            world.become_ready(|_| true);
            settled = step.settled || step.gone;
        }
        prop_assert!(settled, "it does not settle: {:?}", world.observed());
        if world.record.deleting_since.is_some() {
            prop_assert!(world.gone && world.machine.is_empty());
        } else {
            let want = world.record.spec.replicas;
            let state = if want == 0 { State::Idle } else { State::Active };
            prop_assert_eq!(world.record.status.state, state);
            prop_assert_eq!(world.machine.len(), want as usize);
            prop_assert!(world.machine.values().all(|r| r.revision == world.record.revision));
            prop_assert_eq!(&world.record.status.error, &None);
        }
    }
}

#[test]
fn scaling_down_ends_the_replica_that_crashes() {
    let mut world = World::serving_revision_1(2);
    world.crash(false, |replica| replica.id.0.ends_with("-0"));
    for replica in world.machine.values_mut().filter(|replica| replica.id.0.ends_with("-1")) {
        replica.state = ReplicaState::Starting;
    }
    world.scale(1);
    world.pass();
    let kept = world.machine.values().find(|replica| replica.id.0.ends_with("-1")).map(|replica| replica.state);
    assert_eq!(kept, Some(ReplicaState::Starting));
}
