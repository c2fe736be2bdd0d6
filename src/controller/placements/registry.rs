//! The tasks of pools' nodes: this module starts, changes and stops them to match the specs, and restores them
//! from the nodes of placements that no spec lists.
//!
//! In: pools, and nodes that belong to no spec. Out: a [`PlacementTask`] for each placement, and its state for
//! the grant loop and the statuses. After the last pod and container group of a drained placement are gone, its
//! node is removed, and then its tasks end.

mod task;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::task::{PlacementSpec, PlacementTask};
use super::drain;
use super::drain::backoff;
use super::drain::backoff::{CountAction, DrainDelay, EvictionPacer};
use super::validation;
use super::validation::{InvalidSpec, azure_scope, check_kube_proxy, check_placements};
use crate::aci::client::GroupScope;
use crate::api::{BurstPool, Placement, PlacementStatus};
use crate::burst::PodFacts;
use crate::controller::{ControllerContext, status};
use crate::node::last_placement::{self, DiscoveredNode};
use crate::node::node_object::{self, Unavailable};
use crate::node::pods;
use crate::node::{daemon_set, node_controller};

/// A pool whose node tasks run.
#[derive(Default)]
pub struct RunningPool {
    placements: BTreeMap<String, PlacementTask>,
    drain_delay: DrainDelay,
}

impl RunningPool {
    /// Ends all tasks. Nodes, pods and container groups stay.
    pub async fn stop(self) {
        stop_tasks(self.placements.into_values().collect()).await;
    }
}

/// Starts the tasks of placements that the spec lists and that do not run, and applies changes of the spec to
/// those that do. Only a change to another node, such as one in another resource group, restarts a placement's
/// tasks. `nodes` are the existing nodes of placements whose tasks do not run.
///
/// A spec with an invalid value is an [`InvalidSpec`] under every leader. Running placements then continue
/// unchanged; after a change of leader they continue with the settings that their node records.
pub async fn ensure(
    pool: &BurstPool,
    nodes: &[Node],
    context: &ControllerContext,
) -> Result<(), InvalidSpec> {
    let mut scope_result = desired_scope(pool, context);
    if let Ok(scope) = &scope_result
        && let Err(changed) = check_scope(pool, scope, context).await
    {
        scope_result = Err(changed);
    }
    // Wait without the lock: the grant loop reads the registry all the time.
    stop_tasks(take_changed_tasks(pool, scope_result.as_ref().ok(), context).await).await;
    let all_pools = context.cache.all_pools();
    let mut pools = context.running_pools.lock().await;
    let mut mistakes = scope_result
        .as_ref()
        .err()
        .cloned()
        .into_iter()
        .collect::<Vec<_>>();
    // One invalid placement must not stop the others; the status reports the first error.
    for placement in &pool.spec.placements {
        if find_task(&pools, &pool.name_any(), &placement.name).is_some() {
            continue;
        }
        let name = node_object::name(&pool.name_any(), &placement.name);
        let mut nodes = nodes.iter();
        let live = nodes.find(|node| node.metadata.name.as_ref() == Some(&name));
        let change = match node_holder(&pools, &name) {
            Some(another) => PlacementChange::Refuse(validation::node_owned_by_other(
                &placement.name,
                &name,
                &another,
            )),
            None => placement_change(pool, placement, &scope_result, live, &all_pools),
        };
        let spec = match change {
            PlacementChange::RunAsSpecified(spec) => spec,
            PlacementChange::RunAsRecorded(spec, mistake) => {
                mistakes.push(mistake);
                spec
            }
            PlacementChange::Refuse(mistake) => {
                mistakes.push(mistake);
                continue;
            }
        };
        // After a change of leader, the node advertises the same as before until Azure has answered.
        let advertised = live.and_then(|node| {
            let found = last_placement::discovered_node(node, &spec.pool, &placement.name);
            found.advertised_for(&spec.last_placement())
        });
        let task = PlacementTask::start(spec, advertised, context).await;
        let running = pools.entry(pool.name_any()).or_default();
        running.placements.insert(placement.name.clone(), task);
    }
    mistakes.into_iter().next().map_or(Ok(()), Err)
}

