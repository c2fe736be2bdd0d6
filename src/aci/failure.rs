//! What Azure's refusals mean, and what to do about them.
//!
//! In: an answer of ARM or the service that is no success ([`ArmError`]), or a group that could not be
//! started. Out: a [`Verdict`]: what kind of trouble it is, whether and when to try again, and the one
//! word under which a pod's status, a node's condition and a metric show it. Called by the client's
//! callers; decides for all of them in this one place.
//!
//! The codes are those of the service's documentation, of real answers, of issues in public clients,
//! and of the `OpenAPI` files (2018 to 2026). Four decisions are not obvious:
//!
//! - Only `ResourceNotFound` says that a group is gone. A resource group or subscription that is not
//!   found, or a 404 without a code (a proxy's), is trouble of the set-up: a slip in the operator's
//!   flags must not fail every running pod.
//! - A network that is not found is trouble of the set-up too: it is the placement's, not the pod's.
//! - `ServiceUnavailable` has three meanings: 503 is an outage, 409 is missing capacity, and 409 with
//!   a quota in its words is a quota (also the service's guard against one name in many regions).
//! - A refusal whose code is not known is tried again: no document lists the codes, and one that is new must
//!   not end a pod for which there is room elsewhere. `burst::rescue` gives such a pod back in the end.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::view::{ErrorBody, Event, Group};

#[cfg(test)]
mod tests;

/// The longest that a `Retry-After` is believed: the longest budget's window is an hour.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// A group in transition wants to be left alone this long.
const TRANSITION: Duration = Duration::from_secs(10);
/// How much of a body that is no error of ARM's is quoted.
const QUOTED: usize = 300;

/// An answer that is no success, or none at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ArmError {
    /// The HTTP status; 0 where there was no answer.
    pub status: u16,
    /// What the body says.
    pub body: ErrorBody,
    /// What `Retry-After` asks for.
    pub retry_after: Option<Duration>,
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Too many calls: a budget of ARM or of the service is spent.
    Throttled,
    /// The region has no room now.
    Capacity,
    /// The subscription may not have more.
    Quota,
    /// The group is being changed: later.
    Transitioning,
    /// An image or its registry cannot be reached.
    Image,
    /// A volume cannot be mounted.
    Mount,
    /// The group could not be started in its provisioning timeout, for a reason that is not said.
    Stuck,
    /// An outage, a lost answer: it passes.
    Transient,
    /// What was asked for is wrong, and will be the next time.
    Permanent,
    /// A refusal that nothing is known about: it may pass, or not.
    Unknown,
    /// The group is not there.
    Gone,
    /// Credential, roles, registration or network of the placement: an administrator's to mend. It
    /// concerns every pod of the placement.
    Config,
}

/// When to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After this time.
    After(Duration),
    /// After a time that doubles from `first` to `limit`.
    Backoff {
        /// The first pause.
        first: Duration,
        /// The longest pause.
        limit: Duration,
    },
    /// Not at all: the same would happen.
    Never,
}

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What kind of trouble it is.
    pub class: Class,
    /// When to try again.
    pub retry: Retry,
    /// The word for waiting states, conditions and metrics.
    pub reason: &'static str,
    /// The service's own words.
    pub message: String,
}

impl ArmError {
    /// Reads the body of an answer with a status that is no success.
    pub fn read(status: u16, body: &[u8], retry_after: Option<Duration>) -> Self {
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let read = json.as_ref().and_then(error_in);
        let body = read.unwrap_or_else(|| ErrorBody {
            message: String::from_utf8_lossy(body).chars().take(QUOTED).collect(),
            ..ErrorBody::default()
        });
        Self {
            status,
            body,
            retry_after,
        }
    }

    /// What to do about it.
    pub fn verdict(&self) -> Verdict {
        let errors = unwrapped(&self.body);
        let known = errors
            .iter()
            .find_map(|error| Some((by_code(self.status, &error.code, &error.message)?, error)));
        let (class, error) = match known {
            Some((class, error)) if self.status != 429 => (class, error),
            _ => (by_status(self.status), &self.body),
        };
        let message = match (error.code.is_empty(), error.message.is_empty()) {
            (false, false) => format!("{}: {}", error.code, error.message),
            (false, true) => error.code.clone(),
            (true, false) => error.message.clone(),
            (true, true) => format!("status {} without a reason", self.status),
        };
        Verdict::new(class, self.retry_after, message)
    }

    /// Whether it says to a DELETE that there is nothing to delete. Here a resource group that is not
    /// found counts: what was in it is gone, and a pod must be able to end.
    pub fn means_nothing_to_delete(&self) -> bool {
        let is = |code: &str| unwrapped(&self.body).iter().any(|error| error.code == code);
        self.status == 404 && (is("ResourceNotFound") || is("ResourceGroupNotFound"))
    }
}

