//! Reading deployments.

mod change;
mod observed;

use api::{
    DeploymentId, DeploymentSpec, DeploymentStatus, Revision, RevisionNumber, State, Timestamp,
    deployment::ModelSource,
    traffic::{Role, Share, give_all, main_share},
};
use sqlx::{AssertSqlSafe, any::AnyRow};

use crate::{
    Fence, Sql, Store, StoreError,
    counter::Counter,
    revision,
    row::{self, Columns as _, clean},
};

/// A deployment, as stored in SQL.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentRecord {
    /// Its number.
    pub id: DeploymentId,
    /// The specification.
    pub spec: DeploymentSpec,
    /// The status.
    pub status: DeploymentStatus,
    /// The wanted revision: the newest one, or an older one after a rollback.
    pub revision: RevisionNumber,
    /// Increases with each change of the specification: the ETag.
    pub generation: i64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When the specification last changed.
    pub updated_at: Timestamp,
    /// When the deletion was requested.
    pub deleting_since: Option<Timestamp>,
}

impl DeploymentRecord {
    /// The number of wanted replicas: 0 for a deployment that is being deleted.
    #[must_use]
    pub fn wanted_replicas(&self) -> u32 {
        if self.deleting_since.is_some() { 0 } else { self.spec.replicas }
    }
}

/// The filter of a list. All set fields must match. A deployment that is being deleted has released its name and its
/// model, and matches neither.
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

/// One page of a list, sorted by id.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Pass it to get the next page; absent on the last page.
    pub next: Option<i64>,
}

impl<T> Page<T> {
    /// Builds the page from `rows`; one row more than `limit` means that there is a next page.
    pub(crate) fn cut(
        mut rows: Vec<AnyRow>,
        limit: i64,
        read: impl Fn(&AnyRow) -> Result<T, StoreError>,
        id: impl Fn(&T) -> i64,
    ) -> Result<Self, StoreError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let items = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let next = if more { items.last().map(id) } else { None };
        Ok(Self { items, next })
    }
}

/// The columns that a scan needs to see whether a deployment is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRow {
    /// Its number.
    pub id: DeploymentId,
    /// Whether a worker found the deployment settled at the current generation.
    pub settled: bool,
    /// The state at that time.
    pub state: State,
    /// The revision that is wanted.
    pub revision: RevisionNumber,
    /// The number of wanted replicas.
    pub replicas: u32,
    /// The distribution of requests at that time.
    pub traffic: Vec<Share>,
    /// The highest assigned fence.
    pub fence: Fence,
}

/// The columns of a [`DeploymentRecord`].
macro_rules! record_columns {
    () => {
        "id, placement, state, revision, serving_revision, traffic, generation, created_at, updated_at, deleting_since, spec, status"
    };
}
use record_columns;

impl Store {
    /// One deployment.
    pub async fn deployment_get(&self, id: DeploymentId) -> Result<DeploymentRecord, StoreError> {
        get(&mut *self.read().await?, id).await?.ok_or_else(|| missing(id))
    }

