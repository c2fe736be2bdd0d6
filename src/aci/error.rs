//! Errors of calls to Azure.
//!
//! In: a failure in `client`. Out: an [`enum@Error`] with the attempted operation, and a [`FailureVerdict`] that says
//! what to do about it.

use std::time::Duration;

use thiserror::Error;

use super::failure::{ArmError, FailureClass, FailureVerdict};

/// Why a call to Azure failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Azure answered with an error.
    #[error("{what}: {} {}", .failure.body.code, .failure.body.message)]
    Refused {
        /// The attempted operation.
        what: String,
        /// Azure's answer.
        failure: Box<ArmError>,
    },
    /// Azure did not answer, so it is unknown whether the operation took effect.
    #[error("{what}: no answer from Azure")]
    NoAnswer {
        /// The attempted operation.
        what: String,
        /// Why there is no answer.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Azure asked the client to wait. The request was not sent.
    #[error("{what}: not sent, Azure asked to wait another {} s", .wait.as_secs())]
    Waiting {
        /// The operation that was not attempted.
        what: String,
        /// The remaining wait.
        wait: Duration,
    },
    /// No token could be obtained. The request was not sent.
    #[error("{what}: getting a token")]
    Credential {
        /// The operation that was not attempted.
        what: String,
        /// Why there is no token.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Azure's answer cannot be parsed.
    #[error("{what}: reading Azure's answer")]
    Unreadable {
        /// The attempted operation.
        what: String,
        /// The parse error.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// The value of a metric label: one word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "refused",
            Self::NoAnswer { .. } => "no_answer",
            Self::Waiting { .. } => "waiting",
            Self::Credential { .. } => "credential",
            Self::Unreadable { .. } => "unreadable",
        }
    }

    /// Whether this is an answer that [`ArmError::means_nothing_to_delete`].
    pub fn means_nothing_to_delete(&self) -> bool {
        let failure = self.failure();
        failure.is_some_and(ArmError::means_nothing_to_delete)
    }

    /// Azure's answer, if there was one.
    pub fn failure(&self) -> Option<&ArmError> {
        match self {
            Self::Refused { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// What to do about the error. If Azure sent no error message, the verdict's message is this error's own text.
    pub fn verdict(&self) -> FailureVerdict {
        match self {
            Self::Refused { failure, .. } => failure.verdict(),
            Self::Waiting { wait, .. } => {
                FailureVerdict::new(FailureClass::Throttled, Some(*wait), self.error_chain())
            }
            Self::Credential { .. } => {
                FailureVerdict::new(FailureClass::AzureConfig, None, self.error_chain())
            }
            Self::NoAnswer { .. } | Self::Unreadable { .. } => {
                FailureVerdict::new(FailureClass::Transient, None, self.error_chain())
            }
        }
    }

    /// The error and all of its sources in one line, separated by colons.
    pub fn error_chain(&self) -> String {
        let mut chain = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            chain.push_str(": ");
            chain.push_str(&cause.to_string());
            source = cause.source();
        }
        chain
    }
}
