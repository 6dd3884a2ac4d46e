//! Metrics that models declare themselves: counters, gauges and histograms.
//!
//! Each worker shares a piece of memory with the server (`_metrics.py` defines its layout) and counts there, so that
//! counting needs no message, and nothing is lost when the worker ends. The server reads it on a request for
//! `/metrics`: the metrics of all instances together, and the counts of ended workers.
//!
//! **Invariant:** data from a worker is first copied and then validated; the result is always a bounded number of
//! series with valid names.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;

use crate::machine::shared::Area;

/// The size of an area, in bytes. The numbers here are those of `_metrics.py`.
pub(crate) const AREA: usize = 1 << 20;
const MOST_SERIES: usize = 1000;
const MOST_FAMILIES: usize = 100;
const MOST_LABELS: usize = 8;
const MOST_BUCKETS: usize = 64;
const LONGEST_TEXT: usize = 1024;
const HEAD: usize = 16;
const OF_THE_SERVER: [&str; 5] = ["model_", "modelway_", "process_", "gateway_", "scrape_"];
/// Replaces all label values once there are too many series.
const OTHER: &str = "_other";
const LABELS_OF_THE_SERVER: [&str; 4] = ["model_name", "model_version", "le", "quantile"];

/// What all series of one name have in common.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Family {
    pub(crate) kind: Kind,
    pub(crate) help: String,
}

/// What a metric is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Counter,
    Gauge(Merge),
    /// With the upper bounds of its buckets, all but the last.
    Histogram(Vec<f64>),
}

/// The merge rule of a gauge that several workers have set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Merge {
    #[default]
    Latest,
    Sum,
    Min,
    Max,
}

/// The labels of a series.
pub(crate) type Labels = BTreeMap<String, String>;

/// Series by their families and labels. Their values: for a counter its count, for a gauge its value and when it was
/// set, for a histogram its sum and the counts of its buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series(pub(crate) BTreeMap<String, (Family, BTreeMap<Labels, Vec<f64>>)>);

/// An entry's text.
#[derive(Deserialize)]
struct Described {
    kind: String,
    name: String,
    help: String,
    labels: Labels,
    #[serde(default)]
    merge: Merge,
    #[serde(default)]
    buckets: Vec<f64>,
}

impl Family {
    /// The names under which a metric `name` is shown.
    pub(crate) fn shown(&self, name: &str) -> Vec<String> {
        let ends: &[&str] = match self.kind {
            Kind::Counter => &["", "_total"],
            Kind::Gauge(_) => &[""],
            Kind::Histogram(_) => &["", "_bucket", "_sum", "_count"],
        };
        ends.iter().map(|end| format!("{name}{end}")).collect()
    }
}

impl Series {
    /// What is in an area.
    fn of(area: &Area) -> Self {
        let mut series = Self::default();
        let Some(head) = area.read::<u64>(0, 2) else { return series };
        // Besides the series, each family may have one for all others.
        let most = MOST_SERIES + MOST_FAMILIES;
        let count = usize::try_from(head[0]).map_or(most, |count| count.min(most));
        let used = usize::try_from(head[1]).map_or(AREA, |used| used.clamp(HEAD, AREA));
        let Some(bytes) = area.read::<u8>(HEAD, used - HEAD) else { return series };
        let mut rest = bytes.as_slice();
        for _ in 0..count {
            let Some(next) = series.read(rest) else { break };
            rest = next;
        }
        series
    }

