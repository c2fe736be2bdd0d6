//! What containers use, minute by minute, from Azure Monitor.
//!
//! In: a container group. Out: of each container, CPU and memory of the minutes that are known. The numbers
//! come some minutes late; a minute of which one of the two is missing is left out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{Class, Client, Scope, read};
use crate::aci::error::Error;

/// The version of Azure Monitor that is spoken.
const API_VERSION: &str = "2023-10-01";
/// The metrics of container groups that are told of each container.
const METRICS: [&str; 2] = ["CpuUsage", "MemoryUsage"];
/// How many series are wanted, which are ten where nobody says: more than two for each of the 60 containers
/// that a group may have, as it is not told whether they are counted by metric.
const TOP: &str = "200";

/// What a container used in one minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minute {
    /// When the minute began.
    pub begins: Timestamp,
    /// CPU, in thousandths, on average.
    pub millicores: f64,
    /// Memory, in bytes, on average.
    pub bytes: f64,
}

/// By container, the minutes that are known, in order.
pub type Minutes = BTreeMap<String, Vec<Minute>>;

impl Client {
    /// What the containers of a group used between two times.
    pub async fn usage(
        &self,
        scope: &Scope,
        name: &str,
        (since, until): (Timestamp, Timestamp),
    ) -> Result<Minutes, Error> {
        let what = format!("reading metrics of container group {name}");
        let mut url = self.arm.clone();
        url.set_path(&format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerInstance/containerGroups/{name}/providers/Microsoft.Insights/metrics",
            scope.subscription, scope.resource_group
        ));
        url.query_pairs_mut()
            .clear()
            .append_pair("api-version", API_VERSION)
            .append_pair("metricnames", &METRICS.join(","))
            .append_pair("aggregation", "Average")
            .append_pair("interval", "PT1M")
            .append_pair("timespan", &format!("{since:.0}/{until:.0}"))
            .append_pair("top", TOP)
            .append_pair("$filter", "containerName eq '*'");
        let call = self.read_url(url);
        let answer = self.guarded(scope, Class::Metrics, &what, call).await?;
        Ok(minutes(&read(answer, &what).await?))
    }
}

/// Reads Azure Monitor's answer; what is not understood is as if not there.
fn minutes(answer: &Value) -> Minutes {
    let cpu = points(answer, METRICS[0]);
    let memory = points(answer, METRICS[1]);
    let mut known = Minutes::new();
    for ((container, begins), millicores) in cpu {
        let key = (container, begins);
        if let Some(&bytes) = memory.get(&key) {
            let minute = Minute {
                begins,
                millicores,
                bytes,
            };
            known.entry(key.0).or_default().push(minute);
        }
    }
    known
}

/// The averages of one metric, by container and minute.
fn points(answer: &Value, metric: &str) -> BTreeMap<(String, Timestamp), f64> {
    let metrics = answer["value"].as_array().into_iter().flatten();
    let named = metrics.filter(|value| is(&value["name"]["value"], metric));
    let series = named.filter_map(|value| value["timeseries"].as_array());
    let mut points = BTreeMap::new();
    for one in series.flatten() {
        let labels = one["metadatavalues"].as_array().into_iter().flatten();
        let label = labels.into_iter().find(|label| {
            // Its case changed over the years.
            is(&label["name"]["value"], "containerName")
        });
        let Some(container) = label.and_then(|label| label["value"].as_str()) else {
            continue;
        };
        for point in one["data"].as_array().into_iter().flatten() {
            let at = point["timeStamp"].as_str().and_then(|at| at.parse().ok());
            if let (Some(at), Some(average)) = (at, point["average"].as_f64()) {
                points.insert((container.to_owned(), at), average);
            }
        }
    }
    points
}

fn is(value: &Value, name: &str) -> bool {
    value.as_str().is_some_and(|v| v.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn minutes_of_which_both_numbers_are_known_are_told_by_container() {
        let series = |container: &str, data: Value| {
            json!({
                "metadatavalues": [{"name": {"value": "containername"}, "value": container}],
                "data": data,
            })
        };
        let answer = json!({"value": [
            {"name": {"value": "CpuUsage"}, "timeseries": [
                series("web", json!([
                    {"timeStamp": "2026-11-24T10:00:00Z", "average": 250.0},
                    {"timeStamp": "2026-11-24T10:01:00Z", "average": 500.5},
                    {"timeStamp": "2026-11-24T10:02:00Z"},
                ])),
                series("idle", json!([{"timeStamp": "2026-11-24T10:00:00Z", "average": 0.0}])),
            ]},
            {"name": {"value": "MemoryUsage"}, "timeseries": [
                series("web", json!([
                    {"timeStamp": "2026-11-24T10:01:00Z", "average": 1024.0},
                    {"timeStamp": "2026-11-24T10:02:00Z", "average": 2048.0},
                ])),
            ]},
        ]});
        let known = minutes(&answer);
        let minute = Minute {
            begins: "2026-11-24T10:01:00Z".parse().expect("a time"),
            millicores: 500.5,
            bytes: 1024.0,
        };
        assert_eq!(known, Minutes::from([("web".to_owned(), vec![minute])]));
        assert!(minutes(&json!({"value": []})).is_empty());
    }
}
