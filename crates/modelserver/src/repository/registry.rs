//! The models that are known, by name and version: which predict, and how the others stand.
//!
//! Whoever looks a model up reads one table that never changes; whoever changes something puts a new table in
//! its place. So a request sees a model before or after a change, never in between, and waits for nobody.

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
    /// Held while a new table is made of the old one.
    changing: Mutex<()>,
    /// Everything that is served from the start is there: a name that is not known is a wrong one.
    complete: AtomicBool,
}

#[derive(Clone, Debug, Default)]
struct Table {
    models: HashMap<String, Arc<Entry>>,
    /// Further names, and the one that each stands for.
    aliases: HashMap<String, String>,
}

impl Table {
    fn get(&self, name: &str) -> Option<&Arc<Entry>> {
        self.models.get(name).or_else(|| self.models.get(self.aliases.get(name)?))
    }
}

impl Registry {
    /// A model, and all versions of it. The newest version if none is named.
    pub(crate) fn find(&self, name: &str, version: Option<&str>) -> Result<(Arc<Model>, Arc<Versions>), InferError> {
        let table = self.table.load();
        match table.get(name) {
            Some(entry) => entry.find(name, version),
            None if self.complete.load(Relaxed) => Err(InferError::NotFound(self.unknown(name))),
            None => Err(InferError::NotReady("the server is still loading its models".to_owned())),
        }
    }

    /// The same for whoever wants to know a model, not to ask it: one that was unloaded is not found.
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

    /// Says that there is no such model, and which there are.
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

    /// The own name of a model that may have been asked for by another one.
    pub(crate) fn own_name(&self, name: &str) -> String {
        self.table.load().aliases.get(name).map_or_else(|| name.to_owned(), Clone::clone)
    }

    /// Whether something of this name is known, served or not.
    pub(crate) fn knows(&self, name: &str) -> bool {
        self.table.load().get(name).is_some()
    }

    /// How many models are known.
    pub(crate) fn len(&self) -> usize {
        self.table.load().models.len()
    }

    /// All versions that predict.
    pub(crate) fn all(&self) -> Vec<Arc<Model>> {
        let table = self.table.load();
        table.models.values().filter_map(|entry| entry.serving()).flat_map(Versions::models).cloned().collect()
    }

    /// Every version that is known, sorted, and how it stands.
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

    /// Why the server is not what it was started to be, if it is not: a model that should predict does not.
    pub(crate) fn fault(&self) -> Option<String> {
        let table = self.table.load();
        let mut faults: Vec<_> =
            table.models.iter().filter_map(|(name, entry)| Some((name.as_str(), entry.fault.as_deref()?))).collect();
        faults.sort_unstable();
        let (name, reason) = faults.first()?;
        let more = if faults.len() > 1 { format!(" (and {} more)", faults.len() - 1) } else { String::new() };
        Some(format!("model `{name}` cannot be served: {reason}{more}"))
    }

    /// Says that everything that is served from the start was tried.
    pub(crate) fn complete(&self) {
        self.complete.store(true, Relaxed);
    }

    /// Whether [`Registry::complete`] was said.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Relaxed)
    }

    /// Lets `name` be asked for by these names too.
    pub(crate) fn set_aliases(&self, name: &str, aliases: &[String]) {
        self.change(|table| {
            table.aliases.extend(aliases.iter().filter(|alias| *alias != name).map(|a| (a.clone(), name.to_owned())));
        });
    }

    /// Notes that these versions are being loaded.
    pub(crate) fn begin<'v>(&self, name: &str, versions: impl IntoIterator<Item = &'v str>) {
        self.change_entry(name, |entry| entry.begin(versions));
    }

    /// Serves these from now on, in place of what was served; `failed` are versions that could not be loaded, and
    /// why. Returns what was replaced.
    pub(crate) fn serve(
        &self,
        name: &str,
        versions: Versions,
        failed: Vec<(String, String)>,
        fault: Option<String>,
    ) -> Option<Arc<Versions>> {
        self.change_entry(name, |entry| entry.serve(versions, failed, fault))
    }

    /// Notes that a load failed. What was served goes on.
    pub(crate) fn failed(&self, name: &str, failed: Vec<(String, String)>, fault: Option<String>) {
        self.change_entry(name, |entry| entry.failed(failed, fault));
    }

    /// Serves a model no more. Returns what was served.
    pub(crate) fn take(&self, name: &str) -> Option<Arc<Versions>> {
        self.change_entry(name, Entry::take)
    }

    /// Notes that nothing of what was taken is left.
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
