//! Deployments and their revisions.

use api::{
    Deployment, DeploymentId, DeploymentSpec, DeploymentStatus, Revision, RevisionNumber, State, Timestamp,
    deployment::LogPayloads, event::NewEvent,
};

use crate::{Lease, Store, StoreError};

/// A deployment as it stands in SQL.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentRecord {
    /// Its number.
    pub id: DeploymentId,
    /// What is wanted.
    pub spec: DeploymentSpec,
    /// What became of it.
    pub status: DeploymentStatus,
    /// The newest revision.
    pub revision: RevisionNumber,
    /// Grows with each change of the specification: the ETag.
    pub generation: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its specification last changed.
    pub updated_at: Timestamp,
    /// When its deletion was asked for.
    pub deleting_since: Option<Timestamp>,
}

/// Which deployments a list shows. Everything that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentFilter {
    /// Exactly this name.
    pub name: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// With each of these labels.
    pub labels: Vec<(String, String)>,
    /// Serving this registered model.
    pub model: Option<String>,
}

/// One page of a list, in the order of ids.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// What it shows.
    pub items: Vec<T>,
    /// Pass it to get the next page; absent on the last.
    pub next: Option<i64>,
}

/// What a scan needs to know to see that a deployment is as it should be, without reading all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRow {
    /// Its number.
    pub id: DeploymentId,
    /// Whether a worker found, at this very generation, nothing left to do.
    pub settled: bool,
    /// The state that it then stood in.
    pub state: State,
    /// The revision that then served.
    pub serving_revision: Option<RevisionNumber>,
    /// How many replicas are wanted.
    pub replicas: u32,
}

impl Store {
    /// Creates a deployment: itself, revision 1, event `created` and its wake-up, in one transaction.
    /// Resolves a registered model; faults in that are [`StoreError::NotFound`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `name_taken`; with `idempotency` used before for another payload,
    /// `idempotency_key_reused`. Used before for this payload: the deployment that it made, as it is now.
    pub async fn deployment_create(
        &self,
        spec: &DeploymentSpec,
        idempotency: Option<&crate::Idempotent>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        todo!("{spec:?} {idempotency:?} {now:?}")
    }

    /// One deployment.
    pub async fn deployment_get(&self, id: DeploymentId) -> Result<DeploymentRecord, StoreError> {
        todo!("{id}")
    }

    /// A page of deployments after `after`, at most `limit`.
    pub async fn deployment_list(
        &self,
        filter: &DeploymentFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<DeploymentRecord>, StoreError> {
        todo!("{filter:?} {after:?} {limit}")
    }

    /// Replaces a specification: with a new revision if it changes what runs, with events, and with a
    /// wake-up, in one transaction. A specification equal to the present one changes nothing. With
    /// `if_generation`, only if nobody changed it since.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] (`name_taken`, `deleting`).
    pub async fn deployment_replace(
        &self,
        id: DeploymentId,
        spec: &DeploymentSpec,
        if_generation: Option<i64>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        todo!("{id} {spec:?} {if_generation:?} {now:?}")
    }

    /// Asks for the end of a deployment. Asking again changes nothing. Its name is free at once.
    pub async fn deployment_delete(
        &self,
        id: DeploymentId,
        if_generation: Option<i64>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        todo!("{id} {if_generation:?} {now:?}")
    }

    /// Worker: what it needs to reconcile one deployment: the record and the revisions `numbers` and the
    /// newest one. `None` if the deployment is gone.
    pub async fn deployment_wanted(
        &self,
        id: DeploymentId,
        numbers: &[RevisionNumber],
    ) -> Result<Option<(DeploymentRecord, Vec<Revision>)>, StoreError> {
        todo!("{id} {numbers:?}")
    }

    /// Worker: writes status, route and events in one transaction, under its lease. The route's version
    /// grows only if the route differs. `settled_at` names the generation at which nothing is left to do.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] if the lease was taken over: nothing was written.
    pub async fn deployment_observed(
        &self,
        lease: &Lease,
        status: &DeploymentStatus,
        route: Option<&api::route::Route>,
        events: &[NewEvent],
        settled_at: Option<i64>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        todo!("{lease:?} {status:?} {route:?} {events:?} {settled_at:?} {now:?}")
    }

    /// Worker: a deleted deployment's replicas are gone: removes it, its revisions and its route (whose
    /// tombstone stays for the gateways). Its events stay.
    pub async fn deployment_purge(&self, lease: &Lease, now: Timestamp) -> Result<(), StoreError> {
        todo!("{lease:?} {now:?}")
    }

    /// Worker: a page of all deployments, as little of each as a scan needs, after `after`.
    pub async fn deployment_scan(&self, after: Option<i64>, limit: u32) -> Result<Page<SettledRow>, StoreError> {
        todo!("{after:?} {limit}")
    }

    /// How many deployments stand in each state.
    pub async fn deployment_count(&self) -> Result<Vec<(State, u64)>, StoreError> {
        todo!()
    }
}
