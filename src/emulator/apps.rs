//! The apps in simulated containers: what answers at a port of a group's address.
//!
//! In: the store, and whether the path to the subnets is cut. Out: one server per port that a script opens
//! (`ACI_EMULATOR_SERVE`), over HTTP/1.1, HTTP/2 and gRPC's health service. While the path is cut, nothing at the
//! groups' addresses answers: a listener whose queue is full makes Linux drop further connections. Only for
//! simulated groups that have loopback addresses.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::clock::later;
use super::group::run::RunState;
use super::group::script::{ContainerScript, to_duration};
use super::realtime;
use super::state::EmulatorState;

/// How often [`serve`] looks for containers that have started or ended.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How often a listener is tried again while the one before it has the address.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// After this long a connection counts as dropped.
const DROPPED_AFTER: Duration = Duration::from_millis(200);
/// The path of gRPC's health service.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// What answers at one address and port.
#[derive(Clone, Debug, PartialEq)]
enum EmulatedApp {
    /// An app with this script.
    Open(Box<ContainerScript>),
    /// Nothing: connections are dropped.
    Silent,
}

/// A server that runs.
struct ServedApp {
    script: watch::Sender<ContainerScript>,
    is_silent: bool,
    /// Whether connections are dropped already.
    drops: Arc<AtomicBool>,
    _ends: DropGuard,
}

/// Serves the apps of all groups until `cancel`.
pub async fn serve(shared: Arc<EmulatorState>, cancel: CancellationToken, tasks: TaskTracker) {
    let mut served: HashMap<SocketAddr, ServedApp> = HashMap::new();
    let mut every = tokio::time::interval(POLL_INTERVAL);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = cancel.cancelled() => return,
        }
        let silent = served.iter().filter(|(address, app)| {
            address.port() == realtime::PORT && app.drops.load(Ordering::Relaxed)
        });
        let silent: HashSet<IpAddr> = silent.map(|(address, _)| address.ip()).collect();
        let apps = apps_to_serve(&shared, &silent);
        served.retain(|address, app| {
            let wanted = apps.get(address);
            wanted.is_some_and(|wanted| app.is_silent == (*wanted == EmulatedApp::Silent))
        });
        for (address, app) in apps {
            let script = match &app {
                EmulatedApp::Open(script) => (**script).clone(),
                EmulatedApp::Silent => ContainerScript::default(),
            };
            if let Some(running) = served.get(&address) {
                running.script.send_if_modified(|old| {
                    let is_change = *old != script;
                    *old = script;
                    is_change
                });
                continue;
            }
            let is_silent = app == EmulatedApp::Silent;
            let app = start_app(address, script, is_silent, &cancel, &tasks);
            served.insert(address, app);
        }
    }
}

/// Starts a server that ends when its handle is dropped.
fn start_app(
    address: SocketAddr,
    script: ContainerScript,
    is_silent: bool,
    cancel: &CancellationToken,
    tasks: &TaskTracker,
) -> ServedApp {
    let ends = cancel.child_token();
    let (script, scripts) = watch::channel(script);
    let drops = Arc::<AtomicBool>::default();
    let dropping = drops.clone();
    let run = async move {
        let ended = if is_silent {
            drop_connections(address, &dropping).await
        } else {
            accept(address, scripts).await
        };
        if let Err(error) = ended {
            tracing::warn!(%address, %error, "an app is not served");
        }
    };
    tasks.spawn(ends.clone().run_until_cancelled_owned(run));
    ServedApp {
        script,
        is_silent,
        drops,
        _ends: ends.drop_guard(),
    }
}

