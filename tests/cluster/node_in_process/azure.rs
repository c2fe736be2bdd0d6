//! The Azure of one test: its groups, the requests for them, and faults.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use burstpool::emulator::group::id::GroupKey;
use burstpool::emulator::group::model::GroupBody;
use burstpool::emulator::timeline::TimelineEntry;
use burstpool::emulator::{Emulator, EmulatorOptions};
use serde_json::{Value, json};

use super::Burst;
use crate::support::wait;
use crate::world::azure::{puts, timeline};

/// An Azure that runs twenty times as fast as the real one.
pub async fn azure() -> Arc<Emulator> {
    let options = EmulatorOptions {
        speed: 20.0,
        ..EmulatorOptions::default()
    };
    Arc::new(Emulator::start(options).await.expect("the emulator starts"))
}

impl Burst {
    /// The keys of all groups in Azure.
    pub fn groups(&self) -> Vec<GroupKey> {
        let now = self.emulator.shared().clock.now();
        let mut store = self.emulator.shared().store();
        store.advance_all(now);
        store.groups.keys().cloned().collect()
    }

    /// The request bodies of all groups in Azure by name, secrets included.
    pub fn bodies(&self) -> BTreeMap<String, GroupBody> {
        let store = self.emulator.shared().store();
        let groups = store.groups.iter();
        groups
            .map(|(key, group)| (key.name.clone(), group.body.clone()))
            .collect()
    }

    /// Creates a group that does not belong to burstpool, with this name and these tags.
    pub async fn foreign(&self, name: &str, tags: &BTreeMap<String, String>) {
        let url = format!(
            "{}/subscriptions/sub/resourceGroups/rg/providers/Microsoft.ContainerInstance/\
             containerGroups/{name}?api-version=2023-05-01",
            self.emulator.url()
        );
        let resources = json!({"requests": {"cpu": 1.0, "memoryInGB": 1.0}});
        let container =
            json!({"name": "theirs", "properties": {"image": "theirs", "resources": resources}});
        let body = json!({
            "location": "westeurope", "tags": tags,
            "properties": {"osType": "Linux", "containers": [container]},
        });
        let put = reqwest::Client::new().put(url).bearer_auth("theirs");
        let answer = put.json(&body).send().await.expect("an answer");
        assert_eq!(answer.status(), 201);
    }

    /// The timeline of every group that ever existed, oldest first.
    pub fn timeline(&self) -> Vec<TimelineEntry> {
        timeline(&self.emulator)
    }

    /// How many requests of an operation got this status.
    pub fn answers(&self, operation: &str, status: &str) -> usize {
        let labels = format!("operation=\"{operation}\",status=\"{status}\"");
        let text = self.emulator.shared().counters.text();
        let mut lines = text.lines().filter(|line| line.contains(&labels));
        let count = lines.find_map(|line| line.rsplit(' ').next()?.parse().ok());
        count.unwrap_or_default()
    }

    /// Waits until `is_so`. Polls, because Azure has no watch.
    pub async fn eventually(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let mut again = tokio::time::interval(Duration::from_millis(50));
        let asking = async {
            while !is_so(self) {
                again.tick().await;
            }
        };
        let asked = tokio::time::timeout(wait::DEADLINE, asking).await;
        assert!(
            asked.is_ok(),
            "{what} is not so after a minute: {:?}",
            self.groups()
        );
    }

    /// How many times the operator sent a PUT for a group.
    pub fn puts(&self) -> usize {
        puts(&self.emulator)
    }

    pub async fn admin(&self, path: &str, body: &Value) {
        let url = format!("{}/_emulator/{path}", self.emulator.url());
        let sent = reqwest::Client::new().put(url).json(body).send().await;
        assert!(sent.expect("an answer").status().is_success());
    }

    /// Removes all faults.
    pub fn no_faults(&self) {
        self.emulator.shared().store().faults.remove(None);
    }

    /// Removes the fault that [`Burst::fault`] returned this id of.
    pub fn no_fault(&self, id: u64) {
        let removed = self.emulator.shared().store().faults.remove(Some(id));
        assert_eq!(removed, 1, "fault {id}");
    }

    /// Adds a fault and returns its id.
    pub async fn fault(&self, rule: Value) -> u64 {
        let url = format!("{}/_emulator/faults", self.emulator.url());
        let sent = reqwest::Client::new()
            .post(url)
            .json(&rule)
            .send()
            .await
            .expect("an answer");
        assert!(sent.status().is_success());
        let added: Value = sent.json().await.expect("JSON");
        added["id"].as_u64().expect("the fault's id")
    }
}
