//! Placement of work: how many CPUs this process may use, and which of them belong together.
//!
//! On a machine with several NUMA nodes each instance of a model gets the CPUs of one node, in turn: it is loaded and
//! runs there, with the threads and processes that it starts, so that its memory is local. With one node nothing is
//! pinned.

use std::{fs, num::NonZero, path::Path};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The kernel's description of the nodes.
const NODES: &str = "/sys/devices/system/node";

/// More threads than this have too little work.
const MOST_ASYNC_THREADS: usize = 16;

/// CPUs by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cpus(Vec<usize>);

impl Cpus {
    /// Restricts this thread, and threads that it starts, to these CPUs.
    pub(crate) fn pin_this_thread(&self) {
        let mut set = CpuSet::new();
        for cpu in self.0.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
            set.set(*cpu);
        }
        if let Err(error) = sched_setaffinity(None, &set) {
            tracing::info!(%error, cpus = ?self.0, "an instance is not pinned to its node");
        }
    }
}

/// The nodes of the machine with CPUs that this process may use.
#[derive(Debug)]
pub(crate) struct Placement {
    nodes: Vec<Cpus>,
}

impl Placement {
    /// From the kernel's description.
    pub(crate) fn of_this_machine() -> Self {
        let allowed = sched_getaffinity(None).ok();
        Self::read(Path::new(NODES), |cpu| allowed.as_ref().is_none_or(|set| cpu < CpuSet::MAX_CPU && set.is_set(cpu)))
    }

    fn read(folder: &Path, may_use: impl Fn(usize) -> bool) -> Self {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut nodes: Vec<(usize, Cpus)> = entries
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
                let mut cpus = list(&fs::read_to_string(entry.path().join("cpulist")).ok()?)?;
                cpus.retain(|cpu| may_use(*cpu));
                // A node may have only memory.
                (!cpus.is_empty()).then_some((number, Cpus(cpus)))
            })
            .collect();
        nodes.sort_by_key(|(number, _)| *number);
        Self { nodes: nodes.into_iter().map(|(_, cpus)| cpus).collect() }
    }

    /// Loads an instance of a model where it will run: threads and processes that are started during loading stay
    /// there, and its memory is local.
    pub(crate) fn load<T>(&self, instance: usize, load: impl FnOnce() -> T) -> T {
        let (Some(cpus), Ok(before)) = (self.of_instance(instance), sched_getaffinity(None)) else { return load() };
        cpus.pin_this_thread();
        let loaded = load();
        // The thread continues with other work, which may run anywhere.
        let _ = sched_setaffinity(None, &before);
        loaded
    }

    /// The CPUs of an instance of a model; `None`: any.
    pub(crate) fn of_instance(&self, instance: usize) -> Option<Cpus> {
        if self.nodes.len() < 2 {
            return None;
        }
        self.nodes.get(instance % self.nodes.len()).cloned()
    }
}

/// How many CPUs this process may use: the minimum of its affinity and of the quotas of its control group and the
/// groups above, in version 1 and 2. A container sees all CPUs of its host, but often may use only a few.
pub(crate) fn cpus() -> usize {
    // The standard library reads all three.
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Threads for the server's own work, connections and JSON. One if there is one CPU: a second thread would only take
/// turns with it. With many CPUs, half of them, because the models need the others.
#[must_use]
pub fn async_threads() -> usize {
    match cpus() {
        0 | 1 => 1,
        2..=4 => 2,
        more => (more / 2).min(MOST_ASYNC_THREADS),
    }
}

/// If all threads have only one CPU, prevents them from preempting each other: single requests that arrive meanwhile do
/// not interrupt a run, and are read together after it. Threads and processes that are started later inherit this. With
/// more CPUs, or next to other programs, it would only delay wake-ups.
pub fn take_turns_on_one_cpu() {
    if sched_getaffinity(None).is_ok_and(|allowed| allowed.count() == 1)
        && let Err(error) = without_interrupting()
    {
        tracing::debug!(%error, "threads may interrupt one another");
    }
}

#[allow(unsafe_code, reason = "no library that is at hand has this call")]
fn without_interrupting() -> std::io::Result<()> {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads the parameter during the call and does not keep a reference.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const none) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Parses the kernel's lists of CPUs, such as `0-3,8`.
fn list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last.min(CpuSet::MAX_CPU));
    }
    Some(cpus)
}

