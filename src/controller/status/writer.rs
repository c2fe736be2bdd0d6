//! Writes the statuses of pools, and pauses writes that the API server rejects.
//!
//! In: statuses. Out: server-side apply patches; the pool that the API server answers with goes to the cache.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use serde_json::json;
use thiserror::Error;
use tokio::time::Instant;

use crate::api::{BurstPool, BurstPoolStatus};
use crate::controller::cache::cluster::ClusterCache;
use crate::k8s::call;
use crate::k8s::rejected::WriteBackoff;

/// The field manager of pools' statuses.
const FIELD_MANAGER: &str = "burstpool-status";

/// The longest pause after rejected writes of a status. It is short because the user who fixes the cause looks
/// at the status.
const MAX_REJECTION_PAUSE: Duration = Duration::from_secs(60);

/// The status of a pool could not be written.
#[derive(Debug, Error)]
#[error("cannot write the status of pool {pool}")]
pub(in crate::controller) struct StatusWriteError {
    /// The pool's name.
    pub pool: String,
    /// Why the call failed.
    #[source]
    pub source: kube::Error,
}

/// Writes the statuses of pools.
pub(in crate::controller) struct StatusWriter {
    client: Client,
    cache: Arc<ClusterCache>,
    /// By pool, the rejected writes of its status. Without a pause they would be repeated several times a second
    /// in a peak, because every change reconciles the pool.
    rejections: Mutex<HashMap<String, WriteBackoff>>,
}

impl StatusWriter {
    /// A writer that has written nothing yet. The client is one with retries.
    pub fn new(client: Client, cache: Arc<ClusterCache>) -> Self {
        Self {
            client,
            cache,
            rejections: Mutex::default(),
        }
    }

    /// Writes the status, if it has changed and no recent write was rejected.
    pub async fn write(
        &self,
        pool: &BurstPool,
        status: &BurstPoolStatus,
    ) -> Result<(), StatusWriteError> {
        let live = pool.status.clone().map(|live| BurstPoolStatus {
            reservations: Vec::new(),
            leader: None,
            ..live
        });
        let name = pool.name_any();
        if live.as_ref() == Some(status) || !self.may_write(&name) {
            return Ok(());
        }
        let pools: Api<BurstPool> = Api::all(self.client.clone());
        let (params, patch) = apply_patch(status);
        let written = pools
            .patch_status(&name, &params, &Patch::Apply(&patch))
            .await;
        self.record_answer(&name, &written);
        match written {
            // The grant loop needs the pool's current version for its own writes, and gets it here before the
            // watch delivers it.
            Ok(pool) => {
                self.cache.update_pool(pool);
                Ok(())
            }
            Err(kube::Error::Api(status)) if call::is_object_not_found(&status) => Ok(()),
            Err(source) => Err(StatusWriteError { pool: name, source }),
        }
    }

    /// Whether the pool's status may be written now.
    pub fn may_write(&self, pool: &str) -> bool {
        let by_pool = self.rejections.lock();
        let rejections = by_pool.get(pool);
        rejections.is_none_or(|rejections| rejections.may_write(Instant::now()))
    }

    /// Records the answer to a write of the pool's status.
    pub fn record_answer<T>(&self, pool: &str, answer: &kube::Result<T>) {
        let mut by_pool = self.rejections.lock();
        let new_backoff = || WriteBackoff::up_to(MAX_REJECTION_PAUSE);
        let rejections = by_pool.entry(pool.to_owned()).or_insert_with(new_backoff);
        rejections.answered(answer, Instant::now());
    }

    /// Forgets a pool that does not exist now.
    pub fn forget(&self, pool: &str) {
        self.rejections.lock().remove(pool);
    }
}

/// The parameters and the body of a server-side apply of this status.
pub(in crate::controller) fn apply_patch(
    status: &impl serde::Serialize,
) -> (PatchParams, serde_json::Value) {
    let patch = json!({
        "apiVersion": "burstpool.io/v1alpha1",
        "kind": "BurstPool",
        "status": status,
    });
    (PatchParams::apply(FIELD_MANAGER).force(), patch)
}
