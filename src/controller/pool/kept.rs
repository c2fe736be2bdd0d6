//! A placement whose node is kept: the tasks of its node, its region and its pods.
//!
//! In: what it is to be kept as. Out: running tasks, which end apart from each other: the look at the region
//! when the placement drains, the registration when its node is removed, and the pods' last of all.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Client, ResourceExt as _};
use tokio::sync::{Mutex, Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::aci::client::Scope;
use crate::aci::names::Owner;
use crate::aci::pace::Pace;
use crate::api::{BurstPool, Placement, ScaleIn};
use crate::controller::Context;
use crate::controller::drain::pace::{Counts, Evictions};
use crate::kubelet_api::Served;
use crate::node::capacity::Offer;
use crate::node::object::{self, Closed, Facts};
use crate::node::pods::{self, Parts, Settings};
use crate::node::record::{Found, Offers, Record};
use crate::node::{capacity, region, register};

/// What a placement is kept as.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    pub pool: String,
    pub pool_uid: String,
    pub placement: Placement,
    pub scope: Scope,
    pub tags: BTreeMap<String, String>,
    pub deletion_cost: i32,
}

impl Wanted {
    /// As its pool's spec asks.
    pub fn of(pool: &BurstPool, placement: &Placement, scope: &Scope) -> Self {
        Self {
            pool: pool.name_any(),
            pool_uid: pool.uid().unwrap_or_default(),
            placement: placement.clone(),
            scope: scope.clone(),
            tags: pool.spec.azure.tags.clone(),
            deletion_cost: pool.spec.scale_in.deletion_cost,
        }
    }

    /// Whether its node and its groups are the same as of `other`: all else is applied while pods run.
    pub fn is_same_node(&self, other: &Self) -> bool {
        let node = |wanted: &Self| {
            let Placement {
                name,
                region,
                subnet_id,
                ..
            } = &wanted.placement;
            (name.clone(), region.clone(), subnet_id.clone())
        };
        (&self.pool, &self.pool_uid, &self.scope) == (&other.pool, &other.pool_uid, &other.scope)
            && node(self) == node(other)
    }

    /// What of it may change while pods run.
    fn settings(&self, context: &Context) -> Settings {
        let kube_proxy = context.kube_proxy.clone();
        Settings {
            placement: self.placement.clone(),
            tags: self.tags.clone(),
            kube_proxy: kube_proxy.filter(|_| self.placement.network.kube_proxy),
            deletion_cost: self.deletion_cost,
        }
    }

    /// What its node is to say of it.
    pub fn record(&self) -> Record {
        Record::new(&self.scope, &self.placement)
    }

    /// As its node says, for as long as it drains; nothing if it does not. A pool's tags are on its groups
    /// already, and nothing is scaled in there.
    pub fn last(found: Found) -> Option<Self> {
        let record = found.record?;
        Some(Self {
            pool: found.pool,
            pool_uid: found.pool_uid.unwrap_or_default(),
            scope: record.scope(),
            placement: record.placement,
            tags: BTreeMap::new(),
            deletion_cost: ScaleIn::default().deletion_cost,
        })
    }
}

/// A placement whose node is kept.
pub(super) struct Kept {
    pub wanted: Wanted,
    pub facts: watch::Sender<Facts>,
    pub pods: Arc<pods::Context>,
    pub registration: Registration,
    /// The kubelet API serves the node for as long as this is kept.
    _served: Served,
    pub cancel: CancellationToken,
    /// Ends only the look at the region: a node that is being drained stays closed.
    region: CancellationToken,
    pub tasks: TaskTracker,
    /// How evictions of its pods ended, while it drains.
    pub evictions: Arc<Mutex<Evictions>>,
    /// How counts of its groups ended, while it drains.
    pub counts: Arc<Mutex<Counts>>,
}

impl Kept {
    /// Starts its tasks; its node goes on as it is `left` until its region has been asked.
    pub async fn start(wanted: Wanted, left: Option<Offers>, context: &Context) -> Self {
        let (facts, _) = watch::channel(facts(&wanted, left, context));
        let pods = Arc::new(pods::Context::new(parts(&wanted, context).await));
        let (cancel, tasks) = (context.over.child_token(), TaskTracker::new());
        pods.quota.join(&pods);
        let region = cancel.child_token();
        let registration = Registration::start(&context.client, &facts, &cancel);
        tasks.spawn(region::keep(pods.clone(), facts.clone(), region.clone()));
        tasks.spawn(pods::keep(pods.clone(), cancel.clone()));
        Self {
            wanted,
            facts,
            _served: context.nodes.serve(pods.clone()),
            pods,
            registration,
            cancel,
            region,
            tasks,
            evictions: Arc::default(),
            counts: Arc::default(),
        }
    }

