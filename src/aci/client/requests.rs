//! Sends one request: checks the rate limit, sends, classifies the answer, counts it.
//!
//! In: a call of the Azure crate or of this module, and its class. Out: the answer, or an [`Error`] with Azure's
//! own message.

use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;

use super::transport::{HttpFailure, TokenError, with_remaining_requests};
use super::{AciClient, GroupScope, RateLimitKey, RequestClass};
use crate::aci::error::Error;
use crate::telemetry::CallOutcome;

impl AciClient {
    /// Sends `call` as [`Self::send_gated`] does, and counts the result and the duration in the metrics.
    pub(super) async fn send_counted<T>(
        &self,
        scope: &GroupScope,
        class: RequestClass,
        what: &str,
        call: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let sent = self.send_gated(scope, class, what, call).await;
        let outcome = match &sent {
            Ok(_) => CallOutcome::Done,
            Err(Error::Refused { failure, .. }) => CallOutcome::Refused(failure.status),
            Err(Error::Waiting { .. }) => CallOutcome::Held,
            Err(Error::Credential { .. }) => CallOutcome::NoToken,
            Err(_) => CallOutcome::NoAnswer,
        };
        self.metrics
            .count_azure_request(class.name(), outcome, started.elapsed());
        sent
    }

    /// Sends `call`, unless requests of its class must wait. A 429 makes the class wait.
    async fn send_gated<T>(
        &self,
        scope: &GroupScope,
        class: RequestClass,
        what: &str,
        call: impl Future<Output = azure_core::Result<T>>,
    ) -> Result<T, Error> {
        let what = what.to_owned();
        let key = RateLimitKey::new(&scope.subscription, self.region.as_deref(), class);
        if let Some(wait) = self.gate.remaining_wait(&key) {
            return Err(Error::Waiting { what, wait });
        }
        let (answer, budgets) = with_remaining_requests(call).await;
        for (window, left) in budgets {
            self.gate.record_budget(&key, window, left);
        }
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if let Some(HttpFailure(failure)) = error.get_ref().and_then(|e| e.downcast_ref()) {
            if failure.status == 429 {
                self.gate.block(key, failure.retry_after);
            }
            return Err(Error::Refused {
                what,
                failure: Box::new(failure.clone()),
            });
        }
        if error
            .get_ref()
            .and_then(|e| e.downcast_ref::<TokenError>())
            .is_some()
        {
            return Err(Error::Credential {
                what,
                source: Box::new(error),
            });
        }
        Err(Error::NoAnswer {
            what,
            source: Box::new(error),
        })
    }
}

/// Reads the body of an answer.
pub(super) async fn read_body(response: azure_core::Response, what: &str) -> Result<Bytes, Error> {
    let body = response.into_body().collect().await;
    body.map_err(|source| Error::NoAnswer {
        what: what.to_owned(),
        source: Box::new(source),
    })
}

/// Reads the body of an answer as JSON; `null` if it is empty.
pub(super) async fn read_json(response: azure_core::Response, what: &str) -> Result<Value, Error> {
    let body = read_body(response, what).await?;
    if body.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&body).map_err(|source| Error::Unreadable {
        what: what.to_owned(),
        source,
    })
}
