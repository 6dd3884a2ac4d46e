//! Registered models and their versions.
//!
//! Deployments and their kept revisions refer to the registered versions, and the database itself refuses to delete a
//! version that is referred to. So a version cannot vanish between being resolved and being used.

use api::{
    DeploymentSpec, Timestamp,
    deployment::ModelSource,
    registry::{ModelVersion, ModelVersionSpec, RegisteredModel, RegisteredModelSpec},
};
use sqlx::any::AnyRow;

use crate::{
    Sql, Store, StoreError,
    error::{is_referenced, is_taken},
    row::{Columns as _, clean, json, record},
    transaction::Care,
};

/// How many of the conflicting deployments an error lists.
const NAMED: i64 = 5;

impl Store {
    /// Registers a model.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `name_taken`.
    pub async fn model_create(
        &self,
        spec: &RegisteredModelSpec,
        now: Timestamp,
    ) -> Result<RegisteredModel, StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        sqlx::query("INSERT INTO model (name, created_at, spec) VALUES ($1, $2, $3)")
            .bind(clean(&spec.name))
            .bind(now.0)
            .bind(record(spec)?)
            .execute(&mut *sql)
            .await
            .map_err(|error| match is_taken(&error) {
                true => StoreError::Conflict {
                    code: "name_taken",
                    reason: format!("the model `{}` is registered already; add a version to it", spec.name),
                },
                false => error.into(),
            })?;
        sql.commit().await?;
        self.announce();
        Ok(RegisteredModel { spec: spec.clone(), created_at: now })
    }

    /// One model.
    pub async fn model_get(&self, name: &str) -> Result<RegisteredModel, StoreError> {
        let query = sqlx::query("SELECT created_at, spec FROM model WHERE name = $1").bind(clean(name));
        match query.fetch_optional(&mut *self.read().await?).await? {
            Some(row) => read_model(&row),
            None => Err(missing_model(name)),
        }
    }

    /// A page of models sorted by name, after the name `after`, and the name for the next page.
    pub async fn model_list(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<(Vec<RegisteredModel>, Option<String>), StoreError> {
        let limit = limit.max(1);
        let rows = sqlx::query("SELECT created_at, spec FROM model WHERE name > $1 ORDER BY name LIMIT $2")
            .bind(clean(after.unwrap_or("")))
            .bind(i64::from(limit) + 1)
            .fetch_all(&mut *self.read().await?)
            .await?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let models = rows.iter().take(limit).map(read_model).collect::<Result<Vec<_>, _>>()?;
        let next = if rows.len() > limit { models.last().map(|model| model.spec.name.clone()) } else { None };
        Ok((models, next))
    }

    /// Removes a model that has no versions.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `in_use` while it has versions; [`StoreError::NotFound`].
    pub async fn model_delete(&self, name: &str) -> Result<(), StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let gone =
            sqlx::query("DELETE FROM model WHERE name = $1").bind(clean(name)).execute(&mut *sql).await.map_err(
                |error| match is_referenced(&error) {
                    true => StoreError::Conflict {
                        code: "in_use",
                        reason: format!("the model `{name}` has versions; delete those first"),
                    },
                    false => error.into(),
                },
            )?;
        if gone.rows_affected() == 0 {
            return Err(missing_model(name));
        }
        sql.commit().await?;
        self.announce();
        Ok(())
    }

    /// Adds a version to a model.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `exists`; [`StoreError::NotFound`] for the model.
    pub async fn model_version_create(
        &self,
        model: &str,
        spec: &ModelVersionSpec,
        now: Timestamp,
    ) -> Result<ModelVersion, StoreError> {
        let content = spec.content();
        let mut sql = self.write(Care::Durable).await?;
        sqlx::query(
            "INSERT INTO model_version (model, version, created_at, format, content) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(clean(model))
        .bind(clean(&spec.version))
        .bind(now.0)
        .bind(spec.format.as_deref().map(clean))
        .bind(json(&content)?)
        .execute(&mut *sql)
        .await
        .map_err(|error| match (is_taken(&error), is_referenced(&error)) {
            (true, _) => StoreError::Conflict {
                code: "exists",
                reason: format!(
                    "version `{}` of the model `{model}` exists and never changes; register the new one under another version",
                    spec.version
                ),
            },
            (_, true) => missing_model(model),
            _ => error.into(),
        })?;
        sql.commit().await?;
        self.announce();
        Ok(ModelVersion {
            model: model.to_owned(),
            version: spec.version.clone(),
            content,
            format: spec.format.clone(),
            created_at: now,
        })
    }

    /// One version.
    pub async fn model_version_get(&self, model: &str, version: &str) -> Result<ModelVersion, StoreError> {
        let found = get(&mut *self.read().await?, model, version).await?;
        found.ok_or_else(|| missing(model, version))
    }

    /// All versions of a model: numeric names in numeric order, then the others by creation.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for the model.
    pub async fn model_version_list(&self, model: &str) -> Result<Vec<ModelVersion>, StoreError> {
        let mut sql = self.read().await?;
        let rows = sqlx::query(
            "SELECT model, version, created_at, format, content FROM model_version WHERE model = $1 \
             ORDER BY created_at, version",
        )
        .bind(clean(model))
        .fetch_all(&mut *sql)
        .await?;
        if rows.is_empty() {
            let known = sqlx::query("SELECT name FROM model WHERE name = $1").bind(clean(model));
            known.fetch_optional(&mut *sql).await?.ok_or_else(|| missing_model(model))?;
        }
        let mut versions = rows.iter().map(read_version).collect::<Result<Vec<_>, _>>()?;
        // The sort is stable: versions that are not numbers keep their order.
        versions.sort_by_key(|version| number(&version.version).map_or((1, 0), |number| (0, number)));
        Ok(versions)
    }

    /// Removes a version that no deployment refers to, and that no kept revision was created from.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] `in_use`, with the deployments; [`StoreError::NotFound`].
    pub async fn model_version_delete(&self, model: &str, version: &str) -> Result<(), StoreError> {
        let mut sql = self.write(Care::Durable).await?;
        let in_use = |users: String| StoreError::Conflict {
            code: "in_use",
            reason: format!(
                "version `{version}` of the model `{model}` is used, or kept for a rollback, by {users}; delete them, or change them to another version"
            ),
        };
        let users = users(&mut sql, model, version).await?;
        if !users.is_empty() {
            return Err(in_use(users.join(", ")));
        }
        let gone = sqlx::query("DELETE FROM model_version WHERE model = $1 AND version = $2")
            .bind(clean(model))
            .bind(clean(version))
            .execute(&mut *sql)
            .await
            .map_err(|error| match is_referenced(&error) {
                true => in_use("a deployment".to_owned()),
                false => error.into(),
            })?;
        if gone.rows_affected() == 0 {
            return Err(missing(model, version));
        }
        sql.commit().await?;
        self.announce();
        Ok(())
    }
}

