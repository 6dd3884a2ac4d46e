//! Make the machines agree with the database, one deployment at a time.
//!
//! A pass holds the deployment's lease, renewed in the background, and every write and every call of the
//! backend carries its fence. It looks, plans, acts until there is nothing more to do at this moment, and
//! commits what became of it. Where replicas must first leave the route, it commits, waits for the gateways
//! and goes on under the same lease, because only under one lease is it known what the route says.
//!
//! **Invariant:** a pass is told nothing but which deployment. Cutting one off anywhere is harmless.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::{
    DeploymentId, DeploymentStatus, Revision, RevisionNumber, Timestamp, deployment::StatusError, event::NewEvent,
    revision::Pin,
};
use backend::{Backend, BackendError, Replica};
use base::{Clock, Tasks};
use queue::{Receipt, TaskQueue};
use store::{DeploymentRecord, Lease, Store, StoreError};

use crate::{
    plan::{Act, Memory, Rules, Step, Wanted, plan},
    rollout, scaling,
    shelf::Shelf,
};

/// How often a pass calls the backend before it leaves the rest to the next one.
const MAX_ACTS: usize = 16;
/// How often a pass waits for the gateways before it leaves the rest to the next one.
const MAX_SETTLES: usize = 4;
/// So many failures of the backend in a row are worth a user's attention.
const PATIENT_FAILURES: u32 = 3;
/// What the fence of a deployment is that SQL does not know: nobody can hold its lease, and ids are never
/// used again.
const NOBODYS_FENCE: i64 = i64::MAX;

/// How a pass ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// Nothing is left to do.
    Settled,
    /// Something is under way; look again then, if nobody has told of a change before.
    Underway(Option<Duration>),
    /// Nothing of the deployment is left.
    Gone,
    /// Another worker holds it.
    Busy,
}

/// Why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PassError {
    #[error("another worker has taken this deployment over")]
    Fenced,
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
        if matches!(error, BackendError::Fenced { .. }) { Self::Fenced } else { Self::Backend(error) }
    }
}

/// Everything that a pass needs. Clones are the same worker.
#[derive(Clone)]
pub(crate) struct Reconciler {
    pub(crate) store: Store,
    pub(crate) queue: Arc<dyn TaskQueue>,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) owner: Arc<str>,
    pub(crate) rules: Rules,
    pub(crate) hold: Duration,
    pub(crate) clock: Clock,
    pub(crate) tasks: Tasks,
}

