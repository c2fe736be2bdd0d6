//! The tasks of a pool's nodes: started, changed and stopped as the pool's spec says.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::ResourceExt as _;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::mistake::{self, Mistake, can_proxy, scope};
use super::{Context, Error, status};
use crate::aci::client::Scope;
use crate::aci::names::Owner;
use crate::api::{BurstPool, Placement, PlacementStatus};
use crate::burst::PodFacts;
use crate::kubelet_api::Served;
use crate::node::object::{self, Closed, Facts};
use crate::node::pods::{self, Parts};
use crate::node::{capacity, daemon, region, register};

/// A pool whose nodes are kept.
pub struct Running {
    placements: BTreeMap<String, Kept>,
}

/// A placement whose node is kept.
struct Kept {
    placement: Placement,
    scope: Scope,
    tags: BTreeMap<String, String>,
    deletion_cost: i32,
    facts: watch::Sender<Facts>,
    pods: Arc<pods::Context>,
    /// The kubelet API serves the node for as long as this is kept.
    _served: Served,
    cancel: CancellationToken,
    /// Ends only the look at the region: a node that is being drained stays closed.
    region: CancellationToken,
    tasks: TaskTracker,
}

impl Running {
    /// Ends all tasks; what they kept stays.
    pub async fn stop(self) {
        stop(self.placements.into_values().collect()).await;
    }
}