/// The subscription and resource group that the spec names for the pool's container groups, if the spec is
/// valid.
fn desired_scope(pool: &BurstPool, context: &ControllerContext) -> Result<GroupScope, InvalidSpec> {
    let scope = azure_scope(pool, context)?;
    check_placements(pool)?;
    check_kube_proxy(pool, context.kube_proxy.is_some())?;
    Ok(scope)
}

/// What to do with a placement that the spec lists and whose tasks do not run.
#[derive(Debug, PartialEq)]
enum PlacementChange {
    /// Run it with the spec's settings.
    RunAsSpecified(PlacementSpec),
    /// Run it with the settings that its node records, because the spec is invalid.
    RunAsRecorded(PlacementSpec, InvalidSpec),
    /// Do not run it.
    Refuse(InvalidSpec),
}

/// Decides about a placement whose node is `live`, if it has one. The node records where its container groups
/// are: a spec that names another resource group is refused under every leader, as under the one that saw the
/// change. Pure.
fn placement_change(
    pool: &BurstPool,
    placement: &Placement,
    scope: &Result<GroupScope, InvalidSpec>,
    live: Option<&Node>,
    pools: &[Arc<BurstPool>],
) -> PlacementChange {
    if let Err(mistake) = validation::check_node_owner(pool, &placement.name, live, pools) {
        return PlacementChange::Refuse(mistake);
    }
    let found =
        live.map(|node| last_placement::discovered_node(node, &pool.name_any(), &placement.name));
    let recorded = found.and_then(|found| found.last_placement);
    let mistake = match (scope, &recorded) {
        (Ok(scope), Some(recorded)) if recorded.scope() != *scope => {
            validation::scope_changed(&recorded.scope(), scope)
        }
        (Ok(scope), _) => {
            return PlacementChange::RunAsSpecified(PlacementSpec::from_pool(
                pool, placement, scope,
            ));
        }
        (Err(mistake), _) => mistake.clone(),
    };
    match recorded {
        None => PlacementChange::Refuse(mistake),
        Some(recorded) => {
            let spec = PlacementSpec::from_pool(pool, &recorded.placement, &recorded.scope());
            PlacementChange::RunAsRecorded(spec, mistake)
        }
    }
}

/// The pool whose tasks keep this node registered, as text; `None` if no task does.
fn node_holder(pools: &HashMap<String, RunningPool>, node: &str) -> Option<String> {
    let mut running = pools.iter();
    running.find_map(|(pool, running)| {
        let mut tasks = running.placements.values();
        let is_holder =
            tasks.any(|task| !task.has_lost_node() && task.node_config.borrow().name() == node);
        is_holder.then(|| format!("pool {pool}"))
    })
}

/// The placements that the spec lists and whose tasks do not run.
pub async fn placements_not_running(pool: &BurstPool, context: &ControllerContext) -> Vec<String> {
    let pools = context.running_pools.lock().await;
    let name = pool.name_any();
    let listed = pool.spec.placements.iter();
    let not_running = listed.filter(|placement| {
        find_task(&pools, &name, &placement.name).is_none_or(PlacementTask::has_lost_node)
    });
    not_running
        .map(|placement| placement.name.clone())
        .collect()
}

/// Whether a placement's tasks ended because its node belongs to another owner.
pub async fn has_lost_node(pool: &str, placement: &str, context: &ControllerContext) -> bool {
    let pools = context.running_pools.lock().await;
    find_task(&pools, pool, placement).is_some_and(PlacementTask::has_lost_node)
}

/// The placements whose tasks run and that the spec does not list now, even if the rest of the spec is invalid.
pub async fn removed_placements(pool: &BurstPool, context: &ControllerContext) -> Vec<String> {
    let running = running_placements(&pool.name_any(), context).await;
    let removed = running
        .into_iter()
        .filter(|name| !has_placement(pool, name));
    removed.collect()
}

/// Whether the pool's spec lists a placement of this name.
pub fn has_placement(pool: &BurstPool, placement: &str) -> bool {
    let mut listed = pool.spec.placements.iter();
    listed.any(|listed| listed.name == placement)
}

