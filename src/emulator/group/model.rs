//! The request body of a container group, as the service's specification defines it.
//!
//! In: the JSON of a PUT. Out: typed values for `validate`, the life cycle and the container engine;
//! serialized again, they are the body that the service echoes. Secret fields are marked
//! `skip_serializing`, so that no response can contain them. Properties that no version of the service
//! knows are dropped.
//!
//! All fields are optional here, even those that the specification requires: `validate` rejects missing
//! ones with the service's error code.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

/// A JSON object of any content.
pub type JsonObject = serde_json::Map<String, Value>;

macro_rules! body {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[allow(missing_docs, reason = "the fields are the specification's, by its names")]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub $field: Option<$type>,
            )*
        }
    )*};
}

body! {
    /// The body of `ContainerGroups_CreateOrUpdate`.
    GroupBody {
        location: String,
        tags: BTreeMap<String, String>,
        zones: Vec<String>,
        identity: Identity,
        properties: Properties,
    }
    /// The `properties` of a container group.
    Properties {
        sku: String,
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        image_registry_credentials: Vec<RegistryCredential>,
        restart_policy: String,
        ip_address: IpAddress,
        os_type: String,
        volumes: Vec<Volume>,
        diagnostics: Diagnostics,
        subnet_ids: Vec<SubnetId>,
        dns_config: DnsConfig,
        encryption_properties: JsonObject,
        extensions: Vec<Extension>,
        confidential_compute_properties: JsonObject,
        priority: String,
        provisioning_timeout_in_seconds: i64,
        container_group_profile: ProfileReference,
        standby_pool_profile: JsonObject,
        secret_references: Vec<JsonObject>,
        identity_acls: JsonObject,
    }
    /// A container or an init container.
    Container {
        name: String,
        properties: ContainerProperties,
    }
    /// `ContainerProperties`. Init containers support a subset of them.
    ContainerProperties {
        image: String,
        command: Vec<String>,
        ports: Vec<Port>,
        environment_variables: Vec<EnvironmentVariable>,
        resources: Resources,
        volume_mounts: Vec<VolumeMount>,
        liveness_probe: Probe,
        readiness_probe: Probe,
        security_context: JsonObject,
        config_map: JsonObject,
    }
    /// A port of a container or of the group's IP address.
    Port {
        protocol: String,
        port: i64,
    }
    /// An environment variable. Responses never contain its secure value.
    EnvironmentVariable {
        name: String,
        value: String,
        #[serde(skip_serializing)]
        secure_value: String,
        secure_value_reference: String,
    }
    /// Requests and limits.
    Resources {
        requests: Amounts,
        limits: Amounts,
    }
    /// An amount of CPU (cores) and memory (GB of 10^9 bytes).
    Amounts {
        #[serde(rename = "memoryInGB")]
        memory_in_gb: f64,
        cpu: f64,
        gpu: Gpu,
    }
    /// GPUs: retired by the service in 2025, still in the schema.
    Gpu {
        count: i64,
        sku: String,
    }
    /// The mount of a volume in a container.
    VolumeMount {
        name: String,
        mount_path: String,
        read_only: bool,
    }
    /// A liveness or readiness probe. `validate` rejects `tcp_socket` and `grpc`, which the service
    /// does not have.
    Probe {
        exec: ProbeExec,
        http_get: ProbeHttpGet,
        initial_delay_seconds: i64,
        period_seconds: i64,
        failure_threshold: i64,
        success_threshold: i64,
        timeout_seconds: i64,
        tcp_socket: JsonObject,
        grpc: JsonObject,
    }
    /// A probe's command.
    ProbeExec {
        command: Vec<String>,
    }
    /// A probe's HTTP request.
    ProbeHttpGet {
        path: String,
        port: i64,
        scheme: String,
        http_headers: Vec<HttpHeader>,
    }
    /// A header of a probe's HTTP request.
    HttpHeader {
        name: String,
        value: String,
    }
    /// A volume. Exactly one kind is set.
    Volume {
        name: String,
        azure_file: AzureFile,
        empty_dir: JsonObject,
        #[serde(serialize_with = "emptied")]
        secret: BTreeMap<String, String>,
        git_repo: JsonObject,
        secret_reference: JsonObject,
    }
    /// An Azure Files share. Responses never contain its key.
    AzureFile {
        share_name: String,
        read_only: bool,
        storage_account_name: String,
        #[serde(skip_serializing)]
        storage_account_key: String,
        storage_account_key_reference: String,
        user_assigned_identity_client_id: String,
    }
    /// A registry's credential. Responses never contain its password.
    RegistryCredential {
        server: String,
        username: String,
        #[serde(skip_serializing)]
        password: String,
        password_reference: String,
        identity: String,
        identity_url: String,
    }
    /// The group's IP address.
    IpAddress {
        ports: Vec<Port>,
        #[serde(rename = "type")]
        kind: String,
        ip: String,
        dns_name_label: String,
        auto_generated_domain_name_label_scope: String,
    }
    /// The subnet of a group.
    SubnetId {
        id: String,
        name: String,
    }
    /// DNS settings of a group.
    DnsConfig {
        name_servers: Vec<String>,
        search_domains: String,
        options: String,
    }
    /// The destination of a group's logs.
    Diagnostics {
        log_analytics: LogAnalytics,
    }
    /// A Log Analytics workspace. Responses never contain its key.
    LogAnalytics {
        workspace_id: String,
        #[serde(skip_serializing)]
        workspace_key: String,
        log_type: String,
        metadata: BTreeMap<String, String>,
        workspace_resource_id: String,
    }
    /// A virtual-kubelet extension: kube-proxy or realtime-metrics.
    Extension {
        name: String,
        properties: ExtensionProperties,
    }
    /// An extension's settings. Responses never contain the protected ones.
    ExtensionProperties {
        extension_type: String,
        version: String,
        settings: Value,
        #[serde(skip_serializing)]
        protected_settings: Value,
    }
    /// A reference to a container group profile.
    ProfileReference {
        id: String,
        revision: i64,
    }
    /// A managed identity.
    Identity {
        #[serde(rename = "type")]
        kind: String,
        user_assigned_identities: BTreeMap<String, Value>,
    }
    /// The body of `ContainerGroups_Update`.
    TagsBody {
        tags: BTreeMap<String, String>,
    }
    /// The body of `Containers_ExecuteCommand`.
    ExecBody {
        command: String,
        terminal_size: TerminalSize,
    }
    /// A terminal's size in characters.
    TerminalSize {
        rows: i64,
        cols: i64,
    }
}

