//! What a simulated container does, as its environment or the admin interface says.

use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use super::model::Container;

/// Prefix of the environment variables that script a simulated container.
const PREFIX: &str = "ACI_EMULATOR_";

/// What a simulated container does. The default starts and runs for ever, without a word.
///
/// Durations are text such as `5s`, `250ms` or `2m`, of the emulator's clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Script {
    /// `ACI_EMULATOR_NEVER_START=true`: the image is pulled for ever; after the provisioning
    /// timeout (1800 s) the group has failed.
    pub never_start: bool,
    /// `ACI_EMULATOR_EXIT_CODE`: with which code it ends; 0 unless given.
    pub exit_code: i32,
    /// `ACI_EMULATOR_EXIT_AFTER`: how long after each start it ends.
    pub exit_after: Option<SignedDuration>,
    /// `ACI_EMULATOR_LOG`: lines it writes when it starts, separated by line feeds.
    pub log: String,
    /// `ACI_EMULATOR_LOG_EVERY`: it also writes a numbered line each time this much has passed.
    pub log_every: Option<SignedDuration>,
    /// `ACI_EMULATOR_UNREADY_AFTER`: how long after its start the group becomes `Unhealthy`.
    pub unready_after: Option<SignedDuration>,
    /// `ACI_EMULATOR_UNREADY_FOR`: for how long it stays so; for ever unless given.
    pub unready_for: Option<SignedDuration>,
    /// `ACI_EMULATOR_PLATFORM_RESTARTS`: how often the platform restarts it after a non-zero exit
    /// although the restart policy is `Never`, as the service's documents warn.
    pub platform_restarts: u32,
    /// `ACI_EMULATOR_CPU`: how much CPU it uses, in thousandths; 1 unless given.
    pub cpu: Option<f64>,
    /// `ACI_EMULATOR_MEMORY`: how much memory it uses, in bytes; 16 MiB unless given.
    pub memory: Option<f64>,
    /// `ACI_EMULATOR_UNMEASURED=true`: Azure Monitor knows nothing of it.
    pub unmeasured: bool,
}

impl Script {
    /// Reads the script from the container's environment. What cannot be read is as if not there:
    /// the service would not look at these variables at all.
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
            platform_restarts: get("PLATFORM_RESTARTS")
                .and_then(|v| v.parse().ok())
                .unwrap_or_default(),
            cpu: get("CPU").and_then(|v| v.parse().ok()),
            memory: get("MEMORY").and_then(|v| v.parse().ok()),
            unmeasured: get("UNMEASURED").is_some_and(|v| v == "true"),
        }
    }
}

/// The length of `duration`; a negative one is none.
pub(crate) fn length(duration: SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or(Duration::ZERO)
}
