//! Changes of a deployment by users: create, replace, delete.
//!
//! Each change is one transaction that includes the deployment, its revision, its events, its route and its wake-up.

use api::{
    DeploymentId, DeploymentSpec, DeploymentStatus, Revision, RevisionNumber, State, Timestamp, event::NewEvent,
    revision::RevisionSpec,
};
use serde_json::{Value, json};

use super::{DeploymentRecord, get, missing, read, record_columns, registered, stored};
use crate::{
    Idempotent, Sql, Store, StoreError,
    counter::Counter,
    error::{is_referenced, is_taken},
    event, idempotency, lease, registry,
    revision::{self, Next},
    route,
    row::{self, clean},
    task_queue,
    transaction::{Care, Write},
};

impl Store {
    /// Creates a deployment in one transaction: the deployment, revision 1, event `created`, a route without replicas,
    /// and its wake-up. Resolves a registered model; if that fails, the error is [`StoreError::NotFound`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `name_taken`. If `idempotency` was used before with another payload,
    /// `idempotency_key_reused`. If it was used before with this payload, returns the deployment that it created in its
    /// current state, or [`StoreError::NotFound`] if that was deleted.
    pub async fn deployment_create(
        &self,
        spec: &DeploymentSpec,
        idempotency: Option<&Idempotent>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let id = DeploymentId(Counter::Deployment.take(&mut sql, 1).await?);
        if let Some(key) = idempotency
            && let Some(made) = idempotency::claim(&mut sql, key, id, now).await?
        {
            let record = get(&mut sql, made).await?.ok_or_else(|| missing(made));
            sql.abandon().await?;
            return record;
        }
        let entry = registry::resolve(&mut sql, spec).await?;
        let content = RevisionSpec::of(spec, entry.as_ref());
        refuse_taken_name(&mut sql, spec, id).await?;

        let revision = RevisionNumber(1);
        let status = DeploymentStatus::pending();
        let record = DeploymentRecord {
            id,
            spec: DeploymentSpec { placement: Some(spec.placement().to_owned()), ..spec.clone() },
            status,
            revision,
            generation: 1,
            created_at: now,
            updated_at: now,
            deleting_since: None,
        };
        insert(&mut sql, &record).await?;
        write_labels(&mut sql, id, spec).await?;
        revision::insert(&mut sql, id, revision, &content, registered(spec), now)
            .await
            .map_err(|error| refusal(error, spec))?;
        task_queue::wake(&mut sql, id, now).await?;
        let created = by_user(Some(revision), "created", format!("created {}", title(id, spec)), Value::Null);
        event::write(&mut sql, id, &[created], now).await?;
        route::put_policy(&mut sql, id, spec, false).await?;
        sql.commit().await?;
        self.announce();
        self.announce_task(id);
        Ok(record)
    }

    /// Replaces a specification in one transaction: with a new revision if the change affects what runs, with events,
    /// and with a wake-up. A specification that equals the current one changes nothing. With `if_generation`, only if
    /// the deployment has not changed since. The placement stays, and the specification need not name it.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] (`name_taken`, `deleting`, `immutable` for
    /// another placement).
    pub async fn deployment_replace(
        &self,
        id: DeploymentId,
        spec: &DeploymentSpec,
        if_generation: Option<i64>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let old = lock(&mut sql, id, if_generation).await?;
        refuse_deleting(&old)?;
        if spec.placement.is_some() && spec.placement != old.spec.placement {
            return Err(StoreError::Conflict {
                code: "immutable",
                reason: format!("deployment {} is placed in `{}`, and that cannot change", id.0, old.spec.placement()),
            });
        }
        let spec = DeploymentSpec { placement: old.spec.placement.clone(), ..spec.clone() };
        if old.spec == spec {
            sql.abandon().await?;
            return Ok(old);
        }
        let kept = revision::kept(&mut sql, id).await?;
        self.change(sql, old, &spec, &kept, None, now).await
    }

