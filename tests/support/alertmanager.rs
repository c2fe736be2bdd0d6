//! A real Alertmanager on loopback, for tests of alert triggers.
//!
//! In: the webhook to which it sends alerts, and the file with its token. Out: alerts that fire and are
//! resolved, reported to it in Prometheus' place. It ends with the test.

use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan as _};
use serde_json::json;
use tokio::process::{Child, Command};

use super::monitoring::{found, free_port, quietly, until_ready};
use super::{skipped, wait};

/// Debian's name of the program, and the original one.
const NAMES: [&str; 2] = ["prometheus-alertmanager", "alertmanager"];

/// An Alertmanager that notifies a webhook at once, and repeats every two seconds.
pub struct Alertmanager {
    _child: Child,
    address: String,
    _files: tempfile::TempDir,
}

impl Alertmanager {
    /// Starts one that sends to `webhook`. If it is not installed, reports the test as skipped and
    /// returns `None`, or fails if it is required.
    pub async fn start(webhook: &str, token: &Path) -> Option<Self> {
        let program = program()?;
        let files = tempfile::tempdir().expect("a directory");
        let at = |name: &str| files.path().join(name).display().to_string();
        let config = json!({
            "route": {"receiver": "burstpool", "group_by": ["alertname"], "group_wait": "0s",
                "group_interval": "1s", "repeat_interval": "2s"},
            "receivers": [{"name": "burstpool", "webhook_configs": [{
                "url": webhook,
                "http_config": {"authorization": {"credentials_file": token.display().to_string()}},
            }]}],
        });
        // JSON is valid YAML.
        std::fs::write(at("config.yml"), config.to_string()).expect("it is written");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", at("config.yml")))
            .arg(format!("--storage.path={}", at("data")))
            .arg(format!("--web.listen-address={address}"))
            // No cluster: it would need an address other than loopback.
            .arg("--cluster.listen-address=");
        let alertmanager = Self {
            _child: quietly(&mut command),
            address: format!("http://{address}"),
            _files: files,
        };
        until_ready(&format!("{}/-/ready", alertmanager.address)).await;
        Some(alertmanager)
    }

    /// Makes an alert of this name fire.
    pub async fn fire(&self, name: &str) {
        self.tell(name, Timestamp::now() + 1.hour()).await;
    }

    /// Resolves the alert.
    pub async fn resolve(&self, name: &str) {
        self.tell(name, Timestamp::now()).await;
    }

    /// Reports an alert like Prometheus: when it started, and when it ends unless it is reported again.
    async fn tell(&self, name: &str, ends: Timestamp) {
        let alerts = json!([{
            "labels": {"alertname": name, "severity": "page", "instance": "web-0"},
            "annotations": {"summary": "web is saturated"},
            "startsAt": Timestamp::now() - 1.hour(),
            "endsAt": ends,
            "generatorURL": "http://prometheus.example/graph?g0.expr=up",
        }]);
        let url = format!("{}/api/v2/alerts", self.address);
        let sent = reqwest::Client::new().post(url).json(&alerts).send().await;
        let answer = sent.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
    }

    /// How many webhook requests have failed, from Alertmanager's own metrics.
    pub async fn failures(&self) -> u64 {
        let text = reqwest::get(format!("{}/metrics", self.address)).await;
        let text = text.expect("an answer").text().await.expect("text");
        let name = "alertmanager_notification_requests_failed_total{integration=\"webhook\"}";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let count = line.expect("it counts them").trim();
        count.parse().expect("a number")
    }

    /// Waits until more than `before` requests have failed.
    pub async fn until_failed(&self, before: u64) {
        wait::by_and_by("a request of Alertmanager to fail", async || {
            self.failures().await > before
        })
        .await;
    }
}

fn program() -> Option<PathBuf> {
    let program = NAMES.into_iter().find_map(found);
    if program.is_none() {
        skipped(
            "Alertmanager",
            "`make monitoring` installs it or says how to",
        );
    }
    program
}
