//! The grant loop: for every pool it makes a plan from the watched objects, and executes it.
//!
//! In: the cluster cache, the targets' scales, the volumes behind claims, the neighbors of pending pods, and the
//! results of creates in Azure. Out: grants, and for each pool a [`PlanSummary`] for its status.
//!
//! `burst` makes all decisions. A new leader first claims each pool and counts its pods, and grants only then
//! (decision D1a). Pools are executed independently: while calls for a pool are slow, the loop makes no new
//! plan for it, and no other pool waits. Only grants ([`in_flight`]) stay in flight while the next plans are
//! made.
//!
//! ```text
//! ClusterCache ─▶ Snapshot ─┐
//! scales, claims, neighbors ┼─▶ planning ─▶ burst::plan ─▶ executor ─▶ in_flight ─▶ API server
//! pods on virtual nodes ────┘                  │                                        │
//!                                              ├─▶ events         LeaderState, cache ◀─┘ answers
//!                                              └─▶ PlanSummary ─▶ controller::status
//! ```
//!
//! | module | what it does |
//! | --- | --- |
//! | [`planning`] | gathers the inputs of a pool's plan and makes the plan |
//! | [`leadership`] | keeps the state of a pool's leadership term |
//! | [`executor`] | executes a plan: claims, counts, reserves, grants |
//! | [`in_flight`] | sends grants while the next plans are made |
//! | [`rescue`] | deletes or evicts pods that never started |
//! | [`patches`] | builds the JSON Patches to pods |
//! | [`events`] | publishes Events about plans and grants |

mod events;
mod executor;
#[cfg(test)]
mod fixtures;
mod in_flight;
mod leadership;
mod patches;
pub(crate) mod planning;
mod rescue;

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

use super::ControllerContext;
use super::cache::claims::ClaimCache;
pub use super::cache::cluster::ClusterCache;
use super::cache::cluster::Snapshot;
use super::cache::neighbors::NeighborCache;
use super::cache::scales::ScaleCache;
use super::placements::registry;
use crate::api::{BurstPool, PodCounts, WorkloadStatus};
use crate::burst::outcome::{IgnoreReason, PodOutcome};
use crate::burst::plan::PeakState;
use crate::burst::{BurstPlan, EligibilityCache, Leadership, PlacementAvailability};
use crate::node::node_object::Unavailable;
use events::EventPublisher;
use executor::Executor;
use in_flight::GrantSender;
use leadership::{PoolLeaderState, TermCounter};
use planning::{PlanInputs, PlannedPool};

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
    pub limit_message: Option<String>,
    /// In dry-run mode, the number of pods that would be granted now; otherwise 0.
    pub would_be_granted: usize,
}

/// By pool name, the summary of its last plan.
pub type PlanSummaries = BTreeMap<String, PlanSummary>;

/// The result of executing a pool's plan.
struct ExecutionResult {
    pool_name: String,
    state: PoolLeaderState,
    plan: BurstPlan,
    snapshot: Arc<Snapshot>,
    /// Whether the loop must plan again at once.
    must_replan: bool,
}