    /// Creates a new revision with the same specification and the current files of the model.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`], [`StoreError::Conflict`] (`deleting`).
    pub async fn deployment_redeploy(
        &self,
        id: DeploymentId,
        if_generation: Option<i64>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let old = lock(&mut sql, id, if_generation).await?;
        refuse_deleting(&old)?;
        let kept = revision::kept(&mut sql, id).await?;
        let spec = old.spec.clone();
        let next = revision::new(&kept, old.revision);
        self.change(sql, old, &spec, &kept, Some(next), now).await
    }

    /// Rolls back to a kept revision: its content runs again, and nothing is rebuilt. The name, the labels, the number
    /// of replicas and everything else outside a revision do not change. If the name of the deployment has changed
    /// since, it becomes a new revision.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the deployment or the revision does not exist; otherwise as
    /// [`Store::deployment_replace`].
    pub async fn deployment_restore(
        &self,
        id: DeploymentId,
        number: RevisionNumber,
        if_generation: Option<i64>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let old = lock(&mut sql, id, if_generation).await?;
        refuse_deleting(&old)?;
        let kept = revision::kept(&mut sql, id).await?;
        let Some(target) = kept.iter().find(|revision| revision.number == number) else {
            return Err(StoreError::NotFound { what: format!("revision {number} of deployment {}", id.0) });
        };
        if number == old.revision {
            sql.abandon().await?;
            return Ok(old);
        }
        let registered = revision::registered(&mut sql, id, number).await?;
        let spec = target.spec.restored(&old.spec, registered);
        let back = (target.spec.name == spec.name).then_some(Next::Back(number));
        self.change(sql, old, &spec, &kept, back, now).await
    }

    /// Writes a changed specification, with all its consequences. The resulting revision is `next`, or otherwise
    /// follows from the specification.
    async fn change(
        &self,
        mut sql: Write,
        old: DeploymentRecord,
        spec: &DeploymentSpec,
        kept: &[Revision],
        next: Option<Next>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        let id = old.id;
        let entry = registry::resolve(&mut sql, spec).await?;
        let content = RevisionSpec::of(spec, entry.as_ref());
        refuse_taken_name(&mut sql, spec, id).await?;
        let next = next.unwrap_or_else(|| revision::next(kept, old.revision, &content));
        let revision = match next {
            Next::Same => old.revision,
            Next::Back(number) | Next::New(number) => number,
        };
        let status = status_after(&old, spec, revision);
        let record = DeploymentRecord {
            spec: spec.clone(),
            status,
            revision,
            generation: old.generation + 1,
            updated_at: now,
            ..old.clone()
        };
        update(&mut sql, &record).await?;
        if old.spec.labels != spec.labels {
            sqlx::query("DELETE FROM deployment_label WHERE deployment = $1").bind(id.0).execute(&mut *sql).await?;
            write_labels(&mut sql, id, spec).await?;
        }
        if let Next::New(number) = next {
            revision::insert(&mut sql, id, number, &content, registered(spec), now)
                .await
                .map_err(|error| refusal(error, spec))?;
            let kept = revision::kept(&mut sql, id).await?;
            revision::prune(&mut sql, id, &kept, number, &old.status.traffic).await?;
        }
        task_queue::wake(&mut sql, id, now).await?;
        event::write(&mut sql, id, &changes(&old, spec, next), now).await?;
        route::put_policy(&mut sql, id, spec, false).await?;
        sql.commit().await?;
        self.announce();
        self.announce_task(id);
        Ok(record)
    }

