//! Container groups as Azure answers them, read leniently.
//!
//! In: the bodies of GET, LIST and PUT, and of the operations that a PUT starts. Out: [`Group`],
//! [`Page`] and [`Operation`], of which every field may be absent: what the service leaves out, writes
//! in a way of its own, or adds in a later version costs that field and nothing else. One group that
//! cannot be read does not hide the others of its page. Called by the client and the poller; read by
//! [`status`](super::status), [`events`](super::events) and [`failure`](super::failure).
//!
//! LIST answers have no instance views at all; the answer to a PUT has the group's and none of a
//! container; an answer to GET may lack a container's as long as nothing is known of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::address::is_reserved;

mod answer;
mod lenient;
#[cfg(test)]
mod tests;
mod word;

pub use answer::{ErrorBody, Operation, OperationProperties, Page};
use lenient::{each, each_of_map, lenient, time};
pub use word::{ContainerState, GroupState, OperationState, Provisioning};

/// A container group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Group {
    /// The resource's id in ARM.
    #[serde(deserialize_with = "lenient")]
    pub id: Option<String>,
    /// Its name in its resource group.
    #[serde(deserialize_with = "lenient")]
    pub name: Option<String>,
    /// Its region, as whoever created it wrote it.
    #[serde(deserialize_with = "lenient")]
    pub location: Option<String>,
    /// Its availability zones.
    #[serde(deserialize_with = "each")]
    pub zones: Vec<String>,
    /// Its tags.
    #[serde(deserialize_with = "each_of_map")]
    pub tags: BTreeMap<String, String>,
    /// Everything else.
    #[serde(deserialize_with = "lenient")]
    pub properties: Properties,
}

/// What a container group is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Properties {
    /// How far the service has got with making it what was asked for.
    #[serde(deserialize_with = "lenient")]
    pub provisioning_state: Option<Provisioning>,
    /// Its init containers, in order.
    #[serde(deserialize_with = "each")]
    pub init_containers: Vec<Container>,
    /// Its containers, in order.
    #[serde(deserialize_with = "each")]
    pub containers: Vec<Container>,
    /// When its containers are started again.
    #[serde(deserialize_with = "lenient")]
    pub restart_policy: Option<String>,
    /// Its address. In a subnet it is absent until it is known.
    #[serde(deserialize_with = "lenient")]
    pub ip_address: Option<Address>,
    /// What happens in it. Never in a LIST.
    #[serde(deserialize_with = "lenient")]
    pub instance_view: Option<GroupView>,
}

/// A container or an init container of a group.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    #[serde(deserialize_with = "lenient")]
    pub name: Option<String>,
    /// Everything else.
    #[serde(deserialize_with = "lenient")]
    pub properties: ContainerProperties,
}

/// What a container is.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerProperties {
    /// Its image, as it was asked for.
    #[serde(deserialize_with = "lenient")]
    pub image: Option<String>,
    /// What it was promised.
    #[serde(deserialize_with = "lenient")]
    pub resources: Resources,
    /// What happens in it.
    #[serde(deserialize_with = "lenient")]
    pub instance_view: Option<ContainerView>,
}

/// What a container was promised.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Resources {
    /// The part that counts against quotas and is paid for.
    #[serde(deserialize_with = "lenient")]
    pub requests: Request,
}

/// An amount of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Request {
    /// CPUs.
    #[serde(deserialize_with = "lenient")]
    pub cpu: Option<f64>,
    /// Memory in GB.
    #[serde(rename = "memoryInGB", deserialize_with = "lenient")]
    pub memory_in_gb: Option<f64>,
}

/// A group's address.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Address {
    /// The address itself, once it is known.
    #[serde(deserialize_with = "lenient")]
    pub ip: Option<String>,
    /// `Public` or `Private`.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub kind: Option<String>,
    /// Its name in DNS, for a public one with a label.
    #[serde(deserialize_with = "lenient")]
    pub fqdn: Option<String>,
}

/// What happens in a group as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GroupView {
    /// Whether it runs.
    #[serde(deserialize_with = "lenient")]
    pub state: Option<GroupState>,
    /// What happened to it.
    #[serde(deserialize_with = "each")]
    pub events: Vec<Event>,
}

/// What happens in a container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerView {
    /// How often it was started again.
    #[serde(deserialize_with = "lenient")]
    pub restart_count: Option<i64>,
    /// What it does now.
    #[serde(deserialize_with = "lenient")]
    pub current_state: Option<Run>,
    /// What it did before it was started again.
    #[serde(deserialize_with = "lenient")]
    pub previous_state: Option<Run>,
    /// What happened to it.
    #[serde(deserialize_with = "each")]
    pub events: Vec<Event>,
}

/// One run of a container, or the wait for it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Run {
    /// Whether it runs.
    #[serde(deserialize_with = "lenient")]
    pub state: Option<ContainerState>,
    /// When it began. Some answers also say it of a container that waits.
    #[serde(deserialize_with = "time")]
    pub start_time: Option<Timestamp>,
    /// How it ended. A Windows code is above `i32`.
    #[serde(deserialize_with = "lenient")]
    pub exit_code: Option<i64>,
    /// When it ended.
    #[serde(deserialize_with = "time")]
    pub finish_time: Option<Timestamp>,
    /// One word on the state: empty, `Error`, `Completed`, `CrashLoopBackOff`.
    #[serde(deserialize_with = "lenient")]
    pub detail_status: Option<String>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// How often.
    #[serde(deserialize_with = "lenient")]
    pub count: Option<i64>,
    /// When first.
    #[serde(deserialize_with = "time")]
    pub first_timestamp: Option<Timestamp>,
    /// When last.
    #[serde(deserialize_with = "time")]
    pub last_timestamp: Option<Timestamp>,
    /// What, in one word. `InsufficientCapacity.` comes with its dot.
    #[serde(deserialize_with = "lenient")]
    pub name: String,
    /// What, in words.
    #[serde(deserialize_with = "lenient")]
    pub message: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type", deserialize_with = "lenient")]
    pub kind: Option<String>,
}

