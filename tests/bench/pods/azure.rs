//! What the emulator counts and records.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::Value;

use crate::emulator::Emulator;

/// The number of container groups.
pub(super) async fn groups(azure: &Emulator) -> usize {
    let url = format!(
        "{}/subscriptions/s/resourceGroups/g/providers/Microsoft.ContainerInstance/containerGroups?api-version=2025-09-01",
        azure.url
    );
    let asked = reqwest::Client::new().get(url).bearer_auth("any").send();
    let answer = asked.await.expect("an answer").text().await;
    let answer: Value = serde_json::from_str(&answer.expect("a body")).expect("JSON");
    answer["value"].as_array().map_or(0, Vec::len)
}

/// How many calls the emulator has answered.
pub(super) struct Calls {
    pub(super) gets: f64,
    pub(super) lists: f64,
    pub(super) puts: f64,
}

impl Calls {
    pub(super) async fn of(azure: &Emulator) -> Self {
        Self {
            gets: counted(azure, "\"ContainerGroups_Get\"").await,
            lists: counted(azure, "\"ContainerGroups_ListByResourceGroup\"").await,
            puts: counted(azure, "\"ContainerGroups_CreateOrUpdate\"").await,
        }
    }

    /// The calls since `before`, per pod.
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    pub(super) fn since(&self, before: &Self, pods: usize) -> Self {
        let each = |now: f64, then: f64| (now - then) / pods as f64;
        Self {
            gets: each(self.gets, before.gets),
            lists: each(self.lists, before.lists),
            puts: each(self.puts, before.puts),
        }
    }
}

/// The emulator's timeline by pod: PUT received, running, DELETE received.
pub(super) async fn timeline(azure: &Emulator) -> HashMap<String, [Option<Timestamp>; 3]> {
    let url = format!("{}/_emulator/timeline", azure.url);
    let text = reqwest::get(url)
        .await
        .expect("an answer")
        .text()
        .await
        .expect("a body");
    let timeline: Value = serde_json::from_str(&text).expect("JSON");
    let at = |entry: &Value, field: &str| entry[field].as_str().and_then(|text| text.parse().ok());
    let entries = timeline["groups"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| {
            let name = entry["group"].as_str()?.rsplit('/').next()?;
            let pod = name
                .strip_prefix("default-")?
                .rsplit_once('-')?
                .0
                .to_owned();
            Some((
                pod,
                ["putReceived", "running", "deleteReceived"].map(|field| at(entry, field)),
            ))
        })
        .collect()
}

async fn counted(azure: &Emulator, operation: &str) -> f64 {
    let url = format!("{}/_emulator/metrics", azure.url);
    let text = reqwest::get(url)
        .await
        .expect("an answer")
        .text()
        .await
        .expect("a body");
    let lines = text.lines().filter(|line| line.contains(operation));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
