//! What a pod worker does when its pod or its settings change.
//!
//! In: the pod from the watch. Out: an Event for each change that its container group cannot take over: the API
//! server allows changes of a running pod's image and of a few other fields.

use super::PodWorker;
use crate::aci::status::{self, OutdatedContainer};
use crate::aci::translate::{self, Unsupported};
use crate::node::pod_plan::{self, GroupPresence};
use crate::node::pods::group_list::ListedState;
use crate::node::watched_pod::WatchedPod;

/// Reason of the Event about a changed image.
const IMAGE_NOT_CHANGED: &str = "ImageNotChanged";
/// Reason of the Event about a pod that cannot be decoded.
const POD_NOT_READABLE: &str = "PodNotReadable";

impl PodWorker {
    /// Applies the new state of the pod.
    pub fn apply_pod(&mut self, observed: WatchedPod) {
        if let Some(error) = observed.decode_error {
            self.state.metadata_changed(observed.pod.metadata);
            return self.mark_unreadable(&error);
        }
        let old_generation = self.state.pod().metadata.generation;
        self.state
            .pod_changed(observed.pod, observed.unknown_fields);
        self.note_changes(old_generation);
    }

    /// If the pod's generation differs from `old_generation`, queues Events about the changes that the group does not
    /// get.
    pub fn note_changes(&mut self, old_generation: Option<i64>) {
        if self.state.pod().metadata.generation != old_generation {
            self.warn_outdated_images();
            self.warn_unsupported_fields();
        }
    }

    /// Applies an edit of the placement or of the pool's tags: a pod that ACI could not run with the old settings is
    /// tried again.
    pub fn settings_changed(&mut self) {
        // No edit of the settings changes the owner of a foreign group.
        let is_foreign = *self.listed_state() == ListedState::Foreign;
        if self.state.is_readable() && self.state.pod_state().is_create_blocked && !is_foreign {
            self.state.allow_create();
        }
    }

    /// Records that the pod cannot be decoded: no group is created for it, and an existing group runs on until the
    /// pod is deleted.
    pub fn mark_unreadable(&mut self, error: &str) {
        self.state.pod_unreadable(error);
        let message = format!("burstpool cannot read this pod, and does not run it: {error}");
        self.warn(POD_NOT_READABLE, &message);
    }

    /// Queues an Event for each changed image that the running group does not get. A group that has not run yet is
    /// created again with the new images.
    pub fn warn_outdated_images(&mut self) {
        let (Some(view), GroupPresence::Exists { has_run, .. }) =
            (self.state.group_view(), &self.state.pod_state().group)
        else {
            return;
        };
        let pod = self.state.pod();
        let outdated = status::outdated_images(pod, view);
        if outdated.is_empty() || pod_plan::is_finished(pod) {
            return;
        }
        if !has_run && !pod_plan::has_run(pod) {
            self.state.replace_group();
            return;
        }
        for OutdatedContainer {
            container,
            actual_image,
            wanted_image,
        } in outdated
        {
            let message = format!(
                "container {container} runs {actual_image}; Azure Container Instances cannot change the image of one \
                 container of a running group to {wanted_image}: delete the pod, so that its controller replaces it"
            );
            self.warn(IMAGE_NOT_CHANGED, &message);
        }
    }

    /// Queues an Event about the fields of the changed spec that ACI does not support.
    fn warn_unsupported_fields(&mut self) {
        if !matches!(self.state.pod_state().group, GroupPresence::Exists { .. }) {
            return;
        }
        let context = self.context.clone();
        let settings = context.settings();
        let accepted = self.accepted_losses();
        let placement = context.translation_target(&settings, &accepted);
        let (pod, unknown) = (self.state.pod(), self.state.unknown_fields());
        if let Err(unsupported) = translate::eligible(pod, unknown, &placement) {
            let fields: Vec<String> = unsupported
                .iter()
                .map(Unsupported::without_remedy)
                .collect();
            let message = format!(
                "the container group of the running pod does not support: {}",
                fields.join("; ")
            );
            self.warn(status::UNSUPPORTED, &message);
        }
    }
}
