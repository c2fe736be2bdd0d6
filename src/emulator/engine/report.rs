//! What an engine's work says about its group.
//!
//! In: a change of the group, for the deployment that it belongs to. Out: the changed group, or
//! [`Halt::Over`] if the group is not that deployment's any more: somebody has stopped, restarted,
//! updated or deleted it, and what became of the old containers is nobody's business.

use jiff::Timestamp;

use super::deployment::{Deployment, Halt};
use crate::emulator::group::life::Group;
use crate::emulator::group::run::note;
use crate::emulator::group::stage::Effect;

impl Deployment {
    /// Changes the group, with the time of the change.
    pub(super) fn report<T>(
        &self,
        change: impl FnOnce(&mut Group, Timestamp, &mut Vec<Effect>) -> T,
    ) -> Result<T, Halt> {
        let now = self.shared.clock.now();
        let mut store = self.shared.store();
        if !store.is_current(&self.key, self.generation, self.operation) {
            return Err(Halt::Over);
        }
        let group = store.groups.get_mut(&self.key).ok_or(Halt::Over)?;
        let mut effects = Vec::new();
        let outcome = change(group, now, &mut effects);
        store.apply(&self.key, effects);
        Ok(outcome)
    }

    /// The deployment has failed, in the engine's words.
    pub(super) fn fail(&self, words: &str) {
        // A group that is somebody else's by now has not failed.
        let _ = self.report(|group, at, effects| {
            note(
                &mut group.events,
                at,
                "Failed",
                &format!("Error: {words}"),
                true,
            );
            group.fail(effects);
        });
    }

    /// Something happened to a container.
    pub(super) fn note(&self, index: usize, name: &str, message: &str, warning: bool) {
        let _ = self.report(|group, at, _| {
            if let Some(run) = group.containers.get_mut(index) {
                note(&mut run.events, at, name, message, warning);
            }
        });
    }
}
