//! The cluster's Services, for the environment variables `{SERVICE}_SERVICE_HOST` of pods.
//!
//! In: one watch of all Services for the whole process, from the time when the first node needs them. Out: the
//! Services, which the pod workers of all nodes share.

use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::k8s::watch_health::{report_errors, skip_unreadable};

/// The cluster's Services.
pub struct ServiceCache {
    services: Store<Service>,
    /// `None` once the watch runs.
    writer: Mutex<Option<Writer<Service>>>,
    /// Notified when a node needs the Services.
    needed: Notify,
    /// Whether the Services were listed. The store itself wakes only the last task that waits for this.
    is_listed: watch::Sender<bool>,
}

impl Default for ServiceCache {
    fn default() -> Self {
        let (services, writer) = reflector::store();
        Self {
            services,
            writer: Mutex::new(Some(writer)),
            needed: Notify::new(),
            is_listed: watch::Sender::new(false),
        }
    }
}

impl ServiceCache {
    /// Watches the Services from when the first node needs them. Runs until it is dropped; a second call returns at
    /// once.
    pub async fn watch(&self, client: Client) {
        let Some(writer) = self.writer.lock().take() else {
            return;
        };
        self.needed.notified().await;
        let services: Api<DeserializeGuard<Service>> = Api::all(client);
        let events = watcher(services, watcher::Config::default()).default_backoff();
        let events = report_errors("Services", skip_unreadable(events)).reflect(writer);
        let listed = async {
            if self.services.wait_until_ready().await.is_ok() {
                self.is_listed.send_replace(true);
            }
        };
        tokio::join!(events.for_each(async |_| {}), listed);
    }

    /// Waits until the Services were listed: a group that is created before that lacks their variables.
    pub async fn wait_until_ready(&self) {
        self.needed.notify_one();
        let mut is_listed = self.is_listed.subscribe();
        // The sender lives as long as `self`.
        let _ = is_listed.wait_for(|is_listed| *is_listed).await;
    }

    /// All Services of the cluster.
    pub fn all(&self) -> Vec<Arc<Service>> {
        self.services.state()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// An API server that counts the LISTs of Services. A watch gets no answer.
    fn api_server(lists: &Arc<AtomicUsize>) -> Client {
        let lists = lists.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let is_watch = request.uri().query().is_some_and(|q| q.contains("watch="));
            let lists = lists.clone();
            async move {
                if is_watch {
                    std::future::pending::<()>().await;
                }
                lists.fetch_add(1, Ordering::Relaxed);
                let service = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": {}});
                let list = json!({"kind": "ServiceList", "apiVersion": "v1",
                    "metadata": {"resourceVersion": "1"}, "items": [service]});
                let body = Body::from(list.to_string().into_bytes());
                Ok::<_, http::Error>(http::Response::new(body))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn the_services_are_listed_once_for_all_nodes_and_not_before_one_needs_them() {
        let lists = Arc::new(AtomicUsize::new(0));
        let (cache, client) = (Arc::new(ServiceCache::default()), api_server(&lists));
        let watched = cache.clone();
        let watching = tokio::spawn(async move { watched.watch(client).await });
        tokio::task::yield_now().await;
        assert_eq!(lists.load(Ordering::Relaxed), 0, "no node needs them yet");
        // Each node waits in a task of its own.
        let nodes = (0..3).map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move { cache.wait_until_ready().await })
        });
        let nodes = futures::future::join_all(nodes.collect::<Vec<_>>());
        let timeout = std::time::Duration::from_secs(60);
        let nodes = tokio::time::timeout(timeout, nodes).await;
        assert!(nodes.is_ok(), "every waiting node gets the Services");
        cache.wait_until_ready().await;
        watching.abort();
        let names: Vec<_> = cache
            .all()
            .iter()
            .filter_map(|service| service.metadata.name.clone())
            .collect();
        assert_eq!(
            (names, lists.load(Ordering::Relaxed)),
            (vec!["web".to_owned()], 1)
        );
    }
}
