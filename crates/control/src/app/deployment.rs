//! Deployments: create, read, change, delete.

use api::{
    Deployment, DeploymentId, DeploymentSpec, Fault, RevisionNumber, State,
    decode::{Faults, Fields, nearest, short},
    deployment::{MAX_REPLICAS, ModelSource, RegisteredRef},
    revision::RevisionView,
};
use http::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};
use store::{DeploymentFilter, DeploymentRecord, Idempotent, Page, StoreError};

use super::{App, precondition::Precondition};
use crate::error::Error;

/// How often a change is computed again if concurrent changes overtake it.
const ATTEMPTS: usize = 8;

impl App {
    /// Creates a deployment. With an idempotency `key`, a repeated request returns the deployment of the first one.
    pub(crate) async fn deployment_create(
        &self,
        spec: &DeploymentSpec,
        key: Option<String>,
    ) -> Result<DeploymentRecord, Error> {
        let idempotency = match key {
            Some(key) => Some(Idempotent { key, payload: digest(spec)? }),
            None => None,
        };
        let placement = spec.placement.clone().unwrap_or_else(|| self.config.default_placement.clone());
        let spec = &DeploymentSpec { placement: Some(placement), ..spec.clone() };
        let error = match self.store.deployment_create(spec, idempotency.as_ref(), self.now()).await {
            Err(error @ StoreError::NotFound { .. }) => error,
            other => return Ok(other?),
        };
        let refusal = self.unknown_model(spec, error).await;
        if let (Error::Store(StoreError::NotFound { what }), Some(_)) = (&refusal, &idempotency) {
            let detail = format!(
                "this Idempotency-Key created {what}, which has been deleted; use a new key to create another one"
            );
            return Err(Error::request(StatusCode::GONE, "gone", detail));
        }
        Err(refusal)
    }

    pub(crate) async fn deployment_get(&self, id: DeploymentId) -> Result<DeploymentRecord, Error> {
        Ok(self.store.deployment_get(id).await?)
    }

