//! Tests: every known error code, and answers that resemble one.

use serde_json::json;

use super::FailureClass::{
    AzureConfig, Capacity, Image, InvalidRequest, NotFound, Quota, Throttled, Transient,
    Transitioning, Unknown,
};
use super::*;

fn error(status: u16, code: &str, message: &str) -> ArmError {
    let body = json!({"error": {"code": code, "message": message}}).to_string();
    ArmError::parse(status, body.as_bytes(), None)
}

const NO_CAPACITY: &str =
    "The requested resource is not available in the location 'uksouth' at this moment.";
const NO_QUOTA: &str = "Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota 'ContainerGroups' \
     exceeded in region 'westus'. Limit: '0', Usage: '0' Requested: '1'.";

/// Status, code, message and class.
const CASES: &[(u16, &str, &str, FailureClass)] = &[
    // temporary
    (409, "ContainerGroupTransitioning", "", Transitioning),
    (409, "AnotherOperationInProgress", "", Transitioning),
    (409, "Conflict", "", Transient),
    (409, "ContainerGroupDeploymentNotReady", "", Transient),
    (404, "ContainerLogNotAvailable", "", Transient),
    (500, "InternalServerError", "", Transient),
    (503, "ServiceUnavailable", "", Transient),
    (503, "ServerTimeout", "", Transient),
    (504, "GatewayTimeout", "", Transient),
    (502, "", "", Transient),
    (408, "", "", Transient),
    (0, "", "connection refused", Transient),
    // capacity and quota
    (409, "ServiceUnavailable", NO_CAPACITY, Capacity),
    (409, "InsufficientCapacity.", NO_CAPACITY, Capacity),
    (409, "ServiceUnavailable", NO_QUOTA, Quota),
    (400, "ContainerGroupQuotaReached", NO_QUOTA, Quota),
    (429, "TooManyRequests", "", Throttled),
    (429, "SubscriptionRequestsThrottled", "", Throttled),
    (429, "ResourceNotFound", "whatever its body says", Throttled),
    (429, "", "", Throttled),
    // images
    (400, "InaccessibleImage", "", Image),
    (409, "RegistryErrorResponse", "", Image),
    // configuration
    (401, "InvalidAuthenticationToken", "", AzureConfig),
    (401, "AuthenticationFailed", "", AzureConfig),
    (403, "AuthorizationFailed", "", AzureConfig),
    (403, "LinkedAuthorizationFailed", "", AzureConfig),
    (403, "RequestDisallowedByPolicy", "", AzureConfig),
    (403, "", "", AzureConfig),
    (404, "ResourceGroupNotFound", "", AzureConfig),
    (404, "SubscriptionNotFound", "", AzureConfig),
    (409, "MissingSubscriptionRegistration", "", AzureConfig),
    (404, "NoRegisteredProviderFound", "", AzureConfig),
    (400, "InvalidApiVersionParameter", "", AzureConfig),
    (400, "VirtualNetworkNotFound", "", AzureConfig),
    (400, "SubnetNotFound", "", AzureConfig),
    (409, "ScopeLocked", "", AzureConfig),
    (400, "LocationNotAvailableForResourceType", "", AzureConfig),
    // gone, or only similar to it
    (404, "ResourceNotFound", "", NotFound),
    (404, "", "", Transient),
    (404, "SomethingElse", "", Transient),
    // invalid requests
    (400, "OsVersionNotSupported", "", InvalidRequest),
    (400, "InvalidOsType", "", InvalidRequest),
    (400, "InvalidContainerGroupName", "", InvalidRequest),
    (400, "InvalidImageRegistryIdentity", "", InvalidRequest),
    (
        400,
        "ContainerLimitGreaterThanContainerGroupTotalRequest",
        "",
        InvalidRequest,
    ),
    (400, "PriorityNotSpecified", "", InvalidRequest),
    (
        400,
        "SpotPriorityContainerGroupNotSupportedForInboundConnectivity",
        "",
        InvalidRequest,
    ),
    (
        400,
        "SpotPriorityContainerGroupNotSupportedInSku",
        "",
        InvalidRequest,
    ),
    (
        400,
        "SpotPriorityContainerGroupWithGPUResourcesNotSupported",
        "",
        InvalidRequest,
    ),
    (
        400,
        "ConfidentialContainerGroupSkuIsNotSupported",
        "",
        InvalidRequest,
    ),
    (400, "DuplicateVolumes", "", InvalidRequest),
    (400, "InvalidRequestContent", "", InvalidRequest),
    (400, "", "", Unknown),
    (400, "NobodyHasSeenThisBefore", "", Unknown),
    (422, "NobodyHasSeenThisBefore", "", Unknown),
    (405, "MethodNotAllowed", "", InvalidRequest),
    (413, "RequestContentTooLarge", "", InvalidRequest),
];

