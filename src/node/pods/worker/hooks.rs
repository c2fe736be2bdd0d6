//! Runs the `preStop` hooks of a pod.
//!
//! In: the decision to run them ([`pod_plan`](crate::node::pod_plan)). Out: requests to the containers, commands in
//! them, what the pod's status says of the hooks, and the kubelet's Events. The hooks of each pod run in tasks of their
//! own, so that hundreds of pods end at once. A command costs one call to Azure.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::PodWorker;
use crate::aci::failure::RetryPolicy;
use crate::aci::pre_stop::PreStopHook;
use crate::aci::probe::HttpGetProbe;
use crate::aci::shell::{ShellOutcome, ShellTarget};
use crate::aci::status::PreStopProgress;
use crate::node::pod_plan::{self, GracePeriod, HookPhase};
use crate::node::probe::{HookAnswer, Prober};

/// Reason and message of the Event about a hook that failed: a kubelet's, which leaves out why, because an app's answer
/// may contain secrets.
const FAILED: (&str, &str) = ("FailedPreStopHook", "PreStopHook failed");
/// Reason and message of the Event about a command that cannot run.
const NO_SHELL: (&str, &str) = (
    "FailedPreStopHook",
    "PreStopHook failed: the image has no /bin/sh with stty, without which burstpool cannot run a command",
);
/// Reason and message of the Event about a hook that asks for HTTPS of an app that speaks HTTP: a kubelet's.
const FALLBACK: (&str, &str) = (
    "LifecycleHTTPFallback",
    "request to HTTPS lifecycle hook got HTTP response, retrying with HTTP",
);

/// How long a command waits at least before it is tried again.
const MIN_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How the hook of a container ended.
#[derive(Debug)]
pub(super) struct HookEnd {
    container: String,
    /// The Event about it, if there is one: reason and message.
    event: Option<(&'static str, &'static str)>,
}

/// The hooks of a worker's pod.
#[derive(Debug, Default)]
pub(super) struct WorkerHooks {
    /// How far they are; `None` if this process has not run them.
    progress: Option<PreStopProgress>,
    /// The hooks that run. Dropping it ends them.
    running: JoinSet<HookEnd>,
}

impl WorkerHooks {
    /// How far the hooks are; `None` if this process knows nothing that the pod's status does not say.
    pub fn progress(&self) -> Option<&PreStopProgress> {
        self.progress.as_ref()
    }

    /// Waits until one of the hooks ends. `None`: its task failed.
    pub async fn ended(&mut self) -> Option<HookEnd> {
        match self.running.join_next().await {
            Some(end) => end.ok(),
            None => std::future::pending().await,
        }
    }
}

impl PodWorker {
    /// Writes to the pod's status that the hooks begin, and starts them. If the API server does not accept that, they
    /// begin all the same.
    pub(super) async fn run_hooks(&mut self) {
        let hooks = pod_plan::due_hooks(self.state.pod());
        tracing::info!(count = hooks.len(), "running preStop hooks");
        self.hooks.progress = Some(PreStopProgress {
            running: hooks.iter().map(|(name, _)| name.clone()).collect(),
        });
        self.write_status_now().await;
        let Some(grace) = GracePeriod::of(self.state.pod(), self.state.pod_state()) else {
            return;
        };
        for (container, hook) in hooks {
            self.start_hook(container, hook, grace);
        }
        self.state.set_hook_phase(HookPhase::Running);
    }

    fn start_hook(&mut self, container: String, hook: PreStopHook, grace: GracePeriod) {
        let now = Timestamp::now();
        let (sender, address) = (self.context.prober.clone(), self.hook_address());
        let target = ShellTarget {
            azure: self.context.azure.clone(),
            scope: self.context.scope.clone(),
            group: self.group_name.clone(),
            container: container.clone(),
        };
        let run = async move {
            let event = match hook {
                PreStopHook::Sleep(pause) => {
                    tokio::time::sleep(grace.left_of(pause, now)).await;
                    None
                }
                PreStopHook::HttpGet(get) => send(&get, &sender, address, grace.left(now)).await,
                PreStopHook::Exec(command) => run_command(&command, &target).await,
            };
            HookEnd { container, event }
        };
        self.hooks.running.spawn(run.in_current_span());
    }

    /// The address of the group, which exists: another leader may know it only from the pod's status.
    fn hook_address(&self) -> Option<IpAddr> {
        let status = self.state.pod().status.as_ref();
        let recorded = || status?.pod_ip.as_ref()?.parse().ok();
        super::probing::address(&self.state).or_else(recorded)
    }

    /// Records that a hook ended: in the pod's status, so that no other leader runs it again, and in an Event.
    pub(super) async fn hook_ended(&mut self, end: Option<HookEnd>) {
        let progress = self.hooks.progress.get_or_insert_default();
        if let Some(HookEnd { container, event }) = end {
            progress.running.remove(&container);
            if let Some((reason, message)) = event {
                let event = self.event_about(Some(&container), "Warning", reason, message);
                // Now, because the pod may be gone soon.
                if !Box::pin(self.publish_event(&event)).await {
                    self.events.add(event);
                }
            }
        }
        if self.hooks.running.is_empty() {
            self.leave_hooks();
        }
        self.write_status_now().await;
    }

    /// Leaves behind the hooks that have not ended, if any have begun.
    pub(super) fn leave_hooks(&mut self) {
        let Some(progress) = &mut self.hooks.progress else {
            return;
        };
        progress.running.clear();
        self.hooks.running = JoinSet::new();
        self.state.set_hook_phase(HookPhase::Ended);
    }
}

/// Sends the request of a hook. Returns the Event about it.
async fn send(
    get: &HttpGetProbe,
    sender: &Prober,
    address: Option<IpAddr>,
    left: Duration,
) -> Option<(&'static str, &'static str)> {
    let answer = match address {
        Some(address) => sender.run_hook(address, get, left).await,
        None => Err("the address of the container group is not known".to_owned()),
    };
    match answer {
        Ok(HookAnswer::AsAsked) => None,
        Ok(HookAnswer::WithoutTls) => Some(FALLBACK),
        Err(error) => {
            tracing::debug!(error, "a preStop hook failed");
            Some(FAILED)
        }
    }
}

/// Runs the command of a hook. Returns the Event about it. While Azure asks to wait or does not answer, the command has
/// not run, and is tried again until the grace period is over.
async fn run_command(
    command: &[String],
    target: &ShellTarget,
) -> Option<(&'static str, &'static str)> {
    loop {
        let error = match target.run(command).await {
            Ok(ShellOutcome::Exited(0)) => return None,
            Ok(ShellOutcome::NoShell) => return Some(NO_SHELL),
            Ok(outcome @ (ShellOutcome::Exited(_) | ShellOutcome::Closed)) => {
                tracing::debug!(?outcome, "a preStop hook failed");
                return Some(FAILED);
            }
            Err(error) => error,
        };
        tracing::debug!(error = error.error_chain(), "a preStop hook has not run");
        match error.verdict().retry {
            RetryPolicy::After(pause) | RetryPolicy::Backoff { first: pause, .. } => {
                tokio::time::sleep(pause.max(MIN_RETRY_INTERVAL)).await;
            }
            RetryPolicy::Never => return Some(FAILED),
        }
    }
}

#[cfg(test)]
mod tests;
