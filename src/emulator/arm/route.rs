//! The ARM operations that the emulator supports, with their parameters.
//!
//! `parse` finds the operation for a method and path.

mod parse;

use crate::emulator::group::id::GroupId;

/// An ARM operation with its parameters. The names are those of the service's specification.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the variants are the specification's operations"
)]
pub enum ArmRoute {
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
        verb: CrudVerb,
    },
    ResourceGroup {
        subscription: String,
        name: String,
        verb: CrudVerb,
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

/// The operations on a container group.
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

/// The operations on a container.
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

/// The lists of a region.
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

/// The resource types of Microsoft.Network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkKind {
    /// A virtual network.
    VirtualNetwork,
    /// A subnet of a virtual network.
    Subnet,
}

/// The operations on a resource that the emulator only stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the variants are HTTP's methods")]
pub enum CrudVerb {
    Head,
    Get,
    Put,
    Delete,
}

/// Why a request matches no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// No operation has this path.
    UnknownPath,
    /// The path exists, but not with this method.
    UnknownMethod,
}

impl ArmRoute {
    /// The operation's name in the specification. Fault rules and counters use it.
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

    /// The subscription, if the path has one.
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

    /// The container group's name, if the path has one.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Group { id, .. } | Self::Container { id, .. } | Self::Metrics { id } => {
                Some(&id.name)
            }
            _ => None,
        }
    }

    /// The resource group of a container group or of a list of container groups. `None` for other
    /// paths.
    pub fn resource_group(&self) -> Option<&str> {
        match self {
            Self::Group { id, .. } | Self::Container { id, .. } | Self::Metrics { id } => {
                Some(&id.resource_group)
            }
            Self::GroupsListByResourceGroup { resource_group, .. } => Some(resource_group),
            _ => None,
        }
    }

    /// Whether the API version must be one of the service's. Other requests accept any version.
    pub fn has_service_versions(&self) -> bool {
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

/// A region's name as ARM normalizes it: `West US` becomes `westus`.
pub fn region(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_whitespace())
        .collect::<String>()
        .to_lowercase()
}
