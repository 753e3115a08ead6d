//! Who is whose parent, read from /proc: ancestors of a process, descendants of one, and pids across PID namespaces.

use std::collections::HashMap;

pub use super::proc_task::parent;

use super::proc_task;
use super::reap;

/// Longest chain of parents followed; a deeper one is a loop made by reused pids.
const MAX_DEPTH: usize = 256;
/// The kernel's PID_MAX_LIMIT on 64-bit machines: no pid is this high.
pub const PID_LIMIT: i32 = 4 * 1024 * 1024;

/// Parent, grandparent and so on, nearest first, without pid 0.
pub fn ancestors(pid: i32) -> Vec<i32> {
    let mut chain = Vec::new();
    let mut at = pid;
    while chain.len() < MAX_DEPTH {
        match parent(at) {
            Ok(next) if next > 0 && !chain.contains(&next) => chain.push(next),
            _ => break,
        }
        at = chain[chain.len() - 1];
    }
    chain
}

/// Every process below `root` in /proc, in no order; empty where /proc is missing or belongs to another PID namespace.
pub fn descendants(root: i32) -> Vec<i32> {
    let parents = parents();
    if !parents.contains_key(&root) {
        return Vec::new();
    }
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for (pid, parent) in &parents {
        children.entry(*parent).or_default().push(*pid);
    }
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(child);
            open.push(child);
        }
    }
    found
}

fn parents() -> HashMap<i32, i32> {
    let pids = proc_task::numbers_in("/proc").unwrap_or_default();
    pids.into_iter().filter_map(|pid| Some((pid, parent(pid).ok()?))).collect()
}

/// Descendants of this process in /proc; empty where that is missing or shows another PID namespace.
pub fn own_descendants() -> Vec<i32> {
    if proc_is_ours() { descendants(std::process::id() as i32) } else { Vec::new() }
}

/// Direct children of this process with a pid in `range`, found without /proc by asking the kernel about each one, which takes about
/// half a microsecond. As a subreaper this process becomes the parent of the others when these end.
pub fn own_children_by_asking(range: std::ops::Range<i32>) -> Vec<i32> {
    range.filter(|pid| reap::is_child(*pid)).collect()
}

/// Whether /proc numbers this process as it numbers itself: a /proc of an outer namespace lists more than one number for it.
fn proc_is_ours() -> bool {
    proc_task::own_status().is_ok_and(|own| own.namespace_pids == [std::process::id()])
}

/// The process below `root` that has the pid `inner` in its innermost PID namespace, as this namespace numbers it.
pub fn translate(root: i32, inner: i32) -> Option<i32> {
    if innermost(inner) == Some(inner) && parent(inner).is_ok_and(|parent| parent == root) {
        return Some(inner);
    }
    descendants(root).into_iter().find(|pid| innermost(*pid) == Some(inner))
}

fn innermost(pid: i32) -> Option<i32> {
    proc_task::status(pid).ok()?.namespace_pids.last().map(|number| number.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_its_parent_first() {
        let me = std::process::id() as i32;
        assert_eq!(ancestors(me).first(), Some(&(std::os::unix::process::parent_id() as i32)));
        assert!(descendants(std::os::unix::process::parent_id() as i32).contains(&me));
    }
}
