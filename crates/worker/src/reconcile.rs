//! Reconciles the machines with the database, one deployment at a time.
//!
//! A pass holds the lease of the deployment, which is renewed in the background. Every write and every call to the
//! backend carries its fence. The pass observes, plans and acts until nothing more can be done now, and commits the
//! result. If replicas must first be removed from the route, it commits, waits for the gateways and continues under the
//! same lease, because the content of the route is known only under one lease.
//!
//! **Invariant:** a pass gets only the id of the deployment. Interrupting it at any point is safe.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{
    DeploymentId, DeploymentStatus, Epoch, Fence, Revision, RevisionNumber, Timestamp, deployment::StatusError,
    event::NewEvent, replica::ReplicaState, revision::Pin,
};
use backend::{Backend, BackendError, Replica};
use base::{Clock, Tasks};
use store::{DeploymentRecord, Lease, Lineage, Receipt, Store, StoreError, TaskQueue};

use crate::{
    ends,
    metrics::Metrics,
    plan::{Act, Memory, Rules, Step, Wanted, plan},
    rollout, scaling,
    shelf::Shelf,
    standing::{Known, Standing, standing},
};

/// Maximum number of backend calls per pass.
const MAX_ACTS: usize = 16;
/// Maximum number of waits for the gateways per pass.
const MAX_SETTLES: usize = 4;
/// The number of consecutive backend failures that is shown to the user.
const PATIENT_FAILURES: u32 = 3;
/// The fence of a deleted deployment: nobody can hold its lease, and ids are not reused in one epoch.
const NOBODYS_FENCE: i64 = i64::MAX;

/// The outcome of a pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// The deployment is settled.
    Settled,
    /// Work is in progress; check again after this time, if no event arrives before.
    Underway(Option<Duration>),
    /// The deployment was removed.
    Gone,
    /// Another worker holds the lease.
    Busy,
    /// It has another placement: its replicas are not this worker's business.
    Elsewhere,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error("another worker has taken this deployment over")]
    Fenced,
    #[error("a fence from the database is older than one that the backend has seen (fence {given}, newest {newest})")]
    Behind { given: i64, newest: i64 },
    #[error("the database was restored from an older copy")]
    Restored,
    #[error("the deployment's record could not be read or written")]
    Store(#[source] StoreError),
    #[error("the backend did not do what was asked")]
    Backend(#[source] BackendError),
}

impl From<StoreError> for PassError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Fenced) { Self::Fenced } else { Self::Store(error) }
    }
}

impl From<BackendError> for PassError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Fenced { given, newest } => Self::Behind { given, newest },
            BackendError::Unavailable { .. } | BackendError::Rejected { .. } => Self::Backend(error),
        }
    }
}

/// The dependencies of a pass. Clones are the same worker.
#[derive(Clone)]
pub(crate) struct Reconciler {
    pub(crate) store: Store,
    pub(crate) queue: TaskQueue,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) owner: Arc<str>,
    pub(crate) rules: Rules,
    pub(crate) hold: Duration,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    pub(crate) lineage: Arc<Mutex<Option<Lineage>>>,
}

/// The lease of the current pass: its renewer writes it, the pass reads it.
struct Held(Mutex<Lease>);

impl Held {
    fn get(&self) -> Lease {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, lease: Lease) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = lease;
    }
}