/// Runs a placement that no spec lists until it is drained, with the settings that its node records. If its
/// tasks run already, they continue unchanged. Returns whether the tasks run now.
pub async fn adopt_orphan(found: DiscoveredNode, context: &ControllerContext) -> bool {
    let mut pools = context.running_pools.lock().await;
    if find_task(&pools, &found.pool, &found.placement).is_some() {
        return true;
    }
    let (pool, name) = (found.pool.clone(), found.placement.clone());
    let Some(spec) = PlacementSpec::from_node(found) else {
        return false;
    };
    let task = PlacementTask::start(spec, None, context).await;
    task.start_draining();
    let running = pools.entry(pool).or_default();
    running.placements.insert(name, task);
    true
}

/// Runs a placement with the settings that its node records, because its pool cannot be read; it is not
/// drained. If its tasks run already, they continue unchanged. A node without a record is left alone. So is a
/// node that belongs to another pool: one that runs its tasks, or one whose UID the node carries.
pub async fn resume_from_node(found: DiscoveredNode, context: &ControllerContext) {
    let is_owner = |pool: &Arc<BurstPool>| {
        let is_another = pool.name_any() != found.pool;
        is_another && found.pool_uid.is_some() && pool.uid() == found.pool_uid
    };
    let all_pools = context.cache.all_pools();
    let owner = all_pools.iter().find(|pool| is_owner(pool));
    let owner = owner.map(|pool| format!("pool {}", pool.name_any()));
    let mut pools = context.running_pools.lock().await;
    if find_task(&pools, &found.pool, &found.placement).is_some() {
        return;
    }
    if let Some(owner) = owner.or_else(|| node_holder(&pools, &found.node)) {
        let (node, pool) = (&found.node, &found.pool);
        tracing::warn!(%node, %pool, %owner, "the node belongs to another pool and is left alone");
        return;
    }
    let (pool, name, node) = (
        found.pool.clone(),
        found.placement.clone(),
        found.node.clone(),
    );
    let advertised = found.advertised.clone();
    let Some(spec) = PlacementSpec::from_node(found) else {
        tracing::warn!(%node, "cannot run this node: its pool cannot be read, and the node records no settings");
        return;
    };
    let task = PlacementTask::start(spec, advertised, context).await;
    tracing::info!(%node, "running a node with the settings that it records");
    let running = pools.entry(pool).or_default();
    running.placements.insert(name, task);
}

/// The tasks of a placement, if they run.
fn find_task<'a>(
    pools: &'a HashMap<String, RunningPool>,
    pool: &str,
    placement: &str,
) -> Option<&'a PlacementTask> {
    pools.get(pool)?.placements.get(placement)
}

/// The names of the pools whose tasks run.
pub async fn running_pool_names(context: &ControllerContext) -> Vec<String> {
    context.running_pools.lock().await.keys().cloned().collect()
}

/// The names of a pool's placements whose tasks run.
pub async fn running_placements(pool: &str, context: &ControllerContext) -> Vec<String> {
    let pools = context.running_pools.lock().await;
    let running = pools.get(pool).into_iter();
    running
        .flat_map(|running| running.placements.keys().cloned())
        .collect()
}

/// Whether the pool's container groups are in the scope that its spec names now. Azure cannot move them, and
/// the operator would lose track of those in another scope. Until they are gone, all tasks continue unchanged.
/// A placement that the spec does not list now is drained where it is.
async fn check_scope(
    pool: &BurstPool,
    scope: &GroupScope,
    context: &ControllerContext,
) -> Result<(), InvalidSpec> {
    let name = pool.name_any();
    let elsewhere: Vec<(String, GroupScope)> = {
        let pools = context.running_pools.lock().await;
        let running = pools.get(&name).into_iter();
        let tasks = running.flat_map(|running| &running.placements);
        let elsewhere = tasks.filter(|(placement, task)| {
            has_placement(pool, placement) && !task.has_lost_node() && task.spec.scope != *scope
        });
        let elsewhere = elsewhere.map(|(name, task)| (name.clone(), task.spec.scope.clone()));
        elsewhere.collect()
    };
    for (placement, from) in elsewhere {
        match remains(&name, &placement, context).await {
            PlacementRemains::Nothing => {}
            PlacementRemains::Something => return Err(validation::scope_changed(&from, scope)),
            PlacementRemains::Unlisted => return Err(validation::unlisted(&from, scope)),
        }
    }
    Ok(())
}

/// What is left of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlacementRemains {
    /// Neither pods nor container groups.
    Nothing,
    /// Pods or container groups, as far as is known.
    Something,
    /// No pods. The operator's identity may not list container groups there, and some may exist.
    Unlisted,
}

