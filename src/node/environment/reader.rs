//! The calls of the API server: each object is read once, all concurrently, each call with a timeout.
//!
//! In: the names that a pod needs. Out: for each, the object or why it was not read.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;

use super::KubeProxy;
use super::claims;
use super::missing::MissingObject;
use crate::aci::translate::PodReferences;
use crate::aci::translate::claims::ClaimBacking;
use crate::aci::translate::references::TokenNeed;
use crate::aci::translate::resolved_references::ObjectContent;
use crate::aci::translate::secret_string::SecretString;
use crate::k8s::call::is_object_not_found;

/// Timeout of one call. A slow API server may need longer, but a pod that waits is tried again anyway.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an object was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadFailure {
    /// It does not exist.
    Absent,
    /// The operator has no permission to read it (401 or 403).
    Forbidden,
    /// The API server did not answer, or its answer could not be decoded.
    Unreadable(String),
}

/// Objects of a kind by name, each with the result of reading it.
#[derive(Debug)]
pub(super) struct ReadObjects<T>(pub(super) BTreeMap<String, Result<T, ReadFailure>>);

impl<T> ReadObjects<T> {
    /// Takes out the objects that were found.
    pub(super) fn take_found(&mut self) -> BTreeMap<String, T> {
        let objects = std::mem::take(&mut self.0).into_iter();
        objects
            .filter_map(|(name, object)| Some((name, object.ok()?)))
            .collect()
    }
}

/// Everything that was read for a pod.
#[derive(Debug)]
pub(super) struct ReadReferences {
    pub(super) namespace: String,
    pub(super) secrets: ReadObjects<ObjectContent>,
    pub(super) config_maps: ReadObjects<ObjectContent>,
    pub(super) claims: BTreeMap<String, Result<ClaimBacking, MissingObject>>,
    pub(super) token_requests: Vec<(TokenNeed, Result<SecretString, ReadFailure>)>,
    /// The kubeconfig of ACI's kube-proxy; `None` if the placement does not enable it.
    pub(super) kube_config: Option<Result<SecretString, MissingObject>>,
}

impl ReadReferences {
    /// Reads what `needs` names for `pod`, and requests the token of its kube-proxy.
    pub(super) async fn fetch(
        client: &Client,
        pod: &Pod,
        needs: &PodReferences,
        kube_proxy: Option<&KubeProxy>,
    ) -> Self {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
        let mut names: Vec<&String> = needs.secrets.keys().chain(&needs.pull_secrets).collect();
        names.sort();
        names.dedup();
        let tokens = needs.tokens.iter();
        let tokens =
            tokens.map(|need| request_pod_token(&accounts, &needs.service_account, need, pod));
        let kube_config = async { Some(kube_proxy?.kube_config(client).await) };
        let (secrets, config_maps, claims, token_requests, kube_config) = futures::join!(
            read_all(&secrets, names),
            read_all(&maps, needs.config_maps.keys().collect()),
            claims::read_claims(client, &namespace, &needs.claims),
            join_all(tokens),
            kube_config,
        );
        Self {
            namespace,
            secrets,
            config_maps,
            claims,
            token_requests,
            kube_config,
        }
    }

    /// The claims that were read.
    pub(super) fn claims(&self) -> BTreeMap<String, ClaimBacking> {
        let read = self.claims.iter();
        let read = read.filter_map(|(name, claim)| Some((name.clone(), claim.clone().ok()?)));
        read.collect()
    }

    /// The tokens that the API server issued.
    pub(super) fn tokens(&self) -> BTreeMap<TokenNeed, SecretString> {
        let issued = self.token_requests.iter();
        let issued = issued.filter_map(|(need, token)| Some((need.clone(), token.clone().ok()?)));
        issued.collect()
    }
}

async fn read_all<K>(api: &Api<K>, names: Vec<&String>) -> ReadObjects<ObjectContent>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
    ObjectContent: From<K>,
{
    let reads = names.into_iter().map(|name| async move {
        let object = read_by_name(api, name).await.map(ObjectContent::from);
        (name.clone(), object)
    });
    ReadObjects(join_all(reads).await.into_iter().collect())
}

