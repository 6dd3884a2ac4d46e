//! A pretended machine that does what the plan tells it, and remembers what was written.

use std::{collections::BTreeMap, time::Duration};

use api::{
    DeploymentId, DeploymentSpec, DeploymentStatus, ReplicaId, Revision, RevisionNumber, Timestamp,
    deployment::{BucketModel, LogPayloads, MachineType, ModelSource, Resources, StatusError},
    replica::{Address, ReplicaState},
    revision::{FoundFiles, Pin, RevisionSpec},
    route::Targets,
};
use backend::{Failure, Replica, Restarts};
use modelway_worker::{
    plan::{Act, Memory, Rules, Step, Wanted, plan},
    rollout, scaling,
};
use store::DeploymentRecord;

pub(crate) const RULES: Rules =
    Rules { route_settle: Duration::from_millis(500), start_deadline: Duration::from_mins(10) };
pub(crate) const BACKOFF: Duration = Duration::from_secs(1);
pub(crate) const ID: DeploymentId = DeploymentId(7);

/// One deployment, its machine, and everything that was written about it.
pub(crate) struct World {
    pub(crate) now: Timestamp,
    pub(crate) record: DeploymentRecord,
    pub(crate) revisions: Vec<Revision>,
    pub(crate) machine: BTreeMap<ReplicaId, Replica>,
    pub(crate) memory: Memory,
    pub(crate) committed: Option<Targets>,
    /// When each replica was last named by a committed route.
    pub(crate) last_routed: BTreeMap<ReplicaId, Timestamp>,
    pub(crate) events: Vec<(&'static str, String)>,
    pub(crate) rejects: Option<&'static str>,
    /// New replicas have not said yet what they found.
    pub(crate) silent: bool,
    pub(crate) gone: bool,
}

impl World {
    pub(crate) fn new(replicas: u32) -> Self {
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
            placement: None,
            machine: MachineType::Cpu,
            model: ModelSource::Bucket(model),
            replicas,
            request_res: Resources::default(),
            limit_res: Resources::default(),
            env: BTreeMap::new(),
            env_from_file: BTreeMap::new(),
            python: None,
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
            silent: false,
            gone: false,
        };
        world.change();
        world
    }

    /// The user changes what runs.
    pub(crate) fn change(&mut self) {
        let number = RevisionNumber(self.record.revision.0 + 1);
        self.revisions.push(Revision {
            deployment: ID,
            number,
            spec: RevisionSpec::of(&self.record.spec, None),
            created_at: self.now,
            pin: None,
        });
        self.record.revision = number;
        self.record.generation += 1;
    }

    pub(crate) fn scale(&mut self, replicas: u32) {
        self.record.spec.replicas = replicas;
        self.record.generation += 1;
    }

    pub(crate) fn delete(&mut self) {
        self.record.deleting_since = Some(self.now);
    }

    pub(crate) fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    pub(crate) fn observed(&self) -> Vec<Replica> {
        self.machine.values().cloned().collect()
    }

    /// One pass, as the reconciler makes it: act, look, commit. A wait for the gateways is not waited for.
    pub(crate) fn pass(&mut self) -> Step {
        let mut rejected = None;
        for _ in 0..4 {
            self.pin();
            let observed = self.observed();
            let step = self.plan(&observed, rejected);
            self.check_route(&step.targets);
            if step.acts.is_empty() || rejected.is_some() {
                self.commit(&step);
                return step;
            }
            for act in &step.acts {
                if let Act::Ensure { revision: number, want, retire } = act {
                    if *number == self.record.revision && self.rejects.is_some() {
                        rejected = self.rejects;
                        continue;
                    }
                    self.ensure(*number, *want, retire);
                } else if let Act::Remove(number) = act {
                    let ids: Vec<_> =
                        self.machine.values().filter(|r| r.revision == *number).map(|r| r.id.clone()).collect();
                    ids.iter().for_each(|id| self.stop(id));
                }
            }
        }
        let observed = self.observed();
        let step = self.plan(&observed, rejected);
        self.commit(&step);
        step
    }