impl PlacementRemains {
    /// What is left of a placement without pods, if it has this many container groups. The answer 403 proves
    /// nothing: the operator's identity may have lost the right while container groups run. A resource group that
    /// does not exist has the count 0.
    fn of(groups: Option<usize>, is_forbidden: bool) -> Self {
        match groups {
            Some(0) => Self::Nothing,
            None if is_forbidden => Self::Unlisted,
            _ => Self::Something,
        }
    }
}

/// What is left of a placement, read again now.
async fn remains(pool: &str, placement: &str, context: &ControllerContext) -> PlacementRemains {
    let pods = {
        let pools = context.running_pools.lock().await;
        find_task(&pools, pool, placement).map(|task| task.pods.clone())
    };
    let Some(pods) = pods else {
        return PlacementRemains::Nothing;
    };
    if pods.has_pods_or_groups() {
        return PlacementRemains::Something;
    }
    let on_node = drain::list_pods_on_node(&node_object::name(pool, placement), context).await;
    if !on_node.is_ok_and(|pods| pods.is_empty()) {
        return PlacementRemains::Something;
    }
    let groups = count_groups(pool, placement, context).await;
    PlacementRemains::of(groups, pods.is_list_refused())
}

/// Ends these tasks; all are cancelled first, so that they end in parallel.
async fn stop_tasks(tasks: Vec<PlacementTask>) {
    for task in &tasks {
        task.cancel.cancel();
    }
    for task in tasks {
        task.stop().await;
    }
}

/// Applies the spec to the running tasks. Takes out the placements that need another node, and those that were
/// drained or ended and that the spec lists again. These take no pods until their tasks are started again.
async fn take_changed_tasks(
    pool: &BurstPool,
    scope: Option<&GroupScope>,
    context: &ControllerContext,
) -> Vec<PlacementTask> {
    let mut pools = context.running_pools.lock().await;
    let Some(running) = pools.get_mut(&pool.name_any()) else {
        return Vec::new();
    };
    let changed = pool.spec.placements.iter().filter_map(|placement| {
        let task = running.placements.get_mut(&placement.name)?;
        // While the pool is being deleted, the placement stays closed.
        let is_listed_again = pool.metadata.deletion_timestamp.is_none() && task.is_draining();
        // An invalid spec is not applied.
        let changed_spec = scope.map(|scope| PlacementSpec::from_pool(pool, placement, scope));
        let changed_spec = changed_spec.filter(|changed_spec| task.spec != *changed_spec);
        let is_other_node = |changed_spec: &PlacementSpec| !task.spec.is_same_node(changed_spec);
        if changed_spec.as_ref().is_some_and(is_other_node)
            || task.has_lost_node()
            || is_listed_again && scope.is_some()
        {
            return running.placements.remove(&placement.name);
        }
        if let Some(changed_spec) = changed_spec {
            task.change(changed_spec, context);
        }
        None
    });
    changed.collect()
}

/// The state of the pool's placements.
#[derive(Debug, Default)]
pub struct PlacementReport {
    /// The placements, for the status.
    pub placements: Vec<PlacementStatus>,
    /// The nodes of placements that the spec lists and that are not registered.
    pub unregistered_nodes: Vec<String>,
    /// Whether a cordon is the only reason why any placement takes no pods.
    pub is_only_cordoned: bool,
}

/// Reads the state of the pool's placements.
pub async fn report(pool: &BurstPool, context: &ControllerContext) -> PlacementReport {
    let pools = context.running_pools.lock().await;
    let mut report = PlacementReport {
        is_only_cordoned: true,
        ..PlacementReport::default()
    };
    let running = pools.get(&pool.name_any());
    for (name, task) in running.into_iter().flat_map(|running| &running.placements) {
        let config = task.node_config.borrow();
        let node = config.name();
        let live = context.cache.node(&node);
        // A node of that name with another pool's label belongs to another owner.
        let live = live
            .filter(|live| last_placement::pool_from_labels(live) == Some(task.spec.pool.as_str()));
        if live.is_none() && has_placement(pool, name) && context.cache.has_synced_nodes() {
            report.unregistered_nodes.push(node.clone());
        }
        let spec = live.as_ref().and_then(|live| live.spec.as_ref());
        let is_cordoned = spec.and_then(|spec| spec.unschedulable) == Some(true);
        let closed = config.unavailable();
        report.is_only_cordoned &= closed.is_none();
        let groups = task.pods.group_count().and_then(|n| i64::try_from(n).ok());
        let why = match closed {
            Some(closed) => Some(closed.message.clone()),
            None if is_cordoned => Some(format!(
                "its node {node} is cordoned: kubectl uncordon {node} lets it take pods"
            )),
            None => None,
        };
        report.placements.push(PlacementStatus {
            name: name.clone(),
            ready: why.is_none(),
            node,
            groups: groups.unwrap_or_default(),
            message: placement_message(
                why,
                config.region_notice.as_deref(),
                &task.spec.placement,
                &task.pods.daemon_sets(),
            ),
        });
    }
    report
}

