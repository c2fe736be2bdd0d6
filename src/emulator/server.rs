//! The HTTP server: accepts connections and routes requests to `arm`, `stream` and `admin`.
//!
//! [`Emulator::start`] returns once the server listens. Dropping the value stops the emulator;
//! [`Emulator::stop`] also waits until all its tasks have ended and its containers are removed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::engine::{self, Engine};
use super::options::{EmulatorOptions, SubnetAddresses, TlsOptions};
use super::state::EmulatorState;
use super::{admin, apps, arm, realtime, stream, tls};

/// The reasons why an emulator cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The operating system does not let it listen on the address.
    #[error("listening on {address}")]
    Listen {
        /// The listen address.
        address: std::net::SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Creating the TLS certificates failed.
    #[error("making certificates")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Writing the CA certificate failed.
    #[error("writing the CA certificate to {path}")]
    WriteCa {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The container engine does not answer, or cannot be used.
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
}

/// Marks a response that must not be sent: the server drops the connection instead.
#[derive(Clone, Copy, Debug)]
pub struct DropConnection;

impl DropConnection {
    /// Creates a marked response.
    pub fn response() -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(Self);
        response
    }
}

/// The server drops the connection because of a fault rule.
#[derive(Debug, Error)]
#[error("dropped by a fault rule")]
struct DroppedConnection;

/// A running emulator.
pub struct Emulator {
    url: String,
    ca_file: Option<WrittenCaFile>,
    shared: Arc<EmulatorState>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Emulator {
    /// Starts an emulator. It accepts connections when this returns.
    pub async fn start(options: EmulatorOptions) -> Result<Self, StartError> {
        let engine = match &options.containers {
            Some(socket) => Some(Engine::connect(socket).await?),
            None => None,
        };
        let address = options.listen;
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let (acceptor, ca_file) = match &options.tls {
            Some(tls_options) => {
                let certificates = tls::loopback().map_err(StartError::Certificates)?;
                let file = WrittenCaFile::write(tls_options, local.port(), &certificates.ca_pem)?;
                (Some(TlsAcceptor::from(certificates.server)), Some(file))
            }
            None => (None, None),
        };
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let shared = Arc::new(EmulatorState::new(options, engine));
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let serving = Serving {
            router: router(shared.clone()),
            acceptor,
            cancel: cancel.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(serving.accept(listener));
        if shared.options.subnet_addresses != SubnetAddresses::Unreachable {
            let (extensions, apps) = (shared.clone(), shared.clone());
            tasks.spawn(realtime::serve(extensions, cancel.clone(), tasks.clone()));
            tasks.spawn(apps::serve(apps, cancel.clone(), tasks.clone()));
        }
        Ok(Self {
            url: format!("{scheme}://{local}"),
            ca_file,
            shared,
            cancel,
            tasks,
        })
    }

    /// The base URL: scheme, host and port.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The file with the CA certificate. `None` without TLS.
    pub fn ca_file(&self) -> Option<&std::path::Path> {
        self.ca_file.as_ref().map(|file| file.path.as_path())
    }

    /// The shared state, for tests that run the emulator in process.
    pub fn shared(&self) -> &Arc<EmulatorState> {
        &self.shared
    }

    /// Stops the emulator and waits until its tasks have ended and the engine's containers are removed.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(engine) = &self.shared.engine {
            engine.clean_up().await;
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.cancel.cancel();
        if let Some(engine) = &self.shared.engine {
            engine.begin_shutdown();
        }
    }
}

/// Builds the router. Requests that match no route go to ARM.
fn router(shared: Arc<EmulatorState>) -> Router {
    Router::new()
        .route("/metadata/endpoints", get(arm::entra::metadata))
        .route(
            "/metadata/identity/oauth2/token",
            get(arm::entra::managed_identity),
        )
        .route("/msi/token", get(arm::entra::app_service))
        .route(
            "/{tenant}/v2.0/.well-known/openid-configuration",
            get(arm::entra::configuration),
        )
        .route("/{tenant}/oauth2/v2.0/token", post(arm::entra::token))
        .route("/execstream/sessionId/{number}", get(stream::connect))
        .route("/attachstream/sessionId/{number}", get(stream::connect))
        .nest("/_emulator", admin::router())
        .route("/_emulator/", get(admin::page::page))
        .fallback(arm::handle)
        .method_not_allowed_fallback(arm::handle)
        .with_state(shared)
}

struct Serving {
    router: Router,
    acceptor: Option<TlsAcceptor>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Serving {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.cancel.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => drop(self.tasks.spawn(self.connection(stream))),
                Err(error) => {
                    // Probably out of file descriptors. The pause gives clients time to close theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn connection(&self, stream: TcpStream) -> impl Future<Output = ()> + 'static + use<> {
        let (router, cancel) = (self.router.clone(), self.cancel.clone());
        let acceptor = self.acceptor.clone();
        async move {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was not set");
            }
            let served = async {
                match acceptor {
                    None => serve(stream, router).await,
                    Some(acceptor) => match acceptor.accept(stream).await {
                        Ok(stream) => serve(stream, router).await,
                        Err(error) => tracing::debug!(%error, "TLS handshake"),
                    },
                }
            };
            tokio::select! {
                () = served => {}
                () = cancel.cancelled() => {}
            }
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router) {
    let service =
        hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let router = router.clone();
            async move {
                let response = match router.oneshot(request.map(Body::new)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                };
                let dropped = response.extensions().get::<DropConnection>().is_some();
                if dropped {
                    Err(DroppedConnection)
                } else {
                    Ok(response)
                }
            }
        });
    let builder = auto::Builder::new(TokioExecutor::new());
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(error, "a connection ended");
    }
}

/// The file with the CA certificate. Drop removes it if the emulator chose a temporary path.
struct WrittenCaFile {
    path: PathBuf,
    /// The folder that the emulator created.
    temporary_folder: Option<PathBuf>,
}

impl WrittenCaFile {
    fn write(options: &TlsOptions, port: u16, pem: &str) -> Result<Self, StartError> {
        let folder =
            std::env::temp_dir().join(format!("aci-emulator-{}-{port}", std::process::id()));
        let path = options
            .ca_file
            .clone()
            .unwrap_or_else(|| folder.join("ca.crt"));
        let temporary_folder = options.ca_file.is_none().then_some(folder);
        let created = temporary_folder
            .as_ref()
            .map_or(Ok(()), std::fs::create_dir_all);
        created
            .and_then(|()| std::fs::write(&path, pem))
            .map_err(|source| StartError::WriteCa {
                path: path.clone(),
                source,
            })?;
        Ok(Self {
            path,
            temporary_folder,
        })
    }
}

impl Drop for WrittenCaFile {
    fn drop(&mut self) {
        if let Some(folder) = &self.temporary_folder {
            // A temporary file that cannot be removed does no harm.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
