//! The tasks of pools' nodes: started, changed and stopped as specs say, and found again where none does.
//!
//! In: pools, and nodes that no spec asks for. Out: a [`Kept`] for each placement; what it knows, for those who
//! burst and for statuses; and, when nothing is left on it, its node removed and then its tasks ended.

mod kept;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::kept::{Kept, Wanted};
use super::drain::pace::{self, Again, Evictions, Look};
use super::mistake::{self, Mistake, can_proxy, scope, usable};
use super::{Context, status};
use crate::aci::client::Scope;
use crate::api::{BurstPool, Placement, PlacementStatus};
use crate::burst::PodFacts;
use crate::node::object::{self, Closed};
use crate::node::pods;
use crate::node::record::Found;
use crate::node::{daemon, register};

/// A pool whose nodes are kept.
#[derive(Default)]
pub struct Running {
    placements: BTreeMap<String, Kept>,
    again: Again,
}

impl Running {
    /// Ends all tasks; what they kept stays.
    pub async fn stop(self) {
        stop(self.placements.into_values().collect()).await;
    }
}

/// Starts what the spec asks for and is not running, and restarts what it asks otherwise. Where the spec has
/// a mistake, what runs goes on as it was; also under the next leader, who knows it from the nodes.
pub async fn ensure(pool: &BurstPool, found: &[Found], context: &Context) -> Result<(), Mistake> {
    let scope = match right(pool, context).await {
        Ok(scope) => scope,
        Err(mistake) => {
            for one in found {
                resume(one.clone(), context).await;
            }
            return Err(mistake);
        }
    };
    // Those who burst look at what is kept all the time, and must not wait until it has ended.
    stop(take_changed(pool, &scope, context).await).await;
    let mut pools = context.pools.lock().await;
    let running = pools.entry(pool.name_any()).or_default();
    for placement in &pool.spec.placements {
        if !running.placements.contains_key(&placement.name) {
            let wanted = Wanted::of(pool, placement, &scope);
            let mut found = found.iter().filter(|one| one.placement == placement.name);
            let left = found.find_map(|one| one.offers(&wanted.record()));
            let kept = Kept::start(wanted, left, context).await;
            running.placements.insert(placement.name.clone(), kept);
        }
    }
    Ok(())
}

/// Where the pool's groups are, if nothing of its spec is a mistake.
async fn right(pool: &BurstPool, context: &Context) -> Result<Scope, Mistake> {
    let scope = scope(pool, context)?;
    usable(pool)?;
    can_proxy(pool, context.kube_proxy.is_some())?;
    stays(pool, &scope, context).await?;
    Ok(scope)
}

/// The placements that are kept, and that the spec does not ask for any more: whatever else is wrong with it.
pub async fn removed(pool: &BurstPool, context: &Context) -> Vec<String> {
    let kept = placements(&pool.name_any(), context).await;
    let removed = kept.into_iter().filter(|name| !asks(pool, name));
    removed.collect()
}

/// Whether the pool's spec asks for a placement of this name.
pub fn asks(pool: &BurstPool, placement: &str) -> bool {
    let mut asked = pool.spec.placements.iter();
    asked.any(|asked| asked.name == placement)
}

/// Keeps a placement that no spec asks for, until it is drained: as its node says. One that is kept already
/// goes on as it is. Whether it is kept then.
pub async fn adopt(found: Found, context: &Context) -> bool {
    let mut pools = context.pools.lock().await;
    if find(&pools, &found.pool, &found.placement).is_some() {
        return true;
    }
    let (pool, name) = (found.pool.clone(), found.placement.clone());
    let Some(wanted) = Wanted::last(found) else {
        return false;
    };
    let kept = Kept::start(wanted, None, context).await;
    kept.drain();
    let running = pools.entry(pool).or_default();
    running.placements.insert(name, kept);
    true
}

/// Keeps a placement as its node says that it was kept, since its pool's spec does not say it: nothing of it
/// is drained. One that is kept already goes on as it is, and of one whose node says nothing nothing is known.
pub async fn resume(found: Found, context: &Context) {
    let mut pools = context.pools.lock().await;
    if find(&pools, &found.pool, &found.placement).is_some() {
        return;
    }
    let (pool, name, node) = (
        found.pool.clone(),
        found.placement.clone(),
        found.node.clone(),
    );
    let offers = found.offers.clone();
    let Some(wanted) = Wanted::last(found) else {
        tracing::warn!(%node, "this node's pool cannot be used, and the node does not say what it was kept as");
        return;
    };
    let kept = Kept::start(wanted, offers, context).await;
    tracing::info!(%node, "keeping a node as it says that it was");
    let running = pools.entry(pool).or_default();
    running.placements.insert(name, kept);
}

/// A placement, if it is kept.
fn find<'a>(pools: &'a HashMap<String, Running>, pool: &str, placement: &str) -> Option<&'a Kept> {
    pools.get(pool)?.placements.get(placement)
}

/// The names of the pools that are kept.
pub async fn kept(context: &Context) -> Vec<String> {
    context.pools.lock().await.keys().cloned().collect()
}

/// The names of the placements of a pool that are kept.
pub async fn placements(pool: &str, context: &Context) -> Vec<String> {
    let pools = context.pools.lock().await;
    let kept = pools.get(pool).into_iter();
    kept.flat_map(|kept| kept.placements.keys().cloned())
        .collect()
}

