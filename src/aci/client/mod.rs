//! Client for Azure Resource Manager (ARM) and Azure Container Instances.
//!
//! In: an operation and the name of a container group. Out: Azure's answer, or an [`Error`] with Azure's own
//! message. The crate `azure_mgmt_containerinstance` provides routes and the HTTP pipeline. The request and
//! response bodies are burstpool's own types, because the crate's model drops secret volumes and cannot read some
//! real answers.
//!
//! One call is one request: this module does not retry. After a 429, `gate` rejects further requests of the same
//! class until the time that Azure asked for has passed.

mod cloud;
mod credential;
mod list;
mod metrics;
mod rate_limit;
mod requests;
mod terminal;
mod transport;

use std::sync::Arc;

use azure_mgmt_containerinstance::package_preview_2024_05 as crate_api;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

pub use cloud::{CloudEndpoints, UnknownCloud};
pub use credential::Credential;
pub use list::GroupList;
pub use metrics::{MinuteUsage, MinuteUsages};
pub use rate_limit::{RateLimitKey, RequestClass, RetryAfterGate};
use requests::read_json;
pub use terminal::{TerminalInput, TerminalOutput};
use transport::{PlaceholderCredential, Transport};

use super::error::Error;
use crate::aci::image::AZURE_REGISTRY_SCOPE;
use crate::aci::translate::secret_string::SecretString;
use crate::telemetry::Metrics;

/// The API version of Container Instances: stable, and a superset of 2024-05-01-preview, which the crate is
/// generated from.
const API_VERSION: &str = "2025-09-01";

/// The subscription and resource group that contain the container groups.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupScope {
    /// The ID of the subscription.
    pub subscription: String,
    /// The name of the resource group.
    pub resource_group: String,
}

/// The result of a DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupDeletion {
    /// The group does not exist: status 204 or 404.
    NotFound,
    /// The group existed and is deleted now: status 200, whose body is the group.
    Deleted,
    /// Azure has started to delete the group: status 202.
    Started,
}

/// A terminal session in a container, as Azure's `exec` call returns it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminalSession {
    /// The URL of the session's websocket.
    pub web_socket_uri: String,
    /// The first message to send on the websocket.
    pub password: String,
}

/// The usage and the limit of one quota of a subscription in a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaUsage {
    /// The quota's name in Azure: `ContainerGroups`, `StandardCores`, ...
    pub name: String,
    /// The amount in use, in the quota's unit (groups or cores), rounded up.
    pub used: i64,
    /// The limit, in the same unit.
    pub limit: i64,
}

impl QuotaUsage {
    /// Reads one usage from JSON; `None` if the name or a number is missing.
    fn parse(usage: &Value) -> Option<Self> {
        Some(Self {
            name: usage["name"]["value"].as_str()?.to_owned(),
            used: whole_number(&usage["currentValue"])?,
            limit: whole_number(&usage["limit"])?,
        })
    }

    /// Whether this is the quota called `name`. ARM compares names without regard to case.
    pub fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Reads a number as an integer and rounds fractions up. Some Azure services write whole numbers with a fraction; a
/// limit that is not read would look like no limit.
fn whole_number(number: &Value) -> Option<i64> {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a number out of range becomes the bound"
    )]
    let rounded = || Some(number.as_f64()?.ceil() as i64);
    number.as_i64().or_else(rounded)
}

/// What is needed to build an HTTP client for Azure.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// The Azure cloud, such as public or US Government.
    pub cloud: CloudEndpoints,
    /// Certificates to trust in addition to the system's, in PEM.
    pub extra_ca: Vec<u8>,
}

/// A client for one cloud with one credential; cheap to clone. All clones share the rate limits.
#[derive(Clone)]
pub struct AciClient {
    api: crate_api::Client,
    transport: Arc<Transport>,
    arm: Url,
    gate: Arc<RetryAfterGate>,
    monitor_scope: String,
    /// The region of the groups that this client creates and deletes; `None` if it is not set.
    region: Option<String>,
    metrics: Arc<Metrics>,
}

/// Builds an HTTP client that trusts the system's certificates and those of the settings.
pub fn http_client(settings: &ClientSettings) -> reqwest::Result<reqwest::Client> {
    let extra = reqwest::Certificate::from_pem_bundle(&settings.extra_ca)?;
    Transport::new_http_client(&extra)
}

