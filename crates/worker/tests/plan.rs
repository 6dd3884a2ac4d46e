//! The plan, driven by hand and by chance, against a pretended machine that does what it is told.

use std::{collections::BTreeMap, time::Duration};

use api::{
    DeploymentId, DeploymentSpec, DeploymentStatus, ReplicaId, Revision, RevisionNumber, State, Timestamp,
    deployment::{BucketModel, LogPayloads, MachineType, ModelSource, Resources, StatusError},
    replica::{Address, ReplicaState},
    revision::RevisionSpec,
    route::Route,
};
use backend::{Failure, Replica};
use modelway_worker::plan::{Act, Memory, Rules, Step, Wanted, plan};
use proptest::prelude::*;
use store::DeploymentRecord;

const RULES: Rules = Rules { route_settle: Duration::from_millis(500), start_deadline: Duration::from_mins(10) };
const BACKOFF: Duration = Duration::from_secs(1);
const ID: DeploymentId = DeploymentId(7);

/// One deployment, its machine, and everything that was written about it.
struct World {
    now: Timestamp,
    record: DeploymentRecord,
    revisions: Vec<Revision>,
    machine: BTreeMap<ReplicaId, Replica>,
    memory: Memory,
    committed: Option<Route>,
    /// When each replica was last named by a committed route.
    last_routed: BTreeMap<ReplicaId, Timestamp>,
    events: Vec<(&'static str, String)>,
    rejects: Option<&'static str>,
    gone: bool,
}

impl World {
    fn new(replicas: u32) -> Self {
        let model = BucketModel {
            version: "v1".into(),
            kind: "single".into(),
            bucket: "/models".into(),
            prefix: String::new(),
            digest: None,
        };
        let spec = DeploymentSpec {
            name: None,
            labels: BTreeMap::new(),
            machine: MachineType::Cpu,
            model: ModelSource::Bucket(model),
            replicas,
            request_res: Resources::default(),
            limit_res: Resources::default(),
            env: BTreeMap::new(),
            env_from_file: BTreeMap::new(),
            request_timeout_ms: 1_000,
            idempotent: true,
            log_payloads: LogPayloads::None,
        };
        let record = DeploymentRecord {
            id: ID,
            spec,
            status: DeploymentStatus::pending(),
            revision: RevisionNumber(0),
            generation: 0,
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            deleting_since: None,
        };
        let mut world = Self {
            now: Timestamp(0),
            record,
            revisions: Vec::new(),
            machine: BTreeMap::new(),
            memory: Memory::default(),
            committed: None,
            last_routed: BTreeMap::new(),
            events: Vec::new(),
            rejects: None,
            gone: false,
        };
        world.change();
        world
    }

    /// The user changes what runs.
    fn change(&mut self) {
        let number = RevisionNumber(self.record.revision.0 + 1);
        self.revisions.push(Revision {
            deployment: ID,
            number,
            spec: RevisionSpec::of(&self.record.spec, None),
            created_at: self.now,
        });
        self.record.revision = number;
        self.record.generation += 1;
    }

    fn scale(&mut self, replicas: u32) {
        self.record.spec.replicas = replicas;
        self.record.generation += 1;
    }

    fn delete(&mut self) {
        self.record.deleting_since = Some(self.now);
    }

    fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    fn observed(&self) -> Vec<Replica> {
        self.machine.values().cloned().collect()
    }

    /// One pass, as the reconciler makes it: act, look, commit. A wait for the gateways is not waited for.
    fn pass(&mut self) -> Step {
        let mut rejected = None;
        for _ in 0..4 {
            let observed = self.observed();
            let wanted = Wanted { record: &self.record, revisions: &self.revisions, rejected };
            let step = plan(self.now, RULES, wanted, &observed, &self.memory);
            self.check_route(&step.route);
            if step.acts.is_empty() || rejected.is_some() {
                self.commit(&step);
                return step;
            }
            for act in &step.acts {
                if let Act::Ensure(number, want) = act {
                    if *number == self.record.revision && self.rejects.is_some() {
                        rejected = self.rejects;
                        continue;
                    }
                    self.ensure(*number, *want);
                } else if let Act::Remove(number) = act {
                    let ids: Vec<_> =
                        self.machine.values().filter(|r| r.revision == *number).map(|r| r.id.clone()).collect();
                    ids.iter().for_each(|id| self.stop(id));
                }
            }
        }
        let observed = self.observed();
        let wanted = Wanted { record: &self.record, revisions: &self.revisions, rejected };
        let step = plan(self.now, RULES, wanted, &observed, &self.memory);
        self.commit(&step);
        step
    }

    fn check_route(&self, route: &Route) {
        for replica in route.revisions.iter().flat_map(|revision| &revision.replicas) {
            let state = self.machine.get(&replica.id).map(|r| r.state);
            assert_eq!(state, Some(ReplicaState::Ready), "the route names {}, which is {state:?}", replica.id);
        }
        let someone_is_ready = self.machine.values().any(|r| r.state == ReplicaState::Ready);
        let someone_shall_serve = self.record.spec.replicas > 0 && self.record.deleting_since.is_none();
        assert_eq!(
            !route.revisions.is_empty(),
            someone_is_ready && someone_shall_serve,
            "it serves exactly when a replica is ready and some are wanted: {:?}",
            self.observed()
        );
        assert_eq!(route.reason.is_some(), route.revisions.is_empty(), "a route that serves nothing says why");
    }