/// The lease of the pass in hand: its renewer writes it, the pass reads it.
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

    /// Takes one deployment as far as it can be taken now. The task's `receipt` is renewed along with the
    /// lease.
    pub(crate) async fn reconcile(&self, id: DeploymentId, receipt: Option<&Receipt>) -> Result<Pass, PassError> {
        let Some(lease) = self.store.lease_acquire(id, &self.owner, self.hold, self.now()).await? else {
            return match self.store.deployment_wanted(id, &[]).await? {
                Some(_) => Ok(Pass::Busy),
                None => self.remove_stray(id).await,
            };
        };
        let held = Held(Mutex::new(lease));
        let result = tokio::select! {
            result = self.pass(id, &held) => result,
            error = self.renew(&held, receipt) => Err(error),
        };
        if let Err(PassError::Backend(error)) = &result
            && self.shelf.failures(id) >= PATIENT_FAILURES
            && let Err(error) = self.say_why(id, &held, error).await
        {
            tracing::warn!(deployment = %id, error = &error as &dyn std::error::Error, "the status does not say why");
        }
        if !matches!(result, Ok(Pass::Gone) | Err(PassError::Fenced)) {
            // Should this fail, the lease lapses by itself.
            if let Err(error) = self.store.lease_release(&held.get()).await {
                tracing::warn!(deployment = %id, error = &error as &dyn std::error::Error, "a lease is not released");
            }
        }
        result
    }

    /// Ends what runs for a deployment that SQL does not know.
    pub(crate) async fn remove_stray(&self, id: DeploymentId) -> Result<Pass, PassError> {
        self.shelf.forget(id);
        if !self.backend.observe(id).await?.is_empty() {
            tracing::warn!(deployment = %id, "removing replicas of a deployment that does not exist");
            self.backend.remove(id, None, NOBODYS_FENCE).await?;
        }
        Ok(Pass::Gone)
    }

    /// Keeps the lease and the task; ends only when the lease is lost.
    async fn renew(&self, held: &Held, receipt: Option<&Receipt>) -> PassError {
        loop {
            tokio::time::sleep(self.hold / 3).await;
            match self.store.lease_renew(&held.get(), self.hold, self.now()).await {
                Ok(lease) => held.set(lease),
                Err(StoreError::Fenced) => return PassError::Fenced,
                // It may be renewed in time by the next attempt; if not, the fence stops us.
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a lease could not be renewed");
                }
            }
            // The lease is what guards the deployment: a task that comes a second time finds it taken.
            if let Some(receipt) = receipt
                && let Err(error) = self.queue.renew(receipt, self.hold).await
            {
                tracing::debug!(error = &error as &dyn std::error::Error, "a task could not be renewed");
            }
        }
    }

    /// Puts a failure of the backend that does not pass into the status. State and route stay: nothing is
    /// known of the replicas. The next pass that succeeds writes a status without it.
    async fn say_why(&self, id: DeploymentId, held: &Held, error: &BackendError) -> Result<(), PassError> {
        let Some((record, _)) = self.store.deployment_wanted(id, &[]).await? else { return Ok(()) };
        let source = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let error = StatusError {
            code: "backend_unavailable".to_owned(),
            message: format!("{error}{source}; the worker goes on trying"),
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
                return self.remove_stray(id).await;
            };
            if step.gone {
                self.store.deployment_purge(&held.get(), self.now()).await?;
                self.shelf.forget(id);
                tracing::info!(deployment = %id, "deleted");
                return Ok(Pass::Gone);
            }
            for event in &step.events {
                tracing::info!(deployment = %id, kind = event.kind, "{}", event.message);
            }
            let settled_at = step.settled.then_some(record.generation);
            self.store
                .deployment_observed(
                    &held.get(),
                    &step.status,
                    Some(&step.targets),
                    &step.events,
                    settled_at,
                    self.now(),
                )
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

    /// Plans and acts until nothing more can be done at this moment; gives what is then to be committed.
    /// `None` if the deployment is gone.
    async fn act(
        &self,
        id: DeploymentId,
        held: &Held,
        memory: &Memory,
    ) -> Result<Option<(DeploymentRecord, Step)>, PassError> {
        let mut observed = self.backend.observe(id).await?;
        let Some((record, mut revisions)) = self.store.deployment_wanted(id, &numbers(&observed)).await? else {
            return Ok(None);
        };
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
                let rejection = self.call(id, &act, &revisions, held).await?;
                if let (Some(reason), Act::Ensure { revision: number, .. }) = (rejection, &act) {
                    if *number == record.revision {
                        rejected = Some(reason);
                    } else {
                        tracing::warn!(deployment = %id, revision = %number, reason, "an old revision is rejected");
                    }
                }
                done.push(act);
            }
            observed = self.backend.observe(id).await?;
        }
    }

    /// Writes down which files revisions serve, once their first replicas have found them: before the plan that follows
    /// sends traffic there or starts more replicas.
    async fn pin(&self, revisions: &mut [Revision], observed: &[Replica], held: &Held) -> Result<(), PassError> {
        for revision in revisions.iter_mut().filter(|revision| revision.pin.is_none()) {
            let found = observed.iter().filter(|replica| replica.revision == revision.number);
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

    /// Calls the backend; gives the reason if it rejects the revision.
    async fn call(
        &self,
        id: DeploymentId,
        act: &Act,
        revisions: &[Revision],
        held: &Held,
    ) -> Result<Option<String>, PassError> {
        let fence = held.get().fence.0;
        tracing::debug!(deployment = %id, ?act, fence, "acting");
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