/// Plans and executes until `cancel` is cancelled. Returns after all tasks that it started have ended.
pub async fn run(context: Arc<ControllerContext>, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    let (event_publisher, write_events) =
        EventPublisher::new(context.client.clone(), &context.identity);
    let cache = context.cache.clone();
    let scales = ScaleCache::new(
        context.client.clone(),
        cache.changed.clone(),
        cancel.child_token(),
    );
    let claims = ClaimCache::new(
        context.client.clone(),
        cache.changed.clone(),
        cancel.child_token(),
    );
    let neighbors = NeighborCache::new(
        context.client.clone(),
        cache.changed.clone(),
        cancel.child_token(),
    );
    let term_counter = TermCounter {
        instance: context.identity.clone(),
        terms_begun: 0,
        clock: cache.clock.clone(),
    };
    let mut grant_loop = GrantLoop {
        context,
        grant_sender: GrantSender {
            tasks: tasks.clone(),
            cancel: cancel.clone(),
            notifier: event_publisher.granted_notifier(),
        },
        scales,
        claims,
        neighbors,
        event_publisher,
        eligibility: EligibilityCache::default(),
        pools: HashMap::new(),
        executions: FuturesUnordered::new(),
        executing: HashMap::new(),
        term_counter,
        summaries: PlanSummaries::new(),
    };
    let plan_and_execute = async {
        cache.wait_until_synced().await;
        grant_loop.run_loop().await;
    };
    tokio::select! {
        () = plan_and_execute => {}
        () = write_events => {}
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
    neighbors: NeighborCache,
    event_publisher: EventPublisher,
    eligibility: EligibilityCache,
    pools: HashMap<String, PoolLeaderState>,
    executions: FuturesUnordered<LocalBoxFuture<'static, ExecutionResult>>,
    /// By name, the pools whose plan is being executed, and whether anything changed since it was made.
    executing: HashMap<String, bool>,
    term_counter: TermCounter,
    summaries: PlanSummaries,
}

impl GrantLoop {
    async fn run_loop(&mut self) {
        let changed = self.context.cache.changed.clone();
        loop {
            let began = Instant::now();
            let replan_at = self.plan_pools().await;
            let next = async {
                tokio::time::sleep_until(began + MIN_PLAN_INTERVAL).await;
                tokio::select! {
                    () = changed.notified() => {}
                    () = tokio::time::sleep_until(replan_at) => {}
                }
            };
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    Some(result) = self.executions.next() => self.finish_execution(result),
                }
            }
        }
    }

    /// Plans for every pool that has no plan in execution, and starts executing. Returns when to plan again if
    /// nothing changes.
    async fn plan_pools(&mut self) -> Instant {
        let snapshot = Arc::new(self.context.cache.snapshot());
        self.scales
            .update_watches(&snapshot, &self.grant_sender.tasks);
        self.claims.refresh(&snapshot, &self.grant_sender.tasks);
        self.neighbors
            .update_watches(&snapshot, &self.grant_sender.tasks);
        let inputs = PlanInputs {
            scales: self.scales.scales(),
            claims: self.claims.claims(),
            neighbors: self.neighbors.neighbors(),
            on_pool_nodes: registry::pods_on_pool_nodes(&self.context).await,
            snapshot: snapshot.clone(),
        };
        let waiting: HashSet<&str> = snapshot.waiting.keys().map(String::as_str).collect();
        self.eligibility.retain(&waiting);
        self.pools.retain(|name, state| {
            state.in_flight.drain_results(&mut state.leader_state);
            snapshot.pools.contains_key(name) || !state.in_flight.is_idle()
        });
        self.event_publisher
            .retain_pools(|name| snapshot.pools.contains_key(name));
        self.event_publisher.retain_pods(|uid| {
            snapshot.waiting.contains_key(uid) || snapshot.labelled.contains_key(uid)
        });
        // Skip pools that cannot be read: only their last readable version is known, and it must not lead to
        // further grants.
        let is_plannable = |pool: &BurstPool| {
            pool.metadata.deletion_timestamp.is_none()
                && !snapshot.unreadable.contains(&pool.name_any())
        };
        let mut replan_at = Instant::now() + RESYNC_INTERVAL;
        for (name, pool) in snapshot.pools.iter().filter(|(_, pool)| is_plannable(pool)) {
            if let Some(changed) = self.executing.get_mut(name) {
                *changed = true;
            } else {
                replan_at = replan_at.min(self.plan_pool(&inputs, pool).await);
            }
        }
        self.summaries.retain(|name, _| {
            snapshot
                .pools
                .get(name)
                .is_some_and(|pool| is_plannable(pool))
        });
        self.context.plan_summaries.send_if_modified(|published| {
            let changed = *published != self.summaries;
            published.clone_from(&self.summaries);
            changed
        });
        replan_at
    }

    /// Plans for one pool, and starts executing. Returns when to plan again if nothing changes.
    async fn plan_pool(&mut self, inputs: &PlanInputs, pool: &Arc<BurstPool>) -> Instant {
        let name = pool.name_any();
        // Grants that were reserved for another pool of this name, or in an earlier term, must be answered first.
        let mut previous = self.pools.remove(&name);
        if let Some(waiting) = previous.take_if(|previous| !previous.drain_results(pool)) {
            self.pools.insert(name, waiting);
            return Instant::now() + RESYNC_INTERVAL;
        }
        let previous = previous.filter(|previous| previous.uid == pool.uid());
        let mut state =
            previous.unwrap_or_else(|| PoolLeaderState::new(pool, &mut self.term_counter));
        let leader = leadership::leader(pool);
        let leadership = state.update_leadership(leader, &name, &mut self.term_counter);
        let clock = self.context.cache.clock.clone();
        // Failing and succeeding creates close and open placements.
        for (placement, result) in registry::take_create_results(&name, &self.context).await {
            let health = state.leader_state.placement_health_mut(&placement);
            let at = clock.of_machine(result.at);
            match result.class {
                None => health.record_success(at),
                Some(class) => health.record_failure(class, &result.message, at),
            }
        }
        let placements = &pool.spec.placements;
        let is_listed = |name: &str| placements.iter().any(|placement| placement.name == name);
        state.leader_state.retain_backends(is_listed);
        let unavailable = registry::unavailable_placements(pool, &self.context).await;
        let placement_facts = planning::placement_facts(&inputs.snapshot, pool, &unavailable);
        let bound = inputs.on_pool_nodes.get(&name).into_iter().flatten();
        let plan_time = clock.steady();
        let planned_pool = PlannedPool {
            placements: &placement_facts,
            bound: bound.map(Arc::as_ref).collect(),
            leadership,
            leader_state: &state.leader_state,
            is_triggered: self.context.triggers.is_any_active(&name),
            identity: &state.identity,
            ahead: clock.ahead(),
        };
        let host_settings = planning::HostSettings {
            node_address: Some(self.context.node_address.as_str()),
            identities: &self.context.identity_namespaces,
        };
        // The plan's times come from the steady clock; the time of the next plan is one of this process.
        let eligibility = &mut self.eligibility;
        let now = Instant::now();
        let plan = planning::plan(
            eligibility,
            inputs,
            pool,
            &planned_pool,
            &host_settings,
            plan_time,
        );
        let replan_at = now
            + plan
                .replan_after
                .unwrap_or(RESYNC_INTERVAL)
                .min(RESYNC_INTERVAL);
        // Volumes that the plan could not evaluate are read now, for the next plan.
        self.claims.read_due(
            unread_claims(&plan, &inputs.snapshot),
            &self.grant_sender.tasks,
        );
        // A placement that the plan closes shows the cause on its node and in the pool's status.
        for (placement, availability) in &plan.availability {
            registry::set_creates_failing(
                &name,
                placement,
                creates_failing(availability),
                &self.context,
            )
            .await;
        }
        // Before it leads, an instance does not know all of the pool's pods, so its counts would be wrong.
        if leadership == Leadership::Leading {
            self.summaries.insert(name.clone(), summarize(&plan));
        }
        let executor = Executor {
            context: self.context.clone(),
            snapshot: inputs.snapshot.clone(),
            pool: pool.clone(),
            pool_name: name.clone(),
            grant_sender: self.grant_sender.clone(),
        };
        // The execution runs beside those of other pools, so that slow calls for one pool delay no other.
        self.executing.insert(name, false);
        self.executions.push(Box::pin(async move {
            let must_replan = executor.execute(&plan, &mut state).await;
            let Executor {
                pool_name,
                snapshot,
                ..
            } = executor;
            ExecutionResult {
                pool_name,
                state,
                plan,
                snapshot,
                must_replan,
            }
        }));
        replan_at
    }

    /// Records the result of executing a pool's plan.
    fn finish_execution(&mut self, result: ExecutionResult) {
        let ExecutionResult {
            pool_name: name,
            mut state,
            plan,
            snapshot,
            must_replan,
        } = result;
        self.event_publisher.publish_plan(&plan);
        if let Some(pool) = snapshot.pools.get(&name) {
            self.event_publisher.publish_pool_changes(pool, &plan);
        }
        let waiting: HashSet<&str> = snapshot.waiting.keys().map(String::as_str).collect();
        let now = self.context.cache.clock.steady();
        state
            .leader_state
            .record_plan(&plan.record(), &waiting, now);
        let changed = self.executing.remove(&name);
        self.pools.insert(name, state);
        if must_replan || changed == Some(true) {
            self.context.cache.changed.notify_one();
        }
    }
}

