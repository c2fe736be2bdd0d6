//! Where a group goes.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::{self, Priority, Sku};

/// What of a pool and of its node a translation needs.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The placement as the pool has it.
    pub spec: &'a api::Placement,
    /// The pool's tags for groups.
    pub tags: &'a BTreeMap<String, String>,
    /// The virtual node's name.
    pub node: &'a str,
    /// The virtual node's address; without it a pod that asks for `status.hostIP` is refused.
    pub node_address: Option<&'a str>,
    /// The namespaces whose pods may choose managed identities.
    pub identities: &'a Identities,
}

/// The namespaces whose pods may choose managed identities, of all that the operator may assign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identities(BTreeSet<String>);

/// No namespace's pods may choose an identity.
pub static NO_IDENTITIES: Identities = Identities(BTreeSet::new());

impl Identities {
    /// Whether pods of this namespace may choose one.
    pub(super) fn allow(&self, namespace: &str) -> bool {
        self.0.contains(namespace) || self.0.contains("*")
    }
}

impl FromIterator<String> for Identities {
    /// Namespaces by their names, `*` for all.
    fn from_iter<I: IntoIterator<Item = String>>(names: I) -> Self {
        let names = names.into_iter().map(|name| name.trim().to_owned());
        Self(names.filter(|name| !name.is_empty()).collect())
    }
}

impl Placement<'_> {
    pub(super) fn is_spot(&self) -> bool {
        self.spec.priority == Priority::Spot
    }

    pub(super) fn is_confidential(&self) -> bool {
        self.spec.sku == Sku::Confidential
    }

    pub(super) fn is_in_subnet(&self) -> bool {
        self.spec.subnet_id.is_some()
    }
}
