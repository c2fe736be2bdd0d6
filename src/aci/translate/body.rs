//! The body of `ContainerGroups_CreateOrUpdate`, with the field names of the API (containerInstance.json
//! 2024-05-01-preview; 2025-09-01 is a superset of the parts used here).
//!
//! In: the values that the translation sets. Out: serialized, exactly the JSON that is sent. `Debug` prints no
//! secret.

use std::collections::BTreeMap;

use serde::Serialize;

use super::secret_string::SecretString;

macro_rules! body {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(missing_docs, reason = "the fields are the specification's, by its names")]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $type,)*
        }
    )*};
}

body! {
    /// A container group.
    Group {
        location: String,
        tags: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        zones: Vec<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        identity: Option<Identity>,
        properties: Properties,
    }
    /// The managed identities that code in the group may use.
    Identity {
        #[serde(rename = "type")]
        kind: String,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        user_assigned_identities: BTreeMap<String, EmptyObject>,
    }
    /// `ContainerGroupProperties.properties`.
    Properties {
        containers: Vec<Container>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_containers: Vec<Container>,
        os_type: &'static str,
        restart_policy: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        sku: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        confidential_compute_properties: Option<Confidential>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        image_registry_credentials: Vec<RegistryCredential>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ip_address: Option<IpAddress>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        subnet_ids: Vec<SubnetId>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dns_config: Option<DnsConfig>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        volumes: Vec<Volume>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        extensions: Vec<Extension>,
    }
    /// The policy of a confidential group: which code may run in it.
    Confidential {
        cce_policy: String,
    }
    /// A container or an init container.
    Container {
        name: String,
        properties: ContainerProperties,
    }
    /// `ContainerProperties`. An init container has no ports, resources or probes.
    ContainerProperties {
        image: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        command: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        ports: Vec<Port>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        environment_variables: Vec<EnvironmentVariable>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resources: Option<Resources>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        volume_mounts: Vec<VolumeMount>,
        #[serde(skip_serializing_if = "Option::is_none")]
        liveness_probe: Option<Probe>,
        #[serde(skip_serializing_if = "Option::is_none")]
        readiness_probe: Option<Probe>,
        #[serde(skip_serializing_if = "Option::is_none")]
        security_context: Option<SecurityContext>,
    }
    /// A port of a container or of the group's address.
    #[derive(Copy, Eq, PartialOrd, Ord)]
    Port {
        protocol: PortProtocol,
        port: u16,
    }
    /// An environment variable: exactly one of the two values is set.
    EnvironmentVariable {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        secure_value: Option<SecretString>,
    }
    /// Requests and limits.
    Resources {
        requests: Amounts,
        limits: Amounts,
    }
    /// CPU in cores, and memory in GB of 10^9 bytes.
    #[derive(Copy)]
    Amounts {
        cpu: f64,
        #[serde(rename = "memoryInGB")]
        memory_in_gb: f64,
    }
    /// Where a volume is mounted.
    VolumeMount {
        name: String,
        mount_path: String,
        read_only: bool,
    }
    /// A liveness or readiness probe: exactly one of the two kinds is set.
    Probe {
        #[serde(skip_serializing_if = "Option::is_none")]
        exec: Option<ProbeExec>,
        #[serde(skip_serializing_if = "Option::is_none")]
        http_get: Option<ProbeHttpGet>,
        initial_delay_seconds: i32,
        period_seconds: i32,
        failure_threshold: i32,
        success_threshold: i32,
        timeout_seconds: i32,
    }
    /// A probe's command.
    ProbeExec {
        command: Vec<String>,
    }
    /// A probe's HTTP request.
    ProbeHttpGet {
        path: String,
        port: u16,
        scheme: &'static str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        http_headers: Vec<HttpHeader>,
    }
    /// A header of a probe's request.
    HttpHeader {
        name: String,
        value: String,
    }
    /// User and privileges of a container's process.
    SecurityContext {
        #[serde(skip_serializing_if = "Option::is_none")]
        privileged: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        allow_privilege_escalation: Option<bool>,
        #[serde(skip_serializing_if = "Option::is_none")]
        capabilities: Option<Capabilities>,
        #[serde(skip_serializing_if = "Option::is_none")]
        run_as_user: Option<i32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        run_as_group: Option<i32>,
    }
    /// Capabilities by their kernel names, or `ALL`.
    Capabilities {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        add: Vec<String>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        drop: Vec<String>,
    }
    /// A volume: exactly one kind is set.
    Volume {
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        azure_file: Option<AzureFile>,
        #[serde(skip_serializing_if = "Option::is_none")]
        empty_dir: Option<EmptyObject>,
        #[serde(skip_serializing_if = "Option::is_none")]
        secret: Option<BTreeMap<String, SecretString>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        git_repo: Option<GitRepo>,
    }
    /// An Azure Files share.
    #[derive(Eq)]
    AzureFile {
        share_name: String,
        read_only: bool,
        storage_account_name: String,
        storage_account_key: SecretString,
    }
    /// A clone of a git repository.
    GitRepo {
        repository: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        directory: Option<String>,
    }
    /// The credential for a registry: a password or an identity.
    RegistryCredential {
        server: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        username: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        password: Option<SecretString>,
        #[serde(skip_serializing_if = "Option::is_none")]
        identity: Option<String>,
    }
    /// The group's public address.
    IpAddress {
        #[serde(rename = "type")]
        kind: &'static str,
        ports: Vec<Port>,
        #[serde(skip_serializing_if = "Option::is_none")]
        dns_name_label: Option<String>,
    }
    /// The subnet that contains a group.
    SubnetId {
        id: String,
    }
    /// An extension: a component that ACI runs in the group beside the containers.
    Extension {
        name: String,
        properties: ExtensionProperties,
    }
    /// The settings of an extension. Azure never returns the protected ones.
    ExtensionProperties {
        extension_type: &'static str,
        version: &'static str,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        settings: BTreeMap<String, String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        protected_settings: BTreeMap<String, SecretString>,
    }
    /// The DNS configuration of the group: name servers, search domains and options.
    DnsConfig {
        name_servers: Vec<String>,
        #[serde(skip_serializing_if = "String::is_empty")]
        search_domains: String,
        #[serde(skip_serializing_if = "String::is_empty")]
        options: String,
    }
}

