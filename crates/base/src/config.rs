//! Settings in layers: defaults, then a file, then environment variables, then flags. A later layer overrides an
//! earlier one.
//!
//! The defaults are a value of the settings' type, so they also define all keys. A key that the defaults do not have is
//! a fault, which suggests the nearest known key and names its source. Each value is checked separately against the
//! type, so that all wrong values are reported at once, each with its source.
//!
//! **Invariant:** only this module reads the environment.

mod check;
mod dump;
mod fault;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub use check::{Faults, Section};
pub use fault::{ConfigError, Fault};

/// The default file in the working directory.
pub const DEFAULT_FILE: &str = "modelway.toml";
/// The environment variable that names the file.
pub const FILE_VARIABLE: &str = "MODELWAY_CONFIG";
/// The prefix of the environment variables for settings; `MODELWAY__GATEWAY__ADDR` is `gateway.addr`.
pub const PREFIX: &str = "MODELWAY__";

/// The value of an environment variable that is not a setting, such as `HOME`; `None` if unset or empty.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// All environment variables with UTF-8 names and values.
pub fn variables() -> impl Iterator<Item = (String, OsString)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
}

/// A given value: text whose type is not known yet, or a typed value.
#[derive(Clone, Debug)]
enum Given {
    Text(String),
    Value(Value),
}

#[derive(Clone, Debug)]
struct Entry {
    path: Vec<String>,
    given: Given,
    source: String,
}

/// The layers above the defaults, in increasing order of precedence.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    entries: Vec<Entry>,
    faults: Vec<Fault>,
}

impl Layers {
    /// Only the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file: `named`, otherwise the one in `MODELWAY_CONFIG`, otherwise `./modelway.toml` if it exists.
    #[must_use]
    pub fn file(self, named: Option<&Path>) -> Self {
        let named = named.map(Path::to_owned).or_else(|| variable(FILE_VARIABLE).map(PathBuf::from));
        let path = named.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
        match std::fs::read_to_string(&path) {
            Ok(text) => self.toml(&path.display().to_string(), &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => self,
            Err(error) => self.fault(path.display().to_string(), format!("the file cannot be read: {error}")),
        }
    }

    /// Adds the TOML `text` from `source`.
    #[must_use]
    pub fn toml(mut self, source: &str, text: &str) -> Self {
        match toml::from_str::<Value>(text) {
            Ok(value) => {
                self.entries.push(Entry {
                    path: Vec::new(),
                    given: Given::Value(value),
                    source: format!("file {source}"),
                });
                self
            }
            Err(error) => self.fault(format!("file {source}"), format!("this is not valid TOML: {error}")),
        }
    }

    /// Adds the environment of the process.
    #[must_use]
    pub fn environment(self) -> Self {
        let variables = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        self.variables(variables)
    }

    /// Adds the variables that begin with [`PREFIX`].
    #[must_use]
    pub fn variables(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut ours: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        ours.sort();
        for (name, value) in ours {
            let path = name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase).collect();
            self.entries.push(Entry { path, given: Given::Text(value), source: format!("variable {name}") });
        }
        self
    }

    /// Adds the value of a flag under a dotted key, as in `flag("--gateway-addr", "gateway.addr", "127.0.0.1:80")`.
    #[must_use]
    pub fn flag(mut self, flag: &str, key: &str, value: impl Into<Value>) -> Self {
        self.entries.push(Entry {
            path: key.split('.').map(str::to_owned).collect(),
            given: Given::Value(value.into()),
            source: format!("flag {flag}"),
        });
        self
    }

    /// Adds text from a flag under a dotted key. It is parsed like an environment variable.
    #[must_use]
    pub fn text(mut self, source: &str, key: &str, text: &str) -> Self {
        let path = key.split('.').map(str::to_owned).collect();
        self.entries.push(Entry { path, given: Given::Text(text.to_owned()), source: source.to_owned() });
        self
    }

    /// Adds a default that is computed, for example from another setting. Every other layer overrides it. `source` says
    /// what it was computed from.
    #[must_use]
    pub fn derived(mut self, source: &str, key: &str, value: impl Into<Value>) -> Self {
        let path = key.split('.').map(str::to_owned).collect();
        let source = format!("default from {source}");
        self.entries.insert(0, Entry { path, given: Given::Value(value.into()), source });
        self
    }

