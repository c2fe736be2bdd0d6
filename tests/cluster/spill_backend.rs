//! One workload's own fault, which says nothing of the placement.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::home::{deployment, target};
use crate::world::{World, said};

/// Azure creates nothing, or only groups whose names do not begin so.
async fn refuse(world: &World, group: Option<&str>, code: &str, status: u16, message: &str) {
    let error = json!({"status": status, "code": code, "message": message});
    let mut rule =
        json!({"operation": "ContainerGroups_CreateOrUpdate", "fault": {"error": error}});
    if let Some(group) = group {
        rule["group"] = group.into();
    }
    world.admin("faults", &rule).await;
}

#[tokio::test]
async fn a_template_that_azure_refuses_is_not_granted_again_and_others_go_on() {
    let changes = json!({"workloads": [target("web", "web"), target("bad", "bad")]});
    let world = World::with_full_home(&changes).await;
    let (code, why) = (
        "PriorityNotSpecified",
        "This template is not to Azure's taste.",
    );
    refuse(&world, Some("default-bad-"), code, 400, why).await;
    world.deploy_this(&deployment("bad", 1)).await;
    let refused = |pods: &[Pod]| {
        let status = serde_json::to_string(&pods.first().and_then(|pod| pod.status.clone()));
        status.is_ok_and(|status| status.contains(why))
    };
    world
        .until_pods("bad", "Azure to refuse one", refused)
        .await;
    world.scale_this("bad", 3).await;
    world.until_counted("bad", (0, 0, 1, 2)).await;
    world.deploy(2).await;
    world.until_spread(0, 2, 0).await;
    world
        .until_pool("shop", "the pool to tell the two apart", |pool| {
            pool.is_some_and(|pool| {
                let workloads = &pool.status.as_ref().expect("a status").workloads;
                said(pool, "NodesReady").0 == "True"
                    && workloads[1].message.contains(why)
                    && workloads[0].message.is_empty()
            })
        })
        .await;
    world.end().await;
}
