//! The target of a translation: a placement, with the settings of its pool and virtual node.
//!
//! In: the placement's spec, tags, node and permitted identities. Out: checks such as whether the group is in a
//! subnet.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{self, LossSet, Priority, ReadImages, Sku};

/// The properties of the pool and of the virtual node that the translation needs.
#[derive(Clone, Copy, Debug)]
pub struct TranslationTarget<'a> {
    /// The placement in the pool's spec.
    pub spec: &'a api::Placement,
    /// The pool's tags for container groups.
    pub tags: &'a BTreeMap<String, String>,
    /// The name of the virtual node.
    pub node: &'a str,
    /// The address of the virtual node. Without it, a pod that refers to `status.hostIP` is refused.
    pub node_address: Option<&'a str>,
    /// The namespaces whose pods may choose managed identities.
    pub identities: &'a IdentityNamespaces,
    /// What the pod may lose. It decides only whether the pod is refused: the group's body does not depend on it.
    pub accepted: &'a LossSet,
}

/// The namespaces whose pods may choose any managed identity that the operator may assign
/// (`--pod-identity-namespaces`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityNamespaces(BTreeSet<String>);

/// No namespace: pods may not choose identities.
pub static NO_IDENTITIES: IdentityNamespaces = IdentityNamespaces(BTreeSet::new());

impl IdentityNamespaces {
    /// Whether pods of this namespace may choose identities.
    pub(super) fn allow(&self, namespace: &str) -> bool {
        self.0.contains(namespace) || self.0.contains("*")
    }
}

impl FromIterator<String> for IdentityNamespaces {
    /// Collects namespace names; `*` stands for all namespaces.
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let names = names.into_iter().map(|name| name.trim().to_owned());
        Self(names.filter(|name| !name.is_empty()).collect())
    }
}

impl TranslationTarget<'_> {
    pub(super) fn is_spot(&self) -> bool {
        self.spec.priority == Priority::Spot
    }

    pub(super) fn is_confidential(&self) -> bool {
        self.spec.sku == Sku::Confidential
    }

    /// Whether the configurations of images are read for the pods that need them.
    pub(super) fn reads_images(&self) -> bool {
        self.spec.read_images == ReadImages::Auto
    }

    pub(super) fn is_in_subnet(&self) -> bool {
        self.spec.subnet_id.is_some()
    }
}
