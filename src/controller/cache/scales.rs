//! A cache of the targets' `/scale`, which is read again when the target changes.
//!
//! In: the targets of all pools' workloads. Out: their [`TargetScales`], and a notification when one has changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::core::{DynamicObject, GroupVersionKind, PartialObjectMeta, TypeMeta};
use kube::discovery::oneshot;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::cluster::Snapshot;
use crate::api::Target;
use crate::burst::{TargetScale, TargetScales};
use crate::k8s::call;
use crate::k8s::label_selector;
use crate::k8s::watch_health::report_errors;

/// How soon a scale is read again if a read failed or the watch may have missed a change.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// Debounce of changes: a rollout changes its Deployment several times a second.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The timeout of a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The metadata of an object of any kind: enough to see that the object changed.
pub(in crate::controller) type ObjectMetadata = PartialObjectMeta<DynamicObject>;
/// Pool name and workload name.
type ScaleKey = (String, String);

/// The scales, and the task that watches each target.
pub struct ScaleCache {
    client: Client,
    cancel: CancellationToken,
    changed: Arc<Notify>,
    scales: Arc<Mutex<TargetScales>>,
    watches: HashMap<ScaleKey, (Target, CancellationToken)>,
}

impl ScaleCache {
    /// An empty cache; `changed` is notified of every change.
    pub fn new(client: Client, changed: Arc<Notify>, cancel: CancellationToken) -> Self {
        Self {
            client,
            cancel,
            changed,
            scales: Arc::default(),
            watches: HashMap::new(),
        }
    }

    /// The current content of the cache.
    pub fn scales(&self) -> TargetScales {
        self.scales.lock().clone()
    }

    /// Watches the targets that the pools have now, and stops watching others.
    pub fn update_watches(&mut self, snapshot: &Snapshot, tasks: &tokio_util::task::TaskTracker) {
        let wanted: HashMap<ScaleKey, &Target> = snapshot
            .pools
            .iter()
            .flat_map(|(pool, object)| {
                let targets = object.spec.workloads.iter();
                targets.filter_map(|workload| {
                    let target = workload.target.as_ref()?;
                    Some(((pool.clone(), workload.name.clone()), target))
                })
            })
            .collect();
        let scales = &self.scales;
        self.watches.retain(|key, (target, cancel)| {
            let is_wanted = wanted.get(key).is_some_and(|wanted| **wanted == *target);
            if !is_wanted {
                cancel.cancel();
                scales.lock().remove(key);
            }
            is_wanted
        });
        for (key, target) in wanted {
            if self.watches.contains_key(&key) {
                continue;
            }
            let cancel = self.cancel.child_token();
            let scale_watcher = ScaleWatcher {
                client: self.client.clone(),
                target: target.clone(),
                key: key.clone(),
                scales: self.scales.clone(),
                changed: self.changed.clone(),
            };
            let stopped = cancel.clone();
            tasks.spawn(async move {
                tokio::select! {
                    () = scale_watcher.run() => {}
                    () = stopped.cancelled() => {}
                }
            });
            self.watches.insert(key, (target.clone(), cancel));
        }
    }
}

/// The watcher of one target.
struct ScaleWatcher {
    client: Client,
    target: Target,
    key: ScaleKey,
    scales: Arc<Mutex<TargetScales>>,
    changed: Arc<Notify>,
}

impl ScaleWatcher {
    async fn run(&self) {
        loop {
            match target_api(&self.client, &self.target).await {
                Ok(api) => self.watch_target(&api).await,
                Err(why) => {
                    self.store(Err(why));
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    /// Reads the scale whenever the target changes. Returns when the kind's API has to be discovered again.
    async fn watch_target(&self, api: &Api<ObjectMetadata>) {
        let by_name = format!("metadata.name={}", self.target.name);
        let changes = watcher(api.clone(), watcher::Config::default().fields(&by_name));
        let changes = report_errors("workloads' targets", changes.default_backoff());
        let mut changes = std::pin::pin!(changes);
        loop {
            let read = self.read_scale(api).await;
            let failed = read.is_err();
            self.store(read);
            tokio::select! {
                change = changes.next() => match change {
                    Some(Ok(_)) => tokio::time::sleep(DEBOUNCE).await,
                    // A kind that cannot be watched is read at this interval.
                    Some(Err(_)) => tokio::time::sleep(RETRY_INTERVAL).await,
                    None => return,
                },
                () = tokio::time::sleep(RETRY_INTERVAL) => if failed { return },
            }
        }
    }

    async fn read_scale(&self, api: &Api<ObjectMetadata>) -> Result<TargetScale, String> {
        let scale = get_scale(api, &self.target).await?;
        let status = scale.status.unwrap_or_default();
        let replicas = scale
            .spec
            .and_then(|spec| spec.replicas)
            .unwrap_or_default();
        Ok(TargetScale {
            spec_replicas: u64::try_from(replicas).unwrap_or_default(),
            status_replicas: u64::try_from(status.replicas).unwrap_or_default(),
            selector: label_selector::parse(&status.selector.unwrap_or_default())?,
        })
    }

    fn store(&self, read: Result<TargetScale, String>) {
        let mut scales = self.scales.lock();
        if scales.get(&self.key) != Some(&read) {
            scales.insert(self.key.clone(), read);
            drop(scales);
            self.changed.notify_one();
        }
    }
}

/// The API of a target's kind, found by discovery.
pub(in crate::controller) async fn target_api(
    client: &Client,
    target: &Target,
) -> Result<Api<ObjectMetadata>, String> {
    let Target {
        api_version, kind, ..
    } = target;
    let meta = TypeMeta {
        api_version: api_version.clone(),
        kind: kind.clone(),
    };
    let wanted = GroupVersionKind::try_from(&meta)
        .map_err(|error| format!("target.apiVersion '{api_version}': {error}"))?;
    let found = oneshot::pinned_kind(client, &wanted);
    let (resource, _) = tokio::time::timeout(CALL_TIMEOUT, found)
        .await
        .map_err(|_| "the API server does not answer".to_owned())?
        .map_err(|error| {
            format!("the cluster does not serve kind {kind} of {api_version}: {error}")
        })?;
    let client = client.clone();
    Ok(Api::namespaced_with(client, &target.namespace, &resource))
}

/// Reads a target's scale.
pub(in crate::controller) async fn get_scale(
    api: &Api<ObjectMetadata>,
    target: &Target,
) -> Result<k8s_openapi::api::autoscaling::v1::Scale, String> {
    let Target {
        kind,
        namespace,
        name,
        ..
    } = target;
    match tokio::time::timeout(CALL_TIMEOUT, api.get_scale(name)).await {
        Ok(Ok(scale)) => Ok(scale),
        Ok(Err(kube::Error::Api(status))) if call::is_object_not_found(&status) => Err(format!(
            "{kind} {namespace}/{name} does not exist, or has no scale"
        )),
        Ok(Err(kube::Error::Api(status))) => Err(status.message),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the API server does not answer".to_owned()),
    }
}