    /// Keeps the same node as the spec asks now; no task ends, and none begins.
    pub fn change(&mut self, wanted: Wanted, context: &Context) {
        let record = wanted.record();
        self.facts.send_if_modified(|facts| {
            let changed = facts.record != record;
            facts.record = record;
            changed
        });
        self.pods.change(wanted.settings(context));
        self.wanted = wanted;
    }

    /// Closes its node for good.
    pub fn drain(&self) {
        self.region.cancel();
        let closed = Closed {
            reason: "Draining".to_owned(),
            message: "it is being drained".to_owned(),
        };
        self.facts.send_if_modified(|facts| {
            let changed = facts.closed.as_ref() != Some(&closed);
            facts.closed = Some(closed);
            changed
        });
    }

    /// Whether it has ended by itself: its node is another owner's.
    pub fn is_lost(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Whether its node is closed for good, or it has ended.
    pub fn is_draining(&self) -> bool {
        self.region.is_cancelled()
    }

    /// Registers its node again.
    pub fn register(&mut self, client: &Client) {
        self.registration = Registration::start(client, &self.facts, &self.cancel);
    }

    /// Ends all tasks; what they kept stays.
    pub async fn stop(self) {
        self.cancel.cancel();
        self.registration.end().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// The task that keeps a node registered.
#[derive(Clone)]
pub(super) struct Registration {
    cancel: CancellationToken,
    task: TaskTracker,
}

impl Registration {
    fn start(client: &Client, facts: &watch::Sender<Facts>, over: &CancellationToken) -> Self {
        let (cancel, task) = (over.child_token(), TaskTracker::new());
        let kept = register::keep(client.clone(), facts.subscribe(), cancel.clone());
        let over = over.clone();
        task.spawn(async move {
            // The pods of another owner's node are not ours either.
            if kept.await == register::End::AnotherOwner {
                over.cancel();
            }
        });
        task.close();
        Self { cancel, task }
    }

    /// Whether the node is registered, and will be.
    #[cfg(test)]
    pub fn goes_on(&self) -> bool {
        !self.cancel.is_cancelled() && !self.task.is_empty()
    }

    /// Returns when the node is not written any more.
    pub async fn end(&self) {
        self.cancel.cancel();
        self.task.wait().await;
    }
}

/// The pace of reading in a subscription. Those that no placement is in any more are forgotten.
async fn pace(subscription: &str, context: &Context) -> Arc<Pace> {
    let mut paces = context.paces.lock().await;
    paces.retain(|_, pace| Arc::strong_count(pace) > 1);
    paces.entry(subscription.to_owned()).or_default().clone()
}

async fn parts(wanted: &Wanted, context: &Context) -> Parts {
    let placement = &wanted.placement;
    Parts {
        client: context.client.clone(),
        azure: context.azure.in_region(&placement.region),
        scope: wanted.scope.clone(),
        owner: Owner {
            cluster: context.cluster.clone(),
            pool: wanted.pool.clone(),
            node: object::name(&wanted.pool, &placement.name),
        },
        settings: wanted.settings(context),
        address: context.address.clone(),
        pace: pace(&wanted.scope.subscription, context).await,
        trouble: Arc::new(Notify::new()),
        changed: context.stores.changed.clone(),
        quota: context.quotas.of(&wanted.scope, &placement.region),
        sweep_every: context.sweep_every,
        orphan_grace: pods::ORPHAN_GRACE,
        identities: context.identities.clone(),
    }
}

/// Until the region has been asked, a node that is new is closed: nobody knows what it has to offer. One that is
/// there already offers what it did, so that a change of leader does not show.
pub(super) fn facts(wanted: &Wanted, left: Option<Offers>, context: &Context) -> Facts {
    let asked = capacity::asked(&wanted.placement);
    let left = left.unwrap_or_else(|| Offers {
        offer: Offer {
            allocatable: asked,
            capacity: asked,
        },
        closed: Some(Closed {
            reason: "Starting".to_owned(),
            message: "the region has not been asked yet what it has to offer".to_owned(),
        }),
    });
    Facts {
        pool: wanted.pool.clone(),
        pool_uid: wanted.pool_uid.clone(),
        record: wanted.record(),
        address: context.address.clone(),
        port: context.port,
        offer: left.offer,
        notice: None,
        closed: left.closed,
        shut: None,
        kubernetes_minor: context.kubernetes_minor,
    }
}
