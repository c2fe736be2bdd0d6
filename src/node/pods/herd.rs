//! The keepers of a node's pods: each pod that is watched gets one.
//!
//! In: the pods of the node as they are watched. Out: a running keeper for each, which is told what is
//! new of its pod and that the pod's object is gone.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::keeper::Keeper;
use super::settle::Settled;
use super::{Context, Hosted, lock, settle};
use crate::aci::names::GroupName;
use crate::burst::PodFacts;
use crate::node::observed::Observed;
use crate::node::watched::reported;
use crate::telemetry;

/// What is new of a pod. The keeper takes it, so that a pod is in memory once.
#[derive(Debug, Default)]
pub(super) enum News {
    /// Nothing.
    #[default]
    None,
    /// The pod is like this now.
    Seen(Box<Observed>),
    /// Its object is gone.
    Gone,
}

/// The keepers of the node's pods, by the pods' UIDs.
pub(super) struct Herd {
    pub context: Arc<Context>,
    pub cancel: CancellationToken,
    pub tasks: TaskTracker,
    pub keepers: HashMap<String, Arc<watch::Sender<News>>>,
    /// What was written on pods, by UID.
    pub settled: HashMap<String, Arc<Settled>>,
}

impl Herd {
    /// Starts and tells keepers, as long as it is polled.
    pub async fn watch(&mut self) {
        // A pod that is created before the Services are known would lack their variables.
        let _ = self.context.services.wait_until_ready().await;
        let pods: Api<Observed> = Api::all(self.context.client.clone());
        let ours = format!("spec.nodeName={}", self.context.owner.node);
        let config = watcher::Config::default().fields(&ours);
        let events = watcher(pods, config).default_backoff();
        let mut events = Box::pin(reported("a node's pods", events));
        let mut listed: HashSet<String> = HashSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => listed.clear(),
                Ok(watcher::Event::InitApply(pod)) => {
                    listed.extend(pod.pod.metadata.uid.clone());
                    self.seen(pod);
                }
                Ok(watcher::Event::InitDone) => {
                    let gone = self.keepers.keys().filter(|uid| !listed.contains(*uid));
                    for uid in gone.cloned().collect::<Vec<_>>() {
                        self.gone(&uid);
                    }
                    lock(&self.context.facts).retain(|uid, _| listed.contains(uid));
                    self.settled.retain(|uid, _| listed.contains(uid));
                    self.context.pods_listed.send_replace(true);
                }
                Ok(watcher::Event::Apply(pod)) => self.seen(pod),
                Ok(watcher::Event::Delete(pod)) => {
                    if let Some(uid) = &pod.pod.metadata.uid {
                        self.gone(uid);
                    }
                }
                Err(_) => continue,
            }
            self.context.changed.notify_one();
        }
    }

    fn seen(&mut self, observed: Observed) {
        let Some(uid) = observed.pod.metadata.uid.clone() else {
            return;
        };
        if let Some(error) = &observed.unreadable {
            let name = format!(
                "{}/{}",
                observed.pod.namespace().unwrap_or_default(),
                observed.pod.name_any()
            );
            telemetry::unreadable("Pod", &name, error);
        } else {
            self.settle(&uid, &observed.pod);
        }
        let cluster = &self.context.owner.cluster;
        if let Some(hosted) = Hosted::of(cluster, &observed.pod) {
            self.context.hosted.put(hosted);
        }
        if let Some(facts) = PodFacts::of(&observed.pod) {
            lock(&self.context.facts).insert(uid.clone(), Arc::new(facts));
        }
        match self.keepers.get(&uid) {
            Some(keeper) if !keeper.is_closed() => {
                keeper.send_replace(News::Seen(Box::new(observed)));
            }
            _ => self.start(uid, observed),
        }
    }

    fn start(&mut self, uid: String, observed: Observed) {
        self.keepers.retain(|_, keeper| !keeper.is_closed());
        let (sender, news) = watch::channel(News::None);
        let sender = Arc::new(sender);
        let name = GroupName::of(&self.context.owner.cluster, &observed.pod);
        let shown = self.context.follow(&uid, &name);
        let context = self.context.clone();
        let news = (sender.clone(), news);
        let keeper = Box::new(Keeper::new(context, observed, name, news, shown));
        let (kept, cancel) = (keeper.keep(), self.cancel.clone());
        self.tasks
            .spawn(async move { cancel.run_until_cancelled(kept).await });
        self.keepers.insert(uid, sender);
    }

    /// Writes on the pod what belongs on it, in a task of its own.
    fn settle(&mut self, uid: &str, pod: &Pod) {
        let settled = self.settled.entry(uid.to_owned()).or_default();
        if let Some(settled) = settle::settle(&self.context, settled, pod) {
            let cancel = self.cancel.clone();
            self.tasks
                .spawn(async move { cancel.run_until_cancelled(settled).await });
        }
    }

    /// The pod's object is gone: its keeper ends when its group is gone, too.
    fn gone(&mut self, uid: &str) {
        self.context.hosted.remove(uid);
        self.settled.remove(uid);
        lock(&self.context.facts).remove(uid);
        if let Some(keeper) = self.keepers.get(uid) {
            keeper.send_replace(News::Gone);
        }
    }
}