/// The results of creates on a pool's placements since the last call.
pub async fn take_create_results(
    pool: &str,
    context: &ControllerContext,
) -> Vec<(String, pods::CreateResult)> {
    let pools = context.running_pools.lock().await;
    let running = pools.get(pool).into_iter();
    running
        .flat_map(|running| &running.placements)
        .flat_map(|(name, task)| {
            let results = task.pods.take_create_results().into_iter();
            results.map(|result| (name.clone(), result))
        })
        .collect()
}

/// By pool, the pods on its nodes, as the grant loop needs them.
pub async fn pods_on_pool_nodes(
    context: &ControllerContext,
) -> BTreeMap<String, Vec<Arc<PodFacts>>> {
    let pools = context.running_pools.lock().await;
    let pods = |running: &RunningPool| {
        let tasks = running.placements.values();
        tasks.flat_map(|task| task.pods.pod_facts()).collect()
    };
    let running = pools.iter();
    running
        .map(|(name, running)| (name.clone(), pods(running)))
        .collect()
}

/// By placement, why its node or its region takes no pods. A placement without tasks takes none.
pub async fn unavailable_placements(
    pool: &BurstPool,
    context: &ControllerContext,
) -> BTreeMap<String, String> {
    let pools = context.running_pools.lock().await;
    let name = pool.name_any();
    let why = |placement: &Placement| {
        let Some(task) = find_task(&pools, &name, &placement.name) else {
            return Some("the tasks of its node have not started yet".to_owned());
        };
        let config = task.node_config.borrow();
        config
            .region_unavailable
            .as_ref()
            .map(|closed| closed.message.clone())
    };
    let listed = pool.spec.placements.iter();
    listed
        .filter_map(|placement| Some((placement.name.clone(), why(placement)?)))
        .collect()
}

/// Closes a placement to new pods, or opens it again if `closed` is `None`. The cause is that creates fail.
pub async fn set_creates_failing(
    pool: &str,
    placement: &str,
    closed: Option<Unavailable>,
    context: &ControllerContext,
) {
    let pools = context.running_pools.lock().await;
    if let Some(task) = find_task(&pools, pool, placement) {
        task.node_config.send_if_modified(|config| {
            let changed = config.creates_failing != closed;
            config.creates_failing = closed;
            changed
        });
    }
}

/// The status message of a placement: why it takes no pods, and other notices.
fn placement_message(
    closed: Option<String>,
    region_notice: Option<&str>,
    placement: &Placement,
    daemon_sets: &[String],
) -> String {
    let first = closed.unwrap_or_else(|| status::placement_notice(placement).to_owned());
    let region_notice = region_notice.unwrap_or_default().to_owned();
    let notices = [
        first,
        region_notice,
        daemon_set::status_message(daemon_sets),
    ];
    let notices: Vec<String> = notices
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    notices.join("; ")
}

/// Closes placements' nodes for good.
pub async fn start_draining(pool: &str, placements: &[String], context: &ControllerContext) {
    let pools = context.running_pools.lock().await;
    let tasks = pools
        .get(pool)
        .into_iter()
        .flat_map(|running| &running.placements);
    for (_, task) in tasks.filter(|(name, _)| placements.contains(name)) {
        task.start_draining();
    }
}

/// Whether a pod worker still runs on a placement, for a pod or for the container group of a deleted pod. Pods
/// of `DaemonSet`s do not count.
pub async fn has_pod_workers(pool: &str, placement: &str, context: &ControllerContext) -> bool {
    let pools = context.running_pools.lock().await;
    find_task(&pools, pool, placement).is_some_and(|task| task.pods.is_any_kept())
}

