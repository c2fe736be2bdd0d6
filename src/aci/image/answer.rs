//! The answers of registries: bodies with limited lengths, and errors.
//!
//! In: an answer. Out: its body, or the [`ImageReadError`] that its status stands for.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use http::StatusCode;
use jiff::Timestamp;
use reqwest::Response;
use serde::Deserialize;

use super::access::ImageAccess;
use super::error::{ImageReadError, MAX_WAIT, quote};
use super::session::RegistrySession;
use crate::aci::retry_after_header::retry_after;

/// The longest body of an error that is parsed, in bytes.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// The wait after status 429 without `Retry-After`.
const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(30);

impl RegistrySession<'_> {
    /// Reads a body of at most `longest` bytes.
    pub(super) async fn read_body(
        &self,
        response: Response,
        longest: usize,
        what: &str,
    ) -> Result<Bytes, ImageReadError> {
        let too_long = || self.corrupt(format!("{what} of more than {longest} bytes"));
        let announced = response
            .content_length()
            .and_then(|length| usize::try_from(length).ok());
        if announced.is_some_and(|length| length > longest) {
            return Err(too_long());
        }
        let url = response.url().clone();
        let (mut body, mut parts) = (BytesMut::new(), response.bytes_stream());
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| self.unreachable(&url, error))?;
            if body.len() + part.len() > longest {
                return Err(too_long());
            }
            body.extend_from_slice(&part);
        }
        Ok(body.freeze())
    }

    /// Returns a successful answer; turns each other answer into an error.
    pub(super) async fn error_for_status(
        &self,
        response: Response,
    ) -> Result<Response, ImageReadError> {
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        let wait = retry_after(response.headers(), Timestamp::now(), MAX_WAIT);
        let is_quotable = self.is_quotable(response.url());
        let body = self.read_body(response, MAX_ERROR_BYTES, "an error").await;
        let body = body.unwrap_or_default();
        let quote = if is_quotable {
            quote(&message(&body))
        } else {
            String::new()
        };
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.denied(quote),
            StatusCode::NOT_FOUND => ImageReadError::NotFound {
                image: format!("{}:{}", self.image(), self.reference.target()),
            },
            StatusCode::TOO_MANY_REQUESTS => ImageReadError::Throttled {
                registry: self.registry(),
                wait: wait.unwrap_or(DEFAULT_RETRY_AFTER),
            },
            _ => ImageReadError::Failing {
                registry: self.registry(),
                status: status.as_u16(),
                quote,
            },
        })
    }

    fn denied(&self, quote: String) -> ImageReadError {
        let registry = self.reference.registry();
        let remedy = match self.access {
            ImageAccess::Anonymous => format!(
                "if the repository exists, name a Secret with a login for {registry} in spec.imagePullSecrets"
            ),
            ImageAccess::Login(_) => {
                format!("check the login for {registry} in the Secrets of spec.imagePullSecrets")
            }
            ImageAccess::OperatorIdentity => {
                let name = registry.split('.').next().unwrap_or_default();
                format!(
                    "to let burstpool read {registry}: az role assignment create --role AcrPull --assignee \
                     BURSTPOOL_CLIENT_ID --scope $(az acr show --name {name} --query id --output tsv)"
                )
            }
        };
        ImageReadError::Denied {
            image: self.image(),
            quote,
            remedy,
        }
    }
}

/// The first message in an error's body, in the form of the OCI distribution specification or of OAuth.
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct RegistryErrorBody {
        #[serde(default)]
        errors: Vec<RegistryErrorItem>,
        #[serde(default)]
        details: String,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct RegistryErrorItem {
        code: String,
        message: String,
    }
    let Ok(body) = serde_json::from_slice::<RegistryErrorBody>(body) else {
        return String::new();
    };
    match body.errors.first() {
        Some(first) if first.message.is_empty() => first.code.clone(),
        Some(first) => first.message.clone(),
        None => body.details,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_message_is_found() {
        for (body, expected) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#,
                "requested access is denied",
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, "DENIED"),
            (
                r#"{"details":"incorrect username or password"}"#,
                "incorrect username or password",
            ),
            (r#"{"errors":[]}"#, ""),
            (r#"{"errors":[{"code":7}]}"#, ""),
            ("<html>", ""),
        ] {
            assert_eq!(message(body.as_bytes()), expected, "{body}");
        }
    }
}
