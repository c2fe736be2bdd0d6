//! HTTP probes: one GET to the group's address.
//!
//! In: an address and a probe. Out: success if the status is 200 to 399, otherwise the reason in the
//! kubelet's words. Like the kubelet, it accepts any certificate.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::emulator::group::model::ProbeHttpGet;

/// The reason why a probe failed.
type BoxFailure = Box<dyn std::error::Error + Send + Sync>;

/// Probes `address` once. Fails after `timeout` (host time).
pub async fn get(address: Ipv4Addr, probe: &ProbeHttpGet, timeout: Duration) -> Result<(), String> {
    let url = url(address, probe);
    let status = match tokio::time::timeout(timeout, status(address, probe)).await {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(format!("Get \"{url}\": {error}")),
        Err(_) => {
            return Err(format!(
                "Get \"{url}\": no answer within {} s",
                timeout.as_secs()
            ));
        }
    };
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {status}"))
    }
}

fn url(address: Ipv4Addr, probe: &ProbeHttpGet) -> String {
    let scheme = if is_tls(probe) { "https" } else { "http" };
    format!("{scheme}://{address}:{}{}", port(probe), path(probe))
}

fn is_tls(probe: &ProbeHttpGet) -> bool {
    probe
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
}

fn port(probe: &ProbeHttpGet) -> u16 {
    probe
        .port
        .and_then(|port| u16::try_from(port).ok())
        .unwrap_or(80)
}

fn path(probe: &ProbeHttpGet) -> String {
    let path = probe.path.as_deref().unwrap_or_default();
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}

async fn status(address: Ipv4Addr, probe: &ProbeHttpGet) -> Result<u16, BoxFailure> {
    let mut request = Request::get(path(probe))
        .header(header::HOST, format!("{address}:{}", port(probe)))
        .header(header::USER_AGENT, "aci-emulator")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Body::empty())?;
    for extra in probe.http_headers.iter().flatten() {
        let name: HeaderName = extra.name.as_deref().unwrap_or_default().parse()?;
        let value: HeaderValue = extra.value.as_deref().unwrap_or_default().parse()?;
        request.headers_mut().insert(name, value);
    }
    let stream = TcpStream::connect((address, port(probe))).await?;
    if is_tls(probe) {
        let name = ServerName::from(std::net::IpAddr::V4(address));
        send(connector()?.connect(name, stream).await?, request).await
    } else {
        send(stream, request).await
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    request: Request<Body>,
) -> Result<u16, BoxFailure> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // Poll the connection together with its only request. It may end when the response arrives.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = connection => answer.await,
    };
    Ok(answer?.status().as_u16())
}

fn connector() -> Result<TlsConnector, BoxFailure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts every certificate, but still checks that the server has the private key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn probe_result(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let serving = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(request[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
            stream
                .write_all(answer.as_bytes())
                .await
                .expect("an answer");
        };
        let probe = ProbeHttpGet {
            path: Some("health".into()),
            port: Some(port.into()),
            ..ProbeHttpGet::default()
        };
        tokio::join!(
            get(Ipv4Addr::LOCALHOST, &probe, Duration::from_secs(5)),
            serving
        )
        .0
    }

    #[tokio::test]
    async fn a_status_below_400_is_healthy_and_others_are_reported() {
        assert_eq!(
            probe_result("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n").await,
            Ok(())
        );
        let failed = probe_result("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(failed, Err("HTTP probe failed with statuscode: 503".into()));
        let closed = probe_result("").await.expect_err("no answer");
        assert!(closed.starts_with("Get \"http://127.0.0.1:"), "{closed}");
    }
}
