//! Reads a container's log from Azure, and finds out whether its run has ended.
//!
//! In: a container of a pod. Out: the log, the run of the container, or an error in the words of a kubelet.

use http::StatusCode;
use jiff::Timestamp;

use crate::aci::error::Error;
use crate::aci::response::{ContainerGroup, ContainerState};
use crate::kubelet_api::nodes::FoundPod;
use crate::kubelet_api::response::HttpError;

/// The error codes for a log that does not exist yet; they depend on the version of the service.
const NOT_STARTED_CODES: [&str; 3] = [
    "ContainerGroupDeploymentNotReady",
    "ContainerLogNotAvailable",
    "ContainerGroupTransitioning",
];

/// A container of a pod.
#[derive(Clone)]
pub struct LogSource {
    /// The container's name.
    pub container: String,
    /// The pod.
    pub pod: FoundPod,
}

/// Identifies one run of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct ContainerRun {
    started: Option<Timestamp>,
    restarts: Option<i64>,
}

impl LogSource {
    /// The last `tail` lines of the log, or all that the service keeps; with `timestamps`, each has its timestamp in
    /// front.
    pub async fn read(&self, tail: Option<usize>, timestamps: bool) -> Result<String, HttpError> {
        let (node, pod) = (&self.pod.node, &self.pod.pod);
        // At least one line: Azure does not document whether 0 is accepted.
        let tail = tail.map(|lines| i32::try_from(lines.max(1)).unwrap_or(i32::MAX));
        node.rate_limiter.acquire_priority().await;
        let read = node.azure.logs(
            &node.scope,
            pod.group.as_str(),
            &self.container,
            tail,
            timestamps,
        );
        read.await.map_err(|error| self.http_error(&error))
    }

    /// The current run of the container; `None` if Azure does not report it.
    pub async fn current_run(&self) -> Option<ContainerRun> {
        Some(self.read_run().await.ok()??.0)
    }

    /// Whether that run has ended.
    pub async fn has_ended(&self, run: Option<&ContainerRun>) -> bool {
        if !self.pod.may_exist() {
            return true;
        }
        match self.read_run().await {
            Ok(Some((now, has_ended))) => has_ended || run.is_some_and(|run| *run != now),
            Ok(None) => false,
            Err(error) => error.failure().is_some_and(|failure| failure.status == 404),
        }
    }

    async fn read_run(&self) -> Result<Option<(ContainerRun, bool)>, Error> {
        let (node, pod) = (&self.pod.node, &self.pod.pod);
        node.rate_limiter.acquire_priority().await;
        let group = node.azure.get(&node.scope, pod.group.as_str()).await?;
        Ok(ContainerGroup::from_value(&group).and_then(|group| {
            let view = group.any_container(&self.container)?.instance_view()?;
            let current = view.current_state.as_ref()?;
            let run = ContainerRun {
                started: current.start_time,
                restarts: view.restart_count,
            };
            let has_ended = current.kind() == ContainerState::Terminated || group.is_terminal();
            Some((run, has_ended))
        }))
    }

    fn http_error(&self, error: &Error) -> HttpError {
        let (container, pod) = (&self.container, &self.pod.pod.name);
        match error.failure() {
            Some(failure) if NOT_STARTED_CODES.contains(&failure.body.code.as_str()) => {
                HttpError::bad_request(format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
                ))
            }
            Some(failure) if failure.status == 404 => HttpError::bad_request(format!(
                "container \"{container}\" in pod \"{pod}\" has no container group in Azure"
            )),
            Some(failure) if failure.status == 429 => {
                HttpError::new(StatusCode::TOO_MANY_REQUESTS, error.error_chain())
            }
            // Not 503: kubectl does not show its message.
            _ => HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, error.error_chain()),
        }
    }
}
