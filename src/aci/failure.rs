//! Classifies Azure's errors: what they mean, and what to do about them.
//!
//! In: an answer of ARM or ACI with an error status ([`ArmError`]), or a container group that failed to start. Out:
//! a [`FailureVerdict`]: the class of the failure, whether and when to retry, and one reason word, which pod statuses,
//! node conditions and metrics share. All callers of the client decide by this module.
//!
//! The codes come from ACI's documentation, real answers, issues of public clients, and the `OpenAPI` files (2018
//! to 2026). Four decisions are not obvious:
//!
//! - Only `ResourceNotFound` means that a container group is gone. A missing resource group or subscription, or a
//!   404 without a code (from a proxy), is a configuration error: a typo in the operator's flags must not fail
//!   every running pod.
//! - A missing network is a configuration error too: it belongs to the placement, not to the pod.
//! - `ServiceUnavailable` has three meanings: 503 is an outage, 409 is missing capacity, and 409 with "quota" in
//!   its message is a quota (this also covers ACI's protection against the same name in many regions).
//! - An error with an unknown code is retried. No document lists all codes, and a new code must not fail a pod that
//!   could run elsewhere. If retries do not help, `burst::select::never_started` releases the pod in the end.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::response::{ArmErrorBody, ContainerGroup, InstanceEvent};
use super::retry_after_header::MAX_RETRY_AFTER;

mod classes;
#[cfg(test)]
mod tests;

pub(super) use classes::is_image_event;
use classes::{class_by_code, class_by_event, class_by_status};

/// How long to leave a container group alone while Azure is changing it.
const TRANSITION_RETRY_INTERVAL: Duration = Duration::from_secs(10);
/// How many characters to quote of a body that is not an ARM error.
const MAX_QUOTED_CHARS: usize = 300;

/// An answer with an error status, or no answer at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmError {
    /// The HTTP status; 0 if there was no answer.
    pub status: u16,
    /// The parsed body.
    pub body: ArmErrorBody,
    /// The value of `Retry-After`.
    pub retry_after: Option<Duration>,
}

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// Too many requests: a budget of ARM or ACI is used up.
    Throttled,
    /// The region has no free capacity at present.
    Capacity,
    /// The subscription has reached a quota.
    Quota,
    /// Azure is changing the container group; retry later.
    Transitioning,
    /// An image or its registry cannot be reached.
    Image,
    /// A volume cannot be mounted.
    Mount,
    /// The container group did not start within its provisioning timeout, and Azure gives no reason.
    ProvisioningFailed,
    /// An outage or a lost answer; it is temporary.
    Transient,
    /// The request is invalid and will fail again.
    InvalidRequest,
    /// An error with an unknown code; it may be temporary or permanent.
    Unknown,
    /// The container group does not exist.
    NotFound,
    /// The placement's credential, roles, resource provider registration or network is wrong. An administrator must
    /// fix it. It affects every pod of the placement.
    AzureConfig,
}

/// When to retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryPolicy {
    /// After this time.
    After(Duration),
    /// After a pause that doubles each time, from `first` to `limit`.
    Backoff {
        /// The first pause.
        first: Duration,
        /// The longest pause.
        limit: Duration,
    },
    /// Never: the same error would occur.
    Never,
}

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureVerdict {
    /// The class of the failure.
    pub class: FailureClass,
    /// When to retry.
    pub retry: RetryPolicy,
    /// The reason word for waiting states, conditions and metrics.
    pub reason: &'static str,
    /// Azure's own message.
    pub message: String,
}

impl ArmError {
    /// Parses the body of an answer with an error status.
    pub fn parse(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let read = json.as_ref().and_then(parse_error);
        let body = read.unwrap_or_else(|| ArmErrorBody {
            message: String::from_utf8_lossy(body)
                .chars()
                .take(MAX_QUOTED_CHARS)
                .collect(),
            ..ArmErrorBody::default()
        });
        Self {
            status,
            body,
            retry_after,
        }
    }

    /// What to do about the error.
    pub fn verdict(&self) -> FailureVerdict {
        let errors = flatten_errors(&self.body);
        let known = errors.iter().find_map(|error| {
            Some((
                class_by_code(self.status, &error.code, &error.message)?,
                error,
            ))
        });
        let (class, error) = match known {
            Some((class, error)) if self.status != 429 => (class, error),
            _ => (class_by_status(self.status), &self.body),
        };
        let message = match (error.code.is_empty(), error.message.is_empty()) {
            (false, false) => format!("{}: {}", error.code, error.message),
            (false, true) => error.code.clone(),
            (true, false) => error.message.clone(),
            (true, true) => format!("status {} without a reason", self.status),
        };
        FailureVerdict::new(class, self.retry_after, message)
    }

    /// Whether this answer to a DELETE means that there is nothing to delete. A missing resource group counts here,
    /// because everything in it is gone and the pod must be able to terminate.
    pub fn means_nothing_to_delete(&self) -> bool {
        let has_code = |code: &str| {
            flatten_errors(&self.body)
                .iter()
                .any(|error| error.code == code)
        };
        self.status == 404 && (has_code("ResourceNotFound") || has_code("ResourceGroupNotFound"))
    }
}

impl FailureVerdict {
    /// The verdict on a failure of this class, with Azure's `message`.
    pub fn new(class: FailureClass, retry_after: Option<Duration>, message: String) -> Self {
        let (reason, retry) = (class.reason(), class.retry(retry_after));
        Self {
            class,
            retry,
            reason,
            message,
        }
    }