/// Responses show a secret volume as `{}`.
#[allow(clippy::ref_option, reason = "serde passes the field by reference")]
fn emptied<S: Serializer>(
    _: &Option<BTreeMap<String, String>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    json!({}).serialize(serializer)
}

impl Properties {
    /// The containers, without init containers.
    pub fn containers(&self) -> &[Container] {
        self.containers.as_deref().unwrap_or_default()
    }

    /// The init containers, in execution order.
    pub fn init_containers(&self) -> &[Container] {
        self.init_containers.as_deref().unwrap_or_default()
    }

    /// The volumes.
    pub fn volumes(&self) -> &[Volume] {
        self.volumes.as_deref().unwrap_or_default()
    }

    /// The sum of all containers' requests: CPU cores and memory in GB. Init containers do not count.
    pub fn total(&self) -> (f64, f64) {
        self.containers()
            .iter()
            .fold((0.0, 0.0), |(cpu, memory), container| {
                let (c, m) = container.requests();
                (cpu + c, memory + m)
            })
    }

    /// Whether the group has the priority `Spot`.
    pub fn is_spot(&self) -> bool {
        self.priority
            .as_deref()
            .is_some_and(|p| p.eq_ignore_ascii_case("Spot"))
    }

    /// Whether the group is in a subnet.
    pub fn is_in_subnet(&self) -> bool {
        self.subnet_ids.as_ref().is_some_and(|ids| !ids.is_empty())
    }

    /// Whether the group has an extension of this type.
    pub fn has_extension(&self, kind: &str) -> bool {
        let mut extensions = self.extensions.iter().flatten();
        extensions.any(|extension| {
            let properties = extension.properties.as_ref();
            properties.and_then(|p| p.extension_type.as_deref()) == Some(kind)
        })
    }

    /// The operating system as given in `osType`; `Linux` if missing.
    pub fn os(&self) -> &str {
        self.os_type.as_deref().unwrap_or("Linux")
    }
}

impl Container {
    /// The container's name. Empty only before validation.
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    /// The container's image. Empty only before validation.
    pub fn image(&self) -> &str {
        self.inner()
            .and_then(|p| p.image.as_deref())
            .unwrap_or_default()
    }

    /// The whole command line. Empty: the image's own.
    pub fn command(&self) -> &[String] {
        self.inner()
            .and_then(|p| p.command.as_deref())
            .unwrap_or_default()
    }

    /// The environment variables.
    pub fn environment(&self) -> &[EnvironmentVariable] {
        self.inner()
            .and_then(|p| p.environment_variables.as_deref())
            .unwrap_or_default()
    }

    /// The volume mounts.
    pub fn mounts(&self) -> &[VolumeMount] {
        self.inner()
            .and_then(|p| p.volume_mounts.as_deref())
            .unwrap_or_default()
    }

    /// The container's requests: CPU cores and memory in GB.
    pub fn requests(&self) -> (f64, f64) {
        let requests = self
            .inner()
            .and_then(|p| p.resources.as_ref())
            .and_then(|r| r.requests.as_ref());
        requests.map_or((0.0, 0.0), |r| {
            (r.cpu.unwrap_or(0.0), r.memory_in_gb.unwrap_or(0.0))
        })
    }

    /// The container's limits, or its requests where it has no limit: CPU cores and memory in GB.
    pub fn limits(&self) -> (f64, f64) {
        let (cpu, memory) = self.requests();
        let limits = self
            .inner()
            .and_then(|p| p.resources.as_ref())
            .and_then(|r| r.limits.as_ref());
        limits.map_or((cpu, memory), |l| {
            (l.cpu.unwrap_or(cpu), l.memory_in_gb.unwrap_or(memory))
        })
    }

    fn inner(&self) -> Option<&ContainerProperties> {
        self.properties.as_ref()
    }
}

/// Decodes a secret volume's file from base64. Accepts missing padding: the service's examples
/// (`SecretValue1InBase64`) do not have it.
pub fn secret_bytes(text: &str) -> Option<Vec<u8>> {
    let unpadded = || STANDARD_NO_PAD.decode(text.trim_end_matches('='));
    STANDARD.decode(text).or_else(|_| unpadded()).ok()
}

impl EnvironmentVariable {
    /// The value that the process sees: the plain value, or else the secure one.
    pub fn seen(&self) -> &str {
        self.value
            .as_deref()
            .or(self.secure_value.as_deref())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
