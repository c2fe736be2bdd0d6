//! Writes a target's replicas.
//!
//! In: the scale as it was read, and the new replicas. Out: whether the write succeeded, or why it failed, with
//! the remedy.

use std::time::Duration;

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::Instant;

use super::CALL_TIMEOUT;
use crate::controller::cache::scales::ObjectMetadata;
use crate::k8s::call;
use crate::k8s::rejected::WriteBackoff;

/// The longest pause after writes that the API server refused. It is short because the administrator who grants
/// the permission waits for the effect.
const MAX_REFUSAL_PAUSE: Duration = Duration::from_secs(60);

/// Writes the replicas of one target.
pub(super) struct ReplicaWriter {
    refusals: WriteBackoff,
    /// Why the last write failed.
    why: String,
}

impl ReplicaWriter {
    /// A writer that has written nothing yet.
    pub fn new() -> Self {
        Self {
            refusals: WriteBackoff::up_to(MAX_REFUSAL_PAUSE),
            why: String::new(),
        }
    }

    /// Writes replicas with the resource version that was read. Returns `false` if another write came first.
    /// After a refusal, calls fail with the same error for a while and send nothing: trigger states may change
    /// several times a second.
    pub async fn write_replicas(
        &mut self,
        api: &Api<ObjectMetadata>,
        scale: &Scale,
        replicas: i32,
    ) -> Result<bool, String> {
        if !self.refusals.may_write(Instant::now()) {
            return Err(self.why.clone());
        }
        let written = call::with_timeout(CALL_TIMEOUT, write(api, scale, replicas)).await;
        self.refusals.answered(&written, Instant::now());
        let outcome = outcome(written);
        if let Err(why) = &outcome {
            self.why.clone_from(why);
        }
        outcome
    }
}

async fn write(api: &Api<ObjectMetadata>, scale: &Scale, replicas: i32) -> kube::Result<()> {
    let patch = Patch::Merge(json!({
        "metadata": {"resourceVersion": scale.metadata.resource_version},
        "spec": {"replicas": replicas},
    }));
    let name = scale.name_any();
    let parameters = PatchParams {
        field_manager: Some("burstpool-scale".to_owned()),
        ..PatchParams::default()
    };
    let written = api.patch_scale(&name, &parameters, &patch).await;
    written.map(drop)
}

fn outcome(written: kube::Result<()>) -> Result<bool, String> {
    match written {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() => Ok(false),
        Err(kube::Error::Api(status)) => {
            let remedy = if status.code == 403 {
                "; to let burstpool write them: kubectl apply -k config/scaling"
            } else {
                ""
            };
            let why = status.message;
            Err(format!("replicas could not be written: {why}{remedy}"))
        }
        Err(error) if call::is_timeout(&error) => {
            Err("replicas could not be written: the API server does not answer".to_owned())
        }
        Err(error) => Err(format!("replicas could not be written: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use k8s_openapi::api::apps::v1::Deployment;
    use kube::api::ApiResource;

    use super::*;
    use crate::node::fixtures::denied;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_a_policy_denies_is_not_repeated_with_every_trigger_state() {
        let (client, sent) = denied();
        let kind = ApiResource::erase::<Deployment>(&());
        let api: Api<ObjectMetadata> = Api::namespaced_with(client, "shop", &kind);
        let scale = json!({"metadata": {"name": "web"}});
        let scale: Scale = serde_json::from_value(scale).expect("a scale");
        let mut writer = ReplicaWriter::new();
        for _ in 0..100 {
            let written = writer.write_replicas(&api, &scale, 3).await;
            let why = written.expect_err("it is denied");
            assert!(why.contains("denied by a policy"), "{why}");
        }
        assert_eq!(sent.load(Ordering::Relaxed), 1);
        tokio::time::sleep(Duration::from_secs(10)).await;
        let written = writer.write_replicas(&api, &scale, 3).await;
        assert!(written.is_err());
        assert_eq!(sent.load(Ordering::Relaxed), 2);
    }
}
