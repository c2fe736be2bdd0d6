//! Calls of the Kubernetes API with a deadline: the client has no read timeout of its own.
//!
//! In: a call and a timeout. Out: the answer, or an error.
//!
//! All deletions and evictions of the operator go through this module, with the UID of the object: a `StatefulSet`
//! reuses pod names, so a pod on the cluster's own nodes may have the name of the pod that is to be evicted.
//! `clippy.toml` forbids the client's own methods everywhere else.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{self as meta, ObjectMeta};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::core::Status;
use serde::de::DeserializeOwned;
use tokio::time::error::Elapsed;

/// The call's answer, or [`kube::Error::Service`] after the timeout.
pub async fn with_timeout<T>(
    timeout: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    let answer = tokio::time::timeout(timeout, call).await;
    answer.unwrap_or_else(|elapsed| Err(kube::Error::Service(Box::new(elapsed))))
}

/// Whether a call had no answer within the timeout of [`with_timeout`].
pub fn is_timeout(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Service(error) if error.is::<Elapsed>())
}

/// The object that a deletion or an eviction is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectTarget {
    /// Its name.
    pub name: String,
    /// Its UID: another object may have its name later.
    pub uid: String,
    /// Its `resourceVersion`, if it must not have changed since it was read.
    pub version: Option<String>,
}

impl ObjectTarget {
    /// The object with this metadata; `None` without a name or a UID, which every object from the API server has.
    pub fn from_metadata(metadata: &ObjectMeta) -> Option<Self> {
        Some(Self {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            version: None,
        })
    }
}

/// The result of a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionOutcome {
    /// The API server deletes the object, or will when its grace period and its finalizers allow it.
    Started,
    /// The object no longer exists, another object has its name, or its version differs from the target's.
    NotFound,
}

/// Deletes an object, with a grace period of `grace` seconds if given.
pub async fn delete<K>(
    timeout: Duration,
    api: &Api<K>,
    target: &ObjectTarget,
    grace: Option<u32>,
) -> kube::Result<DeletionOutcome>
where
    K: Clone + Debug + DeserializeOwned,
{
    let params = DeleteParams {
        grace_period_seconds: grace,
        preconditions: Some(Preconditions {
            uid: Some(target.uid.clone()),
            resource_version: target.version.clone(),
        }),
        ..DeleteParams::default()
    };
    #[allow(clippy::disallowed_methods, reason = "with preconditions")]
    let call = api.delete(&target.name, &params);
    match with_timeout(timeout, call).await {
        Err(kube::Error::Api(status)) if is_object_not_found(&status) || status.is_conflict() => {
            Ok(DeletionOutcome::NotFound)
        }
        result => result.map(|_| DeletionOutcome::Started),
    }
}

/// Evicts a pod. The client's own method writes the options under a name that the API server does not know
/// (`delete_options`), and would evict any pod of that name (kube 5.0).
pub async fn evict(timeout: Duration, pods: &Api<Pod>, target: &ObjectTarget) -> kube::Result<()> {
    let eviction = Eviction {
        metadata: ObjectMeta {
            name: Some(target.name.clone()),
            ..ObjectMeta::default()
        },
        delete_options: Some(meta::DeleteOptions {
            preconditions: Some(meta::Preconditions {
                uid: Some(target.uid.clone()),
                resource_version: target.version.clone(),
            }),
            ..meta::DeleteOptions::default()
        }),
    };
    let params = PostParams::default();
    let call = pods.create_subresource::<_, Status>("eviction", &target.name, &params, &eviction);
    with_timeout(timeout, call).await.map(drop)
}

/// Reads the object of this name; `None` if the API server answers that it does not exist.
pub async fn find<K>(timeout: Duration, api: &Api<K>, name: &str) -> kube::Result<Option<K>>
where
    K: Clone + Debug + DeserializeOwned,
{
    match with_timeout(timeout, api.get(name)).await {
        Err(kube::Error::Api(status)) if is_object_not_found(&status) => Ok(None),
        result => result.map(Some),
    }
}