    pub(crate) async fn deployment_list(
        &self,
        filter: &DeploymentFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<DeploymentRecord>, Error> {
        Ok(self.store.deployment_list(filter, after, limit).await?)
    }

    /// Replaces the whole specification with `body`, which may be an edited response.
    pub(crate) async fn deployment_put(
        &self,
        id: DeploymentId,
        body: &Value,
        only_if: &Precondition,
    ) -> Result<DeploymentRecord, Error> {
        if let Some(other) = body.get("id").filter(|other| **other != id.0 && !other.is_null()) {
            let detail =
                format!("this is the specification of {}, but the path names {}", short(&other.to_string()), id.0);
            return Err(Error::payload("/id", "conflict", detail));
        }
        self.deployment_change(id, only_if, |spec| spec.replaced(body.clone()).map_err(Error::Payload)).await
    }

    /// Applies the merge patch `patch` (RFC 7396). Faults point into the changed specification.
    pub(crate) async fn deployment_patch(
        &self,
        id: DeploymentId,
        patch: &Value,
        only_if: &Precondition,
    ) -> Result<DeploymentRecord, Error> {
        self.deployment_change(id, only_if, |spec| spec.patched(patch).map_err(Error::Payload)).await
    }

    /// Sets the number of replicas.
    pub(crate) async fn deployment_scale(
        &self,
        id: DeploymentId,
        replicas: u32,
        only_if: &Precondition,
    ) -> Result<DeploymentRecord, Error> {
        self.deployment_change(id, only_if, |spec| Ok(DeploymentSpec { replicas, ..spec.clone() })).await
    }

    /// Rolls back to a kept revision.
    pub(crate) async fn deployment_rollback(
        &self,
        id: DeploymentId,
        number: RevisionNumber,
        only_if: &Precondition,
    ) -> Result<DeploymentRecord, Error> {
        for _ in 0..ATTEMPTS {
            let record = self.store.deployment_get(id).await?;
            only_if.check(record.generation)?;
            match self.store.deployment_restore(id, number, Some(record.generation), self.now()).await {
                Err(StoreError::Stale) => {}
                Err(StoreError::NotFound { .. }) => {
                    let kept = self.store.revision_list(id).await?;
                    let kept: Vec<_> = kept.iter().map(|revision| revision.number.to_string()).collect();
                    let detail = format!("there is no revision {number}; the kept revisions are {}", kept.join(", "));
                    return Err(Error::payload("/revision", "not_found", detail));
                }
                other => return Ok(other?),
            }
        }
        Err(overtaken(id))
    }

    /// Creates a new revision with the current files of the model.
    pub(crate) async fn deployment_redeploy(
        &self,
        id: DeploymentId,
        only_if: &Precondition,
    ) -> Result<DeploymentRecord, Error> {
        for _ in 0..ATTEMPTS {
            let record = self.store.deployment_get(id).await?;
            only_if.check(record.generation)?;
            match self.store.deployment_redeploy(id, Some(record.generation), self.now()).await {
                Err(StoreError::Stale) => {}
                other => return Ok(other?),
            }
        }
        Err(overtaken(id))
    }

    /// Marks a deployment for deletion.
    pub(crate) async fn deployment_delete(
        &self,
        id: DeploymentId,
        only_if: &Precondition,
    ) -> Result<DeploymentRecord, Error> {
        let generation = match only_if {
            Precondition::None => None,
            Precondition::OneOf(_) => {
                let record = self.store.deployment_get(id).await?;
                only_if.check(record.generation)?;
                Some(record.generation)
            }
        };
        Ok(self.store.deployment_delete(id, generation, self.now()).await?)
    }

    /// The revisions of a deployment, newest first.
    pub(crate) async fn deployment_revisions(&self, id: DeploymentId) -> Result<Vec<RevisionView>, Error> {
        let record = self.store.deployment_get(id).await?;
        let revisions = self.store.revision_list(id).await?.into_iter().map(|revision| RevisionView {
            number: revision.number,
            wanted: revision.number == record.revision,
            serving: record.status.serving_revision == Some(revision.number),
            model_version: revision.spec.model_version,
            content: revision.spec.content,
            pin: revision.pin,
            created_at: revision.created_at,
        });
        Ok(revisions.collect())
    }

    /// Reads the record, computes the change, and writes it if the record has not changed since. Otherwise repeats.
    async fn deployment_change(
        &self,
        id: DeploymentId,
        only_if: &Precondition,
        change: impl Fn(&DeploymentSpec) -> Result<DeploymentSpec, Error>,
    ) -> Result<DeploymentRecord, Error> {
        for _ in 0..ATTEMPTS {
            let record = self.store.deployment_get(id).await?;
            only_if.check(record.generation)?;
            let spec = change(&record.spec)?;
            match self.store.deployment_replace(id, &spec, Some(record.generation), self.now()).await {
                Err(StoreError::Stale) => {}
                Err(error @ StoreError::NotFound { .. }) => return Err(self.unknown_model(&spec, error).await),
                other => return Ok(other?),
            }
        }
        Err(overtaken(id))
    }

    /// The store did not find something. Says whether it is the model in `spec`, and suggests a similar name.
    async fn unknown_model(&self, spec: &DeploymentSpec, error: StoreError) -> Error {
        let ModelSource::Registered(wanted) = &spec.model else { return error.into() };
        match self.unknown_model_fault(wanted).await {
            Ok(Some(fault)) => Error::Payload(vec![fault]),
            Ok(None) => error.into(),
            Err(other) => other,
        }
    }

    async fn unknown_model_fault(&self, wanted: &RegisteredRef) -> Result<Option<Fault>, Error> {
        let fault = |pointer: &str, detail| Fault { pointer: pointer.into(), code: "not_found".into(), detail };
        match self.store.model_get(&wanted.name).await {
            Ok(_) => {}
            Err(StoreError::NotFound { .. }) => {
                let hint = self.model_hint(&wanted.name).await?;
                let detail = format!("there is no registered model `{}`; {hint}", short(&wanted.name));
                return Ok(Some(fault("/model/name", detail)));
            }
            Err(other) => return Err(other.into()),
        }
        let known = self.store.model_version_list(&wanted.name).await?;
        let names: Vec<_> = known.iter().map(|entry| entry.version.as_str()).collect();
        if names.contains(&wanted.version.as_str()) {
            return Ok(None);
        }
        let hint = match (nearest(&wanted.version, names.iter().copied()), names.as_slice()) {
            (Some(near), _) => format!("did you mean `{near}`?"),
            (None, []) => format!("register one with POST /v1/registeredModels/{}/versions", wanted.name),
            (None, names) => format!("the newest ones are {}", newest(names)),
        };
        let detail = format!("`{}` has no version `{}`; {hint}", wanted.name, short(&wanted.version));
        Ok(Some(fault("/model/version", detail)))
    }

    /// The responses for deployments.
    pub(crate) async fn deployment_views(&self, mut records: Vec<DeploymentRecord>) -> Vec<Deployment> {
        self.say_unserved(&mut records).await;
        records.into_iter().map(|record| self.view(record)).collect()
    }

    /// The response for a deployment.
    pub(crate) async fn deployment_view(&self, mut record: DeploymentRecord) -> Deployment {
        self.say_unserved(std::slice::from_mut(&mut record)).await;
        self.view(record)
    }

    fn view(&self, record: DeploymentRecord) -> Deployment {
        let serves = matches!(record.status.state, State::Active | State::Degraded) || record.status.ready_replicas > 0;
        Deployment {
            id: record.id,
            url: serves.then(|| self.config.infer_url(record.id)),
            spec: record.spec,
            status: record.status,
            revision: record.revision,
            created_at: record.created_at,
            updated_at: record.updated_at,
        }
    }
}

fn overtaken(id: DeploymentId) -> Error {
    Error::Busy(format!("deployment {id} was changed concurrently {ATTEMPTS} times; repeat the request"))
}

/// Reads `{"replicas": n}`.
pub(crate) fn read_scale(value: Value) -> Result<u32, Vec<Fault>> {
    read_number(value, "replicas", 0, MAX_REPLICAS)
}

/// Reads `{"revision": n}`.
pub(crate) fn read_rollback(value: Value) -> Result<RevisionNumber, Vec<Fault>> {
    read_number(value, "revision", 1, u32::MAX).map(RevisionNumber)
}

/// Reads an object of one whole number.
fn read_number(value: Value, field: &'static str, low: u32, high: u32) -> Result<u32, Vec<Fault>> {
    let mut faults = Faults::default();
    let number = Fields::of(value, "", &mut faults).and_then(|mut fields| {
        let there = fields.require(field);
        let number = if there { fields.number(field, u64::from(low), u64::from(high)) } else { None };
        fields.finish();
        number.and_then(|n| u32::try_from(n).ok())
    });
    faults.into_result(number)
}

/// The digest of a payload, independent of the order of its fields.
fn digest(spec: &DeploymentSpec) -> Result<String, Error> {
    let canonical = serde_json::to_vec(spec).map_err(|e| Error::Defect(format!("a specification is not JSON: {e}")))?;
    Ok(Sha256::digest(canonical).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The last versions of a list.
fn newest(names: &[&str]) -> String {
    let names: Vec<_> = names.iter().rev().take(5).map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_digest_of_a_payload_does_not_depend_on_the_order_of_its_fields() {
        let read = |text: &str| DeploymentSpec::from_json(serde_json::from_str(text).expect(text)).expect(text);
        let one = read(r#"{"model":{"bucket":"/m","version":"v1"},"labels":{"a":"1","b":"2"},"replicas":2}"#);
        let two = read(r#"{"replicas":2,"labels":{"b":"2","a":"1"},"model":{"version":"v1","bucket":"/m"}}"#);
        let three = read(r#"{"replicas":3,"labels":{"b":"2","a":"1"},"model":{"version":"v1","bucket":"/m"}}"#);
        assert_eq!(digest(&one).expect("a digest"), digest(&two).expect("a digest"));
        assert_ne!(digest(&one).expect("a digest"), digest(&three).expect("a digest"));
    }

    #[test]
    fn scaling_takes_a_number_of_replicas_and_nothing_else() {
        assert_eq!(read_scale(json!({"replicas": 3})), Ok(3));
        for wrong in [json!({}), json!({"replicas": -1}), json!({"replicas": 1001}), json!({"replica": 1}), json!(3)] {
            assert!(read_scale(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