    /// A page of deployments after `after`, at most `limit`.
    pub async fn deployment_list(
        &self,
        filter: &DeploymentFilter,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<DeploymentRecord>, StoreError> {
        let limit = i64::from(limit.max(1));
        let mut wanted = Vec::new();
        // The SQL text consists of our own parts only; values from users are bound.
        let mut sql = concat!("SELECT ", record_columns!(), " FROM deployment WHERE id > $1").to_owned();
        for (column, value) in [
            ("name", filter.name.as_deref()),
            ("state", filter.state.map(State::as_str)),
            ("model_name", filter.model.as_deref()),
        ] {
            if let Some(value) = value {
                wanted.push(clean(value));
                sql.push_str(&format!(" AND {column} = ${}", wanted.len() + 2));
            }
        }
        for (name, value) in &filter.labels {
            wanted.extend([clean(name), clean(value)]);
            sql.push_str(&format!(
                " AND id IN (SELECT deployment FROM deployment_label WHERE name = ${} AND value = ${})",
                wanted.len() + 1,
                wanted.len() + 2
            ));
        }
        sql.push_str(" ORDER BY id LIMIT $2");
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(after.unwrap_or(0)).bind(limit + 1);
        for value in wanted {
            query = query.bind(value);
        }
        let rows = query.fetch_all(&mut *self.read().await?).await?;
        Page::cut(rows, limit, read, |record| record.id.0)
    }

    /// For workers: the data to reconcile one deployment: the record and the revisions `numbers`, the wanted one and
    /// those with a share of the traffic, sorted by number. `None` if the deployment was removed; removed revisions are
    /// left out.
    pub async fn deployment_wanted(
        &self,
        id: DeploymentId,
        numbers: &[RevisionNumber],
    ) -> Result<Option<(DeploymentRecord, Vec<Revision>)>, StoreError> {
        let mut sql = self.read().await?;
        // Read the revisions first: a record that is read later can only want a newer one.
        for _ in 0..8 {
            let kept = revision::kept(&mut sql, id).await?;
            let Some(record) = get(&mut sql, id).await? else { return Ok(None) };
            if kept.iter().any(|revision| revision.number == record.revision) {
                let needed = |number: RevisionNumber| {
                    number == record.revision
                        || record.status.traffic.iter().any(|share| share.revision == number)
                        || numbers.contains(&number)
                };
                let mut revisions: Vec<_> = kept.into_iter().filter(|revision| needed(revision.number)).collect();
                revisions.sort_by_key(|revision| revision.number);
                return Ok(Some((record, revisions)));
            }
        }
        Err(StoreError::Corrupt {
            what: "deployment without its revision",
            source: format!("{id} refers to a revision that does not exist").into(),
        })
    }

    /// For workers: a page of all deployments of the worker's placement after `after`, with the columns that a scan needs.
    pub async fn deployment_scan(&self, after: Option<i64>, limit: u32) -> Result<Page<SettledRow>, StoreError> {
        let limit = i64::from(limit.max(1));
        let rows = sqlx::query(
            "SELECT id, state, revision, serving_revision, traffic, replicas, fence, generation, settled_generation \
             FROM deployment WHERE placement = $3 AND id > $1 ORDER BY id LIMIT $2",
        )
        .bind(after.unwrap_or(0))
        .bind(limit + 1)
        .bind(clean(&self.placement))
        .fetch_all(&mut *self.read().await?)
        .await?;
        let settled = |row: &AnyRow| {
            Ok(SettledRow {
                id: DeploymentId(row.int("id")?),
                settled: row.maybe_int("settled_generation")? == Some(row.int("generation")?),
                state: state(row)?,
                revision: RevisionNumber(row.small("revision")?),
                replicas: row.small("replicas")?,
                traffic: traffic(row)?,
                fence: Fence(row.int("fence")?),
            })
        };
        Page::cut(rows, limit, settled, |row| row.id.0)
    }

    /// The highest id that was assigned to a deployment.
    pub async fn deployment_last(&self) -> Result<DeploymentId, StoreError> {
        Ok(DeploymentId(Counter::Deployment.last(&mut *self.read().await?).await?))
    }

    /// Whether this database has deleted the deployment in the last 30 days.
    pub async fn deployment_is_gone(&self, id: DeploymentId) -> Result<bool, StoreError> {
        let row = sqlx::query("SELECT deployment FROM gone WHERE deployment = $1").bind(id.0);
        Ok(row.fetch_optional(&mut *self.read().await?).await?.is_some())
    }

    /// Each placement of a deployment, and how many deployments it has.
    pub async fn placement_count(&self) -> Result<Vec<(String, u64)>, StoreError> {
        let rows = sqlx::query(
            "SELECT placement, COUNT(*) AS n FROM deployment GROUP BY placement ORDER BY placement LIMIT 1000",
        )
        .fetch_all(&mut *self.read().await?)
        .await?;
        rows.iter().map(|row| Ok((row.text("placement")?, u64::try_from(row.int("n")?).unwrap_or(0)))).collect()
    }

    /// The number of deployments in each state; every state is included.
    pub async fn deployment_count(&self) -> Result<Vec<(State, u64)>, StoreError> {
        let rows = sqlx::query("SELECT state, COUNT(*) AS n FROM deployment GROUP BY state")
            .fetch_all(&mut *self.read().await?)
            .await?;
        let mut counts: Vec<_> = State::ALL.iter().map(|(_, state)| (*state, 0)).collect();
        for row in &rows {
            let found = state(row)?;
            let count = u64::try_from(row.int("n")?).unwrap_or(0);
            counts.iter_mut().filter(|(state, _)| *state == found).for_each(|(_, n)| *n = count);
        }
        Ok(counts)
    }
}

fn state(row: &AnyRow) -> Result<State, StoreError> {
    let word = row.text("state")?;
    State::ALL.iter().find(|(known, _)| *known == word).map(|(_, state)| *state).ok_or_else(|| StoreError::Corrupt {
        what: "deployment's state",
        source: format!("`{word}` is not a state").into(),
    })
}

/// The last written traffic. A process of 0.1.0 knows only the revision that serves.
fn traffic(row: &AnyRow) -> Result<Vec<Share>, StoreError> {
    let serving = match row.maybe_int("serving_revision")? {
        Some(_) => Some(RevisionNumber(row.small("serving_revision")?)),
        None => None,
    };
    let mut traffic: Vec<Share> = match row.maybe_text("traffic")? {
        Some(_) => row.json("traffic", "deployment's traffic")?,
        None => Vec::new(),
    };
    if main_share(&traffic).map(|share| share.revision) != serving {
        traffic.retain(|share| share.role == Role::Pinned);
        traffic.iter_mut().for_each(|share| share.weight = 0);
        give_all(&mut traffic, serving);
    }
    Ok(traffic)
}

fn read(row: &AnyRow) -> Result<DeploymentRecord, StoreError> {
    let status: DeploymentStatus = row.record("status", "deployment's status")?;
    let spec: DeploymentSpec = row.record("spec", "deployment's specification")?;
    Ok(DeploymentRecord {
        id: DeploymentId(row.int("id")?),
        spec: DeploymentSpec { placement: Some(row.text("placement")?), ..spec },
        // The column shows a deletion that the worker did not know about when it wrote the status.
        status: DeploymentStatus { state: state(row)?, traffic: traffic(row)?, ..status },
        revision: RevisionNumber(row.small("revision")?),
        generation: row.int("generation")?,
        created_at: Timestamp(row.int("created_at")?),
        updated_at: Timestamp(row.int("updated_at")?),
        deleting_since: row.maybe_int("deleting_since")?.map(Timestamp),
    })
}

async fn get(sql: &mut Sql, id: DeploymentId) -> Result<Option<DeploymentRecord>, StoreError> {
    let query = sqlx::query(concat!("SELECT ", record_columns!(), " FROM deployment WHERE id = $1"));
    query.bind(id.0).fetch_optional(sql).await?.as_ref().map(read).transpose()
}

fn missing(id: DeploymentId) -> StoreError {
    StoreError::NotFound { what: format!("deployment {}", id.0) }
}

/// A specification as it is stored. The placement has a column, because processes of older versions write the rest without it.
fn stored(spec: &DeploymentSpec) -> Result<String, StoreError> {
    row::record(&DeploymentSpec { placement: None, ..spec.clone() })
}

/// The registered version that a specification names: name and version.
fn registered(spec: &DeploymentSpec) -> (Option<&str>, Option<&str>) {
    match &spec.model {
        ModelSource::Registered(model) => (Some(&model.name), Some(&model.version)),
        ModelSource::Bucket(_) => (None, None),
    }
}
