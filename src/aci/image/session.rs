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
use super::error::{ImageReadError, shortened};
use super::guard::{HostScope, RegistryHostGuard, RegistryHostRefusal, authority, lookup_permits};
use super::manifest::{ImageDescriptor, accepted_manifests};
use super::reference::ImageReference;
use crate::aci::address::is_private;

/// The timeout for connecting.
const CONNECT: Duration = Duration::from_secs(5);
/// The timeout of one request, from connecting to the end of the answer.
const REQUEST: Duration = Duration::from_secs(10);
/// The most redirects of one request.
const REDIRECTS: usize = 5;
/// The longest manifest, in bytes. An index with 100 platforms has about 50 KB.
const MAX_MANIFEST_BYTES: usize = 1 << 20;
/// The longest configuration, in bytes. Those of real images have 2 to 20 KB.
const MAX_CONFIG_BYTES: usize = 1 << 20;
/// The value of the header `Accept` for a configuration, which has one form only.
const ANY: &str = "*/*";
/// The header with the digest of a manifest.
const CONTENT_DIGEST: &str = "docker-content-digest";

/// What every session needs.
pub(super) struct RegistryConnector {
    /// For a registry, and for the hosts that a private one leads to.
    http: reqwest::Client,
    /// For the hosts that other registries lead to.
    public_http: reqwest::Client,
    pub guard: RegistryHostGuard,
    pub tokens: RegistryTokenSource,
}

impl RegistryConnector {
    pub fn new(guard: RegistryHostGuard, tokens: RegistryTokenSource) -> reqwest::Result<Self> {
        let lookups = lookup_permits();
        let client = |scope| {
            reqwest::Client::builder()
                .user_agent(concat!("burstpool/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(CONNECT)
                .timeout(REQUEST)
                .pool_idle_timeout(Duration::from_secs(15))
                .pool_max_idle_per_host(1)
                // The session follows redirects, because each host needs a check.
                .redirect(reqwest::redirect::Policy::none())
                // A proxy would resolve names, and so pass by the resolver's check.
                .no_proxy()
                .dns_resolver(guard.resolver(scope, &lookups))
                .build()
        };
        Ok(Self {
            http: client(HostScope::Any)?,
            public_http: client(HostScope::Public)?,
            guard,
            tokens,
        })
    }

    /// The client for hosts of this scope.
    pub fn client(&self, scope: HostScope) -> &reqwest::Client {
        match scope {
            HostScope::Any => &self.http,
            HostScope::Public => &self.public_http,
        }
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
    /// Whether the registry has answered from a private address.
    is_private: bool,
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
            is_private: false,
        })
    }

    /// Asks which manifest `target` names, and so whether this access may read it. Docker Hub does not count this as
    /// a pull.
    pub async fn head(&mut self, target: &str) -> Result<ManifestHead, ImageReadError> {
        let path = self.manifest_path(target);
        let response = self
            .request(&Method::HEAD, &path, &accepted_manifests())
            .await?;
        let unsupported = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        if unsupported.contains(&response.status()) {
            return Ok(ManifestHead::Unknown);
        }
        let response = self.error_for_status(response).await?;
        let digest = response.headers().get(CONTENT_DIGEST);
        let digest = digest.and_then(|digest| digest.to_str().ok()?.parse().ok());
        Ok(digest.map_or(ManifestHead::Unknown, ManifestHead::Digest))
    }

    /// Reads the manifest that `target` names.
    pub async fn manifest(&mut self, target: &str) -> Result<SentManifest, ImageReadError> {
        let path = self.manifest_path(target);
        let response = self
            .request(&Method::GET, &path, &accepted_manifests())
            .await?;
        let response = self.error_for_status(response).await?;
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let body = self
            .read_body(response, MAX_MANIFEST_BYTES, "a manifest")
            .await?;
        Ok(SentManifest { content_type, body })
    }