impl Group {
    /// Reads a group, which is an object with a name.
    pub fn read(value: &Value) -> Option<Self> {
        Self::deserialize(value)
            .ok()
            .filter(|group| group.name.is_some())
    }

    /// Reads the body of an answer that is a group.
    pub fn parse(body: &[u8]) -> Option<Self> {
        Self::read(&serde_json::from_slice(body).ok()?)
    }

    /// The group without what only says whose it is.
    #[must_use]
    pub fn without_tags(self) -> Self {
        Self {
            tags: BTreeMap::new(),
            ..self
        }
    }

    /// Takes over what a LIST says that is newer: from then on this answer is no more than a LIST's.
    pub fn take_listed(&mut self, provisioning: Option<Provisioning>, ip: Option<IpAddr>) {
        self.properties.provisioning_state = provisioning;
        if let Some(ip) = ip {
            let address = self.properties.ip_address.get_or_insert_default();
            address.ip = Some(ip.to_string());
        }
        let properties = &mut self.properties;
        properties.instance_view = None;
        let all = properties.init_containers.iter_mut();
        for container in all.chain(&mut properties.containers) {
            container.properties.instance_view = None;
        }
    }

    /// The container of this name.
    pub fn container(&self, name: &str) -> Option<&Container> {
        named(&self.properties.containers, name)
    }

    /// The init container of this name.
    pub fn init_container(&self, name: &str) -> Option<&Container> {
        named(&self.properties.init_containers, name)
    }

    /// Whether this answer says what happens in the group: one of a GET does, one of a LIST does not.
    pub fn is_full(&self) -> bool {
        self.properties.instance_view.is_some()
    }

    /// Whether its containers run, as far as the answer says.
    pub fn state(&self) -> Option<&GroupState> {
        self.properties.instance_view.as_ref()?.state.as_ref()
    }

    /// How far the service has got, as far as the answer says.
    pub fn provisioning(&self) -> Option<&Provisioning> {
        self.properties.provisioning_state.as_ref()
    }

    /// What happened to the group as a whole.
    pub fn events(&self) -> &[Event] {
        self.properties
            .instance_view
            .as_ref()
            .map_or(&[], |view| &view.events)
    }

    /// Its address, once it has one. One of the cloud's own is none: ports of it would be forwarded.
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

    /// Whether nothing will run in it again unless someone starts it: succeeded, failed or stopped. A
    /// group whose provisioning failed is not: the service goes on trying, and billing (documentation
    /// of 2025-11).
    pub fn is_terminal(&self) -> bool {
        use GroupState::{Failed, Stopped, Succeeded};
        !self.has_failed_provisioning()
            && matches!(self.state(), Some(Succeeded | Failed | Stopped))
    }

    /// Whether a container was started more than once.
    pub fn was_restarted(&self) -> bool {
        let containers = self.properties.containers.iter();
        let mut views = containers.filter_map(Container::view);
        views.any(|view| view.restart_count.is_some_and(|count| count > 0))
    }

    /// Whether the service could not start what was asked for.
    pub fn has_failed_provisioning(&self) -> bool {
        matches!(
            self.provisioning(),
            Some(Provisioning::Failed | Provisioning::Canceled)
        )
    }

    /// Whether the service is deleting it.
    pub fn is_being_deleted(&self) -> bool {
        self.provisioning() == Some(&Provisioning::Deleting)
    }
}

impl Container {
    /// What happens in it, as far as the answer says.
    pub fn view(&self) -> Option<&ContainerView> {
        self.properties.instance_view.as_ref()
    }
}

impl Run {
    /// What the run is, also where the service uses a word that nobody knows yet.
    pub fn kind(&self) -> ContainerState {
        match &self.state {
            Some(ContainerState::Other(_)) | None if self.finish_time.is_some() => {
                ContainerState::Terminated
            }
            Some(ContainerState::Other(_)) | None => ContainerState::Waiting,
            Some(known) => known.clone(),
        }
    }

    /// The service's word on the state, if it is one.
    pub fn detail(&self) -> Option<&str> {
        self.detail_status
            .as_deref()
            .map(str::trim)
            .filter(|detail| {
                !detail.is_empty() && detail.bytes().all(|letter| letter.is_ascii_alphanumeric())
            })
    }
}

impl Event {
    /// When it happened last.
    pub fn at(&self) -> Option<Timestamp> {
        self.last_timestamp.or(self.first_timestamp)
    }

    /// Its name as one word.
    pub fn word(&self) -> &str {
        self.name.trim().trim_end_matches('.')
    }
}

/// Names compare without regard to case, as everywhere in ARM.
fn named<'a>(containers: &'a [Container], name: &str) -> Option<&'a Container> {
    let is = |container: &&Container| {
        container
            .name
            .as_deref()
            .is_some_and(|is| is.eq_ignore_ascii_case(name))
    };
    containers.iter().find(is)
}
