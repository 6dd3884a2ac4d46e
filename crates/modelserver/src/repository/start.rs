//! Loads the source that the server was started with.
//!
//! If a single model cannot be served, the server cannot serve. In a folder of many, only that model is missing, and
//! the server reports that it is not ready and why.

use std::sync::{Arc, Mutex, PoisonError};

use artifact::Fetched;

use super::{Loaded, Repository, version};
use crate::{
    ServeError,
    load::fetch::{fetch, look},
    repository::registry::{Held, Versions},
    source::{self, Candidate, Found, Listed},
};

/// Number of threads that load models in parallel.
const MOST_LOADERS: usize = 8;

impl Repository {
    /// Fetches and loads everything in the configuration. Returns its origin, once all of it was tried. `fetched` is
    /// notified as soon as the files are here.
    pub(crate) async fn start(self: &Arc<Self>, on_fetched: impl FnOnce(&Fetched)) -> Result<(), ServeError> {
        let fetched = fetch(&self.config).await?;
        on_fetched(&fetched);
        let this = Arc::clone(self);
        let work = self.tasks.spawn_blocking(move || {
            let found = look(&fetched)?;
            this.start_all(found, &Arc::new(Held::Fetched(fetched)))
        });
        work.await.map_err(|e| ServeError::Broken(e.to_string()))??;
        self.models.complete();
        self.tell_of_strangers();
        Ok(())
    }

    /// Logs the names in `[serve.models]` without a model. This is not an error: such a model may be loaded later, and
    /// a replica gets the settings of all models.
    fn tell_of_strangers(&self) {
        if self.config.replica_id.is_some() {
            return;
        }
        for name in self.config.models.keys().filter(|name| !self.models.knows(name)) {
            tracing::warn!(
                "[serve.models.{name}] says something of a model that is not here: {}",
                self.models.unknown(name)
            );
        }
    }

    fn start_all(&self, found: Found, held: &Arc<Held>) -> Result<(), ServeError> {
        let config = &self.config;
        match found {
            Found::One(listed) => self.start_one(*listed, held),
            // A repository with only one model can be served under the configured name.
            Found::Many(mut many) if config.model_name.is_some() && many.len() == 1 => match many.pop() {
                Some(candidate) => self.start_one(candidate.listed?, held),
                None => Ok(()),
            },
            Found::Many(many) => {
                if config.model_name.is_some() || !config.alias.is_empty() || config.model_version.is_some() {
                    let names: Vec<_> = many.iter().map(|candidate| candidate.name.as_str()).collect();
                    return Err(ServeError::Source(several(&names)));
                }
                self.start_many(many, held);
                Ok(())
            }
        }
    }

    fn start_one(&self, listed: Listed, held: &Arc<Held>) -> Result<(), ServeError> {
        let listed = listed.configured(&self.config)?;
        for alias in &self.config.alias {
            source::check_name("alias", alias)?;
        }
        let Loaded { models, failed } = self.make(&listed, false);
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(error);
        }
        self.models.serve(&listed.name, Versions::new(models, Arc::clone(held), listed.declared), Vec::new(), None);
        self.models.set_aliases(&listed.name, &self.config.alias);
        Ok(())
    }

    /// Each model serves as soon as it can; the number of parallel loads is the number of CPUs.
    fn start_many(&self, many: Vec<Candidate>, held: &Arc<Held>) {
        for candidate in &many {
            match &candidate.listed {
                Ok(listed) => self.models.begin(&candidate.name, listed.files.iter().map(version)),
                Err(_) => self.models.begin(&candidate.name, [""]),
            }
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let loaders = cpus.min(MOST_LOADERS).min(many.len());
        let waiting = Mutex::new(many.into_iter());
        std::thread::scope(|scope| {
            for _ in 0..loaders {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(candidate) = next else { break };
                        self.start_candidate(candidate, held);
                    }
                });
            }
        });
    }

    fn start_candidate(&self, Candidate { name, listed }: Candidate, held: &Arc<Held>) {
        let listed = match listed.and_then(Listed::chosen) {
            Ok(listed) => listed,
            Err(error) => {
                tracing::error!(model = name, %error, "this model cannot be served");
                let reason = error.to_string();
                self.models.failed(&name, vec![(String::new(), reason.clone())], Some(reason));
                return;
            }
        };
        let Loaded { models, failed } = self.make(&listed, false);
        for (version, error) in &failed {
            tracing::error!(model = name, version, %error, "this model cannot be served");
        }
        let failed: Vec<_> = failed.into_iter().map(|(version, error)| (version, error.to_string())).collect();
        let fault = failed.first().map(|(_, reason)| reason.clone());
        if models.is_empty() {
            self.models.failed(&name, failed, fault);
        } else {
            self.models.serve(&name, Versions::new(models, Arc::clone(held), listed.declared), failed, fault);
        }
    }
}

/// Why a folder of many models cannot be served as a single one.
fn several(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<_> = names.iter().copied().take(SHOWN).collect();
    let more = if names.len() > SHOWN { ", …" } else { "" };
    format!(
        "this is a folder of {} models ({}{more}), and one is wanted: name the folder of one of them, or serve all \
         under their own names with `modelway serve` alone",
        names.len(),
        shown.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_many_models_is_refused_with_their_names() {
        let two = several(&["digits", "iris"]);
        assert!(two.contains("2 models (digits, iris), and one is wanted"), "{two}");
        let many: Vec<_> = (0..100).map(|n| format!("m{n:02}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(several(&many).contains("100 models (m00, m01, m02, m03, m04, …)"));
    }
}
