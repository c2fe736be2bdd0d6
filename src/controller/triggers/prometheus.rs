//! Asking Prometheus.
//!
//! In: a trigger's spec and its Secret. Out: what it answers, published as what the trigger is. A query is
//! sent as a form, so that it may be long; redirections are not followed, so that credentials go nowhere
//! else.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures::StreamExt as _;
use http::HeaderValue;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use reqwest::redirect::Policy;

use super::One;
use super::auth::Auth;
use crate::api::{OnError, Prometheus, SecretRef};
use crate::trigger::answer::{self, Reading};
use crate::trigger::decide;

/// How long the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read: one value and its labels need less by far.
const LONGEST: usize = 1 << 20;

/// Asks again and again.
pub(super) async fn follow(one: &One, spec: &Prometheus, on_error: &OnError) {
    let mut asker = Asker {
        one,
        spec,
        ready: None,
    };
    let mut ticks =
        tokio::time::interval(Duration::from(spec.interval).max(Duration::from_secs(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let began = Instant::now();
        let read = asker.ask().await;
        let (pool, trigger) = (&one.pool, &one.trigger);
        let metrics = &one.shared.metrics;
        metrics.asked(pool, trigger, began.elapsed(), read.is_ok());
        if let Err(why) = &read {
            tracing::debug!(pool, trigger, why, "asking Prometheus");
        }
        let now = Timestamp::now();
        one.publish(&decide::prometheus(
            spec,
            on_error,
            &one.standing(),
            read,
            now,
        ));
    }
}

/// One trigger's way to Prometheus.
struct Asker<'a> {
    one: &'a One,
    spec: &'a Prometheus,
    /// A client, and the version of the Secret that it was made with.
    ready: Option<(Option<String>, reqwest::Client)>,
}

impl Asker<'_> {
    async fn ask(&mut self) -> Result<Reading, String> {
        let auth = self.auth().await?;
        let client = self.client(&auth)?;
        let header = match auth.header {
            Some(header) => Some(header),
            None if self.spec.azure_credential => Some((AUTHORIZATION, self.token().await?)),
            None => None,
        };
        let patience = Duration::from(self.spec.timeout);
        let asked = query(&client, self.spec, header);
        let answer = tokio::time::timeout(patience, asked).await;
        answer.map_err(|_| format!("Prometheus did not answer within {patience:?} (timeout)"))?
    }

    /// What the Secret says, as it is now.
    async fn auth(&self) -> Result<Auth, String> {
        let Some(SecretRef { namespace, name }) = &self.spec.auth_secret_ref else {
            return Ok(Auth::default());
        };
        let secrets: Api<Secret> = Api::namespaced(self.one.shared.client.clone(), namespace);
        let what = format!("authSecretRef: Secret {namespace}/{name}");
        let secret = match tokio::time::timeout(PATIENCE, secrets.get(name)).await {
            Ok(Ok(secret)) => secret,
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => {
                return Err(format!("{what} does not exist"));
            }
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => {
                return Err(format!(
                    "{what} may not be read; to let burstpool read it: kubectl apply -k config/namespace -n {namespace}"
                ));
            }
            Ok(Err(error)) => return Err(format!("{what} could not be read: {error}")),
            Err(_) => {
                return Err(format!(
                    "{what} could not be read: the API server does not answer"
                ));
            }
        };
        let version = secret.metadata.resource_version;
        let data = secret.data.unwrap_or_default();
        let auth = Auth::of(
            data.iter().map(|(key, value)| (key.as_str(), &value.0[..])),
            version,
        );
        auth.map_err(|why| format!("{what} {why}"))
    }

    /// A client that trusts whom the Secret says, and shows its certificate. Azure's own endpoint is
    /// trusted as the rest of Azure is: behind a proxy that opens TLS, or in a cloud of one's own, both
    /// have the same authority. No Secret can be named beside `azureCredential`.
    fn client(&mut self, auth: &Auth) -> Result<reqwest::Client, String> {
        if self.spec.azure_credential {
            return Ok(self.one.shared.azure.http());
        }
        if let Some((version, client)) = &self.ready
            && *version == auth.version
        {
            return Ok(client.clone());
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("burstpool/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none());
        if let Some(pem) = &auth.identity {
            let identity = reqwest::Identity::from_pem(pem);
            // The error might show a part of the key.
            let identity = identity.map_err(
                |_| "authSecretRef: tls.crt and tls.key are no certificate and key in PEM",
            )?;
            builder = builder.identity(identity);
        }
        if let Some(pem) = &auth.ca {
            let wrong = "authSecretRef: ca.crt has no certificates in PEM";
            let bundle = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| wrong)?;
            if bundle.is_empty() {
                return Err(wrong.to_owned());
            }
            // Only these: that is what a CA of one's own is for.
            builder = builder.tls_built_in_root_certs(false);
            for certificate in bundle {
                builder = builder.add_root_certificate(certificate);
            }
        }
        let client = builder.build().map_err(|error| {
            format!(
                "authSecretRef: the certificates cannot be used: {}",
                chain(&error)
            )
        })?;
        self.ready = Some((auth.version.clone(), client.clone()));
        Ok(client)
    }

    /// A token of the operator's own identity, for Azure Monitor.
    async fn token(&self) -> Result<HeaderValue, String> {
        if !self.spec.server_address.starts_with("https://") {
            return Err(
                "azureCredential needs a serverAddress that begins with https://".to_owned(),
            );
        }
        let token = tokio::time::timeout(PATIENCE, self.one.shared.azure.monitor_token()).await;
        let token =
            token.map_err(|_| "azureCredential: Azure gives no token in time".to_owned())?;
        token.map_err(|error| format!("azureCredential: no token: {error}"))
    }
}

/// Sends the query and reads the answer.
async fn query(
    client: &reqwest::Client,
    spec: &Prometheus,
    header: Option<(http::HeaderName, HeaderValue)>,
) -> Result<Reading, String> {
    let url = format!("{}/api/v1/query", spec.server_address.trim_end_matches('/'));
    let patience = Duration::from(spec.timeout).as_millis();
    let form = serde_urlencoded::to_string([
        ("query", spec.query.as_str()),
        ("timeout", &format!("{patience}ms")),
    ]);
    let form = form.map_err(|error| format!("query: {error}"))?;
    let mut request = client
        .post(url)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form);
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let failed = |error: reqwest::Error| {
        format!(
            "Prometheus cannot be asked: {}",
            chain(&error.without_url())
        )
    };
    let response = request.send().await.map_err(failed)?;
    let status = response.status().as_u16();
    let (mut body, mut parts) = (BytesMut::new(), response.bytes_stream());
    while let Some(part) = parts.next().await {
        body.extend_from_slice(&part.map_err(failed)?);
        if body.len() > LONGEST {
            return Err(
                "Prometheus' answer is longer than 1 MiB: aggregate the query to one value"
                    .to_owned(),
            );
        }
    }
    answer::read(status, &body)
}

/// An error and what caused it: the outermost of an HTTP client's says only that something failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}
