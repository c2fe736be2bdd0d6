//! What goes wrong between us and Azure.

use std::time::Duration;

use thiserror::Error;

use super::failure::{ArmError, Class, Verdict};

/// Why a call to Azure did not do what it was to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// Azure answered that it will not.
    #[error("{what}: {} {}", .failure.body.code, .failure.body.message)]
    Refused {
        /// What was attempted.
        what: String,
        /// Azure's answer.
        failure: Box<ArmError>,
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
    pub fn failure(&self) -> Option<&ArmError> {
        match self {
            Self::Refused { failure, .. } => Some(failure),
            _ => None,
        }
    }

    /// What to do about it. Where Azure answered nothing, its own words are ours.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Refused { failure, .. } => failure.verdict(),
            Self::Waiting { wait, .. } => Verdict::new(Class::Throttled, Some(*wait), self.story()),
            Self::Credential { .. } => Verdict::new(Class::Config, None, self.story()),
            Self::NoAnswer { .. } | Self::Unreadable { .. } => {
                Verdict::new(Class::Transient, None, self.story())
            }
        }
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
