//! The attempts of a pod worker that can fail, and how often each one failed.
//!
//! In: the result of each attempt. Out: the number of failures in a row, from which the back-off follows.

use crate::node::pod_plan::PodAction;

/// The attempts that can fail. Each has its own count of failures; `Create` and `Start` delay the same action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum AttemptKind {
    /// Azure accepts a PUT.
    Create,
    /// Azure starts the containers of a group that it accepted.
    Start,
    /// A GET is answered.
    Read,
    /// Azure accepts a DELETE.
    Delete,
}

/// How often each attempt failed in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FailureCounts([u32; 4]);

impl AttemptKind {
    /// The action that waits after this attempt has failed.
    pub fn action(self) -> PodAction {
        match self {
            Self::Create | Self::Start => PodAction::Create,
            Self::Read => PodAction::Refresh,
            Self::Delete => PodAction::Delete,
        }
    }
}

impl FailureCounts {
    /// How often the attempt failed in a row.
    pub fn get(self, attempt: AttemptKind) -> u32 {
        self.0[attempt as usize]
    }

    /// Counts one more failure; returns how many there were before.
    pub fn increment(&mut self, attempt: AttemptKind) -> u32 {
        let count = &mut self.0[attempt as usize];
        *count = count.saturating_add(1);
        *count - 1
    }

    /// Resets the count of failures.
    pub fn reset(&mut self, attempt: AttemptKind) {
        self.0[attempt as usize] = 0;
    }
}
