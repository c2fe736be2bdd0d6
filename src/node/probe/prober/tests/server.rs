//! Servers for the tests of probes.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// A server in this process. It ends with the test's runtime.
pub struct ProbeServer {
    pub port: u16,
    /// How many connections were opened, and how many the prober has closed.
    opened: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl ProbeServer {
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    /// Waits until the prober has closed this many connections. It must not have opened more.
    pub async fn closed(&self, count: usize) {
        while self.closed.load(Ordering::SeqCst) < count {
            self.changed.notified().await;
        }
        assert_eq!(self.opened(), count);
    }
}

/// A port that nothing listens on.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("it is bound").port()
}

/// Serves `answer` over HTTP/1.1 and HTTP/2, with TLS if there is a configuration.
pub async fn serve<F: Future<Output = Response> + Send + 'static>(
    tls: Option<ServerConfig>,
    answer: impl Fn(Request) -> F + Clone + Send + Sync + 'static,
) -> ProbeServer {
    let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let answered = answer(request.map(Body::new));
        async { Ok::<_, Infallible>(answered.await) }
    });
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    accept(move |stream| {
        let (service, acceptor) = (service.clone(), acceptor.clone());
        async move {
            // Errors of a connection are the prober's to report.
            if let Some(acceptor) = acceptor {
                if let Ok(stream) = acceptor.accept(stream).await {
                    connection(stream, service).await;
                }
            } else {
                connection(stream, service).await;
            }
        }
    })
    .await
}

async fn connection<I, S>(stream: I, service: S)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: tower::Service<
            http::Request<hyper::body::Incoming>,
            Response = Response,
            Error = Infallible,
        > + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let builder = Builder::new(TokioExecutor::new());
    let service = TowerToHyperService::new(service);
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Reads a request, writes these bytes, and closes.
pub async fn raw(answer: &'static [u8]) -> ProbeServer {
    accept(move |mut stream| async move {
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await;
        let _ = stream.write_all(answer).await;
    })
    .await
}

/// Writes these bytes and waits until the prober closes the connection.
pub async fn hanging(answer: &'static [u8]) -> ProbeServer {
    accept(move |mut stream| async move {
        let _ = stream.write_all(answer).await;
        let mut bytes = [0; 4096];
        while matches!(stream.read(&mut bytes).await, Ok(read) if read > 0) {}
    })
    .await
}

async fn accept<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(tokio::net::TcpStream) -> F + Send + 'static,
) -> ProbeServer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let server = ProbeServer {
        port: listener.local_addr().expect("it is bound").port(),
        opened: Arc::default(),
        closed: Arc::default(),
        changed: Arc::default(),
    };
    let (opened, closed) = (server.opened.clone(), server.closed.clone());
    let changed = server.changed.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            opened.fetch_add(1, Ordering::SeqCst);
            let served = serve(stream);
            let (closed, changed) = (closed.clone(), changed.clone());
            tokio::spawn(async move {
                served.await;
                closed.fetch_add(1, Ordering::SeqCst);
                changed.notify_one();
            });
        }
    });
    server
}

/// A configuration with a self-signed certificate for another name.
pub fn self_signed(protocols: &[&str]) -> ServerConfig {
    let made = rcgen::generate_simple_self_signed(["other.example".to_owned()]);
    let made = made.expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring supports them")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("a key that matches");
    config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
    config
}