impl Reconciler {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now().into()
    }

    /// Takes all steps that are possible now for one deployment. Renews the task's `receipt` together with the lease.
    pub(crate) async fn reconcile(&self, id: DeploymentId, receipt: Option<&Receipt>) -> Result<Pass, PassError> {
        let Some(lease) = self.store.lease_acquire(id, &self.owner, self.hold, self.now()).await? else {
            return match self.store.deployment_wanted(id, &[]).await? {
                Some((record, _)) if record.spec.placement() != self.store.placement() => Ok(Pass::Elsewhere),
                Some(_) => Ok(Pass::Busy),
                None => self.remove_gone(id).await,
            };
        };
        let held = Held(Mutex::new(lease));
        let mut result = tokio::select! {
            result = self.pass(id, &held) => result,
            error = self.renew(&held, receipt) => Err(error),
        };
        if let Err(PassError::Behind { given, newest }) = result {
            let why = format!(
                "the backend has seen fence {newest} of {id}, but the highest fence in the database is {given}"
            );
            result = Err(self.restored_or_fenced(&held.get(), &why).await?);
        }
        if let Err(PassError::Backend(error)) = &result
            && self.shelf.failures(id) >= PATIENT_FAILURES
            && let Err(error) = self.say_why(id, &held, error).await
        {
            tracing::warn!(deployment = %id, error = &error as &dyn std::error::Error, "cannot write the reason to the status");
        }
        if !matches!(result, Ok(Pass::Gone) | Err(PassError::Fenced | PassError::Restored)) {
            // If this fails, the lease expires by itself.
            if let Err(error) = self.store.lease_release(&held.get()).await {
                tracing::warn!(deployment = %id, error = &error as &dyn std::error::Error, "cannot release a lease");
            }
        }
        result
    }

    /// Interprets a fence that this worker does not know. Usually another worker has taken the deployment over. But if
    /// the database still says that this worker holds it, then the database has lost assigned numbers.
    async fn restored_or_fenced(&self, lease: &Lease, why: &str) -> Result<PassError, PassError> {
        match self.store.lease_renew(lease, self.hold, self.now()).await {
            Ok(_) => self.restored(lease.deployment, &lease.epoch, why).await,
            Err(StoreError::Fenced) => Ok(PassError::Fenced),
            Err(error) => Err(error.into()),
        }
    }

    /// The database went back in time: continues in a new epoch, and reports it once. Replicas that the database knows
    /// are taken over; the rest is left alone.
    pub(crate) async fn restored(&self, id: DeploymentId, epoch: &Epoch, why: &str) -> Result<PassError, PassError> {
        let (lineage, renewed) = self.store.epoch_renew(epoch).await?;
        self.knows(&lineage);
        let current = lineage.current.0;
        if renewed {
            self.metrics.restores.inc();
            let message = format!(
                "the database was restored from an older copy: {why}. Replicas that it knows are taken over and serve on; \
                 others run on without requests, see `modelway strays`"
            );
            tracing::error!(epoch = current, "{message}");
            let evidence = serde_json::json!({ "epoch": current, "former_epoch": epoch });
            let event = NewEvent { revision: None, actor: "worker", kind: "database_restored", message, evidence };
            self.store.event_of_stray(id, &format!("restored:{current}"), event, self.now()).await?;
        }
        Ok(PassError::Restored)
    }

    /// Caches the epochs of the database.
    pub(crate) fn knows(&self, lineage: &Lineage) {
        *self.lineage.lock().unwrap_or_else(PoisonError::into_inner) = Some(lineage.clone());
    }

    /// The epoch in which this worker last worked.
    pub(crate) fn known_epoch(&self) -> Option<Epoch> {
        let known = self.lineage.lock().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().map(|lineage| lineage.current.clone())
    }

    /// The epochs of the database, as of the taking of a lease in this epoch.
    async fn lineage(&self, epoch: &Epoch) -> Result<Lineage, PassError> {
        let known = self.lineage.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known.filter(|known| known.current == *epoch) {
            return Ok(known);
        }
        let read = self.store.lineage().await?;
        if read.current != *epoch {
            return Err(PassError::Fenced);
        }
        self.knows(&read);
        Ok(read)
    }

    /// Ends the replicas of a deployment that this database has deleted. Replicas of a deployment that it never had are
    /// left alone.
    pub(crate) async fn remove_gone(&self, id: DeploymentId) -> Result<Pass, PassError> {
        self.shelf.forget(id);
        let observed = self.backend.observe(id).await?;
        if !observed.is_empty() && self.store.deployment_is_gone(id).await? {
            let lineage = self.store.lineage().await?;
            if observed.iter().any(|replica| replica.is_of(&lineage.current)) {
                tracing::warn!(deployment = %id, "removing replicas of a deployment that was deleted");
                self.metrics.strays_removed.inc();
                let fence = Fence { epoch: lineage.current, former: lineage.former, number: NOBODYS_FENCE };
                self.backend.remove(id, None, &fence).await?;
            }
        }
        Ok(Pass::Gone)
    }

    /// Renews the lease and the task; returns only when the lease is lost.
    async fn renew(&self, held: &Held, receipt: Option<&Receipt>) -> PassError {
        loop {
            tokio::time::sleep(self.hold / 3).await;
            match self.store.lease_renew(&held.get(), self.hold, self.now()).await {
                Ok(lease) => held.set(lease),
                Err(StoreError::Fenced) => return PassError::Fenced,
                // The next attempt may still be in time; if not, the fence protects the deployment.
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "cannot renew a lease");
                }
            }
            // The lease protects the deployment: if the task is delivered again, the other worker finds the lease
            // taken.
            if let Some(receipt) = receipt
                && let Err(error) = self.queue.renew(receipt, self.hold).await
            {
                tracing::debug!(error = &error as &dyn std::error::Error, "cannot renew a task");
            }
        }
    }

    /// Puts a lasting failure of the backend into the status. State and route stay, because nothing is known about the
    /// replicas. The next successful pass writes a status without it.
    async fn say_why(&self, id: DeploymentId, held: &Held, error: &BackendError) -> Result<(), PassError> {
        let Some((record, _)) = self.store.deployment_wanted(id, &[]).await? else { return Ok(()) };
        let source = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let error = StatusError {
            code: "backend_unavailable".to_owned(),
            message: format!("{error}{source}; the worker keeps trying"),
            revision: record.revision,
            log: Vec::new(),
        };
        if record.status.error.as_ref() == Some(&error) {
            return Ok(());
        }
        let event = NewEvent {
            revision: Some(record.revision),
            actor: "worker",
            kind: "backend_unavailable",
            message: error.message.clone(),
            evidence: serde_json::Value::Null,
        };
        let status = DeploymentStatus { error: Some(error), ..record.status };
        Ok(self.store.deployment_observed(&held.get(), &status, None, &[event], None, self.now()).await?)
    }

    async fn pass(&self, id: DeploymentId, held: &Held) -> Result<Pass, PassError> {
        let mut memory = self.shelf.memory(id);
        for _ in 0..MAX_SETTLES {
            let Some((record, step)) = self.act(id, held, &memory).await? else {
                return self.remove_gone(id).await;
            };
            if step.gone {
                self.store.deployment_purge(&held.get(), self.now()).await?;
                self.shelf.forget(id);
                tracing::info!(deployment = %id, "deleted");
                return Ok(Pass::Gone);
            }
            let mut events = ends::events(&record.status.replica_status, &step.status.replica_status);
            events.extend(step.events);
            for event in &events {
                tracing::info!(deployment = %id, kind = event.kind, "{}", event.message);
            }
            let settled_at = step.settled.then_some(record.generation);
            self.store
                .deployment_observed(&held.get(), &step.status, Some(&step.targets), &events, settled_at, self.now())
                .await?;
            memory = step.memory;
            self.shelf.remember(id, memory.clone().beyond_the_lease());
            if step.settled {
                return Ok(Pass::Settled);
            }
            let Some(settle) = step.settle else { return Ok(Pass::Underway(step.look_again)) };
            tokio::select! {
                () = tokio::time::sleep(settle) => {}
                () = self.tasks.stopping() => return Ok(Pass::Underway(Some(settle))),
            }
        }
        Ok(Pass::Underway(Some(Duration::ZERO)))
    }

    /// Plans and acts until nothing more can be done now; returns the data to commit. `None` if the deployment was
    /// removed.
    async fn act(
        &self,
        id: DeploymentId,
        held: &Held,
        memory: &Memory,
    ) -> Result<Option<(DeploymentRecord, Step)>, PassError> {
        let lineage = self.lineage(&held.get().epoch).await?;
        let all = self.backend.observe(id).await?;
        let Some((record, mut revisions)) = self.store.deployment_wanted(id, &numbers(&all)).await? else {
            return Ok(None);
        };
        self.take_over(&record, &revisions, &lineage, &all, held).await?;
        let mut observed = self.observe(id, &lineage.current).await?;
        let restarts = self.backend.capabilities().restarts;
        let mut done: Vec<Act> = Vec::new();
        let mut rejected: Option<String> = None;
        loop {
            self.pin(&mut revisions, &observed, held).await?;
            let traffic = rollout::next(&record, &observed);
            let counts = scaling::counts(record.revision, record.wanted_replicas(), &traffic);
            let (traffic, counts) = (&*traffic, &counts);
            let wanted = Wanted {
                record: &record,
                revisions: &revisions,
                traffic,
                counts,
                restarts,
                rejected: rejected.as_deref(),
            };
            let step = plan(self.now(), self.rules, wanted, &observed, memory);
            let fresh: Vec<Act> = step.acts.iter().filter(|act| !done.contains(act)).cloned().collect();
            if fresh.is_empty() || done.len() >= MAX_ACTS {
                return Ok(Some((record, step)));
            }
            for act in fresh {
                let rejection = self.call(id, &act, &revisions, &lineage.fence(&held.get())).await?;
                if let (Some(reason), Act::Ensure { revision: number, .. }) = (rejection, &act) {
                    if *number == record.revision {
                        rejected = Some(reason);
                    } else {
                        tracing::warn!(deployment = %id, revision = %number, reason, "an old revision is rejected");
                    }
                }
                done.push(act);
            }
            observed = self.observe(id, &lineage.current).await?;
        }
    }

    /// Stores the files of revisions whose first replicas have found them, before the next plan sends traffic there or
    /// starts more replicas.
    async fn pin(&self, revisions: &mut [Revision], observed: &[Replica], held: &Held) -> Result<(), PassError> {
        for revision in revisions.iter_mut().filter(|revision| revision.pin.is_none()) {
            // A replica that is stopping may have found other files than its replacement.
            let lives = |replica: &&Replica| replica.state != ReplicaState::Stopping;
            let found = observed.iter().filter(|replica| replica.revision == revision.number).filter(lives);
            let Some(files) = found.filter_map(|replica| replica.files.clone()).next() else { continue };
            let now = self.now();
            self.store.revision_pin(&held.get(), revision.number, &files, now).await?;
            tracing::info!(
                deployment = %revision.deployment, revision = %revision.number, uri = files.uri, digest = files.digest,
                "a revision is pinned to its files"
            );
            revision.pin = Some(Pin { files, at: now });
        }
        Ok(())
    }

    /// The running replicas of a deployment that belong to this database.
    async fn observe(&self, id: DeploymentId, epoch: &Epoch) -> Result<Vec<Replica>, PassError> {
        let mut observed = self.backend.observe(id).await?;
        observed.retain(|replica| replica.is_of(epoch));
        Ok(observed)
    }

    /// Marks replicas of an earlier epoch, or without an epoch, that are what this database wants under their numbers.
    async fn take_over(
        &self,
        record: &DeploymentRecord,
        revisions: &[Revision],
        lineage: &Lineage,
        all: &[Replica],
        held: &Held,
    ) -> Result<(), PassError> {
        let lease = held.get();
        let known = |number| revisions.iter().any(|revision| revision.number == number);
        // The wanted revision may be an old one, after a rollback.
        let kept = match all.iter().all(|replica| known(replica.revision)) {
            true => revisions.to_vec(),
            false => self.store.revision_list(record.id).await?,
        };
        let known = Known { created_at: record.created_at, fence: lease.fence.0, revisions: &kept };
        let mut heirs = Vec::new();
        for replica in all {
            match standing(replica, lineage, Some(known)) {
                Standing::Ours | Standing::Stray(_) => {}
                Standing::Heir(made_at) => heirs.push((replica.id.clone(), made_at)),
                Standing::Ahead(why) => return Err(self.restored_or_fenced(&lease, &why).await?),
            }
        }
        if !heirs.is_empty() {
            tracing::info!(deployment = %record.id, replicas = heirs.len(), "taking over replicas that run already");
            self.backend.take_over(record.id, &heirs, &lineage.fence(&lease)).await?;
        }
        Ok(())
    }

    /// Calls the backend; returns the reason if it rejects the revision.
    async fn call(
        &self,
        id: DeploymentId,
        act: &Act,
        revisions: &[Revision],
        fence: &Fence,
    ) -> Result<Option<String>, PassError> {
        tracing::debug!(deployment = %id, ?act, fence = fence.number, "acting");
        let result = match act {
            Act::Ensure { revision: number, want, retire } => {
                match revisions.iter().find(|revision| revision.number == *number) {
                    Some(revision) => self.backend.ensure(revision, *want, retire, fence).await,
                    None => Ok(()),
                }
            }
            Act::Remove(number) => self.backend.remove(id, Some(*number), fence).await,
        };
        match result {
            Ok(()) => Ok(None),
            Err(rejection @ BackendError::Rejected { .. }) => Ok(Some(rejection.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

fn numbers(observed: &[Replica]) -> Vec<RevisionNumber> {
    let mut numbers: Vec<_> = observed.iter().map(|replica| replica.revision).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
