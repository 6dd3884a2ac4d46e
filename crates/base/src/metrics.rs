//! Prometheus metrics of this process, and their text.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use rustix::time::{ClockId, clock_gettime};

/// The media type of the output of [`encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A registry with metrics of the process: CPU seconds, resident memory, open files.
#[must_use]
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    registry
}

/// All metrics as OpenMetrics text.
#[must_use]
pub fn encode(registry: &Registry) -> String {
    let mut written = String::new();
    match text::encode(&mut written, registry) {
        Ok(()) => written,
        // Writing to a String cannot fail, so a collector has a bug. A scrape that shows it is better than an empty
        // one.
        Err(error) => format!("{written}# the rest cannot be written: {error}\n# EOF\n"),
    }
}

/// The resources that a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of all its threads so far, in microseconds.
    pub cpu_micros: u64,
    /// Resident memory in bytes; 0 if `/proc` is not available.
    pub memory_bytes: u64,
}

impl Usage {
    /// The usage of this process.
    #[must_use]
    pub fn of_self() -> Self {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let micros = cpu.tv_sec.saturating_mul(1_000_000).saturating_add(cpu.tv_nsec / 1_000);
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        Self { cpu_micros: u64::try_from(micros).unwrap_or(0), memory_bytes: pages * page }
    }
}

#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let usage = Usage::of_self();
        #[allow(clippy::cast_precision_loss, reason = "microseconds of CPU stay below 2^53 for 285 years")]
        let cpu = ConstCounter::new(usage.cpu_micros as f64 / 1e6);
        let name = "process_cpu_seconds";
        cpu.encode(encoder.encode_descriptor(name, "CPU time used by this process", None, MetricType::Counter)?)?;
        let memory = ConstGauge::new(i64::try_from(usage.memory_bytes).unwrap_or(i64::MAX));
        let name = "process_resident_memory_bytes";
        memory.encode(encoder.encode_descriptor(name, "Resident memory", None, MetricType::Gauge)?)?;
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            let open = ConstGauge::new(i64::try_from(open.count()).unwrap_or(i64::MAX));
            open.encode(encoder.encode_descriptor("process_open_fds", "Open files", None, MetricType::Gauge)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_shows_its_cpu_memory_and_files() {
        let text = encode(&registry());
        for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "] {
            let line = text.lines().find(|line| line.starts_with(name)).expect(name);
            let value: f64 = line[name.len()..].parse().expect("a number");
            assert!(value >= 0.0, "{line}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(Usage::of_self().memory_bytes > 1 << 20);
    }
}