impl Verdict {
    /// The verdict on trouble of this class, of which the service says `message`.
    pub fn new(class: Class, retry_after: Option<Duration>, message: String) -> Self {
        let (reason, retry) = (class.reason(), class.retry(retry_after));
        Self {
            class,
            retry,
            reason,
            message,
        }
    }

    /// Why a group could not be started; nothing unless its provisioning failed. Such a group must be
    /// deleted before another is made: the service goes on trying, and billing.
    pub fn of_group(group: &Group) -> Option<Self> {
        if !group.has_failed_provisioning() {
            return None;
        }
        let properties = &group.properties;
        let containers = properties
            .init_containers
            .iter()
            .chain(&properties.containers);
        let views = containers.filter_map(|container| container.view());
        let events = group
            .events()
            .iter()
            .chain(views.flat_map(|view| &view.events));
        Some(Self::of_events(events))
    }

    /// Why an operation failed of which these events are told.
    pub fn of_events<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let known = events
            .into_iter()
            .filter_map(|event| Some((by_event(event)?, event)))
            .max_by_key(|(_, event)| event.at());
        match known {
            Some((class, event)) => Self::new(class, None, event.message.clone()),
            None => Self::new(
                Class::Stuck,
                None,
                "the group's provisioning failed".to_owned(),
            ),
        }
    }
}

impl Class {
    /// The word for waiting states, conditions and metrics. Words of a kubelet where it has one, since
    /// tools know them: Argo CD calls a pod degraded whose reason ends in `Error` or `BackOff` or begins with
    /// `Err`, and progressing otherwise.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Throttled => "Throttled",
            Self::Capacity => "InsufficientCapacity",
            Self::Quota => "QuotaExceeded",
            Self::Transitioning => "Transitioning",
            Self::Image => "ErrImagePull",
            Self::Mount => "FailedMount",
            Self::Stuck => "ProvisioningFailed",
            Self::Transient => "AzureUnavailable",
            Self::Permanent => "CreateContainerError",
            Self::Unknown => "CreateRejected",
            Self::Gone => "NotFound",
            Self::Config => "AzureConfigError",
        }
    }

    /// The class that shows under this word, if any does.
    pub fn of_reason(reason: &str) -> Option<Self> {
        let all = [
            Self::Throttled,
            Self::Capacity,
            Self::Quota,
            Self::Transitioning,
            Self::Image,
            Self::Mount,
            Self::Stuck,
            Self::Transient,
            Self::Permanent,
            Self::Unknown,
            Self::Gone,
            Self::Config,
        ];
        all.into_iter().find(|class| class.reason() == reason)
    }

    /// Whether Azure lets a create wait, so that the pod may be better off elsewhere; a change of the pod,
    /// its image or its volumes is not what it waits for.
    pub fn is_azures(self) -> bool {
        match self {
            Self::Throttled
            | Self::Capacity
            | Self::Quota
            | Self::Stuck
            | Self::Transient
            | Self::Unknown
            | Self::Config => true,
            Self::Transitioning | Self::Image | Self::Mount | Self::Permanent | Self::Gone => false,
        }
    }

    /// When to try again, given what `Retry-After` asks for. Numbers: ACI gives 100 creates in 5
    /// minutes and 300 in an hour, so nothing that may last is tried faster than every half minute; a
    /// kubelet's pull back-off also ends at 5 minutes.
    fn retry(self, retry_after: Option<Duration>) -> Retry {
        let seconds = Duration::from_secs;
        let (first, limit) = match self {
            Self::Permanent | Self::Gone => return Retry::Never,
            Self::Transitioning => {
                return Retry::After(believed(retry_after.unwrap_or_default().max(TRANSITION)));
            }
            Self::Transient => (seconds(1), seconds(60)),
            Self::Throttled => (seconds(5), seconds(300)),
            Self::Config | Self::Unknown => (seconds(15), seconds(300)),
            Self::Image | Self::Mount => (seconds(30), seconds(300)),
            Self::Capacity | Self::Quota | Self::Stuck => (seconds(30), seconds(600)),
        };
        // What may last is not over in the moment that a proxy, or the service, asks to wait.
        let least = match self {
            Self::Throttled | Self::Transient => seconds(1),
            _ => first,
        };
        match retry_after {
            Some(asked) => Retry::After(believed(asked.max(least))),
            None => Retry::Backoff { first, limit },
        }
    }
}

fn believed(wait: Duration) -> Duration {
    wait.min(LONGEST_WAIT)
}

