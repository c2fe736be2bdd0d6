//! A container group's name in ARM.

use std::fmt;

/// Subscription, resource group and name, as the creator spelled them.
///
/// ARM compares each without regard to case: use [`GroupId::key`] to look one up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupId {
    /// The subscription's id.
    pub subscription: String,
    /// The resource group's name.
    pub resource_group: String,
    /// The container group's name.
    pub name: String,
}

/// What two spellings of one name have in common; ordered by subscription, group and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupKey {
    /// The subscription, lower case.
    pub subscription: String,
    /// The resource group, lower case.
    pub resource_group: String,
    /// The name, lower case.
    pub name: String,
}

impl GroupId {
    /// The key under which the group is kept.
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
