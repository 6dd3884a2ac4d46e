//! The route table, versioned over all endpoints so that a gateway can ask for what came after.
//!
//! What a person sets on an endpoint (its name, its limits) is the specification's; where it goes is the
//! worker's. The store puts both together at each write, so that a worker with an older specification in
//! hand cannot bring an old name back.

use api::{
    DeploymentId, DeploymentSpec, State,
    route::{Route, RouteChange},
};
use sqlx::any::AnyRow;

use crate::{
    Sql, Store, StoreError,
    counter::Counter,
    row::{Columns as _, json},
};

/// Changes in the order of versions.
#[derive(Clone, Debug)]
pub struct RoutePage {
    /// The newest change of each endpoint that changed. Without tombstones where `after` was 0.
    pub changes: Vec<RouteChange>,
    /// The table's version up to which `changes` is complete.
    pub version: i64,
    /// Whether more is to be asked for after `version`.
    pub more: bool,
    /// The newest version whose tombstone is no longer kept: whoever follows from an older one may not be told
    /// of an endpoint's end, and must begin anew.
    pub pruned: i64,
}

impl Store {
    /// What changed after version `after`, at most `limit` changes. A version that this table never had
    /// (the database was restored from a backup) counts as 0: the page's `version` is then the smaller one.
    pub async fn route_changes(&self, after: i64, limit: u32) -> Result<RoutePage, StoreError> {
        let limit = i64::from(limit.max(1));
        let mut sql = self.read().await?;
        // Before the rows: those that come between are newer, and every one up to the newest is seen.
        let table = Counter::Route.last(&mut sql).await?;
        let after = if after > table { 0 } else { after };
        let query = if after == 0 {
            "SELECT deployment, version, route FROM route WHERE version > $1 AND route IS NOT NULL ORDER BY version LIMIT $2"
        } else {
            "SELECT deployment, version, route FROM route WHERE version > $1 ORDER BY version LIMIT $2"
        };
        let rows = sqlx::query(query).bind(after).bind(limit + 1).fetch_all(&mut *sql).await?;
        // After the rows: had one been forgotten before they were read, this tells.
        let pruned = Counter::RoutePruned.last(&mut sql).await?;
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > most;
        let changes = rows.iter().take(most).map(read).collect::<Result<Vec<_>, _>>()?;
        let last = changes.last().map_or(after, |change| change.version);
        Ok(RoutePage { changes, version: if more { last } else { last.max(table) }, more, pruned })
    }
}

fn read(row: &AnyRow) -> Result<RouteChange, StoreError> {
    let route = match row.maybe_text("route")? {
        Some(_) => Some(row.json("route", "route")?),
        None => None,
    };
    Ok(RouteChange { version: row.int("version")?, deployment: DeploymentId(row.int("deployment")?), route })
}

/// A new endpoint's: it is known, and nothing serves.
pub(crate) fn initial(id: DeploymentId, spec: &DeploymentSpec) -> Route {
    let route = Route {
        name: None,
        former: None,
        state: State::Pending,
        reason: Some("the deployment is starting; no replica is ready yet".to_owned()),
        revisions: Vec::new(),
        request_timeout_ms: 0,
        idempotent: false,
        log_payloads: spec.log_payloads,
    };
    under(id, route, spec, false)
}

/// The route with what the specification says of its endpoint. Of one that is being deleted, the name is
/// free for others. Where the name has changed, the replicas that serve answer to the former one.
pub(crate) fn under(id: DeploymentId, route: Route, spec: &DeploymentSpec, deleting: bool) -> Route {
    let serves = !deleting && route.revisions.iter().any(|revision| !revision.replicas.is_empty());
    let answered = || route.former.or(route.name).unwrap_or_else(|| id.to_string());
    let former = serves.then(answered).filter(|former| *former != wanted_name(id, spec));
    Route {
        name: if deleting { None } else { spec.name.clone() },
        former,
        state: if deleting { State::Deleting } else { route.state },
        request_timeout_ms: spec.request_timeout_ms,
        idempotent: spec.idempotent,
        log_payloads: spec.log_payloads,
        ..route
    }
}

fn wanted_name(id: DeploymentId, spec: &DeploymentSpec) -> String {
    spec.name.clone().unwrap_or_else(|| id.to_string())
}

/// The route of a deployment, if it has one.
pub(crate) async fn get(sql: &mut Sql, id: DeploymentId) -> Result<Option<Route>, StoreError> {
    let row = sqlx::query("SELECT deployment, version, route FROM route WHERE deployment = $1")
        .bind(id.0)
        .fetch_optional(sql);
    Ok(row.await?.as_ref().map(read).transpose()?.and_then(|change| change.route))
}

/// Writes a route, with a new version if it differs. `None` is the tombstone.
pub(crate) async fn put(sql: &mut Sql, id: DeploymentId, route: Option<&Route>) -> Result<(), StoreError> {
    if get(sql, id).await?.as_ref() == route {
        return Ok(());
    }
    let version = Counter::Route.take(sql, 1).await?;
    sqlx::query(
        "INSERT INTO route (deployment, version, route) VALUES ($1, $2, $3) \
         ON CONFLICT (deployment) DO UPDATE SET version = excluded.version, route = excluded.route",
    )
    .bind(id.0)
    .bind(version)
    .bind(route.map(json).transpose()?)
    .execute(sql)
    .await?;
    Ok(())
}
