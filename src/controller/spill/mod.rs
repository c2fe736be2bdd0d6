//! The loop that grants: for every pool it makes a plan from what is watched, and executes it.
//!
//! In: `stores`, the targets' `scales`, the volumes behind `claims`, `neighbors`, and the results of creates in
//! Azure. Out: grants, and for each pool a [`PlanSummary`] for its status.
//!
//! `burst` makes all decisions. A new leader first claims each pool and counts its pods, and grants only then
//! (decision D1a). Pools are executed independently: while calls for a pool are slow, the loop makes no new
//! plan for it, and no other pool waits. Only grants (`granting`) stay in flight while the next plans are made.
//!
//! ```text
//! stores ─▶ View ┐
//! scales ────────┼─▶ burst::observe ─▶ burst::plan ─▶ act ─▶ granting ─▶ API server ─▶ answers ─▶ Memory, stores
//! node::pods ────┘                         ├─▶ tell ─▶ Events
//!                                          └─▶ Summary ─▶ controller::status
//! ```

mod act;
mod claims;
mod decide;
mod explain;
#[cfg(test)]
mod fixtures;
mod grant;
mod granting;
mod neighbors;
mod rescue;
pub(super) mod scales;
mod stores;
mod tell;
mod term;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use kube::ResourceExt as _;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{ControllerContext, pool};
use crate::api::{BurstPool, PodCounts, WorkloadStatus};
use crate::burst::outcome::{IgnoreReason, PodOutcome};
use crate::burst::plan::PeakState;
use crate::burst::{BurstPlan, EligibilityCache, Leadership, PlacementAvailability};
use crate::node::object::Unavailable;
use act::Executor;
use claims::ClaimCache;
use decide::{PlanInputs, PlannedPool};
pub use explain::{ExplainQuery, explain};
use granting::GrantSender;
use neighbors::Watched;
use scales::ScaleCache;
pub use stores::ClusterCache;
use stores::Snapshot;
use tell::EventPublisher;
use term::{PoolLeaderState, TermCounter};

/// The shortest interval between two rounds of plans. Changes come in bursts, and a plan of thousands of pods
/// takes some milliseconds.
const MIN_PLAN_INTERVAL: Duration = Duration::from_millis(50);
/// The longest interval between two plans of a pool if nothing changes.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// What a pool's status reports of its last plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanSummary {
    /// The number of pods in each state.
    pub counts: PodCounts,
    /// The pods of each workload.
    pub workloads: Vec<WorkloadStatus>,
    /// Whether there is a peak.
    pub peak: PeakState,
    /// Whether the pool is in dry-run mode, in which the operator writes nothing to pods.
    pub is_dry_run: bool,
    /// The limit that keeps pods from being granted, as text; `None` if no limit does.
    pub limited: Option<String>,
    /// In dry-run mode, the number of pods that would be granted now; otherwise 0.
    pub would_be_granted: usize,
}

/// By pool name, the summary of its last plan.
pub type PlanSummaries = BTreeMap<String, PlanSummary>;

/// The result of executing a pool's plan.
struct ExecutionResult {
    name: String,
    state: PoolLeaderState,
    plan: BurstPlan,
    view: Arc<Snapshot>,
    /// Whether the loop must plan again at once.
    must_replan: bool,
}

/// Plans and executes until `cancel`.
pub async fn run(context: Arc<ControllerContext>, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    let (teller, telling) = EventPublisher::new(context.client.clone(), &context.identity);
    let stores = context.stores.clone();
    let scales = ScaleCache::new(
        context.client.clone(),
        stores.changed.clone(),
        cancel.child_token(),
    );
    let claims = ClaimCache::new(
        context.client.clone(),
        stores.changed.clone(),
        cancel.child_token(),
    );
    let neighbors = Watched::new(
        context.client.clone(),
        stores.changed.clone(),
        cancel.child_token(),
    );
    let terms = TermCounter {
        instance: context.identity.clone(),
        terms_begun: 0,
        clock: stores.clock.clone(),
    };
    let mut spill = GrantLoop {
        context,
        grant_sender: GrantSender {
            tasks: tasks.clone(),
            cancel: cancel.clone(),
            granted: teller.granted(),
        },
        scales,
        claims,
        neighbors,
        event_publisher: teller,
        verdicts: EligibilityCache::default(),
        pools: HashMap::new(),
        executions: FuturesUnordered::new(),
        executing: HashMap::new(),
        terms,
        summaries: PlanSummaries::new(),
    };
    let work = async {
        stores.wait_until_ready().await;
        spill.run_loop().await;
    };
    tokio::select! {
        () = work => {}
        () = telling => {}
        () = cancel.cancelled() => {}
    }
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
}

