//! What goes wrong between us and Azure.

use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

/// An error that ARM or the service answered, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The HTTP status.
    pub status: u16,
    /// `error.code`; empty if the body had none.
    pub code: String,
    /// `error.message`, in Azure's words.
    pub message: String,
    /// The codes of `error.details`, where a deployment hides the one that matters.
    pub details: Vec<String>,
    /// `Retry-After`, if the answer had one.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// Reads an answer that is no success. A body that is no ARM error (a proxy's page) leaves its
    /// first 200 characters as the message.
    pub fn read(status: u16, retry_after: Option<Duration>, body: &[u8]) -> Self {
        let parsed: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = &parsed["error"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let details = error["details"].as_array().into_iter().flatten();
        let message = match text(&error["message"]) {
            message if message.is_empty() => String::from_utf8_lossy(body)
                .trim()
                .chars()
                .take(200)
                .collect(),
            message => message,
        };
        Self {
            status,
            code: text(&error["code"]),
            message,
            details: details.map(|detail| text(&detail["code"])).collect(),
            retry_after,
        }
    }
}

/// Why a call to Azure did not do what it was to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Azure answered that it will not.
    #[error("{what}: {} {}", .failure.code, .failure.message)]
    Refused {
        /// What was attempted.
        what: String,
        /// Azure's answer.
        failure: Box<Failure>,
    },
    /// There is no answer, so nobody knows whether it was done.
    #[error("{what}: no answer from Azure")]
    NoAnswer {
        /// What was attempted.
        what: String,
        /// Why there is none.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// We wait, because Azure asked us to: nothing was sent.
    #[error("{what}: not sent, Azure asked to wait another {} s", .wait.as_secs())]
    Waiting {
        /// What was not attempted.
        what: String,
        /// For how long still.
        wait: Duration,
    },
    /// There is no token: nothing was sent.
    #[error("{what}: getting a token")]
    Credential {
        /// What was not attempted.
        what: String,
        /// Why there is none.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer cannot be read.
    #[error("{what}: reading Azure's answer")]
    Unreadable {
        /// What was attempted.
        what: String,
        /// What is wrong with the answer.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// A label for metrics: one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::NoAnswer { .. } => "no_answer",
            Self::Waiting { .. } => "waiting",
            Self::Credential { .. } => "credential",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// Azure's answer, if it gave one.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Refused { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// Whether Azure answered that the resource is not there.
    pub fn is_not_found(&self) -> bool {
        self.failure().is_some_and(|failure| failure.status == 404)
    }

    /// The whole story in one line: the error and its sources.
    pub fn story(&self) -> String {
        let mut story = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            story.push_str(": ");
            story.push_str(&cause.to_string());
            source = cause.source();
        }
        story
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_with_its_hidden_codes_and_a_proxys_page_is_kept_short() {
        let body = br#"{"error":{"code":"DeploymentFailed","message":"m","details":[{"code":"InaccessibleImage"}]}}"#;
        let failure = Failure::read(400, None, body);
        assert_eq!(
            (failure.code.as_str(), failure.details.len()),
            ("DeploymentFailed", 1)
        );
        let page = format!("<html>{}", "x".repeat(1000));
        let failure = Failure::read(502, None, page.as_bytes());
        assert_eq!((failure.code.as_str(), failure.message.len()), ("", 200));
    }
}
