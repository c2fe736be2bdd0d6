//! Errors of the test cluster, with everything that helps to understand a failed test.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Why a cluster, an object or a wait failed.
#[derive(thiserror::Error)]
pub enum Error {
    /// The control plane has not been built.
    #[error("{} is missing: run `make controlplane`", .path.display())]
    NotBuilt {
        /// The missing file.
        path: PathBuf,
    },
    /// A file, a port or the supervisor could not be used.
    #[error("{doing}: {source}")]
    Io {
        /// The attempted action.
        doing: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// Creating a certificate failed.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The kubeconfig just written is not valid.
    #[error("reading the cluster's kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server rejected a request, or could not be reached.
    #[error("asking the API server: {0}")]
    Kube(#[from] kube::Error),
    /// kubectl failed.
    #[error("kubectl {what}: {said}")]
    Kubectl {
        /// Its arguments.
        what: String,
        /// Its output.
        said: String,
    },
    /// The supervisor has ended, or its answer is not as agreed.
    #[error("the cluster's supervisor: {0}")]
    Supervisor(String),
    /// A component ended while the cluster was starting.
    #[error("{component} ended while the cluster was starting ({status}); its log ends:\n{log}")]
    Died {
        /// The component's name.
        component: String,
        /// The exit status of its process.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// A part of the cluster was not ready in time.
    #[error("waited {after:?} for {what} ({seen}); the components' logs end:\n{logs}")]
    NotReady {
        /// The part.
        what: String,
        /// The timeout.
        after: Duration,
        /// Its last answer.
        seen: String,
        /// The last lines of every component's log.
        logs: String,
    },
    /// A watched object did not reach the expected state.
    #[error("waited {after:?} for {what}; last seen:\n{seen}")]
    NotSeen {
        /// The expected state.
        what: String,
        /// The timeout.
        after: Duration,
        /// The last state seen, as YAML, and the last error of the watch.
        seen: String,
    },
}

impl Error {
    /// Adds the attempted action to the operating system's error.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }

    /// Whether a component found its port taken. Another process may take it between the choice of a
    /// port and its use.
    pub fn port_was_taken(&self) -> bool {
        matches!(self, Self::Died { log, .. } if log.contains("address already in use"))
    }
}

/// `expect`, and tests that return an error, print the debug form, so this is the full text.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
