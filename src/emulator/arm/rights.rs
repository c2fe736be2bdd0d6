//! Missing rights of the credential, as actions of Azure roles.
//!
//! In: a request, and the actions that the admin interface has withheld. Out: 403 as ARM's gateway
//! words it. Everything that is not withheld is allowed.

use http::StatusCode;

use super::error::ArmFailure;
use super::route::{ArmRoute, ContainerVerb, CrudVerb, GroupVerb, LocationList, NetworkKind};
use crate::emulator::group::model::Properties;
use crate::emulator::store::GroupStore;

/// The action that a credential needs to put a group into a subnet.
const JOIN: &str = "Microsoft.Network/virtualNetworks/subnets/join/action";

/// The action that a request needs. `None` if the request needs no right.
fn action(route: &ArmRoute) -> Option<&'static str> {
    Some(match route {
        ArmRoute::GroupsList { .. } | ArmRoute::GroupsListByResourceGroup { .. } => {
            "Microsoft.ContainerInstance/containerGroups/read"
        }
        ArmRoute::Group { verb, .. } => match verb {
            GroupVerb::Get => "Microsoft.ContainerInstance/containerGroups/read",
            GroupVerb::CreateOrUpdate | GroupVerb::Update => {
                "Microsoft.ContainerInstance/containerGroups/write"
            }
            GroupVerb::Delete => "Microsoft.ContainerInstance/containerGroups/delete",
            GroupVerb::Restart => "Microsoft.ContainerInstance/containerGroups/restart/action",
            GroupVerb::Start => "Microsoft.ContainerInstance/containerGroups/start/action",
            GroupVerb::Stop => "Microsoft.ContainerInstance/containerGroups/stop/action",
            GroupVerb::OutboundEndpoints => return None,
        },
        ArmRoute::Container { verb, .. } => match verb {
            ContainerVerb::ListLogs => {
                "Microsoft.ContainerInstance/containerGroups/containers/logs/read"
            }
            ContainerVerb::ExecuteCommand => {
                "Microsoft.ContainerInstance/containerGroups/containers/exec/action"
            }
            ContainerVerb::Attach => {
                "Microsoft.ContainerInstance/containerGroups/containers/attach/action"
            }
        },
        ArmRoute::Metrics { .. } => "Microsoft.Insights/metrics/read",
        ArmRoute::Location { list, .. } => match list {
            LocationList::Usage => "Microsoft.ContainerInstance/locations/usages/read",
            LocationList::CachedImages => "Microsoft.ContainerInstance/locations/cachedImages/read",
            LocationList::Capabilities => "Microsoft.ContainerInstance/locations/capabilities/read",
        },
        ArmRoute::Network { kind, verb, .. } => match (kind, verb) {
            (NetworkKind::Subnet, CrudVerb::Head | CrudVerb::Get) => {
                "Microsoft.Network/virtualNetworks/subnets/read"
            }
            (NetworkKind::VirtualNetwork, CrudVerb::Head | CrudVerb::Get) => {
                "Microsoft.Network/virtualNetworks/read"
            }
            _ => return None,
        },
        _ => return None,
    })
}

/// Fails with 403 if the action that the request needs is withheld.
pub fn require(store: &GroupStore, route: &ArmRoute, scope: &str) -> Result<(), ArmFailure> {
    match action(route) {
        Some(action) if store.is_withheld(action) => {
            let message = format!(
                "The client does not have authorization to perform action '{action}' over scope \
                 '{scope}' or the scope is invalid. If access was recently granted, please refresh \
                 your credentials."
            );
            Err(refused("AuthorizationFailed", message))
        }
        _ => Ok(()),
    }
}

/// Fails with 403 if the group is in a subnet and the right to join subnets is withheld.
pub fn require_join(store: &GroupStore, properties: Option<&Properties>) -> Result<(), ArmFailure> {
    if store.is_withheld(JOIN) && properties.is_some_and(Properties::is_in_subnet) {
        let message = format!(
            "The client has permission to perform action \
             'Microsoft.ContainerInstance/containerGroups/write' on scope; however, it does not have \
             permission to perform action '{JOIN}' on the linked scope(s) or the linked scope(s) are \
             invalid."
        );
        return Err(refused("LinkedAuthorizationFailed", message));
    }
    Ok(())
}

fn refused(code: &str, message: String) -> ArmFailure {
    ArmFailure::new(StatusCode::FORBIDDEN, code, message).from_gateway()
}
