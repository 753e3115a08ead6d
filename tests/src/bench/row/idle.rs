//! Nothing happens: the processor time of client and agent over ten seconds.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::sync;
use crate::bench::Bench;
use crate::bench::contestant::Contestant;
use crate::bench::figure::Figure;

const WINDOW: Duration = Duration::from_secs(10);

pub(super) fn idle(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let marker = bench.tree.join("marker");
    for contestant in Contestant::both(bench, bench.app.pid())? {
        let to = bench.fresh("pod/tree")?;
        let attach = contestant.attach(&bench.work, &sync(&bench.tree, &to))?;
        super::save::arrive(&marker, &to.join("marker"))?;
        let processes = [attach.pid(), contestant.agent(&attach)?];
        // What follows the last save (an index that is written, say) is not idleness.
        std::thread::sleep(Duration::from_secs(2));
        let before = usage(processes)?;
        std::thread::sleep(WINDOW);
        let after = usage(processes)?;
        let mut figure = Figure::new("idle", contestant.who, &[after.cpu.saturating_sub(before.cpu)], &[]);
        figure.note = format!(
            "CPU time in {} s; {} context switches; resident {} kB client, {} kB agent",
            WINDOW.as_secs(),
            after.switches.saturating_sub(before.switches),
            after.resident[0],
            after.resident[1]
        );
        figures.push(figure);
        attach.stop()?;
    }
    fs::remove_file(marker)?;
    Ok(figures)
}

struct Usage {
    cpu: Duration,
    switches: u64,
    resident: [u64; 2],
}

fn usage(processes: [u32; 2]) -> Result<Usage> {
    let mut usage = Usage { cpu: Duration::ZERO, switches: 0, resident: [0; 2] };
    for (place, pid) in processes.into_iter().enumerate() {
        usage.cpu += cpu(pid)?;
        usage.resident[place] = status(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:");
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("status"))?;
            usage.switches +=
                status(&text, "voluntary_ctxt_switches:") + status(&text, "nonvoluntary_ctxt_switches:");
        }
    }
    Ok(usage)
}

/// User and system time of all threads of a process, in the kernel's ticks of 10 ms.
fn cpu(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid}"))?;
    // The name may hold spaces and parentheses; utime and stime are the 12th and 13th fields after it.
    let fields = text.rsplit_once(')').context("a name in parentheses")?.1;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// What a process holds in memory, in kB.
pub(super) fn resident(pid: u32) -> Result<u64> {
    Ok(status(&fs::read_to_string(format!("/proc/{pid}/status"))?, "VmRSS:"))
}

fn status(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split_whitespace().next()).and_then(|word| word.parse().ok()).unwrap_or(0)
}