#[test]
fn every_code_has_its_class() {
    for &(status, code, message, class) in CASES {
        let verdict = error(status, code, message).verdict();
        assert_eq!(verdict.class, class, "{status} {code} {message}");
        assert_eq!(verdict.reason, class.reason());
        let never = matches!(class, InvalidRequest | NotFound);
        assert_eq!(
            verdict.retry == RetryPolicy::Never,
            never,
            "{status} {code}"
        );
    }
}

#[test]
fn a_reason_is_one_word_and_lasting_failures_are_retried_every_half_minute_at_most() {
    use FailureClass::{
        AzureConfig, Capacity, Image, InvalidRequest, Mount, NotFound, ProvisioningFailed, Quota,
        Throttled, Transient, Transitioning, Unknown,
    };
    let all = [
        Throttled,
        Capacity,
        Quota,
        Transitioning,
        Image,
        Mount,
        ProvisioningFailed,
        Transient,
        InvalidRequest,
        Unknown,
        NotFound,
        AzureConfig,
    ];
    let mut reasons: Vec<_> = all.iter().map(|class| class.reason()).collect();
    assert!(
        reasons
            .iter()
            .all(|word| word.bytes().all(|letter| letter.is_ascii_alphabetic()))
    );
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), all.len());
    for class in [Capacity, Quota, Image, Mount, ProvisioningFailed] {
        let RetryPolicy::Backoff { first, limit } = class.retry(None) else {
            unreachable!("{class:?} backs off")
        };
        assert!(first >= Duration::from_secs(30) && limit > first);
    }
}

#[test]
fn retry_after_is_honoured_within_reason() {
    let after = |status, code: &str, seconds| {
        let mut error = error(status, code, "");
        error.retry_after = Some(Duration::from_secs(seconds));
        error.verdict().retry
    };
    let wait = |seconds| RetryPolicy::After(Duration::from_secs(seconds));
    assert_eq!(after(429, "TooManyRequests", 17), wait(17));
    assert_eq!(after(429, "TooManyRequests", 0), wait(1));
    assert_eq!(after(503, "", 7), wait(7));
    assert_eq!(after(429, "TooManyRequests", 1_000_000), wait(3600));
    assert_eq!(after(409, "InsufficientCapacity", 0), wait(30));
    assert_eq!(after(409, "InsufficientCapacity", 60), wait(60));
    assert_eq!(after(409, "ContainerGroupTransitioning", 1), wait(10));
    assert_eq!(after(409, "ContainerGroupTransitioning", 20), wait(20));
    assert_eq!(after(400, "InvalidOsType", 20), RetryPolicy::Never);
    assert_eq!(
        error(409, "ContainerGroupTransitioning", "")
            .verdict()
            .retry,
        wait(10)
    );
}

