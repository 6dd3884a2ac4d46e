//! Limits of CPU and memory with control groups, version 1 or 2.
//!
//! Groups are created below the group of this process, so that its limits apply to its replicas too. Where that is
//! impossible (in version 2, a group with processes has no children), they are created below the root of the mount. A
//! replica without limits gets no group. If a machine allows no groups, that is not an error: the replica runs, and a
//! note in its status says which limit is not enforced and why.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use api::deployment::Resources;

/// The period of CPU accounting, in microseconds: the default of the kernel.
const CPU_PERIOD_MICROS: i128 = 100_000;
/// The minimum CPU time per period that the kernel accepts.
const CPU_QUOTA_MIN_MICROS: i128 = 1_000;

/// Sets limits as far as this machine allows. Examines the machine when the first limit is needed.
#[derive(Debug)]
pub(super) struct Limiter {
    node: String,
    cpu: OnceLock<Result<Place, String>>,
    memory: OnceLock<Result<Place, String>>,
}

/// A group below which groups can be created.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    version: Version,
    group: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// The groups of one replica, and the limits that could not be set.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Their folders.
    pub(super) folders: Vec<PathBuf>,
    /// Sentences for the user.
    pub(super) notes: Vec<String>,
}

impl Limiter {
    /// `node` is in the name of the groups of this data directory.
    pub(super) fn new(node: &str) -> Self {
        Self { node: node.to_owned(), cpu: OnceLock::new(), memory: OnceLock::new() }
    }

    fn place(&self, controller: &str) -> Result<Place, String> {
        place(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?, controller, &self.node)
    }

    /// Creates the groups of one replica with its limits. A repeated call changes them.
    pub(super) fn prepare(&self, replica: &str, limits: &Resources) -> Groups {
        let mut made = Groups::default();
        if let Some(cpu) = &limits.cpu {
            let quota = (cpu.milli() * CPU_PERIOD_MICROS / 1_000).max(CPU_QUOTA_MIN_MICROS);
            let place = self.cpu.get_or_init(|| self.place("cpu"));
            made.add(("cpu", place), &self.node, replica, |version, group| match version {
                Version::One => {
                    fs::write(group.join("cpu.cfs_period_us"), CPU_PERIOD_MICROS.to_string())?;
                    fs::write(group.join("cpu.cfs_quota_us"), quota.to_string())
                }
                Version::Two => fs::write(group.join("cpu.max"), format!("{quota} {CPU_PERIOD_MICROS}")),
            });
        }
        if let Some(memory) = &limits.memory {
            let bytes = memory.units().to_string();
            let place = self.memory.get_or_init(|| self.place("memory"));
            made.add(("memory", place), &self.node, replica, |version, group| match version {
                Version::One => {
                    fs::write(group.join("memory.limit_in_bytes"), &bytes)?;
                    // Memory and swap together: some kernels do not count swap; without swap it is the same limit.
                    swap_off(&group.join("memory.memsw.limit_in_bytes"), &bytes)
                }
                Version::Two => {
                    fs::write(group.join("memory.max"), &bytes)?;
                    swap_off(&group.join("memory.swap.max"), "0")?;
                    // The kernel kills all processes of a replica together.
                    fs::write(group.join("memory.oom.group"), "1")
                }
            });
        }
        made
    }

    /// Removes the groups of replicas for which `is_known` is false, left by a crash.
    pub(super) fn tidy(&self, is_known: impl Fn(&str) -> bool) {
        let (Ok(mounts), Ok(own)) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup")) else { return };
        for controller in ["cpu", "memory"] {
            let candidates = Mount::of_controller(&mounts, controller).map(|mount| mount.candidates(&own, controller));
            for parent in candidates.into_iter().flatten().map(|group| parent_below(&group, &self.node)) {
                let folders = fs::read_dir(&parent).into_iter().flatten().flatten();
                for folder in folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
                    if !folder.file_name().to_str().is_some_and(&is_known) {
                        remove(&[folder.path()]);
                    }
                }
            }
        }
    }
}

