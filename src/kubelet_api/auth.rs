//! Authentication and authorization of clients of the kubelet API.
//!
//! In: a client certificate or a bearer token, and a permission on a node. Out: the user, and whether the
//! permission is granted; or an error: 401 if the client cannot be authenticated, 403 if it lacks the
//! permission. A certificate is valid if the CA in `kube-system/extension-apiserver-authentication` signed it.
//! The API server reviews tokens (`TokenReview`) and permissions (`SubjectAccessReview`); its answers are cached
//! for [`DECISION_TTL`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::response::HttpError;
use super::route::NodePermission;
use super::ttl_cache::TtlCache;

/// How long to cache the API server's answers about tokens and permissions.
const DECISION_TTL: Duration = Duration::from_secs(10);
/// How long to cache the client CA.
const CLIENT_CA_TTL: Duration = Duration::from_secs(60);
/// How long to wait before reading the client CA again after a failure.
const CLIENT_CA_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Timeout of one call of the API server.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The group of all authenticated users.
const AUTHENTICATED_GROUP: &str = "system:authenticated";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct AuthenticatedUser {
    /// The user name.
    pub user: String,
    /// The UID, if the user has one.
    pub uid: Option<String>,
    /// The groups.
    pub groups: Vec<String>,
    /// Extra attributes from the API server.
    pub extra: BTreeMap<String, Vec<String>>,
}

type ClientVerifier = Arc<dyn ClientCertVerifier>;

/// The cached client CA, and when to read it again.
#[derive(Clone)]
struct CachedClientVerifier {
    verifier: Option<ClientVerifier>,
    expires_at: Instant,
}

/// Authenticates and authorizes clients.
pub struct Authenticator {
    client: Client,
    client_ca: Mutex<Option<CachedClientVerifier>>,
    /// Held by the request that reads the client CA.
    refresh_lock: tokio::sync::Mutex<()>,
    token_cache: TtlCache<[u8; 32], Option<AuthenticatedUser>>,
    permission_cache: TtlCache<(AuthenticatedUser, String, NodePermission), bool>,
}

