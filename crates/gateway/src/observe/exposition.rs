//! Merges the metrics pages of several replicas into one page, in Prometheus text format 0.0.4.
//!
//! A page is read line by line, as that format or as OpenMetrics; a malformed line is dropped and counted. Each series
//! gets the labels of its replica. A model's own label with one of these names becomes `exported_…`, as in Prometheus.
//! Each family occurs once, with the first help text. If replicas declare one name with different types, it becomes
//! `untyped`: their values are kept.
//!
//! **Invariant:** whatever replicas send, the page is valid, and no series occurs twice.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use super::sample::{self, Sample};

/// The media type of the page.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const UP: &str = "modelway_replica_up";
const DROPPED: &str = "modelway_replica_scrape_dropped_lines";
const NOT_ASKED: &str = "modelway_replicas_not_asked";

/// The type of a family, as a page declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
    /// Only in OpenMetrics: these are written as gauges or `untyped`.
    Info,
    StateSet,
    GaugeHistogram,
}

impl Kind {
    fn read(word: &str) -> Self {
        match word {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "summary" => Self::Summary,
            "info" => Self::Info,
            "stateset" => Self::StateSet,
            "gaugehistogram" => Self::GaugeHistogram,
            _ => Self::Untyped,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge | Self::Info | Self::StateSet => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Untyped | Self::GaugeHistogram => "untyped",
        }
    }

    /// The suffixes of the family's name in the names of its samples.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Histogram => &["_bucket", "_sum", "_count"],
            Self::Summary => &["", "_sum", "_count"],
            Self::Counter | Self::Gauge | Self::Untyped | Self::Info | Self::StateSet | Self::GaugeHistogram => &[""],
        }
    }
}

/// The replica of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'s> {
    pub(crate) deployment: &'s str,
    pub(crate) revision: &'s str,
    pub(crate) replica: &'s str,
}

impl Source<'_> {
    fn labels(&self) -> String {
        let mut labels = String::new();
        for (name, value) in [("deployment", self.deployment), ("revision", self.revision), ("replica", self.replica)] {
            label(&mut labels, name, value);
        }
        labels
    }

    fn has(name: &str) -> bool {
        matches!(name, "deployment" | "revision" | "replica")
    }
}

/// All series of one name.
#[derive(Debug)]
struct Family {
    help: Option<String>,
    kind: Kind,
    samples: String,
}

/// The declarations of a page for a family.
#[derive(Clone, Debug)]
struct Declared {
    kind: Kind,
    help: Option<String>,
}

/// The merged page.
#[derive(Debug)]
pub(crate) struct Exposition {
    families: BTreeMap<String, Family>,
    /// The family of a sample's name.
    owners: HashMap<String, String>,
    /// How many bytes samples may still use.
    room: usize,
    up: String,
    dropped: String,
}

impl Exposition {
    /// An empty page with at most `most` bytes of samples.
    pub(crate) fn new(most: usize) -> Self {
        let (families, owners, up, dropped) = Default::default();
        Self { families, owners, room: most, up, dropped }
    }

    /// Records a replica without a page.
    pub(crate) fn add_missing(&mut self, source: &Source<'_>) {
        self.note(&source.labels(), false, 0);
    }

    /// Adds the page of a replica.
    pub(crate) fn add(&mut self, page: &[u8], is_open_metrics: bool, source: &Source<'_>) {
        let labels = source.labels();
        let mut declared = HashMap::new();
        let mut seen = HashSet::new();
        let (mut taken, mut dropped) = (0_u64, 0_u64);
        for line in page.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line).map(str::trim) else {
                dropped += 1;
                continue;
            };
            if line == "# EOF" && is_open_metrics {
                break;
            }
            if line.is_empty() {
                continue;
            }
            if let Some(comment) = line.strip_prefix('#') {
                declare(comment.trim_start(), &mut declared);
                continue;
            }
            let is_taken = sample::read(line).is_some_and(|mut sample| {
                sample.export(Source::has);
                let first = seen.insert(sample.series());
                first && self.take(&sample, &declared, is_open_metrics, &labels)
            });
            if is_taken { taken += 1 } else { dropped += 1 }
        }
        // A page without any readable line, such as HTML, does not count as a page.
        self.note(&labels, taken > 0 || dropped == 0, dropped);
    }

    fn note(&mut self, labels: &str, up: bool, dropped: u64) {
        for (name, text, value) in [(UP, &mut self.up, u64::from(up)), (DROPPED, &mut self.dropped, dropped)] {
            let _infallible = writeln!(text, "{name}{{{labels}}} {value}");
        }
    }

    /// Adds a sample, if its name does not belong to another family.
    fn take(
        &mut self,
        sample: &Sample<'_>,
        declared: &HashMap<&str, Declared>,
        is_open_metrics: bool,
        source: &str,
    ) -> bool {
        let Some((name, known)) = family_of(sample.name, declared, is_open_metrics) else { return false };
        if !is_whole(sample, name, known.kind) || !self.claim(name, sample.name, known.kind) {
            return false;
        }
        let line = write(sample, source);
        let Some(room) = self.room.checked_sub(line.len()) else { return false };
        self.room = room;
        let family = match self.families.get_mut(name) {
            Some(family) => family,
            None => self.families.entry(name.to_owned()).or_insert(Family {
                help: None,
                kind: known.kind,
                samples: String::new(),
            }),
        };
        if family.kind.word() != known.kind.word() {
            family.kind = Kind::Untyped;
        }
        if family.help.is_none() {
            family.help.clone_from(&known.help);
        }
        family.samples.push_str(&line);
        true
    }

    /// Reserves the sample names of a family. False if one of them belongs to another family.
    fn claim(&mut self, family: &str, sample: &str, kind: Kind) -> bool {
        if [UP, DROPPED, NOT_ASKED].contains(&family) {
            return false;
        }
        if self.owners.get(sample).is_some_and(|owner| owner == family)
            && self.families.get(family).is_some_and(|known| known.kind == kind)
        {
            return true;
        }
        let mut names: Vec<_> = kind.suffixes().iter().map(|suffix| format!("{family}{suffix}")).collect();
        // The name of the family itself has its own TYPE line.
        names.push(family.to_owned());
        let is_free = names.iter().all(|name| self.owners.get(name).is_none_or(|owner| owner == family));
        if is_free {
            self.owners.extend(names.into_iter().map(|name| (name, family.to_owned())));
        }
        is_free
    }

    /// The text of the page. `not_asked` is the number of replicas that were not scraped.
    pub(crate) fn write(self, not_asked: usize) -> String {
        let mut text = String::with_capacity(self.up.len() + self.dropped.len() + self.families.len() * 128);
        let head = |text: &mut String, name: &str, help: Option<&str>, kind: &str| {
            if let Some(help) = help {
                let help = help.replace('\\', r"\\").replace('\n', r"\n");
                let _infallible = writeln!(text, "# HELP {name} {help}");
            }
            let _infallible = writeln!(text, "# TYPE {name} {kind}");
        };
        head(&mut text, UP, Some("1 if the metrics of a replica were read"), "gauge");
        text.push_str(&self.up);
        head(&mut text, DROPPED, Some("Lines of a replica's page that were dropped"), "gauge");
        text.push_str(&self.dropped);
        head(&mut text, NOT_ASKED, Some("Replicas beyond the most that are asked"), "gauge");
        let _infallible = writeln!(text, "{NOT_ASKED} {not_asked}");
        for (name, family) in self.families {
            head(&mut text, &name, family.help.as_deref(), family.kind.word());
            if family.kind == Kind::Untyped {
                // A reader treats samples with different names as separate families.
                let mut lines: Vec<_> = family.samples.lines().collect();
                lines.sort_by_key(|line| line.split('{').next());
                for line in lines {
                    text.push_str(line);
                    text.push('\n');
                }
            } else {
                text.push_str(&family.samples);
            }
        }
        text
    }
}

