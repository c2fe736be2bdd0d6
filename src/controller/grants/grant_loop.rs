//! The loop that plans for the pools again after every change, and starts executing the plans.
//!
//! In: notifications of the cluster cache, and the results of executions. Out: executions of plans, which run
//! beside each other; summaries of plans; and what plans say about placements, on their nodes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use kube::ResourceExt as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use super::GrantParts;
use super::Snapshot;
use super::events::EventPublisher;
use super::executor::Executor;
use super::in_flight::GrantSender;
use super::leadership::{self, PoolLeaderState, TermCounter};
use super::planning::{self, PlanInputs, PlannedPool};
use super::summary::{PlanSummaries, PlanSummary};
use crate::api::BurstPool;
use crate::burst::outcome::{IgnoreReason, PodOutcome};
use crate::burst::{BurstPlan, EligibilityCache, Leadership, PlacementAvailability};
use crate::controller::cache::claims::ClaimCache;
use crate::controller::cache::neighbors::NeighborCache;
use crate::controller::cache::scales::ScaleCache;
use crate::controller::placements::PlacementId;
use crate::node::node_object::Unavailable;

/// The shortest interval between two rounds of plans. Changes come in bursts, and a plan of thousands of pods
/// takes some milliseconds.
const MIN_PLAN_INTERVAL: Duration = Duration::from_millis(50);
/// The longest interval between two plans of a pool if nothing changes.
const RESYNC_INTERVAL: Duration = Duration::from_secs(30);

/// The result of executing a pool's plan.
struct ExecutionResult {
    pool_name: String,
    state: PoolLeaderState,
    plan: BurstPlan,
    snapshot: Arc<Snapshot>,
    /// Whether the loop must plan again at once.
    must_replan: bool,
}

/// The state of the loop.
pub(super) struct GrantLoop {
    parts: GrantParts,
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
    /// A loop that has planned nothing yet. Its tasks are `tasks`, and end after `cancel`.
    pub fn new(
        parts: GrantParts,
        event_publisher: EventPublisher,
        tasks: TaskTracker,
        cancel: &CancellationToken,
    ) -> Self {
        let (client, cache) = (&parts.client, &parts.executor.cache);
        let changed = &cache.changed;
        let term_counter = TermCounter {
            instance: parts.executor.identity.clone(),
            terms_begun: 0,
            clock: cache.clock.clone(),
        };
        Self {
            grant_sender: GrantSender {
                tasks,
                cancel: cancel.clone(),
                notifier: event_publisher.result_notifier(),
            },
            scales: ScaleCache::new(client.clone(), changed.clone(), cancel.child_token()),
            claims: ClaimCache::new(client.clone(), changed.clone(), cancel.child_token()),
            neighbors: NeighborCache::new(client.clone(), changed.clone(), cancel.child_token()),
            event_publisher,
            eligibility: EligibilityCache::default(),
            pools: HashMap::new(),
            executions: FuturesUnordered::new(),
            executing: HashMap::new(),
            term_counter,
            summaries: PlanSummaries::new(),
            parts,
        }
    }

    /// Plans and executes, for as long as this future is polled.
    pub async fn run(&mut self) {
        let changed = self.parts.executor.cache.changed.clone();
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
        let inputs = self.gather_inputs().await;
        let snapshot = &inputs.snapshot;
        self.forget_removed(snapshot);
        let mut replan_at = Instant::now() + RESYNC_INTERVAL;
        for (name, pool) in &snapshot.pools {
            if !is_plannable(pool, snapshot) {
                continue;
            }
            if let Some(changed) = self.executing.get_mut(name) {
                *changed = true;
            } else {
                replan_at = replan_at.min(self.plan_pool(&inputs, pool).await);
            }
        }
        self.publish_summaries(snapshot);
        replan_at
    }

    /// Reads what all pools' plans are made from, and starts the watches and reads that the pending pods need.
    async fn gather_inputs(&mut self) -> PlanInputs {
        let snapshot = Arc::new(self.parts.executor.cache.snapshot());
        let tasks = &self.grant_sender.tasks;
        self.scales.update_watches(&snapshot, tasks);
        self.claims.refresh(&snapshot, tasks);
        self.neighbors.update_watches(&snapshot, tasks);
        PlanInputs {
            scales: self.scales.scales(),
            claims: self.claims.claims(),
            neighbors: self.neighbors.neighbors(),
            on_pool_nodes: self.parts.registry.pods_on_pool_nodes().await,
            snapshot,
        }
    }

    /// Forgets pods and pools that are not in the snapshot.
    fn forget_removed(&mut self, snapshot: &Snapshot) {
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
    }

    /// Publishes the summaries of the pools that are planned, if any has changed.
    fn publish_summaries(&mut self, snapshot: &Snapshot) {
        self.summaries.retain(|name, _| {
            let pool = snapshot.pools.get(name);
            pool.is_some_and(|pool| is_plannable(pool, snapshot))
        });
        self.parts.summaries.send_if_modified(|published| {
            let changed = *published != self.summaries;
            published.clone_from(&self.summaries);
            changed
        });
    }