/// The number of container groups of a placement; `None` if it is not known.
pub async fn count_groups(
    pool: &str,
    placement: &str,
    context: &ControllerContext,
) -> Option<usize> {
    // Do not hold the registry's lock: Azure may take a minute to answer, and all pools need the registry.
    let (pods, counts) = {
        let pools = context.running_pools.lock().await;
        let task = find_task(&pools, pool, placement)?;
        (task.pods.clone(), task.group_counts.clone())
    };
    let mut counts = counts.lock().await;
    if let CountAction::Report(groups) = counts.next_action(pods.group_count(), Instant::now()) {
        return groups;
    }
    let counted = pods.count_groups().await;
    counts.record_count(counted, pods.group_count(), Instant::now());
    counted
}

/// Whether Azure forbids the operator to list the container groups of a placement.
pub async fn is_list_refused(pool: &str, placement: &str, context: &ControllerContext) -> bool {
    let pools = context.running_pools.lock().await;
    find_task(&pools, pool, placement).is_some_and(|task| task.pods.is_list_refused())
}

/// The record of evictions of a placement's pods, if its tasks run.
pub async fn eviction_pacer(
    pool: &str,
    placement: &str,
    context: &ControllerContext,
) -> Option<Arc<Mutex<EvictionPacer>>> {
    let pools = context.running_pools.lock().await;
    Some(find_task(&pools, pool, placement)?.evictions.clone())
}

/// How soon the drain of a pool continues; `left` is what is left of it.
pub async fn next_drain_delay(
    pool: &str,
    left: &[String],
    context: &ControllerContext,
) -> Duration {
    let mut pools = context.running_pools.lock().await;
    let running = pools.get_mut(pool);
    running.map_or(backoff::MAX_BUDGET_PAUSE, |running| {
        running.drain_delay.next_delay(left, Instant::now())
    })
}

/// Whether a spec lists a placement again that was to be drained, for example because a pool of that name was
/// created again.
pub async fn is_requested_again(pool: &str, placement: &str, context: &ControllerContext) -> bool {
    let pools = context.running_pools.lock().await;
    find_task(&pools, pool, placement).is_some_and(|task| !task.is_draining())
}

/// Removes the node of a placement that drains. Its pod workers continue, because the scheduler may have bound
/// a pod until then. If the node cannot be removed, its registration continues until the next try.
pub async fn unregister_node(
    pool: &str,
    placement: &str,
    context: &ControllerContext,
) -> Result<(), kube::Error> {
    let (registration, uid) = {
        let pools = context.running_pools.lock().await;
        match find_task(&pools, pool, placement) {
            Some(task) if task.is_draining() && !task.has_lost_node() => {
                (task.registration.clone(), task.spec.pool_uid.clone())
            }
            // A spec lists it again, or the node belongs to another owner.
            _ => return Ok(()),
        }
    };
    registration.stop().await;
    let is_ours = |node: &Node| last_placement::other_owner(node, pool, &uid).is_none();
    let node = node_object::name(pool, placement);
    let removed = node_controller::unregister(&context.client, &node, is_ours).await;
    if removed.is_err() {
        let mut pools = context.running_pools.lock().await;
        let running = pools.get_mut(pool);
        let task = running.and_then(|running| running.placements.get_mut(placement));
        if let Some(task) = task.filter(|task| task.is_draining()) {
            task.register(&context.client);
        }
    }
    removed
}

/// Ends the tasks of drained placements whose nodes are removed and that have nothing left.
pub async fn end_placements(pool: &str, placements: &[String], context: &ControllerContext) {
    let mut pools = context.running_pools.lock().await;
    let Some(running) = pools.get_mut(pool) else {
        return;
    };
    let has_ended =
        |name: &String, task: &mut PlacementTask| task.is_draining() && placements.contains(name);
    let ended = running.placements.extract_if(.., has_ended);
    let ended: Vec<PlacementTask> = ended.map(|(_, task)| task).collect();
    if running.placements.is_empty() {
        pools.remove(pool);
    }
    drop(pools);
    stop_tasks(ended).await;
}

#[cfg(test)]
mod tests;