    /// Asks for the end of a deployment. Asking again changes nothing. Its name and its model are free at
    /// once; its endpoint serves under its id until a worker has drained it.
    ///
    /// # Errors
    /// [`StoreError::Stale`], [`StoreError::NotFound`].
    pub async fn deployment_delete(
        &self,
        id: DeploymentId,
        if_generation: Option<i64>,
        now: Timestamp,
    ) -> Result<DeploymentRecord, StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let old = lock(&mut sql, id, if_generation).await?;
        if old.deleting_since.is_some() {
            sql.abandon().await?;
            return Ok(old);
        }
        sqlx::query(
            "UPDATE deployment SET deleting_since = $1, state = $2, generation = generation + 1, name = NULL, \
             model_name = NULL, model_version = NULL WHERE id = $3",
        )
        .bind(now.0)
        .bind(State::Deleting.as_str())
        .bind(id.0)
        .execute(&mut *sql)
        .await?;
        revision::let_models_go(&mut sql, id).await?;
        task_queue::wake(&mut sql, id, now).await?;
        let message = format!("deletion of {} was asked for", title(id, &old.spec));
        event::write(&mut sql, id, &[by_user(None, "deletion_requested", message, Value::Null)], now).await?;
        route::put_policy(&mut sql, id, &old.spec, true).await?;
        sql.commit().await?;
        self.announce();
        self.announce_task(id);
        let status = DeploymentStatus { state: State::Deleting, ..old.status };
        Ok(DeploymentRecord { status, generation: old.generation + 1, deleting_since: Some(now), ..old })
    }
}

/// The record, which nobody else changes until the transaction ends.
async fn lock(sql: &mut Sql, id: DeploymentId, if_generation: Option<i64>) -> Result<DeploymentRecord, StoreError> {
    let query = concat!("UPDATE deployment SET generation = generation WHERE id = $1 RETURNING ", record_columns!());
    let row = sqlx::query(query).bind(id.0).fetch_optional(sql).await?;
    let record = read(&row.ok_or_else(|| missing(id))?)?;
    if if_generation.is_some_and(|expected| expected != record.generation) {
        return Err(StoreError::Stale);
    }
    Ok(record)
}

