//! The loop that grants: for every pool it makes a plan from what is watched, and executes it.
//!
//! In: `stores`, the targets' `scales`, the volumes behind `claims`, `neighbors`, and the results of creates in
//! Azure. Out: grants, and for each pool a [`Summary`] for its status.
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

use super::{Context, pool};
use crate::api::{BurstPool, PodCounts, WorkloadStatus};
use crate::burst::outcome::{Ignored, Outcome};
use crate::burst::plan::Peak;
use crate::burst::{Door, Plan, Standing, Verdicts};
use crate::node::object::Closed;
use act::Act;
use claims::Looked;
use decide::{Own, Seen};
pub use explain::{Question, explain};
use granting::Sending;
use neighbors::Watched;
use scales::Followed;
pub use stores::Stores;
use stores::View;
use tell::Teller;
use term::{Pool, Terms};

/// The shortest interval between two rounds of plans. Changes come in bursts, and a plan of thousands of pods
/// takes some milliseconds.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest interval between two plans of a pool if nothing changes.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What a pool's status reports of its last plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// The number of pods in each state.
    pub counts: PodCounts,
    /// The pods of each workload.
    pub workloads: Vec<WorkloadStatus>,
    /// Whether there is a peak.
    pub peak: Peak,
    /// Whether the pool is in dry-run mode, in which the operator writes nothing to pods.
    pub is_dry_run: bool,
    /// The limit that keeps pods from being granted, as text; `None` if no limit does.
    pub limited: Option<String>,
    /// In dry-run mode, the number of pods that would be granted now; otherwise 0.
    pub would_be_granted: usize,
}

/// By pool name, the summary of its last plan.
pub type Summaries = BTreeMap<String, Summary>;

/// The result of executing a pool's plan.
struct Acted {
    name: String,
    state: Pool,
    plan: Plan,
    view: Arc<View>,
    /// Whether the loop must plan again at once.
    again: bool,
}

