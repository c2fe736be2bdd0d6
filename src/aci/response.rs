//! Parses Azure's answers about container groups, leniently.
//!
//! In: the bodies of answers to GET, LIST and PUT, and of the asynchronous operations that a PUT starts. Out:
//! [`ContainerGroup`], [`ListPage`] and [`AsyncOperation`]. Every field is optional: if Azure omits a field,
//! writes it in an unexpected form or adds one, only that field is lost. A group that cannot be parsed does not
//! hide the others on its page. The client and the pod workers parse; [`status`](super::status),
//! [`events`](super::events) and [`failure`](super::failure) use the result.
//!
//! An answer to LIST has no instance views. An answer to PUT has the group's instance view but none of its
//! containers. An answer to GET may lack a container's instance view as long as Azure knows nothing about the
//! container.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::address::is_reserved;

mod arm;
mod lenient;
mod states;
#[cfg(test)]
mod tests;

pub use arm::{ArmErrorBody, AsyncOperation, ListPage, OperationProperties};
use lenient::{each, each_of_map, lenient, time};
pub use states::{ContainerState, GroupState, OperationState, Provisioning};

/// A container group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerGroup {
    /// The resource ID in ARM.
    #[serde(deserialize_with = "lenient")]
    pub id: Option<String>,
    /// The group's name in its resource group.
    #[serde(deserialize_with = "lenient")]
    pub name: Option<String>,
    /// The region, as it was spelled when the group was created.
    #[serde(deserialize_with = "lenient")]
    pub location: Option<String>,
    /// The availability zones.
    #[serde(deserialize_with = "each")]
    pub zones: Vec<String>,
    /// The tags.
    #[serde(deserialize_with = "each_of_map")]
    pub tags: BTreeMap<String, String>,
    /// All other properties.
    #[serde(deserialize_with = "lenient")]
    pub properties: GroupProperties,
}

/// The properties of a container group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupProperties {
    /// The provisioning state.
    #[serde(deserialize_with = "lenient")]
    pub provisioning_state: Option<Provisioning>,
    /// The init containers, in order.
    #[serde(deserialize_with = "each")]
    pub init_containers: Vec<GroupContainer>,
    /// The containers, in order.
    #[serde(deserialize_with = "each")]
    pub containers: Vec<GroupContainer>,
    /// The restart policy.
    #[serde(deserialize_with = "lenient")]
    pub restart_policy: Option<String>,
    /// The group's address. In a subnet it is absent until Azure has assigned it.
    #[serde(deserialize_with = "lenient")]
    pub ip_address: Option<GroupAddress>,
    /// The live state of the group. A LIST never has it.
    #[serde(deserialize_with = "lenient")]
    pub instance_view: Option<GroupInstanceView>,
}

/// A container or an init container of a group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupContainer {
    /// The container's name.
    #[serde(deserialize_with = "lenient")]
    pub name: Option<String>,
    /// All other properties.
    #[serde(deserialize_with = "lenient")]
    pub properties: ContainerProperties,
}

/// The properties of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerProperties {
    /// The image, as the create request named it.
    #[serde(deserialize_with = "lenient")]
    pub image: Option<String>,
    /// The requested resources.
    #[serde(deserialize_with = "lenient")]
    pub resources: ContainerResources,
    /// The readiness probe that ACI runs.
    #[serde(deserialize_with = "lenient")]
    pub readiness_probe: Option<Value>,
    /// The live state of the container.
    #[serde(deserialize_with = "lenient")]
    pub instance_view: Option<ContainerInstanceView>,
}

/// The requested resources of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerResources {
    /// The requests, which count against quotas and are billed.
    #[serde(deserialize_with = "lenient")]
    pub requests: ResourceRequest,
}

/// An amount of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceRequest {
    /// CPU, in cores.
    #[serde(deserialize_with = "lenient")]
    pub cpu: Option<f64>,
    /// Memory, in GB.
    #[serde(rename = "memoryInGB", deserialize_with = "lenient")]
    pub memory_in_gb: Option<f64>,
}

