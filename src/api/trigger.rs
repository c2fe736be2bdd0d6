//! `spec.triggers`: signals of a load peak that come before the nodes are full.

#![allow(
    clippy::doc_markdown,
    reason = "kubectl explain shows these comments as they stand"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use kube::KubeSchema;
use kube::core::Duration as Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A signal of a load peak: a Prometheus query, a schedule or an alert. While
/// one of a pool's triggers is active, pods are held for
/// spill.afterWhenTriggered instead of spill.after, and workloads with a scale
/// block get the replicas that it proposes.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.prometheus) ? 1 : 0) + (has(self.schedule) ? 1 : 0) + (has(self.alert) ? 1 : 0) == 1")
        .message("exactly one of prometheus, schedule and alert must be set")
)]
#[x_kube(
    validation = Rule::new("!has(self.onError) || has(self.prometheus)")
        .message("onError can only be set with prometheus: only a query can fail; remove onError")
)]
pub struct Trigger {
    /// The name of the trigger, unique in the pool: 1 to 63 lowercase letters,
    /// digits and hyphens.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("must be 1 to 63 lowercase letters, digits and hyphens, and begin and end with a letter or digit"))]
    pub name: String,
    /// Active while the value of a query is above a threshold. Exactly one of
    /// prometheus, schedule and alert must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// Active in recurring windows of time. Exactly one of prometheus, schedule and
    /// alert must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Active while an alert of Alertmanager fires. Exactly one of prometheus,
    /// schedule and alert must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// The state of the trigger while its value is unknown. For keepFor, the
    /// trigger keeps its last state; after that, it takes the state in the field
    /// then. A missing series is not 0: its value is unknown. Can only be set with
    /// prometheus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
}

/// What a trigger observes: the one of its blocks that is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TriggerKind<'a> {
    /// The value of a query, and the state of the trigger while the value is
    /// unknown. `None`: the defaults of [`OnError`].
    Prometheus(&'a Prometheus, Option<&'a OnError>),
    /// Recurring windows of time.
    Schedule(&'a Schedule),
    /// Alerts of Alertmanager.
    Alert(&'a Alert),
}

impl Trigger {
    /// The kind of the trigger.
    ///
    /// # Errors
    ///
    /// Not exactly one block is set. The API server accepts such a trigger only
    /// with the resource definition of another version.
    pub fn kind(&self) -> Result<TriggerKind<'_>, String> {
        match (&self.prometheus, &self.schedule, &self.alert) {
            (Some(query), None, None) => Ok(TriggerKind::Prometheus(query, self.on_error.as_ref())),
            (None, Some(schedule), None) => Ok(TriggerKind::Schedule(schedule)),
            (None, None, Some(alert)) => Ok(TriggerKind::Alert(alert)),
            _ => Err("exactly one of prometheus, schedule and alert must be set".to_owned()),
        }
    }
}

/// A query of Prometheus, or of a service with the same API (Thanos, Mimir,
/// Azure Monitor).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.authSecretRef) || !has(self.azureCredential) || !self.azureCredential")
        .message("authSecretRef and azureCredential cannot be combined: each authenticates the query; remove one")
)]
#[x_kube(
    validation = Rule::new("!has(self.azureCredential) || !self.azureCredential || self.serverAddress.startsWith('https://')")
        .message("azureCredential needs a serverAddress that begins with https://: the operator sends a token to it")
)]
pub struct Prometheus {
    /// The URL of Prometheus without /api/v1, such as
    /// http://prometheus.monitoring:9090. It must not contain credentials, a query
    /// or a fragment.
    #[allow(
        rustdoc::bare_urls,
        reason = "`kubectl explain` shows this as it stands"
    )]
    #[schemars(length(max = 500))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#@ ]+(/[^?#@ ]*)?$')")
        .message("must be a URL such as http://prometheus.monitoring:9090, without credentials (use authSecretRef), query or fragment"))]
    pub server_address: String,
    /// The PromQL query. Its result must be a scalar, or a vector with one element;
    /// the value is unknown otherwise.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The load that one replica can serve, a decimal number above 0. A workload
    /// that scales by this trigger gets value / threshold replicas, rounded up.
    /// Without it, the trigger proposes no replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+([.][0-9]+)?$') && double(self) > 0.0")
        .message("must be a number above 0, such as \"100\" or \"0.5\""))]
    pub threshold: Option<String>,
    /// The value above which the trigger is active, a decimal number. The trigger
    /// is inactive while the value is equal. Defaults to 0.
    #[serde(default = "zero")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^-?[0-9]+([.][0-9]+)?$')")
        .message("must be a number, such as \"0\" or \"0.5\""))]
    pub activation_threshold: String,
    /// The Secret with the credentials for Prometheus. Its keys are username and
    /// password (basic authentication), token (a bearer token), headerName and
    /// headerValue (a header), tls.crt and tls.key (a client certificate), and
    /// ca.crt (the only certificate authorities to trust). Only one of basic
    /// authentication, token and header can be used. The operator reads the Secret
    /// for each query, so a change needs no restart. It sends the credentials only
    /// to the servers in the Secret's annotation burstpool.io/allow-server: host or
    /// host:port, separated by commas. It never sends tokens of service accounts.
    /// Cannot be combined with azureCredential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<SecretRef>,
    /// Whether the operator may send the credentials of authSecretRef to a
    /// serverAddress that begins with http://. Everyone on the network path can
    /// then read them. If false, such a trigger sends no query, and the pool is
    /// Stalled. Defaults to false.
    #[serde(default, rename = "credentialsOverHTTP")]
    pub credentials_over_http: bool,
    /// Whether the query is authenticated with the operator's Azure identity, as
    /// Azure Monitor's managed Prometheus requires. The identity needs the role
    /// Monitoring Data Reader. The serverAddress must begin with https:// and name
    /// a host of Azure Monitor or of --azure-monitor-host. Cannot be combined with
    /// authSecretRef. Defaults to false.
    #[serde(default)]
    pub azure_credential: bool,
    /// How long a query may take before its value is unknown. From 100ms to 1m.
    /// Defaults to 5s.
    #[serde(default = "prometheus_timeout")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ms|s|m))+$') && duration(self) >= duration('100ms') && duration(self) <= duration('1m')")
        .message("must be a duration from 100ms to 1m, such as 5s"))]
    pub timeout: Span,
    /// How often the query is sent. From 1s to 1h. Defaults to 15s.
    #[serde(default = "prometheus_interval")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('1h')")
        .message("must be a duration from 1s to 1h, such as 15s"))]
    pub interval: Span,
}