    /// Why the container group failed to start; `None` unless its provisioning failed. Such a group must be deleted
    /// before another is created: ACI keeps trying to start it, and keeps billing it.
    pub fn from_group(group: &ContainerGroup) -> Option<Self> {
        if !group.has_failed_provisioning() {
            return None;
        }
        let properties = &group.properties;
        let containers = properties
            .init_containers
            .iter()
            .chain(&properties.containers);
        let views = containers.filter_map(|container| container.instance_view());
        let events = group
            .events()
            .iter()
            .chain(views.flat_map(|view| &view.events));
        Some(Self::from_events(events))
    }

    /// Why an operation with these events failed: the newest event with a known reason decides.
    pub fn from_events<'a>(events: impl IntoIterator<Item = &'a InstanceEvent>) -> Self {
        let known = events
            .into_iter()
            .filter_map(|event| Some((class_by_event(event)?, event)))
            .max_by_key(|(_, event)| event.last_seen());
        match known {
            Some((class, event)) => Self::new(class, None, event.message.clone()),
            None => Self::new(
                FailureClass::ProvisioningFailed,
                None,
                "the group's provisioning failed".to_owned(),
            ),
        }
    }
}

impl FailureClass {
    /// The reason word for waiting states, conditions and metrics. It is the kubelet's word where one exists,
    /// because tools know these words: Argo CD shows a pod as degraded if the reason ends in `Error` or `BackOff`
    /// or begins with `Err`, and as progressing otherwise.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Throttled => "Throttled",
            Self::Capacity => "InsufficientCapacity",
            Self::Quota => "QuotaExceeded",
            Self::Transitioning => "Transitioning",
            Self::Image => "ErrImagePull",
            Self::Mount => "FailedMount",
            Self::ProvisioningFailed => "ProvisioningFailed",
            Self::Transient => "AzureUnavailable",
            Self::InvalidRequest => "CreateContainerError",
            Self::Unknown => "CreateRejected",
            Self::NotFound => "NotFound",
            Self::AzureConfig => "AzureConfigError",
        }
    }

    /// The class with this reason word, if there is one.
    pub fn from_reason(reason: &str) -> Option<Self> {
        let classes = [
            Self::Throttled,
            Self::Capacity,
            Self::Quota,
            Self::Transitioning,
            Self::Image,
            Self::Mount,
            Self::ProvisioningFailed,
            Self::Transient,
            Self::InvalidRequest,
            Self::Unknown,
            Self::NotFound,
            Self::AzureConfig,
        ];
        classes.into_iter().find(|class| class.reason() == reason)
    }

    /// Whether the cause lies with Azure or the placement, so that the pod may start sooner elsewhere. False for
    /// failures that only a change of the pod, its image or its volumes resolves, and for a group in transition.
    pub fn may_run_elsewhere(self) -> bool {
        match self {
            Self::Throttled
            | Self::Capacity
            | Self::Quota
            | Self::ProvisioningFailed
            | Self::Transient
            | Self::Unknown
            | Self::AzureConfig => true,
            Self::Transitioning
            | Self::Image
            | Self::Mount
            | Self::InvalidRequest
            | Self::NotFound => false,
        }
    }

    /// When to retry, given the value of `Retry-After`. Source of the numbers: ACI allows 100 creates in 5 minutes
    /// and 300 in an hour, so failures that may last begin at a pause of 15 to 30 seconds; the kubelet's back-off
    /// for image pulls also ends at 5 minutes.
    fn retry(self, retry_after: Option<Duration>) -> RetryPolicy {
        let seconds = Duration::from_secs;
        let (first, limit) = match self {
            Self::InvalidRequest | Self::NotFound => return RetryPolicy::Never,
            Self::Transitioning => {
                return RetryPolicy::After(capped(
                    retry_after
                        .unwrap_or_default()
                        .max(TRANSITION_RETRY_INTERVAL),
                ));
            }
            Self::Transient => (seconds(1), seconds(60)),
            Self::Throttled => (seconds(5), seconds(300)),
            Self::AzureConfig | Self::Unknown => (seconds(15), seconds(300)),
            Self::Image | Self::Mount => (seconds(30), seconds(300)),
            Self::Capacity | Self::Quota | Self::ProvisioningFailed => (seconds(30), seconds(600)),
        };
        // A `Retry-After` of a proxy or of ACI can be shorter than a lasting failure needs.
        let min_wait = match self {
            Self::Throttled | Self::Transient => seconds(1),
            _ => first,
        };
        match retry_after {
            Some(wait) => RetryPolicy::After(capped(wait.max(min_wait))),
            None => RetryPolicy::Backoff { first, limit },
        }
    }
}

fn capped(wait: Duration) -> Duration {
    wait.min(MAX_RETRY_AFTER)
}

/// The error in a body: `{"error": {...}}`, or the object itself.
fn parse_error(body: &Value) -> Option<ArmErrorBody> {
    let error = body
        .get("error")
        .filter(|error| error.is_object())
        .unwrap_or(body);
    let error = ArmErrorBody::deserialize(error).ok()?;
    (!error.code.is_empty() || !error.message.is_empty()).then_some(error)
}

/// The error and all errors that it wraps, outermost first. A deployment wraps ACI's errors in `details`, and
/// sometimes as JSON in a message.
fn flatten_errors(error: &ArmErrorBody) -> Vec<ArmErrorBody> {
    let mut errors = vec![error.clone()];
    let mut next = 0;
    while let Some(error) = errors.get(next) {
        let mut inner = error.details.clone();
        if error.message.trim_start().starts_with('{') {
            let quoted: Option<Value> = serde_json::from_str(&error.message).ok();
            inner.extend(quoted.as_ref().and_then(parse_error));
        }
        errors.extend(inner);
        next += 1;
    }
    errors
}
