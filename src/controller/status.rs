//! What a pool says: its conditions and its placements.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::pool::Mistake;
use super::{Context, Error};
use crate::api::condition::{self, NODES_READY, READY};
use crate::api::{BurstPool, BurstPoolStatus, PlacementStatus};

/// The field manager of pools' statuses.
const FIELD_MANAGER: &str = "burstpool-status";

/// The status of a pool. Pure but for the time of what changed.
pub(super) fn of(
    pool: &BurstPool,
    outcome: &Result<Vec<(String, String)>, Mistake>,
    placements: &[PlacementStatus],
    leaving: &[String],
) -> BurstPoolStatus {
    let (now, generation) = (Timestamp::now(), pool.metadata.generation);
    let mut conditions = pool.status.clone().unwrap_or_default().conditions;
    let mut set = |kind: &str, status: bool, reason: &str, message: String| {
        condition::set(
            &mut conditions,
            condition::condition(kind, status, reason, message, generation, now),
        );
    };
    match outcome {
        Err(Mistake(mistake)) => set(READY, false, "Misconfigured", mistake.clone()),
        Ok(_) if !leaving.is_empty() => {
            set(
                READY,
                false,
                "Draining",
                format!("waiting for {}", leaving.join(", ")),
            );
        }
        Ok(_) => set(READY, true, "Registered", nodes(placements)),
    }
    let closed: Vec<String> = placements
        .iter()
        .filter(|placement| !placement.ready)
        .map(|placement| format!("{}: {}", placement.name, placement.message))
        .collect();
    if closed.is_empty() {
        set(
            NODES_READY,
            true,
            "Open",
            "every placement takes pods".to_owned(),
        );
    } else {
        set(NODES_READY, false, "Closed", closed.join("; "));
    }
    BurstPoolStatus {
        observed_generation: generation,
        conditions,
        placements: placements.to_vec(),
        ..BurstPoolStatus::default()
    }
}

fn nodes(placements: &[PlacementStatus]) -> String {
    let names: Vec<&str> = placements
        .iter()
        .map(|placement| placement.node.as_str())
        .collect();
    names.join(", ")
}

/// Writes the status, if it says something else than before.
pub(super) async fn write(
    pool: &BurstPool,
    status: &BurstPoolStatus,
    context: &Context,
) -> Result<(), Error> {
    if pool.status.as_ref() == Some(status) {
        return Ok(());
    }
    let pools: Api<BurstPool> = Api::all(context.client.clone());
    let patch = json!({
        "apiVersion": "burstpool.io/v1alpha1",
        "kind": "BurstPool",
        "status": status,
    });
    let apply = PatchParams::apply(FIELD_MANAGER).force();
    match pools
        .patch_status(&pool.name_any(), &apply, &Patch::Apply(&patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        written => written.map(drop).map_err(|source| Error::Kubernetes {
            what: "writing a pool's status",
            source,
        }),
    }
}