/// The error in a body: `{"error": {...}}`, or the object itself.
fn error_in(body: &Value) -> Option<ErrorBody> {
    let error = body
        .get("error")
        .filter(|error| error.is_object())
        .unwrap_or(body);
    let error = ErrorBody::deserialize(error).ok()?;
    (!error.code.is_empty() || !error.message.is_empty()).then_some(error)
}

/// An error and all that it wraps, outermost first. A deployment wraps the service's errors in
/// `details`, and sometimes as JSON in a message.
fn unwrapped(error: &ErrorBody) -> Vec<ErrorBody> {
    let mut all = vec![error.clone()];
    let mut next = 0;
    while let Some(error) = all.get(next) {
        let mut inner = error.details.clone();
        if error.message.trim_start().starts_with('{') {
            let quoted: Option<Value> = serde_json::from_str(&error.message).ok();
            inner.extend(quoted.as_ref().and_then(error_in));
        }
        all.extend(inner);
        next += 1;
    }
    all
}

fn by_code(status: u16, code: &str, message: &str) -> Option<Class> {
    let class = match code.trim_end_matches('.') {
        "TooManyRequests" | "SubscriptionRequestsThrottled" => Class::Throttled,
        "ServiceUnavailable" if says_quota(message) => Class::Quota,
        "ServiceUnavailable" if status >= 500 => Class::Transient,
        "ServiceUnavailable" | "InsufficientCapacity" => Class::Capacity,
        "ContainerGroupQuotaReached" => Class::Quota,
        "ContainerGroupTransitioning" | "AnotherOperationInProgress" => Class::Transitioning,
        "InaccessibleImage" | "RegistryErrorResponse" => Class::Image,
        "ContainerGroupDeploymentNotReady"
        | "ContainerLogNotAvailable"
        | "InternalServerError"
        | "ServerTimeout"
        | "GatewayTimeout" => Class::Transient,
        "ResourceNotFound" => Class::Gone,
        "AuthorizationFailed"
        | "LinkedAuthorizationFailed"
        | "AuthenticationFailed"
        | "MissingSubscriptionRegistration"
        | "NoRegisteredProviderFound"
        | "SubscriptionNotFound"
        | "ResourceGroupNotFound"
        | "InvalidApiVersionParameter"
        | "LocationNotAvailableForResourceType"
        | "RequestDisallowedByPolicy"
        | "ScopeLocked"
        | "VirtualNetworkNotFound"
        | "SubnetNotFound" => Class::Config,
        "OsVersionNotSupported"
        | "InvalidOsType"
        | "InvalidContainerGroupName"
        | "InvalidImageRegistryIdentity"
        | "ContainerLimitGreaterThanContainerGroupTotalRequest"
        | "PriorityNotSpecified"
        | "DuplicateVolumes"
        | "VolumesNotFound"
        | "InvalidVolumeMountPath"
        | "InvalidRequestContent"
        | "ResourceSomeRequestsNotSpecified"
        | "SpotPriorityContainerGroupNotSupportedForInboundConnectivity"
        | "SpotPriorityContainerGroupNotSupportedInSku"
        | "SpotPriorityContainerGroupWithGPUResourcesNotSupported"
        | "ConfidentialContainerGroupSkuIsNotSupported" => Class::Permanent,
        _ => return None,
    };
    Some(class)
}

fn says_quota(message: &str) -> bool {
    message.to_ascii_lowercase().contains("quota")
}

fn by_status(status: u16) -> Class {
    match status {
        429 => Class::Throttled,
        401 | 403 => Class::Config,
        // A request that came too late, was refused for the state of things, or met something that is
        // not ARM: nothing says that the same would happen again.
        404 | 408 | 409 | 410 | 412 | 423 => Class::Transient,
        // What was asked for can be asked for in no way.
        405 | 413 | 414 | 415 => Class::Permanent,
        // ACI's documents list no codes, and new ones appear: that a pod is wrong takes a code that says so.
        400..=499 => Class::Unknown,
        _ => Class::Transient,
    }
}

fn by_event(event: &Event) -> Option<Class> {
    match event.word() {
        "InsufficientCapacity" => Some(Class::Capacity),
        "FailedMount" => Some(Class::Mount),
        "Failed" | "BackOff" if is_about_an_image(event) => Some(Class::Image),
        code => by_code(409, code, &event.message),
    }
}

/// Whether an event tells of an image that cannot be pulled.
pub(super) fn is_about_an_image(event: &Event) -> bool {
    let words = event.message.to_ascii_lowercase();
    matches!(
        event.word(),
        "Failed" | "BackOff" | "ErrImagePull" | "ImagePullBackOff"
    ) && (words.contains("pull") || words.contains("image"))
}
