//! Reports of a deployment about its group.
//!
//! In: a change of the group. Out: the changed group in the store, or [`DeploymentHalt::Superseded`] if a client has
//! stopped, restarted, updated or deleted the group since: then the old containers no longer matter.

use jiff::Timestamp;

use super::deployment::{Deployment, DeploymentHalt};
use crate::emulator::group::lifecycle::EmulatedGroup;
use crate::emulator::group::run::add_event;
use crate::emulator::group::stage::StageEffect;

impl Deployment {
    /// Applies `change` to the group, with the current time.
    pub(super) fn report<T>(
        &self,
        change: impl FnOnce(&mut EmulatedGroup, Timestamp, &mut Vec<StageEffect>) -> T,
    ) -> Result<T, DeploymentHalt> {
        let now = self.shared.clock.now();
        let mut store = self.shared.store();
        if !store.is_current(&self.key, self.generation, self.operation) {
            return Err(DeploymentHalt::Superseded);
        }
        let group = store
            .groups
            .get_mut(&self.key)
            .ok_or(DeploymentHalt::Superseded)?;
        let mut effects = Vec::new();
        let outcome = change(group, now, &mut effects);
        store.apply(&self.key, effects);
        Ok(outcome)
    }

    /// Marks the group as failed, with the engine's message.
    pub(super) fn fail(&self, message: &str) {
        // Ignore the error: a group that has a newer deployment has not failed.
        let _ = self.report(|group, at, effects| {
            add_event(
                &mut group.events,
                at,
                "Failed",
                &format!("Error: {message}"),
                true,
            );
            group.fail(effects);
        });
    }

    /// Adds an event to a container.
    pub(super) fn note(&self, index: usize, name: &str, message: &str, warning: bool) {
        let _ = self.report(|group, at, _| {
            if let Some(run) = group.containers.get_mut(index) {
                add_event(&mut run.events, at, name, message, warning);
            }
        });
    }
}
