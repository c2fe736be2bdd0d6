//! User, group and privileges of a container. The pod's settings apply where the container has none.
//!
//! In: the security contexts of container and pod. Out: the security context in the group's body, or refusals.

use k8s_openapi::api::core::v1::{Capabilities, Container, PodSecurityContext, SecurityContext};

use super::body;
use super::refusals::Refusals;
use super::target::TranslationTarget;

const TOO_LARGE: &str = "ACI accepts numbers from 0 to 2147483647";

/// The security context of `container`, whose field path is `at`.
pub(super) fn security_context(
    container: &Container,
    pod: Option<&PodSecurityContext>,
    at: &str,
    placement: &TranslationTarget<'_>,
    refusals: &mut Refusals,
) -> Option<body::SecurityContext> {
    let at = format!("{at}.securityContext");
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let user = own.run_as_user.or(pod.and_then(|pod| pod.run_as_user));
    let group = own.run_as_group.or(pod.and_then(|pod| pod.run_as_group));
    let non_root = own
        .run_as_non_root
        .or(pod.and_then(|pod| pod.run_as_non_root));
    if non_root == Some(true) {
        let field = if own.run_as_non_root.is_some() {
            &at
        } else {
            "spec.securityContext"
        };
        refusals.require(
            user.is_some_and(|user| user != 0),
            format!("{field}.runAsNonRoot"),
            "it needs a runAsUser other than 0, because ACI does not check the image's user",
        );
    }
    let mut number = |name: &str, number: Option<i64>| {
        let number = number?;
        let small = i32::try_from(number).ok().filter(|number| *number >= 0);
        refusals.require(small.is_some(), format!("{at}.{name}"), TOO_LARGE);
        small
    };
    let (user, group) = (number("runAsUser", user), number("runAsGroup", group));
    let privileged = own.privileged.filter(|privileged| *privileged);
    refusals.require(
        privileged.is_none() || placement.is_confidential(),
        format!("{at}.privileged"),
        "the SKU Standard has no privileged containers",
    );
    let context = body::SecurityContext {
        privileged,
        allow_privilege_escalation: own.allow_privilege_escalation,
        capabilities: own.capabilities.as_ref().and_then(capabilities),
        run_as_user: user,
        run_as_group: group,
    };
    (context != body::SecurityContext::default()).then_some(context)
}

/// Capabilities by their kernel names, as in ACI's example (`CAP_NET_ADMIN`).
fn capabilities(own: &Capabilities) -> Option<body::Capabilities> {
    let names = |list: &Option<Vec<String>>| -> Vec<String> {
        let names = list.iter().flatten().map(|name| name.to_uppercase());
        names
            .map(|name| match name.as_str() {
                "ALL" => name,
                name if name.starts_with("CAP_") => name.to_owned(),
                name => format!("CAP_{name}"),
            })
            .collect()
    };
    let (add, drop) = (names(&own.add), names(&own.drop));
    let has_names = !add.is_empty() || !drop.is_empty();
    has_names.then_some(body::Capabilities { add, drop })
}
