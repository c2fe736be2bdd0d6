//! The live view: prints where the replicas are and what the pool says, at every change.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burstpool::api::BurstPool;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::support::objects;

/// The minimum interval between two pictures.
const MOMENT: Duration = Duration::from_millis(300);

/// Shows both while it is polled, and reports the replicas that it has shown.
pub async fn show(
    client: Client,
    began: Instant,
    shown: watch::Sender<Replicas>,
) -> anyhow::Result<()> {
    tokio::try_join!(replicas(client.clone(), began, shown), words(client, began)).map(drop)
}

fn line(began: Instant, text: &str) {
    println!("{:5.1} s  {text}", began.elapsed().as_secs_f64());
}

/// The numbers of replicas by place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Replicas {
    pub home: usize,
    pub aci: usize,
    /// On ACI, not running yet.
    pub starting: usize,
    /// Without a node.
    pub waiting: usize,
    /// Being deleted.
    pub ending: usize,
}

impl Replicas {
    fn of(pods: &[Arc<Pod>]) -> Self {
        let mut all = Self::default();
        for pod in pods {
            let status = pod.status.as_ref();
            let phase = status.and_then(|status| status.phase.as_deref());
            let part = match objects::node_of(pod) {
                _ if pod.metadata.deletion_timestamp.is_some() => &mut all.ending,
                None => &mut all.waiting,
                Some(node) if !node.starts_with("burst-") => &mut all.home,
                Some(_) if phase == Some("Pending") => &mut all.starting,
                Some(_) => &mut all.aci,
            };
            *part += 1;
        }
        all
    }

    /// One character per replica, and the numbers.
    fn picture(self) -> String {
        let parts = [
            ('#', self.home, "at home"),
            ('~', self.aci, "on ACI"),
            (':', self.starting, "starting on ACI"),
            ('.', self.waiting, "waiting"),
            ('-', self.ending, "ending"),
        ];
        let present = || parts.iter().filter(|(_, count, _)| *count > 0);
        let bars: String = present()
            .map(|(sign, count, _)| sign.to_string().repeat(*count))
            .collect();
        let words: Vec<String> = present()
            .map(|(sign, count, what)| format!("{sign} {count} {what}"))
            .collect();
        format!("{bars:<14} {}", words.join(", "))
    }
}

/// Prints the replicas whenever they have changed. States shorter than [`MOMENT`] are not shown.
async fn replicas(
    client: Client,
    began: Instant,
    shown: watch::Sender<Replicas>,
) -> anyhow::Result<()> {
    let (store, writer) = reflector::store();
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let web = watcher::Config::default().labels("app=web");
    let changes = watcher(pods, web).default_backoff().reflect(writer);
    let mut changes = changes.applied_objects().boxed();
    let mut moment = tokio::time::interval(MOMENT);
    loop {
        tokio::select! {
            change = changes.try_next() => {
                change?;
            }
            _ = moment.tick() => {
                let now = Replicas::of(&store.state());
                if *shown.borrow() != now {
                    line(began, &format!("         {}", now.picture()));
                    shown.send_replace(now);
                }
            }
        }
    }
}

/// Prints the message of the pool's condition `Spilling`.
async fn words(client: Client, began: Instant) -> anyhow::Result<()> {
    let pools: Api<BurstPool> = Api::all(client);
    let mut changes = watcher(pools, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    let mut said = String::new();
    while let Some(pool) = changes.try_next().await? {
        let conditions = pool.status.iter().flat_map(|status| &status.conditions);
        let spilling = conditions.into_iter().find(|one| one.type_ == "Spilling");
        let Some(condition) = spilling else { continue };
        let now = format!("pool peak: {}: {}", condition.reason, condition.message);
        if now != said {
            line(began, &format!("         {now}"));
            said = now;
        }
    }
    Ok(())
}
