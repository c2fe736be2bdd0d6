//! A proxy between the operator and the API server. It forwards everything, and makes selected calls
//! slow or fail, as slow servers, busy servers and bad networks do.
//!
//! In: a [`Cluster`], and which [`Calls`] meet which [`Fault`]. Out: an address for a kubeconfig, and
//! how many calls met their fault; a test waits for these counts instead of sleeping. A delayed call is
//! forwarded even if its client no longer waits, and even after the fault has been removed.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Cluster, wait};

/// Groups of the operator's calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Calls {
    /// The leader's writes of reservations.
    Reserving,
    /// All other writes of a pool's status.
    Telling,
    /// The leader's patches of pods.
    Granting,
    /// New watches of granted pods. Each follows a list of them.
    WatchingGranted,
    /// All other new watches.
    Watching,
}

/// A fault for a call.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The API server handles it at once, but the response arrives this much later.
    AnsweredLate(Duration),
    /// The API server gets it this much later.
    DoneLate(Duration),
    /// The API server handles it, but the connection ends without a response.
    AnswerLost,
    /// The API server handles it, but the response has this status code.
    Done(u16),
    /// The API server does not get it. The response has this status code and allows a retry after a
    /// second.
    Refused(u16),
    /// The requested resource version is too old. Every other call learns it from the response, the
    /// rest from the first event.
    Gone,
}

/// The state of open watches.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    is_silent: bool,
    /// How often all watches were ended.
    ended: usize,
}

/// The current faults, and how many calls met one.
#[derive(Debug, Default)]
struct Faults {
    now: HashMap<Calls, Fault>,
    met: HashMap<Calls, usize>,
}

type Body = UnsyncBoxBody<Bytes, reqwest::Error>;

/// The running proxy.
pub struct Between {
    url: String,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    client: reqwest::Client,
    faults: watch::Sender<Faults>,
    flow: watch::Sender<Flow>,
    /// How many calls are being handled.
    under_way: AtomicUsize,
}

impl Between {
    /// Starts the proxy on a free port. It ends with the runtime.
    pub async fn start(cluster: &Cluster) -> Self {
        let authority = std::fs::read(cluster.certificate_authority()).expect("a certificate");
        let authority = reqwest::Certificate::from_pem(&authority).expect("a certificate");
        let client = reqwest::Client::builder().add_root_certificate(authority);
        let server = cluster.config().cluster_url.to_string();
        let shared = Arc::new(Shared {
            server: server.trim_end_matches('/').to_owned(),
            client: client.no_gzip().build().expect("a client"),
            faults: watch::Sender::default(),
            flow: watch::Sender::default(),
            under_way: AtomicUsize::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let served = shared.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(served.clone(), stream));
            }
        });
        Self { url, shared }
    }

    /// Makes users of this kubeconfig connect to the proxy.
    pub fn redirect(&self, kubeconfig: &std::path::Path) {
        let text = std::fs::read(kubeconfig).expect("a kubeconfig");
        let mut config: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        config["clusters"][0]["cluster"] = json!({"server": self.url});
        std::fs::write(kubeconfig, config.to_string()).expect("it is written");
    }

    /// Sets faults, and resets the counts of these calls.
    pub fn put(&self, faults: &[(Calls, Fault)]) {
        self.shared.faults.send_modify(|now| {
            for (calls, fault) in faults {
                now.now.insert(*calls, *fault);
                now.met.remove(calls);
            }
        });
    }

    /// Removes the faults of these calls.
    pub fn lift(&self, calls: &[Calls]) {
        self.shared.faults.send_modify(|now| {
            now.now.retain(|known, _| !calls.contains(known));
        });
    }

    /// Removes all faults.
    pub fn be_well(&self) {
        self.shared.faults.send_modify(|now| now.now.clear());
        self.shared.flow.send_modify(|flow| flow.is_silent = false);
    }

    /// Waits until this many of these calls have met their fault.
    pub async fn until_met(&self, calls: Calls, number: usize) {
        let mut faults = self.shared.faults.subscribe();
        let met = faults.wait_for(|now| now.met.get(&calls) >= Some(&number));
        let met = tokio::time::timeout(wait::DEADLINE, met).await.is_ok();
        assert!(
            met,
            "{number} × {calls:?}: {:?}",
            self.shared.faults.borrow()
        );
    }

    /// Waits until no delayed call is in flight.
    pub async fn until_idle(&self) {
        wait::by_and_by("calls to have been passed on", async || {
            self.shared.under_way.load(Ordering::SeqCst) == 0
        })
        .await;
    }

    /// Ends all open watches, some of them in the middle of an event.
    pub fn end_watches(&self) {
        self.shared.flow.send_modify(|flow| flow.ended += 1);
    }

    /// Stops all events of watches, open and new ones.
    pub fn silence_watches(&self) {
        self.shared.flow.send_modify(|flow| flow.is_silent = true);
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream) {
    let service = service_fn(move |request| pass(shared.clone(), request));
    let builder = auto::Builder::new(TokioExecutor::new());
    // Ignore errors: the fault itself ended the connection.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The error that ends a connection without a response.
type Dropped = Box<dyn std::error::Error + Send + Sync>;

async fn pass(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let calls = Calls::of(&request);
    let met = calls.and_then(|calls| shared.meet(calls));
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts, body.collect().await?.to_bytes());
    if matches!(calls, Some(Calls::Watching | Calls::WatchingGranted)) {
        return match met {
            Some((Fault::Gone, number)) => Ok(gone(number % 2 == 0)),
            _ => shared.watch(request).await,
        };
    }
    let Some((fault, _)) = met else {
        return shared.send(request).await;
    };
    if let Fault::Refused(code) = fault {
        return Ok(refusal(code));
    }
    shared.under_way.fetch_add(1, Ordering::SeqCst);
    // In a task of its own: it continues when the client has disconnected.
    let done = tokio::spawn(async move {
        if let Fault::DoneLate(by) = fault {
            tokio::time::sleep(by).await;
        }
        let answer = shared.send(request).await;
        shared.under_way.fetch_sub(1, Ordering::SeqCst);
        if let Fault::AnsweredLate(by) = fault {
            tokio::time::sleep(by).await;
        }
        answer
    });
    let answer = done.await?;
    match fault {
        Fault::AnswerLost => Err("the answer is lost".into()),
        Fault::Done(code) => Ok(refusal(code)),
        _ => answer,
    }
}

