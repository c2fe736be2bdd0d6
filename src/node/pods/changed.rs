//! What a keeper does with a pod that was changed.
//!
//! In: the pod as it is watched. Out: an Event for each change that its container group does not get: the
//! API server lets the image of a running pod be changed, and a few other fields.

use super::keeper::{Keeper, Trouble};
use crate::aci::status::{self, Outdated};
use crate::aci::translate;
use crate::node::observed::Observed;
use crate::node::plan::{self, Group};

/// Reason of the Event about an image that was changed.
const IMAGE: &str = "ImageNotChanged";
/// Reason of the Event about a pod that cannot be read.
const UNREADABLE: &str = "PodNotReadable";

impl Keeper {
    /// The pod is like this now.
    pub fn changed(&mut self, observed: Observed) {
        if let Some(why) = observed.unreadable {
            self.pod.metadata = observed.pod.metadata;
            return self.cannot_read(&why);
        }
        if !self.is_readable {
            self.is_readable = true;
            (self.known.is_refused, self.trouble) = (false, Trouble::None);
        }
        let before = self.pod.metadata.generation;
        (self.pod, self.unknown) = (observed.pod, observed.unknown);
        self.note_changes(before);
    }

    /// Says what the group does not get of the pod's spec, if its generation is not what it was `before`.
    pub fn note_changes(&mut self, before: Option<i64>) {
        if self.pod.metadata.generation != before {
            self.note_images();
            self.note_fields();
        }
    }

    /// The placement was edited, or the tags of its pool: a pod that could not run with what they were may run
    /// now.
    pub fn settings_changed(&mut self) {
        if self.is_readable && self.known.is_refused {
            (self.known.is_refused, self.trouble) = (false, Trouble::None);
        }
    }

    /// The pod cannot be read: no group is created for it, and one that is there runs on until the pod is
    /// deleted.
    pub fn cannot_read(&mut self, why: &str) {
        self.is_readable = false;
        self.known.is_refused = true;
        self.trouble = Trouble::Refused(vec![("pod".to_owned(), why.to_owned())]);
        let message = format!("burstpool cannot read this pod, and does not run it: {why}");
        self.warn(UNREADABLE, &message);
    }

    /// Says which images the group does not get. A group that has not run is created again with them.
    pub fn note_images(&mut self) {
        let (Some(view), Group::There { ran, .. }) = (&self.view, &self.known.group) else {
            return;
        };
        let outdated = status::outdated_images(&self.pod, view);
        if outdated.is_empty() || plan::is_finished(&self.pod) {
            return;
        }
        if !ran && !plan::has_run(&self.pod) {
            self.known.is_failed = true;
            return;
        }
        for Outdated {
            container,
            has,
            wanted,
        } in outdated
        {
            let message = format!(
                "container {container} runs {has}; Azure Container Instances cannot change the image of one \
                 container of a running group to {wanted}: delete the pod, so that another one takes its place"
            );
            self.warn(IMAGE, &message);
        }
    }

    /// Says which fields were added that the group does not keep.
    fn note_fields(&mut self) {
        if !matches!(self.known.group, Group::There { .. }) {
            return;
        }
        let context = self.context.clone();
        let settings = context.settings();
        let placement = context.place(&settings);
        if let Err(refusals) = translate::eligible(&self.pod, &self.unknown, &placement) {
            let fields: Vec<String> = refusals.iter().map(ToString::to_string).collect();
            let message = format!("the running pod does not keep: {}", fields.join("; "));
            self.warn(status::UNSUPPORTED, &message);
        }
    }
}
