//! Builds the requests that create a group's containers in the engine. Pure.
//!
//! In: a group's body. Out: the bodies of `containers/create` for its infra container and for each of
//! its containers.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount};
use serde_json::Value;

use super::{images, pause};
use crate::emulator::group::model::{Container, DnsConfig, JsonObject, Properties};

/// Labels by name.
pub type EngineLabels = HashMap<String, String>;

/// Where a container of a group is placed: what does not come from its specification.
pub struct PlacedContainer {
    /// Its labels.
    pub labels: EngineLabels,
    /// What it mounts.
    pub mounts: Vec<Mount>,
    /// The infra container whose network it shares.
    pub infra: String,
    /// The machine's CPUs. Engines reject a limit above this.
    pub cpus: f64,
}

/// The infra container. It holds the group's network and DNS settings.
pub fn infra(name: &str, properties: &Properties, labels: EngineLabels) -> ContainerCreateBody {
    let dns = properties.dns_config.clone().unwrap_or_default();
    let DnsConfig {
        name_servers,
        search_domains,
        options,
    } = dns;
    let split_words = |text: Option<String>| {
        text.map(|text| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
    };
    // A host name has at most 63 characters.
    let hostname: String = name.chars().take(63).collect();
    ContainerCreateBody {
        image: Some(pause::IMAGE.to_owned()),
        entrypoint: Some(vec![pause::PROGRAM.to_owned()]),
        hostname: Some(hostname.trim_end_matches('-').to_owned()).filter(|name| !name.is_empty()),
        labels: Some(labels),
        stop_signal: Some("SIGKILL".to_owned()),
        host_config: Some(HostConfig {
            dns: name_servers,
            dns_search: split_words(search_domains),
            dns_options: split_words(options),
            ..host(Vec::new())
        }),
        ..ContainerCreateBody::default()
    }
}

/// A container of the group.
pub fn container(container: &Container, placed: PlacedContainer) -> ContainerCreateBody {
    let (cpu, memory) = container.limits();
    let security = container
        .properties
        .as_ref()
        .and_then(|p| p.security_context.as_ref());
    let command = container.command();
    let mut host = HostConfig {
        network_mode: Some(format!("container:{}", placed.infra)),
        nano_cpus: rounded_limit(cpu.min(placed.cpus) * 1e9),
        memory: rounded_limit(memory * 1e9),
        mounts: Some(placed.mounts).filter(|mounts| !mounts.is_empty()),
        ..host(options(security))
    };
    let capabilities = security.and_then(|s| s.get("capabilities"));
    host.cap_add = capabilities.and_then(|c| strings(c.get("add")));
    host.cap_drop = capabilities.and_then(|c| strings(c.get("drop")));
    ContainerCreateBody {
        image: Some(images::tagged(container.image().trim())),
        // In ACI, `command` is the whole command line: it replaces both entrypoint and command of the
        // image.
        entrypoint: Some(command.to_vec()).filter(|command| !command.is_empty()),
        cmd: Some(Vec::new()).filter(|_: &Vec<String>| !command.is_empty()),
        env: Some(environment(container)),
        user: security.and_then(user),
        labels: Some(placed.labels),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

fn host(mut options: Vec<String>) -> HostConfig {
    // With SELinux, a container could not read its volumes without this.
    options.push("label=disable".to_owned());
    HostConfig {
        privileged: Some(false),
        security_opt: Some(options),
        // podman may default to journald, whose logs cannot always be read back.
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: None,
        }),
        ..HostConfig::default()
    }
}

fn environment(container: &Container) -> Vec<String> {
    let to_text = |v: &crate::emulator::group::model::EnvironmentVariable| {
        format!("{}={}", v.name.as_deref().unwrap_or_default(), v.seen())
    };
    container.environment().iter().map(to_text).collect()
}

fn options(security: Option<&JsonObject>) -> Vec<String> {
    let escalates = security
        .and_then(|s| s.get("allowPrivilegeEscalation"))
        .and_then(Value::as_bool);
    if escalates == Some(false) {
        vec!["no-new-privileges".to_owned()]
    } else {
        Vec::new()
    }
}

/// `user[:group]`. A group without a user belongs to root.
fn user(security: &JsonObject) -> Option<String> {
    let number = |name| security.get(name).and_then(Value::as_u64);
    match (number("runAsUser"), number("runAsGroup")) {
        (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        (Some(user), None) => Some(user.to_string()),
        (None, Some(group)) => Some(format!("0:{group}")),
        (None, None) => None,
    }
}

fn strings(list: Option<&Value>) -> Option<Vec<String>> {
    let list = list?.as_array()?;
    Some(
        list.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    )
}

/// Rounds a limit. `None` if it is not positive.
fn rounded_limit(amount: f64) -> Option<i64> {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "validated amounts are small"
    )]
    let amount = amount.round() as i64;
    (amount > 0).then_some(amount)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn placed() -> PlacedContainer {
        PlacedContainer {
            labels: EngineLabels::new(),
            mounts: Vec::new(),
            infra: "i".into(),
            cpus: 2.0,
        }
    }

    #[test]
    fn a_command_replaces_entry_point_and_arguments_and_none_leaves_both() {
        let read = |value| serde_json::from_value::<Container>(value).expect("a container");
        let with =
            read(json!({"name": "a", "properties": {"image": "x", "command": ["sh", "-c", "ls"]}}));
        let body = container(&with, placed());
        assert_eq!(
            body.entrypoint,
            Some(vec!["sh".into(), "-c".into(), "ls".into()])
        );
        assert_eq!(body.cmd, Some(Vec::new()));
        let without = read(json!({"name": "a", "properties": {"image": "x"}}));
        let body = container(&without, placed());
        assert_eq!((body.entrypoint, body.cmd), (None, None));
    }

    #[test]
    fn limits_are_the_containers_own_and_cpus_are_capped_at_the_machines() {
        let spec_json = json!({"name": "a", "properties": {"image": "x",
            "environmentVariables": [{"name": "P", "secureValue": "s"}],
            "securityContext": {"runAsUser": 7, "allowPrivilegeEscalation": false},
            "resources": {"requests": {"cpu": 1, "memoryInGB": 0.5}, "limits": {"cpu": 4, "memoryInGB": 1.5}}}});
        let body = container(
            &serde_json::from_value(spec_json).expect("a container"),
            placed(),
        );
        assert_eq!(
            (body.env, body.user),
            (Some(vec!["P=s".into()]), Some("7".into()))
        );
        let host = body.host_config.expect("a host configuration");
        assert_eq!(
            (host.nano_cpus, host.memory),
            (Some(2_000_000_000), Some(1_500_000_000))
        );
        assert_eq!(host.network_mode.as_deref(), Some("container:i"));
        assert!(
            host.security_opt
                .is_some_and(|o| o.contains(&"no-new-privileges".to_owned()))
        );
    }
}