impl Calls {
    fn of<B>(request: &Request<B>) -> Option<Self> {
        let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.contains("watch=true");
        let is_leaders = query.contains("fieldManager=burstpool-leader");
        match (request.method(), &*path) {
            (&Method::PATCH, ["api", "v1", "namespaces", _, "pods", _]) => {
                is_leaders.then_some(Self::Granting)
            }
            (&Method::PATCH, ["apis", "burstpool.io", _, "burstpools", _, "status"]) => {
                Some(if is_leaders {
                    Self::Reserving
                } else {
                    Self::Telling
                })
            }
            (&Method::GET, ["api", "v1", "pods"])
                if is_watch && query.contains("labelSelector=") =>
            {
                Some(Self::WatchingGranted)
            }
            (&Method::GET, _) if is_watch => Some(Self::Watching),
            _ => None,
        }
    }
}

impl Shared {
    /// The current fault of these calls, and how many calls met it before.
    fn meet(&self, calls: Calls) -> Option<(Fault, usize)> {
        let mut found = None;
        self.faults.send_if_modified(|now| {
            let Some(fault) = now.now.get(&calls) else {
                return false;
            };
            let met = now.met.entry(calls).or_default();
            found = Some((*fault, *met));
            *met += 1;
            true
        });
        found
    }

    async fn ask(&self, request: Request<Bytes>) -> Result<reqwest::Response, Dropped> {
        let (mut parts, body) = request.into_parts();
        for header in [header::HOST, header::CONNECTION, header::CONTENT_LENGTH] {
            parts.headers.remove(header);
        }
        let url = format!("{}{}", self.server, parts.uri);
        let asked = self
            .client
            .request(parts.method, url)
            .headers(parts.headers);
        Ok(asked.body(body).send().await?)
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>, Dropped> {
        let answer = self.ask(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = Full::new(answer.bytes().await?).map_err(|never: Infallible| match never {});
        Ok(respond(status, headers, body.boxed_unsync()))
    }

    async fn watch(&self, request: Request<Bytes>) -> Result<Response<Body>, Dropped> {
        let flow = self.flow.subscribe();
        let answer = self.ask(request).await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = StreamBody::new(flowing(answer.bytes_stream(), flow));
        Ok(respond(status, headers, body.boxed_unsync()))
    }
}

/// The events of a watch, until it is ended, and only while it is not silent.
fn flowing(
    chunks: impl Stream<Item = reqwest::Result<Bytes>> + Send + 'static,
    flow: watch::Receiver<Flow>,
) -> impl Stream<Item = reqwest::Result<Frame<Bytes>>> + Send {
    let (began, chunks) = (flow.borrow().ended, Box::pin(chunks));
    stream::unfold((chunks, flow), move |(mut chunks, mut flow)| async move {
        loop {
            let Flow { is_silent, ended } = *flow.borrow_and_update();
            if ended != began {
                return None;
            }
            tokio::select! {
                changed = flow.changed() => changed.ok()?,
                chunk = chunks.next(), if !is_silent => {
                    return Some((chunk?.map(Frame::data), (chunks, flow)));
                }
            }
        }
    })
}

fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    for header in [header::CONNECTION, header::TRANSFER_ENCODING] {
        answer.headers_mut().remove(header);
    }
    answer
}

/// An error in the API server's format.
fn error(code: u16) -> serde_json::Value {
    let reason = match code {
        410 => "Expired",
        429 => "TooManyRequests",
        504 => "Timeout",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": "as the test has it", "code": code})
}

/// Overloaded servers, both the API server and proxies before it, answer in plain text.
fn refusal(code: u16) -> Response<Body> {
    let (kind, body) = match code {
        429 | 503 => (
            "text/plain",
            text(&"Too many requests, please try again later."),
        ),
        code => ("application/json", text(&error(code))),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::RETRY_AFTER, 1.into());
    let status = StatusCode::from_u16(code).expect("a code");
    respond(status, headers, body)
}

fn gone(by_event: bool) -> Response<Body> {
    if !by_event {
        return refusal(410);
    }
    let event = json!({"type": "ERROR", "object": error(410)});
    Response::new(text(&event))
}

fn text(value: &impl Display) -> Body {
    let body = Full::new(Bytes::from(format!("{value}\n")));
    body.map_err(|never: Infallible| match never {})
        .boxed_unsync()
}