#[test]
fn a_wrapped_error_is_found() {
    let inner = json!({"code": "InaccessibleImage", "message": "The image 'x' is not accessible."});
    let quoted = json!({"error": inner.clone()}).to_string();
    let bodies = [
        json!({"error": {"code": "DeploymentFailed", "message": "see details", "details": [inner.clone()]}}),
        json!({"error": {"code": "DeploymentFailed", "details": [
            "broken", {"code": "BadRequest", "message": "x", "details": [inner.clone()]}]}}),
        json!({"error": {"code": "DeploymentFailed", "details": [{"code": "BadRequest", "message": quoted}]}}),
        json!({"error": {"code": "DeploymentFailed", "message": quoted}}),
        inner,
    ];
    for body in bodies {
        let verdict = ArmError::parse(400, body.to_string().as_bytes(), None).verdict();
        assert_eq!(verdict.class, FailureClass::Image, "{body}");
        assert_eq!(
            verdict.message,
            "InaccessibleImage: The image 'x' is not accessible."
        );
    }
}

#[test]
fn a_body_that_is_not_an_error_of_arm_is_quoted() {
    let page = "<html>504 Gateway</html>".repeat(100);
    let verdict = ArmError::parse(404, page.as_bytes(), None).verdict();
    assert_eq!(verdict.class, FailureClass::Transient);
    assert!(verdict.message.starts_with("<html>") && verdict.message.chars().count() == 300);
    let verdict = ArmError::parse(502, b"", None).verdict();
    assert_eq!(verdict.message, "status 502 without a reason");
    let odd = ArmError::parse(400, br#"{"error": "text"}"#, None).verdict();
    assert_eq!(
        (odd.class, odd.message.as_str()),
        (FailureClass::Unknown, r#"{"error": "text"}"#)
    );
}

#[test]
fn a_delete_of_a_group_or_resource_group_that_is_gone_succeeds() {
    assert!(error(404, "ResourceNotFound", "").means_nothing_to_delete());
    assert!(error(404, "ResourceGroupNotFound", "").means_nothing_to_delete());
    assert!(!error(404, "", "").means_nothing_to_delete());
    assert!(!error(403, "ResourceNotFound", "").means_nothing_to_delete());
}

fn failed_group(events: &Value) -> ContainerGroup {
    let body = json!({"name": "a", "properties": {
        "provisioningState": "Failed", "instanceView": {"state": "Pending", "events": events}}});
    ContainerGroup::from_value(&body).expect("a group")
}

#[test]
fn a_group_that_failed_to_start_has_a_reason() {
    let at = |second: u32| format!("2025-04-02T16:09:{second:02}Z");
    let event = |name: &str, message: &str, second: u32| json!({"name": name, "message": message, "firstTimestamp": at(second), "lastTimestamp": at(second)});
    let pull = "Failed to pull image \"x\": not found";
    let cases = [
        (
            json!([event("InsufficientCapacity.", "no room", 11)]),
            FailureClass::Capacity,
            "no room",
        ),
        (
            json!([event("FailedMount", "mount error(2)", 1)]),
            FailureClass::Mount,
            "mount error(2)",
        ),
        (json!([event("Failed", pull, 1)]), FailureClass::Image, pull),
        (
            json!([
                event("FailedMount", "old", 1),
                event("InsufficientCapacity.", "new", 2)
            ]),
            FailureClass::Capacity,
            "new",
        ),
        (
            json!([event("Pulled", "fine", 1)]),
            FailureClass::ProvisioningFailed,
            "the group's provisioning failed",
        ),
        (
            json!([]),
            FailureClass::ProvisioningFailed,
            "the group's provisioning failed",
        ),
    ];
    for (events, class, message) in cases {
        let verdict = FailureVerdict::from_group(&failed_group(&events)).expect("it failed");
        assert_eq!(
            (verdict.class, verdict.message.as_str()),
            (class, message),
            "{events}"
        );
    }
    let mut running = failed_group(&json!([]));
    running.properties.provisioning_state = None;
    assert_eq!(FailureVerdict::from_group(&running), None);
}
