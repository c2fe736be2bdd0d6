//! Queries Prometheus.
//!
//! In: a trigger's spec and its Secret. Out: the answer, published as the trigger's state. The query is sent as
//! a form, so that it may be long. Redirects are not followed, so that credentials reach no other server;
//! `server_address` decides which servers may receive them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::StreamExt as _;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;

use super::TriggerTask;
use super::auth::PrometheusAuth;
use super::server_address::{ServerAddress, check_allowed};
use crate::aci::address::is_reserved;
use crate::api::{OnError, Prometheus, SecretRef};
use crate::k8s::call;
use crate::telemetry::error_chain;
use crate::trigger::query_response::{self, MetricValue};
use crate::trigger::{QueryError, evaluation};

/// The timeout of a call to the API server, and of a request for an Azure token.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes: one value and its labels need far less.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
/// The longest excerpt of a connection's error that a status shows, in characters.
const MAX_ERROR_CHARS: usize = 300;

/// Queries at the trigger's interval, at least 1 s.
pub(super) async fn run(task: &TriggerTask, spec: &Prometheus, on_error: &OnError) {
    let mut querier = PrometheusQuerier {
        task,
        spec,
        cached_client: None,
    };
    let mut ticks =
        tokio::time::interval(Duration::from(spec.interval).max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let start = Instant::now();
        let result = querier.query_once().await;
        let (pool, trigger) = (&task.pool, &task.trigger);
        let metrics = &task.context.metrics;
        metrics.record_query(pool, trigger, start.elapsed(), result.is_ok());
        if let Err(why) = &result {
            tracing::debug!(pool, trigger, ?why, "cannot query Prometheus");
        }
        let now = Timestamp::now();
        task.publish(&evaluation::evaluate_prometheus(
            spec,
            on_error,
            &task.state(),
            result,
            now,
        ));
    }
}

/// The connection of one trigger to Prometheus.
struct PrometheusQuerier<'a> {
    task: &'a TriggerTask,
    spec: &'a Prometheus,
    /// An HTTP client, and the version of the Secret with which it was built.
    cached_client: Option<(Option<String>, reqwest::Client)>,
}

