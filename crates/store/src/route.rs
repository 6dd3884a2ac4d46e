//! The route table. Versions increase over all entries, so that a gateway can ask for newer changes.
//!
//! The policy of an endpoint and the targets of its deployment are in one row, each with its own version. The store
//! writes the policy as part of a user's change; the worker writes the targets. Neither can overwrite the other with an
//! old value.

use api::{
    DeploymentId, DeploymentSpec, EndpointId, State,
    route::{
        Change, Entry, Policy, Targets,
        form1::{self, Route},
    },
};
use sqlx::any::AnyRow;

use crate::{
    Sql, Store, StoreError,
    counter::Counter,
    row::{Columns as _, json, record},
};

/// The changes after a version, sorted by version.
#[derive(Clone, Debug)]
pub struct RoutePage {
    after: i64,
    rows: Vec<Row>,
    /// The version up to which this is complete.
    pub version: i64,
    /// Whether there are more changes after `version`.
    pub more: bool,
    /// The newest version whose tombstone was removed. A reader with an older version may miss the removal of an
    /// endpoint, and must load the whole table again.
    pub pruned: i64,
}

impl RoutePage {
    /// The newest change of each entry that changed after `since`, the version of the reader before the first page.
    /// (One half of a row may be older than the previous page.) Without tombstones if the page begins at 0.
    #[must_use]
    pub fn changes(self, since: i64) -> Vec<Change> {
        let since = since.min(self.after);
        self.rows.into_iter().flat_map(|row| row.changes_after(since)).collect()
    }

    /// The same changes as whole routes.
    #[must_use]
    pub fn whole_routes(self) -> Vec<form1::RouteChange> {
        let whole = |row: Row| form1::RouteChange {
            version: row.version,
            deployment: row.deployment,
            route: row.halves.map(|(policy, targets)| Route::join(&policy, &targets)),
        };
        self.rows.into_iter().map(whole).collect()
    }
}

/// The columns of a [`Row`].
macro_rules! row_columns {
    () => {
        "deployment, version, policy_version, targets_version, policy, targets, route"
    };
}

impl Store {
    /// The changes after version `after`: at most `limit` deployments, each with its endpoint. If this table never had
    /// that version (the database was restored from a backup), it counts as 0; the `version` of the page is then
    /// smaller.
    pub async fn route_changes(&self, after: i64, limit: u32) -> Result<RoutePage, StoreError> {
        let limit = i64::from(limit.max(1));
        let mut sql = self.read().await?;
        // Read before the rows: rows that are added in between are newer, and all rows up to the newest one are seen.
        let table = Counter::Route.last(&mut sql).await?;
        let after = if after > table { 0 } else { after };
        let query = if after == 0 {
            concat!(
                "SELECT ",
                row_columns!(),
                " FROM route WHERE version > $1 AND route IS NOT NULL ORDER BY version LIMIT $2"
            )
        } else {
            concat!("SELECT ", row_columns!(), " FROM route WHERE version > $1 ORDER BY version LIMIT $2")
        };
        let rows = sqlx::query(query).bind(after).bind(limit + 1).fetch_all(&mut *sql).await?;
        // Read after the rows: shows whether a tombstone was removed before they were read.
        let pruned = Counter::RoutePruned.last(&mut sql).await?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > most;
        let rows = rows.iter().take(most).map(Row::read).collect::<Result<Vec<_>, _>>()?;
        let last = rows.last().map_or(after, |row| row.version);
        Ok(RoutePage { after, rows, version: if more { last } else { last.max(table) }, more, pruned })
    }
}

/// The row of a deployment.
#[derive(Clone, Debug)]
struct Row {
    deployment: DeploymentId,
    version: i64,
    /// The versions of both halves.
    versions: (i64, i64),
    /// `None` once the deployment is removed.
    halves: Option<(Policy, Targets)>,
}

impl Row {
    fn read(row: &AnyRow) -> Result<Self, StoreError> {
        let deployment = DeploymentId(row.int("deployment")?);
        let version = row.int("version")?;
        let versions = row.maybe_int("policy_version")?.zip(row.maybe_int("targets_version")?);
        let (versions, halves) = match versions.filter(|(policy, targets)| *policy.max(targets) == version) {
            Some(versions) => match row.maybe_text("policy")? {
                Some(_) => {
                    (versions, Some((row.record("policy", "endpoint's policy")?, row.record("targets", "targets")?)))
                }
                None => (versions, None),
            },
            // A process of 0.1.0 wrote the row.
            None => match row.maybe_text("route")? {
                Some(_) => ((version, version), Some(row.json::<Route>("route", "route")?.split(deployment))),
                None => ((version, version), None),
            },
        };
        Ok(Self { deployment, version, versions, halves })
    }

