//! The operator as a process: start, stop, kill.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::Value;
use tokio::process::{Child, Command};

use super::World;
use crate::support::{OPERATOR, wait};

impl World {
    /// Runs the operator as this kubeconfig user from now on, with its lease in the manifests'
    /// namespace.
    pub fn run_as(&mut self, operator: &Value) {
        self.run_in(OPERATOR, operator);
    }

    /// The same in another namespace.
    pub fn run_in(&mut self, namespace: &str, operator: &Value) {
        let kubeconfig = self.cluster.kubeconfig_of(namespace, operator);
        self.account = (kubeconfig.expect("a file"), namespace.to_owned());
    }

    /// Starts the operator. Its log goes to a file.
    pub fn run(&mut self) {
        self.operator = Some(self.process(&self.log(), "trace"));
    }

    /// Starts another instance of the operator with its own log.
    pub fn instance(&self, name: &str) -> Instance {
        let log = self.files.path().join(name);
        let child = self.process(&log, "burstpool=debug,kube_lease_manager=debug,info");
        Instance { child, log }
    }

    fn process(&self, log: &Path, level: &str) -> Child {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log");
        let group = ["--resource-group", "rg"];
        let is_told = self.arguments.iter().any(|argument| argument == group[0]);
        let group = (!is_told).then_some(group);
        Command::new(env!("CARGO_BIN_EXE_burstpool"))
            .arg("run")
            .arg("--kubeconfig")
            .arg(&self.account.0)
            .args(["--arm-endpoint", self.azure.url(), "--arm-token-file"])
            .arg(self.token())
            .args(["--subscription-id", "00000000-0000-0000-0000-000000000000"])
            .args(group.into_iter().flatten())
            .args([
                "--metrics-listen",
                "127.0.0.1:0",
                "--node-address",
                "127.0.0.1",
                "--kubelet-listen",
                "127.0.0.1:0",
                "--namespace",
                &self.account.1,
            ])
            .args(&self.arguments)
            .env("RUST_LOG", level)
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .expect("the operator starts")
    }

    /// The operator's resident memory in bytes.
    pub fn memory(&self) -> usize {
        let child = self.operator.as_ref().and_then(Child::id);
        let file = format!("/proc/{}/statm", child.expect("it runs"));
        let text = std::fs::read_to_string(file).expect("it runs");
        let pages = text.split(' ').nth(1).and_then(|n| n.parse::<usize>().ok());
        pages.expect("a number of pages") * 4096
    }

    pub async fn kill(&mut self) {
        let mut child = self.operator.take().expect("it runs");
        child.kill().await.expect("SIGKILL");
    }

    /// Kills the operator and deletes its lease, so that the next one does not have to wait until it
    /// expires.
    pub async fn kill_and_forget(&mut self) {
        self.kill().await;
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.account.1);
        match leases.delete("burstpool", &DeleteParams::default()).await {
            // It may not have created the lease yet.
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            deleted => drop(deleted.expect("an answer")),
        }
    }

    /// Sends SIGTERM to the operator, and returns its exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut child = self.operator.take().expect("it runs");
        signal(&child, "TERM").await;
        let ended = tokio::time::timeout(wait::DEADLINE, child.wait()).await;
        ended.expect("it ends").expect("it is a child of ours")
    }
}

/// An instance of the operator.
pub struct Instance {
    child: Child,
    log: PathBuf,
}

impl Instance {
    /// Sends the signal of this name.
    pub async fn signal(&self, name: &str) {
        signal(&self.child, name).await;
    }

    /// Waits until it ends, and returns its exit status.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = tokio::time::timeout(wait::DEADLINE, self.child.wait()).await;
        let Ok(ended) = ended else {
            unreachable!("it does not end:\n{}", self.tail());
        };
        ended.expect("it is a child of ours")
    }

    /// Whether its log contains these words.
    pub fn has_said(&self, words: &str) -> bool {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        text.contains(words)
    }

    /// The last lines of its log.
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

async fn signal(child: &Child, name: &str) {
    let id = child.id().expect("it has not ended").to_string();
    let sent = Command::new("kill").args([format!("-{name}"), id]).status();
    assert!(sent.await.expect("kill runs").success());
}