impl Authenticator {
    /// Reviews requests with this client of the API server.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            client_ca: Mutex::default(),
            refresh_lock: tokio::sync::Mutex::default(),
            token_cache: TtlCache::new(DECISION_TTL),
            permission_cache: TtlCache::new(DECISION_TTL),
        }
    }

    /// Authenticates the client by its certificate or bearer token; 401 if neither is valid.
    pub async fn authenticate(
        &self,
        certificates: &[CertificateDer<'static>],
        headers: &HeaderMap,
    ) -> Result<AuthenticatedUser, HttpError> {
        let unauthorized = || HttpError::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        if let Some((end_entity, intermediates)) = certificates.split_first()
            && let Some(verifier) = self.client_verifier().await
            && verifier
                .verify_client_cert(end_entity, intermediates, UnixTime::now())
                .is_ok()
        {
            return user_from_certificate(end_entity).ok_or_else(unauthorized);
        }
        let token = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let token = token.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then_some(token.trim())
        });
        match token {
            Some(token) if !token.is_empty() => self
                .authenticate_token(token)
                .await?
                .ok_or_else(unauthorized),
            _ => Err(unauthorized()),
        }
    }

    /// Whether the user has the permission on the node.
    pub async fn authorize(
        &self,
        caller: &AuthenticatedUser,
        node: &str,
        permission: NodePermission,
    ) -> Result<bool, HttpError> {
        let key = (caller.clone(), node.to_owned(), permission);
        if let Some(known) = self.permission_cache.get(&key) {
            return Ok(known);
        }
        let attributes = ResourceAttributes {
            verb: Some(permission.verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(permission.subresource.to_owned()),
            name: Some(node.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(caller.user.clone()),
                uid: caller.uid.clone(),
                groups: Some(caller.groups.clone()),
                extra: Some(caller.extra.clone()),
                resource_attributes: Some(attributes),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.submit_review(&review).await?;
        let allowed = answer.status.is_some_and(|status| status.allowed);
        self.permission_cache.insert(key, allowed);
        Ok(allowed)
    }

    async fn authenticate_token(
        &self,
        token: &str,
    ) -> Result<Option<AuthenticatedUser>, HttpError> {
        let key = <[u8; 32]>::from(Sha256::digest(token));
        if let Some(known) = self.token_cache.get(&key) {
            return Ok(known);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let status = self
            .submit_review(&review)
            .await?
            .status
            .unwrap_or_default();
        let user = status.user.filter(|_| status.authenticated == Some(true));
        let caller = user.and_then(user_from_review);
        self.token_cache.insert(key, caller.clone());
        Ok(caller)
    }

    async fn submit_review<K>(&self, review: &K) -> Result<K, HttpError>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let parameters = PostParams::default();
        let answer = tokio::time::timeout(CALL_TIMEOUT, api.create(&parameters, review)).await;
        let unknown = |why: String| {
            tracing::warn!(
                why,
                "cannot authenticate or authorize a request to the kubelet API"
            );
            let message = "the API server does not answer whether the user may do this; try again";
            HttpError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        };
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            // Do not log the review, which contains the token.
            Ok(Err(error)) => Err(unknown(error.to_string())),
            Err(_) => Err(unknown("no answer in time".to_owned())),
        }
    }

    /// The CA that signs client certificates; if the API server does not answer, the last known one. One request
    /// reads it for all, and no other request waits if there is a last known CA.
    async fn client_verifier(&self) -> Option<ClientVerifier> {
        if let Some(known) = self
            .cached_client_ca()
            .filter(CachedClientVerifier::is_fresh)
        {
            return known.verifier;
        }
        let _guard = match (self.refresh_lock.try_lock(), self.cached_client_ca()) {
            (Ok(guard), _) => guard,
            (Err(_), Some(last)) => return last.verifier,
            (Err(_), None) => self.refresh_lock.lock().await,
        };
        let last = self.cached_client_ca();
        // Another request may have read it meanwhile.
        if let Some(known) = last.clone().filter(CachedClientVerifier::is_fresh) {
            return known.verifier;
        }
        let (verifier, ttl) = match self.read_client_ca().await {
            Some(verifier) => (verifier, CLIENT_CA_TTL),
            None => (
                last.and_then(|last| last.verifier),
                CLIENT_CA_RETRY_INTERVAL,
            ),
        };
        let known = CachedClientVerifier {
            verifier: verifier.clone(),
            expires_at: Instant::now() + ttl,
        };
        *self.client_ca.lock() = Some(known);
        verifier
    }

    fn cached_client_ca(&self) -> Option<CachedClientVerifier> {
        self.client_ca.lock().clone()
    }

    /// Reads the client CA from the API server. The outer `None` means that the read failed; the inner one, that
    /// there is no CA.
    #[allow(
        clippy::option_option,
        reason = "no answer is not the answer that there is none"
    )]
    async fn read_client_ca(&self) -> Option<Option<ClientVerifier>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let read = maps.get("extension-apiserver-authentication");
        match tokio::time::timeout(CALL_TIMEOUT, read).await {
            Ok(Ok(map)) => {
                let data = map.data.unwrap_or_default();
                Some(
                    data.get("client-ca-file")
                        .and_then(|pem| build_verifier(pem)),
                )
            }
            failed => {
                let why = failed.err().map_or("refused", |_| "no answer");
                tracing::warn!(
                    why,
                    "reading kube-system/extension-apiserver-authentication"
                );
                None
            }
        }
    }
}

impl CachedClientVerifier {
    fn is_fresh(&self) -> bool {
        Instant::now() < self.expires_at
    }
}