/// A group's address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupAddress {
    /// The IP address; absent until it is assigned.
    #[serde(deserialize_with = "lenient")]
    pub ip: Option<String>,
    /// `Public` or `Private`.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub kind: Option<String>,
    /// The DNS name of a public address that has a label.
    #[serde(deserialize_with = "lenient")]
    pub fqdn: Option<String>,
}

/// The live state of a group as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupInstanceView {
    /// The state of the group.
    #[serde(deserialize_with = "lenient")]
    pub state: Option<GroupState>,
    /// The events of the group.
    #[serde(deserialize_with = "each")]
    pub events: Vec<InstanceEvent>,
}

/// The live state of a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerInstanceView {
    /// How often the container was restarted.
    #[serde(deserialize_with = "lenient")]
    pub restart_count: Option<i64>,
    /// The current run.
    #[serde(deserialize_with = "lenient")]
    pub current_state: Option<ContainerRunView>,
    /// The run before the last restart.
    #[serde(deserialize_with = "lenient")]
    pub previous_state: Option<ContainerRunView>,
    /// The events of the container.
    #[serde(deserialize_with = "each")]
    pub events: Vec<InstanceEvent>,
}

/// One run of a container, or a wait for it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerRunView {
    /// The state.
    #[serde(deserialize_with = "lenient")]
    pub state: Option<ContainerState>,
    /// The start time. Some answers also set it for a waiting container.
    #[serde(deserialize_with = "time")]
    pub start_time: Option<Timestamp>,
    /// The exit code. A Windows exit code can exceed `i32`.
    #[serde(deserialize_with = "lenient")]
    pub exit_code: Option<i64>,
    /// The time at which it ended.
    #[serde(deserialize_with = "time")]
    pub finish_time: Option<Timestamp>,
    /// A detail of the state in one word: empty, `Error`, `Completed`, `CrashLoopBackOff`.
    #[serde(deserialize_with = "lenient")]
    pub detail_status: Option<String>,
}

/// An event of a group or a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct InstanceEvent {
    /// How often it happened.
    #[serde(deserialize_with = "lenient")]
    pub count: Option<i64>,
    /// When it first happened.
    #[serde(deserialize_with = "time")]
    pub first_timestamp: Option<Timestamp>,
    /// When it last happened.
    #[serde(deserialize_with = "time")]
    pub last_timestamp: Option<Timestamp>,
    /// The event's name, in one word. `InsufficientCapacity.` has a dot at its end.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// Azure's message.
    #[serde(deserialize_with = "lenient")]
    pub message: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub kind: Option<String>,
}

impl ContainerGroup {
    /// Parses a group; `None` unless it is an object with a name.
    pub fn from_value(value: &Value) -> Option<Self> {
        Self::deserialize(value)
            .ok()
            .filter(|group| group.name.is_some())
    }

    /// Parses the body of an answer that contains a group.
    pub fn parse(body: &[u8]) -> Option<Self> {
        Self::from_value(&serde_json::from_slice(body).ok()?)
    }

    /// The group without its tags, which only identify its owner.
    #[must_use]
    pub fn without_tags(self) -> Self {
        Self {
            tags: BTreeMap::new(),
            ..self
        }
    }

    /// Applies newer values from a LIST. The instance views are removed because they are now outdated: the group
    /// then holds no more than a LIST does.
    pub fn apply_listed(&mut self, provisioning: Option<Provisioning>, ip: Option<IpAddr>) {
        self.properties.provisioning_state = provisioning;
        if let Some(ip) = ip {
            let address = self.properties.ip_address.get_or_insert_default();
            address.ip = Some(ip.to_string());
        }
        let properties = &mut self.properties;
        properties.instance_view = None;
        let containers = properties.init_containers.iter_mut();
        for container in containers.chain(&mut properties.containers) {
            container.properties.instance_view = None;
        }
    }

    /// The container called `name`.
    pub fn container(&self, name: &str) -> Option<&GroupContainer> {
        find_container(&self.properties.containers, name)
    }

    /// The init container called `name`.
    pub fn init_container(&self, name: &str) -> Option<&GroupContainer> {
        find_container(&self.properties.init_containers, name)
    }

