//! Annotations by which a pod configures its container group beyond the pod's fields.
//!
//! In: a pod's annotations, and the placement. Out: identities, DNS label, confidential policy and tags of the
//! group, or refusals.
//!
//! | annotation | value |
//! | --- | --- |
//! | `burstpool.io/identity` | managed identities for the pod's code: resource IDs or `system`, comma-separated |
//! | `burstpool.io/image-pull-identity` | resource ID of the identity for pulls from Azure Container Registry |
//! | `burstpool.io/dns-name-label` | the DNS label of the public address |
//! | `burstpool.io/cce-policy` | the policy of a confidential group, base64 |
//! | `burstpool.io/tags` | tags of the container group: `key=value`, separated by commas |
//!
//! Three annotations of Microsoft's azure-aci provider are supported as well: `virtualkubelet.io/dnsnamelabel`,
//! `virtual-kubelet.io/confidential-compute-cce-policy`, and `virtual-kubelet.io/container-sku`. The last one
//! requests a SKU, which only the placement can provide. A pod may name an identity only in the namespaces that
//! `--pod-identity-namespaces` lists: every user who can create pods there can use any identity that the operator's
//! own identity may assign.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::body::{Confidential, EmptyObject, Identity};
use super::refusals::Refusals;
use super::target::TranslationTarget;
use crate::aci::names::GroupOwner;

/// Managed identities for the pod's code.
pub const IDENTITY: &str = "burstpool.io/identity";
/// The managed identity that pulls images.
pub const PULL_IDENTITY: &str = "burstpool.io/image-pull-identity";
/// The DNS label of the public address.
pub const DNS_NAME_LABEL: &str = "burstpool.io/dns-name-label";
/// The policy of a confidential group.
pub const CCE_POLICY: &str = "burstpool.io/cce-policy";
/// Additional tags of the container group.
pub const TAGS: &str = "burstpool.io/tags";
/// The name of [`DNS_NAME_LABEL`] in azure-aci.
const PEER_DNS_NAME_LABEL: &str = "virtualkubelet.io/dnsnamelabel";
/// The name of [`CCE_POLICY`] in azure-aci.
const PEER_CCE_POLICY: &str = "virtual-kubelet.io/confidential-compute-cce-policy";
/// The annotation by which azure-aci requests a confidential group.
const PEER_SKU: &str = "virtual-kubelet.io/container-sku";

/// The most tags that a resource may have (a limit of ARM).
const MAX_TAGS: usize = 50;
/// The longest name and the longest value of a tag (limits of ARM, in characters; the code counts bytes).
const MAX_TAG_LENGTHS: (usize, usize) = (512, 256);

/// The field path of an annotation.
pub(super) fn annotation_path(name: &str) -> String {
    format!("metadata.annotations[{name}]")
}

/// The first of the annotations `names` that has a non-empty value, with that value.
pub(super) fn find_annotation<'a>(
    pod: &'a Pod,
    names: &[&'static str],
) -> Option<(&'static str, &'a str)> {
    let annotations = pod.metadata.annotations.as_ref()?;
    names.iter().find_map(|name| {
        let value = annotations.get(*name)?.trim();
        (!value.is_empty()).then_some((*name, value))
    })
}

/// The DNS label that the pod requests.
pub(super) fn dns_name_label(pod: &Pod) -> Option<(&'static str, &str)> {
    find_annotation(pod, &[DNS_NAME_LABEL, PEER_DNS_NAME_LABEL])
}

/// The identity that pulls images, if the pod requests one.
pub(super) fn pull_identity<'a>(
    pod: &'a Pod,
    placement: &TranslationTarget<'_>,
    refusals: &mut Refusals,
) -> Option<&'a str> {
    let (name, id) = find_annotation(pod, &[PULL_IDENTITY])?;
    require_listed(name, pod, placement, refusals);
    let valid = is_identity(id);
    refusals.require(valid, annotation_path(name), NO_IDENTITY);
    valid.then_some(id)
}

/// Refuses an annotation that names an identity if the pod's namespace is not listed in
/// `--pod-identity-namespaces`.
fn require_listed(
    name: &str,
    pod: &Pod,
    placement: &TranslationTarget<'_>,
    refusals: &mut Refusals,
) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    refusals.require(
        placement.identities.allow(namespace),
        annotation_path(name),
        format!(
            "pods of namespace {namespace} may not choose managed identities: they could use every identity that burstpool \
             may assign; to accept that, start burstpool with --pod-identity-namespaces={namespace}"
        ),
    );
}

const NO_IDENTITY: &str = "is not the resource ID of a managed identity: /subscriptions/ID/resourceGroups/NAME/providers/Microsoft.ManagedIdentity/userAssignedIdentities/NAME";

