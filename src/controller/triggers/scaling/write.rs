//! The write of a target's replicas.
//!
//! In: the scale as it was read, and what is to be. Out: whether it was written, or why it could not be, with
//! the remedy.

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::PATIENCE;
use crate::controller::spill::scales::Meta;

/// Writes replicas, with the version that was read; whether nobody was faster.
pub(super) async fn replicas(
    api: &Api<Meta>,
    scale: &Scale,
    replicas: i32,
) -> Result<bool, String> {
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": scale.metadata.resource_version},
        "spec": {"replicas": replicas},
    }));
    let name = scale.name_any();
    let parameters = PatchParams {
        field_manager: Some("burstpool-scale".to_owned()),
        ..PatchParams::default()
    };
    let written = api.patch_scale(&name, &parameters, &patch);
    match tokio::time::timeout(PATIENCE, written).await {
        Ok(Ok(_)) => Ok(true),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Ok(false),
        Ok(Err(kube::Error::Api(status))) => {
            let remedy = if status.code == 403 {
                "; to let burstpool write them: kubectl apply -k config/scaling"
            } else {
                ""
            };
            let why = status.message;
            Err(format!("replicas could not be written: {why}{remedy}"))
        }
        Ok(Err(error)) => Err(format!("replicas could not be written: {error}")),
        Err(_) => Err("replicas could not be written: the API server does not answer".to_owned()),
    }
}