    fn commit(&mut self, step: &Step) {
        self.check_route(&step.route);
        for replica in step.route.revisions.iter().flat_map(|revision| &revision.replicas) {
            self.last_routed.insert(replica.id.clone(), self.now);
        }
        for route in self.committed.iter().chain([&step.route]) {
            for replica in route.revisions.iter().flat_map(|revision| &revision.replicas) {
                self.last_routed.insert(replica.id.clone(), self.now);
            }
        }
        self.committed = Some(step.route.clone());
        self.record.status = step.status.clone();
        self.memory = step.memory.clone();
        self.events.extend(step.events.iter().map(|event| (event.kind, event.message.clone())));
        self.gone = step.gone;
    }

    fn ensure(&mut self, number: RevisionNumber, want: u32) {
        let mut live: Vec<_> = self
            .machine
            .values()
            .filter(|r| r.revision == number && r.state != ReplicaState::Stopping)
            .map(|r| (r.state != ReplicaState::Ready, r.id.0.len(), r.id.clone()))
            .collect();
        live.sort();
        for (_, _, id) in live.iter().skip(want as usize) {
            self.stop(id);
        }
        for (_, _, id) in live.iter().take(want as usize) {
            let replica = self.machine.get_mut(id).expect("a replica of the machine");
            if replica.state == ReplicaState::BackingOff && replica.retry_at.expect("it backs off") <= self.now {
                replica.state = ReplicaState::Starting;
                replica.restarts += 1;
                replica.retry_at = None;
            }
        }
        for _ in live.len()..want as usize {
            let free = (0..).map(|n| ReplicaId(format!("md-7-r{number}-{n}")));
            let id = free.into_iter().find(|id| !self.machine.contains_key(id)).expect("a free number");
            self.last_routed.remove(&id);
            let replica = Replica {
                id: id.clone(),
                deployment: ID,
                revision: number,
                state: ReplicaState::Starting,
                address: Address::Tcp("127.0.0.1:9".into()),
                started_at: Some(self.now),
                restarts: 0,
                failure: None,
                retry_at: None,
                artifact: None,
                notes: Vec::new(),
            };
            self.machine.insert(id, replica);
        }
    }

    /// The machine is told to end a replica: nobody may be sending to it any more.
    fn stop(&mut self, id: &ReplicaId) {
        let replica = self.machine.get_mut(id).expect("a replica of the machine");
        if replica.state == ReplicaState::Ready
            && let Some(routed) = self.last_routed.get(id)
        {
            assert!(self.now.since(*routed) >= RULES.route_settle, "{id} is ended while gateways may ask it");
        }
        replica.state = ReplicaState::Stopping;
    }

    fn become_ready(&mut self, only: impl Fn(&Replica) -> bool) {
        for replica in self.machine.values_mut() {
            if replica.state == ReplicaState::Starting && only(replica) {
                replica.state = ReplicaState::Ready;
                replica.failure = None;
            }
        }
    }

    fn crash(&mut self, permanent: bool, only: impl Fn(&Replica) -> bool) {
        for replica in self.machine.values_mut() {
            if matches!(replica.state, ReplicaState::Starting | ReplicaState::Ready) && only(replica) {
                replica.state = ReplicaState::BackingOff;
                replica.retry_at = Some(self.now.after(BACKOFF));
                let error = StatusError {
                    code: if permanent { "model_invalid" } else { "crash_loop" }.into(),
                    message: "exited with status 1".into(),
                    revision: replica.revision,
                    log: vec!["the last line".into()],
                };
                replica.failure = Some(Failure { error, permanent });
            }
        }
    }

    fn finish_stopping(&mut self) {
        self.machine.retain(|_, replica| replica.state != ReplicaState::Stopping);
    }

    fn serving(&self) -> Vec<u32> {
        self.committed.iter().flat_map(|route| &route.revisions).map(|revision| revision.number.0).collect()
    }

    fn alive(&self, revision: u32) -> usize {
        self.machine.values().filter(|r| r.revision.0 == revision && r.state != ReplicaState::Stopping).count()
    }

    /// A deployment whose first revision serves.
    fn serving_revision_1(replicas: u32) -> Self {
        let mut world = Self::new(replicas);
        world.pass();
        world.become_ready(|_| true);
        assert!(world.pass().settled);
        world
    }

    /// A deployment whose first revision serves and whose second cannot run.
    fn with_a_broken_change(replicas: u32) -> Self {
        let mut world = Self::serving_revision_1(replicas);
        world.change();
        world.pass();
        world.crash(true, |r| r.revision.0 == 2);
        world.pass();
        world
    }
}

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
    assert_eq!(world.record.status.notes, ["revision 2 is starting beside 1"]);

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