    /// Plans for one pool, and starts executing. Returns when to plan again if nothing changes.
    async fn plan_pool(&mut self, inputs: &PlanInputs, pool: &Arc<BurstPool>) -> Instant {
        let name = pool.name_any();
        let Some(mut state) = self.take_state(pool) else {
            return Instant::now() + RESYNC_INTERVAL;
        };
        let leader = leadership::leader(pool);
        let leadership = state.update_leadership(leader, &name, &mut self.term_counter);
        self.record_create_results(pool, &mut state).await;
        let (plan, replan_at) = self.make_plan(inputs, pool, &state, leadership).await;
        // Volumes that the plan could not evaluate are read now, for the next plan.
        let unread = unread_claims(&plan, &inputs.snapshot);
        self.claims.read_due(unread, &self.grant_sender.tasks);
        // A placement that the plan closes shows the cause on its node and in the pool's status.
        for (placement, availability) in &plan.availability {
            let id = PlacementId::new(&name, placement);
            let closed = creates_failing(availability);
            self.parts.registry.set_creates_failing(&id, closed).await;
        }
        // Before it leads, an instance does not know all of the pool's pods, so its counts would be wrong.
        if leadership == Leadership::Leading {
            let summary = PlanSummary::from_plan(&plan);
            self.summaries.insert(name, summary);
        }
        self.start_execution(inputs, pool, plan, state);
        replan_at
    }

    /// Takes the pool's state out of the loop; a new one if the pool is new. `None` while grants are in flight
    /// that were reserved for another pool of this name, or in an earlier term: they must be answered first.
    fn take_state(&mut self, pool: &BurstPool) -> Option<PoolLeaderState> {
        let name = pool.name_any();
        let mut previous = self.pools.remove(&name);
        if let Some(waiting) = previous.take_if(|previous| !previous.drain_results(pool)) {
            self.pools.insert(name, waiting);
            return None;
        }
        let previous = previous.filter(|previous| previous.uid == pool.uid());
        Some(previous.unwrap_or_else(|| PoolLeaderState::new(pool, &mut self.term_counter)))
    }

    /// Records the results of creates in Azure: failing and succeeding creates close and open placements.
    async fn record_create_results(&self, pool: &BurstPool, state: &mut PoolLeaderState) {
        let clock = &self.parts.executor.cache.clock;
        let name = pool.name_any();
        for (placement, result) in self.parts.registry.take_create_results(&name).await {
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
    }

    /// Makes the pool's plan. Returns it, and when to plan again if nothing changes.
    async fn make_plan(
        &mut self,
        inputs: &PlanInputs,
        pool: &BurstPool,
        state: &PoolLeaderState,
        leadership: Leadership,
    ) -> (BurstPlan, Instant) {
        let name = pool.name_any();
        let unavailable = self.parts.registry.unavailable_placements(pool).await;
        let placement_facts = planning::placement_facts(&inputs.snapshot, pool, &unavailable);
        let bound = inputs.on_pool_nodes.get(&name).into_iter().flatten();
        let clock = &self.parts.executor.cache.clock;
        let plan_time = clock.steady();
        let planned_pool = PlannedPool {
            placements: &placement_facts,
            bound: bound.map(Arc::as_ref).collect(),
            leadership,
            leader_state: &state.leader_state,
            is_triggered: self.parts.triggers.is_any_active(&name),
            identity: &state.identity,
            ahead: clock.ahead(),
        };
        let host_settings = planning::HostSettings {
            node_address: Some(self.parts.node_address.as_str()),
            identities: &self.parts.identity_namespaces,
        };
        // The plan's times come from the steady clock; the time of the next plan is one of this process.
        let now = Instant::now();
        let plan = planning::plan(
            &mut self.eligibility,
            inputs,
            pool,
            &planned_pool,
            &host_settings,
            plan_time,
        );
        let replan_after = plan.replan_after.unwrap_or(RESYNC_INTERVAL);
        (plan, now + replan_after.min(RESYNC_INTERVAL))
    }

    /// Starts executing a plan. The execution runs beside those of other pools, so that slow calls for one pool
    /// delay no other.
    fn start_execution(
        &mut self,
        inputs: &PlanInputs,
        pool: &Arc<BurstPool>,
        plan: BurstPlan,
        mut state: PoolLeaderState,
    ) {
        let executor = Executor {
            parts: self.parts.executor.clone(),
            snapshot: inputs.snapshot.clone(),
            pool: pool.clone(),
            pool_name: pool.name_any(),
            grant_sender: self.grant_sender.clone(),
        };
        self.executing.insert(pool.name_any(), false);
        let span = tracing::error_span!("grants", pool = executor.pool_name);
        let execution = async move {
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
        };
        self.executions.push(Box::pin(execution.instrument(span)));
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
        let cache = &self.parts.executor.cache;
        let now = cache.clock.steady();
        state
            .leader_state
            .record_plan(&plan.record(), &waiting, now);
        let changed = self.executing.remove(&name);
        self.pools.insert(name, state);
        if must_replan || changed == Some(true) {
            cache.changed.notify_one();
        }
    }
}

/// Whether plans are made for the pool: it is not being deleted, and it can be read. Of a pool that cannot be
/// read, only the last readable version is known, and it must not lead to further grants.
fn is_plannable(pool: &BurstPool, snapshot: &Snapshot) -> bool {
    pool.metadata.deletion_timestamp.is_none() && !snapshot.unreadable.contains(&pool.name_any())
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