/// The claims (namespace, name) of pending pods that the plan has not evaluated yet; their volumes may have to
/// be read.
fn unread_claims(plan: &BurstPlan, snapshot: &Snapshot) -> Vec<(String, String)> {
    let not_evaluated = PodOutcome::Ignore(IgnoreReason::NotEvaluated);
    let decisions = plan.decisions.iter();
    let pods = decisions.filter(|decision| decision.outcome == not_evaluated);
    let pods = pods.filter_map(|decision| snapshot.waiting.get(&decision.pod.uid));
    pods.flat_map(|pod| {
        let claims = pod.facts.claims.iter();
        claims.map(|(_, name)| (pod.facts.id.namespace.clone(), name.clone()))
    })
    .collect()
}

fn summarize(plan: &BurstPlan) -> PlanSummary {
    PlanSummary {
        counts: plan.counts,
        workloads: plan.workloads.clone(),
        peak: plan.peak,
        is_dry_run: plan.is_dry_run,
        limit_message: plan.limit_message.clone(),
        would_be_granted: if plan.is_dry_run {
            plan.grants().count()
        } else {
            0
        },
    }
}

/// The cause, if failing creates close a placement; `None` if they do not.
fn creates_failing(availability: &PlacementAvailability) -> Option<Unavailable> {
    match availability {
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
