//! The probes of one virtual node alone: 1,000 pods of two containers, each with a readiness probe every 10 s. Prints
//! how late the probes are, and the CPU time and memory that they take. The app that answers is a process of its own.
//!
//! A leader that has taken over finds all these pods running, so their first probes are spread over one period.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;
use std::time::Duration;

use burstpool::node::probe::{
    PodProbes, ProbeManager, ProbeSeed, ProbeSpecs, ProbedContainer, ProbedPod, ProbedPodState,
    Prober,
};
use burstpool::telemetry::Metrics;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{cpu, memory};

const PODS: usize = 1000;
const CONTAINERS: [&str; 2] = ["web", "log"];
const PERIOD: Duration = Duration::from_secs(10);
/// Three periods.
const MEASURED: Duration = Duration::from_secs(30);
/// The argument that makes this program the app.
pub const APP: &str = "probes-app";

/// Measures and prints.
pub async fn run() {
    let (_app, port) = start_app().await;
    let manager = ProbeManager::new(Timestamp::now());
    let mut pods: Vec<PodProbes> = (0..PODS).map(|n| add(&manager, n, port)).collect();
    let (own, cancel) = (std::process::id(), CancellationToken::new());
    let metrics = Metrics::new();
    let before = cpu(own);
    let probing = manager.run(Prober::new("1.37"), cancel.clone());
    let _ = tokio::time::timeout(MEASURED, probing).await;
    let used = cpu(own).saturating_sub(before);
    let ready = pods.iter_mut().map(PodProbes::report);
    let ready = ready.filter(|report| report.values().all(|verdict| verdict.ready));
    println!(
        "\n{PODS} pods with {} readiness probes each, every {} s, for {} s",
        CONTAINERS.len(),
        PERIOD.as_secs(),
        MEASURED.as_secs()
    );
    println!("probes sent | p99 late by at most | CPU of one core | memory | pods ready");
    let (count, late) = lateness(&metrics.encode());
    println!(
        "{count} | {late} s | {:.1} % | {} MiB | {}",
        100.0 * used.as_secs_f64() / MEASURED.as_secs_f64(),
        memory(own),
        ready.count()
    );
}

/// A running pod that an earlier leader has probed.
fn add(manager: &ProbeManager, number: usize, port: u16) -> PodProbes {
    let id = Some("1".to_owned());
    let seed = ProbeSeed {
        id: id.clone(),
        started: true,
        ready: true,
    };
    let get = json!({"httpGet": {"port": port}, "periodSeconds": PERIOD.as_secs()});
    let container: Container =
        serde_json::from_value(json!({"name": "c", "readinessProbe": get})).expect("a container");
    let specs = ProbeSpecs::of(&container, true, false).expect("it has a probe");
    let containers = CONTAINERS.map(|name| (name.to_owned(), specs.clone(), Some(seed.clone())));
    let probes = manager.add(ProbedPod {
        uid: format!("uid-{number}"),
        containers: containers.into(),
        beacon: None,
    });
    let running = ProbedContainer::Running {
        id,
        started_at: None,
    };
    probes.update(&ProbedPodState {
        address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        is_deleting: false,
        containers: CONTAINERS
            .map(|name| (name.to_owned(), running.clone()))
            .into(),
    });
    probes
}

/// The number of probes, and the lowest bucket that 99 % of them are in.
fn lateness(metrics: &str) -> (u64, String) {
    let name = "burstpool_probe_lateness_seconds";
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse().ok());
    let count = metrics
        .lines()
        .find(|line| line.starts_with(&format!("{name}_count")));
    let count: u64 = count.and_then(value).unwrap_or_default();
    let mut buckets = metrics.lines().filter_map(|line| {
        let (bound, count) = line
            .strip_prefix(&format!("{name}_bucket{{le=\""))?
            .split_once("\"} ")?;
        Some((bound.to_owned(), count.parse::<u64>().ok()?))
    });
    let found = buckets.find(|(_, within)| within * 100 >= count * 99);
    (
        count,
        found.map_or_else(|| "?".to_owned(), |(bound, _)| bound),
    )
}

/// Starts the app as a process, which ends with the returned handle. Returns its port.
async fn start_app() -> (tokio::process::Child, u16) {
    let own = std::env::current_exe().expect("this program's path");
    let mut app = tokio::process::Command::new(own)
        .arg(APP)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the app starts");
    let output = app.stdout.take().expect("it is piped");
    let line = BufReader::new(output).lines().next_line().await;
    let line = line.expect("a line").expect("the port");
    (app, line.parse().expect("a port"))
}

/// The app: answers every request with 200, on a port that it prints.
pub async fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    println!("{}", listener.local_addr().expect("it is bound").port());
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) {
    // A probe's request fits in one packet.
    let mut request = [0; 1024];
    if stream.read(&mut request).await.is_ok() {
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(ok).await;
    }
}
