//! Creates a certificate authority for one run, and a server certificate for loopback.
//!
//! Clients get the authority's certificate to trust; the server uses the other one. There are two
//! because rustls rejects a CA certificate as a server certificate.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The server's TLS configuration and the CA certificate that its clients must trust.
pub struct Loopback {
    /// The server's configuration.
    pub server: Arc<ServerConfig>,
    /// The CA certificate in PEM.
    pub ca_pem: String,
}

/// Creates both certificates. The server certificate is valid for `localhost`, 127.0.0.1 and `[::1]`.
pub fn loopback() -> Result<Loopback, Box<dyn std::error::Error + Send + Sync>> {
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    ca.distinguished_name
        .push(DnType::CommonName, "aci-emulator CA");
    let ca_key = KeyPair::generate()?;
    let ca_certificate = ca.self_signed(&ca_key)?;
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let mut leaf = CertificateParams::new(names)?;
    leaf.distinguished_name
        .push(DnType::CommonName, "localhost");
    let leaf_key = KeyPair::generate()?;
    let leaf_certificate = leaf.signed_by(&leaf_key, &Issuer::new(ca, ca_key))?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf_certificate.der().clone()], key)?;
    // Websockets need HTTP/1.1. Clients that know both would choose HTTP/2.
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loopback {
        server: Arc::new(server),
        ca_pem: ca_certificate.pem(),
    })
}