    fn changes_after(self, after: i64) -> impl Iterator<Item = Change> {
        let (policy, targets) = self.halves.unzip();
        let (endpoint, key) = (EndpointId::from(self.deployment), self.deployment);
        let entries = [
            (self.versions.0, Entry::Endpoint { key: endpoint, value: policy }),
            (self.versions.1, Entry::Targets { key, value: targets }),
        ];
        let newer = entries.into_iter().filter(move |(version, _)| *version > after);
        newer.map(|(version, entry)| Change { version, entry })
    }

    /// Writes the changed halves with a new version.
    async fn write(self, sql: &mut Sql, halves: Option<(Policy, Targets)>) -> Result<(), StoreError> {
        if self.halves == halves {
            return Ok(());
        }
        let version = Counter::Route.take(sql, 1).await?;
        let same = |one: Option<bool>, known: i64| if one == Some(true) { known } else { version };
        let both = self.halves.as_ref().zip(halves.as_ref());
        let versions = (
            same(both.map(|(old, new)| old.0 == new.0), self.versions.0),
            same(both.map(|(old, new)| old.1 == new.1), self.versions.1),
        );
        let policy = halves.as_ref().map(|(policy, _)| record(policy)).transpose()?;
        let targets = halves.as_ref().map(|(_, targets)| record(targets)).transpose()?;
        let route = halves.as_ref().map(|(policy, targets)| json(&Route::join(policy, targets))).transpose()?;
        sqlx::query(
            "INSERT INTO route (deployment, version, policy_version, targets_version, policy, targets, route) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (deployment) DO UPDATE SET version = excluded.version, \
             policy_version = excluded.policy_version, targets_version = excluded.targets_version, \
             policy = excluded.policy, targets = excluded.targets, route = excluded.route",
        )
        .bind(self.deployment.0)
        .bind(version)
        .bind(versions.0)
        .bind(versions.1)
        .bind(policy)
        .bind(targets)
        .bind(route)
        .execute(sql)
        .await?;
        Ok(())
    }
}

/// The policy that a specification implies. If the deployment is being deleted, its name is free for others.
fn policy(id: DeploymentId, spec: &DeploymentSpec, deleting: bool) -> Policy {
    Policy {
        deployment: id,
        name: if deleting { None } else { spec.name.clone() },
        deleting,
        requires: Vec::new(),
        request_timeout_ms: spec.request_timeout_ms,
        idempotent: spec.idempotent,
        log_payloads: spec.log_payloads,
    }
}

/// The targets of a new deployment: nothing serves.
fn no_targets(spec: &DeploymentSpec) -> Targets {
    Targets {
        state: State::Pending,
        reason: Some("the deployment is starting; no replica is ready yet".to_owned()),
        answers_to: spec.name.clone(),
        revisions: Vec::new(),
    }
}

async fn get(sql: &mut Sql, id: DeploymentId) -> Result<Row, StoreError> {
    let row = sqlx::query(concat!("SELECT ", row_columns!(), " FROM route WHERE deployment = $1"))
        .bind(id.0)
        .fetch_optional(sql);
    let none = Row { deployment: id, version: 0, versions: (0, 0), halves: None };
    Ok(row.await?.as_ref().map(Row::read).transpose()?.unwrap_or(none))
}

/// Writes the policy of the endpoint.
pub(crate) async fn put_policy(
    sql: &mut Sql,
    id: DeploymentId,
    spec: &DeploymentSpec,
    deleting: bool,
) -> Result<(), StoreError> {
    let row = get(sql, id).await?;
    let targets = row.halves.as_ref().map_or_else(|| no_targets(spec), |(_, targets)| targets.clone());
    row.write(sql, Some((policy(id, spec, deleting), targets))).await
}

/// Writes the targets. `spec` is the current specification.
pub(crate) async fn put_targets(
    sql: &mut Sql,
    id: DeploymentId,
    spec: &DeploymentSpec,
    deleting: bool,
    targets: &Targets,
) -> Result<(), StoreError> {
    let row = get(sql, id).await?;
    let policy = row.halves.as_ref().map_or_else(|| policy(id, spec, deleting), |(policy, _)| policy.clone());
    row.write(sql, Some((policy, targets.clone()))).await
}

/// Leaves a tombstone.
pub(crate) async fn remove(sql: &mut Sql, id: DeploymentId) -> Result<(), StoreError> {
    get(sql, id).await?.write(sql, None).await
}
