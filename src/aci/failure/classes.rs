//! The class of a failure, by each of what Azure names it with: a code, a status, an event.

use super::FailureClass;
use crate::aci::response::InstanceEvent;

pub(super) fn class_by_code(status: u16, code: &str, message: &str) -> Option<FailureClass> {
    let class = match code.trim_end_matches('.') {
        "TooManyRequests" | "SubscriptionRequestsThrottled" => FailureClass::Throttled,
        "ServiceUnavailable" if mentions_quota(message) => FailureClass::Quota,
        "ServiceUnavailable" if status >= 500 => FailureClass::Transient,
        "ServiceUnavailable" | "InsufficientCapacity" => FailureClass::Capacity,
        "ContainerGroupQuotaReached" => FailureClass::Quota,
        "ContainerGroupTransitioning" | "AnotherOperationInProgress" => FailureClass::Transitioning,
        "InaccessibleImage" | "RegistryErrorResponse" => FailureClass::Image,
        "ContainerGroupDeploymentNotReady"
        | "ContainerLogNotAvailable"
        | "InternalServerError"
        | "ServerTimeout"
        | "GatewayTimeout" => FailureClass::Transient,
        "ResourceNotFound" => FailureClass::NotFound,
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
        | "SubnetNotFound" => FailureClass::AzureConfig,
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
        | "ConfidentialContainerGroupSkuIsNotSupported" => FailureClass::InvalidRequest,
        _ => return None,
    };
    Some(class)
}

fn mentions_quota(message: &str) -> bool {
    message.to_ascii_lowercase().contains("quota")
}

pub(super) fn class_by_status(status: u16) -> FailureClass {
    match status {
        429 => FailureClass::Throttled,
        401 | 403 => FailureClass::AzureConfig,
        // A timeout, a conflict with the current state, or an answer that is not ARM's: a retry can succeed.
        404 | 408 | 409 | 410 | 412 | 423 => FailureClass::Transient,
        // The request has a form that Azure never accepts.
        405 | 413 | 414 | 415 => FailureClass::InvalidRequest,
        // ACI documents no list of codes, and new ones appear: only a known code may fail a pod.
        400..=499 => FailureClass::Unknown,
        _ => FailureClass::Transient,
    }
}

pub(super) fn class_by_event(event: &InstanceEvent) -> Option<FailureClass> {
    match event.reason() {
        "InsufficientCapacity" => Some(FailureClass::Capacity),
        "FailedMount" => Some(FailureClass::Mount),
        "Failed" | "BackOff" if is_image_event(event) => Some(FailureClass::Image),
        code => class_by_code(409, code, &event.message),
    }
}

/// Whether the event reports that an image cannot be pulled.
pub(in crate::aci) fn is_image_event(event: &InstanceEvent) -> bool {
    let message = event.message.to_ascii_lowercase();
    matches!(
        event.reason(),
        "Failed" | "BackOff" | "ErrImagePull" | "ImagePullBackOff"
    ) && (message.contains("pull") || message.contains("image"))
}
