//! A real Alertmanager on loopback, for tests of alert triggers.
//!
//! In: where it sends alerts, and the file of the token that it shows there. Out: alerts that fire and
//! are resolved, as rules of Prometheus would tell them. It ends with the test.

use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan as _};
use serde_json::json;
use tokio::process::{Child, Command};

use super::monitoring::{found, free_port, quietly, until_ready};
use super::{skipped, wait};

/// What Debian and its makers call it.
const NAMES: [&str; 2] = ["prometheus-alertmanager", "alertmanager"];

/// A real Alertmanager that tells a webhook of alerts at once, and every two seconds again.
pub struct Alertmanager {
    _child: Child,
    address: String,
    _files: tempfile::TempDir,
}

impl Alertmanager {
    /// One that sends to `webhook`; nothing, said aloud, if there is none and none is required.
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
        // YAML holds JSON.
        std::fs::write(at("config.yml"), config.to_string()).expect("it is written");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", at("config.yml")))
            .arg(format!("--storage.path={}", at("data")))
            .arg(format!("--web.listen-address={address}"))
            // No cluster: it would look for an address of the machine's own.
            .arg("--cluster.listen-address=");
        let alertmanager = Self {
            _child: quietly(&mut command),
            address: format!("http://{address}"),
            _files: files,
        };
        until_ready(&format!("{}/-/ready", alertmanager.address)).await;
        Some(alertmanager)
    }

    /// An alert of this name fires.
    pub async fn fire(&self, name: &str) {
        self.tell(name, Timestamp::now() + 1.hour()).await;
    }

    /// It fires no more.
    pub async fn resolve(&self, name: &str) {
        self.tell(name, Timestamp::now()).await;
    }

    /// Says what Prometheus says of an alert: since when it fires, and when it is over if it is not
    /// heard of again.
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

    /// How many of its requests to the webhook have failed so far, as it counts them itself.
    pub async fn failures(&self) -> u64 {
        let text = reqwest::get(format!("{}/metrics", self.address)).await;
        let text = text.expect("an answer").text().await.expect("text");
        let name = "alertmanager_notification_requests_failed_total{integration=\"webhook\"}";
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let count = line.expect("it counts them").trim();
        count.parse().expect("a number")
    }

    /// Waits until one of its requests has failed, more than these.
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
