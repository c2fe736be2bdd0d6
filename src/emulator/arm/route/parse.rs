//! Finds the operation for a method and a path.
//!
//! In: both of a request. Out: a [`ArmRoute`] with its parameters, or why there is none. Fixed parts of a
//! path are not case-sensitive (clients send `resourcegroups` and `resourceGroups`); names keep their
//! spelling.

use http::Method;
use percent_encoding::percent_decode_str;

use super::{
    ArmRoute, ContainerVerb, CrudVerb, GroupVerb, LocationList, NetworkKind, NoRoute, region,
};
use crate::emulator::group::id::GroupId;

/// The provider of container groups, in lower case.
const CONTAINERS: &str = "microsoft.containerinstance";

impl ArmRoute {
    /// Finds the operation for a method and a path.
    pub fn parse(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let parts: Vec<String> = path
            .split('/')
            .skip(1)
            .filter(|part| !part.is_empty())
            .map(decoded)
            .collect();
        let lower: Vec<String> = parts.iter().map(|part| part.to_ascii_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        match lower.as_slice() {
            ["providers", CONTAINERS, "operations"] => {
                require_method(method, &Method::GET, Self::OperationsList)
            }
            ["subscriptions"] => require_method(method, &Method::GET, Self::SubscriptionsList),
            ["subscriptions", _, rest @ ..] => Self::in_subscription(method, rest, &parts),
            _ => Err(NoRoute::UnknownPath),
        }
    }

    fn in_subscription(method: &Method, rest: &[&str], parts: &[String]) -> Result<Self, NoRoute> {
        let subscription = parts[1].clone();
        match rest {
            [] => require_method(method, &Method::GET, Self::Subscription { subscription }),
            ["providers", CONTAINERS] => {
                require_method(method, &Method::GET, Self::Provider { subscription })
            }
            ["providers", CONTAINERS, rest @ ..] => Self::of_subscription(method, rest, parts),
            ["resourcegroups"] => {
                let route = Self::ResourceGroupsList { subscription };
                require_method(method, &Method::GET, route)
            }
            ["resourcegroups", _] => Ok(Self::ResourceGroup {
                subscription,
                name: parts[3].clone(),
                verb: crud(method)?,
            }),
            ["resourcegroups", _, "providers", provider, rest @ ..] => match *provider {
                CONTAINERS => Self::of_group(method, rest, parts),
                "microsoft.network" => Self::of_network(method, rest, parts),
                _ => Err(NoRoute::UnknownPath),
            },
            _ => Err(NoRoute::UnknownPath),
        }
    }

    fn of_subscription(method: &Method, rest: &[&str], parts: &[String]) -> Result<Self, NoRoute> {
        let subscription = parts[1].clone();
        let part = |n: usize| parts[n + 4].clone();
        let route = match rest {
            ["containergroups"] => Self::GroupsList { subscription },
            ["locations", _, "operations" | "operationresults", _] => {
                let result = rest[2] == "operationresults";
                Self::Operation {
                    subscription,
                    operation: part(3),
                    result,
                }
            }
            ["locations", _, list] => {
                let list = match *list {
                    "usages" => LocationList::Usage,
                    "cachedimages" => LocationList::CachedImages,
                    "capabilities" => LocationList::Capabilities,
                    _ => return Err(NoRoute::UnknownPath),
                };
                Self::Location {
                    subscription,
                    region: region(&part(1)),
                    list,
                }
            }
            _ => return Err(NoRoute::UnknownPath),
        };
        require_method(method, &Method::GET, route)
    }

    fn of_group(method: &Method, rest: &[&str], parts: &[String]) -> Result<Self, NoRoute> {
        let (subscription, resource_group) = (parts[1].clone(), parts[3].clone());
        let [first, after @ ..] = rest else {
            return Err(NoRoute::UnknownPath);
        };
        if *first != "containergroups" {
            return Err(NoRoute::UnknownPath);
        }
        if after.is_empty() {
            let route = Self::GroupsListByResourceGroup {
                subscription,
                resource_group,
            };
            return require_method(method, &Method::GET, route);
        }
        let id = GroupId {
            subscription,
            resource_group,
            name: parts[7].clone(),
        };
        match &after[1..] {
            [] => Ok(Self::Group {
                id,
                verb: group_verb(method)?,
            }),
            [action] => {
                let (verb, with) = group_action(action)?;
                require_method(method, &with, Self::Group { id, verb })
            }
            ["providers", "microsoft.insights", "metrics"] => {
                require_method(method, &Method::GET, Self::Metrics { id })
            }
            ["containers", _, action] => {
                let (verb, with) = container_action(action)?;
                let container = parts[9].clone();
                let route = Self::Container {
                    id,
                    container,
                    verb,
                };
                require_method(method, &with, route)
            }
            _ => Err(NoRoute::UnknownPath),
        }
    }

    fn of_network(method: &Method, rest: &[&str], parts: &[String]) -> Result<Self, NoRoute> {
        let (subscription, id) = (parts[1].clone(), format!("/{}", parts.join("/")));
        match rest {
            ["virtualnetworks", _] => {
                let (kind, verb) = (NetworkKind::VirtualNetwork, crud(method)?);
                Ok(Self::Network {
                    subscription,
                    id,
                    kind,
                    verb,
                })
            }
            ["virtualnetworks", _, "subnets", _] => {
                let (kind, verb) = (NetworkKind::Subnet, crud(method)?);
                Ok(Self::Network {
                    subscription,
                    id,
                    kind,
                    verb,
                })
            }
            [
                "virtualnetworks",
                _,
                "subnets",
                _,
                "providers",
                "microsoft.containerinstance",
                "serviceassociationlinks",
                "default",
            ] => require_method(
                method,
                &Method::DELETE,
                Self::ServiceAssociationLinkDelete { subscription },
            ),
            _ => Err(NoRoute::UnknownPath),
        }
    }
}

fn group_verb(method: &Method) -> Result<GroupVerb, NoRoute> {
    match *method {
        Method::GET => Ok(GroupVerb::Get),
        Method::PUT => Ok(GroupVerb::CreateOrUpdate),
        Method::PATCH => Ok(GroupVerb::Update),
        Method::DELETE => Ok(GroupVerb::Delete),
        _ => Err(NoRoute::UnknownMethod),
    }
}

/// The operation of an action on a group, and its method.
fn group_action(action: &str) -> Result<(GroupVerb, Method), NoRoute> {
    match action {
        "restart" => Ok((GroupVerb::Restart, Method::POST)),
        "start" => Ok((GroupVerb::Start, Method::POST)),
        "stop" => Ok((GroupVerb::Stop, Method::POST)),
        "outboundnetworkdependenciesendpoints" => Ok((GroupVerb::OutboundEndpoints, Method::GET)),
        _ => Err(NoRoute::UnknownPath),
    }
}

/// The operation of an action on a container, and its method.
fn container_action(action: &str) -> Result<(ContainerVerb, Method), NoRoute> {
    match action {
        "logs" => Ok((ContainerVerb::ListLogs, Method::GET)),
        "exec" => Ok((ContainerVerb::ExecuteCommand, Method::POST)),
        "attach" => Ok((ContainerVerb::Attach, Method::POST)),
        _ => Err(NoRoute::UnknownPath),
    }
}

fn require_method(method: &Method, with: &Method, route: ArmRoute) -> Result<ArmRoute, NoRoute> {
    if method == with {
        Ok(route)
    } else {
        Err(NoRoute::UnknownMethod)
    }
}

fn crud(method: &Method) -> Result<CrudVerb, NoRoute> {
    match *method {
        Method::HEAD => Ok(CrudVerb::Head),
        Method::GET => Ok(CrudVerb::Get),
        Method::PUT => Ok(CrudVerb::Put),
        Method::DELETE => Ok(CrudVerb::Delete),
        _ => Err(NoRoute::UnknownMethod),
    }
}

/// A path segment with percent-encoding decoded. Unchanged if the result is not UTF-8.
fn decoded(part: &str) -> String {
    percent_decode_str(part)
        .decode_utf8()
        .map_or_else(|_| part.to_owned(), Into::into)
}

#[cfg(test)]
#[allow(clippy::panic, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn fixed_parts_ignore_case_and_names_keep_it() {
        let path = "/SUBSCRIPTIONS/S/resourcegroups/Rg/providers/microsoft.containerinstance/ContainerGroups/Web";
        let Ok(ArmRoute::Group { id, verb }) = ArmRoute::parse(&Method::PUT, path) else {
            panic!("no route")
        };
        assert_eq!(
            (
                id.subscription.as_str(),
                id.resource_group.as_str(),
                id.name.as_str()
            ),
            ("S", "Rg", "Web")
        );
        assert_eq!(verb, GroupVerb::CreateOrUpdate);
    }

    #[test]
    fn a_known_path_with_another_method_differs_from_an_unknown_path() {
        let group = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerInstance/containerGroups/n";
        assert_eq!(
            ArmRoute::parse(&Method::POST, group),
            Err(NoRoute::UnknownMethod)
        );
        assert_eq!(
            ArmRoute::parse(&Method::GET, &format!("{group}/what")),
            Err(NoRoute::UnknownPath)
        );
        assert_eq!(
            ArmRoute::parse(&Method::GET, "/"),
            Err(NoRoute::UnknownPath)
        );
    }

    #[test]
    fn regions_are_normalised() {
        let path =
            "/subscriptions/s/providers/Microsoft.ContainerInstance/locations/West%20US/usages";
        let Ok(ArmRoute::Location { region, .. }) = ArmRoute::parse(&Method::GET, path) else {
            panic!("no route")
        };
        assert_eq!(region, "westus");
    }
}