/// How many threads one inference uses: as many as configured, and if that is 0, few, because small machines
/// have other work for their second core, and small models lose more than they win.
pub(crate) fn threads(configured: usize) -> usize {
    if configured > 0 {
        return configured;
    }
    match cpus() {
        0..=4 => 1,
        more => (more / 2).min(8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder as the kernel's, with nodes of these CPUs.
    fn nodes(lists: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, list) in lists.iter().enumerate() {
            let node = folder.path().join(format!("node{number}"));
            fs::create_dir(&node).unwrap();
            fs::write(node.join("cpulist"), format!("{list}\n")).unwrap();
        }
        fs::write(folder.path().join("online"), "0-1\n").unwrap();
        folder
    }

    #[test]
    fn instances_go_round_the_nodes() {
        let folder = nodes(&["0-3,8-9", "4-7"]);
        let placement = Placement::read(folder.path(), |_| true);
        let places = [0, 1, 2].map(|instance| placement.of_instance(instance).unwrap().0);
        assert_eq!(places, [vec![0, 1, 2, 3, 8, 9], vec![4, 5, 6, 7], vec![0, 1, 2, 3, 8, 9]]);
    }

    #[test]
    fn only_nodes_whose_cpus_may_be_used_count() {
        let folder = nodes(&["0-1", "2-3", ""]);
        let placement = Placement::read(folder.path(), |cpu| cpu != 2);
        assert_eq!(placement.of_instance(1).unwrap().0, [3]);
        let placement = Placement::read(folder.path(), |cpu| cpu < 2);
        assert_eq!(placement.of_instance(0), None, "one node is left");
    }

    #[test]
    fn a_machine_with_one_node_or_none_pins_nothing() {
        assert_eq!(Placement::read(nodes(&["0-7"]).path(), |_| true).of_instance(0), None);
        assert_eq!(Placement::read(Path::new("/nowhere"), |_| true).of_instance(5), None);
    }

    #[test]
    fn an_instance_is_loaded_on_its_node_and_the_thread_is_free_again() {
        let allowed = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
        let placement = Placement { nodes: vec![Cpus(vec![first]), Cpus(vec![first])] };
        let (during, after) = std::thread::spawn(move || {
            let during = placement.load(1, || sched_getaffinity(None).unwrap().count());
            (during, sched_getaffinity(None).unwrap().count())
        })
        .join()
        .unwrap();
        assert_eq!((during, after), (1, allowed.count()));
    }

    #[test]
    fn a_pinned_thread_runs_where_it_was_told() {
        let allowed = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
        let pinned = std::thread::spawn(move || {
            Cpus(vec![first]).pin_this_thread();
            sched_getaffinity(None).unwrap().count()
        });
        assert_eq!(pinned.join().unwrap(), 1);
        assert!(cpus() >= 1);
    }

    #[test]
    fn threads_with_one_cpu_and_those_they_start_take_turns() {
        /// The scheduling policy of this thread, from the kernel.
        fn policy() -> String {
            let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
            stat.rsplit_once(')').unwrap().1.split_whitespace().nth(38).unwrap().to_owned()
        }
        let allowed = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
        let seen = std::thread::spawn(move || {
            let before = policy();
            Cpus(vec![first]).pin_this_thread();
            take_turns_on_one_cpu();
            (before, policy(), std::thread::spawn(policy).join().unwrap())
        });
        let batch = libc::SCHED_BATCH.to_string();
        assert_eq!(seen.join().unwrap(), ("0".to_owned(), batch.clone(), batch));
    }
}