struct GrantLoop {
    context: Arc<ControllerContext>,
    grant_sender: GrantSender,
    scales: ScaleCache,
    claims: ClaimCache,
    neighbors: Watched,
    event_publisher: EventPublisher,
    verdicts: EligibilityCache,
    pools: HashMap<String, PoolLeaderState>,
    executions: FuturesUnordered<LocalBoxFuture<'static, ExecutionResult>>,
    /// Pools whose plan is being executed, and whether anything changed since it was made.
    executing: HashMap<String, bool>,
    terms: TermCounter,
    summaries: PlanSummaries,
}

impl GrantLoop {
    async fn run_loop(&mut self) {
        let changed = self.context.stores.changed.clone();
        loop {
            let began = Instant::now();
            let again = self.plan_pools().await;
            let next = async {
                tokio::time::sleep_until(began + MIN_PLAN_INTERVAL).await;
                tokio::select! {
                    () = changed.notified() => {}
                    () = tokio::time::sleep_until(again) => {}
                }
            };
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    Some(acted) = self.executions.next() => self.finish_execution(acted),
                }
            }
        }
    }

    /// Plans for every pool that has no plan in execution, and starts executing. Returns when to plan again if
    /// nothing changes.
    async fn plan_pools(&mut self) -> Instant {
        let view = Arc::new(self.context.stores.view());
        self.scales.update_watches(&view, &self.grant_sender.tasks);
        self.claims.refresh(&view, &self.grant_sender.tasks);
        self.neighbors.follow(&view, &self.grant_sender.tasks);
        let seen = PlanInputs {
            scales: self.scales.scales(),
            claims: self.claims.claims(),
            neighbors: self.neighbors.neighbors(),
            placed: pool::pods(&self.context).await,
            view: view.clone(),
        };
        let waiting: HashSet<&str> = view.waiting.keys().map(String::as_str).collect();
        self.verdicts.retain(&waiting);
        self.pools.retain(|name, state| {
            state.in_flight.drain_results(&mut state.leader_state);
            view.pools.contains_key(name) || !state.in_flight.is_done()
        });
        self.event_publisher
            .retain_pools(|name| view.pools.contains_key(name));
        self.event_publisher
            .retain(|uid| view.waiting.contains_key(uid) || view.labelled.contains_key(uid));
        // Skip pools that cannot be read: only their last readable version is known, and nothing more is
        // granted by that.
        let is_there = |pool: &BurstPool| {
            pool.metadata.deletion_timestamp.is_none()
                && !view.unreadable.contains(&pool.name_any())
        };
        let mut again = Instant::now() + RESYNC_INTERVAL;
        for (name, pool) in view.pools.iter().filter(|(_, pool)| is_there(pool)) {
            if let Some(changed) = self.executing.get_mut(name) {
                *changed = true;
            } else {
                again = again.min(self.plan_pool(&seen, pool).await);
            }
        }
        self.summaries
            .retain(|name, _| view.pools.get(name).is_some_and(|pool| is_there(pool)));
        self.context.summaries.send_if_modified(|known| {
            let changed = *known != self.summaries;
            known.clone_from(&self.summaries);
            changed
        });
        again
    }

    /// Plans for one pool, and starts executing. Returns when to plan again if nothing changes.
    async fn plan_pool(&mut self, seen: &PlanInputs, pool: &Arc<BurstPool>) -> Instant {
        let name = pool.name_any();
        let mut known = self.pools.remove(&name);
        if let Some(waits) = known.take_if(|known| !known.drain_results(pool)) {
            self.pools.insert(name, waits);
            return Instant::now() + RESYNC_INTERVAL;
        }
        let known = known.filter(|known| known.uid == pool.uid());
        let mut state = known.unwrap_or_else(|| PoolLeaderState::of(pool, &mut self.terms));
        let leader = term::leader(pool);
        let standing = state.update_leadership(leader, &name, &mut self.terms);
        let clock = self.context.stores.clock.clone();
        for (placement, ended) in pool::ended_creates(&name, &self.context).await {
            let backend = state.leader_state.placement_health_mut(&placement);
            let at = clock.of_machine(ended.at);
            match ended.class {
                None => backend.succeeded(at),
                Some(class) => backend.failed(class, &ended.message, at),
            }
        }
        let placements = &pool.spec.placements;
        let has = |name: &str| placements.iter().any(|placement| placement.name == name);
        state.leader_state.retain_backends(has);
        let regions = pool::closed_regions(pool, &self.context).await;
        let places = decide::placement_facts(&seen.view, pool, &regions);
        let bound = seen.placed.get(&name).into_iter().flatten();
        let time = clock.steady();
        let own = PlannedPool {
            placements: &places,
            bound: bound.map(Arc::as_ref).collect(),
            leadership: standing,
            leader_state: &state.leader_state,
            is_triggered: self.context.triggers.is_any_active(&name),
            identity: &state.identity,
            ahead: clock.ahead(),
        };
        let node = decide::HostSettings {
            address: Some(self.context.address.as_str()),
            identities: &self.context.identities,
        };
        let verdicts = &mut self.verdicts;
        let now = Instant::now();
        let plan = decide::plan(verdicts, seen, pool, &own, &node, time);
        let again = now
            + plan
                .replan_after
                .unwrap_or(RESYNC_INTERVAL)
                .min(RESYNC_INTERVAL);
        self.claims
            .read_due(unread_claims(&plan, &seen.view), &self.grant_sender.tasks);
        for (placement, door) in &plan.availability {
            pool::set_creates_failing(&name, placement, closed(door), &self.context).await;
        }
        if standing == Leadership::Leading {
            self.summaries.insert(name.clone(), summary(&plan));
        }
        let act = Executor {
            context: self.context.clone(),
            view: seen.view.clone(),
            pool: pool.clone(),
            name: name.clone(),
            grant_sender: self.grant_sender.clone(),
        };
        self.executing.insert(name, false);
        self.executions.push(Box::pin(async move {
            let again = act.execute(&plan, &mut state).await;
            let Executor { name, view, .. } = act;
            ExecutionResult {
                name,
                state,
                plan,
                view,
                must_replan: again,
            }
        }));
        again
    }

    /// Records the result of executing a pool's plan.
    fn finish_execution(&mut self, acted: ExecutionResult) {
        let ExecutionResult {
            name,
            mut state,
            plan,
            view,
            must_replan: again,
        } = acted;
        self.event_publisher.publish_plan(&plan);
        if let Some(pool) = view.pools.get(&name) {
            self.event_publisher.publish_pool_changes(pool, &plan);
        }
        let waiting: HashSet<&str> = view.waiting.keys().map(String::as_str).collect();
        let now = self.context.stores.clock.steady();
        state.leader_state.record_plan(&plan, &waiting, now);
        let changed = self.executing.remove(&name);
        self.pools.insert(name, state);
        if again || changed == Some(true) {
            self.context.stores.changed.notify_one();
        }
    }
}

