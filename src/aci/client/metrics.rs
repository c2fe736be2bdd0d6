//! CPU and memory usage of containers, minute by minute, from Azure Monitor.
//!
//! In: a container group and a time span. Out: for each container, the minutes for which Azure Monitor has both CPU
//! and memory. The numbers arrive some minutes late; a minute with only one of the two is left out.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::{AciClient, GroupScope, RequestClass, read_json};
use crate::aci::error::Error;

/// The API version of Azure Monitor.
const API_VERSION: &str = "2023-10-01";
/// The metrics of container groups that Azure Monitor splits by container.
const METRICS: [&str; 2] = ["CpuUsage", "MemoryUsage"];
/// The number of time series to request; the default is 10. It is more than two for each of the 60 containers that
/// a group may have, because the documentation does not say whether the limit applies to each metric or to all.
const MAX_SERIES: &str = "200";

/// The usage of a container in one minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MinuteUsage {
    /// The start of the minute.
    pub start: Timestamp,
    /// Average CPU, in millicores.
    pub millicores: f64,
    /// Average memory, in bytes.
    pub memory_bytes: f64,
}

/// The known minutes of each container, in order of time.
pub type MinuteUsages = BTreeMap<String, Vec<MinuteUsage>>;

impl AciClient {
    /// The usage of the containers of a group between `since` and `until`.
    pub async fn container_usage(
        &self,
        scope: &GroupScope,
        name: &str,
        (since, until): (Timestamp, Timestamp),
    ) -> Result<MinuteUsages, Error> {
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
            .append_pair("top", MAX_SERIES)
            .append_pair("$filter", "containerName eq '*'");
        let call = self.get_url(url);
        let answer = self
            .send_counted(scope, RequestClass::Metrics, &what, call)
            .await?;
        Ok(parse_minutes(&read_json(answer, &what).await?))
    }
}

/// Parses Azure Monitor's answer. Unknown or malformed parts are skipped.
fn parse_minutes(answer: &Value) -> MinuteUsages {
    let cpu = parse_points(answer, METRICS[0]);
    let memory = parse_points(answer, METRICS[1]);
    let mut known = MinuteUsages::new();
    for ((container, start), millicores) in cpu {
        let key = (container, start);
        if let Some(&bytes) = memory.get(&key) {
            let minute = MinuteUsage {
                start,
                millicores,
                memory_bytes: bytes,
            };
            known.entry(key.0).or_default().push(minute);
        }
    }
    known
}

/// The averages of one metric, by container and minute.
fn parse_points(answer: &Value, metric: &str) -> BTreeMap<(String, Timestamp), f64> {
    let metrics = answer["value"].as_array().into_iter().flatten();
    let named = metrics.filter(|value| is_named(&value["name"]["value"], metric));
    let series = named.filter_map(|value| value["timeseries"].as_array());
    let mut points = BTreeMap::new();
    for series in series.flatten() {
        let labels = series["metadatavalues"].as_array().into_iter().flatten();
        let label = labels.into_iter().find(|label| {
            // Azure has changed the case of this name over the years.
            is_named(&label["name"]["value"], "containerName")
        });
        let Some(container) = label.and_then(|label| label["value"].as_str()) else {
            continue;
        };
        for point in series["data"].as_array().into_iter().flatten() {
            let at = point["timeStamp"].as_str().and_then(|at| at.parse().ok());
            if let (Some(at), Some(average)) = (at, point["average"].as_f64()) {
                points.insert((container.to_owned(), at), average);
            }
        }
    }
    points
}

fn is_named(value: &Value, name: &str) -> bool {
    value.as_str().is_some_and(|v| v.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn minutes_with_both_numbers_are_returned_for_each_container() {
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
        let known = parse_minutes(&answer);
        let minute = MinuteUsage {
            start: "2026-11-24T10:01:00Z".parse().expect("a time"),
            millicores: 500.5,
            memory_bytes: 1024.0,
        };
        assert_eq!(
            known,
            MinuteUsages::from([("web".to_owned(), vec![minute])])
        );
        assert!(parse_minutes(&json!({"value": []})).is_empty());
    }
}
