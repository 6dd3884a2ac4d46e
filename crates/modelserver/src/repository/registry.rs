//! The registry of models by name and version: those that predict, and the states of the others.
//!
//! Readers use a table that never changes; a change replaces it with a new table. So a request sees a model before or
//! after a change, never in between, and waits for nobody.

mod entry;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use api::{decode::nearest, words};
use arc_swap::ArcSwap;
use entry::Entry;

pub(crate) use entry::{Held, Versions};

use crate::{error::InferError, repository::IndexEntry, run::model::Model};

/// All models.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: ArcSwap<Table>,
    /// Held while a new table is created from the old one.
    changing: Mutex<()>,
    /// Everything in the source has been tried: an unknown name is wrong.
    complete: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Table {
    models: HashMap<String, Arc<Entry>>,
    /// Further names, and the names that they stand for.
    aliases: HashMap<String, String>,
}

impl Table {
    fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.models.get(name).or_else(|| self.models.get(self.aliases.get(name)?))
    }
}

impl Registry {
    /// A model, and all its versions. The newest version if none is given.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Result<(Arc<Model>, Arc<Versions>), InferError> {
        let table = self.table.load();
        match table.get(name) {
            Some(entry) => entry.find(name, version),
            None if self.complete.load(Relaxed) => Err(InferError::NotFound(self.unknown(name))),
            None => Err(InferError::NotReady("the server is still loading its models".to_owned())),
        }
    }

    /// The same for metadata requests: an unloaded model is not found.
    pub(crate) fn described(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<(Arc<Model>, Arc<Versions>), InferError> {
        self.find(name, version).map_err(|error| {
            let unloaded = self.table.load().get(name).is_some_and(|entry| entry.was_unloaded(version));
            if unloaded { InferError::NotFound(words::unknown_model(name, "it was unloaded")) } else { error }
        })
    }

    /// The error for an unknown model, with the existing ones.
    pub(crate) fn unknown(&self, name: &str) -> String {
        const SHOWN: usize = 16;
        let table = self.table.load();
        let known = || table.models.keys().chain(table.aliases.keys()).map(String::as_str);
        let hint = match nearest(name, known()) {
            Some(near) if near == name => "it was unloaded".to_owned(),
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let mut names: Vec<_> = known().map(|name| format!("`{name}`")).collect();
                names.sort();
                names.truncate(SHOWN);
                if names.is_empty() { "there is none".to_owned() } else { format!("there is {}", names.join(", ")) }
            }
        };
        words::unknown_model(name, &hint)
    }

    /// The own name of a model, for a name that may be an alias.
    pub(crate) fn own_name(&self, name: &str) -> String {
        self.table.load().aliases.get(name).map_or_else(|| name.to_owned(), Clone::clone)
    }

    /// Whether a model with this name is known, served or not.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.table.load().get(name).is_some()
    }

    /// The number of known models.
    pub(crate) fn len(&self) -> usize {
        self.table.load().models.len()
    }

    /// All versions that predict.
    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let table = self.table.load();
        table.models.values().filter_map(|entry| entry.serving()).flat_map(Versions::models).cloned().collect()
    }

    /// Every known version and its state, sorted.
    pub(crate) fn index(&self, ready_only: bool) -> Vec<IndexEntry> {
        let table = self.table.load();
        let mut names: Vec<_> = table.models.iter().collect();
        names.sort_by_key(|(name, _)| name.as_str());
        names.into_iter().flat_map(|(name, entry)| entry.index(name, ready_only)).collect()
    }

    /// The names of all models that predict, aliases included, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let table = self.table.load();
        let every = table.models.keys().chain(table.aliases.keys());
        let serves = |name: &&String| table.get(name).is_some_and(|entry| entry.serving().is_some());
        let mut names: Vec<_> = every.filter(serves).cloned().collect();
        names.sort();
        names
    }

    /// Why the server is not ready: a model that should predict does not.
    pub(crate) fn fault(&self) -> Option<String> {
        let table = self.table.load();
        let mut faults: Vec<_> =
            table.models.iter().filter_map(|(name, entry)| Some((name.as_str(), entry.fault.as_deref()?))).collect();
        faults.sort_unstable();
        let (name, reason) = faults.first()?;
        let more = if faults.len() > 1 { format!(" (and {} more)", faults.len() - 1) } else { String::new() };
        Some(format!("model `{name}` cannot be served: {reason}{more}"))
    }

    /// Records that everything in the source was tried.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Relaxed);
    }

    /// Whether [`Registry::complete`] was called.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Relaxed)
    }

    /// Adds aliases for `name`.
    pub(crate) fn set_aliases(&self, name: &str, aliases: &[String]) {
        self.change(|table| {
            table.aliases.extend(aliases.iter().filter(|alias| *alias != name).map(|a| (a.clone(), name.to_owned())));
        });
    }

    /// Records that these versions are being loaded.
    pub(crate) fn begin<'v>(&self, name: &str, versions: impl IntoIterator<Item = &'v str>) {
        self.change_entry(name, |entry| entry.begin(versions));
    }

    /// Serves these from now on, in place of the previous ones; `failed` are versions that could not be loaded, with
    /// the reasons. Returns what was replaced.
    pub(crate) fn serve(
        &self,
        name: &str,
        versions: Versions,
        failed: Vec<(String, String)>,
        fault: Option<String>,
    ) -> Option<Arc<Versions>> {
        self.change_entry(name, |entry| entry.serve(versions, failed, fault))
    }

    /// Records that a load failed. The previous versions continue.
    pub(crate) fn failed(&self, name: &str, failed: Vec<(String, String)>, fault: Option<String>) {
        self.change_entry(name, |entry| entry.failed(failed, fault));
    }

    /// Stops serving a model. Returns what was served.
    pub(crate) fn take(&self, name: &str) -> Option<Arc<Versions>> {
        self.change_entry(name, Entry::take)
    }

    /// Records that a removed model has ended completely.
    pub(crate) fn gone(&self, name: &str) {
        self.change_entry(name, Entry::gone);
    }

    fn change_entry<T>(&self, name: &str, change: impl FnOnce(&mut Entry) -> T) -> T {
        self.change(|table| change(Arc::make_mut(table.models.entry(name.to_owned()).or_default())))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let _alone = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.table.load());
        let result = change(&mut table);
        self.table.store(Arc::new(table));
        result
    }
}
