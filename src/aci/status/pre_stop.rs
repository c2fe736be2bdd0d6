//! How far the `preStop` hooks of a pod are, for the next leader.
//!
//! In: the hooks that run, or the pod's live status. Out: the value of the condition [`PRE_STOP`], or what it says. The
//! condition is written before the hooks begin and when one of them has ended, so that another leader neither forgets
//! a hook nor runs one again that has ended.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

/// The type of the condition: False while hooks run, True when all have ended. Absent before they begin, and for pods
/// without hooks.
pub const PRE_STOP: &str = "burstpool.io/PreStop";
/// The message of the condition while hooks run, up to the names of the containers; a bracket closes it.
const RUNNING: &str = "containers with running preStop hooks: [";

/// How far the `preStop` hooks of a pod are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PreStopProgress {
    /// The containers whose hooks have begun and not ended.
    pub running: BTreeSet<String>,
}

/// What a pod's live status says of its hooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreStopRecord {
    /// How far they are.
    pub progress: PreStopProgress,
    /// While they run: since when, by the clock of the leader that wrote it.
    pub since: Option<Timestamp>,
}

impl PreStopProgress {
    /// The message of the condition; `None` if all hooks have ended.
    pub fn message(&self) -> Option<String> {
        let names: Vec<&str> = self.running.iter().map(String::as_str).collect();
        (!names.is_empty()).then(|| format!("{RUNNING}{}]", names.join(" ")))
    }
}

impl PreStopRecord {
    /// What the pod's live status says; `None` if it does not say that hooks have begun.
    pub fn of(pod: &Pod) -> Option<Self> {
        let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
        let condition = conditions.find(|condition| condition.type_ == PRE_STOP)?;
        if condition.status == "True" {
            return Some(Self {
                progress: PreStopProgress::default(),
                since: None,
            });
        }
        let message = condition.message.as_deref()?;
        let names = message.strip_prefix(RUNNING)?.strip_suffix(']')?;
        Some(Self {
            progress: PreStopProgress {
                running: names.split(' ').map(str::to_owned).collect(),
            },
            since: condition.last_transition_time.as_ref().map(|time| time.0),
        })
    }
}
