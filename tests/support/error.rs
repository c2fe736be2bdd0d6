//! Everything that can go wrong around a cluster, in words for whoever reads a failed test.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Why a cluster, an object or a wait failed.
#[derive(thiserror::Error)]
pub enum Error {
    /// The control plane has not been built.
    #[error("{} is missing: run `make controlplane`", .path.display())]
    NotBuilt {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file, a port or the supervisor could not be used.
    #[error("{doing}: {source}")]
    Io {
        /// What was attempted.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The kubeconfig just written could not be used.
    #[error("reading the cluster's kubeconfig: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The API server refused a request or could not be asked.
    #[error("asking the API server: {0}")]
    Kube(#[from] kube::Error),
    /// kubectl could not do what it was asked.
    #[error("kubectl {what}: {said}")]
    Kubectl {
        /// Its arguments.
        what: String,
        /// What it said.
        said: String,
    },
    /// The supervisor ended, or answered something else than agreed.
    #[error("the cluster's supervisor: {0}")]
    Supervisor(String),
    /// A component ended while the cluster was starting.
    #[error("{component} ended while the cluster was starting ({status}); its log ends:\n{log}")]
    Died {
        /// The component's name.
        component: String,
        /// How its process ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// A part of the cluster was not ready in time.
    #[error("waited {after:?} for {what} ({seen}); the components' logs end:\n{logs}")]
    NotReady {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// What it answered last.
        seen: String,
        /// The end of every component's log.
        logs: String,
    },
    /// A watched object did not come to the state waited for.
    #[error("waited {after:?} for {what}; last seen:\n{seen}")]
    NotSeen {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
        /// The last state seen, as YAML, and the last error of the watch.
        seen: String,
    },
}

impl Error {
    /// Names what was attempted beside what the system said.
    pub fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }

    /// Whether a component found its port taken: between choosing a port and listening on it
    /// somebody else may come first.
    pub fn port_was_taken(&self) -> bool {
        matches!(self, Self::Died { log, .. } if log.contains("address already in use"))
    }
}

/// `expect` and tests that return an error print the debug form: it is the text.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