async fn insert(sql: &mut Sql, record: &DeploymentRecord) -> Result<(), StoreError> {
    let (model, version) = registered(&record.spec);
    let (owner, until) = lease::free(record.spec.placement());
    sqlx::query(
        "INSERT INTO deployment (id, name, state, replicas, revision, generation, created_at, updated_at, \
         model_name, model_version, spec, status, placement, lease_owner, lease_until) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(record.id.0)
    .bind(record.spec.name.as_deref().map(clean))
    .bind(record.status.state.as_str())
    .bind(i64::from(record.spec.replicas))
    .bind(i64::from(record.revision.0))
    .bind(record.generation)
    .bind(record.created_at.0)
    .bind(record.updated_at.0)
    .bind(model.map(clean))
    .bind(version.map(clean))
    .bind(stored(&record.spec)?)
    .bind(row::record(&record.status)?)
    .bind(clean(record.spec.placement()))
    .bind(owner)
    .bind(until)
    .execute(sql)
    .await
    .map_err(|error| refusal(error, &record.spec))?;
    Ok(())
}

async fn update(sql: &mut Sql, record: &DeploymentRecord) -> Result<(), StoreError> {
    let (model, version) = registered(&record.spec);
    sqlx::query(
        "UPDATE deployment SET name = $2, state = $3, replicas = $4, revision = $5, generation = $6, \
         updated_at = $7, model_name = $8, model_version = $9, spec = $10, status = $11 WHERE id = $1",
    )
    .bind(record.id.0)
    .bind(record.spec.name.as_deref().map(clean))
    .bind(record.status.state.as_str())
    .bind(i64::from(record.spec.replicas))
    .bind(i64::from(record.revision.0))
    .bind(record.generation)
    .bind(record.updated_at.0)
    .bind(model.map(clean))
    .bind(version.map(clean))
    .bind(stored(&record.spec)?)
    .bind(row::record(&record.status)?)
    .execute(sql)
    .await
    .map_err(|error| refusal(error, &record.spec))?;
    Ok(())
}

async fn write_labels(sql: &mut Sql, id: DeploymentId, spec: &DeploymentSpec) -> Result<(), StoreError> {
    for (name, value) in &spec.labels {
        // Two names that differ in nothing but NULs are one here.
        sqlx::query(
            "INSERT INTO deployment_label (deployment, name, value) VALUES ($1, $2, $3) \
             ON CONFLICT (deployment, name) DO NOTHING",
        )
        .bind(id.0)
        .bind(clean(name))
        .bind(clean(value))
        .execute(&mut *sql)
        .await?;
    }
    Ok(())
}

fn refuse_deleting(old: &DeploymentRecord) -> Result<(), StoreError> {
    match old.deleting_since {
        None => Ok(()),
        Some(_) => Err(StoreError::Conflict {
            code: "deleting",
            reason: format!("deployment {} is being deleted; create a new one", old.id.0),
        }),
    }
}

async fn refuse_taken_name(sql: &mut Sql, spec: &DeploymentSpec, id: DeploymentId) -> Result<(), StoreError> {
    let Some(name) = &spec.name else { return Ok(()) };
    let holder = sqlx::query("SELECT id FROM deployment WHERE name = $1 AND id <> $2").bind(clean(name)).bind(id.0);
    match holder.fetch_optional(sql).await? {
        None => Ok(()),
        Some(row) => Err(name_taken(name, Some(DeploymentId(row::Columns::int(&row, "id")?)))),
    }
}

fn name_taken(name: &str, holder: Option<DeploymentId>) -> StoreError {
    let holder = holder.map_or_else(|| "another one".to_owned(), |id| format!("deployment {}", id.0));
    StoreError::Conflict {
        code: "name_taken",
        reason: format!("the name `{name}` is taken by {holder}; choose another name, or change that deployment"),
    }
}

/// What a statement's failure means: somebody else was faster.
fn refusal(error: sqlx::Error, spec: &DeploymentSpec) -> StoreError {
    match &spec.name {
        Some(name) if is_taken(&error) => name_taken(name, None),
        _ if is_referenced(&error) => registry::missing_version(spec),
        _ => error.into(),
    }
}

/// What a deployment shows from the change on until a worker has looked at it: never that everything is as
/// it was asked for, and no more the error of what was replaced.
fn status_after(old: &DeploymentRecord, spec: &DeploymentSpec, revision: RevisionNumber) -> DeploymentStatus {
    let mut status = old.status.clone();
    if revision == old.revision && spec.replicas <= old.spec.replicas {
        return status;
    }
    if revision != old.revision {
        status.error = None;
    }
    status.state = match status.state {
        State::Active | State::Degraded => State::Degraded,
        State::Failed | State::Idle | State::Pending => State::Pending,
        State::Deleting => State::Deleting,
    };
    status
}

/// The events that tell a change.
fn changes(old: &DeploymentRecord, spec: &DeploymentSpec, next: Next) -> Vec<NewEvent> {
    let mut events = Vec::new();
    match next {
        Next::Same => {}
        Next::New(number) => {
            let message = format!("revision {number} is wanted in place of {}", old.revision);
            events.push(by_user(Some(number), "revision_created", message, Value::Null));
        }
        Next::Back(number) => {
            let message = format!("revision {number} is wanted again in place of {}", old.revision);
            events.push(by_user(Some(number), "revision_restored", message, Value::Null));
        }
    }
    if old.spec.replicas != spec.replicas {
        let (from, to) = (old.spec.replicas, spec.replicas);
        events.push(by_user(None, "scaled", format!("replicas: {from} → {to}"), json!({"from": from, "to": to})));
    }
    let fields: Vec<_> = [
        ("name", old.spec.name != spec.name),
        ("labels", old.spec.labels != spec.labels),
        ("model", old.spec.model != spec.model && next == Next::Same),
        ("request_timeout_ms", old.spec.request_timeout_ms != spec.request_timeout_ms),
        ("idempotent", old.spec.idempotent != spec.idempotent),
        ("log_payloads", old.spec.log_payloads != spec.log_payloads),
    ]
    .into_iter()
    .filter_map(|(field, changed)| changed.then_some(field))
    .collect();
    if !fields.is_empty() {
        let message = format!("changed: {}", fields.join(", "));
        events.push(by_user(None, "updated", message, json!({"fields": fields})));
    }
    events
}

fn by_user(revision: Option<RevisionNumber>, kind: &'static str, message: String, evidence: Value) -> NewEvent {
    NewEvent { revision, actor: "user", kind, message, evidence }
}

fn title(id: DeploymentId, spec: &DeploymentSpec) -> String {
    match &spec.name {
        Some(name) => format!("{id} ({name})"),
        None => id.to_string(),
    }
}