impl Groups {
    fn add(
        &mut self,
        (controller, place): (&str, &Result<Place, String>),
        node: &str,
        replica: &str,
        set: impl FnOnce(Version, &Path) -> io::Result<()>,
    ) {
        let made = place.clone().and_then(|place| {
            let group = parent_below(&place.group, node).join(replica);
            let make = || make_parent(&place.group, place.version, controller, node).and_then(|()| make_dir(&group));
            // The last replica to end also removes the parent, perhaps between our two steps.
            make().or_else(|_| make()).and_then(|()| set(place.version, &group)).map_err(|error| {
                remove(std::slice::from_ref(&group));
                format!("{} cannot be set: {error}", group.display())
            })?;
            Ok(group)
        });
        match made {
            Ok(group) if self.folders.contains(&group) => {}
            Ok(group) => self.folders.push(group),
            Err(reason) => self.notes.push(format!("limit_res.{controller} is not enforced on this machine: {reason}")),
        }
    }
}

/// Puts a process, all its threads and its future children into groups.
pub(super) fn enter(groups: &[PathBuf], pid: u32) -> io::Result<()> {
    groups.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), pid.to_string()))
}

/// How many processes of these groups the kernel has killed because of the memory limit.
pub(super) fn oom_kills(groups: &[PathBuf]) -> u64 {
    groups
        .iter()
        .flat_map(|group| [group.join("memory.oom_control"), group.join("memory.events")])
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok()))
        .sum()
}

/// Removes empty groups, and their parents if they were the last children. A group that is still in use is left to
/// [`Limiter::tidy`].
pub(super) fn remove(groups: &[PathBuf]) {
    for group in groups {
        match fs::remove_dir(group) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::debug!(group = %group.display(), %error, "a control group is still in use");
                continue;
            }
        }
        // `modelway/<node>`: the kernel does not remove a group with children.
        for above in group.ancestors().skip(1).take(2) {
            if fs::remove_dir(above).is_err() {
                break;
            }
        }
    }
}

fn swap_off(file: &Path, value: &str) -> io::Result<()> {
    if file.exists() { fs::write(file, value) } else { Ok(()) }
}

fn make_dir(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{path} cannot be read: {error}"))
}

/// The first place where groups with this controller can be created, or the reason why there is none.
fn place(mounts: &str, own: &str, controller: &str, node: &str) -> Result<Place, String> {
    let Some(mount) = Mount::of_controller(mounts, controller) else {
        return Err(format!("the kernel's {controller} controller is not mounted"));
    };
    let mut reason = String::new();
    for group in mount.candidates(own, controller) {
        match make_parent(&group, mount.version, controller, node) {
            Ok(()) => return Ok(Place { version: mount.version, group }),
            Err(error) => reason = format!("{} takes no groups: {error}", group.display()),
        }
    }
    Err(reason)
}

fn parent_below(group: &Path, node: &str) -> PathBuf {
    group.join("modelway").join(node)
}

/// Creates `<group>/modelway/<node>`, and enables the controller there.
fn make_parent(group: &Path, version: Version, controller: &str, node: &str) -> io::Result<()> {
    let (modelway, parent) = (group.join("modelway"), parent_below(group, node));
    for (above, folder) in [(group, &modelway), (&modelway, &parent)] {
        hand_down(above, version, controller)?;
        make_dir(folder)?;
    }
    hand_down(&parent, version, controller)
}

fn hand_down(group: &Path, version: Version, controller: &str) -> io::Result<()> {
    let file = group.join("cgroup.subtree_control");
    let is_handed = fs::read_to_string(&file).is_ok_and(|text| text.split_whitespace().any(|word| word == controller));
    if version == Version::One || is_handed { Ok(()) } else { fs::write(&file, format!("+{controller}")) }
}

/// The mount point of a hierarchy of groups.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    version: Version,
    /// The group of the hierarchy at the mount point.
    root: String,
    point: PathBuf,
}

impl Mount {
    fn of_controller(mounts: &str, controller: &str) -> Option<Self> {
        mounts
            .lines()
            .filter_map(|line| {
                let (left, right) = line.split_once(" - ")?;
                let mut left = left.split(' ').skip(3);
                let (root, point) = (left.next()?.to_owned(), PathBuf::from(left.next()?));
                let mut right = right.split(' ');
                let (kind, options) = (right.next()?, right.nth(1)?);
                let (version, has) = match kind {
                    "cgroup" => (Version::One, options.split(',').any(|option| option == controller)),
                    "cgroup2" => {
                        let offered = fs::read_to_string(point.join("cgroup.controllers")).unwrap_or_default();
                        (Version::Two, offered.split_whitespace().any(|word| word == controller))
                    }
                    _ => return None,
                };
                has.then_some(Self { version, root, point })
            })
            .next()
    }

