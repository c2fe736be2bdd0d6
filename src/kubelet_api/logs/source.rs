//! Where a container's log comes from, and whether there is more to come.

use http::StatusCode;
use jiff::Timestamp;

use crate::aci::error::Error;
use crate::aci::view::{ContainerState, Group};
use crate::kubelet_api::answer::Refusal;
use crate::kubelet_api::nodes::Found;

/// Codes with which Azure says that it is too early (several, by age of the service).
const TOO_EARLY: [&str; 3] = [
    "ContainerGroupDeploymentNotReady",
    "ContainerLogNotAvailable",
    "ContainerGroupTransitioning",
];

/// A container of a pod.
#[derive(Clone)]
pub struct Source {
    /// The container's name.
    pub container: String,
    /// The pod.
    pub found: Found,
}

/// One run of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    started: Option<Timestamp>,
    restarts: Option<i64>,
}

impl Source {
    /// The last lines of the log, with `times` each with its time in front; all that is kept without `tail`.
    pub async fn read(&self, tail: Option<usize>, times: bool) -> Result<String, Refusal> {
        let (node, pod) = (&self.found.node, &self.found.pod);
        // Whether it takes none is nowhere said.
        let tail = tail.map(|lines| i32::try_from(lines.max(1)).unwrap_or(i32::MAX));
        node.pace.turn_ahead().await;
        let read = node.azure.logs(
            &node.scope,
            pod.group.as_str(),
            &self.container,
            tail,
            times,
        );
        read.await.map_err(|error| self.refusal(&error))
    }

    /// Which run of the container this is; nothing if nobody says.
    pub async fn run(&self) -> Option<Run> {
        Some(self.look().await.ok()??.0)
    }

    /// Whether that run has ended.
    pub async fn has_ended(&self, run: Option<&Run>) -> bool {
        if !self.found.is_there() {
            return true;
        }
        match self.look().await {
            Ok(Some((now, has_ended))) => has_ended || run.is_some_and(|run| *run != now),
            Ok(None) => false,
            Err(error) => error.failure().is_some_and(|failure| failure.status == 404),
        }
    }

    async fn look(&self) -> Result<Option<(Run, bool)>, Error> {
        let (node, pod) = (&self.found.node, &self.found.pod);
        node.pace.turn_ahead().await;
        let group = node.azure.get(&node.scope, pod.group.as_str()).await?;
        Ok(Group::read(&group).and_then(|group| {
            let container = group.container(&self.container);
            let container = container.or_else(|| group.init_container(&self.container));
            let view = container?.view()?;
            let current = view.current_state.as_ref()?;
            let run = Run {
                started: current.start_time,
                restarts: view.restart_count,
            };
            let has_ended = current.kind() == ContainerState::Terminated || group.is_terminal();
            Some((run, has_ended))
        }))
    }

    fn refusal(&self, error: &Error) -> Refusal {
        let (container, pod) = (&self.container, &self.found.pod.name);
        match error.failure() {
            Some(failure) if TOO_EARLY.contains(&failure.body.code.as_str()) => {
                Refusal::bad(format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
                ))
            }
            Some(failure) if failure.status == 404 => Refusal::bad(format!(
                "container \"{container}\" in pod \"{pod}\" has no container group in Azure (any more)"
            )),
            Some(failure) if failure.status == 429 => {
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, error.story())
            }
            // Of a 503, kubectl keeps the words to itself.
            _ => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.story()),
        }
    }
}
