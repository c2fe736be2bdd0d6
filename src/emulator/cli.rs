//! The command line of `aci-emulator`.
//!
//! Others rely on it: when it listens it prints one JSON line on standard output, `{"url": ...}`
//! and with `--tls` also `"caFile"`; everything else goes to standard error.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use jiff::SignedDuration;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::arm::throttle::Limits;
use super::clock::Shows;
use super::{Emulator, EngineSocket, Options, Tls};

/// Below this level the container engine's client shows what it sends: environments and passwords.
const NO_BODIES: &str = "bollard=info";

/// Azure Resource Manager and Azure Container Instances on localhost.
///
/// Any bearer token and any subscription are accepted; state lives in memory. When it listens it
/// prints one JSON line on standard output: {"url": "...", "caFile": "..."} (caFile with --tls only).
/// Faults, quotas, the clock and what simulated containers do are set under URL/_emulator/, which
/// also shows a page of what runs.
#[derive(Debug, Parser)]
#[command(name = "aci-emulator", version)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Speak TLS, with a certificate authority made for this run
    #[arg(long)]
    tls: bool,
    /// Where to write the authority's certificate; a temporary file, removed at the end, if not given
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// How many emulated seconds pass in one real second (0.001 to 100000); waits are shorter, and the times that
    /// it shows stay the host's
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// How far away the service seems: half of it passes before a request is looked at, half after
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    rtt: Duration,
    /// After how long a simulated group's containers run (emulated time); as recorded of the service
    /// if not given: 15.6s with a public address, 42.8s in a subnet
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    start_latency: Option<Duration>,
    /// A limit of the subscription's usages, such as StandardCores=2000 (may be repeated)
    #[arg(long, value_name = "NAME=LIMIT", value_parser = quota)]
    quota: Vec<(String, u64)>,
    /// Lift all limits of requests: ARM's and the service's own
    #[arg(long)]
    no_limits: bool,
    /// How many elements a LIST answers at once
    #[arg(long, value_name = "N", default_value_t = 1000)]
    page_size: usize,
    /// How long the tokens that it gives are good for
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    token_lifetime: Duration,
    /// Give groups in subnets addresses of loopback, at which their realtime-metrics extensions answer
    #[arg(long)]
    loopback_subnets: bool,
    /// Run the groups for real, in Docker or podman (by `DOCKER_HOST`, else its usual socket)
    #[arg(long)]
    containers: bool,
    /// The container engine's unix socket
    #[arg(long, value_name = "SOCKET", requires = "containers")]
    engine_socket: Option<PathBuf>,
}

/// Runs the emulator until it is told to end.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| "info".into())
                .add_directive(NO_BODIES.parse().expect("a directive")),
        )
        .init();
    let ran = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the runtime")
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "aci-emulator: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let emulator = Emulator::start(options(arguments)).await?;
    let mut line = json!({"url": emulator.url()});
    if let Some(file) = emulator.ca_file() {
        line["caFile"] = file.to_string_lossy().into();
    }
    writeln!(std::io::stdout(), "{line}").context("telling where it listens")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    emulator.stop().await;
    Ok(())
}

fn options(arguments: Arguments) -> Options {
    let socket = arguments
        .engine_socket
        .map_or(EngineSocket::Usual, EngineSocket::At);
    Options {
        listen: arguments.listen,
        tls: arguments.tls.then_some(Tls {
            ca_file: arguments.ca_file,
        }),
        speed: arguments.speed,
        shows: Shows::HostTime,
        rtt: arguments.rtt,
        start_latency: arguments.start_latency,
        limits: if arguments.no_limits {
            Limits::lifted()
        } else {
            Limits::default()
        },
        quotas: arguments.quota.into_iter().collect::<BTreeMap<_, _>>(),
        page_size: arguments.page_size,
        token_lifetime: arguments.token_lifetime,
        loopback_subnets: arguments.loopback_subnets,
        containers: arguments.containers.then_some(socket),
    }
}

fn speed(text: &str) -> anyhow::Result<f64> {
    let speed: f64 = text.parse()?;
    if !(0.001..=100_000.0).contains(&speed) {
        bail!("it must be between 0.001 and 100000");
    }
    Ok(speed)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration: SignedDuration = text.parse().context("write it like 50ms, 3s or 2m")?;
    Duration::try_from(duration).context("it must not be negative")
}

fn quota(text: &str) -> anyhow::Result<(String, u64)> {
    let (name, limit) = text
        .split_once('=')
        .context("write it like StandardCores=2000")?;
    Ok((
        name.to_owned(),
        limit.parse().context("the limit must be a whole number")?,
    ))
}
