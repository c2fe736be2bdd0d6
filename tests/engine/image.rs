//! The operator's image: built by `make image` without a base image, and run like in a cluster.

use std::process::Command;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions,
    StartContainerOptions, WaitContainerOptions,
};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::engine_host::Host;

/// The image's name. It contains the process id, so that tests can run at the same time.
fn image() -> String {
    format!("localhost/burstpool-test/operator:{}", std::process::id())
}

/// Builds the image. A release build would take minutes longer and not change what this test checks.
fn make(engine: &str) {
    let mut make = Command::new("make");
    // cargo's variables for a test would make build scripts run again and crates compile again.
    let of_tests = ["CARGO_PKG_", "CARGO_MANIFEST_"];
    for (name, _) in std::env::vars() {
        if of_tests.iter().any(|prefix| name.starts_with(prefix)) {
            make.env_remove(name);
        }
    }
    let made = make
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["image", "PROFILE=dev", &format!("IMAGE={}", image())])
        .arg(format!("ENGINE={engine}"))
        .output()
        .expect("make runs");
    let why = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{why}");
}

/// The output of a command of the operator, as the user nobody with a read-only root file system.
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
    let created = docker.create_container(None::<CreateContainerOptions>, body);
    let id = created.await.expect("a container").id;
    let started = docker.start_container(&id, None::<StartContainerOptions>);
    started.await.expect("it starts");
    let mut ended = docker.wait_container(&id, None::<WaitContainerOptions>);
    // This client reports a non-zero exit as an error; the command's output says more.
    let ended = ended.next().await.expect("it ends");
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let lines = docker.logs(&id, Some(options));
    let lines = lines.map_ok(|line| line.to_string());
    let said: Vec<String> = lines.try_collect().await.expect("its words");
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    let removed = docker.remove_container(&id, Some(force));
    removed.await.expect("removed");
    assert!(ended.is_ok(), "{ended:?}: {said:?}");
    said.concat()
}

#[tokio::test]
async fn the_image_without_a_base_runs_the_operator_as_an_unprivileged_user() {
    let Some(host) = Host::get().await else {
        return;
    };
    let engine = host.command();
    // podman's service ends without requests after less time than a build may take.
    drop(host);
    make(&engine);

    let host = Host::get().await.expect("it answered before");
    let docker = host.docker();
    let version = said(docker, "version").await;
    let crds = said(docker, "crds").await;
    let image = image();
    let found = docker.inspect_image(&image).await.expect("the image");
    let removed = docker.remove_image(&image, None::<RemoveImageOptions>, None);
    removed.await.expect("removed");

    let expected = format!("burstpool {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(version, expected);
    assert!(crds.contains("name: burstpools.burstpool.io"), "{crds}");
    let user = found.config.and_then(|config| config.user);
    assert_eq!(user.as_deref(), Some("65532:65532"));
}