fn zero() -> String {
    "0".to_owned()
}

fn prometheus_timeout() -> Span {
    Duration::from_secs(5).into()
}

fn prometheus_interval() -> Span {
    Duration::from_secs(15).into()
}

/// A reference to a Secret.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The namespace of the Secret. The operator needs the permissions of
    /// config/namespace there.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// The name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The state of a trigger while its value is unknown.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OnError {
    /// How long the trigger keeps its last state while its value is unknown. Its
    /// workloads are not scaled in during that time. From 0s to 24h. Defaults to
    /// 300s.
    #[serde(default = "keep_for")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 5m"))]
    pub keep_for: Span,
    /// The state of the trigger after keepFor. Inactive: as if there were no peak.
    /// Active: as if there were a peak; workloads keep their replicas, or get more
    /// by other triggers. Defaults to Inactive.
    #[serde(default)]
    pub then: Then,
}

impl Default for OnError {
    fn default() -> Self {
        Self {
            keep_for: keep_for(),
            then: Then::default(),
        }
    }
}

fn keep_for() -> Span {
    Duration::from_secs(300).into()
}

/// The state of a trigger whose value has been unknown for longer than keepFor.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// As if there were no peak.
    #[default]
    Inactive,
    /// As if there were a peak: workloads keep their replicas, or get more by other
    /// triggers.
    Active,
}

/// Recurring windows of time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// When a window begins: the five fields minute, hour, day of month, month and
    /// day of week of a crontab, or a name such as @daily. If daylight saving skips
    /// a start, the window begins at the change; if a start occurs twice, only the
    /// first one counts. If the hour field begins with *, skipped hours begin no
    /// window, and repeated hours begin two.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^@(hourly|daily|midnight|weekly|monthly|yearly|annually)$|^[-0-9*/,]+( +[-0-9*/,]+){2} +[-0-9A-Za-z*/,]+ +[-0-9A-Za-z*/,]+$')")
        .message("must be the five fields of a crontab, such as \"0 8 * * 1-5\", or a name such as @daily"))]
    pub start: String,
    /// The length of a window, in elapsed time. A window may be longer than the
    /// time until the next start. From 1s to 744h.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('744h')")
        .message("must be a duration from 1s to 744h, such as 10h"))]
    pub duration: Span,
    /// The time zone of start, by its IANA name, such as Europe/Berlin.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z]+([-_+/A-Za-z0-9]*[A-Za-z0-9])?$') && self.lowerAscii() != 'local'")
        .message("must be the IANA name of a time zone, such as Europe/Berlin or UTC"))]
    pub time_zone: String,
    /// The number of replicas that the trigger proposes while a window is open, for
    /// workloads that scale by it. From 0 to 5000. Without it, the trigger proposes
    /// no replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 5000))]
    pub replicas: Option<i32>,
}

/// Alerts that Alertmanager sends to the operator, at --alerts-listen.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// The labels, with their values, that an alert must have, 1 to 16. An alert
    /// must have all of them.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// The number of replicas that the trigger proposes while an alert fires, for
    /// workloads that scale by it. From 0 to 5000. Without it, the trigger proposes
    /// no replicas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 5000))]
    pub replicas: Option<i32>,
    /// How long an alert counts as firing if Alertmanager neither sends it again
    /// nor resolves it. Set it above Alertmanager's repeat_interval. From 1s to
    /// 744h. Defaults to 18000s.
    #[serde(default = "expire_after")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('744h')")
        .message("must be a duration from 1s to 744h, such as 5h"))]
    pub expire_after: Span,
}

impl Default for Alert {
    fn default() -> Self {
        Self {
            match_labels: BTreeMap::new(),
            replicas: None,
            expire_after: expire_after(),
        }
    }
}

/// 5 hours: longer than Alertmanager's default `repeat_interval`, 4 hours.
fn expire_after() -> Span {
    Duration::from_secs(5 * 3600).into()
}
