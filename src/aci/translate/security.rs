//! User, group and privileges of a container. The pod's settings apply where the container has none.
//!
//! In: the security contexts of container and pod. Out: the security context in the group's body, or refusals.

use k8s_openapi::api::core::v1::{Capabilities, Container, SecurityContext};

use super::body;
use super::pod::TranslationContext;
use super::refusals::Refusals;
use super::resolved_references::KnownImage;
use crate::aci::image::{ImageUser, verify_run_as_non_root};

const TOO_LARGE: &str = "ACI accepts numbers from 0 to 2147483647";

/// The capabilities of a container that adds and drops none: the 14 of containerd (`pkg/oci/spec.go`) and Docker.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// The security context of `container`, whose field path is `at`.
pub(super) fn security_context(
    container: &Container,
    at: &str,
    context: &TranslationContext<'_>,
    known: KnownImage<'_>,
    refusals: &mut Refusals,
) -> Option<body::SecurityContext> {
    let at = format!("{at}.securityContext");
    let (none, pod) = (
        SecurityContext::default(),
        context.spec.security_context.as_ref(),
    );
    let own = container.security_context.as_ref().unwrap_or(&none);
    let image = image_user(container, &at, context, known, refusals);
    let user = own.run_as_user.or(pod.and_then(|pod| pod.run_as_user));
    let user = user.or(image.map(|image| i64::from(image.user)));
    let group = own.run_as_group.or(pod.and_then(|pod| pod.run_as_group));
    let group = group.or(image.and_then(|image| image.group.map(i64::from)));
    let mut number = |name: &str, number: Option<i64>| {
        let number = number?;
        let small = i32::try_from(number).ok().filter(|number| *number >= 0);
        refusals.require(small.is_some(), format!("{at}.{name}"), TOO_LARGE);
        small
    };
    let (user, group) = (number("runAsUser", user), number("runAsGroup", group));
    let privileged = own.privileged.filter(|privileged| *privileged);
    refusals.require(
        privileged.is_none() || context.placement.is_confidential(),
        format!("{at}.privileged"),
        "the SKU Standard has no privileged containers",
    );
    let context = body::SecurityContext {
        privileged,
        allow_privilege_escalation: own.allow_privilege_escalation,
        capabilities: own.capabilities.as_ref().and_then(|own| {
            check_added(own, &at, context, refusals);
            capabilities(own)
        }),
        run_as_user: user,
        run_as_group: group,
    };
    (context != body::SecurityContext::default()).then_some(context)
}

/// The image's user, where `runAsNonRoot` depends on it. It is a part of the body, so that ACI runs the container as the
/// user that was checked.
fn image_user(
    container: &Container,
    at: &str,
    context: &TranslationContext<'_>,
    known: KnownImage<'_>,
    refusals: &mut Refusals,
) -> Option<ImageUser> {
    let pod = context.spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let own_non_root = own.and_then(|own| own.run_as_non_root);
    let non_root = own_non_root.or(pod.and_then(|pod| pod.run_as_non_root));
    if non_root != Some(true) {
        return None;
    }
    let user = own.and_then(|own| own.run_as_user);
    let user = user.or(pod.and_then(|pod| pod.run_as_user));
    let why = match (user, known) {
        (Some(user), _) if user != 0 => return None,
        (None, KnownImage::ReadLater) => return None,
        (None, KnownImage::Read(read)) => {
            match verify_run_as_non_root(container, pod, &read.config) {
                Ok(user) => return user,
                Err(refusal) => refusal.message(&pod_id(context), &container.name),
            }
        }
        _ => "it needs a runAsUser other than 0, because ACI does not check the image's user"
            .to_owned(),
    };
    let field = if own_non_root.is_some() {
        at
    } else {
        "spec.securityContext"
    };
    refusals.refuse(format!("{field}.runAsNonRoot"), why);
    None
}

/// The pod in the form of the kubelet's messages.
fn pod_id(context: &TranslationContext<'_>) -> String {
    let metadata = &context.pod.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{}_{}({})",
        text(&metadata.name),
        text(&metadata.namespace),
        text(&metadata.uid)
    )
}

/// Refuses added capabilities that a container does not have by default, because the SKU Standard gives containers no
/// more than those.
fn check_added(
    own: &Capabilities,
    at: &str,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) {
    if context.placement.is_confidential() {
        return;
    }
    for (index, name) in own.add.iter().flatten().enumerate() {
        refusals.require(
            DEFAULT_CAPABILITIES.contains(&kernel_name(name).as_str()),
            format!("{at}.capabilities.add[{index}]"),
            format!("the SKU Standard gives containers only the default capabilities, and {name} is not one of them"),
        );
    }
}

/// The kernel name of a capability that may be written without its prefix, or `ALL`.
fn kernel_name(name: &str) -> String {
    let name = name.to_uppercase();
    match name.as_str() {
        "ALL" => name,
        prefixed if prefixed.starts_with("CAP_") => name,
        _ => format!("CAP_{name}"),
    }
}

/// Whether a container with these `capabilities` lacks the default capability with the kernel name `name`. The order is
/// that of containerd: `ALL` is added, `ALL` is dropped, then single capabilities are added, and at last single
/// capabilities are dropped.
pub(super) fn drops_capability(capabilities: Option<&Capabilities>, name: &str) -> bool {
    let has = |list: &Option<Vec<String>>, name: &str| {
        let mut names = list.iter().flatten().map(|listed| kernel_name(listed));
        names.any(|listed| listed == name)
    };
    capabilities
        .is_some_and(|own| has(&own.drop, name) || (has(&own.drop, "ALL") && !has(&own.add, name)))
}

/// Capabilities by their kernel names, as in ACI's example (`CAP_NET_ADMIN`).
fn capabilities(own: &Capabilities) -> Option<body::Capabilities> {
    let names = |list: &Option<Vec<String>>| -> Vec<String> {
        list.iter()
            .flatten()
            .map(|name| kernel_name(name))
            .collect()
    };
    let (add, drop) = (names(&own.add), names(&own.drop));
    let has_names = !add.is_empty() || !drop.is_empty();
    has_names.then_some(body::Capabilities { add, drop })
}