/// The identities of the group: those for the pod's code, and the one that pulls images.
pub(super) fn identity(
    pod: &Pod,
    pull: Option<&str>,
    placement: &TranslationTarget<'_>,
    refusals: &mut Refusals,
) -> Option<Identity> {
    let mut assigned: BTreeMap<String, EmptyObject> = BTreeMap::new();
    let mut system = false;
    if let Some((name, value)) = find_annotation(pod, &[IDENTITY]) {
        for id in value.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            if id.eq_ignore_ascii_case("system") {
                system = true;
            } else if is_identity(id) {
                assigned.insert(id.to_owned(), EmptyObject::new());
            } else {
                refusals.refuse(
                    annotation_path(name),
                    format!("'{id}' {NO_IDENTITY}; 'system' is the group's own"),
                );
            }
        }
    }
    if !assigned.is_empty() {
        require_listed(IDENTITY, pod, placement, refusals);
    }
    if let Some(id) = pull
        && !assigned.keys().any(|known| known.eq_ignore_ascii_case(id))
    {
        assigned.insert(id.to_owned(), EmptyObject::new());
    }
    let kind = match (system, assigned.is_empty()) {
        (false, true) => return None,
        (true, true) => "SystemAssigned",
        (false, false) => "UserAssigned",
        (true, false) => "SystemAssigned, UserAssigned",
    };
    Some(Identity {
        kind: kind.to_owned(),
        user_assigned_identities: assigned,
    })
}

fn is_identity(id: &str) -> bool {
    let parts: Vec<String> = id.split('/').map(str::to_lowercase).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let [
        "",
        "subscriptions",
        subscription,
        "resourcegroups",
        group,
        "providers",
        "microsoft.managedidentity",
        "userassignedidentities",
        name,
    ] = parts[..]
    else {
        return false;
    };
    [subscription, group, name]
        .iter()
        .all(|part| !part.is_empty() && !part.contains(char::is_whitespace))
}

/// The policy of a confidential group. Only a placement with the SKU Confidential can enforce it.
pub(super) fn confidential_properties(
    pod: &Pod,
    placement: &TranslationTarget<'_>,
    refusals: &mut Refusals,
) -> Option<Confidential> {
    const WHY: &str = "needs a placement of the SKU Confidential";
    let is_confidential = placement.is_confidential();
    if let Some((name, sku)) = find_annotation(pod, &[PEER_SKU]) {
        let is_requested = sku.eq_ignore_ascii_case("Confidential");
        refusals.require(is_confidential || !is_requested, annotation_path(name), WHY);
    }
    let (name, policy) = find_annotation(pod, &[CCE_POLICY, PEER_CCE_POLICY])?;
    refusals.require(is_confidential, annotation_path(name), WHY);
    Some(Confidential {
        cce_policy: policy.to_owned(),
    })
}

/// The tags of the group: first the owner's, then the pool's, then those of the pod. A later tag with a name that
/// is already used is refused.
pub(super) fn tags(
    pod: &Pod,
    owner: &GroupOwner,
    placement: &TranslationTarget<'_>,
    refusals: &mut Refusals,
) -> BTreeMap<String, String> {
    let mut tags = owner.tags(pod);
    let pool_tags = placement.tags.iter().map(|(k, v)| (k.as_str(), v.as_str()));
    let pool_tags: Vec<_> = pool_tags.collect();
    merge_tags(
        &mut tags,
        &pool_tags,
        "azure.tags of the BurstPool",
        refusals,
    );
    if let Some((name, value)) = find_annotation(pod, &[TAGS]) {
        let mut requested = Vec::new();
        for tag in value.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            match tag.split_once('=') {
                Some((key, value)) => requested.push((key.trim(), value.trim())),
                None => refusals.refuse(annotation_path(name), format!("'{tag}' is not key=value")),
            }
        }
        merge_tags(&mut tags, &requested, &annotation_path(name), refusals);
        let fits = tags.len() <= MAX_TAGS;
        refusals.require(
            fits,
            annotation_path(name),
            "a resource has at most 50 tags",
        );
    }
    tags
}

/// Adds `more` to `tags`. Names are compared without regard to case.
fn merge_tags(
    tags: &mut BTreeMap<String, String>,
    more: &[(&str, &str)],
    field: &str,
    refusals: &mut Refusals,
) {
    for (name, value) in more {
        let taken = tags.keys().any(|known| known.eq_ignore_ascii_case(name));
        let fits = name.len() <= MAX_TAG_LENGTHS.0 && value.len() <= MAX_TAG_LENGTHS.1;
        let has_valid_characters = !name.contains(['<', '>', '%', '&', '\\', '?', '/'])
            && !name.contains(char::is_control);
        if taken {
            refusals.refuse(field, format!("the tag '{name}' is taken"));
        } else if name.is_empty() || !fits || !has_valid_characters {
            let why =
                "a tag's name has 1 to 512 characters without <>%&\\?/, its value at most 256";
            refusals.refuse(field, format!("the tag '{name}' is invalid: {why}"));
        } else {
            tags.insert((*name).to_owned(), (*value).to_owned());
        }
    }
}
