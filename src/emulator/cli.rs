//! The command line of `aci-emulator`.
//!
//! In: flags, and SIGTERM or SIGINT to stop. Out: as soon as the emulator listens, one JSON line on
//! standard output: `{"url": ...}`, and with `--tls` also `"caFile"`. Scripts and tests parse this
//! line, so logs and errors go to standard error.

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

use super::arm::throttle::ThrottleLimits;
use super::clock::ShownTime;
use super::{Emulator, EmulatorOptions, EngineSocket, SubnetAddresses, TlsOptions};

/// Log filter: at more detailed levels, bollard logs its request bodies, which contain environment
/// variables and passwords.
const NO_BODIES: &str = "bollard=info";

/// Emulates Azure Resource Manager and Azure Container Instances on localhost.
///
/// Accepts any bearer token and any subscription. State is kept in memory only. As soon as the emulator listens, it
/// prints one JSON line on standard output: {"url": "...", "caFile": "..."} (caFile with --tls only). Below
/// URL/_emulator/, it serves an interface for faults, quotas, the clock and the behavior of simulated containers, and
/// a page that shows the container groups.
#[derive(Debug, Parser)]
#[command(name = "aci-emulator", version)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
struct EmulatorArguments {
    /// Listen address; port 0 picks a free port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Serve HTTPS with a certificate authority that is created for this run
    #[arg(long)]
    tls: bool,
    /// File for the authority's certificate. By default, a temporary file that is removed at the end
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca_file: Option<PathBuf>,
    /// Emulated seconds per real second, from 0.001 to 100000. It only shortens waits: the times in responses are the
    /// host's
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    speed: f64,
    /// Simulated network round trip: half before a request is handled, half after
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    rtt: Duration,
    /// Time from a group's PUT until its simulated containers run, in emulated time. By default, as recorded from the
    /// service: 15.6s with a public address, 42.8s in a subnet
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    start_latency: Option<Duration>,
    /// Limit of one of the subscription's usages, such as StandardCores=2000; can be repeated
    #[arg(long, value_name = "NAME=LIMIT", value_parser = quota)]
    quota: Vec<(String, u64)>,
    /// Remove all limits on requests, both of ARM and of the service
    #[arg(long)]
    no_limits: bool,
    /// Number of elements in a page of a LIST response
    #[arg(long, value_name = "N", default_value_t = 1000)]
    page_size: usize,
    /// Lifetime of the tokens that the emulator issues
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    token_lifetime: Duration,
    /// Give groups in subnets loopback addresses, where their realtime-metrics extensions answer
    #[arg(long)]
    loopback_subnets: bool,
    /// Run groups as real containers in Docker or podman, at `DOCKER_HOST` or else at its default socket
    #[arg(long)]
    containers: bool,
    /// Unix socket of the container engine
    #[arg(long, value_name = "SOCKET", requires = "containers")]
    engine_socket: Option<PathBuf>,
}

/// Runs the emulator until SIGTERM or SIGINT. Exits with failure if it cannot start.
pub fn main() -> ExitCode {
    let arguments = EmulatorArguments::parse();
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

async fn run(arguments: EmulatorArguments) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let emulator = Emulator::start(options(arguments)).await?;
    let mut line = json!({"url": emulator.url()});
    if let Some(file) = emulator.ca_file() {
        line["caFile"] = file.to_string_lossy().into();
    }
    writeln!(std::io::stdout(), "{line}").context("writing the address to standard output")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    emulator.stop().await;
    Ok(())
}

fn options(arguments: EmulatorArguments) -> EmulatorOptions {
    let socket = arguments
        .engine_socket
        .map_or(EngineSocket::Usual, EngineSocket::At);
    EmulatorOptions {
        listen: arguments.listen,
        tls: arguments.tls.then_some(TlsOptions {
            ca_file: arguments.ca_file,
        }),
        speed: arguments.speed,
        shows: ShownTime::HostTime,
        rtt: arguments.rtt,
        start_latency: arguments.start_latency,
        limits: if arguments.no_limits {
            ThrottleLimits::unlimited()
        } else {
            ThrottleLimits::default()
        },
        quotas: arguments.quota.into_iter().collect::<BTreeMap<_, _>>(),
        page_size: arguments.page_size,
        token_lifetime: arguments.token_lifetime,
        subnet_addresses: if arguments.loopback_subnets {
            SubnetAddresses::Loopback
        } else {
            SubnetAddresses::Unreachable
        },
        containers: arguments.containers.then_some(socket),
    }
}

fn speed(text: &str) -> anyhow::Result<f64> {
    let speed: f64 = text.parse()?;
    if !(0.001..=100_000.0).contains(&speed) {
        bail!("must be from 0.001 to 100000");
    }
    Ok(speed)
}

fn duration(text: &str) -> anyhow::Result<Duration> {
    let duration: SignedDuration = text.parse().context("must be like 50ms, 3s or 2m")?;
    Duration::try_from(duration).context("must not be negative")
}

fn quota(text: &str) -> anyhow::Result<(String, u64)> {
    let (name, limit) = text
        .split_once('=')
        .context("must have the form NAME=LIMIT, such as StandardCores=2000")?;
    Ok((
        name.to_owned(),
        limit.parse().context("the limit must be a whole number")?,
    ))
}