    /// Reads the first entry; the bytes behind it.
    fn read<'b>(&mut self, bytes: &'b [u8]) -> Option<&'b [u8]> {
        let number = |at: usize| {
            let field = bytes.get(at..)?.first_chunk::<4>()?;
            usize::try_from(u32::from_ne_bytes(*field)).ok()
        };
        let (size, text) = (number(0)?, number(4)?);
        let (entry, rest) = (bytes.get(..size)?, bytes.get(size..)?);
        let values = entry.get(text.checked_add(8)?.checked_next_multiple_of(8)?..)?;
        let values: Vec<f64> = values.as_chunks::<8>().0.iter().map(|value| f64::from_ne_bytes(*value)).collect();
        if let Some(described) = serde_json::from_slice::<Described>(&entry[8..8 + text]).ok().filter(is_sound)
            && let Some(kind) = kind_of(&described, &values)
        {
            let family = Family { kind, help: described.help };
            self.add(&described.name, &family, &described.labels, &values);
        }
        (size > 8).then_some(rest)
    }

    /// Adds a series. A series whose family already has another kind is left out; series above the limit, over all
    /// workers, are counted as one.
    fn add(&mut self, name: &str, family: &Family, labels: &Labels, values: &[f64]) {
        let total: usize = self.0.values().map(|(_, series)| series.len()).sum();
        let known = self.0.entry(name.to_owned()).or_insert_with(|| (family.clone(), BTreeMap::new()));
        if known.0.kind != family.kind {
            return;
        }
        if total >= MOST_SERIES && !known.1.contains_key(labels) && labels.values().any(|value| value != OTHER) {
            let other = labels.keys().map(|name| (name.clone(), OTHER.to_owned())).collect();
            return self.add(name, family, &other, values);
        }
        let Some(had) = known.1.get_mut(labels) else {
            known.1.insert(labels.clone(), values.to_vec());
            return;
        };
        match (&family.kind, had.as_mut_slice(), values) {
            (Kind::Gauge(merge), [had, when], [value, set]) => {
                *had = match merge {
                    Merge::Latest if set >= when => *value,
                    Merge::Latest => *had,
                    Merge::Sum => *had + value,
                    Merge::Min => had.min(*value),
                    Merge::Max => had.max(*value),
                };
                *when = when.max(*set);
            }
            (Kind::Counter | Kind::Gauge(_) | Kind::Histogram(_), had, values) => {
                had.iter_mut().zip(values).for_each(|(had, value)| *had += value);
            }
        }
    }

    /// Adds all series of another set. If a family has another kind there, the one that is here stays.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (name, (family, series)) in &other.0 {
            series.iter().for_each(|(labels, values)| self.add(name, family, labels, values));
        }
    }

    /// Without the values that describe the present.
    fn without_gauges(mut self) -> Self {
        self.0.retain(|_, (family, _)| !matches!(family.kind, Kind::Gauge(_)));
        self
    }
}

fn is_sound(described: &Described) -> bool {
    let word = |text: &str, more: &[u8]| {
        let first = text.bytes().next();
        first.is_some_and(|letter| !letter.is_ascii_digit())
            && text.len() <= LONGEST_TEXT
            && text.bytes().all(|letter| letter.is_ascii_alphanumeric() || letter == b'_' || more.contains(&letter))
    };
    let label = |(name, value): (&String, &String)| {
        word(name, b"") && !LABELS_OF_THE_SERVER.contains(&name.as_str()) && value.len() <= LONGEST_TEXT
    };
    word(&described.name, b":")
        && !OF_THE_SERVER.iter().any(|start| described.name.starts_with(start))
        && described.help.len() <= 4 * LONGEST_TEXT
        && described.labels.len() <= MOST_LABELS
        && described.labels.iter().all(label)
}

/// What it is, if it has the values that such a thing has.
fn kind_of(described: &Described, values: &[f64]) -> Option<Kind> {
    let buckets = &described.buckets;
    let (kind, length) = match described.kind.as_str() {
        "counter" => (Kind::Counter, 1..=1),
        "gauge" => (Kind::Gauge(described.merge), 2..=2),
        "histogram" if buckets.len() <= MOST_BUCKETS && buckets.iter().is_sorted_by(|low, high| low < high) => {
            (Kind::Histogram(buckets.clone()), buckets.len() + 2..=buckets.len() + 2)
        }
        _ => return None,
    };
    length.contains(&values.len()).then_some(kind)
}

/// The metrics of one instance, whichever worker it has.
#[derive(Debug, Default)]
pub struct Own(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    /// Of the running workers, by their generation.
    areas: BTreeMap<u64, Area>,
    /// Of those that have ended.
    ended: Series,
}

impl Own {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker starts to count there.
    pub(crate) fn begin(&self, generation: u64, area: Area) {
        self.lock().areas.insert(generation, area);
    }

    /// A worker has ended: what it has counted stays.
    pub(crate) fn end(&self, generation: u64) {
        let mut held = self.lock();
        if let Some(area) = held.areas.remove(&generation) {
            let mut last = Series::of(&area).without_gauges();
            last.extend(&held.ended);
            held.ended = last;
        }
    }