/// The empty object, `{}`.
pub type EmptyObject = serde_json::Map<String, serde_json::Value>;

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum PortProtocol {
    /// TCP.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP.
    #[serde(rename = "UDP")]
    Udp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_sent_and_not_printed() {
        let hidden = || SecretString::new("HIDE");
        let mut group = Group::default();
        group.properties.volumes = vec![Volume {
            name: "files".into(),
            secret: Some(BTreeMap::from([("key".into(), hidden())])),
            azure_file: Some(AzureFile {
                storage_account_key: hidden(),
                ..AzureFile::default()
            }),
            ..Volume::default()
        }];
        group.properties.image_registry_credentials = vec![RegistryCredential {
            password: Some(hidden()),
            ..RegistryCredential::default()
        }];
        let variable = EnvironmentVariable {
            secure_value: Some(hidden()),
            ..EnvironmentVariable::default()
        };
        let mut container = Container::default();
        container.properties.environment_variables = vec![variable];
        group.properties.containers = vec![container];
        let mut extension = Extension::default();
        let settings = &mut extension.properties.protected_settings;
        settings.insert("kubeConfig".into(), hidden());
        group.properties.extensions = vec![extension];
        assert!(!format!("{group:?} {group:#?}").contains("HIDE"));
        let sent = serde_json::to_string(&group).expect("it serialises");
        assert_eq!(sent.matches("HIDE").count(), 5);
    }
}
