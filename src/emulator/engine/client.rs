//! Calls to the engine's API, each with a timeout, a limited number at a time.
//!
//! In: requests from the other engine modules. Out: the engine's answer, or an [`EngineError`] that names the
//! attempted action. Only `hijack` and `listing` also speak to the engine directly; their docs say why.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::container::LogOutput;
use bollard::errors::Error as Cause;
use bollard::models::{ContainerCreateBody, ExecConfig, ExecInspectResponse, ImageInspect};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::error::EngineError;
use super::listing::{self, InspectedContainer, ListedContainer};

/// How many calls may run at the same time.
const MAX_CONCURRENT_CALLS: usize = 8;
/// How many images may be pulled at the same time. Separate from calls, because a pull may take long.
const MAX_CONCURRENT_PULLS: usize = 3;
/// How long the engine may take to answer its first call. podman's service starts with that call, which takes
/// seconds on a busy machine. An engine that does not run refuses the connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Timeout of a call. Starting a container on a busy machine takes seconds.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of waiting for a container's end; then the emulator asks again. Docker and podman send the
/// response head at once and the body at the container's end.
const WAIT_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

/// A connection to an engine. Cheap to clone.
#[derive(Clone)]
pub struct EngineClient {
    docker: Docker,
    waiting: Docker,
    permits: Arc<Semaphore>,
    pulls: Arc<Semaphore>,
    socket: PathBuf,
    architecture: String,
}

