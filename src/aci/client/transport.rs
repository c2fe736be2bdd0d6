//! Sends the requests of the Azure crate over our own HTTP client.
//!
//! In: requests as `azure_mgmt_containerinstance` builds them, with an empty body and without a credential. Out:
//! successful answers; every other answer is an error with status, code, message and `Retry-After`, which the
//! crate's own error would lose. This module adds the token and the real body below every layer of the crate that
//! logs requests, so that none of these layers sees a secret.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use azure_core::error::{Error, ErrorKind};
use azure_core::{HttpClient, Request, Response, StatusCode};
use bytes::Bytes;
use jiff::Timestamp;

use super::credential::Credential;
use super::rate_limit::RateLimitWindow;
use crate::aci::failure::ArmError;
use crate::aci::retry_after_header::{MAX_RETRY_AFTER, retry_after};

tokio::task_local! {
    /// The body of the request that the current task sends.
    static BODY: Bytes;
    /// The remaining budgets that the answer to the current task's request reported.
    static REMAINING_REQUESTS: RefCell<Vec<(RateLimitWindow, u64)>>;
}

/// Timeout of a request, from connecting to the end of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `call`; its request carries `body`.
pub(super) async fn with_body<T>(body: Bytes, call: impl Future<Output = T>) -> T {
    BODY.scope(body, call).await
}

/// Runs `call`. Also returns the remaining budgets that the answer reported.
pub(super) async fn with_remaining_requests<T>(
    call: impl Future<Output = T>,
) -> (T, Vec<(RateLimitWindow, u64)>) {
    let scoped = async {
        let answer = call.await;
        (answer, REMAINING_REQUESTS.with(RefCell::take))
    };
    REMAINING_REQUESTS.scope(RefCell::default(), scoped).await
}

/// Stores the remaining budgets of an answer for [`with_remaining_requests`].
fn record_remaining_requests(headers: &reqwest::header::HeaderMap) {
    let budgets = RateLimitWindow::HEADERS
        .into_iter()
        .filter_map(|(window, name)| {
            let left = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
            Some((window, left))
        });
    // Outside of `with_remaining_requests` there is no place to store them, and they are dropped.
    let _ = REMAINING_REQUESTS.try_with(|stored| stored.borrow_mut().extend(budgets));
}

/// An answer with an error status, as a source inside the crate's error.
#[derive(Debug, thiserror::Error)]
#[error("{0:?}")]
pub(super) struct HttpFailure(pub ArmError);

/// No token could be obtained; a source inside the crate's error.
#[derive(Debug, thiserror::Error)]
#[error("no token")]
pub(super) struct TokenError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Our HTTP client behind the interface that the Azure crate expects.
#[derive(Debug)]
pub(super) struct Transport {
    pub http: reqwest::Client,
    pub credential: Credential,
    pub scope: String,
}

impl Transport {
    /// Builds the HTTP client: it pools connections and trusts the system's certificates and `extra`.
    pub fn new_http_client(extra: &[reqwest::Certificate]) -> reqwest::Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("burstpool/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(REQUEST_TIMEOUT)
            .pool_idle_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none());
        for certificate in extra {
            builder = builder.add_root_certificate(certificate.clone());
        }
        builder.build()
    }
}

#[async_trait::async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<Response> {
        let token = self.credential.token(&self.scope).await;
        let token = token.map_err(|error| Error::new(ErrorKind::Credential, TokenError(error)))?;
        let io = |error: reqwest::Error| Error::new(ErrorKind::Io, error.without_url());
        let method = request
            .method()
            .as_ref()
            .parse()
            .unwrap_or(reqwest::Method::GET);
        let mut sent = self
            .http
            .request(method, request.url().clone())
            .bearer_auth(token.secret());
        sent = match BODY.try_with(Bytes::clone) {
            Ok(body) => sent.header("content-type", "application/json").body(body),
            // ARM requires a length header on a POST without a body.
            Err(_) => sent.header("content-length", "0"),
        };
        let response = sent.send().await.map_err(io)?;
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers(), Timestamp::now(), MAX_RETRY_AFTER);
        record_remaining_requests(response.headers());
        let success = response.status().is_success();
        let body = response.bytes().await.map_err(io)?;
        if !success {
            let failure = ArmError::parse(status, &body, retry_after);
            return Err(Error::new(ErrorKind::Other, HttpFailure(failure)));
        }
        let status = StatusCode::try_from(status).unwrap_or(StatusCode::Ok);
        let stream = futures::stream::once(std::future::ready(Ok(body)));
        let headers = azure_core::headers::Headers::from(HashMap::new());
        Ok(Response::new(status, headers, Box::pin(stream)))
    }
}

/// A placeholder credential for the crate's client. `transport` adds the real token.
#[derive(Debug)]
pub(super) struct PlaceholderCredential;

#[async_trait::async_trait]
impl azure_core::auth::TokenCredential for PlaceholderCredential {
    async fn get_token(&self, _: &[&str]) -> azure_core::Result<azure_core::auth::AccessToken> {
        let expires = time::OffsetDateTime::now_utc() + Duration::from_secs(3600);
        let token = azure_core::auth::Secret::new("added below");
        Ok(azure_core::auth::AccessToken {
            token,
            expires_on: expires,
        })
    }

    async fn clear_cache(&self) -> azure_core::Result<()> {
        Ok(())
    }
}

/// The options of the crate's client: our transport and no retries. The caller decides whether and when to retry.
pub(super) fn client_options(transport: Arc<Transport>) -> azure_core::ClientOptions {
    azure_core::ClientOptions::new(azure_core::TransportOptions::new(transport))
        .retry(azure_core::RetryOptions::none())
}
