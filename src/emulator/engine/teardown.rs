//! Removes a group's containers and directories.
//!
//! In: a group. Its containers are found by label, so none is missed, however far a deployment got.
//! Out: the engine has nothing of the group, and the store has a report that the group is stopped or
//! gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::EngineError;
use super::groups::EngineParts;
use super::instance::{CONTAINER, EmulatorInstance, remove_directory};
use super::listing::ListedContainer;
use super::{cleanup, logs};
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::log::ContainerLog;
use crate::emulator::group::run::GroupRestartPolicy;
use crate::emulator::group::stage::GroupStage;
use crate::emulator::state::EmulatorState;

/// How many host seconds a process has between SIGTERM and SIGKILL. The service's value is not
/// documented.
const GRACE_PERIOD_SECONDS: i32 = 2;
/// How often removing a group is tried. What is left after that is removed when the emulator stops.
const MAX_ATTEMPTS: usize = 3;
/// How long to wait between two attempts.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How to end a group's processes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TeardownManner {
    /// SIGTERM first.
    Gracefully,
    /// SIGKILL.
    Kill,
}

/// What to remove of a group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TeardownScope {
    /// All containers, and the volumes.
    All,
    /// The containers, but neither the infra container nor the volumes.
    ContainersOnly,
}

/// A container's last exit code and log.
pub(super) struct StoppedContainer {
    code: Option<i32>,
    log: ContainerLog,
}

/// Removes a group's containers, and with [`TeardownScope::All`] its volumes.
pub(super) async fn containers(
    parts: &EngineParts,
    key: &GroupKey,
    scope: TeardownScope,
    manner: TeardownManner,
) {
    for attempt in 1..=MAX_ATTEMPTS {
        match remove(parts, key, scope, manner).await {
            Ok(0) => break,
            Ok(left) => tracing::debug!(group = key.name, attempt, left, "containers are left"),
            Err(error) => {
                let error = error.error_chain();
                tracing::warn!(
                    group = key.name,
                    attempt,
                    error,
                    "removing a group's containers"
                );
            }
        }
        if attempt < MAX_ATTEMPTS && !parts.cancel.is_cancelled() {
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
    if scope == TeardownScope::All {
        let path = parts.instance.group_directory(key);
        // Volumes may be large: use a blocking thread. `remove_directory` logs its errors.
        let _ = tokio::task::spawn_blocking(move || remove_directory(&path)).await;
    }
}

/// Removes the containers and returns how many are left: other clients may be removing them, too.
async fn remove(
    parts: &EngineParts,
    key: &GroupKey,
    scope: TeardownScope,
    manner: TeardownManner,
) -> Result<usize, EngineError> {
    let list = || async {
        let mut list = of_group(parts, key).await?;
        list.retain(|container| scope == TeardownScope::All || !name(container).is_empty());
        Ok::<_, EngineError>(list)
    };
    let containers = list().await?;
    if containers.is_empty() {
        return Ok(0);
    }
    if manner == TeardownManner::Gracefully {
        stop(parts, &containers).await;
    }
    cleanup::remove(&parts.client, containers).await?;
    Ok(list().await?.len())
}

/// Stops a group's containers and returns each one's exit code and log.
pub(super) async fn stop_and_collect(
    parts: &EngineParts,
    shared: &EmulatorState,
    key: &GroupKey,
) -> HashMap<String, StoppedContainer> {
    let containers = match of_group(parts, key).await {
        Ok(containers) => containers,
        Err(error) => {
            tracing::warn!(
                group = key.name,
                error = error.error_chain(),
                "a group was not stopped"
            );
            return HashMap::new();
        }
    };
    stop(parts, &containers).await;
    let now = shared.clock.now();
    let results = containers
        .iter()
        .filter(|c| !name(c).is_empty())
        .map(|container| async move {
            let full_name = parts.instance.container_name(key, name(container));
            let inspected = parts.client.inspect(&full_name).await.ok().flatten();
            let code = inspected.map(|inspected| inspected.state.exit_code);
            let log = logs::stopped_log(&parts.client, &full_name, now).await;
            (name(container).to_owned(), StoppedContainer { code, log })
        });
    futures::future::join_all(results)
        .await
        .into_iter()
        .collect()
}

/// Stops the processes. One that cannot be stopped is killed when its container is removed.
async fn stop(parts: &EngineParts, containers: &[ListedContainer]) {
    let stops = containers
        .iter()
        .filter(|c| !name(c).is_empty())
        .map(|container| async move {
            if let Err(error) = parts.client.stop(&container.id, GRACE_PERIOD_SECONDS).await {
                tracing::debug!(error = error.error_chain(), "a container was not stopped");
            }
        });
    futures::future::join_all(stops).await;
}

async fn of_group(
    parts: &EngineParts,
    key: &GroupKey,
) -> Result<Vec<ListedContainer>, EngineError> {
    parts
        .client
        .list(&[parts.instance.label(), EmulatorInstance::group_label(key)])
        .await
}

/// The container's name in its group; empty for the infra container.
fn name(container: &ListedContainer) -> &str {
    container.label(CONTAINER).unwrap_or_default()
}

/// Reports that the group has stopped, if it is still stopping.
pub(super) fn report_stopped(
    shared: &EmulatorState,
    key: &GroupKey,
    mut stopped: HashMap<String, StoppedContainer>,
) {
    let now = shared.clock.now();
    let mut store = shared.store();
    let Some(group) = store
        .groups
        .get_mut(key)
        .filter(|g| matches!(g.stage, GroupStage::Stopping { .. }))
    else {
        return;
    };
    for run in group.init.iter_mut().chain(&mut group.containers) {
        if let Some(StoppedContainer { code, log }) = stopped.remove(&run.name) {
            if let Some(code) = code {
                run.exit(now, code, GroupRestartPolicy::Never);
            }
            run.log = log;
        }
    }
    group.finish_stopping(now);
}

/// Reports that the group is gone, if it is still being deleted.
pub(super) fn report_gone(shared: &Arc<EmulatorState>, key: &GroupKey) {
    let now = shared.clock.now();
    let mut store = shared.store();
    let Some(group) = store
        .groups
        .get_mut(key)
        .filter(|g| matches!(g.stage, GroupStage::Deleting { .. }))
    else {
        return;
    };
    let mut effects = Vec::new();
    group.finish_deleting(now, &mut effects);
    store.apply(key, effects);
}