/// Whether the API server itself answers that the object does not exist. The 404 of a proxy in between, a page in HTML
/// or plain text, does not count; `Status::is_not_found` accepts it.
pub fn is_object_not_found(status: &Status) -> bool {
    status.code == 404 && status.reason == "NotFound"
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use http::{Method, Request, Response};
    use http_body_util::BodyExt as _;
    use kube::Client;
    use kube::client::Body;
    use parking_lot::Mutex;
    use serde_json::{Value, json};

    use super::*;
    use crate::node::fixtures::behind_a_proxy;

    const TIMEOUT: Duration = Duration::from_secs(5);

    type RecordedRequests = Arc<Mutex<Vec<(Method, String, Value)>>>;

    /// A client that records its requests and answers them with `code`.
    fn recorded(code: u16) -> (Client, RecordedRequests) {
        let sent = RecordedRequests::default();
        let record = sent.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let record = record.clone();
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let request = (head.method, head.uri.path().to_owned(), body);
                record.lock().push(request);
                let (status, reason) = match code {
                    404 => ("Failure", "NotFound"),
                    409 => ("Failure", "Conflict"),
                    403 => ("Failure", "Forbidden"),
                    _ => ("Success", ""),
                };
                let response = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                    "status": status, "reason": reason, "message": "m", "code": code});
                let response = Response::builder()
                    .status(code)
                    .body(Body::from(response.to_string().into_bytes()));
                Ok::<_, Infallible>(response.expect("an answer"))
            }
        });
        (Client::new(service, "default"), sent)
    }

    fn target(version: Option<&str>) -> ObjectTarget {
        ObjectTarget {
            name: "db-0".to_owned(),
            uid: "u".to_owned(),
            version: version.map(str::to_owned),
        }
    }

    #[tokio::test]
    async fn every_deletion_and_eviction_names_its_object_by_uid() {
        let (client, sent) = recorded(200);
        let pods: Api<Pod> = Api::namespaced(client, "default");
        for version in [None, Some("7")] {
            let target = target(version);
            delete(TIMEOUT, &pods, &target, Some(0))
                .await
                .expect("done");
            evict(TIMEOUT, &pods, &target).await.expect("done");
        }
        let sent = sent.lock();
        assert_eq!(sent.len(), 4);
        for (number, (method, path, body)) in sent.iter().enumerate() {
            // Exactly as the API server spells it, because it ignores unknown fields.
            let preconditions = if *method == Method::DELETE {
                assert!(path.ends_with("/pods/db-0"), "{path}");
                &body["preconditions"]
            } else {
                assert!(path.ends_with("/pods/db-0/eviction"), "{path}");
                &body["deleteOptions"]["preconditions"]
            };
            let version = if number < 2 { Value::Null } else { json!("7") };
            assert_eq!(
                (&preconditions["uid"], &preconditions["resourceVersion"]),
                (&json!("u"), &version)
            );
        }
    }

    #[tokio::test]
    async fn a_missing_or_different_object_is_left_alone_without_an_error() {
        for (code, outcome) in [
            (200, Some(DeletionOutcome::Started)),
            (404, Some(DeletionOutcome::NotFound)),
            (409, Some(DeletionOutcome::NotFound)),
            (403, None),
        ] {
            let (client, _) = recorded(code);
            let pods: Api<Pod> = Api::namespaced(client, "default");
            let deleted = delete(TIMEOUT, &pods, &target(None), None).await;
            assert_eq!(deleted.ok(), outcome, "{code}");
        }
    }

    #[test]
    fn an_object_without_a_uid_is_not_deleted() {
        let named = ObjectMeta {
            name: Some("db-0".to_owned()),
            ..ObjectMeta::default()
        };
        assert_eq!(ObjectTarget::from_metadata(&named), None);
    }

    #[tokio::test]
    async fn only_the_api_server_itself_can_report_a_missing_object() {
        let find = async |client| {
            let pods: Api<Pod> = Api::namespaced(client, "default");
            find(TIMEOUT, &pods, "db-0").await
        };
        assert!(matches!(find(recorded(404).0).await, Ok(None)));
        assert!(find(behind_a_proxy()).await.is_err());
    }

    #[test]
    fn only_the_api_servers_own_404_means_that_an_object_is_gone() {
        let own = Status::failure("pods \"a\" not found", "NotFound").with_code(404);
        assert!(is_object_not_found(&own));
        // How the client represents an answer that is not a Status.
        let page = Status::failure("<html>404</html>", "Failed to parse error data");
        assert!(!is_object_not_found(&page.with_code(404)));
    }
}