    /// All metrics. Running workers define the kind of a metric: earlier ones may have run other code.
    pub(crate) fn series(&self) -> Series {
        let held = self.lock();
        let mut all = Series::default();
        held.areas.values().for_each(|area| all.extend(&Series::of(area)));
        all.extend(&held.ended);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(entries: &[(&str, &[f64])]) -> Area {
        let mut area = Area::new(AREA).unwrap();
        let mut at = HEAD;
        for (text, values) in entries {
            let padded = (8 + text.len()).next_multiple_of(8);
            let size = padded + 8 * values.len();
            assert!(area.write(at, &[u32::try_from(size).unwrap(), u32::try_from(text.len()).unwrap()]));
            assert!(area.write(at + 8, text.as_bytes()) && area.write(at + padded, values));
            at += size;
        }
        assert!(area.write(0, &[entries.len() as u64, at as u64]));
        area
    }

    const HITS: &str = r#"{"kind":"counter","name":"hits","help":"","labels":{"a":"x"}}"#;

    fn hits(own: &Own) -> f64 {
        own.series().0["hits"].1.values().next().unwrap()[0]
    }

    #[test]
    fn counts_of_workers_that_run_and_have_ended_are_summed() {
        let own = Own::default();
        own.begin(1, area(&[(HITS, &[2.0])]));
        own.begin(2, area(&[(HITS, &[3.0])]));
        assert_eq!(hits(&own), 5.0);
        own.end(1);
        assert_eq!(hits(&own), 5.0);
        own.begin(3, area(&[(HITS, &[5.0])]));
        assert_eq!(hits(&own), 10.0);
    }

    #[test]
    fn series_without_end_are_bounded_and_no_count_is_lost() {
        let texts = |from: usize, others: usize| -> Vec<String> {
            let text = |family: usize, user: &str| {
                format!(r#"{{"kind":"counter","name":"hits{family}","help":"","labels":{{"user":"{user}"}}}}"#)
            };
            let mut all: Vec<_> = (from..from + MOST_SERIES).map(|user| text(0, &user.to_string())).collect();
            all.extend((0..others).map(|family| text(family, OTHER)));
            all
        };
        let own = Own::default();
        let begin = |generation, texts: &[String]| {
            own.begin(
                generation,
                area(&texts.iter().map(|text| (text.as_str(), [1.0].as_slice())).collect::<Vec<_>>()),
            );
        };
        let total = |name: &str| -> f64 { own.series().0[name].1.values().map(|values| values[0]).sum() };
        begin(1, &texts(0, MOST_FAMILIES));
        assert_eq!((total("hits0"), total("hits99")), (1001.0, 1.0));
        for generation in 2..5 {
            begin(generation, &texts(MOST_SERIES * usize::try_from(generation).unwrap(), 1));
        }
        own.end(1);
        own.end(2);
        assert_eq!(total("hits0"), 4.0 * 1001.0);
        let count: usize = own.series().0.values().map(|(_, series)| series.len()).sum();
        assert!(count <= MOST_SERIES + MOST_FAMILIES, "{count}");
    }

    #[test]
    fn a_metric_is_what_the_worker_that_runs_says() {
        let own = Own::default();
        own.begin(1, area(&[(r#"{"kind":"counter","name":"a","help":"","labels":{}}"#, &[1.0])]));
        own.end(1);
        own.begin(2, area(&[(r#"{"kind":"gauge","name":"a","help":"","labels":{}}"#, &[5.0, 1.0])]));
        assert!(matches!(own.series().0["a"].0.kind, Kind::Gauge(_)));
    }

    #[test]
    fn a_gauge_is_merged_as_it_says_and_ends_with_its_worker() {
        let gauge = |merge: &str| format!(r#"{{"kind":"gauge","name":"g","help":"","labels":{{}},"merge":"{merge}"}}"#);
        for (merge, wanted) in [("latest", 7.0), ("sum", 16.0), ("min", 7.0), ("max", 9.0)] {
            let own = Own::default();
            own.begin(1, area(&[(&gauge(merge), &[9.0, 100.0])]));
            own.begin(2, area(&[(&gauge(merge), &[7.0, 200.0])]));
            assert_eq!(own.series().0["g"].1[&Labels::new()][0], wanted, "{merge}");
            own.end(2);
            assert_eq!(own.series().0["g"].1[&Labels::new()][0], 9.0, "{merge}");
        }
    }

    #[test]
    fn whatever_a_worker_writes_is_bounded_and_sound() {
        for text in [
            r#"{"kind":"counter","name":"a b","help":"","labels":{}}"#,
            r#"{"kind":"counter","name":"model_loaded","help":"","labels":{}}"#,
            r#"{"kind":"counter","name":"a","help":"","labels":{"le":"1"}}"#,
            r#"{"kind":"gauge","name":"a","help":"","labels":{},"merge":"none"}"#,
            r#"{"kind":"histogram","name":"a","help":"","labels":{},"buckets":[2,1]}"#,
            "not JSON",
            "",
        ] {
            assert_eq!(Series::of(&area(&[(text, &[1.0])])).0.len(), 0, "{text}");
        }
        let mut broken = area(&[(HITS, &[1.0])]);
        for (at, value) in [(0, u64::MAX), (8, u64::MAX), (16, u64::MAX), (16, 0), (16, 3)] {
            assert!(broken.write(at, &[value]));
            assert!(Series::of(&broken).0.len() <= 1);
        }
    }
}