    /// Adds a flag if it was given.
    #[must_use]
    pub fn flag_if(self, flag: &str, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.flag(flag, key, value),
            None => self,
        }
    }

    /// Applies the layers to the defaults.
    ///
    /// # Errors
    /// All faults in all layers.
    pub fn load<T: Serialize + DeserializeOwned + Default>(self) -> Result<Loaded<T>, ConfigError> {
        let defaults = match serde_json::to_value(T::default()) {
            Ok(defaults) => defaults,
            Err(error) => return Err(ConfigError(vec![defect(&error)])),
        };
        let mut faults = self.faults;
        let mut tree = defaults.clone();
        let mut sources = BTreeMap::new();
        for entry in self.entries {
            let leaves = leaves(&defaults, entry, &mut faults);
            for leaf in leaves {
                match fit::<T>(&defaults, &leaf) {
                    Ok(value) => {
                        note_sources(&mut sources, &leaf.path, &value, &leaf.source);
                        set(&mut tree, &leaf.path, value);
                    }
                    Err(reason) => faults.extend(misfits::<T>(&defaults, leaf, reason)),
                }
            }
        }
        if !faults.is_empty() {
            return Err(ConfigError(faults));
        }
        let settings = serde_json::from_value(tree.clone()).map_err(|error| ConfigError(vec![defect(&error)]))?;
        Ok(Loaded { settings, tree, sources })
    }

    fn fault(mut self, source: String, detail: String) -> Self {
        self.faults.push(Fault { source, detail });
        self
    }
}

fn defect(error: &serde_json::Error) -> Fault {
    Fault { source: "defaults".to_owned(), detail: error.to_string() }
}

/// The effective settings and their sources.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// The settings.
    pub settings: T,
    tree: Value,
    sources: BTreeMap<Vec<String>, String>,
}

impl<T: Section> Loaded<T> {
    /// Returns the same, if all values are valid.
    ///
    /// # Errors
    /// Every invalid value, with its source.
    pub fn checked(self) -> Result<Self, ConfigError> {
        let mut faults = Faults::default();
        self.settings.check(&mut faults);
        let faults = faults.into_faults(|path| self.sources.get(path).cloned());
        if faults.is_empty() { Ok(self) } else { Err(ConfigError(faults)) }
    }
}

impl<T> Loaded<T> {
    /// The source of the value under a dotted key; `None` if it is the default of the type.
    #[must_use]
    pub fn source(&self, key: &str) -> Option<&str> {
        let path: Vec<_> = key.split('.').map(str::to_owned).collect();
        self.sources.get(&path).map(String::as_str)
    }

    /// The values that a layer set in a section, by dotted key, as text that [`Layers::variables`] parses to the same
    /// value.
    #[must_use]
    pub fn set_below(&self, section: &str) -> BTreeMap<String, String> {
        let below = self.sources.keys().filter(|path| path.first().is_some_and(|first| first == section));
        let text = |path: &Vec<String>| {
            let pointer: String = path.iter().map(|key| format!("/{key}")).collect();
            let value = self.tree.pointer(&pointer).filter(|value| !value.is_null())?;
            Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        };
        below.filter_map(|path| Some((path.join("."), text(path)?))).collect()
    }

    /// All effective settings as TOML, with the source of each value in a comment. Passwords in URLs are removed.
    #[must_use]
    pub fn dump(&self) -> String {
        dump::render(&self.tree, &self.sources)
    }
}

/// Splits an entry into single values. Keys that the defaults do not have are faults.
fn leaves(defaults: &Value, entry: Entry, faults: &mut Vec<Fault>) -> Vec<Entry> {
    let mut shape = Some(defaults);
    for (depth, key) in entry.path.iter().enumerate() {
        shape = match shape {
            Some(Value::Object(known)) if !known.is_empty() => match known.get(key) {
                Some(below) => Some(below),
                None => {
                    let known = known.keys().map(String::as_str);
                    faults.push(unknown(&entry.path[..depth], key, known, &entry.source));
                    return Vec::new();
                }
            },
            Some(Value::Object(_) | Value::Null) | None => None,
            Some(_) => {
                let detail = format!("`{}` is a single value and has no keys below it", entry.path[..depth].join("."));
                faults.push(Fault { source: entry.source, detail });
                return Vec::new();
            }
        };
    }
    let keys = shape.and_then(Value::as_object);
    match entry.given {
        Given::Value(Value::Object(fields)) if keys.is_some() => fields
            .into_iter()
            .flat_map(|(key, value)| {
                let path = entry.path.iter().cloned().chain([key]).collect();
                let below = Entry { path, given: Given::Value(value), source: entry.source.clone() };
                leaves(defaults, below, faults)
            })
            .collect(),
        Given::Value(_) | Given::Text(_) if keys.is_some_and(|keys| !keys.is_empty()) => {
            let detail = format!("`{}` is a section; set the keys below it", entry.path.join("."));
            faults.push(Fault { source: entry.source, detail });
            Vec::new()
        }
        Given::Value(_) | Given::Text(_) => vec![entry],
    }
}

