//! Claims of pending pods: they spill only if ACI can mount the volumes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::own_nodes::{is_granted, pod, selected};
use crate::support::wait;
use crate::world::World;

/// A claim with this class, or bound to the volume of the same name.
async fn claim(world: &World, name: &str, class: Option<&str>) {
    let mut claim = json!({"metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": class.unwrap_or_default(),
        "resources": {"requests": {"storage": "1Gi"}}}});
    if class.is_none() {
        claim["spec"]["volumeName"] = name.into();
    }
    let _: PersistentVolumeClaim = world.make(claim).await;
}

/// A class whose volumes are created when a pod needs them.
async fn class(world: &World, name: &str, provisioner: &str) {
    let class = json!({"metadata": {"name": name}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"});
    let class: StorageClass = serde_json::from_value(class).expect("a class");
    let classes: Api<StorageClass> = Api::all(world.client.clone());
    let made = classes.create(&PostParams::default(), &class).await;
    made.expect("a class");
}

/// A claim that is bound to a disk.
async fn disk(world: &World, name: &str) {
    let volume = json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain",
        "csi": {"driver": "disk.csi.azure.com", "volumeHandle": "disk"}}});
    let volume: PersistentVolume = serde_json::from_value(volume).expect("a volume");
    let volumes: Api<PersistentVolume> = Api::all(world.client.clone());
    let made = volumes.create(&PostParams::default(), &volume).await;
    made.expect("a volume");
    claim(world, name, None).await;
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.client.clone(), "default");
    let bound = |claim: Option<&PersistentVolumeClaim>| {
        let status = claim.and_then(|claim| claim.status.as_ref());
        status.is_some_and(|status| status.phase.as_deref() == Some("Bound"))
    };
    let bound = wait::until(claims, name, "the claim to be bound", bound).await;
    bound.expect("it is bound");
}

fn claiming(name: &str) -> Value {
    let claim = json!({"name": "data", "persistentVolumeClaim": {"claimName": name}});
    pod("web", name, &json!({"spec": {"volumes": [claim]}}))
}

#[tokio::test]
async fn a_pod_with_a_claim_is_granted_only_if_aci_can_mount_what_is_or_will_be_behind_it() {
    let world = World::with_full_home(&json!({"workloads": [selected("web")]})).await;
    class(&world, "disks", "disk.csi.azure.com").await;
    class(&world, "shares", "file.csi.azure.com").await;
    disk(&world, "disk").await;
    claim(&world, "later-disk", Some("disks")).await;
    claim(&world, "share", Some("shares")).await;
    for name in ["disk", "later-disk", "absent", "share"] {
        world.create(claiming(name)).await;
    }
    let refused = [
        ("disk", "spec.csi.driver is disk.csi.azure.com"),
        (
            "later-disk",
            "StorageClass disks has the provisioner disk.csi.azure.com",
        ),
    ];
    for (name, why) in refused {
        world.until_told(name, "CannotSpill", why).await;
    }
    let lack = "PersistentVolumeClaim default/absent does not exist";
    world.until_told("absent", "ClaimNotBound", lack).await;
    // The share would be created once the scheduler has chosen a node. No provisioner runs here.
    let granted = |pod: Option<&_>| pod.is_some_and(is_granted);
    world
        .until_pod("share", "the one with a share to be granted", granted)
        .await;
    world.until_counted("web", (1, 1, 0, 2)).await;
    for name in ["disk", "later-disk", "absent"] {
        let pod = world.pods().get(name).await.expect("the pod");
        assert!(!is_granted(&pod), "{name} was granted");
    }
    world.end().await;
}
