//! What a test sees of the emulated Azure, and changes in it.

use burstpool::emulator::Emulator;
use burstpool::emulator::timeline::TimelineEntry;
use serde_json::Value;

use super::World;

impl World {
    /// The timeline of every group that ever existed, oldest first.
    pub fn timeline(&self) -> Vec<TimelineEntry> {
        timeline(&self.azure)
    }

    /// The UIDs of pods, from the tags of all groups in Azure.
    pub fn groups(&self) -> Vec<String> {
        let now = self.azure.shared().clock.now();
        let mut store = self.azure.shared().store();
        store.advance_all(now);
        let tags = store
            .groups
            .values()
            .filter_map(|group| group.body.tags.as_ref());
        tags.filter_map(|tags| tags.get("burstpool-pod-uid").cloned())
            .collect()
    }

    /// How many times the operator sent a PUT for a group.
    pub fn puts(&self) -> usize {
        puts(&self.azure)
    }

    pub async fn admin(&self, path: &str, body: &Value) {
        let url = format!("{}/_emulator/{path}", self.azure.url());
        let sent = reqwest::Client::new()
            .post(url)
            .json(body)
            .send()
            .await
            .expect("an answer");
        assert!(sent.status().is_success());
    }

    pub async fn no_faults(&self) {
        let url = format!("{}/_emulator/faults", self.azure.url());
        reqwest::Client::new()
            .delete(url)
            .send()
            .await
            .expect("an answer");
    }
}

/// The timeline of every group that ever existed, oldest first.
pub fn timeline(azure: &Emulator) -> Vec<TimelineEntry> {
    let now = azure.shared().clock.now();
    let mut store = azure.shared().store();
    store.advance_all(now);
    store.timeline.entries().cloned().collect()
}

/// How many times the operator sent a PUT for a group.
pub fn puts(azure: &Emulator) -> usize {
    let text = azure.shared().counters.text();
    let lines = text
        .lines()
        .filter(|line| line.contains("ContainerGroups_CreateOrUpdate"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}
