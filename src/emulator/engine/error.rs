//! Errors of the container engine.

use std::io;
use std::path::PathBuf;

/// What the emulator attempted, and why it failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No socket answers.
    #[error(
        "no container engine answers ({tried}); start one, for example with \
         `podman system service --time=0 unix://{suggestion}`"
    )]
    NoEngine {
        /// The sockets that were tried, each with the reason.
        tried: String,
        /// The socket on which to start an engine.
        suggestion: String,
    },
    /// `DOCKER_HOST` is not a unix socket.
    #[error("DOCKER_HOST is '{0}': only unix:// is supported")]
    NotAUnixSocket(String),
    /// The engine refused the call, or the connection failed.
    #[error("{what}: {}", engine_message(source))]
    Refused {
        /// The attempted action.
        what: String,
        /// The error of the engine or the connection.
        #[source]
        source: bollard::errors::Error,
    },
    /// The engine did not answer in time.
    #[error("{what}: the container engine did not answer in time")]
    TimedOut {
        /// The attempted action.
        what: String,
    },
    /// Creating a directory or file for a volume failed.
    #[error("creating {path}")]
    Files {
        /// The directory or file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The text is not an image name.
    #[error("'{0}' is not the name of an image")]
    NotAnImage(String),
    /// Connecting to a terminal failed.
    #[error("opening the terminal: {0}")]
    Terminal(String),
}

impl EngineError {
    /// The HTTP status of the engine's answer, if it answered.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Refused {
                source: bollard::errors::Error::DockerResponseServerError { status_code, .. },
                ..
            } => Some(*status_code),
            _ => None,
        }
    }

    /// Whether the engine answered 404.
    pub(super) fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// The error with its cause in one line.
    pub(super) fn error_chain(&self) -> String {
        match self {
            Self::Files { source, .. } => format!("{self}: {source}"),
            _ => self.to_string(),
        }
    }
}

/// The engine's own message, without the text that bollard adds.
fn engine_message(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.clone(),
        bollard::errors::Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}