impl AciClient {
    /// Creates a client that authenticates with `credential`.
    pub fn new(cloud: &CloudEndpoints, credential: Credential, http: reqwest::Client) -> Self {
        let mut arm = cloud.arm.clone();
        arm.query_pairs_mut()
            .append_pair("api-version", API_VERSION);
        let scope = cloud.scope.clone();
        let transport = Arc::new(Transport {
            http,
            credential,
            scope: scope.clone(),
        });
        let options = transport::client_options(transport.clone());
        let api = crate_api::Client::new(
            arm.clone(),
            Arc::new(PlaceholderCredential),
            vec![scope],
            options,
        );
        Self {
            api,
            transport,
            arm,
            gate: Arc::default(),
            monitor_scope: cloud.monitor_scope.clone(),
            region: None,
            metrics: Arc::default(),
        }
    }

    /// The same client, but it counts its requests in `metrics`.
    #[must_use]
    pub fn with_metrics(self, metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..self }
    }

    /// The same client for groups in `region`. Azure counts creates and deletes for each region separately.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        Self {
            region: Some(region.to_owned()),
            ..self.clone()
        }
    }

    /// The HTTP client for Azure, with the extra certificates that `--arm-ca-file` adds.
    pub fn http_client(&self) -> reqwest::Client {
        self.transport.http.clone()
    }

    /// An `Authorization` header with a token for Azure Monitor's managed Prometheus. The value is marked as
    /// sensitive, so that `Debug` does not print it.
    pub async fn monitor_token(&self) -> Result<http::HeaderValue, String> {
        let token = self.transport.credential.token(&self.monitor_scope).await;
        let token = token.map_err(|error| error.to_string())?;
        let value = http::HeaderValue::from_str(&format!("Bearer {}", token.secret()));
        let mut value = value.map_err(|_| "the token cannot be in a header".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// A token of the operator's identity for Azure Container Registry.
    pub async fn registry_token(&self) -> Result<SecretString, String> {
        let token = self.transport.credential.token(AZURE_REGISTRY_SCOPE).await;
        let token = token.map_err(|error| error.to_string())?;
        Ok(SecretString::new(token.secret()))
    }

    /// Creates or updates a container group. Returns the group as Azure describes it in its answer.
    pub async fn put(
        &self,
        scope: &GroupScope,
        name: &str,
        body: &impl Serialize,
    ) -> Result<Value, Error> {
        let what = format!("creating container group {name}");
        let body = serde_json::to_vec(body).map_err(|source| Error::Unreadable {
            what: what.clone(),
            source,
        })?;
        let properties = crate_api::models::container_group_properties::Properties::new(Vec::new());
        let properties = crate_api::models::ContainerGroupProperties::new(properties);
        let empty = crate_api::models::ContainerGroup::new(properties);
        let groups = self.api.container_groups_client();
        let call = groups.create_or_update(&scope.subscription, &scope.resource_group, name, empty);
        let call = transport::with_body(Bytes::from(body), call.send());
        let sent = self
            .send_counted(scope, RequestClass::Creates, &what, call)
            .await?;
        read_json(sent.into_raw_response(), &what).await
    }

    /// Reads a container group with its instance views (the live states of its containers).
    pub async fn get(&self, scope: &GroupScope, name: &str) -> Result<Value, Error> {
        let what = format!("reading container group {name}");
        let groups = self.api.container_groups_client();
        let call = groups.get(&scope.subscription, &scope.resource_group, name);
        let sent = self
            .send_counted(scope, RequestClass::Reads, &what, call.send())
            .await?;
        read_json(sent.into_raw_response(), &what).await
    }

    /// Deletes a container group. A group that does not exist is not an error: see [`GroupDeletion::NotFound`].
    pub async fn delete(&self, scope: &GroupScope, name: &str) -> Result<GroupDeletion, Error> {
        let what = format!("deleting container group {name}");
        let groups = self.api.container_groups_client();
        let call = groups.delete(&scope.subscription, &scope.resource_group, name);
        match self
            .send_counted(scope, RequestClass::Deletes, &what, call.send())
            .await
        {
            Ok(sent) => Ok(match u16::from(sent.as_raw_response().status()) {
                200 => GroupDeletion::Deleted,
                202 => GroupDeletion::Started,
                _ => GroupDeletion::NotFound,
            }),
            Err(error) if error.means_nothing_to_delete() => Ok(GroupDeletion::NotFound),
            Err(error) => Err(error),
        }
    }

    /// Stops a container group: its containers end and Azure stops billing it.
    pub async fn stop(&self, scope: &GroupScope, name: &str) -> Result<(), Error> {
        let what = format!("stopping container group {name}");
        let groups = self.api.container_groups_client();
        let call = groups.stop(&scope.subscription, &scope.resource_group, name);
        self.send_counted(scope, RequestClass::Actions, &what, call.send())
            .await
            .map(drop)
    }

    /// The time until which Azure asked to send no creates of container groups; `None` if creates may be sent.
    pub fn creates_blocked_until(&self, scope: &GroupScope) -> Option<Timestamp> {
        self.gate.blocked_until(&self.create_limit_key(scope))
    }

    /// How many container groups Azure still lets this client create, and the latest time at which that budget is
    /// renewed; `None` if it is not known.
    pub fn remaining_creates(&self, scope: &GroupScope) -> Option<(u64, Timestamp)> {
        self.gate.remaining_budget(&self.create_limit_key(scope))
    }

    fn create_limit_key(&self, scope: &GroupScope) -> RateLimitKey {
        RateLimitKey::new(
            &scope.subscription,
            self.region.as_deref(),
            RequestClass::Creates,
        )
    }

    /// The subscription's quota usages in `region`.
    pub async fn usages(&self, scope: &GroupScope, region: &str) -> Result<Vec<QuotaUsage>, Error> {
        let what = format!("reading usages of {region}");
        let call = self
            .api
            .location_client()
            .list_usage(&scope.subscription, region);
        let sent = self
            .send_counted(scope, RequestClass::Reads, &what, call.send())
            .await?;
        let answer = read_json(sent.into_raw_response(), &what).await?;
        let usages = answer["value"].as_array().into_iter().flatten();
        Ok(usages.filter_map(QuotaUsage::parse).collect())
    }

    /// The last `tail` lines of a container's log; without `tail`, all that ACI keeps.
    pub async fn logs(
        &self,
        scope: &GroupScope,
        name: &str,
        container: &str,
        tail: Option<i32>,
        timestamps: bool,
    ) -> Result<String, Error> {
        let what = format!("reading logs of {container} in {name}");
        let containers = self.api.containers_client();
        let mut call =
            containers.list_logs(&scope.subscription, &scope.resource_group, name, container);
        call = call.timestamps(timestamps);
        if let Some(tail) = tail {
            call = call.tail(tail);
        }
        let sent = self
            .send_counted(scope, RequestClass::Reads, &what, call.send())
            .await?;
        let answer = read_json(sent.into_raw_response(), &what).await?;
        Ok(answer["content"].as_str().unwrap_or_default().to_owned())
    }

    /// Starts a command in a container, in a terminal of the given size (rows, columns).
    pub async fn exec(
        &self,
        scope: &GroupScope,
        name: &str,
        container: &str,
        command: &str,
        (rows, cols): (u16, u16),
    ) -> Result<TerminalSession, Error> {
        let what = format!("running a command in {container} of {name}");
        let body = serde_json::json!({
            "command": command,
            "terminalSize": {"rows": rows, "cols": cols},
        });
        let request = crate_api::models::ContainerExecRequest::new();
        let containers = self.api.containers_client();
        let (subscription, group) = (&scope.subscription, &scope.resource_group);
        let call = containers.execute_command(subscription, group, name, container, request);
        let call = transport::with_body(Bytes::from(body.to_string()), call.send());
        let sent = self
            .send_counted(scope, RequestClass::Actions, &what, call)
            .await?;
        let answer = read_json(sent.into_raw_response(), &what).await?;
        serde_json::from_value(answer).map_err(|source| Error::Unreadable { what, source })
    }

    async fn get_url(&self, url: Url) -> azure_core::Result<azure_core::Response> {
        use azure_core::HttpClient as _;
        let request = azure_core::Request::new(url, azure_core::Method::Get);
        self.transport.execute_request(&request).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_usage_is_read_however_its_numbers_are_written() {
        let read = |used: Value, limit: Value| {
            let usage =
                json!({"name": {"value": "StandardCores"}, "currentValue": used, "limit": limit});
            QuotaUsage::parse(&usage).map(|usage| (usage.used, usage.limit))
        };
        assert_eq!(read(json!(3), json!(10)), Some((3, 10)));
        assert_eq!(read(json!(2.5), json!(10.0)), Some((3, 10)));
        assert_eq!(read(json!(0), json!(u64::MAX)), Some((0, i64::MAX)));
        assert_eq!(read(json!(0), json!("many")), None);
    }
}
