//! Taking a group's containers and directories away.
//!
//! In: a group, found by its labels, so that nothing is forgotten whatever a deployment had come
//! to. Out: nothing of it in the engine; and the report that it has stopped or is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::error::Error;
use super::groups::Parts;
use super::instance::{CONTAINER, Instance, remove_directory};
use super::listing::Listed;
use super::{logs, sweep};
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::log::Log;
use crate::emulator::group::run::RestartPolicy;
use crate::emulator::group::stage::Stage;
use crate::emulator::shared::Shared;

/// How long a process has after SIGTERM, in the host's seconds. The service's grace is not documented.
const GRACE: i32 = 2;
/// How often an engine is asked to remove a group before it is left to the end of the emulator.
const ATTEMPTS: usize = 3;
/// How long it is left alone in between.
const PAUSE: Duration = Duration::from_secs(1);

/// How a group's processes end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// They are asked first.
    Gracefully,
    /// They are killed.
    AtOnce,
}

/// What of a group is taken away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything, volumes included.
    All,
    /// The containers, but neither network nor volumes.
    Joined,
}

/// How a container's last run ended, and what it wrote.
pub(super) struct LastWords {
    code: Option<i32>,
    log: Log,
}

/// Removes a group's containers.
pub(super) async fn containers(parts: &Parts, key: &GroupKey, scope: Scope, manner: Manner) {
    for attempt in 1..=ATTEMPTS {
        match remove(parts, key, scope, manner).await {
            Ok(0) => break,
            Ok(left) => tracing::debug!(group = key.name, attempt, left, "containers are left"),
            Err(error) => {
                let error = error.in_full();
                tracing::warn!(
                    group = key.name,
                    attempt,
                    error,
                    "removing a group's containers"
                );
            }
        }
        if attempt < ATTEMPTS && !parts.cancel.is_cancelled() {
            tokio::time::sleep(PAUSE).await;
        }
    }
    if scope == Scope::All {
        let path = parts.instance.group_directory(key);
        // Volumes may be large; what cannot be removed is told of there.
        let _ = tokio::task::spawn_blocking(move || remove_directory(&path)).await;
    }
}

/// Removes what is found; how many containers are left, as others may be removing them, too.
async fn remove(
    parts: &Parts,
    key: &GroupKey,
    scope: Scope,
    manner: Manner,
) -> Result<usize, Error> {
    let found = || async {
        let mut found = of_group(parts, key).await?;
        found.retain(|container| scope == Scope::All || !name(container).is_empty());
        Ok::<_, Error>(found)
    };
    let containers = found().await?;
    if containers.is_empty() {
        return Ok(0);
    }
    if manner == Manner::Gracefully {
        stop(parts, &containers).await;
    }
    sweep::remove(&parts.client, containers).await?;
    Ok(found().await?.len())
}

/// Stops a group's containers and hears how each ended and what it last wrote.
pub(super) async fn last_words(
    parts: &Parts,
    shared: &Shared,
    key: &GroupKey,
) -> HashMap<String, LastWords> {
    let found = match of_group(parts, key).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(
                group = key.name,
                error = error.in_full(),
                "stopping a group"
            );
            return HashMap::new();
        }
    };
    stop(parts, &found).await;
    let now = shared.clock.now();
    let words = found
        .iter()
        .filter(|c| !name(c).is_empty())
        .map(|container| async move {
            let full = parts.instance.container_name(key, name(container));
            let seen = parts.client.inspect(&full).await.ok().flatten();
            let code = seen.map(|seen| seen.state.exit_code);
            let log = logs::kept(&parts.client, &full, now).await;
            (name(container).to_owned(), LastWords { code, log })
        });
    futures::future::join_all(words).await.into_iter().collect()
}

/// Ends the processes; one that cannot be asked is killed with its container.
async fn stop(parts: &Parts, containers: &[Listed]) {
    let stops = containers
        .iter()
        .filter(|c| !name(c).is_empty())
        .map(|container| async move {
            if let Err(error) = parts.client.stop(&container.id, GRACE).await {
                tracing::debug!(error = error.in_full(), "stopping a container");
            }
        });
    futures::future::join_all(stops).await;
}

async fn of_group(parts: &Parts, key: &GroupKey) -> Result<Vec<Listed>, Error> {
    parts
        .client
        .list(&[parts.instance.label(), Instance::group_label(key)])
        .await
}

/// The container's name in its group; empty for the infra container.
fn name(container: &Listed) -> &str {
    container.label(CONTAINER).unwrap_or_default()
}

/// The group has stopped.
pub(super) fn report_stopped(
    shared: &Shared,
    key: &GroupKey,
    mut words: HashMap<String, LastWords>,
) {
    let now = shared.clock.now();
    let mut store = shared.store();
    let Some(group) = store
        .groups
        .get_mut(key)
        .filter(|g| matches!(g.stage, Stage::Stopping { .. }))
    else {
        return;
    };
    for run in group.init.iter_mut().chain(&mut group.containers) {
        if let Some(LastWords { code, log }) = words.remove(&run.name) {
            if let Some(code) = code {
                run.exit(now, code, RestartPolicy::Never);
            }
            run.log = log;
        }
    }
    group.stopped(now);
}

/// The group is gone.
pub(super) fn report_gone(shared: &Arc<Shared>, key: &GroupKey) {
    let now = shared.clock.now();
    let mut store = shared.store();
    let Some(group) = store
        .groups
        .get_mut(key)
        .filter(|g| matches!(g.stage, Stage::Deleting { .. }))
    else {
        return;
    };
    let mut effects = Vec::new();
    group.gone(now, &mut effects);
    store.apply(key, effects);
}
