//! Calls of Kubernetes that end: no read of its client does so by itself.
//!
//! In: a call, and how long it may take. Out: its answer, or an error like any other.

use std::fmt::Debug;
use std::time::Duration;

use kube::Api;
use kube::api::DeleteParams;
use serde::de::DeserializeOwned;

/// The call's answer, or an error if it does not come in time.
pub async fn in_time<T>(
    patience: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> kube::Result<T> {
    let answer = tokio::time::timeout(patience, call).await;
    answer.unwrap_or_else(|late| Err(kube::Error::Service(Box::new(late))))
}

/// Deletes an object. One that is not there is deleted.
pub async fn delete<K>(patience: Duration, api: &Api<K>, name: &str) -> kube::Result<()>
where
    K: Clone + Debug + DeserializeOwned,
{
    match in_time(patience, api.delete(name, &DeleteParams::default())).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        deleted => deleted.map(drop),
    }
}
