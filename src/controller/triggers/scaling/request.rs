//! How a pool's spec scales its workloads, and the tasks that follow from it.
//!
//! In: a pool. Out: a [`ScalingRequest`] for each workload that it scales. Each has one task, which gets changes
//! over a channel.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Resource as _, ResourceExt as _};
use tokio::sync::watch;

use super::{WorkloadScaler, replica_writer};
use crate::api::{BurstPool, Mode, Target, Workload, WorkloadScale};
use crate::controller::triggers::{PoolTriggers, TriggerContext};
use crate::scale::ScalingHistory;

/// How a pool's spec scales a workload.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::controller::triggers) struct ScalingRequest {
    pub(super) target: Target,
    pub(super) scale: WorkloadScale,
    /// The names of the pool's triggers.
    pub(super) triggers: Vec<String>,
    pub(super) is_dry_run: bool,
    pub(super) pool: ObjectReference,
}

impl ScalingRequest {
    /// The request for `workload`, if the spec scales it.
    fn new(pool: &BurstPool, workload: &Workload) -> Option<Self> {
        let triggers = pool.spec.triggers.iter();
        Some(Self {
            target: workload.target.clone()?,
            scale: workload.scale.clone()?,
            triggers: triggers.map(|trigger| trigger.name.clone()).collect(),
            is_dry_run: pool.spec.mode == Mode::DryRun,
            pool: pool.object_ref(&()),
        })
    }
}

/// Starts, changes and ends the tasks of a pool's workloads to match its spec.
pub(in crate::controller::triggers) fn ensure(
    pool: &BurstPool,
    running: &mut PoolTriggers,
    shared: &Arc<TriggerContext>,
) {
    update_or_end(pool, running, shared);
    for workload in &pool.spec.workloads {
        let request = ScalingRequest::new(pool, workload);
        let request = request.filter(|_| !running.scalings.contains_key(&workload.name));
        if let Some(request) = request {
            start(request, (&pool.name_any(), &workload.name), running, shared);
        }
    }
}

/// Sends the tasks their new requests, and ends those whose workload the spec does not scale. A workload with a new
/// target gets a new task: the history and the back-off belong to the old target.
fn update_or_end(pool: &BurstPool, running: &mut PoolTriggers, shared: &TriggerContext) {
    running.scalings.retain(|name, (sender, cancel)| {
        let mut workloads = pool.spec.workloads.iter();
        let workload = workloads.find(|workload| workload.name == *name);
        let request = workload.and_then(|workload| ScalingRequest::new(pool, workload));
        let request = request.filter(|request| request.target == sender.borrow().target);
        let Some(request) = request else {
            cancel.cancel();
            shared.forget_scaling(&pool.name_any(), name);
            return false;
        };
        sender.send_if_modified(|current| {
            let changed = *current != request;
            *current = request;
            changed
        });
        true
    });
}

fn start(
    request: ScalingRequest,
    (pool, workload): (&str, &str),
    running: &mut PoolTriggers,
    shared: &Arc<TriggerContext>,
) {
    let (sender, receiver) = watch::channel(request);
    let cancel = shared.shutdown.child_token();
    let scaler = WorkloadScaler {
        cancel: cancel.clone(),
        context: shared.clone(),
        pool: pool.to_owned(),
        workload: workload.to_owned(),
        history: ScalingHistory::default(),
        writer: replica_writer::ReplicaWriter::new(),
    };
    let until = cancel.clone();
    running.tasks.spawn(async move {
        tokio::select! {
            () = scaler.run(receiver) => {}
            () = until.cancelled() => {}
        }
    });
    running
        .scalings
        .insert(workload.to_owned(), (sender, cancel));
}

impl TriggerContext {
    fn forget_scaling(&self, pool: &str, workload: &str) {
        self.scalings.send_modify(|scalings| {
            if let Some(pool_scalings) = scalings.get_mut(pool) {
                pool_scalings.remove(workload);
            }
        });
    }
}
