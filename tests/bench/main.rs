//! `make bench`: measures, and asserts nothing about times.
//!
//! Six benchmarks, one per file: the emulator alone, the operator with pods on a real control plane, the planning of
//! bursts alone, the probes of a node alone, bursting on a real control plane, and a change of leader there. An argument
//! selects one (`emulator`, `pods`, `plan`, `probes`, `burst`, `takeover`); without arguments all run.

#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

mod burst;
mod emulator;
mod plan;
mod pods;
mod probes;
#[path = "../support/mod.rs"]
mod support;
mod takeover;

use std::path::PathBuf;

/// The path of a program that cargo built together with this one.
fn built(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program's path");
    let folder = own
        .ancestors()
        .nth(2)
        .expect("examples/ is in the build's folder");
    folder.join(name)
}

/// The CPU time that a process has used, from Linux ticks of 10 ms.
fn cpu(process: u32) -> std::time::Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.expect("the process runs");
    // The name in parentheses may contain blanks. User and system time are fields 14 and 15.
    let fields = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|n| n.parse::<u64>().ok())
        .sum();
    std::time::Duration::from_millis(ticks * 10)
}

/// A process' resident memory in MiB.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"));
    let status = status.expect("the process runs");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .expect("Linux says so");
    let kib: u64 = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .expect("KiB");
    kib / 1024
}

#[tokio::main]
async fn main() {
    let part = std::env::args().nth(1);
    if part.as_deref() == Some(probes::APP) {
        return probes::serve().await;
    }
    let wanted = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if wanted("emulator") {
        emulator::run().await;
    }
    if wanted("pods") {
        pods::run().await;
    }
    if wanted("plan") {
        plan::run();
    }
    if wanted("probes") {
        probes::run().await;
    }
    if wanted("burst") {
        burst::run().await;
    }
    if wanted("takeover") {
        takeover::run().await;
    }
}
