//! What starts a burst before the nodes are full: Prometheus, a schedule or an alert.

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

/// What says that there is a peak, or will be. While one of a pool's triggers is active, pods are held
/// for spill.afterWhenTriggered only, and workloads with a scale block get the replicas that it asks for.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(has(self.prometheus) ? 1 : 0) + (has(self.schedule) ? 1 : 0) + (has(self.alert) ? 1 : 0) == 1")
        .message("exactly one of prometheus, schedule and alert must be set")
)]
#[x_kube(
    validation = Rule::new("!has(self.onError) || has(self.prometheus)")
        .message("onError can only be set with prometheus: schedules and alerts have no errors")
)]
pub struct Trigger {
    /// The trigger's name, unique in the pool.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')")
        .message("must be 1 to 63 lowercase letters, numbers and hyphens, and begin and end with a letter or number"))]
    pub name: String,
    /// Active while a query's value is above a threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prometheus: Option<Prometheus>,
    /// Active in windows of time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Active while Alertmanager says that an alert fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alert: Option<Alert>,
    /// What the trigger is while Prometheus does not say: the last decision for a time, and then what is
    /// set here. A missing series is not zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
}

/// A query of Prometheus, or of what speaks its API (Thanos, Mimir, Azure Monitor).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.authSecretRef) || !has(self.azureCredential) || !self.azureCredential")
        .message("authSecretRef and azureCredential cannot be combined: both say who asks; remove one")
)]
#[x_kube(
    validation = Rule::new("!has(self.azureCredential) || !self.azureCredential || self.serverAddress.startsWith('https://')")
        .message("azureCredential needs a serverAddress that begins with https://: a token is sent there")
)]
pub struct Prometheus {
    /// Scheme, host, port and path before /api/v1, such as http://prometheus.monitoring:9090.
    #[allow(
        rustdoc::bare_urls,
        reason = "`kubectl explain` shows this as it stands"
    )]
    #[schemars(length(max = 500))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^/?#@ ]+(/[^?#@ ]*)?$')")
        .message("must be a URL such as http://prometheus.monitoring:9090, without credentials (authSecretRef has them), query or fragment"))]
    pub server_address: String,
    /// What is asked, in PromQL: a scalar, or a vector of one element.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The value that one replica can bear: a workload that scales by this trigger gets value / threshold
    /// replicas, rounded up. Above 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]+([.][0-9]+)?$') && double(self) > 0.0")
        .message("must be a number above 0, such as \"100\" or \"0.5\""))]
    pub threshold: Option<String>,
    /// The trigger is active while the value is above this, and not while it is equal.
    #[serde(default = "zero")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^-?[0-9]+([.][0-9]+)?$')")
        .message("must be a number, such as \"0\" or \"0.5\""))]
    pub activation_threshold: String,
    /// A Secret with what Prometheus asks for, by the keys that it has: username and password (basic),
    /// token (bearer), headerName and headerValue, tls.crt and tls.key (a client certificate), ca.crt
    /// (whom to trust). It is read for every query, so that a change needs no restart. It is sent only to
    /// the servers that its annotation burstpool.io/allow-server lists: host or host:port, separated by commas.
    /// Service accounts' tokens are never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_secret_ref: Option<SecretRef>,
    /// Whether the Secret of authSecretRef may be sent where serverAddress begins with http://: unencrypted, so
    /// that everyone on the network path can read it.
    #[serde(default, rename = "credentialsOverHTTP")]
    pub credentials_over_http: bool,
    /// Whether the operator's own Azure identity asks, as Azure Monitor's managed Prometheus wants it: only
    /// at hosts of Azure Monitor, and those of --azure-monitor-host. It needs the role Monitoring Data Reader.
    #[serde(default)]
    pub azure_credential: bool,
    /// How long an answer may take.
    #[serde(default = "prometheus_timeout")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ms|s|m))+$') && duration(self) >= duration('100ms') && duration(self) <= duration('1m')")
        .message("must be a duration from 100ms to 1m, such as 5s"))]
    pub timeout: Span,
    /// How often it is asked.
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

/// A Secret by its namespace and name.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Its namespace, in which the operator must have the rights of config/namespace.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What a trigger is while nobody knows its value.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct OnError {
    /// For how long the last decision is kept; no workload is scaled in meanwhile.
    #[serde(default = "keep_for")]
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ns|ms|s|m|h))+$') && duration(self) <= duration('24h')")
        .message("must be a duration of at most 24h, such as 5m"))]
    pub keep_for: Span,
    /// What the trigger is then.
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

/// What a trigger is when nobody has known its value for long.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// As if there were no peak.
    #[default]
    Inactive,
    /// As if there were one: workloads keep the replicas that they have, or get more by other triggers.
    Active,
}

/// Windows of time.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// When a window begins: minute, hour, day of month, month and day of week, as in a crontab. A time
    /// that a change of clocks skips is the moment of the change, and of a time that comes twice the first
    /// counts; where the hour begins with *, a skipped one is none and both that come twice count.
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^@(hourly|daily|midnight|weekly|monthly|yearly|annually)$|^[-0-9*/,]+( +[-0-9*/,]+){2} +[-0-9A-Za-z*/,]+ +[-0-9A-Za-z*/,]+$')")
        .message("must be five fields as in a crontab, such as \"0 8 * * 1-5\""))]
    pub start: String,
    /// How long a window is, in time that passes. It may be longer than from one start to the next.
    #[schemars(length(max = 20))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]+(ms|s|m|h))+$') && duration(self) >= duration('1s') && duration(self) <= duration('744h')")
        .message("must be a duration from 1s to 744h, such as 10h"))]
    pub duration: Span,
    /// The time zone of start, by its IANA name.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z]+([-_+/A-Za-z0-9]*[A-Za-z0-9])?$') && self.lowerAscii() != 'local'")
        .message("must be a time zone's IANA name, such as Europe/Berlin or UTC"))]
    pub time_zone: String,
    /// How many replicas a workload that scales by this trigger gets in a window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 5000))]
    pub replicas: Option<i32>,
}

/// Alerts that Alertmanager sends to the operator's receiver (--alerts-listen).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// The labels, with their values, that an alert must have.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
    /// How many replicas a workload that scales by this trigger gets while the alert fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 5000))]
    pub replicas: Option<i32>,
    /// For how long an alert is believed to fire that is neither sent again nor resolved: longer than
    /// Alertmanager's repeat_interval.
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

/// Alertmanager's repeat_interval is 4 h if nobody sets it.
fn expire_after() -> Span {
    Duration::from_secs(5 * 3600).into()
}
