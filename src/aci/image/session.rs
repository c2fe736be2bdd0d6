//! The requests of one read of one image.
//!
//! In: paths of the registry's API. Out: bodies with limited lengths, or why there are none. A session answers the
//! registry's challenge once, and follows redirects: registries send clients to object storage for blobs, and some to
//! other registries for everything. An `Authorization` header goes only to the host whose challenge it answers, and
//! the credential of the pod or the operator answers only the challenges of the image's own registry, which has
//! received it from its owner. For other hosts, the session requests anonymous tokens.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use reqwest::Response;
use url::Url;

use super::access::{ImageAccess, RegistryTokenSource};
use super::challenge::RegistryChallenge;
use super::digest::ImageDigest;
use super::error::{ImageReadError, quote};
use super::guard::{RegistryHostGuard, RegistryHostRefusal, authority};
use super::manifest::{ImageDescriptor, accepted_manifests};
use super::reference::ImageReference;

/// The timeout for connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// The timeout of one request, from connecting to the end of the answer.
const REQUEST: Duration = Duration::from_secs(10);
/// The most redirects of one request.
const REDIRECTS: usize = 5;
/// The longest manifest, in bytes: the OCI specification asks registries to accept at least this.
const LONGEST_MANIFEST: usize = 4 << 20;
/// The longest configuration, in bytes. Those of real images have 2 to 20 KB.
const LONGEST_CONFIG: usize = 1 << 20;
/// The header with the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What every session needs.
pub(super) struct RegistryConnector {
    pub http: reqwest::Client,
    pub guard: RegistryHostGuard,
    pub tokens: RegistryTokenSource,
}

impl RegistryConnector {
    /// An HTTP client for registries. It trusts the system's certificates and those in `extra_ca` (PEM).
    pub fn http(extra_ca: &[u8], guard: &RegistryHostGuard) -> reqwest::Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("burstpool/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .pool_idle_timeout(Duration::from_secs(60))
            // The session follows redirects, because each host needs a check.
            .redirect(reqwest::redirect::Policy::none())
            .dns_resolver(guard.resolver());
        for certificate in reqwest::Certificate::from_pem_bundle(extra_ca)? {
            builder = builder.add_root_certificate(certificate);
        }
        builder.build()
    }
}

/// The requests of one read.
pub(super) struct RegistrySession<'a> {
    pub(super) connector: &'a RegistryConnector,
    pub(super) reference: &'a ImageReference,
    pub(super) access: &'a ImageAccess,
    /// The URL of the registry, without a path.
    pub(super) base: Url,
    /// By host, with its port.
    authorizations: BTreeMap<String, HeaderValue>,
}

/// A manifest as the registry sends it.
pub(super) struct SentManifest {
    pub content_type: String,
    pub body: Bytes,
}

/// The answer to a HEAD request for a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ManifestHead {
    /// The manifest's digest.
    Digest(ImageDigest),
    /// The registry does not report it.
    Unknown,
}

impl<'a> RegistrySession<'a> {
    pub fn new(
        connector: &'a RegistryConnector,
        reference: &'a ImageReference,
        access: &'a ImageAccess,
    ) -> Result<Self, ImageReadError> {
        let host = reference.api_host();
        let base = format!("{}://{host}/", connector.guard.scheme(host)).parse();
        let base = base.map_err(|error: url::ParseError| ImageReadError::Unreachable {
            registry: reference.registry().to_owned(),
            why: error.to_string(),
        })?;
        let authorizations = BTreeMap::new();
        Ok(Self {
            connector,
            reference,
            access,
            base,
            authorizations,
        })
    }

    /// Asks which manifest `target` names, and so whether this access may read it. Docker Hub does not count this as
    /// a pull.
    pub async fn head(&mut self, target: &str) -> Result<ManifestHead, ImageReadError> {
        let response = self
            .request(&Method::HEAD, &self.manifest_path(target))
            .await?;
        let unsupported = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        if unsupported.contains(&response.status()) {
            return Ok(ManifestHead::Unknown);
        }
        let response = self.checked(response).await?;
        let digest = response.headers().get(CONTENT_DIGEST);
        let digest = digest.and_then(|digest| digest.to_str().ok()?.parse().ok());
        Ok(digest.map_or(ManifestHead::Unknown, ManifestHead::Digest))
    }

    /// Reads the manifest that `target` names.
    pub async fn manifest(&mut self, target: &str) -> Result<SentManifest, ImageReadError> {
        let response = self
            .request(&Method::GET, &self.manifest_path(target))
            .await?;
        let response = self.checked(response).await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = self.body(response, LONGEST_MANIFEST, "a manifest").await?;
        Ok(SentManifest { content_type, body })
    }