/// What must answer now, by address and port. When the path is cut, the port of the realtime-metrics extension goes
/// silent before the apps do (`silent`): its answers would show that the path works.
fn apps_to_serve(
    shared: &EmulatorState,
    silent: &HashSet<IpAddr>,
) -> HashMap<SocketAddr, EmulatedApp> {
    let now = shared.clock.now();
    let mut store = shared.store();
    store.advance_all(now);
    let mut apps = HashMap::new();
    for group in store.groups.values() {
        let properties = group.body.properties.as_ref();
        let is_in_subnet = properties.is_some_and(super::group::model::Properties::is_in_subnet);
        let Some(ip) = group.ip.filter(|_| is_in_subnet && !group.is_real) else {
            continue;
        };
        if store.is_path_cut {
            apps.insert(SocketAddr::from((ip, realtime::PORT)), EmulatedApp::Silent);
        }
        for run in &group.containers {
            let Some(port) = run.script.serve else {
                continue;
            };
            let app = if store.is_path_cut && silent.contains(&ip.into()) {
                EmulatedApp::Silent
            } else if listens(run.current.as_ref(), &run.script, now) {
                EmulatedApp::Open(Box::new(run.script.clone()))
            } else {
                continue;
            };
            apps.insert(SocketAddr::from((ip, port)), app);
        }
    }
    apps
}

fn listens(current: Option<&RunState>, script: &ContainerScript, now: Timestamp) -> bool {
    let Some(RunState::Running { since }) = current else {
        return false;
    };
    let after = script.serve_after.map(to_duration).unwrap_or_default();
    later(*since, after) <= now
}

/// Answers connections; the script may change meanwhile.
async fn accept(address: SocketAddr, scripts: watch::Receiver<ContainerScript>) -> io::Result<()> {
    let listener = listen(address, 128).await?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let script = scripts.borrow().clone();
        // Dropping the set ends the connections with the app.
        connections.spawn(answer(stream, script));
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(stream: TcpStream, script: ContainerScript) {
    let service = service_fn(move |request: Request<Incoming>| {
        let script = script.clone();
        async move {
            if script.serve_hang {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(response(request.uri().path(), &script))
        }
    });
    // The client sees an error of its connection.
    let builder = Builder::new(TokioExecutor::new());
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn response(path: &str, script: &ContainerScript) -> Response<BoxBody<Bytes, Infallible>> {
    let status = script.serve_status.unwrap_or(StatusCode::OK.as_u16());
    if path != HEALTH_CHECK {
        let mut response = Response::new(Full::from(format!("{status}\n")).boxed());
        *response.status_mut() =
            StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return response;
    }
    // SERVING or NOT_SERVING, after the prefix of five bytes.
    let health = if status < 400 { 1 } else { 2 };
    let message = Bytes::from(vec![0, 0, 0, 0, 2, 0x08, health]);
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Makes connections to the address go unanswered.
async fn drop_connections(address: SocketAddr, dropping: &AtomicBool) -> io::Result<()> {
    // Its queue has place for one connection, and nothing takes it out.
    let _listener = listen(address, 0).await?;
    let mut queued = Vec::new();
    while let Ok(connected) = tokio::time::timeout(DROPPED_AFTER, TcpStream::connect(address)).await
    {
        queued.push(connected?);
    }
    dropping.store(true, Ordering::Relaxed);
    std::future::pending().await
}

/// Listens at the address as soon as the listener before has closed.
async fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let mut every = tokio::time::interval(RETRY_INTERVAL);
    loop {
        every.tick().await;
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        let listener = socket.bind(address).and_then(|()| socket.listen(backlog));
        match listener {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            listener => return listener,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn free() -> SocketAddr {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        free.local_addr().expect("it is bound")
    }

    #[tokio::test]
    async fn a_path_that_is_cut_leaves_connections_unanswered() {
        let address = free();
        let dropping = Arc::<AtomicBool>::default();
        let set = dropping.clone();
        let cut = tokio::spawn(async move { drop_connections(address, &set).await });
        let mut every = tokio::time::interval(POLL_INTERVAL);
        while !dropping.load(Ordering::Relaxed) {
            every.tick().await;
        }
        let connected = tokio::time::timeout(DROPPED_AFTER, TcpStream::connect(address)).await;
        assert!(connected.is_err() && !cut.is_finished());
        cut.abort();
    }
}
