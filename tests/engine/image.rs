//! The operator's image: made by `make image`, without a base image, and run as it is in a cluster.

use std::process::Command;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
    StartContainerOptions, WaitContainerOptions,
};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::host::Host;

/// The image; another one for each process, so that tests may run beside each other.
fn image() -> String {
    format!("localhost/burstpool-test/operator:{}", std::process::id())
}

/// What a command of the operator says, with a root file system that nobody may write to, as nobody.
async fn said(docker: &Docker, command: &str) -> String {
    let body = ContainerCreateBody {
        image: Some(image()),
        cmd: Some(vec![command.to_owned()]),
        host_config: Some(HostConfig {
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".to_owned()]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let created = docker
        .create_container(None::<CreateContainerOptions>, body)
        .await;
    let id = created.expect("a container").id;
    let started = docker
        .start_container(&id, None::<StartContainerOptions>)
        .await;
    started.expect("it starts");
    let mut ended = docker.wait_container(&id, None::<WaitContainerOptions>);
    let ended = ended.next().await.expect("it ends").expect("well");
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let lines = docker
        .logs(&id, Some(options))
        .map_ok(|line| line.to_string());
    let said: Vec<String> = lines.try_collect().await.expect("its words");
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    docker
        .remove_container(&id, Some(options))
        .await
        .expect("removed");
    assert_eq!(ended.status_code, 0, "{said:?}");
    said.concat()
}

#[tokio::test]
async fn the_image_without_a_base_runs_the_operator() {
    let Some(host) = Host::get().await else {
        return;
    };
    let made = Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        // A release build would take minutes more, and differ in nothing that is looked at here.
        .args(["image", "PROFILE=dev", &format!("IMAGE={}", image())])
        .output()
        .expect("make runs");
    let why = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{why}");

    let docker = host.docker();
    let version = format!("burstpool {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(said(docker, "version").await, version);
    assert!(
        said(docker, "crds")
            .await
            .contains("name: burstpools.burstpool.io")
    );
    let removed = docker
        .remove_image(&image(), None::<RemoveImageOptions>, None)
        .await;
    removed.expect("removed");
}