impl PrometheusQuerier<'_> {
    async fn query_once(&mut self) -> Result<MetricValue, QueryError> {
        let server =
            ServerAddress::parse(&self.spec.server_address).map_err(QueryError::InvalidSpec)?;
        let mut auth = self.read_auth(&server).await?;
        let client = self.client_for(&auth)?;
        if self.spec.azure_credential {
            let hosts = &self.task.context.monitor_hosts;
            server
                .check_azure_monitor(hosts)
                .map_err(QueryError::InvalidSpec)?;
            let token = self.azure_token().await?;
            let parts = token.to_str().unwrap_or_default().split(' ');
            auth.secrets.extend(parts.skip(1).map(str::to_owned));
            auth.header = Some((AUTHORIZATION, token));
        }
        let timeout = Duration::from(self.spec.timeout);
        let query = send_query(&client, self.spec, &auth);
        let response = tokio::time::timeout(timeout, query).await;
        let on_timeout = |_| format!("Prometheus did not answer within {timeout:?} (timeout)");
        Ok(response.map_err(on_timeout)??)
    }

    /// Reads the credentials in the Secret, if they may be sent to the server.
    async fn read_auth(&self, server: &ServerAddress) -> Result<PrometheusAuth, QueryError> {
        let Some(SecretRef { namespace, name }) = &self.spec.auth_secret_ref else {
            return Ok(PrometheusAuth::default());
        };
        for (field, value) in [("namespace", namespace), ("name", name)] {
            if !is_name(value) {
                let why =
                    format!("authSecretRef.{field} is not a valid name of an object in Kubernetes");
                return Err(QueryError::InvalidSpec(why));
            }
        }
        if server.is_plaintext() && !self.spec.credentials_over_http {
            return Err(QueryError::InvalidSpec(format!(
                "authSecretRef: serverAddress begins with http://, so the credentials would be sent \
                 unencrypted: use https://, or accept that by credentialsOverHTTP: true beside authSecretRef, \
                 in the prometheus block of trigger {}",
                self.task.trigger
            )));
        }
        let secrets: Api<Secret> = Api::namespaced(self.task.context.client.clone(), namespace);
        let what = format!("authSecretRef: Secret {namespace}/{name}");
        let secret = match tokio::time::timeout(CALL_TIMEOUT, secrets.get(name)).await {
            Ok(Ok(secret)) => secret,
            Ok(Err(kube::Error::Api(status))) if call::is_object_not_found(&status) => {
                return Err(format!("{what} does not exist").into());
            }
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                return Err(format!(
                    "{what} may not be read; to let burstpool read it: kubectl apply -k config/namespace -n {namespace}"
                )
                .into());
            }
            Ok(Err(error)) => return Err(format!("{what} could not be read: {error}").into()),
            Err(_) => {
                return Err(
                    format!("{what} could not be read: the API server does not answer").into(),
                );
            }
        };
        let allowed = check_allowed(&secret, server);
        allowed.map_err(|why| QueryError::InvalidSpec(format!("{what} {why}")))?;
        let version = secret.metadata.resource_version;
        let data = secret.data.unwrap_or_default();
        let auth = PrometheusAuth::from_secret(
            data.iter().map(|(key, value)| (key.as_str(), &value.0[..])),
            version,
        );
        auth.map_err(|why| format!("{what} {why}").into())
    }

    /// An HTTP client with the Secret's certificate authorities and client certificate. For Azure Monitor it is
    /// the client that the operator uses for the rest of Azure: behind a proxy that inspects TLS, or in a
    /// private cloud, both have the same certificate authority. The spec cannot combine a Secret with
    /// `azureCredential`.
    fn client_for(&mut self, auth: &PrometheusAuth) -> Result<reqwest::Client, String> {
        if self.spec.azure_credential {
            return Ok(self.task.context.azure.http_client());
        }
        if let Some((version, client)) = &self.cached_client
            && *version == auth.version
        {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("burstpool/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .dns_resolver(Arc::new(CheckedResolver));
        if let Some(pem) = &auth.client_certificate {
            let identity = reqwest::Identity::from_pem(pem);
            // The error might contain a part of the key.
            let identity = identity.map_err(
                |_| "authSecretRef: tls.crt and tls.key are not a certificate and key in PEM",
            )?;
            builder = builder.identity(identity);
        }
        if let Some(pem) = &auth.ca {
            let message = "authSecretRef: ca.crt has no certificates in PEM";
            let bundle = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| message)?;
            if bundle.is_empty() {
                return Err(message.to_owned());
            }
            // Trust only these: that is the purpose of a private CA.
            builder = builder.tls_built_in_root_certs(false);
            for certificate in bundle {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client = builder.build().map_err(|error| {
            format!(
                "authSecretRef: the certificates cannot be used: {}",
                error_chain(&error)
            )
        })?;
        self.cached_client = Some((auth.version.clone(), client.clone()));
        Ok(client)
    }

    /// An `Authorization` header with a token of the operator's own identity, for Azure Monitor.
    async fn azure_token(&self) -> Result<HeaderValue, String> {
        let token =
            tokio::time::timeout(CALL_TIMEOUT, self.task.context.azure.monitor_token()).await;
        let token = token
            .map_err(|_| "azureCredential: Azure did not return a token in time".to_owned())?;
        token.map_err(|error| format!("azureCredential: cannot get a token: {error}"))
    }
}

/// Sends the query and reads the answer.
async fn send_query(
    client: &reqwest::Client,
    spec: &Prometheus,
    auth: &PrometheusAuth,
) -> Result<MetricValue, String> {
    let url = format!("{}/api/v1/query", spec.server_address.trim_end_matches('/'));
    let timeout = Duration::from(spec.timeout).as_millis();
    let form = serde_urlencoded::to_string([
        ("query", spec.query.as_str()),
        ("timeout", &format!("{timeout}ms")),
    ]);
    let form = form.map_err(|error| format!("query: {error}"))?;
    let mut request = client
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form);
    if let Some((name, value)) = &auth.header {
        request = request.header(name, value);
    }
    let query_error = |error: reqwest::Error| {
        // The error can quote the server, such as the names in its certificate.
        let why = query_response::sanitize(
            &error_chain(&error.without_url()),
            MAX_ERROR_CHARS,
            &auth.secrets,
        );
        format!("cannot query Prometheus: {why}")
    };
    let response = request.send().await.map_err(query_error)?;
    let status = response.status().as_u16();
    let (mut body, mut parts) = (BytesMut::new(), response.bytes_stream());
    while let Some(part) = parts.next().await {
        body.extend_from_slice(&part.map_err(query_error)?);
        if body.len() > MAX_RESPONSE_BYTES {
            return Err(
                "the answer of Prometheus is longer than 1 MiB: aggregate the query to one value"
                    .to_owned(),
            );
        }
    }
    query_response::parse(status, &body, &auth.secrets)
}

/// Whether this is a valid name of an object or a namespace in Kubernetes: it becomes part of a path, and of
/// commands in messages.
fn is_name(text: &str) -> bool {
    let is_known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(is_known)
}

/// Resolves names to addresses that may be queried: a name can also resolve to a reserved address.
struct CheckedResolver;

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let addresses = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = addresses
                .filter(|address| !is_reserved(address.ip()))
                .collect();
            if allowed.is_empty() {
                return Err("its name has no address that burstpool may query: link-local and metadata addresses are refused".into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}