    /// The container or init container called `name`. Names are unique in a group, and a native sidecar of a pod is a
    /// container of its group.
    pub fn any_container(&self, name: &str) -> Option<&GroupContainer> {
        self.container(name).or_else(|| self.init_container(name))
    }

    /// Whether the answer has the group's instance view. An answer to GET has it, an answer to LIST does not.
    pub fn has_instance_view(&self) -> bool {
        self.properties.instance_view.is_some()
    }

    /// The state of the group; `None` if the answer does not have it.
    pub fn state(&self) -> Option<&GroupState> {
        self.properties.instance_view.as_ref()?.state.as_ref()
    }

    /// The provisioning state; `None` if the answer does not have it.
    pub fn provisioning(&self) -> Option<&Provisioning> {
        self.properties.provisioning_state.as_ref()
    }

    /// The events of the group as a whole.
    pub fn events(&self) -> &[InstanceEvent] {
        self.properties
            .instance_view
            .as_ref()
            .map_or(&[], |view| &view.events)
    }

    /// The group's IP address, once Azure has assigned it. Reserved addresses of the cloud are rejected, because
    /// the kubelet API forwards ports to this address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.properties
            .ip_address
            .as_ref()?
            .ip
            .as_ref()?
            .trim()
            .parse()
            .ok()
            .filter(|address| !is_reserved(*address))
    }

    /// Whether nothing will run in the group again unless it is started in Azure: it has succeeded, failed, or was
    /// stopped. False if provisioning failed, because ACI then keeps trying to start the group, and keeps billing
    /// it (documentation of 2025-11).
    pub fn is_terminal(&self) -> bool {
        use GroupState::{Failed, Stopped, Succeeded};
        !self.has_failed_provisioning()
            && matches!(self.state(), Some(Succeeded | Failed | Stopped))
    }

    /// Whether any container was restarted.
    pub fn was_restarted(&self) -> bool {
        let containers = self.properties.containers.iter();
        let mut views = containers.filter_map(GroupContainer::instance_view);
        views.any(|view| view.restart_count.is_some_and(|count| count > 0))
    }

    /// Whether ACI failed to start the group.
    pub fn has_failed_provisioning(&self) -> bool {
        matches!(
            self.provisioning(),
            Some(Provisioning::Failed | Provisioning::Canceled)
        )
    }

    /// Whether Azure is deleting the group.
    pub fn is_being_deleted(&self) -> bool {
        self.provisioning() == Some(&Provisioning::Deleting)
    }
}

impl GroupContainer {
    /// The live state of the container; `None` if the answer does not have it.
    pub fn instance_view(&self) -> Option<&ContainerInstanceView> {
        self.properties.instance_view.as_ref()
    }
}

impl ContainerRunView {
    /// The state of the run. An unknown or missing state counts as Terminated if there is an end time, else as
    /// Waiting.
    pub fn kind(&self) -> ContainerState {
        match &self.state {
            Some(ContainerState::Other(_)) | None if self.finish_time.is_some() => {
                ContainerState::Terminated
            }
            Some(ContainerState::Other(_)) | None => ContainerState::Waiting,
            Some(known) => known.clone(),
        }
    }

    /// The detail of the state, if it is a single word.
    pub fn detail(&self) -> Option<&str> {
        self.detail_status
            .as_deref()
            .map(str::trim)
            .filter(|detail| {
                !detail.is_empty() && detail.bytes().all(|letter| letter.is_ascii_alphanumeric())
            })
    }
}

impl InstanceEvent {
    /// When it happened last.
    pub fn last_seen(&self) -> Option<Timestamp> {
        self.last_timestamp.or(self.first_timestamp)
    }

    /// The event's name without the final dot.
    pub fn reason(&self) -> &str {
        self.name.trim().trim_end_matches('.')
    }
}

/// The container called `name`. ARM compares names without regard to case.
fn find_container<'a>(containers: &'a [GroupContainer], name: &str) -> Option<&'a GroupContainer> {
    let is_named = |container: &&GroupContainer| {
        container
            .name
            .as_deref()
            .is_some_and(|actual| actual.eq_ignore_ascii_case(name))
    };
    containers.iter().find(is_named)
}