/// The claims (namespace, name) of waiting pods that the plan has not evaluated yet; their volumes may have to
/// be read.
fn unread_claims(plan: &BurstPlan, view: &Snapshot) -> Vec<(String, String)> {
    let unjudged = PodOutcome::Ignore(IgnoreReason::NotEvaluated);
    let decisions = plan.decisions.iter();
    let pods = decisions.filter(|decision| decision.outcome == unjudged);
    let pods = pods.filter_map(|decision| view.waiting.get(&decision.pod.uid));
    pods.flat_map(|one| {
        let claims = one.facts.claims.iter();
        claims.map(|(_, name)| (one.facts.id.namespace.clone(), name.clone()))
    })
    .collect()
}

fn summary(plan: &BurstPlan) -> PlanSummary {
    PlanSummary {
        counts: plan.counts,
        workloads: plan.workloads.clone(),
        peak: plan.peak,
        is_dry_run: plan.is_dry_run,
        limited: plan.limited.clone(),
        would_be_granted: if plan.is_dry_run {
            plan.grants().count()
        } else {
            0
        },
    }
}

/// Why failing creates close a placement; `None` if they do not.
fn closed(door: &PlacementAvailability) -> Option<Unavailable> {
    match door {
        // The node or the region reports these causes; a cordon is the administrator's decision.
        PlacementAvailability::Open
        | PlacementAvailability::OneProbe
        | PlacementAvailability::Closed { until: None, .. } => None,
        PlacementAvailability::Closed { why, .. } => Some(Unavailable {
            reason: "CreatesFail".to_owned(),
            message: why.clone(),
        }),
    }
}

/// A channel of summaries: this loop sends, and the writer of statuses receives.
pub fn summaries() -> watch::Sender<PlanSummaries> {
    watch::Sender::new(PlanSummaries::new())
}