    /// Reads the configuration that `descriptor` names, and checks that it is the one.
    pub async fn config(&mut self, descriptor: &ImageDescriptor) -> Result<Bytes, ImageReadError> {
        let path = format!(
            "v2/{}/blobs/{}",
            self.reference.repository(),
            descriptor.digest
        );
        let response = self.request(&Method::GET, &path).await?;
        let response = self.checked(response).await?;
        let body = self
            .body(response, LONGEST_CONFIG, "a configuration")
            .await?;
        let length = u64::try_from(body.len()).unwrap_or(u64::MAX);
        if descriptor.size.is_some_and(|size| size != length) {
            return Err(self.corrupt(format!(
                "the configuration {} has another length",
                descriptor.digest
            )));
        }
        self.verify(&body, descriptor.digest)?;
        Ok(body)
    }

    /// Checks that `body` has the digest by which it was requested.
    pub fn verify(&self, body: &[u8], digest: ImageDigest) -> Result<(), ImageReadError> {
        if ImageDigest::of(body) == digest {
            return Ok(());
        }
        Err(self.corrupt(format!("the content for {digest} has another digest")))
    }

    pub fn corrupt(&self, why: String) -> ImageReadError {
        ImageReadError::Corrupt {
            registry: self.registry(),
            why,
        }
    }

    fn manifest_path(&self, target: &str) -> String {
        format!("v2/{}/manifests/{target}", self.reference.repository())
    }

    pub(super) fn registry(&self) -> String {
        self.reference.registry().to_owned()
    }

    /// The image's registry and repository.
    pub fn image(&self) -> String {
        format!(
            "{}/{}",
            self.reference.registry(),
            self.reference.repository()
        )
    }

    /// Sends a request, follows redirects, and answers a challenge of each host once.
    async fn request(&mut self, method: &Method, path: &str) -> Result<Response, ImageReadError> {
        let mut url = self.base.clone();
        url.set_path(path);
        for _ in 0..=REDIRECTS {
            let mut response = self.send(method, &url).await?;
            let host = authority(&url);
            if response.status() == StatusCode::UNAUTHORIZED
                && !self.authorizations.contains_key(&host)
            {
                let Some(authorization) = self.authenticate(&url, challenge(&response)).await?
                else {
                    return Ok(response);
                };
                self.authorizations.insert(host, authorization);
                response = self.send(method, &url).await?;
            }
            let location = response.headers().get(LOCATION);
            let (true, Some(location)) = (is_redirect(response.status()), location) else {
                return Ok(response);
            };
            let next = location
                .to_str()
                .ok()
                .and_then(|location| url.join(location).ok());
            url = next.ok_or_else(|| self.corrupt("a redirect without a valid URL".to_owned()))?;
        }
        Err(self.corrupt(format!("more than {REDIRECTS} redirects")))
    }

    async fn send(&self, method: &Method, url: &Url) -> Result<Response, ImageReadError> {
        self.check_host(url)?;
        let request = self.connector.http.request(method.clone(), url.clone());
        let mut request = request.header(ACCEPT, accepted_manifests());
        if let Some(authorization) = self.authorizations.get(&authority(url)) {
            request = request.header(AUTHORIZATION, authorization);
        }
        request
            .send()
            .await
            .map_err(|error| self.unreachable(error))
    }

    pub(super) fn check_host(&self, url: &Url) -> Result<(), ImageReadError> {
        self.connector
            .guard
            .check(url)
            .map_err(|refusal| self.guarded(refusal))
    }

    fn guarded(&self, refusal: RegistryHostRefusal) -> ImageReadError {
        ImageReadError::Guarded {
            image: self.image(),
            refusal,
        }
    }

    /// The error for a request without an answer.
    pub(super) fn unreachable(&self, error: reqwest::Error) -> ImageReadError {
        // A URL of object storage contains a signature, which is as secret as a password.
        let error = error.without_url();
        let mut why = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            if let Some(refusal) = cause.downcast_ref::<RegistryHostRefusal>() {
                return self.guarded(refusal.clone());
            }
            why = format!("{why}: {cause}");
            next = cause.source();
        }
        let why = quote(&why).trim_start_matches(": ").to_owned();
        ImageReadError::Unreachable {
            registry: self.registry(),
            why,
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn challenge(response: &Response) -> Option<RegistryChallenge> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE);
    RegistryChallenge::choose(headers.iter().filter_map(|header| header.to_str().ok()))
}