impl Kept {
    async fn stop(self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn is_of(&self, placement: &Placement, scope: &Scope, pool: &BurstPool) -> bool {
        self.placement == *placement
            && self.scope == *scope
            && self.tags == pool.spec.azure.tags
            && self.deletion_cost == pool.spec.scale_in.deletion_cost
    }
}

/// Starts what the spec asks for and is not running, and restarts what it asks otherwise. Answers the
/// pool and placement of those that it does not ask for any more.
pub async fn ensure(pool: &BurstPool, context: &Context) -> Result<Vec<(String, String)>, Mistake> {
    let scope = scope(pool, context)?;
    can_proxy(pool, context.kube_proxy.is_some())?;
    stays(pool, &scope, context).await?;
    // Those who burst look at what is kept all the time, and must not wait until it has ended.
    stop(take_changed(pool, &scope, context).await).await;
    let mut pools = context.pools.lock().await;
    let running = pools.entry(pool.name_any()).or_insert_with(|| Running {
        placements: BTreeMap::new(),
    });
    for placement in &pool.spec.placements {
        if !running.placements.contains_key(&placement.name) {
            let kept = keep(pool, placement, &scope, context).await;
            running.placements.insert(placement.name.clone(), kept);
        }
    }
    let asked = |name: &str| {
        pool.spec
            .placements
            .iter()
            .any(|placement| placement.name == name)
    };
    let removed = running.placements.keys().filter(|name| !asked(name));
    Ok(removed
        .map(|name| (pool.name_any(), name.clone()))
        .collect())
}

/// Whether the pool's groups are where its spec has them now: they cannot move, and those elsewhere would
/// run on with nobody to delete them. All goes on as it was meanwhile.
async fn stays(pool: &BurstPool, scope: &Scope, context: &Context) -> Result<(), Mistake> {
    let pools = context.pools.lock().await;
    let kept = pools.get(&pool.name_any());
    let mut kept = kept.into_iter().flat_map(|kept| kept.placements.values());
    match kept.find(|kept| kept.scope != *scope && !kept.pods.is_empty()) {
        None => Ok(()),
        Some(kept) => Err(mistake::moved(&kept.scope, scope)),
    }
}

/// Ends these: what one of them still waits for, all wait for together.
async fn stop(all: Vec<Kept>) {
    for kept in &all {
        kept.cancel.cancel();
    }
    for kept in all {
        kept.stop().await;
    }
}

/// Takes out what is kept otherwise than the spec asks now, or was drained or ended and is asked for again:
/// nobody gives it pods any more.
async fn take_changed(pool: &BurstPool, scope: &Scope, context: &Context) -> Vec<Kept> {
    let mut pools = context.pools.lock().await;
    let Some(running) = pools.get_mut(&pool.name_any()) else {
        return Vec::new();
    };
    let changed = pool.spec.placements.iter().filter_map(|placement| {
        let kept = running.placements.get(&placement.name)?;
        // While its pool is deleted, it stays closed.
        let is_back = pool.metadata.deletion_timestamp.is_none() && kept.region.is_cancelled();
        let is_changed =
            !kept.is_of(placement, scope, pool) || kept.cancel.is_cancelled() || is_back;
        is_changed.then(|| running.placements.remove(&placement.name))?
    });
    changed.collect()
}

async fn keep(pool: &BurstPool, placement: &Placement, scope: &Scope, context: &Context) -> Kept {
    let name = pool.name_any();
    let (facts, changes) = watch::channel(facts(&name, placement, context));
    let pods = Arc::new(pods::Context::new(Parts {
        client: context.client.clone(),
        azure: context.azure.in_region(&placement.region),
        scope: scope.clone(),
        owner: Owner {
            cluster: context.cluster.clone(),
            pool: name.clone(),
            node: object::name(&name, &placement.name),
        },
        placement: placement.clone(),
        tags: pool.spec.azure.tags.clone(),
        address: context.address.clone(),
        pace: context
            .paces
            .lock()
            .await
            .entry(scope.subscription.clone())
            .or_default()
            .clone(),
        trouble: Arc::new(Notify::new()),
        changed: context.stores.changed.clone(),
        sweep_every: context.sweep_every,
        orphan_grace: pods::ORPHAN_GRACE,
        kube_proxy: context
            .kube_proxy
            .clone()
            .filter(|_| placement.network.kube_proxy),
        deletion_cost: pool.spec.scale_in.deletion_cost,
    }));
    let (cancel, tasks) = (context.over.child_token(), TaskTracker::new());
    let region = cancel.child_token();
    tasks.spawn(register::keep(
        context.client.clone(),
        changes,
        cancel.clone(),
    ));
    tasks.spawn(region::keep(pods.clone(), facts.clone(), region.clone()));
    tasks.spawn(pods::keep(pods.clone(), cancel.clone()));
    Kept {
        placement: placement.clone(),
        scope: scope.clone(),
        tags: pool.spec.azure.tags.clone(),
        deletion_cost: pool.spec.scale_in.deletion_cost,
        facts,
        _served: context.nodes.serve(pods.clone()),
        pods,
        cancel,
        region,
        tasks,
    }
}

/// Until the region has been asked, a node is closed: nobody knows what it has to offer.
fn facts(pool: &str, placement: &Placement, context: &Context) -> Facts {
    Facts {
        pool: pool.to_owned(),
        placement: placement.name.clone(),
        region: placement.region.clone(),
        labels: placement.labels.clone(),
        address: context.address.clone(),
        port: context.port,
        room: capacity::asked(placement),
        closed: Some(Closed {
            reason: "Starting".to_owned(),
            message: "the region has not been asked yet what it has to offer".to_owned(),
        }),
        shut: None,
        kubernetes_minor: context.kubernetes_minor,
    }
}

/// What the pool's placements are doing.
pub async fn report(pool: &BurstPool, context: &Context) -> Vec<PlacementStatus> {
    let pools = context.pools.lock().await;
    let Some(running) = pools.get(&pool.name_any()) else {
        return Vec::new();
    };
    let report = |(name, kept): (&String, &Kept)| {
        let facts = kept.facts.borrow();
        PlacementStatus {
            name: name.clone(),
            node: facts.name(),
            ready: facts.why_closed().is_none(),
            groups: kept
                .pods
                .groups()
                .and_then(|n| i64::try_from(n).ok())
                .unwrap_or_default(),
            message: message(
                facts.why_closed(),
                &kept.placement,
                &kept.pods.daemon_sets(),
            ),
        }
    };
    running.placements.iter().map(report).collect()
}

/// How creates of a pool's placements ended since this was asked last.
pub async fn ended_creates(pool: &str, context: &Context) -> Vec<(String, pods::Ended)> {
    let pools = context.pools.lock().await;
    let placements = pools.get(pool).into_iter().flat_map(|r| &r.placements);
    placements
        .flat_map(|(name, kept)| {
            let ended = kept.pods.take_ended().into_iter();
            ended.map(|ended| (name.clone(), ended))
        })
        .collect()
}

/// What matters for bursting of the pods on pools' nodes, by pool.
pub async fn pods(context: &Context) -> BTreeMap<String, Vec<Arc<PodFacts>>> {
    let pools = context.pools.lock().await;
    let of = |running: &Running| {
        let kept = running.placements.values();
        kept.flat_map(|kept| kept.pods.pods()).collect()
    };
    let all = pools.iter();
    all.map(|(name, running)| (name.clone(), of(running)))
        .collect()
}

/// Why regions of a pool's placements take no pods, by placement. One that is not kept takes none.
pub async fn closed_regions(pool: &BurstPool, context: &Context) -> BTreeMap<String, String> {
    let pools = context.pools.lock().await;
    let running = pools.get(&pool.name_any());
    let why = |placement: &Placement| {
        let Some(kept) = running.and_then(|running| running.placements.get(&placement.name)) else {
            return Some("its node is not kept yet".to_owned());
        };
        let facts = kept.facts.borrow();
        facts.closed.as_ref().map(|closed| closed.message.clone())
    };
    let all = pool.spec.placements.iter();
    all.filter_map(|placement| Some((placement.name.clone(), why(placement)?)))
        .collect()
}

/// Gives a placement no pods any more, or again.
pub async fn shut(pool: &str, placement: &str, closed: Option<Closed>, context: &Context) {
    let pools = context.pools.lock().await;
    let kept = pools
        .get(pool)
        .and_then(|running| running.placements.get(placement));
    if let Some(kept) = kept {
        kept.facts.send_if_modified(|facts| {
            let changed = facts.shut != closed;
            facts.shut = closed;
            changed
        });
    }
}

/// Why a placement takes no pods, and what else there is to know of it.
fn message(closed: Option<&Closed>, placement: &Placement, daemon_sets: &[String]) -> String {
    let first = match closed {
        Some(closed) => closed.message.clone(),
        None => status::notice(placement).to_owned(),
    };
    let told = [first, daemon::note(daemon_sets)];
    let told: Vec<String> = told.into_iter().filter(|text| !text.is_empty()).collect();
    told.join("; ")
}

/// Closes a placement's node for good, and says how many groups it has; nothing if nobody knows.
pub async fn close(pool: &str, placement: &str, context: &Context) -> Option<usize> {
    // Azure may take a minute to answer, and what is kept is looked at for every pool meanwhile.
    let pods = drain(pool, placement, context).await?;
    pods.count().await
}

async fn drain(pool: &str, placement: &str, context: &Context) -> Option<Arc<pods::Context>> {
    let pools = context.pools.lock().await;
    let kept = pools.get(pool)?.placements.get(placement)?;
    kept.region.cancel();
    let closed = Closed {
        reason: "Draining".to_owned(),
        message: "it is being drained".to_owned(),
    };
    kept.facts.send_if_modified(|facts| {
        let changed = facts.closed.as_ref() != Some(&closed);
        facts.closed = Some(closed);
        changed
    });
    Some(kept.pods.clone())
}

/// Ends a placement and removes its node.
pub async fn remove_placement(pool: &str, placement: &str, context: &Context) -> Result<(), Error> {
    let pools = context.pools.lock().await;
    let kept = pools
        .get(pool)
        .and_then(|kept| kept.placements.get(placement));
    let ends = kept.map(|kept| (kept.cancel.clone(), kept.tasks.clone()));
    drop(pools);
    if let Some((cancel, tasks)) = ends {
        cancel.cancel();
        tasks.close();
        tasks.wait().await;
    }
    let node = object::name(pool, placement);
    register::remove(&context.client, &node)
        .await
        .map_err(Error::kubernetes("removing a node"))?;
    // Not before: a node that is still there is to be removed the next time.
    if let Some(running) = context.pools.lock().await.get_mut(pool) {
        running.placements.remove(placement);
    }
    Ok(())
}

/// Ends a pool and removes its nodes.
pub async fn remove(pool: &BurstPool, context: &Context) -> Result<(), Error> {
    let name = pool.name_any();
    let mut placements: Vec<String> = pool
        .spec
        .placements
        .iter()
        .map(|p| p.name.clone())
        .collect();
    if let Some(running) = context.pools.lock().await.get(&name) {
        for (placement, kept) in &running.placements {
            placements.push(placement.clone());
            kept.cancel.cancel();
        }
    }
    placements.sort_unstable();
    placements.dedup();
    for placement in placements {
        remove_placement(&name, &placement, context).await?;
    }
    // Not before: what is still there is to be removed the next time.
    context.pools.lock().await.remove(&name);
    Ok(())
}

#[cfg(test)]
mod tests;
