//! Removing what emulators have left: crashed ones' at the start, this one's at the end.

use std::path::PathBuf;

use bollard::models::ContainerSummary;
use futures::StreamExt as _;

use super::client::Client;
use super::error::Error;
use super::instance::{self, CONTAINER, DIRECTORY, OWNER, Owner};

/// Removes containers and directories whose emulator has ended. Several may do so at once.
pub async fn remove_orphans(client: &Client) -> Result<(), Error> {
    let all = client.list(vec![OWNER.to_owned()]).await?;
    let dead = |c: &ContainerSummary| {
        c.labels
            .as_ref()
            .and_then(Owner::of)
            .is_some_and(|owner| owner.is_dead())
    };
    let orphans: Vec<ContainerSummary> = all.into_iter().filter(dead).collect();
    let named: Vec<PathBuf> = orphans
        .iter()
        .filter_map(|c| label(c, DIRECTORY))
        .map(PathBuf::from)
        .collect();
    if !orphans.is_empty() {
        tracing::info!(
            containers = orphans.len(),
            "removing what an ended emulator has left"
        );
    }
    remove(client, orphans).await?;
    for path in instance::orphaned_directories(named.into_iter()) {
        instance::remove_directory(&path);
    }
    Ok(())
}

/// Kills and removes containers: those that have joined a network before those that hold it, as an
/// engine keeps a container that others depend on.
pub async fn remove(client: &Client, containers: Vec<ContainerSummary>) -> Result<(), Error> {
    let (infra, joined): (Vec<_>, Vec<_>) = containers
        .into_iter()
        .partition(|c| label(c, CONTAINER).is_some_and(str::is_empty));
    let mut outcome = Ok(());
    for batch in [joined, infra] {
        let removals = batch.into_iter().filter_map(|c| c.id).map(|id| async move {
            match client.remove(&id).await {
                // Somebody else is removing it, or has begun to.
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

fn label<'a>(container: &'a ContainerSummary, name: &str) -> Option<&'a str> {
    container.labels.as_ref()?.get(name).map(String::as_str)
}
