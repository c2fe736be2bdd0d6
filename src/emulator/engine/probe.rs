//! Liveness and readiness probes.
//!
//! In: a running container's probes. Out: `Unhealthy` events, and the signal to kill the container.
//! Delays and periods follow the emulator's clock, but a probe never runs more often than every
//! [`MIN_INTERVAL`]. Timeouts are host time, because the probed process runs in host time. HTTP probes go
//! from this machine to the group's address, so the engine's containers must be reachable from here. A
//! readiness probe has no effect but its events: the service shows nothing else of it.

use std::time::Duration;

use bollard::models::ExecConfig;
use futures::StreamExt as _;

use super::deployment::{Deployment, DeploymentTarget};
use super::{http_probe, terminal};
use crate::emulator::clock::later;
use crate::emulator::group::model::Probe;

/// The shortest interval between two probes (host time).
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// How many bytes of a failed command's output an event contains.
const MAX_MESSAGE_BYTES: usize = 1024;
/// How many bytes of a command's output are read; the rest is discarded.
const MAX_OUTPUT_BYTES: usize = 64 << 10;

/// Probes a container and returns when it must be killed. Never returns without a liveness probe.
pub(super) async fn until_unhealthy(deployment: &Deployment, index: usize) {
    let container = deployment.container(DeploymentTarget::App(index));
    let properties = container.properties.as_ref();
    let liveness = properties.and_then(|p| p.liveness_probe.as_ref());
    let readiness = properties.and_then(|p| p.readiness_probe.as_ref());
    let probing = |kind, probe| ProbeLoop {
        deployment,
        index,
        kind,
        probe,
    };
    tokio::select! {
        () = probing(EmulatedProbeKind::Liveness, liveness).run() => {}
        () = probing(EmulatedProbeKind::Readiness, readiness).run() => {}
    }
}

/// The two kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EmulatedProbeKind {
    /// Decides whether the container is killed.
    Liveness,
    /// Only creates events.
    Readiness,
}

struct ProbeLoop<'a> {
    deployment: &'a Deployment,
    index: usize,
    kind: EmulatedProbeKind,
    probe: Option<&'a Probe>,
}

impl ProbeLoop<'_> {
    /// Probes until the container must be killed.
    async fn run(self) {
        let Some(probe) = self.probe else {
            return std::future::pending().await;
        };
        let clock = &self.deployment.shared.clock;
        let value_or = |value: Option<i64>, default| {
            value.and_then(|s| u64::try_from(s).ok()).unwrap_or(default)
        };
        // The defaults of the service's specification.
        let delay = Duration::from_secs(value_or(probe.initial_delay_seconds, 0));
        let period = Duration::from_secs(value_or(probe.period_seconds, 10));
        let timeout = Duration::from_secs(value_or(probe.timeout_seconds, 1));
        let threshold = value_or(probe.failure_threshold, 3);
        clock.sleep_until(later(clock.now(), delay)).await;
        let mut failures = 0;
        loop {
            let next = later(clock.now(), period);
            match self.probe_once(probe, timeout).await {
                Ok(()) => failures = 0,
                Err(why) => {
                    failures += 1;
                    let message = format!("{:?} probe failed: {why}", self.kind);
                    self.deployment
                        .note(self.index, "Unhealthy", &message, true);
                }
            }
            if self.kind == EmulatedProbeKind::Liveness && failures >= threshold {
                return;
            }
            tokio::join!(clock.sleep_until(next), tokio::time::sleep(MIN_INTERVAL));
        }
    }

    async fn probe_once(&self, probe: &Probe, timeout: Duration) -> Result<(), String> {
        if let Some(command) = probe.exec.as_ref().and_then(|exec| exec.command.clone()) {
            return self.command(command, timeout).await;
        }
        let Some(get) = &probe.http_get else {
            return Ok(());
        };
        let address = self
            .deployment
            .report(|group, _, _| group.ip)
            .ok()
            .flatten();
        match address {
            Some(address) => http_probe::get(address, get, timeout).await,
            None => Ok(()),
        }
    }

    async fn command(&self, command: Vec<String>, timeout: Duration) -> Result<(), String> {
        let client = &self.deployment.parts.client;
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: Some(command),
            ..ExecConfig::default()
        };
        let name = self.deployment.name(DeploymentTarget::App(self.index));
        let error_text = |error: super::error::EngineError| error.error_chain();
        let id = client
            .create_exec(&name, config)
            .await
            .map_err(error_text)?;
        let mut output = Vec::new();
        let run = async {
            let mut parts = client.run_exec(&id).await.map_err(error_text)?;
            while let Some(Ok(part)) = parts.next().await {
                let free = MAX_OUTPUT_BYTES.saturating_sub(output.len());
                output.extend(part.as_ref().iter().take(free));
            }
            client.inspect_exec(&id).await.map_err(error_text)
        };
        let Ok(result) = tokio::time::timeout(timeout, run).await else {
            if let Err(error) = terminal::hang_up(client, &id, None).await {
                tracing::debug!(
                    error = error.error_chain(),
                    "a probe's command was not ended"
                );
            }
            return Err(format!("command timed out after {} s", timeout.as_secs()));
        };
        match result?.exit_code {
            Some(0) => Ok(()),
            code => {
                let code = code.unwrap_or(-1);
                let text = String::from_utf8_lossy(&output[..output.len().min(MAX_MESSAGE_BYTES)])
                    .trim()
                    .to_owned();
                Err(if text.is_empty() {
                    format!("command exited with code {code}")
                } else {
                    text
                })
            }
        }
    }
}