    /// The folder of this process's own group, and that of the mount.
    fn candidates(&self, own: &str, controller: &str) -> Vec<PathBuf> {
        let own = own.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?);
            let is_ours = match self.version {
                Version::One => controllers.split(',').any(|word| word == controller),
                Version::Two => controllers.is_empty(),
            };
            is_ours.then_some(path)
        });
        let below = own.and_then(|path| Path::new(path).strip_prefix(&self.root).ok());
        let mut found: Vec<PathBuf> = below
            .filter(|below| !below.as_os_str().is_empty())
            .map(|below| self.point.join(below))
            .filter(|folder| folder.is_dir())
            .into_iter()
            .collect();
        found.push(self.point.clone());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /nowhere/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/7f /nowhere/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
41 31 0:38 / /nowhere/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn a_controller_is_found_where_it_is_mounted() {
        let memory = Mount::of_controller(MOUNTS, "memory");
        let expected =
            Mount { version: Version::One, root: "/docker/7f".to_owned(), point: "/nowhere/cgroup/memory".into() };
        assert_eq!(memory, Some(expected));
        assert_eq!(Mount::of_controller(MOUNTS, "pids"), None);
        let point = Mount::of_controller(MOUNTS, "cpu").map(|mount| mount.point);
        assert_eq!(point, Some("/nowhere/cgroup/cpu,cpuacct".into()));
    }

    #[test]
    fn a_group_whose_folder_is_not_shown_here_falls_back_to_the_mount() {
        let mount = Mount::of_controller(MOUNTS, "memory").expect("it is mounted");
        assert_eq!(mount.candidates("4:memory:/docker/7f/x\n", "memory"), [PathBuf::from("/nowhere/cgroup/memory")]);
    }

    #[test]
    fn version_two_hands_its_controllers_down_and_takes_both_limits_in_one_group() {
        let root = tempfile::tempdir().expect("a folder");
        fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory pids").expect("it is written");
        let mounts = format!("41 31 0:38 / {} rw,relatime - cgroup2 cgroup2 rw\n", root.path().display());
        let at = |controller| OnceLock::from(place(&mounts, "0::/", controller, "n"));
        let limiter = Limiter { node: "n".to_owned(), cpu: at("cpu"), memory: at("memory") };
        let limits = Resources { cpu: "1500m".parse().ok(), memory: "64Mi".parse().ok() };
        let groups = limiter.prepare("md-1-r1-0", &limits);
        let group = root.path().join("modelway/n/md-1-r1-0");
        assert_eq!((groups.folders, groups.notes), (vec![group.clone()], Vec::new()));
        let content = |file: PathBuf| fs::read_to_string(file).unwrap_or_default();
        assert_eq!(content(group.join("cpu.max")), "150000 100000");
        assert_eq!(content(group.join("memory.max")), "67108864");
        assert_eq!(content(root.path().join("modelway/n/cgroup.subtree_control")), "+memory");
        fs::write(group.join("memory.events"), "low 0\noom 3\noom_kill 2\n").expect("it is written");
        assert_eq!(oom_kills(&[group]), 2);
    }

    #[test]
    fn a_group_that_may_not_have_others_below_it_is_named_in_the_note() {
        let root = tempfile::tempdir().expect("a folder");
        // A file at the place of the folder: even root cannot create the folder.
        fs::write(root.path().join("modelway"), "").expect("it is written");
        let mounts = format!("41 31 0:38 / {} rw - cgroup cgroup rw,cpu\n", root.path().display());
        let reason = place(&mounts, "3:cpu:/\n", "cpu", "n").expect_err("it cannot be made");
        assert!(reason.starts_with(&format!("{} takes no groups: ", root.path().display())), "{reason}");
    }

    #[test]
    fn a_machine_without_controllers_says_so_for_each_limit() {
        let nowhere = |controller| Err(format!("the kernel's {controller} controller is not mounted")).into();
        let limiter = Limiter { node: "n".to_owned(), cpu: nowhere("cpu"), memory: nowhere("memory") };
        let limits = Resources { cpu: "500m".parse().ok(), memory: "1Gi".parse().ok() };
        let groups = limiter.prepare("md-1-r1-0", &limits);
        assert!(groups.folders.is_empty());
        assert_eq!(
            groups.notes[1],
            "limit_res.memory is not enforced on this machine: the kernel's memory controller is not mounted"
        );
        assert!(limiter.prepare("md-1-r1-0", &Resources::default()).notes.is_empty(), "no limit, no note");
    }
}
