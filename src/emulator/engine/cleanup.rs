//! Removes containers and directories: those of crashed emulators at the start, this emulator's own at
//! the end.

use std::path::PathBuf;

use futures::StreamExt as _;

use super::client::EngineClient;
use super::error::EngineError;
use super::instance::{self, CONTAINER, DIRECTORY, InstanceOwner, OWNER};
use super::listing::ListedContainer;

/// Removes containers and directories whose emulator has ended. Several emulators may do so at the same
/// time.
pub async fn remove_orphans(client: &EngineClient) -> Result<(), EngineError> {
    let containers = client.list(&[OWNER.to_owned()]).await?;
    let is_orphan = |c: &ListedContainer| InstanceOwner::of(c).is_some_and(|owner| owner.is_dead());
    let orphans: Vec<ListedContainer> = containers.into_iter().filter(is_orphan).collect();
    let directories: Vec<PathBuf> = orphans
        .iter()
        .filter_map(|c| c.label(DIRECTORY))
        .map(PathBuf::from)
        .collect();
    if !orphans.is_empty() {
        tracing::info!(
            containers = orphans.len(),
            "containers of an emulator that has ended are removed"
        );
    }
    remove(client, orphans).await?;
    for path in instance::orphaned_directories(directories.into_iter()) {
        instance::remove_directory(&path);
    }
    Ok(())
}

/// Kills and removes containers. Infra containers come last: an engine does not remove a container
/// whose network others use.
pub async fn remove(
    client: &EngineClient,
    containers: Vec<ListedContainer>,
) -> Result<(), EngineError> {
    let (infra, joined): (Vec<_>, Vec<_>) = containers
        .into_iter()
        .partition(|c| c.label(CONTAINER).is_some_and(str::is_empty));
    let mut outcome = Ok(());
    for batch in [joined, infra] {
        let removals = batch.into_iter().map(|container| async move {
            match client.remove(&container.id).await {
                // Another client is already removing it.
                Err(error) if error.status() == Some(409) => Ok(()),
                outcome => outcome,
            }
        });
        let mut removals = futures::stream::iter(removals).buffer_unordered(4);
        while let Some(removed) = removals.next().await {
            outcome = outcome.and(removed);
        }
    }
    outcome
}
