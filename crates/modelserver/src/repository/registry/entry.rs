//! One model in the registry: its versions, and their states.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    error::InferError,
    repository::{IndexEntry, ModelState},
    run::model::Model,
    source::{compare, declared::Declared},
};

/// Holds the files of loaded models: dropping it releases them.
#[derive(Debug)]
pub(crate) enum Held {
    /// The artefact cache.
    Fetched(#[allow(dead_code, reason = "held, never read")] artifact::Fetched),
    /// A temporary folder with the files of a request.
    Folder(#[allow(dead_code, reason = "held, never read")] tempfile::TempDir),
}

/// The predicting versions of one model, newest first. At least one.
#[derive(Debug)]
pub(crate) struct Versions {
    models: Vec<Arc<Model>>,
    held: Arc<Held>,
    declared: Declared,
}

impl Versions {
    /// Versions in any order.
    pub(crate) fn new(mut models: Vec<Arc<Model>>, held: Arc<Held>, declared: Declared) -> Self {
        models.sort_by(|a, b| compare(&b.version, &a.version));
        Self { models, held, declared }
    }

    /// The versions' names, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.models.iter().rev().map(|model| model.version.clone()).collect()
    }

    /// Newest first.
    pub(crate) fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// The holder of their files.
    pub(crate) fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held)
    }

    /// The configuration next to the model files.
    pub(crate) fn declared(&self) -> &Declared {
        &self.declared
    }

    fn has(&self, version: &str) -> bool {
        self.models.iter().any(|model| model.version == version)
    }
}

/// Why a version does not serve that was unloaded on request, as Triton says it.
const UNLOADED: &str = "unloaded";

/// The state of one version.
#[derive(Clone, Debug)]
struct Standing {
    state: ModelState,
    reason: String,
}

impl Standing {
    fn of(state: ModelState) -> Self {
        Self { state, reason: String::new() }
    }

    fn unavailable(reason: String) -> Self {
        Self { state: ModelState::Unavailable, reason }
    }
}

/// A known model.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    serving: Option<Arc<Versions>>,
    standings: BTreeMap<String, Standing>,
    /// Why it does not serve what the server was started with.
    pub(super) fault: Option<String>,
}

impl Entry {
    pub(super) fn serving(&self) -> Option<&Versions> {
        self.serving.as_deref()
    }

    pub(super) fn find(&self, name: &str, version: Option<&str>) -> Result<(Arc<Model>, Arc<Versions>), InferError> {
        let asked = version.filter(|version| !version.is_empty());
        let model = self.serving.as_ref().and_then(|versions| {
            let model = match asked {
                None => versions.models.first(),
                Some(asked) => versions.models.iter().find(|model| model.version == asked),
            };
            Some((Arc::clone(model?), Arc::clone(versions)))
        });
        model.ok_or_else(|| self.why_not(name, asked))
    }

    /// Whether a version, or all of them, was unloaded on request.
    pub(super) fn was_unloaded(&self, version: Option<&str>) -> bool {
        let of = |standing: &Standing| standing.state == ModelState::Unloading || standing.reason == UNLOADED;
        match version.filter(|version| !version.is_empty()) {
            Some(version) => self.standings.get(version).is_some_and(of),
            None => self.serving.is_none() && self.standings.values().next_back().is_some_and(of),
        }
    }

    /// Why a version, or all of them, is not available.
    fn why_not(&self, name: &str, asked: Option<&str>) -> InferError {
        let standing = match asked {
            Some(asked) => self.standings.get(asked),
            None => self.standings.values().next_back(),
        };
        let which = asked.map(|version| format!(" version `{version}`")).unwrap_or_default();
        match (standing, &self.serving) {
            (Some(standing), _) => {
                let how = match standing.state {
                    ModelState::Ready => "is being replaced: try again",
                    ModelState::Loading => "is being loaded: try again",
                    ModelState::Unloading => "is being unloaded",
                    ModelState::Unavailable => "is not loaded",
                };
                let reason = if standing.reason.is_empty() { String::new() } else { format!(": {}", standing.reason) };
                InferError::NotReady(format!("model `{name}`{which} {how}{reason}"))
            }
            (None, Some(versions)) => {
                let there = versions.names();
                let there: Vec<_> = there.iter().map(AsRef::as_ref).collect();
                InferError::NotFound(api::words::no_version(name, asked.unwrap_or_default(), &there))
            }
            (None, None) => InferError::NotReady(format!("model `{name}`{which} is not loaded")),
        }
    }

    pub(super) fn index(&self, name: &str, ready_only: bool) -> Vec<IndexEntry> {
        let mut standings: Vec<_> = self.standings.iter().collect();
        standings.sort_by(|(a, _), (b, _)| compare(a, b));
        let wanted = standings.into_iter().filter(|(_, standing)| !ready_only || standing.state == ModelState::Ready);
        wanted
            .map(|(version, Standing { state, reason })| IndexEntry {
                name: name.to_owned(),
                version: version.clone(),
                state: *state,
                reason: reason.clone(),
            })
            .collect()
    }

    pub(super) fn begin<'v>(&mut self, versions: impl IntoIterator<Item = &'v str>) {
        for version in versions {
            if self.serving.as_ref().is_none_or(|serving| !serving.has(version)) {
                self.standings.insert(version.to_owned(), Standing::of(ModelState::Loading));
            }
        }
    }

    pub(super) fn serve(
        &mut self,
        versions: Versions,
        failed: Vec<(String, String)>,
        fault: Option<String>,
    ) -> Option<Arc<Versions>> {
        for model in &versions.models {
            model.metrics.set_loaded(true);
        }
        let old = self.serving.take();
        for model in old.iter().flat_map(|old| &old.models).filter(|model| !versions.has(&model.version)) {
            model.metrics.set_loaded(false);
        }
        // Versions that are no longer in the repository are removed together with the replaced ones.
        self.standings = failed.into_iter().map(|(version, reason)| (version, Standing::unavailable(reason))).collect();
        let standing = |model: &Arc<Model>| Standing { state: ModelState::Ready, reason: model.note.clone() };
        let ready = versions.models.iter().map(|model| (model.version.clone(), standing(model)));
        self.standings.extend(ready);
        self.serving = Some(Arc::new(versions));
        self.fault = fault;
        old
    }

    pub(super) fn failed(&mut self, failed: Vec<(String, String)>, fault: Option<String>) {
        self.standings.retain(|_, standing| standing.state != ModelState::Loading);
        for (version, reason) in failed {
            let serves = self.serving.as_ref().is_some_and(|serving| serving.has(&version));
            let standing = if serves {
                let reason = format!("it was not loaded anew: {reason}");
                Standing { state: ModelState::Ready, reason }
            } else {
                Standing::unavailable(reason)
            };
            self.standings.insert(version, standing);
        }
        if self.serving.is_none() {
            self.fault = fault.or_else(|| self.fault.take());
        }
    }

    pub(super) fn take(&mut self) -> Option<Arc<Versions>> {
        let old = self.serving.take();
        for model in old.iter().flat_map(|old| &old.models) {
            model.metrics.set_loaded(false);
            self.standings.insert(model.version.clone(), Standing::of(ModelState::Unloading));
        }
        self.fault = None;
        old
    }

    pub(super) fn gone(&mut self) {
        for standing in self.standings.values_mut().filter(|standing| standing.state == ModelState::Unloading) {
            *standing = Standing::unavailable(UNLOADED.to_owned());
        }
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
