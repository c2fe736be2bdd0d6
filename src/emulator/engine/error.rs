//! Why something that needs the container engine did not work.

use std::io;
use std::path::PathBuf;

/// What was attempted, and why it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// None of the sockets answers.
    #[error(
        "no container engine answers ({tried}); start one, for example with \
         `podman system service --time=0 unix://{suggestion}`"
    )]
    NoEngine {
        /// Every socket that was tried, with the reason.
        tried: String,
        /// Where one could listen.
        suggestion: String,
    },
    /// `DOCKER_HOST` names something else than a unix socket.
    #[error("DOCKER_HOST is '{0}': only unix:// is supported")]
    NotAUnixSocket(String),
    /// The engine refused.
    #[error("{what}: {}", words(source))]
    Refused {
        /// What was attempted.
        what: String,
        /// What the engine, or the way to it, said.
        #[source]
        source: bollard::errors::Error,
    },
    /// The engine did not answer in time.
    #[error("{what}: the container engine did not answer in time")]
    TimedOut {
        /// What was attempted.
        what: String,
    },
    /// A directory or file for a volume could not be made.
    #[error("making {path}")]
    Files {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An image's name that is none.
    #[error("'{0}' is not the name of an image")]
    NotAnImage(String),
    /// A terminal's connection could not be made.
    #[error("opening the terminal: {0}")]
    Terminal(String),
}

impl Error {
    /// What the engine answered, if it did, as an HTTP status.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused {
                source: bollard::errors::Error::DockerResponseServerError { status_code, .. },
                ..
            } => Some(*status_code),
            _ => None,
        }
    }

    /// Whether it says that the thing is not there.
    pub(super) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The error and its causes in one line.
    pub(super) fn in_full(&self) -> String {
        match self {
            Self::Files { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

/// The engine's own words, without what the client library says around them.
fn words(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.clone(),
        bollard::errors::Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}
