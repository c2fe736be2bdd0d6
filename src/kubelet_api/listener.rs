//! Listening: connections in, requests to [`serve`](super::serve), answers out.
//!
//! In: a bound socket. Out: requests with the certificates that their callers showed. Everything a
//! stranger can make grow is bounded: connections, the time for a handshake and for a request's head, the
//! size of a head. At the end of the process new connections are refused at once, idle ones are closed, and
//! answers that are under way are completed.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::callers::Callers;
use super::certificate::{self, Identity, Source};
use super::nodes::Nodes;
use super::serve::Server;
use super::tasks::Tasks;

/// How many connections there may be. A pod's shell is one; so is a person who follows a log.
const CONNECTIONS: usize = 512;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request's head may take, however steadily it comes, and how long a connection may be idle
/// between two.
const HEAD: Duration = Duration::from_secs(30);
/// How long answers may take that are under way when the process ends: less than the 30 s that Kubernetes gives a
/// pod to end.
const FAREWELL: Duration = Duration::from_secs(10);
/// How big a request's head may be: a command is in it. As many as there may be connections are 64 MiB.
const HEAD_SIZE: usize = 128 << 10;
/// How many headers a request may have.
const HEADERS: usize = 64;

/// What the kubelet API is made of.
pub struct Settings {
    /// Where it listens.
    pub listener: TcpListener,
    /// Its certificate.
    pub source: Source,
    /// Kubernetes.
    pub client: Client,
    /// The nodes that it serves.
    pub nodes: Nodes,
}

/// Serves until `cancel`, and then until answers have ended that are under way; an error is one of the certificate, before anything is served.
pub async fn listen(
    settings: Settings,
    cancel: CancellationToken,
) -> Result<impl Future<Output = ()>, certificate::Error> {
    let identity = Arc::new(Identity::of(&settings.source).await?);
    let tasks = TaskTracker::new();
    let kept = (identity.clone(), settings.source, cancel.clone());
    tasks.spawn(async move { kept.0.keep(kept.1, kept.2).await });
    let server = Arc::new(Server {
        callers: Callers::new(settings.client.clone()),
        client: settings.client,
        nodes: settings.nodes,
        usage: Arc::default(),
        tasks: Tasks {
            tracker: tasks.clone(),
            cancel: cancel.clone(),
        },
    });
    let listening = Listening {
        acceptor: TlsAcceptor::from(Arc::new(tls(identity))),
        server,
        room: Arc::new(Semaphore::new(CONNECTIONS)),
        cancel,
        tasks,
    };
    Ok(listening.accept(settings.listener))
}

struct Listening {
    acceptor: TlsAcceptor,
    server: Arc<Server>,
    room: Arc<Semaphore>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Listening {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.cancel.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Ok(place) = self.room.clone().try_acquire_owned() {
                        self.tasks.spawn(self.connection(stream, place));
                    } else {
                        tracing::warn!(CONNECTIONS, "too many connections");
                    }
                }
                Err(error) => {
                    // Out of file descriptors: those in use come back when their clients are done.
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Clients connect to the next leader rather than wait here.
        drop(listener);
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn connection(
        &self,
        stream: TcpStream,
        place: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + 'static + use<> {
        let (acceptor, server) = (self.acceptor.clone(), self.server.clone());
        let cancel = self.cancel.clone();
        async move {
            let alive = SockRef::from(&stream).set_tcp_keepalive(&alive());
            if let Err(error) = alive.and_then(|()| stream.set_nodelay(true)) {
                tracing::debug!(%error, "setting a connection's options");
            }
            let accepting = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
            let accepted = tokio::select! {
                accepted = accepting => accepted,
                () = cancel.cancelled() => return,
            };
            match accepted {
                Ok(Ok(stream)) => serve(stream, server, place, cancel).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                Err(_) => tracing::debug!("TLS handshake: too slow"),
            }
        }
    }
}

/// A peer that went without a word is found out within a minute, also where nothing is said: a log that
/// does not grow is followed for days.
fn alive() -> TcpKeepalive {
    let every = Duration::from_secs(15);
    let keepalive = TcpKeepalive::new();
    keepalive
        .with_time(every)
        .with_interval(every)
        .with_retries(3)
}

async fn serve(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    server: Arc<Server>,
    place: OwnedSemaphorePermit,
    cancel: CancellationToken,
) {
    let shown = stream.get_ref().1.peer_certificates();
    let shown: Arc<[CertificateDer<'static>]> = shown.unwrap_or_default().into();
    // A connection that becomes a stream goes on having its place.
    let place = Arc::new(place);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        let (server, shown) = (server.clone(), shown.clone());
        request.extensions_mut().insert(place.clone());
        async move { Ok::<_, std::convert::Infallible>(server.answer(&shown, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_SIZE)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let Ok(served) = tokio::time::timeout(FAREWELL, connection).await else {
                tracing::info!("closing a connection whose answer takes too long");
                return;
            };
            served
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}

fn tls(identity: Arc<Identity>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone());
    let mut config = config
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_client_cert_verifier(Arc::new(Shown(provider)))
        .with_cert_resolver(identity);
    // Streams need HTTP/1.1; a client that can do both would choose HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Takes whatever certificate a client shows, as long as the client has its key. Who signed it is looked
/// at with each request ([`Callers`]): so a stranger is answered 401, and the authority can change.
#[derive(Debug)]
struct Shown(Arc<CryptoProvider>);

impl ClientCertVerifier for Shown {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
