//! When a pod's image is read again after a failure, and how the pod's status says so.
//!
//! In: failures and the time. Out: when to try again, and the reason and message of the container's waiting
//! state. Pure. The rules are the kubelet's (`pkg/kubelet/images` and `flowcontrol.Backoff` of Kubernetes 1.37):
//! for each pod and image, the first attempt after a failure is 10 s later, each further failure doubles the
//! time, up to 5 minutes, and 10 minutes after the time of the next attempt the count begins again. A registry that
//! asks for a longer wait gets it, up to 10 minutes.

use std::time::Duration;

use jiff::Timestamp;

use super::error::{ImageReadError, MAX_WAIT};
use crate::k8s::backoff::doubled;
use crate::k8s::time::later;

/// The first wait (`imageBackOffPeriod` of the kubelet).
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait that failures alone cause (`MaxImageBackOff` of the kubelet).
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// The reason of a container whose image's name cannot be parsed.
pub const INVALID_IMAGE_NAME: &str = "InvalidImageName";
/// The reason of a container just after a failure.
pub const ERR_IMAGE_PULL: &str = "ErrImagePull";
/// The reason of a container that waits for the next attempt.
pub const IMAGE_PULL_BACK_OFF: &str = "ImagePullBackOff";

/// The failures of one pod to read one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagePullBackoff {
    /// How many failures in a row came before the last one.
    failures: u32,
    retry_at: Timestamp,
    failure: String,
}

/// The waiting state of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageWaiting {
    /// The reason, in CamelCase.
    pub reason: &'static str,
    /// The message.
    pub message: String,
}

impl ImagePullBackoff {
    /// The state after an attempt failed at `now`. `previous` is the state before that attempt.
    pub fn after(previous: Option<&Self>, error: &ImageReadError, now: Timestamp) -> Self {
        let recent = previous.filter(|previous| now <= later(previous.retry_at, 2 * MAX_BACKOFF));
        let failures = recent.map_or(0, |previous| previous.failures.saturating_add(1));
        let delay = doubled(FIRST, failures, MAX_BACKOFF);
        let requested = error.requested_wait().unwrap_or_default().min(MAX_WAIT);
        Self {
            failures,
            retry_at: later(now, delay.max(requested)),
            failure: error.to_string(),
        }
    }

    /// The time of the next attempt.
    pub fn retry_at(&self) -> Timestamp {
        self.retry_at
    }

    /// The waiting state of the container: after the first failure, and after later ones. A kubelet shows
    /// `ErrImagePull` for a moment after each failure; here the state changes less often, because each change is a
    /// write.
    pub fn waiting_state(&self, image: &str) -> ImageWaiting {
        if self.failures == 0 {
            self.failed()
        } else {
            self.waiting(image)
        }
    }

    /// The waiting state right after the failure.
    fn failed(&self) -> ImageWaiting {
        ImageWaiting {
            reason: ERR_IMAGE_PULL,
            message: self.failure.clone(),
        }
    }

    /// The waiting state until the next attempt. `image` is the pod's own field.
    fn waiting(&self, image: &str) -> ImageWaiting {
        ImageWaiting {
            reason: IMAGE_PULL_BACK_OFF,
            message: format!(
                "Back-off pulling image \"{image}\": {ERR_IMAGE_PULL}: {}",
                self.failure
            ),
        }
    }

    /// The message of the Event `Failed` that reports the failure.
    pub fn event(&self, image: &str) -> String {
        format!("Failed to pull image \"{image}\": {}", self.failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn not_found() -> ImageReadError {
        ImageReadError::NotFound {
            image: "docker.io/library/nginx:1".to_owned(),
        }
    }

    fn throttled(seconds: u64) -> ImageReadError {
        let wait = Duration::from_secs(seconds);
        ImageReadError::Throttled {
            registry: "a.io".to_owned(),
            wait,
        }
    }

    #[test]
    fn waits_double_from_10_seconds_to_5_minutes() {
        let (mut now, mut state) = (1_000, None);
        for wait in [10, 20, 40, 80, 160, 300, 300] {
            let next = ImagePullBackoff::after(state.as_ref(), &not_found(), at(now));
            assert_eq!(next.retry_at(), at(now + wait));
            now += wait;
            state = Some(next);
        }
    }

    #[test]
    fn after_10_minutes_without_a_failure_waits_begin_again() {
        let first = ImagePullBackoff::after(None, &not_found(), at(0));
        let wait = |now| ImagePullBackoff::after(Some(&first), &not_found(), at(now)).retry_at();
        assert_eq!(wait(610), at(630));
        assert_eq!(wait(611), at(621));
        // The wait that a registry asks for is not such a time.
        let first = ImagePullBackoff::after(None, &throttled(600), at(0));
        let next = ImagePullBackoff::after(Some(&first), &not_found(), at(620));
        assert_eq!(next.retry_at(), at(640));
    }

    #[test]
    fn a_registry_can_ask_for_a_longer_wait_but_not_for_any() {
        let wait = |seconds| ImagePullBackoff::after(None, &throttled(seconds), at(0)).retry_at();
        assert_eq!(
            (wait(3), wait(45), wait(6 * 3600)),
            (at(10), at(45), at(600))
        );
        assert_eq!(wait(u64::MAX), at(600));
    }

    #[test]
    fn the_status_has_the_kubelets_words() {
        let state = ImagePullBackoff::after(None, &not_found(), at(0));
        let again = ImagePullBackoff::after(Some(&state), &not_found(), at(10));
        let (failed, waiting) = (
            state.waiting_state("nginx:1"),
            again.waiting_state("nginx:1"),
        );
        assert_eq!(
            (failed.reason, failed.message.as_str()),
            ("ErrImagePull", "docker.io/library/nginx:1: not found")
        );
        assert_eq!(waiting.reason, "ImagePullBackOff");
        assert_eq!(
            waiting.message,
            r#"Back-off pulling image "nginx:1": ErrImagePull: docker.io/library/nginx:1: not found"#
        );
        assert_eq!(
            state.event("nginx:1"),
            r#"Failed to pull image "nginx:1": docker.io/library/nginx:1: not found"#
        );
    }
}
