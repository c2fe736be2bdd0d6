//! The serving certificate of the kubelet API.
//!
//! In: certificate files, or the address of the nodes. Out: a [`ServingCertificate`] for TLS, kept up to date:
//! files are read again every 10 s, and a self-signed certificate is renewed long before it expires.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// The lifetime of a self-signed certificate.
const CERTIFICATE_LIFETIME: time::Duration = time::Duration::days(365);
/// The age at which it is renewed: 240 days.
const RENEW_AFTER: Duration = Duration::from_secs(240 * 24 * 3600);
/// The interval between two reads of the files.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM files.
    Files {
        /// The certificate chain.
        certificate: PathBuf,
        /// The private key.
        key: PathBuf,
    },
    /// Self-signed, for this address. API servers accept it unless `--kubelet-certificate-authority` is set.
    SelfSigned(IpAddr),
}

/// Why there is no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("reading {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The files contain no certificate or no key in PEM.
    #[error("the files of --kubelet-cert-file and --kubelet-key-file")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// The certificate does not match its key, or the key type is not supported.
    #[error("the certificate and key of the kubelet API")]
    Key(#[source] rustls::Error),
    /// The self-signed certificate cannot be created.
    #[error("creating the certificate of the kubelet API")]
    Generate(#[source] rcgen::Error),
}

/// The current serving certificate.
pub struct ServingCertificate(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for ServingCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServingCertificate")
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// The contents of the certificate file and the key file.
type CertificatePem = (Vec<u8>, Vec<u8>);

impl ServingCertificate {
    /// Loads or creates the certificate.
    pub async fn load(source: &CertificateSource) -> Result<Self, Error> {
        let key = match source {
            CertificateSource::SelfSigned(address) => generate_self_signed(*address)?,
            CertificateSource::Files { certificate, key } => {
                parse_certified_key(&read_files(certificate, key).await?)?
            }
        };
        Ok(Self(RwLock::new(Arc::new(key))))
    }

    /// Keeps the certificate up to date until `cancel`.
    pub async fn keep_current(&self, source: CertificateSource, cancel: CancellationToken) {
        let maintained = async {
            match source {
                CertificateSource::SelfSigned(address) => self.renew(address).await,
                CertificateSource::Files { certificate, key } => {
                    self.reload_files(certificate, key).await;
                }
            }
        };
        tokio::select! {
            () = maintained => {}
            () = cancel.cancelled() => {}
        }
    }

    async fn renew(&self, address: IpAddr) {
        loop {
            tokio::time::sleep(RENEW_AFTER).await;
            match generate_self_signed(address) {
                Ok(key) => self.replace(key),
                Err(error) => tracing::error!(%error, "cannot renew the kubelet API's certificate"),
            }
        }
    }

    /// Reads the files at intervals. While they do not form a valid pair (they may be half written), the old
    /// certificate stays.
    async fn reload_files(&self, certificate: PathBuf, key: PathBuf) {
        let mut loaded = read_files(&certificate, &key).await.ok();
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let now = match read_files(&certificate, &key).await {
                Ok(now) if loaded.as_ref() != Some(&now) => now,
                Ok(_) => continue,
                Err(error) => {
                    tracing::warn!(%error, "keeping the kubelet API's old certificate");
                    continue;
                }
            };
            match parse_certified_key(&now) {
                Ok(key) => {
                    self.replace(key);
                    tracing::info!("the kubelet API has a new certificate");
                    loaded = Some(now);
                }
                Err(error) => {
                    tracing::warn!(%error, "keeping the kubelet API's old certificate");
                }
            }
        }
    }

    fn replace(&self, key: CertifiedKey) {
        *self.0.write() = Arc::new(key);
    }
}

async fn read_files(certificate: &PathBuf, key: &PathBuf) -> Result<CertificatePem, Error> {
    let read = async |path: &PathBuf| {
        let bytes = tokio::fs::read(path).await;
        bytes.map_err(|source| Error::Read {
            path: path.clone(),
            source,
        })
    };
    Ok((read(certificate).await?, read(key).await?))
}

fn parse_certified_key((certificate, key): &CertificatePem) -> Result<CertifiedKey, Error> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate).collect();
    let chain = chain.map_err(Error::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(Error::Pem)?;
    let key = CertifiedKey::new(chain, any_supported_type(&key).map_err(Error::Key)?);
    key.keys_match().map_err(Error::Key)?;
    Ok(key)
}

fn generate_self_signed(address: IpAddr) -> Result<CertifiedKey, Error> {
    let mut params = CertificateParams::new(vec![address.to_string()]).map_err(Error::Generate)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "burstpool kubelet API");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Allow for clients whose clock is behind.
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::hours(1);
    params.not_after = params.not_before + CERTIFICATE_LIFETIME;
    let pair = KeyPair::generate().map_err(Error::Generate)?;
    let certificate = params.self_signed(&pair).map_err(Error::Generate)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let key = any_supported_type(&key).map_err(Error::Key)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(identity: &ServingCertificate) -> Vec<u8> {
        let key = identity.0.read();
        key.cert[0].to_vec()
    }

    fn write(directory: &std::path::Path) -> Vec<u8> {
        let pair = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()])
            .and_then(|wanted| wanted.self_signed(&pair))
            .expect("a certificate");
        std::fs::write(directory.join("key"), pair.serialize_pem()).expect("written");
        std::fs::write(directory.join("crt"), certificate.pem()).expect("written");
        certificate.der().to_vec()
    }

    #[tokio::test(start_paused = true)]
    async fn changed_files_are_loaded_again_and_broken_ones_are_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = write(directory.path());
        let (certificate, key) = (directory.path().join("crt"), directory.path().join("key"));
        let source = CertificateSource::Files { certificate, key };
        let identity = Arc::new(
            ServingCertificate::load(&source)
                .await
                .expect("an identity"),
        );
        assert_eq!(shown(&identity), first);
        let cancel = CancellationToken::new();
        let (kept, until) = (identity.clone(), cancel.clone());
        let task = tokio::spawn(async move { kept.keep_current(source, until).await });
        let until_shown = async |wanted: &[u8]| {
            while shown(&identity) != wanted {
                tokio::time::sleep(RELOAD_INTERVAL).await;
            }
        };
        until_shown(&first).await;
        std::fs::write(directory.path().join("crt"), "-----BEGIN").expect("written");
        tokio::time::sleep(3 * RELOAD_INTERVAL).await;
        assert_eq!(shown(&identity), first);
        let second = write(directory.path());
        until_shown(&second).await;
        cancel.cancel();
        task.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_self_signed_certificate_names_the_address_and_a_wrong_key_is_refused() {
        let source = CertificateSource::SelfSigned("10.1.2.3".parse().expect("an address"));
        let identity = ServingCertificate::load(&source)
            .await
            .expect("an identity");
        let der = shown(&identity);
        assert!(der.windows(4).any(|bytes| bytes == [10, 1, 2, 3]));
        let directory = tempfile::tempdir().expect("a directory");
        write(directory.path());
        let other = KeyPair::generate().expect("a key");
        let key = directory.path().join("key");
        std::fs::write(&key, other.serialize_pem()).expect("written");
        let certificate = directory.path().join("crt");
        let refused =
            ServingCertificate::load(&CertificateSource::Files { certificate, key }).await;
        assert!(matches!(refused, Err(Error::Key(_))), "{refused:?}");
    }
}
