//! Translates the whole pod. Eligibility check and translation share this one code path.
//!
//! In: a pod, and its resolved references or placeholders for them. Out: the group's body, or all refusals.

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::annotations;
use super::body::{Group, Properties};
use super::containers::{all_containers, containers};
use super::dns::dns_config;
use super::field_table;
use super::kube_proxy;
use super::network::{public_address, subnets};
use super::realtime_metrics;
use super::refusals::{Refusals, Unsupported};
use super::registry::credentials;
use super::resolved_references::{ResolvedReferences, ValueSource};
use super::resources::{ContainerSizes, sizes};
use super::target::TranslationTarget;
use super::volumes::volumes;
use crate::aci::names::GroupOwner;

/// The inputs that every part of the translation shares.
#[derive(Clone, Copy)]
pub(super) struct TranslationContext<'a> {
    pub(super) pod: &'a Pod,
    pub(super) spec: &'a PodSpec,
    pub(super) values: ValueSource<'a>,
    pub(super) placement: &'a TranslationTarget<'a>,
    pub(super) sizes: &'a ContainerSizes,
}

/// Whether ACI can run `pod` in `placement`, as far as the pod itself shows. It is called before a grant and reads
/// no Secret or `ConfigMap`. `unknown_fields` is the result of [`decode`](fn@super::decode).
pub fn eligible(
    pod: &Pod,
    unknown_fields: &[String],
    placement: &TranslationTarget<'_>,
) -> Result<(), Vec<Unsupported>> {
    let no_owner = GroupOwner {
        cluster: String::new(),
        pool: String::new(),
        node: placement.node.to_owned(),
    };
    build(
        pod,
        unknown_fields,
        ValueSource::Placeholders,
        &no_owner,
        placement,
    )
    .map(drop)
}

/// The container group of `pod`, or everything in it that ACI does not support.
pub fn translate(
    pod: &Pod,
    unknown_fields: &[String],
    resolved: &ResolvedReferences,
    owner: &GroupOwner,
    placement: &TranslationTarget<'_>,
) -> Result<Group, Vec<Unsupported>> {
    build(
        pod,
        unknown_fields,
        ValueSource::Resolved(resolved),
        owner,
        placement,
    )
}

fn build(
    pod: &Pod,
    unknown_fields: &[String],
    values: ValueSource<'_>,
    owner: &GroupOwner,
    placement: &TranslationTarget<'_>,
) -> Result<Group, Vec<Unsupported>> {
    let mut refusals = Refusals::default();
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    for field in unknown_fields {
        if field == "spec" || field.starts_with("spec.") {
            refusals.refuse(field, "burstpool does not know this field");
        }
    }
    field_table::check(spec, &mut refusals);
    let sizes = sizes(spec, placement, &mut refusals);
    let context = TranslationContext {
        pod,
        spec,
        values,
        placement,
        sizes: &sizes,
    };
    let pull_identity = annotations::pull_identity(pod, placement, &mut refusals);
    let group = Group {
        location: placement.spec.region.clone(),
        tags: annotations::tags(pod, owner, placement, &mut refusals),
        zones: placement.spec.zones.clone(),
        identity: annotations::identity(pod, pull_identity, placement, &mut refusals),
        properties: properties(&context, pull_identity, &mut refusals),
    };
    refusals.into_result(group, placement.accepted)
}

fn properties(
    context: &TranslationContext<'_>,
    pull_identity: Option<&str>,
    refusals: &mut Refusals,
) -> Properties {
    let placement = context.placement;
    let (volumes, names) = volumes(context, refusals);
    let containers = containers(context, &names, refusals);
    let images: Vec<(String, &str)> = all_containers(context)
        .filter_map(|(at, c, _)| Some((format!("{at}.image"), c.image.as_deref()?)))
        .collect();
    Properties {
        os_type: "Linux",
        restart_policy: restart_policy(context.spec, refusals),
        sku: placement.is_confidential().then_some("Confidential"),
        priority: placement.is_spot().then_some("Spot"),
        confidential_compute_properties: annotations::confidential_properties(
            context.pod,
            placement,
            refusals,
        ),
        image_registry_credentials: credentials(&images, pull_identity, context, refusals),
        ip_address: public_address(&containers.ports, context, refusals),
        subnet_ids: subnets(context),
        dns_config: dns_config(context, refusals),
        extensions: kube_proxy::extension(context, refusals)
            .into_iter()
            .chain(realtime_metrics::extension(&containers.ports, context))
            .collect(),
        volumes,
        containers: containers.main,
        init_containers: containers.init,
    }
}

fn restart_policy(spec: &PodSpec, refusals: &mut Refusals) -> String {
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    let known = ["Always", "OnFailure", "Never"].contains(&policy);
    refusals.require(
        known,
        "spec.restartPolicy",
        format!("'{policy}' is not a restart policy"),
    );
    policy.to_owned()
}