    fn plan(&self, observed: &[Replica], rejected: Option<&str>) -> Step {
        let traffic = rollout::next(&self.record, observed);
        let counts = scaling::counts(self.record.revision, self.record.wanted_replicas(), &traffic);
        let (traffic, counts) = (&*traffic, &counts);
        let restarts = Restarts::Caller;
        let wanted = Wanted { record: &self.record, revisions: &self.revisions, traffic, counts, restarts, rejected };
        plan(self.now, RULES, wanted, observed, &self.memory)
    }

    /// The reconciler writes down what the first replica of each revision found.
    fn pin(&mut self) {
        for revision in self.revisions.iter_mut().filter(|revision| revision.pin.is_none()) {
            let found = self.machine.values().filter(|replica| replica.revision == revision.number);
            let files = found.filter_map(|replica| replica.files.clone()).next();
            revision.pin = files.map(|files| Pin { files, at: self.now });
        }
    }

    pub(crate) fn check_route(&self, route: &Targets) {
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

    pub(crate) fn commit(&mut self, step: &Step) {
        self.check_route(&step.targets);
        for replica in step.targets.revisions.iter().flat_map(|revision| &revision.replicas) {
            self.last_routed.insert(replica.id.clone(), self.now);
        }
        for route in self.committed.iter().chain([&step.targets]) {
            for replica in route.revisions.iter().flat_map(|revision| &revision.replicas) {
                self.last_routed.insert(replica.id.clone(), self.now);
            }
        }
        self.committed = Some(step.targets.clone());
        self.record.status = step.status.clone();
        self.memory = step.memory.clone();
        self.events.extend(step.events.iter().map(|event| (event.kind, event.message.clone())));
        self.gone = step.gone;
    }

    pub(crate) fn ensure(&mut self, number: RevisionNumber, want: u32, retire: &[ReplicaId]) {
        retire.iter().for_each(|id| self.stop(id));
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
                address: Some(Address::Tcp("127.0.0.1:9".into())),
                started_at: Some(self.now),
                restarts: 0,
                failure: None,
                retry_at: None,
                artifact: None,
                files: (!self.silent).then(|| found("one")),
                notes: Vec::new(),
                origin: None,
            };
            self.machine.insert(id, replica);
        }
    }

    /// The machine is told to end a replica: nobody may be sending to it any more.
    pub(crate) fn stop(&mut self, id: &ReplicaId) {
        let replica = self.machine.get_mut(id).expect("a replica of the machine");
        if replica.state == ReplicaState::Ready
            && let Some(routed) = self.last_routed.get(id)
        {
            assert!(self.now.since(*routed) >= RULES.route_settle, "{id} is ended while gateways may ask it");
        }
        replica.state = ReplicaState::Stopping;
    }

    pub(crate) fn become_ready(&mut self, only: impl Fn(&Replica) -> bool) {
        for replica in self.machine.values_mut() {
            if replica.state == ReplicaState::Starting && only(replica) {
                replica.state = ReplicaState::Ready;
                replica.failure = None;
            }
        }
    }

    pub(crate) fn crash(&mut self, permanent: bool, only: impl Fn(&Replica) -> bool) {
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

    pub(crate) fn finish_stopping(&mut self) {
        self.machine.retain(|_, replica| replica.state != ReplicaState::Stopping);
    }

    pub(crate) fn serving(&self) -> Vec<u32> {
        self.committed.iter().flat_map(|route| &route.revisions).map(|revision| revision.number.0).collect()
    }

    pub(crate) fn alive(&self, revision: u32) -> usize {
        self.machine.values().filter(|r| r.revision.0 == revision && r.state != ReplicaState::Stopping).count()
    }

    /// A deployment whose first revision serves.
    pub(crate) fn serving_revision_1(replicas: u32) -> Self {
        let mut world = Self::new(replicas);
        world.pass();
        world.become_ready(|_| true);
        assert!(world.pass().settled);
        world
    }

    /// A deployment whose first revision serves and whose second cannot run.
    pub(crate) fn with_a_broken_change(replicas: u32) -> Self {
        let mut world = Self::serving_revision_1(replicas);
        world.change();
        world.pass();
        world.crash(true, |r| r.revision.0 == 2);
        world.pass();
        world
    }
}

/// The files of this digest.
pub(crate) fn found(digest: &str) -> FoundFiles {
    FoundFiles { uri: "/models".into(), digest: digest.into(), fingerprint: None }
}
