//! Finds the descendants of processes.

use std::fs;

use rustix::process::Pid;

/// Maximum number of processes of one worker that are checked.
const MOST: usize = 4096;

/// The parent and the group of a process or thread.
pub(crate) fn parent_and_group(pid: i32) -> Option<(i32, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program, in parentheses, may contain anything.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// The process that a thread is of, which may be itself.
pub(crate) fn leader(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    // The program's name, in the first line, has no line break.
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

/// The processes of a group.
pub(crate) fn members(group: i32) -> impl Iterator<Item = i32> {
    all().filter(move |pid| parent_and_group(*pid).is_some_and(|(_, of)| of == group))
}

/// The children of a process, oldest first.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed: Option<Vec<String>> = tasks.map(|task| fs::read_to_string(task.path().join("children")).ok()).collect();
    match listed {
        Some(lists) => {
            lists.iter().flat_map(|list| list.split_ascii_whitespace()).filter_map(|pid| pid.parse().ok()).collect()
        }
        // For a kernel without such lists.
        None => all().filter(|child| parent_and_group(*child).is_some_and(|(parent, _)| parent == pid)).collect(),
    }
}

/// A process and its descendants.
pub(crate) fn with_descendants(root: Pid) -> Vec<i32> {
    let mut found = vec![root.as_raw_nonzero().get()];
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        if found.len() < MOST {
            found.extend(children(pid));
        }
        at += 1;
    }
    found
}

fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
