//! The models that are served, by name and version.

use std::{cmp::Ordering, collections::HashMap, sync::Arc};

use api::decode::nearest;
use arc_swap::ArcSwapOption;

use crate::{
    error::InferError,
    model::Model,
    repository::{IndexEntry, ModelState},
};

/// All served models. Empty, and saying so, until they are loaded.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: ArcSwapOption<Table>,
}

/// Versions by name. Aliases are entries of their own.
pub(crate) type Table = HashMap<String, Arc<Versions>>;

/// The versions of one model, the newest first.
#[derive(Debug)]
pub(crate) struct Versions(Vec<Arc<Model>>);

impl Versions {
    /// At least one version, in any order.
    pub(crate) fn new(mut models: Vec<Arc<Model>>) -> Self {
        models.sort_by(|a, b| compare(&b.version, &a.version));
        Self(models)
    }

    /// The versions' names, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().rev().map(|model| model.version.clone()).collect()
    }
}

/// Numbers as numbers, part by part, and before them what is no number.
fn compare(a: &str, b: &str) -> Ordering {
    fn number(version: &str) -> Option<Vec<u64>> {
        version.strip_prefix('v').unwrap_or(version).split('.').map(|part| part.parse().ok()).collect()
    }
    match (number(a), number(b)) {
        (Some(x), Some(y)) => x.cmp(&y),
        (x, y) => x.is_some().cmp(&y.is_some()).then_with(|| a.cmp(b)),
    }
}

impl Registry {
    /// Begins to serve these.
    pub(crate) fn set(&self, table: Table) {
        self.table.store(Some(Arc::new(table)));
    }

    /// Every version that is known, sorted, and how it stands.
    pub(crate) fn index(&self, _ready_only: bool) -> Vec<IndexEntry> {
        let ready = |model: Arc<Model>| IndexEntry {
            name: model.name.clone(),
            version: model.version.clone(),
            state: ModelState::Ready,
            reason: String::new(),
        };
        self.all().into_iter().map(ready).collect()
    }

    /// All models, each once for each of its names.
    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let table = self.table.load();
        table.iter().flat_map(|table| table.values()).flat_map(|versions| versions.0.iter().cloned()).collect()
    }

    /// A model, and all versions of it. The newest version if none is named.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Result<(Arc<Model>, Arc<Versions>), InferError> {
        let table = self.table.load();
        let Some(table) = table.as_ref() else {
            return Err(InferError::NotReady("the server is still loading its models".to_owned()));
        };
        let Some(versions) = table.get(name) else {
            let hint = match nearest(name, table.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let mut names: Vec<_> = table.keys().map(|name| format!("`{name}`")).collect();
                    names.sort();
                    names.truncate(16);
                    format!("there is {}", names.join(", "))
                }
            };
            return Err(InferError::NotFound(format!("there is no model `{name}`; {hint}")));
        };
        let model = match version {
            None | Some("") => versions.0.first(),
            Some(version) => versions.0.iter().find(|model| model.version == version),
        };
        match model {
            Some(model) => Ok((Arc::clone(model), Arc::clone(versions))),
            None => Err(InferError::NotFound(format!(
                "model `{name}` has no version `{}`; it has {}",
                version.unwrap_or_default(),
                versions.names().join(", ")
            ))),
        }
    }

    /// The names of all models, aliases included, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.table.load().iter().flat_map(|table| table.keys().cloned()).collect();
        names.sort();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_versions_order_as_numbers_and_above_words() {
        let mut versions = ["10", "9", "v11", "beta", "1.10", "1.9"];
        versions.sort_by(|a, b| compare(a, b));
        assert_eq!(versions, ["beta", "1.9", "1.10", "9", "10", "v11"]);
    }
}