/// The registry entry that a specification refers to, if it refers to one.
///
/// # Errors
/// [`StoreError::NotFound`] if it does not exist.
pub(crate) async fn resolve(sql: &mut Sql, spec: &DeploymentSpec) -> Result<Option<ModelVersion>, StoreError> {
    match &spec.model {
        ModelSource::Bucket(_) => Ok(None),
        ModelSource::Registered(model) => match get(sql, &model.name, &model.version).await? {
            Some(entry) => Ok(Some(entry)),
            None => Err(missing_version(spec)),
        },
    }
}

/// The error for a specification that refers to a missing registered version.
pub(crate) fn missing_version(spec: &DeploymentSpec) -> StoreError {
    match &spec.model {
        ModelSource::Registered(model) => missing(&model.name, &model.version),
        ModelSource::Bucket(_) => StoreError::NotFound { what: "the registered model".to_owned() },
    }
}

async fn get(sql: &mut Sql, model: &str, version: &str) -> Result<Option<ModelVersion>, StoreError> {
    let row = sqlx::query(
        "SELECT model, version, created_at, format, content FROM model_version WHERE model = $1 AND version = $2",
    )
    .bind(clean(model))
    .bind(clean(version))
    .fetch_optional(sql)
    .await?;
    row.as_ref().map(read_version).transpose()
}

/// The first deployments that use a version, and how many more there are.
async fn users(sql: &mut Sql, model: &str, version: &str) -> Result<Vec<String>, StoreError> {
    let rows = sqlx::query(
        "SELECT id, name FROM deployment WHERE (model_name = $1 AND model_version = $2) \
         OR id IN (SELECT deployment FROM revision WHERE model_name = $1 AND model_version = $2) ORDER BY id LIMIT $3",
    )
    .bind(clean(model))
    .bind(clean(version))
    .bind(NAMED + 1)
    .fetch_all(sql)
    .await?;
    let named = usize::try_from(NAMED).unwrap_or(usize::MAX);
    let mut users = Vec::new();
    for row in rows.iter().take(named) {
        let id = row.int("id")?;
        users.push(match row.maybe_text("name")? {
            Some(name) => format!("deployment {id} ({name})"),
            None => format!("deployment {id}"),
        });
    }
    if rows.len() > named {
        users.push("others".to_owned());
    }
    Ok(users)
}

fn read_model(row: &AnyRow) -> Result<RegisteredModel, StoreError> {
    Ok(RegisteredModel { spec: row.record("spec", "registered model")?, created_at: Timestamp(row.int("created_at")?) })
}

fn read_version(row: &AnyRow) -> Result<ModelVersion, StoreError> {
    Ok(ModelVersion {
        model: row.text("model")?,
        version: row.text("version")?,
        content: row.json("content", "model version")?,
        format: row.maybe_text("format")?,
        created_at: Timestamp(row.int("created_at")?),
    })
}

fn missing_model(name: &str) -> StoreError {
    StoreError::NotFound { what: format!("the registered model `{name}`") }
}

fn missing(model: &str, version: &str) -> StoreError {
    StoreError::NotFound { what: format!("version `{version}` of the registered model `{model}`") }
}

/// `7` and `v7` are different: only plain digits are a number.
fn number(version: &str) -> Option<u128> {
    version.bytes().all(|byte| byte.is_ascii_digit()).then(|| version.parse().ok()).flatten()
}
