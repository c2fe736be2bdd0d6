//! Scripts: what a simulated container does. Set through its environment or the admin interface.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::model::Container;

/// Prefix of the environment variables that script a simulated container.
const PREFIX: &str = "ACI_EMULATOR_";

/// What a simulated container does. By default it starts, runs forever and writes nothing.
///
/// Durations are text such as `5s`, `250ms` or `2m`, in emulated time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, each with its name"
)]
pub struct ContainerScript {
    /// `ACI_EMULATOR_NEVER_START=true`: pulling the image never ends; after the provisioning timeout
    /// (1800 s by default) the group fails.
    pub never_start: bool,
    /// `ACI_EMULATOR_EXIT_CODE`: its exit code. Default: 0.
    pub exit_code: i32,
    /// `ACI_EMULATOR_EXIT_AFTER`: it exits this long after each start.
    pub exit_after: Option<SignedDuration>,
    /// `ACI_EMULATOR_LOG`: the lines that it writes at each start, separated by line feeds.
    pub log: String,
    /// `ACI_EMULATOR_LOG_EVERY`: it also writes a numbered line at this interval.
    pub log_every: Option<SignedDuration>,
    /// `ACI_EMULATOR_UNREADY_AFTER`: this long after the container's start its group becomes
    /// `Unhealthy`.
    pub unready_after: Option<SignedDuration>,
    /// `ACI_EMULATOR_UNREADY_FOR`: for how long the group stays `Unhealthy`. Default: forever.
    pub unready_for: Option<SignedDuration>,
    /// `ACI_EMULATOR_READINESS_FAILS_FOR`: for how long after each start its readiness probe fails. Default: not at
    /// all.
    pub readiness_fails_for: Option<SignedDuration>,
    /// `ACI_EMULATOR_PLATFORM_RESTARTS`: how often the platform restarts it after a non-zero exit
    /// despite the restart policy `Never`. The service's documentation warns of this.
    pub platform_restarts: u32,
    /// `ACI_EMULATOR_SERVE=8080`: it answers HTTP and gRPC's health service at this port, if the emulator gives its
    /// group a loopback address.
    pub serve: Option<u16>,
    /// `ACI_EMULATOR_SERVE_AFTER`: it listens this long after each start. Default: at once.
    pub serve_after: Option<SignedDuration>,
    /// `ACI_EMULATOR_SERVE_STATUS`: the status of its answers; 400 and above is `NOT_SERVING`. Default: 200.
    pub serve_status: Option<u16>,
    /// `ACI_EMULATOR_SERVE_HANG=true`: it takes connections and does not answer.
    pub serve_hang: bool,
    /// `ACI_EMULATOR_EXEC_HANG=true`: a terminal in it shows nothing and does not end.
    pub exec_hang: bool,
    /// `ACI_EMULATOR_CPU`: its CPU use in thousandths of a core. Default: 1.
    pub cpu: Option<f64>,
    /// `ACI_EMULATOR_MEMORY`: its memory use in bytes. Default: 16 MiB.
    pub memory: Option<f64>,
    /// `ACI_EMULATOR_UNMEASURED=true`: neither Azure Monitor nor the realtime-metrics extension has
    /// values of it.
    pub unmeasured: bool,
}

impl ContainerScript {
    /// Reads the script from the container's environment. Ignores values that it cannot parse: the real
    /// service ignores these variables.
    pub fn of(container: &Container) -> Self {
        let get = |name: &str| {
            let mut variables = container.environment().iter();
            variables
                .find(|v| {
                    v.name
                        .as_deref()
                        .and_then(|n| n.strip_prefix(PREFIX))
                        .is_some_and(|n| n == name)
                })
                .map(super::model::EnvironmentVariable::seen)
        };
        let duration = |name| get(name).and_then(|text| text.parse().ok());
        Self {
            never_start: get("NEVER_START").is_some_and(|v| v == "true"),
            exit_code: get("EXIT_CODE")
                .and_then(|v| v.parse().ok())
                .unwrap_or_default(),
            exit_after: duration("EXIT_AFTER"),
            log: get("LOG").unwrap_or_default().to_owned(),
            log_every: duration("LOG_EVERY"),
            unready_after: duration("UNREADY_AFTER"),
            unready_for: duration("UNREADY_FOR"),
            readiness_fails_for: duration("READINESS_FAILS_FOR"),
            platform_restarts: get("PLATFORM_RESTARTS")
                .and_then(|v| v.parse().ok())
                .unwrap_or_default(),
            serve: get("SERVE").and_then(|v| v.parse().ok()),
            serve_after: duration("SERVE_AFTER"),
            serve_status: get("SERVE_STATUS").and_then(|v| v.parse().ok()),
            serve_hang: get("SERVE_HANG").is_some_and(|v| v == "true"),
            exec_hang: get("EXEC_HANG").is_some_and(|v| v == "true"),
            cpu: get("CPU").and_then(|v| v.parse().ok()),
            memory: get("MEMORY").and_then(|v| v.parse().ok()),
            unmeasured: get("UNMEASURED").is_some_and(|v| v == "true"),
        }
    }
}

/// Converts a duration. Negative ones become zero.
pub(crate) fn to_duration(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}
