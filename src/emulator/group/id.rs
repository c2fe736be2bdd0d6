//! The ARM id of a container group.

use std::fmt;

/// Subscription, resource group and name, in the spelling of the request that created the group.
///
/// ARM ignores case in all three: use [`GroupId::key`] for look-ups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupId {
    /// The subscription's id.
    pub subscription: String,
    /// The resource group's name.
    pub resource_group: String,
    /// The container group's name.
    pub name: String,
}

/// A [`GroupId`] in lower case, for look-ups. Ordered by subscription, resource group and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The subscription, in lower case.
    pub subscription: String,
    /// The resource group, in lower case.
    pub resource_group: String,
    /// The name, in lower case.
    pub name: String,
}

impl GroupId {
    /// The key under which the store keeps the group.
    pub fn key(&self) -> GroupKey {
        GroupKey {
            subscription: self.subscription.to_lowercase(),
            resource_group: self.resource_group.to_lowercase(),
            name: self.name.to_lowercase(),
        }
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerInstance/containerGroups/{}",
            self.subscription, self.resource_group, self.name
        )
    }
}
