//! The operations of ARM that the emulator knows, and what can be asked of one.
//!
//! Which of them a request is for: `parse`.

mod parse;

use crate::emulator::group::id::GroupId;

/// An operation of ARM, by the names of the service's specification, with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants are the specification's operations"
)]
pub enum Route {
    OperationsList,
    GroupsList {
        subscription: String,
    },
    GroupsListByResourceGroup {
        subscription: String,
        resource_group: String,
    },
    Group {
        id: GroupId,
        verb: GroupVerb,
    },
    Container {
        id: GroupId,
        container: String,
        verb: ContainerVerb,
    },
    Metrics {
        id: GroupId,
    },
    Location {
        subscription: String,
        region: String,
        list: LocationList,
    },
    Operation {
        subscription: String,
        operation: String,
        result: bool,
    },
    ServiceAssociationLinkDelete {
        subscription: String,
    },
    Network {
        subscription: String,
        id: String,
        kind: NetworkKind,
        verb: Crud,
    },
    ResourceGroup {
        subscription: String,
        name: String,
        verb: Crud,
    },
    ResourceGroupsList {
        subscription: String,
    },
    SubscriptionsList,
    Subscription {
        subscription: String,
    },
    Provider {
        subscription: String,
    },
}

/// What is done to a container group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants are the specification's operations"
)]
pub enum GroupVerb {
    Get,
    CreateOrUpdate,
    Update,
    Delete,
    Restart,
    Start,
    Stop,
    OutboundEndpoints,
}

/// What is done to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants are the specification's operations"
)]
pub enum ContainerVerb {
    ListLogs,
    ExecuteCommand,
    Attach,
}

/// What is listed of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants are the specification's operations"
)]
pub enum LocationList {
    Usage,
    CachedImages,
    Capabilities,
}

/// A resource of Microsoft.Network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// A virtual network.
    VirtualNetwork,
    /// A subnet of one.
    Subnet,
}

/// What is done to a resource that the emulator only keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are HTTP's methods")]
pub enum Crud {
    Head,
    Get,
    Put,
    Delete,
}

/// Why a request names no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// There is no such path.
    UnknownPath,
    /// The path exists, not with this method.
    UnknownMethod,
}

impl Route {
    /// The operation's name, as the specification has it; faults and counters go by it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::OperationsList => "Operations_List",
            Self::GroupsList { .. } => "ContainerGroups_List",
            Self::GroupsListByResourceGroup { .. } => "ContainerGroups_ListByResourceGroup",
            Self::Group { verb, .. } => match verb {
                GroupVerb::Get => "ContainerGroups_Get",
                GroupVerb::CreateOrUpdate => "ContainerGroups_CreateOrUpdate",
                GroupVerb::Update => "ContainerGroups_Update",
                GroupVerb::Delete => "ContainerGroups_Delete",
                GroupVerb::Restart => "ContainerGroups_Restart",
                GroupVerb::Start => "ContainerGroups_Start",
                GroupVerb::Stop => "ContainerGroups_Stop",
                GroupVerb::OutboundEndpoints => {
                    "ContainerGroups_GetOutboundNetworkDependenciesEndpoints"
                }
            },
            Self::Container { verb, .. } => match verb {
                ContainerVerb::ListLogs => "Containers_ListLogs",
                ContainerVerb::ExecuteCommand => "Containers_ExecuteCommand",
                ContainerVerb::Attach => "Containers_Attach",
            },
            Self::Metrics { .. } => "Metrics_List",
            Self::Location { list, .. } => match list {
                LocationList::Usage => "Location_ListUsage",
                LocationList::CachedImages => "Location_ListCachedImages",
                LocationList::Capabilities => "Location_ListCapabilities",
            },
            Self::Operation { .. } => "Operation_Get",
            Self::ServiceAssociationLinkDelete { .. } => "SubnetServiceAssociationLink_Delete",
            Self::Network { .. } => "Network",
            Self::ResourceGroup { .. } => "ResourceGroups",
            Self::ResourceGroupsList { .. } => "ResourceGroups_List",
            Self::SubscriptionsList => "Subscriptions_List",
            Self::Subscription { .. } => "Subscriptions_Get",
            Self::Provider { .. } => "Providers_Get",
        }
    }

    /// The subscription, where the path has one.
    pub fn subscription(&self) -> Option<&str> {
        match self {
            Self::OperationsList | Self::SubscriptionsList => None,
            Self::Group { id, .. } | Self::Container { id, .. } | Self::Metrics { id } => {
                Some(&id.subscription)
            }
            Self::GroupsList { subscription }
            | Self::GroupsListByResourceGroup { subscription, .. }
            | Self::Location { subscription, .. }
            | Self::Operation { subscription, .. }
            | Self::ServiceAssociationLinkDelete { subscription }
            | Self::Network { subscription, .. }
            | Self::ResourceGroup { subscription, .. }
            | Self::ResourceGroupsList { subscription }
            | Self::Subscription { subscription }
            | Self::Provider { subscription } => Some(subscription),
        }
    }

    /// The container group's name, where the path has one.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Group { id, .. } | Self::Container { id, .. } | Self::Metrics { id } => {
                Some(&id.name)
            }
            _ => None,
        }
    }

    /// The resource group that the request is in.
    pub fn resource_group(&self) -> Option<&str> {
        match self {
            Self::Group { id, .. } | Self::Container { id, .. } | Self::Metrics { id } => {
                Some(&id.resource_group)
            }
            Self::GroupsListByResourceGroup { resource_group, .. } => Some(resource_group),
            _ => None,
        }
    }

    /// Whether the service's own versions apply, or any version will do.
    pub fn is_of_the_service(&self) -> bool {
        matches!(
            self,
            Self::OperationsList
                | Self::GroupsList { .. }
                | Self::GroupsListByResourceGroup { .. }
                | Self::Group { .. }
                | Self::Container { .. }
                | Self::Location { .. }
        )
    }
}

/// A region's name as ARM normalises it: `West US` is `westus`.
pub fn region(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_whitespace())
        .collect::<String>()
        .to_lowercase()
}