    /// Reads the configuration that `descriptor` names, and checks that it is the one.
    pub async fn config(&mut self, descriptor: &ImageDescriptor) -> Result<Bytes, ImageReadError> {
        let path = format!(
            "v2/{}/blobs/{}",
            self.reference.repository(),
            descriptor.digest
        );
        let response = self.request(&Method::GET, &path, ANY).await?;
        let response = self.error_for_status(response).await?;
        let body = self
            .read_body(response, MAX_CONFIG_BYTES, "a configuration")
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
    async fn request(
        &mut self,
        method: &Method,
        path: &str,
        accept: &str,
    ) -> Result<Response, ImageReadError> {
        let mut url = self.base.clone();
        url.set_path(path);
        for _ in 0..=REDIRECTS {
            let mut response = self.send(method, &url, accept).await?;
            let host = authority(&url);
            if response.status() == StatusCode::UNAUTHORIZED
                && !self.authorizations.contains_key(&host)
            {
                let Some(authorization) = self
                    .authorization_header(&url, challenge(&response))
                    .await?
                else {
                    return Ok(response);
                };
                self.authorizations.insert(host, authorization);
                response = self.send(method, &url, accept).await?;
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

    async fn send(
        &mut self,
        method: &Method,
        url: &Url,
        accept: &str,
    ) -> Result<Response, ImageReadError> {
        let mut request = self.client(url)?.request(method.clone(), url.clone());
        request = request.header(ACCEPT, accept);
        if let Some(authorization) = self.authorizations.get(&authority(url)) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let response = request.send().await;
        let response = response.map_err(|error| self.unreachable(url, error))?;
        if self.is_own(url) {
            let address = response.remote_addr().map(|address| address.ip());
            self.is_private =
                address.is_some_and(|address| address.is_loopback() || is_private(address));
        }
        Ok(response)
    }

    /// The client for a request to `url`, if its host may be requested.
    pub(super) fn client(&self, url: &Url) -> Result<&'a reqwest::Client, ImageReadError> {
        let scope = if self.is_own(url) || self.is_private {
            HostScope::Any
        } else {
            HostScope::Public
        };
        let checked = self.connector.guard.check(url, scope);
        checked.map_err(|refusal| self.guarded(refusal))?;
        Ok(self.connector.client(scope))
    }

    /// Whether a URL's host is the image's registry.
    pub(super) fn is_own(&self, url: &Url) -> bool {
        authority(url) == authority(&self.base)
    }

    /// Whether an error may quote what the host of `url` sends. A pod could otherwise read what other hosts of a
    /// private network answer: the registry that it names can lead to them.
    pub(super) fn is_quotable(&self, url: &Url) -> bool {
        self.is_own(url) || !self.is_private
    }

    fn guarded(&self, refusal: RegistryHostRefusal) -> ImageReadError {
        ImageReadError::Guarded {
            image: self.image(),
            refusal,
        }
    }

    /// The error for a request without an answer.
    pub(super) fn unreachable(&self, url: &Url, error: reqwest::Error) -> ImageReadError {
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
        let why = if self.is_quotable(url) {
            shortened(&why)
        } else {
            "a host that it leads to does not answer".to_owned()
        };
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;
    use crate::aci::translate::secret_string::SecretString;

    #[test]
    fn only_a_private_registry_leads_to_private_hosts() {
        let tokens: RegistryTokenSource = Arc::new(|| async { Ok(SecretString::new("")) }.boxed());
        let guard = RegistryHostGuard::default();
        let connector = RegistryConnector::new(guard, tokens).expect("a client");
        let inside: Url = "https://10.0.0.4/token".parse().expect("a URL");
        for (image, is_private, may) in [
            ("quay.io/a", false, false),
            ("quay.io/a", true, true),
            ("10.0.0.4/a", false, true),
        ] {
            let reference = ImageReference::parse("image", image).expect(image);
            let access = ImageAccess::Anonymous;
            let mut session =
                RegistrySession::new(&connector, &reference, &access).expect("a session");
            session.is_private = is_private;
            assert_eq!(session.client(&inside).is_ok(), may, "{image}");
            // What another host inside answers is not shown to the pod's author.
            assert_eq!(
                session.is_quotable(&inside),
                image != "quay.io/a" || !is_private
            );
        }
    }
}