/// Whether the pool's groups are where its spec has them now: they cannot move, and those elsewhere would
/// run on with nobody to delete them. All goes on as it was meanwhile. What it does not ask for any more is
/// drained where it is.
async fn stays(pool: &BurstPool, scope: &Scope, context: &Context) -> Result<(), Mistake> {
    let pools = context.pools.lock().await;
    let kept = pools.get(&pool.name_any());
    let kept = kept.into_iter().flat_map(|kept| &kept.placements);
    let mut asked = kept.filter(|(name, _)| asks(pool, name));
    match asked.find(|(_, kept)| kept.wanted.scope != *scope && !kept.pods.is_empty()) {
        None => Ok(()),
        Some((_, kept)) => Err(mistake::moved(&kept.wanted.scope, scope)),
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
        let is_back = pool.metadata.deletion_timestamp.is_none() && kept.is_draining();
        let wanted = Wanted::of(pool, placement, scope);
        let is_changed = kept.wanted != wanted || kept.cancel.is_cancelled() || is_back;
        is_changed.then(|| running.placements.remove(&placement.name))?
    });
    changed.collect()
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
                facts.notice.as_deref(),
                &kept.wanted.placement,
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
    let name = pool.name_any();
    let why = |placement: &Placement| {
        let Some(kept) = find(&pools, &name, &placement.name) else {
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
    if let Some(kept) = find(&pools, pool, placement) {
        kept.facts.send_if_modified(|facts| {
            let changed = facts.shut != closed;
            facts.shut = closed;
            changed
        });
    }
}

/// Why a placement takes no pods, and what else there is to know of it.
fn message(
    closed: Option<&Closed>,
    unknown: Option<&str>,
    placement: &Placement,
    daemon_sets: &[String],
) -> String {
    let first = match closed {
        Some(closed) => closed.message.clone(),
        None => status::notice(placement).to_owned(),
    };
    let unknown = unknown.unwrap_or_default().to_owned();
    let told = [first, unknown, daemon::note(daemon_sets)];
    let told: Vec<String> = told.into_iter().filter(|text| !text.is_empty()).collect();
    told.join("; ")
}

/// Closes placements' nodes for good.
pub async fn drain(pool: &str, placements: &[String], context: &Context) {
    let pools = context.pools.lock().await;
    let kept = pools
        .get(pool)
        .into_iter()
        .flat_map(|kept| &kept.placements);
    for (_, kept) in kept.filter(|(name, _)| placements.contains(name)) {
        kept.drain();
    }
}

/// How many groups a placement has; nothing if nobody knows.
pub async fn count(pool: &str, placement: &str, context: &Context) -> Option<usize> {
    // Azure may take a minute to answer, and what is kept is looked at for every pool meanwhile.
    let (pods, counts) = {
        let pools = context.pools.lock().await;
        let kept = find(&pools, pool, placement)?;
        (kept.pods.clone(), kept.counts.clone())
    };
    let mut counts = counts.lock().await;
    if let Look::Say(groups) = counts.look(pods.groups(), Instant::now()) {
        return groups;
    }
    let counted = pods.count().await;
    counts.counted(counted, pods.groups(), Instant::now());
    counted
}

/// What is known of evictions of a placement's pods, if it is kept.
pub async fn evictions(
    pool: &str,
    placement: &str,
    context: &Context,
) -> Option<Arc<Mutex<Evictions>>> {
    let pools = context.pools.lock().await;
    Some(find(&pools, pool, placement)?.evictions.clone())
}

/// How soon a pool's drain goes on, of which that is left.
pub async fn drain_again(pool: &str, left: &[String], context: &Context) -> Duration {
    let mut pools = context.pools.lock().await;
    let kept = pools.get_mut(pool);
    kept.map_or(pace::LONGEST, |kept| kept.again.after(left, Instant::now()))
}

/// Whether somebody asks again for a placement that was to be drained: a pool of that name was made anew.
pub async fn is_back(pool: &str, placement: &str, context: &Context) -> bool {
    let pools = context.pools.lock().await;
    find(&pools, pool, placement).is_some_and(|kept| !kept.is_draining())
}

/// Removes the node of a placement that drains. Its pods are kept on: one may have been bound until then. A
/// node that is still there is kept registered, until the next time.
pub async fn unregister(pool: &str, placement: &str, context: &Context) -> Result<(), kube::Error> {
    let registration = {
        let pools = context.pools.lock().await;
        let kept = find(&pools, pool, placement);
        if kept.is_some_and(|kept| !kept.is_draining()) {
            // Somebody asks for it again.
            return Ok(());
        }
        kept.map(|kept| kept.registration.clone())
    };
    if let Some(registration) = registration {
        registration.end().await;
    }
    let removed = register::remove(&context.client, &object::name(pool, placement)).await;
    if removed.is_err() {
        let mut pools = context.pools.lock().await;
        let kept = pools.get_mut(pool);
        let kept = kept.and_then(|kept| kept.placements.get_mut(placement));
        if let Some(kept) = kept.filter(|kept| kept.is_draining()) {
            kept.register(&context.client);
        }
    }
    removed
}

/// Ends what is kept of placements whose nodes are removed and of which nothing is left.
pub async fn end(pool: &str, placements: &[String], context: &Context) {
    let mut pools = context.pools.lock().await;
    let Some(running) = pools.get_mut(pool) else {
        return;
    };
    let is_over = |name: &String, kept: &mut Kept| kept.is_draining() && placements.contains(name);
    let over = running.placements.extract_if(.., is_over);
    let over: Vec<Kept> = over.map(|(_, kept)| kept).collect();
    if running.placements.is_empty() {
        pools.remove(pool);
    }
    drop(pools);
    stop(over).await;
}

#[cfg(test)]
mod tests;
