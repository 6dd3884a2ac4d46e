//! The settings of one model: those for all models, and those for this one.
//!
//! In increasing order of precedence: `[serve]`, the model's own `config.pbtxt`, `[serve.models.NAME]`, the
//! configuration in the load request.

pub(crate) mod config;
mod overrides;

use std::time::Duration;

pub use overrides::{OfModels, Overrides};

use crate::Config;

/// Which variables of the server's environment Python models get.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Passed {
    /// These, even if they are credentials.
    pub(crate) names: Vec<String>,
    /// All except credentials: a person has set them for the served models.
    pub(crate) all: bool,
}

/// How one model is run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ModelSettings {
    pub(crate) instances: usize,
    pub(crate) intra_op_threads: usize,
    pub(crate) queue_limit: usize,
    pub(crate) timeout: Duration,
    pub(crate) max_batch_size: usize,
    pub(crate) preferred_batch_sizes: Vec<usize>,
    pub(crate) max_queue_delay: Duration,
    pub(crate) latency_target: Option<Duration>,
    pub(crate) priority_levels: u32,
    pub(crate) default_priority: u32,
    pub(crate) response_cache_bytes: usize,
    pub(crate) python: Option<String>,
    /// Memory limit of one worker of a Python model, in bytes; 0 chooses.
    pub(crate) python_memory: u64,
    /// Which environment variables a Python model gets.
    pub(crate) passed: Passed,
    /// Whether clients get the traceback of a failed Python model.
    pub(crate) send_tracebacks: bool,
    /// Maximum time for loading a Python model.
    pub(crate) load_timeout: Duration,
}

impl ModelSettings {
    /// The settings for all models.
    pub(crate) fn of_all(config: &Config) -> Self {
        Self {
            instances: config.instances,
            intra_op_threads: config.intra_op_threads,
            queue_limit: config.queue_limit,
            timeout: Duration::from_millis(config.request_timeout_ms),
            max_batch_size: config.max_batch_size,
            preferred_batch_sizes: Vec::new(),
            max_queue_delay: Duration::from_micros(config.max_queue_delay_us),
            latency_target: milliseconds(config.latency_target_ms),
            priority_levels: 0,
            default_priority: 0,
            response_cache_bytes: config.response_cache_bytes,
            // The interpreter for all models is only for models without their own environment.
            python: None,
            python_memory: config.python_memory_limit_bytes,
            passed: Passed { names: config.pass_env.clone(), all: config.replica_id.is_none() },
            send_tracebacks: config.send_tracebacks,
            load_timeout: Duration::from_millis(config.load_timeout_ms),
        }
    }

    /// The same, with the settings for one model.
    pub(crate) fn with(mut self, overrides: &Overrides) -> Self {
        fn take<T: Clone>(place: &mut T, said: &Option<T>) {
            if let Some(said) = said {
                place.clone_from(said);
            }
        }
        take(&mut self.instances, &overrides.instances.map(|count| count.max(1)));
        take(&mut self.intra_op_threads, &overrides.intra_op_threads);
        take(&mut self.queue_limit, &overrides.queue_limit);
        take(&mut self.timeout, &overrides.request_timeout_ms.map(Duration::from_millis));
        take(&mut self.max_batch_size, &overrides.max_batch_size.map(|size| size.max(1)));
        take(&mut self.preferred_batch_sizes, &overrides.preferred_batch_sizes);
        take(&mut self.max_queue_delay, &overrides.max_queue_delay_us.map(Duration::from_micros));
        take(&mut self.latency_target, &overrides.latency_target_ms.map(milliseconds));
        take(&mut self.priority_levels, &overrides.priority_levels);
        take(&mut self.default_priority, &overrides.default_priority);
        take(&mut self.response_cache_bytes, &overrides.response_cache_bytes);
        if overrides.python.is_some() {
            self.python.clone_from(&overrides.python);
        }
        self
    }

    /// The same, with the configured settings for the model with this name.
    pub(crate) fn configured(self, config: &Config, name: &str) -> Self {
        let mut settings = match of_name(config, name) {
            Some(overrides) => self.with(overrides),
            None => self,
        };
        if config.model_python.is_some() {
            settings.python.clone_from(&config.model_python);
        }
        settings
    }
}

/// The settings for a model under any of its names.
fn of_name<'c>(config: &'c Config, name: &str) -> Option<&'c Overrides> {
    let others = config.alias.iter().filter(|_| config.model_name.as_deref() == Some(name));
    [name].into_iter().chain(others.map(String::as_str)).find_map(|name| config.models.get(name))
}

fn milliseconds(number: u64) -> Option<Duration> {
    (number > 0).then(|| Duration::from_millis(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_one_model_wins_over_the_word_for_all() {
        let mut config = Config { max_batch_size: 8, instances: 3, ..Config::default() };
        let for_one = Overrides { max_batch_size: Some(2), ..Overrides::default() };
        config.models.insert("iris".to_owned(), for_one);
        let size = |config: &Config, name| ModelSettings::of_all(config).configured(config, name).max_batch_size;
        assert_eq!((size(&config, "iris"), size(&config, "digits")), (2, 8));
        assert_eq!(ModelSettings::of_all(&config).configured(&config, "iris").instances, 3);
        let (model_name, alias) = (Some("md-7".to_owned()), vec!["iris".to_owned()]);
        let replica = Config { model_name, alias, ..config };
        assert_eq!(size(&replica, "md-7"), 2, "a replica has the name of its alias");
    }
}
