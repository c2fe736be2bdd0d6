//! The TLS listener of the kubelet API.
//!
//! In: a bound socket. Out: requests for [`KubeletServer`], each with the certificates that its client
//! presented, and their answers. Everything that an unauthenticated client can make grow is limited: connections,
//! the time for a handshake and for a request's head, the size of a head. On shutdown the listener closes at once,
//! idle connections are closed, and answers under way have 10 s to complete.

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

use super::auth::Authenticator;
use super::certificate::{self, CertificateSource, ServingCertificate};
use super::nodes::NodeRegistry;
use super::server::KubeletServer;
use super::tasks::ListenerTasks;

/// The most connections at once. A shell in a pod takes one, and so does a log that is followed.
const MAX_CONNECTIONS: usize = 512;
/// Timeout of a TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request's head may take in total, and how long a connection may be idle between two requests.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long answers under way may take on shutdown: less than the 30 s that Kubernetes gives a pod to terminate.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head in bytes, which contains the command of an exec. Together, all connections use at most
/// 64 MiB.
const MAX_HEADER_BYTES: usize = 128 << 10;
/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// What the kubelet API is built from.
pub struct KubeletApiSettings {
    /// The socket to listen on.
    pub listener: TcpListener,
    /// The source of its certificate.
    pub certificate_source: CertificateSource,
    /// The Kubernetes client.
    pub client: Client,
    /// The nodes that it serves.
    pub nodes: NodeRegistry,
}

/// Serves until `cancel`, and then until the answers under way have ended. Fails, before it serves anything, only
/// if there is no usable certificate.
pub async fn listen(
    settings: KubeletApiSettings,
    cancel: CancellationToken,
) -> Result<impl Future<Output = ()>, certificate::Error> {
    let identity = Arc::new(ServingCertificate::load(&settings.certificate_source).await?);
    let tasks = TaskTracker::new();
    let renewal = (
        identity.clone(),
        settings.certificate_source,
        cancel.clone(),
    );
    tasks.spawn(async move { renewal.0.keep_current(renewal.1, renewal.2).await });
    let server = Arc::new(KubeletServer {
        authenticator: Authenticator::new(settings.client.clone()),
        client: settings.client,
        nodes: settings.nodes,
        usage: Arc::default(),
        tasks: ListenerTasks {
            tracker: tasks.clone(),
            cancel: cancel.clone(),
        },
    });
    let listening = KubeletListener {
        acceptor: TlsAcceptor::from(Arc::new(tls_config(identity))),
        server,
        connection_permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        cancel,
        tasks,
    };
    Ok(listening.accept(settings.listener))
}

struct KubeletListener {
    acceptor: TlsAcceptor,
    server: Arc<KubeletServer>,
    connection_permits: Arc<Semaphore>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl KubeletListener {
    async fn accept(self, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.cancel.cancelled() => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    if let Ok(permit) = self.connection_permits.clone().try_acquire_owned() {
                        self.tasks.spawn(self.serve_connection(stream, permit));
                    } else {
                        tracing::warn!(MAX_CONNECTIONS, "too many connections");
                    }
                }
                Err(error) => {
                    // The process is out of file descriptors: some become free when other clients disconnect.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        // Clients connect to the next leader instead of waiting for this process.
        drop(listener);
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn serve_connection(
        &self,
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + 'static + use<> {
        let (acceptor, server) = (self.acceptor.clone(), self.server.clone());
        let cancel = self.cancel.clone();
        async move {
            let alive = SockRef::from(&stream).set_tcp_keepalive(&tcp_keepalive());
            if let Err(error) = alive.and_then(|()| stream.set_nodelay(true)) {
                tracing::debug!(%error, "setting a connection's options");
            }
            let accepting = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let accepted = tokio::select! {
                accepted = accepting => accepted,
                () = cancel.cancelled() => return,
            };
            match accepted {
                Ok(Ok(stream)) => serve_http(stream, server, permit, cancel).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake"),
                Err(_) => tracing::debug!("TLS handshake: no end in time"),
            }
        }
    }
}

/// TCP keepalive finds a peer that has silently gone within a minute, also on a connection without traffic: clients
/// follow a quiet log for days.
fn tcp_keepalive() -> TcpKeepalive {
    let interval = Duration::from_secs(15);
    let keepalive = TcpKeepalive::new();
    keepalive
        .with_time(interval)
        .with_interval(interval)
        .with_retries(3)
}

async fn serve_http(
    stream: tokio_rustls::server::TlsStream<TcpStream>,
    server: Arc<KubeletServer>,
    permit: OwnedSemaphorePermit,
    cancel: CancellationToken,
) {
    let certificates = stream.get_ref().1.peer_certificates();
    let certificates: Arc<[CertificateDer<'static>]> = certificates.unwrap_or_default().into();
    // A connection that is upgraded to a stream keeps its permit.
    let permit = Arc::new(permit);
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        let (server, certificates) = (server.clone(), certificates.clone());
        request.extensions_mut().insert(permit.clone());
        async move { Ok::<_, std::convert::Infallible>(server.handle(&certificates, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_TIMEOUT)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = cancel.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let Ok(served) = tokio::time::timeout(SHUTDOWN_TIMEOUT, connection).await else {
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

fn tls_config(identity: Arc<ServingCertificate>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone());
    let mut config = config
        .with_safe_default_protocol_versions()
        .expect("ring speaks the default versions")
        .with_client_cert_verifier(Arc::new(PresentedClientCert(provider)))
        .with_cert_resolver(identity);
    // Upgrades need HTTP/1.1; a client that supports both would choose HTTP/2.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Accepts any client certificate, as long as the client has its key. [`Authenticator`] verifies the issuer on each
/// request, so that a client with an unknown issuer gets 401, and the CA can change at runtime.
#[derive(Debug)]
struct PresentedClientCert(Arc<CryptoProvider>);

impl ClientCertVerifier for PresentedClientCert {
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
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