/// Plans and executes until `cancel`.
pub async fn run(context: Arc<Context>, cancel: CancellationToken) {
    let tasks = TaskTracker::new();
    let (teller, telling) = Teller::new(context.client.clone(), &context.identity);
    let stores = context.stores.clone();
    let scales = Followed::new(
        context.client.clone(),
        stores.changed.clone(),
        cancel.child_token(),
    );
    let claims = Looked::new(
        context.client.clone(),
        stores.changed.clone(),
        cancel.child_token(),
    );
    let neighbors = Watched::new(
        context.client.clone(),
        stores.changed.clone(),
        cancel.child_token(),
    );
    let terms = Terms {
        instance: context.identity.clone(),
        begun: 0,
        clock: stores.clock.clone(),
    };
    let mut spill = Spill {
        context,
        sending: Sending {
            tasks: tasks.clone(),
            cancel: cancel.clone(),
            granted: teller.granted(),
        },
        scales,
        claims,
        neighbors,
        teller,
        verdicts: Verdicts::default(),
        pools: HashMap::new(),
        acting: FuturesUnordered::new(),
        busy: HashMap::new(),
        terms,
        summaries: Summaries::new(),
    };
    let work = async {
        stores.wait_until_ready().await;
        spill.work().await;
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

struct Spill {
    context: Arc<Context>,
    sending: Sending,
    scales: Followed,
    claims: Looked,
    neighbors: Watched,
    teller: Teller,
    verdicts: Verdicts,
    pools: HashMap<String, Pool>,
    acting: FuturesUnordered<LocalBoxFuture<'static, Acted>>,
    /// Pools whose plan is being executed, and whether anything changed since it was made.
    busy: HashMap<String, bool>,
    terms: Terms,
    summaries: Summaries,
}

impl Spill {
    async fn work(&mut self) {
        let changed = self.context.stores.changed.clone();
        loop {
            let began = Instant::now();
            let again = self.turn().await;
            let next = async {
                tokio::time::sleep_until(began + PAUSE).await;
                tokio::select! {
                    () = changed.notified() => {}
                    () = tokio::time::sleep_until(again) => {}
                }
            };
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    Some(acted) = self.acting.next() => self.finish(acted),
                }
            }
        }
    }

    /// Plans for every pool that has no plan in execution, and starts executing. Returns when to plan again if
    /// nothing changes.
    async fn turn(&mut self) -> Instant {
        let view = Arc::new(self.context.stores.view());
        self.scales.follow(&view, &self.sending.tasks);
        self.claims.follow(&view, &self.sending.tasks);
        self.neighbors.follow(&view, &self.sending.tasks);
        let seen = Seen {
            scales: self.scales.scales(),
            claims: self.claims.claims(),
            neighbors: self.neighbors.neighbors(),
            placed: pool::pods(&self.context).await,
            view: view.clone(),
        };
        let waiting: HashSet<&str> = view.waiting.keys().map(String::as_str).collect();
        self.verdicts.retain(&waiting);
        self.pools.retain(|name, state| {
            state.granting.hear(&mut state.memory);
            view.pools.contains_key(name) || !state.granting.is_done()
        });
        self.teller
            .retain_pools(|name| view.pools.contains_key(name));
        self.teller
            .retain(|uid| view.waiting.contains_key(uid) || view.labelled.contains_key(uid));
        // Skip pools that cannot be read: only their last readable version is known, and nothing more is
        // granted by that.
        let is_there = |pool: &BurstPool| {
            pool.metadata.deletion_timestamp.is_none()
                && !view.unreadable.contains(&pool.name_any())
        };
        let mut again = Instant::now() + LOOK_AGAIN;
        for (name, pool) in view.pools.iter().filter(|(_, pool)| is_there(pool)) {
            if let Some(changed) = self.busy.get_mut(name) {
                *changed = true;
            } else {
                again = again.min(self.one(&seen, pool).await);
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
    async fn one(&mut self, seen: &Seen, pool: &Arc<BurstPool>) -> Instant {
        let name = pool.name_any();
        let mut known = self.pools.remove(&name);
        if let Some(waits) = known.take_if(|known| !known.hear(pool)) {
            self.pools.insert(name, waits);
            return Instant::now() + LOOK_AGAIN;
        }
        let known = known.filter(|known| known.uid == pool.uid());
        let mut state = known.unwrap_or_else(|| Pool::of(pool, &mut self.terms));
        let leader = term::leader(pool);
        let standing = state.led_by(leader, &name, &mut self.terms);
        let clock = self.context.stores.clock.clone();
        for (placement, ended) in pool::ended_creates(&name, &self.context).await {
            let backend = state.memory.backend(&placement);
            let at = clock.of_machine(ended.at);
            match ended.class {
                None => backend.succeeded(at),
                Some(class) => backend.failed(class, &ended.message, at),
            }
        }
        let placements = &pool.spec.placements;
        let has = |name: &str| placements.iter().any(|placement| placement.name == name);
        state.memory.retain_backends(has);
        let regions = pool::closed_regions(pool, &self.context).await;
        let places = decide::places(&seen.view, pool, &regions);
        let bound = seen.placed.get(&name).into_iter().flatten();
        let time = clock.steady();
        let own = Own {
            places: &places,
            bound: bound.map(Arc::as_ref).collect(),
            standing,
            memory: &state.memory,
            is_triggered: self.context.triggers.is_any_active(&name),
            identity: &state.identity,
            ahead: clock.ahead(),
        };
        let node = decide::Host {
            address: Some(self.context.address.as_str()),
            identities: &self.context.identities,
        };
        let verdicts = &mut self.verdicts;
        let now = Instant::now();
        let plan = decide::plan(verdicts, seen, pool, &own, &node, time);
        let again = now + plan.look_again_in.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN);
        self.claims
            .look(unlooked(&plan, &seen.view), &self.sending.tasks);
        for (placement, door) in &plan.doors {
            pool::shut(&name, placement, closed(door), &self.context).await;
        }
        if standing == Standing::Leading {
            self.summaries.insert(name.clone(), summary(&plan));
        }
        let act = Act {
            context: self.context.clone(),
            view: seen.view.clone(),
            pool: pool.clone(),
            name: name.clone(),
            sending: self.sending.clone(),
        };
        self.busy.insert(name, false);
        self.acting.push(Box::pin(async move {
            let again = act.carry_out(&plan, &mut state).await;
            let Act { name, view, .. } = act;
            Acted {
                name,
                state,
                plan,
                view,
                again,
            }
        }));
        again
    }

    /// Records the result of executing a pool's plan.
    fn finish(&mut self, acted: Acted) {
        let Acted {
            name,
            mut state,
            plan,
            view,
            again,
        } = acted;
        self.teller.tell(&plan);
        if let Some(pool) = view.pools.get(&name) {
            self.teller.tell_of(pool, &plan);
        }
        let waiting: HashSet<&str> = view.waiting.keys().map(String::as_str).collect();
        let now = self.context.stores.clock.steady();
        state.memory.keep(&plan, &waiting, now);
        let changed = self.busy.remove(&name);
        self.pools.insert(name, state);
        if again || changed == Some(true) {
            self.context.stores.changed.notify_one();
        }
    }
}

/// The claims (namespace, name) of waiting pods that the plan has not evaluated yet; their volumes may have to
/// be read.
fn unlooked(plan: &Plan, view: &View) -> Vec<(String, String)> {
    let unjudged = Outcome::Ignore(Ignored::Unjudged);
    let decisions = plan.decisions.iter();
    let pods = decisions.filter(|decision| decision.outcome == unjudged);
    let pods = pods.filter_map(|decision| view.waiting.get(&decision.pod.uid));
    pods.flat_map(|one| {
        let claims = one.facts.claims.iter();
        claims.map(|(_, name)| (one.facts.id.namespace.clone(), name.clone()))
    })
    .collect()
}

fn summary(plan: &Plan) -> Summary {
    Summary {
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
fn closed(door: &Door) -> Option<Closed> {
    match door {
        // The node or the region reports these causes; a cordon is the administrator's decision.
        Door::Open | Door::HalfOpen | Door::Closed { until: None, .. } => None,
        Door::Closed { why, .. } => Some(Closed {
            reason: "CreatesFail".to_owned(),
            message: why.clone(),
        }),
    }
}

/// A channel of summaries: this loop sends, and the writer of statuses receives.
pub fn summaries() -> watch::Sender<Summaries> {
    watch::Sender::new(Summaries::new())
}
