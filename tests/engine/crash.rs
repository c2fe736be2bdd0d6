//! Emulators as processes: a new emulator removes what a killed one left, and nothing else.

use std::io::{BufRead as _, BufReader};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use burstpool::emulator::{Emulator, EmulatorOptions, EngineSocket};
use futures::FutureExt as _;
use serde_json::Value;

use crate::azure::{Azure, LIVE, container, group, none};
use crate::engine_host::Host;

/// A process of the emulator's binary.
struct Process {
    child: Child,
    azure: Azure,
}

impl Process {
    fn start(host: &Host) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_aci-emulator"))
            .args(["--containers", "--engine-socket"])
            .arg(&host.socket)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the emulator starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("its output is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it says where it listens");
        let said: Value = serde_json::from_str(&line).expect("one line of JSON");
        let azure = Azure::new(said["url"].as_str().expect("a URL"));
        Self { child, azure }
    }

    async fn run_group(&self) {
        let name = self.azure.name("crash");
        self.azure
            .put(&name, &group(&[container("main", LIVE, &none())], &none()))
            .await;
        self.azure.until_state(&name, "Running").await;
    }

    fn crash(&mut self) {
        self.child.kill().expect("the emulator is killed");
        self.child.wait().expect("the emulator ends");
    }

    fn end(mut self) {
        let told = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(told.expect("kill runs").success());
        assert!(self.child.wait().expect("the emulator ends").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ignore errors: it has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_emulator_left_is_removed_by_the_next_and_a_living_ones_is_kept() {
    let Some(host) = Host::get().await else {
        return;
    };
    let outcome = AssertUnwindSafe(crash_and_sweep(host.clone()))
        .catch_unwind()
        .await;
    if let Err(panic) = outcome {
        // The processes were killed: an emulator in this process removes what they left.
        let options = EmulatorOptions {
            containers: Some(EngineSocket::At(host.socket.clone())),
            ..EmulatorOptions::default()
        };
        if let Ok(emulator) = Emulator::start(options).await {
            emulator.stop().await;
        }
        std::panic::resume_unwind(panic);
    }
}

async fn crash_and_sweep(host: Arc<Host>) {
    let mut crashed = Process::start(&host);
    let living = Process::start(&host);
    crashed.run_group().await;
    living.run_group().await;
    let (lost, kept) = (crashed.azure.mark.clone(), living.azure.mark.clone());
    let left = host.containers(&lost).await;
    assert_eq!(left.len(), 2);
    let directory = left
        .values()
        .find_map(|labels| labels.get("burstpool.aci-emulator.directory"));
    let directory = Path::new(directory.expect("a directory")).to_owned();
    assert!(directory.exists());

    crashed.crash();
    let next = Process::start(&host);
    assert_eq!(host.containers(&lost).await.len(), 0);
    assert!(!directory.exists());
    assert_eq!(host.containers(&kept).await.len(), 2);
    living
        .azure
        .until_state(&living.azure.name("crash"), "Running")
        .await;

    living.end();
    assert_eq!(host.containers(&kept).await.len(), 0);
    next.end();
}
