//! The metrics that models define themselves, of all models together, as text.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use crate::runtime::own::{Family, Kind, Labels, Own, Series};

/// The owner: the name and version of a model.
type Owner = (String, String);

/// A series and its owner.
type Listed<'s> = (&'s Owner, &'s Labels, &'s Vec<f64>);

/// The metrics of all models that define any.
#[derive(Debug, Default)]
pub(super) struct OwnMetrics(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    instances: Vec<(Owner, Arc<Own>)>,
    /// The counts of ended instances: counters do not decrease when a model is reloaded.
    gone: BTreeMap<Owner, Series>,
    /// Families that were already reported because of conflicting kinds.
    told: BTreeSet<(Owner, String)>,
}

impl OwnMetrics {
    /// Adds an instance of a model.
    pub(super) fn add(&self, name: &str, version: &str, own: Arc<Own>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.instances.push(((name.to_owned(), version.to_owned()), own));
        known.collect();
    }

    /// Removes a version that is no longer served.
    pub(super) fn forget(&self, name: &str, version: &str) {
        let owner = (name.to_owned(), version.to_owned());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.instances.retain(|(of, _)| *of != owner);
        known.gone.remove(&owner);
        known.told.retain(|(of, _)| *of != owner);
    }

    /// Writes all of them.
    pub(super) fn write(&self, text: &mut String) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.collect();
        let mut all: BTreeMap<Owner, Series> = BTreeMap::new();
        for (owner, own) in &known.instances {
            all.entry(owner.clone()).or_default().extend(&own.series());
        }
        for (owner, series) in &known.gone {
            all.entry(owner.clone()).or_default().extend(series);
        }
        // One family may belong to several models: it is described once.
        let mut families: BTreeMap<&String, (&Family, Vec<Listed<'_>>)> = BTreeMap::new();
        let mut shown: BTreeMap<String, &String> = BTreeMap::new();
        for (owner, Series(series)) in &all {
            for (name, (family, series)) in series {
                let names = family.shown(name);
                if let Some((taken, other)) = names
                    .iter()
                    .find_map(|own| shown.get(own).filter(|other| **other != name).map(|other| (own, other)))
                {
                    if known.told.insert((owner.clone(), name.clone())) {
                        let (model, version) = owner;
                        tracing::warn!(
                            model,
                            version,
                            metric = name,
                            "left out: it would be shown as {taken}, as the metric {other} of another model is"
                        );
                    }
                    continue;
                }
                shown.extend(names.into_iter().map(|own| (own, name)));
                let (first, listed) = families.entry(name).or_insert_with(|| (family, Vec::new()));
                if first.kind == family.kind {
                    listed.extend(series.iter().map(|(labels, values)| (owner, labels, values)));
                } else if known.told.insert((owner.clone(), name.clone())) {
                    let (model, version) = owner;
                    tracing::warn!(
                        model,
                        version,
                        metric = name,
                        "left out: another model has such a metric of another kind"
                    );
                }
            }
        }
        for (name, (family, series)) in families {
            // Writing to a String cannot fail.
            let _ = describe(text, name, family);
            for (owner, labels, values) in series {
                let _ = show(text, name, family, &Shown { owner, labels }, values);
            }
        }
    }
}

impl Known {
    /// Takes over the counts of instances that have ended.
    fn collect(&mut self) {
        let gone = self.instances.extract_if(.., |(_, own)| Arc::strong_count(own) == 1);
        for (owner, own) in gone {
            let mut last = own.series();
            let before = self.gone.entry(owner).or_default();
            last.extend(before);
            *before = last;
        }
    }
}

fn describe(text: &mut String, name: &str, family: &Family) -> std::fmt::Result {
    let help = family.help.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge(_) => "gauge",
        Kind::Histogram(_) => "histogram",
    };
    if !help.is_empty() {
        writeln!(text, "# HELP {name} {help}")?;
    }
    writeln!(text, "# TYPE {name} {kind}")
}

/// The labels of a line.
struct Shown<'s> {
    owner: &'s Owner,
    labels: &'s Labels,
}

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "model_name=\"{}\",model_version=\"{}\"", escaped(&self.owner.0), escaped(&self.owner.1))?;
        self.labels.iter().try_for_each(|(name, value)| write!(f, ",{name}=\"{}\"", escaped(value)))
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

fn show(text: &mut String, name: &str, family: &Family, labels: &Shown<'_>, values: &[f64]) -> std::fmt::Result {
    let number = |value: f64| match value {
        value if value == f64::INFINITY => "+Inf".to_owned(),
        value if value == f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    };
    let first = values.first().copied().unwrap_or_default();
    match &family.kind {
        Kind::Counter => writeln!(text, "{name}_total{{{labels}}} {}", number(first)),
        Kind::Gauge(_) => writeln!(text, "{name}{{{labels}}} {}", number(first)),
        Kind::Histogram(bounds) => {
            let mut count = 0.0;
            for (bucket, bound) in values.iter().skip(1).zip(bounds.iter().copied().chain([f64::INFINITY])) {
                count += bucket;
                let bound =
                    if bound.fract() == 0.0 && bound.is_finite() { format!("{bound:.1}") } else { number(bound) };
                writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {}", number(count))?;
            }
            writeln!(text, "{name}_sum{{{labels}}} {}", number(first))?;
            writeln!(text, "{name}_count{{{labels}}} {}", number(count))
        }
    }
}