/// A verifier that trusts the certificates in `pem`.
fn build_verifier(pem: &str) -> Option<ClientVerifier> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
    built
        .map(|verifier| verifier as ClientVerifier)
        .inspect_err(|error| tracing::warn!(%error, "cannot read the CA of client certificates"))
        .ok()
}

/// The user that a certificate names: the common name, with the organizations as groups.
fn user_from_certificate(certificate: &CertificateDer<'_>) -> Option<AuthenticatedUser> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let subject = certificate.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let groups = subject.iter_organization();
    let groups = groups.filter_map(|group| Some(group.as_str().ok()?.to_owned()));
    let groups = groups.chain([AUTHENTICATED_GROUP.to_owned()]).collect();
    (!user.is_empty()).then(|| AuthenticatedUser {
        user,
        groups,
        ..AuthenticatedUser::default()
    })
}

fn user_from_review(user: UserInfo) -> Option<AuthenticatedUser> {
    Some(AuthenticatedUser {
        user: user.username.filter(|name| !name.is_empty())?,
        uid: user.uid,
        groups: user.groups.unwrap_or_default(),
        extra: user.extra.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_do_not_queue_behind_each_other_while_the_api_server_is_silent() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let silent = silent.expect("a port");
        let url = format!("http://{}", silent.local_addr().expect("an address"));
        let config = kube::Config::new(url.parse().expect("a URL"));
        let auth = Authenticator::new(Client::try_from(config).expect("a client"));
        let began = Instant::now();
        let all = (0..5).map(|_| auth.client_verifier());
        futures::future::join_all(all).await;
        assert!(began.elapsed() < 2 * CALL_TIMEOUT, "{:?}", began.elapsed());
        let began = Instant::now();
        auth.client_verifier().await;
        assert!(began.elapsed() < CALL_TIMEOUT, "it was asked a moment ago");
        tokio::time::advance(Duration::from_secs(5)).await;
        auth.client_verifier().await;
        assert!(began.elapsed() >= CALL_TIMEOUT, "it is asked again soon");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_ca_stays_valid_while_the_api_server_is_silent_and_one_request_waits() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let silent = silent.expect("a port");
        let url = format!("http://{}", silent.local_addr().expect("an address"));
        let config = kube::Config::new(url.parse().expect("a URL"));
        let auth = Authenticator::new(Client::try_from(config).expect("a client"));
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::default().self_signed(&key);
        let last = CachedClientVerifier {
            verifier: build_verifier(&certificate.expect("a certificate").pem()),
            expires_at: Instant::now(),
        };
        *auth.client_ca.lock() = Some(last);
        let began = Instant::now();
        let asks = async { (auth.client_verifier().await.is_some(), began.elapsed()) };
        let other = async { (auth.client_verifier().await.is_some(), began.elapsed()) };
        let (asked, other) = tokio::join!(asks, other);
        assert!(asked.0 && asked.1 >= CALL_TIMEOUT, "{asked:?}");
        assert_eq!(other, (true, Duration::ZERO));
    }

    #[test]
    fn a_certificate_names_a_user_and_groups() {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name.push(DnType::CommonName, "alice");
        wanted
            .distinguished_name
            .push(DnType::OrganizationName, "ops");
        let key = KeyPair::generate().expect("a key");
        let certificate = wanted.self_signed(&key).expect("a certificate");
        let caller = user_from_certificate(certificate.der()).expect("a name");
        assert_eq!(caller.user, "alice");
        assert_eq!(caller.groups, ["ops", AUTHENTICATED_GROUP]);
    }

    #[test]
    fn a_certificate_without_a_common_name_names_no_user() {
        let mut wanted = CertificateParams::default();
        wanted.distinguished_name = rcgen::DistinguishedName::new();
        let key = KeyPair::generate().expect("a key");
        let certificate = wanted.self_signed(&key).expect("a certificate");
        assert_eq!(user_from_certificate(certificate.der()), None);
        assert_eq!(
            user_from_certificate(&CertificateDer::from(vec![0x30, 0x82])),
            None
        );
    }
}