/// Parses `HELP name text` and `TYPE name kind`; other comments are ignored.
fn declare<'l>(comment: &'l str, declared: &mut HashMap<&'l str, Declared>) {
    let Some((word, rest)) = comment.split_once([' ', '\t']) else { return };
    if !matches!(word, "HELP" | "TYPE") {
        return;
    }
    let rest = rest.trim_start();
    let (name, text) = rest.split_once([' ', '\t']).unwrap_or((rest, ""));
    if !sample::is_name(name) {
        return;
    }
    let known = declared.entry(name).or_insert(Declared { kind: Kind::Untyped, help: None });
    match word {
        "HELP" => known.help = Some(sample::unescape(text)).filter(|text| !text.is_empty()),
        _ => known.kind = Kind::read(text.trim()),
    }
}

/// The family of a sample on the merged page, and the declarations of its own page. `None` if the declared type has no
/// such sample.
fn family_of<'s>(
    name: &'s str,
    declared: &HashMap<&str, Declared>,
    is_open_metrics: bool,
) -> Option<(&'s str, Declared)> {
    let as_kind = |known: &Declared, kind| Declared { kind, help: known.help.clone() };
    if let Some(known) = declared.get(name) {
        return match known.kind {
            Kind::Histogram => None,
            Kind::Counter if is_open_metrics => Some((name, as_kind(known, Kind::Untyped))),
            Kind::Counter
            | Kind::Gauge
            | Kind::Summary
            | Kind::Untyped
            | Kind::Info
            | Kind::StateSet
            | Kind::GaugeHistogram => Some((name, known.clone())),
        };
    }
    let base = |suffix| declared.get_key_value(name.strip_suffix(suffix)?);
    for suffix in ["_bucket", "_sum", "_count"] {
        if let Some((family, known)) = base(suffix)
            && matches!(known.kind, Kind::Histogram | Kind::Summary)
            && known.kind.suffixes().contains(&suffix)
        {
            return Some((&name[..family.len()], known.clone()));
        }
    }
    let open = |suffix, of: Kind, kind| {
        let (_, known) = base(suffix).filter(|(_, known)| known.kind == of)?;
        Some((name, as_kind(known, kind)))
    };
    let found = is_open_metrics
        .then(|| open("_total", Kind::Counter, Kind::Counter).or_else(|| open("_info", Kind::Info, Kind::Gauge)))
        .flatten();
    found.or(Some((name, Declared { kind: Kind::Untyped, help: None })))
}

/// Whether a sample has the label that its type requires.
fn is_whole(sample: &Sample<'_>, family: &str, kind: Kind) -> bool {
    let needed = match (kind, &sample.name[family.len()..]) {
        (Kind::Histogram, "_bucket") => "le",
        (Kind::Summary, "") => "quantile",
        _ => return true,
    };
    sample.labels.iter().any(|(name, value)| *name == needed && sample::number(value).is_some())
}

fn write(sample: &Sample<'_>, source: &str) -> String {
    let mut line = format!("{}{{{source}", sample.name);
    for (name, value) in &sample.labels {
        label(&mut line, name, value);
    }
    let _infallible = writeln!(line, "}} {}", sample.value);
    line
}

fn label(line: &mut String, name: &str, value: &str) {
    if !line.is_empty() && !line.ends_with('{') {
        line.push(',');
    }
    let value = value.replace('\\', r"\\").replace('\n', r"\n").replace('"', "\\\"");
    let _infallible = write!(line, "{name}=\"{value}\"");
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