fn unknown<'k>(above: &[String], key: &str, known: impl Iterator<Item = &'k str> + Clone, source: &str) -> Fault {
    let full = |key: &str| above.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".");
    let near = known
        .clone()
        .map(|near| (strsim::damerau_levenshtein(key, near), near))
        .filter(|(distance, near)| *distance <= (near.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    let hint = match near {
        Some((_, near)) => format!("did you mean `{}`?", full(near)),
        None => format!("the known keys are {}", known.collect::<Vec<_>>().join(", ")),
    };
    Fault { source: source.to_owned(), detail: format!("`{}` is not a setting; {hint}", full(key)) }
}

/// The parsed value of an entry: the first interpretation that the type accepts.
fn fit<T: DeserializeOwned>(defaults: &Value, entry: &Entry) -> Result<Value, String> {
    let readings = match &entry.given {
        Given::Value(value) => vec![value.clone()],
        Given::Text(text) => {
            let list = || Value::from(text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>());
            let plain = Value::String(text.clone());
            let pointer: String = entry.path.iter().map(|key| format!("/{key}")).collect();
            match defaults.pointer(&pointer) {
                Some(Value::String(_)) => vec![plain],
                _ => serde_json::from_str(text).into_iter().chain([plain, list()]).collect(),
            }
        }
    };
    let mut reason = None;
    for value in readings {
        let mut tree = defaults.clone();
        set(&mut tree, &entry.path, value.clone());
        match serde_json::from_value::<T>(tree) {
            Ok(_) => return Ok(value),
            Err(error) => reason.get_or_insert(error.to_string()),
        };
    }
    Err(reason.unwrap_or_default())
}

/// The fault of an entry that does not fit the type. In a section with free names, which the defaults do not know, each
/// key is checked separately, so that the fault names it.
fn misfits<T: DeserializeOwned>(defaults: &Value, entry: Entry, reason: String) -> Vec<Fault> {
    if let Given::Value(Value::Object(fields)) = &entry.given {
        let below = fields.iter().filter_map(|(key, value)| {
            let path = entry.path.iter().cloned().chain([key.clone()]).collect();
            let below = Entry { path, given: Given::Value(value.clone()), source: entry.source.clone() };
            let reason = fit::<T>(defaults, &below).err()?;
            Some(misfits::<T>(defaults, below, reason))
        });
        let below: Vec<_> = below.flatten().collect();
        if !below.is_empty() {
            return below;
        }
    }
    if let (Some(known), Some((key, above))) = (fields_instead(&reason), entry.path.split_last()) {
        return vec![unknown(above, key, known.into_iter(), &entry.source)];
    }
    let detail = format!("`{}` cannot be used: {reason}", entry.path.join("."));
    vec![Fault { source: entry.source, detail }]
}

/// The fields that serde expected instead of an unknown one; they are only in the text of its error.
fn fields_instead(reason: &str) -> Option<Vec<&str>> {
    let expected = reason.strip_prefix("unknown field `")?.split_once("expected ")?.1;
    Some(expected.split('`').skip(1).step_by(2).collect())
}

/// Records the source of a value, and of each value below it.
fn note_sources(sources: &mut BTreeMap<Vec<String>, String>, path: &[String], value: &Value, source: &str) {
    let Some(fields) = value.as_object().filter(|fields| !fields.is_empty()) else {
        sources.insert(path.to_vec(), source.to_owned());
        return;
    };
    for (key, value) in fields {
        let below: Vec<_> = path.iter().cloned().chain([key.clone()]).collect();
        note_sources(sources, &below, value, source);
    }
}

fn set(tree: &mut Value, path: &[String], value: Value) {
    match path.split_first() {
        None => *tree = value,
        Some((key, below)) => {
            if !tree.is_object() {
                *tree = Value::Object(serde_json::Map::new());
            }
            if let Value::Object(fields) = tree {
                set(fields.entry(key.clone()).or_insert(Value::Null), below, value);
            }
        }
    }
}

#[cfg(test)]
mod tests;
