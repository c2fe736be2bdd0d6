//! One operator, two pools with two placements each: a fault in one placement delays no pod in another.

use burstpool::emulator::arm::throttle::{ThrottleBudget, ThrottleLimits};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use serde_json::json;

use crate::support::wait;
use crate::world::{World, is_running};

const PLACEMENTS: [(&str, &str); 2] = [("weu", "westeurope"), ("neu", "northeurope")];

/// Creates both pools, each with its own resource group `rg-NAME`.
async fn two_pools() -> World {
    let world = World::start().await;
    for name in ["shop", "batch"] {
        let azure = json!({"resourceGroup": format!("rg-{name}")});
        world.create_pool_in(name, &azure, &PLACEMENTS).await;
    }
    world
}

async fn create(world: &World, name: &str, pool: &str, placement: &str) {
    let place = json!({"burstpool.io/pool": pool, "burstpool.io/placement": placement});
    world.create_pod_where(name, &place, &json!({})).await;
}

async fn until_running(world: &World, names: &[String]) {
    for name in names {
        world.until_pod(name, "the pod to run", is_running).await;
    }
}

async fn waits(world: &World, name: &str) -> bool {
    let pod = world.pods().get(name).await.expect("the pod");
    pod.status.and_then(|status| status.phase).as_deref() == Some("Pending")
}

#[tokio::test]
async fn an_azure_that_hangs_or_fails_for_one_pool_delays_no_pod_of_the_other() {
    let world = two_pools().await;
    let hangs = json!({"operation": "ContainerGroups_CreateOrUpdate", "resourceGroup": "rg-batch", "fault": {"delay": "10s"}});
    let fails =
        json!({"resourceGroup": "rg-batch", "rate": 0.5, "fault": {"error": {"status": 503}}});
    world.admin("faults", &hangs).await;
    world.admin("faults", &fails).await;
    let (mut well, mut ill) = (Vec::new(), Vec::new());
    for n in 0..10 {
        for (placement, _) in PLACEMENTS {
            for (pool, names) in [("batch", &mut ill), ("shop", &mut well)] {
                let name = format!("{pool}-{placement}-{n}");
                create(&world, &name, pool, placement).await;
                names.push(name);
            }
        }
    }
    until_running(&world, &well).await;
    for name in &ill {
        assert!(
            waits(&world, name).await,
            "{name} got through: the fault does nothing"
        );
    }
    world.no_faults().await;
    until_running(&world, &ill).await;
    assert!(world.timeline().iter().all(|entry| entry.puts == 1));
}

#[tokio::test]
async fn a_region_whose_creates_are_used_up_delays_no_pod_of_another() {
    let world = two_pools().await;
    let budget = ThrottleBudget {
        per_5m: 2,
        per_1h: 100,
    };
    {
        let mut store = world.azure.shared().store();
        store.limits = ThrottleLimits {
            group_creates: Some(budget),
            ..store.limits
        };
        // The emulator must not refill the budget during the test.
        world.azure.shared().clock.set_speed(1.0);
        store.throttle.reset();
    }
    for n in 0..3 {
        create(&world, &format!("west-{n}"), "shop", "weu").await;
    }
    let throttled = |pod: &Pod| {
        let text = serde_json::to_string(&pod.status).expect("JSON");
        text.contains("Throttled")
    };
    let one_waits = |pods: &[Pod]| pods.iter().any(throttled);
    let config = watcher::Config::default();
    wait::until_all(world.pods(), config, "one to be throttled", one_waits)
        .await
        .expect("the third is over the budget");
    create(&world, "north", "batch", "neu").await;
    world
        .until_pod("north", "the pod elsewhere to run", is_running)
        .await;
    let groups = world.groups().len();
    assert_eq!(groups, 3, "two in the west, and one in the north");
}