/// Reads the object called `name`.
pub(super) async fn read_by_name<K>(api: &Api<K>, name: &str) -> Result<K, ReadFailure>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    if !is_object_name(name) {
        return Err(ReadFailure::Absent);
    }
    with_timeout(api.get(name)).await
}

/// Requests a token that is bound to the pod: it expires when the pod is deleted.
async fn request_pod_token(
    accounts: &Api<ServiceAccount>,
    account: &str,
    need: &TokenNeed,
    pod: &Pod,
) -> (TokenNeed, Result<SecretString, ReadFailure>) {
    let audience = Some(&need.audience).filter(|audience| !audience.is_empty());
    let wanted = TokenRequest {
        metadata: ObjectMeta::default(),
        spec: Some(TokenRequestSpec {
            audiences: audience.map(|audience| vec![audience.clone()]),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
            expiration_seconds: Some(need.seconds),
            ..TokenRequestSpec::default()
        }),
        status: None,
    };
    (
        need.clone(),
        request_token(accounts, account, &wanted).await,
    )
}

/// Requests a token of `account`.
pub(super) async fn request_token(
    accounts: &Api<ServiceAccount>,
    account: &str,
    wanted: &TokenRequest,
) -> Result<SecretString, ReadFailure> {
    if !is_object_name(account) {
        return Err(ReadFailure::Absent);
    }
    let parameters = PostParams::default();
    let answer = with_timeout(accounts.create_token_request(account, &parameters, wanted)).await?;
    let token = answer.status.and_then(|status| status.token);
    let token = token
        .filter(|token| !token.is_empty())
        .map(SecretString::new);
    token.ok_or_else(|| ReadFailure::Unreadable("the API server's answer has no token".to_owned()))
}

/// Makes a call with the timeout. An answer that cannot be decoded may contain a secret, and the decoder's error
/// quotes it: that error is not passed on.
async fn with_timeout<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, ReadFailure> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 if is_object_not_found(&status) => ReadFailure::Absent,
            401 | 403 => ReadFailure::Forbidden,
            _ => ReadFailure::Unreadable(format!("the API server answers: {}", status.message)),
        }),
        Ok(Err(kube::Error::SerdeError(_) | kube::Error::FromUtf8(_))) => Err(
            ReadFailure::Unreadable("the API server's answer cannot be decoded".to_owned()),
        ),
        Ok(Err(error)) => Err(ReadFailure::Unreadable(format!(
            "the API server cannot be reached: {error}"
        ))),
        Err(_) => Err(ReadFailure::Unreadable(format!(
            "the API server did not answer within {} s",
            CALL_TIMEOUT.as_secs()
        ))),
    }
}

/// Whether `name` is a valid object name. Pods may contain any text as a name, and a slash in it would change the
/// path of the request.
pub(super) fn is_object_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=253).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_valid_object_names_are_requested() {
        for name in ["a", "kube-root-ca.crt", "a.b-c"] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "a?b", "A", "-a", "a%2fb", "ä"] {
            assert!(!is_object_name(name), "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_times_out() {
        let never = std::future::pending::<kube::Result<()>>();
        let failure = with_timeout(never).await.expect_err("it times out");
        assert_eq!(
            failure,
            ReadFailure::Unreadable("the API server did not answer within 10 s".to_owned())
        );
    }

    #[tokio::test]
    async fn an_object_is_absent_only_if_the_api_server_itself_says_so() {
        let answered = async |reason: &str| {
            let status = Status::failure("404 page not found", reason).with_code(404);
            with_timeout(async { Err::<(), _>(kube::Error::Api(Box::new(status))) }).await
        };
        assert_eq!(answered("NotFound").await, Err(ReadFailure::Absent));
        // A proxy's 404 page must not make a pod start without its optional ConfigMap.
        let page = answered("Failed to parse error data").await;
        assert!(matches!(page, Err(ReadFailure::Unreadable(_))), "{page:?}");
    }

    #[tokio::test]
    async fn an_answer_that_cannot_be_decoded_is_not_quoted() {
        let error = serde_json::from_str::<u8>("\"hidden\"").expect_err("no number");
        let failure = with_timeout(async { Err::<(), _>(kube::Error::SerdeError(error)) }).await;
        assert!(!format!("{failure:?}").contains("hidden"));
    }
}