impl EngineClient {
    /// Connects to the engine that listens on `socket`. Fails if it does not answer within 5 s.
    pub async fn connect(socket: &Path) -> Result<Self, EngineError> {
        let what = "connecting";
        let docker = Docker::connect_with_unix(
            &socket.to_string_lossy(),
            CALL_TIMEOUT.as_secs(),
            API_DEFAULT_VERSION,
        )
        .map_err(|source| refused(what, source))?;
        let version = with_timeout(CONNECT_TIMEOUT, what, docker.version()).await?;
        Ok(Self {
            waiting: docker.clone().with_timeout(WAIT_TIMEOUT),
            docker,
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT_CALLS)),
            pulls: Arc::new(Semaphore::new(MAX_CONCURRENT_PULLS)),
            socket: socket.to_owned(),
            architecture: version.arch.unwrap_or_default(),
        })
    }

    /// The unix socket on which the engine listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The engine's architecture as Go names it: `amd64`, `arm64`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Creates a container and returns its id.
    pub async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, EngineError> {
        let options = query::CreateContainerOptionsBuilder::new()
            .name(name)
            .build();
        let created = self.docker.create_container(Some(options), body);
        let created = self
            .call(&format!("creating container {name}"), created)
            .await?;
        Ok(created.id)
    }

    /// Starts a container.
    pub async fn start(&self, name: &str) -> Result<(), EngineError> {
        let started = self.docker.start_container(name, None);
        self.call(&format!("starting container {name}"), started)
            .await
    }

    /// A container's state and network. `None` if it does not exist.
    pub async fn inspect(&self, name: &str) -> Result<Option<InspectedContainer>, EngineError> {
        let call = listing::inspect(&self.socket, name);
        none_if_not_found(
            self.call(&format!("inspecting container {name}"), call)
                .await,
        )
    }

    /// Waits until a container has ended and returns its exit code. podman 4.3.1 reports the end up to
    /// a second late.
    pub async fn wait(&self, name: &str) -> Result<i64, EngineError> {
        let options = query::WaitContainerOptionsBuilder::new()
            .condition("not-running")
            .build();
        let ended = self
            .waiting
            .wait_container(name, Some(options))
            .next()
            .await;
        let what = format!("waiting for container {name}");
        match ended {
            Some(Ok(ended)) => Ok(ended.status_code),
            // bollard reports every exit code except 0 as an error.
            Some(Err(Cause::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(source)) => Err(refused(&what, source)),
            None => Err(EngineError::TimedOut { what }),
        }
    }

    /// Sends SIGTERM to a container's process, and SIGKILL after `grace` seconds.
    pub async fn stop(&self, name: &str, grace: i32) -> Result<(), EngineError> {
        let options = query::StopContainerOptionsBuilder::new().t(grace).build();
        let call = self.docker.stop_container(name, Some(options));
        self.call(&format!("stopping container {name}"), call).await
    }

    /// Sends SIGKILL to a container's process.
    pub async fn kill(&self, name: &str) -> Result<(), EngineError> {
        let options = query::KillContainerOptionsBuilder::new()
            .signal("SIGKILL")
            .build();
        let call = self.docker.kill_container(name, Some(options));
        self.call(&format!("killing container {name}"), call).await
    }

    /// Removes a container and its anonymous volumes, also while it runs. Succeeds if it does not
    /// exist.
    pub async fn remove(&self, name: &str) -> Result<(), EngineError> {
        let options = query::RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let call = self.docker.remove_container(name, Some(options));
        none_if_not_found(self.call(&format!("removing container {name}"), call).await).map(drop)
    }

    /// All containers that have all of `labels` (`name` or `name=value`), running or not.
    pub async fn list(&self, labels: &[String]) -> Result<Vec<ListedContainer>, EngineError> {
        self.call("listing containers", listing::list(&self.socket, labels))
            .await
    }

    /// An image that the engine has locally. `None` if it does not.
    pub async fn image(&self, name: &str) -> Result<Option<ImageInspect>, EngineError> {
        let call = self.docker.inspect_image(name);
        none_if_not_found(self.call(&format!("looking up image {name}"), call).await)
    }

    /// Pulls an image and calls `progress` for each step that the engine reports.
    pub async fn pull(
        &self,
        name: &str,
        credentials: Option<DockerCredentials>,
        mut progress: impl FnMut(),
    ) -> Result<(), EngineError> {
        let options = query::CreateImageOptionsBuilder::new()
            .from_image(name)
            .build();
        let _permit = self.pulls.acquire().await;
        let mut steps = self.docker.create_image(Some(options), None, credentials);
        while let Some(step) = steps.next().await {
            step.map_err(|source| refused(&format!("pulling image {name}"), source))?;
            progress();
        }
        Ok(())
    }

    /// Creates an image from a root file system (a tar archive).
    pub async fn import(
        &self,
        options: query::CreateImageOptions,
        root: Bytes,
    ) -> Result<(), EngineError> {
        let body = bollard::body_full(root);
        let steps = self.docker.create_image(Some(options), Some(body), None);
        self.call(
            "importing an image",
            steps.try_for_each(|_| async { Ok(()) }),
        )
        .await
    }

    /// A container's log; with `follow`, also its future output.
    pub fn logs(
        &self,
        name: &str,
        options: query::LogsOptions,
    ) -> impl Stream<Item = Result<LogOutput, Cause>> + use<> {
        self.docker.logs(name, Some(options))
    }

    /// A container's output from now on.
    pub async fn attach(
        &self,
        name: &str,
    ) -> Result<impl Stream<Item = Result<LogOutput, Cause>> + Send + use<>, EngineError> {
        let options = query::AttachContainerOptionsBuilder::new()
            .stream(true)
            .stdout(true)
            .stderr(true)
            .build();
        let attached = self.docker.attach_container(name, Some(options));
        Ok(self
            .call(&format!("attaching to container {name}"), attached)
            .await?
            .output)
    }

    /// Prepares a command in a container and returns the command's id.
    pub async fn create_exec(&self, name: &str, exec: ExecConfig) -> Result<String, EngineError> {
        let created = self.docker.create_exec(name, exec);
        let created = self
            .call(&format!("running a command in container {name}"), created)
            .await?;
        Ok(created.id)
    }

    /// Runs a prepared command without a terminal. The stream yields its output and ends with the
    /// command.
    pub async fn run_exec(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<LogOutput, Cause>> + Send + use<>, EngineError> {
        let what = "running a command";
        match self.call(what, self.docker.start_exec(id, None)).await? {
            bollard::exec::StartExecResults::Attached { output, .. } => Ok(output),
            bollard::exec::StartExecResults::Detached => Err(EngineError::TimedOut {
                what: what.to_owned(),
            }),
        }
    }

    /// The state of a command: whether it runs, its process id and exit code.
    pub async fn inspect_exec(&self, id: &str) -> Result<ExecInspectResponse, EngineError> {
        self.call("inspecting a command", self.docker.inspect_exec(id))
            .await
    }

    /// Sets the size of a command's terminal, in rows and columns.
    pub async fn resize_exec(&self, id: &str, (rows, cols): (u16, u16)) -> Result<(), EngineError> {
        let options = query::ResizeExecOptionsBuilder::new()
            .h(i32::from(rows))
            .w(i32::from(cols))
            .build();
        self.call("resizing a terminal", self.docker.resize_exec(id, options))
            .await
    }

    async fn call<T>(
        &self,
        what: &str,
        call: impl Future<Output = Result<T, Cause>>,
    ) -> Result<T, EngineError> {
        let _permit = self.permits.acquire().await;
        with_timeout(CALL_TIMEOUT, what, call).await
    }
}

async fn with_timeout<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Cause>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(source)) => Err(refused(what, source)),
        Err(_) => Err(EngineError::TimedOut {
            what: what.to_owned(),
        }),
    }
}

fn refused(what: &str, source: Cause) -> EngineError {
    EngineError::Refused {
        what: what.to_owned(),
        source,
    }
}

fn none_if_not_found<T>(answer: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}
