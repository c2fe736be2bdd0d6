//! Azure Monitor metrics of a container group: CPU and memory use per minute.
//!
//! In: a timespan and metric names. Out: one series per container if the request asks for it
//! (`$filter=containerName eq '*'`), for at most `top` containers (default 10); otherwise one averaged
//! series. Like the service, a minute that is not over has a timestamp but no value, and CPU is in
//! thousandths of a core. The values of simulated containers come from their scripts. Real containers
//! have no series.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::ArmCall;
use super::error::ArmFailure;
use super::groups::require_group;
use super::response::ArmResponse;
use crate::emulator::clock::ShownClock;
use crate::emulator::group::id::GroupId;
use crate::emulator::group::run::{EmulatedRun, RunState};
use crate::emulator::state::EmulatorState;

/// The supported metrics: name, display name, unit.
const METRICS: [(&str, &str, &str); 2] = [
    ("CpuUsage", "CPU Usage", "Count"),
    ("MemoryUsage", "Memory Usage", "Bytes"),
];
/// The timespan if the request has none: the last hour.
const HOUR: SignedDuration = SignedDuration::from_hours(1);
const MINUTE: i64 = 60;
/// For how many containers a request without `top` gets series.
const DEFAULT_TOP: usize = 10;
/// Default use of a container: thousandths of a CPU core, and bytes of memory.
const DEFAULT_USAGE: (f64, f64) = (1.0, 16_777_216.0);

/// `GET {group}/providers/Microsoft.Insights/metrics`.
pub fn list(
    shared: &EmulatorState,
    call: &ArmCall,
    id: &GroupId,
) -> Result<ArmResponse, ArmFailure> {
    let (now, shown_clock) = (shared.clock.now(), shared.clock.shown_clock());
    let shown_now = shown_clock.shown(now);
    let (since, until) = timespan(call, shown_now)?;
    let interval = call.query.get("interval").map_or("PT1M", String::as_str);
    if interval != "PT1M" {
        return Err(refused(format!(
            "Detected invalid time grain input '{interval}'. The emulator serves PT1M."
        )));
    }
    let names = call.query.get("metricnames");
    let names = names.map_or_else(|| METRICS[0].0.to_owned(), Clone::clone);
    let apart = is_by_container(call)?;
    let top = if apart { top(call)? } else { usize::MAX };
    let mut store = shared.store();
    let group = require_group(&mut store, id, now)?;
    let measured: Vec<&EmulatedRun> = group
        .containers
        .iter()
        .filter(|run| !group.is_real && !run.script.unmeasured)
        .take(top)
        .collect();
    let mut value = Vec::new();
    for name in names.split(',') {
        let mut known = METRICS.iter();
        let known = known.find(|known| known.0.eq_ignore_ascii_case(name));
        let (name, shown, unit) = known.ok_or_else(|| unknown(name))?;
        value.push(json!({
            "id": format!("{id}/providers/Microsoft.Insights/metrics/{name}"),
            "type": "Microsoft.Insights/metrics",
            "name": {"value": name, "localizedValue": shown},
            "unit": unit,
            "timeseries": series(&measured, name, apart, (since, until.min(shown_now)), &shown_clock),
            "errorCode": "Success",
        }));
    }
    Ok(ArmResponse::ok(json!({
        "cost": 0,
        "timespan": format!("{since}/{until}"),
        "interval": interval,
        "namespace": "Microsoft.ContainerInstance/containerGroups",
        "value": value,
    })))
}

fn unknown(name: &str) -> ArmFailure {
    let valid = METRICS.map(|known| known.0).join(",");
    refused(format!(
        "Failed to find metric configuration for provider: Microsoft.ContainerInstance, resource Type: \
         containerGroups, metric: {name}, Valid metrics: {valid}"
    ))
}

/// The query parameter `$filter`: whether each container gets a series.
fn is_by_container(call: &ArmCall) -> Result<bool, ArmFailure> {
    let filter = call.query.get("$filter");
    match filter.map(|filter| filter.to_ascii_lowercase()) {
        None => Ok(false),
        Some(filter) if filter.trim() == "containername eq '*'" => Ok(true),
        Some(filter) => Err(refused(format!("Invalid filter: {filter}"))),
    }
}

/// The query parameter `top`: how many containers get a series.
fn top(call: &ArmCall) -> Result<usize, ArmFailure> {
    let Some(text) = call.query.get("top") else {
        return Ok(DEFAULT_TOP);
    };
    let refusal = |_| refused(format!("Detected invalid TopN value '{text}'"));
    text.parse().map_err(refusal)
}

fn timespan(call: &ArmCall, now: Timestamp) -> Result<(Timestamp, Timestamp), ArmFailure> {
    let Some(text) = call.query.get("timespan") else {
        return Ok((now.saturating_sub(HOUR).unwrap_or(now), now));
    };
    let parsed = text.split_once('/').and_then(|(since, until)| {
        let (since, until): (Timestamp, Timestamp) = (since.parse().ok()?, until.parse().ok()?);
        (since < until).then_some((since, until))
    });
    parsed.ok_or_else(|| refused(format!("Detected invalid timespan input '{text}'")))
}

fn refused(message: String) -> ArmFailure {
    ArmFailure::bad_request("BadRequest", message)
}

fn series(
    runs: &[&EmulatedRun],
    metric: &str,
    apart: bool,
    (since, until): (Timestamp, Timestamp),
    shown_clock: &ShownClock,
) -> Vec<Value> {
    let time_series = |runs: &[&EmulatedRun], labels: Value| {
        let points: Vec<Value> = minutes(since, until)
            .map(|(start, is_over)| {
                let end = start + SignedDuration::from_secs(MINUTE);
                let used: Vec<f64> = runs
                    .iter()
                    .filter(|run| is_over && ran_until(run, end, shown_clock))
                    .map(|run| usage(run, metric))
                    .collect();
                let timestamp = start.to_string();
                #[allow(clippy::cast_precision_loss, reason = "a handful of containers")]
                let average = used.iter().sum::<f64>() / used.len() as f64;
                if used.is_empty() {
                    json!({"timeStamp": timestamp})
                } else {
                    json!({"timeStamp": timestamp, "average": average})
                }
            })
            .collect();
        json!({"metadatavalues": labels, "data": points})
    };
    let label = |run: &EmulatedRun| {
        json!([{
            "name": {"value": "containername", "localizedValue": "containername"},
            "value": run.name,
        }])
    };
    match runs {
        [] => Vec::new(),
        _ if apart => runs
            .iter()
            .map(|run| time_series(&[*run], label(run)))
            .collect(),
        _ => vec![time_series(runs, json!([]))],
    }
}

/// The minutes of a timespan, each with whether it is over at `until`.
fn minutes(since: Timestamp, until: Timestamp) -> impl Iterator<Item = (Timestamp, bool)> {
    let first = since.as_second().div_euclid(MINUTE) * MINUTE;
    let starts = (first..until.as_second()).step_by(60);
    starts.filter_map(move |second| {
        let start = Timestamp::from_second(second).ok()?;
        Some((start, second + MINUTE <= until.as_second()))
    })
}

/// Whether the container's current run was running when the minute ended.
fn ran_until(run: &EmulatedRun, end: Timestamp, shown_clock: &ShownClock) -> bool {
    match run.current {
        Some(RunState::Running { since }) => shown_clock.shown(since) < end,
        Some(RunState::Terminated {
            since, finished, ..
        }) => shown_clock.shown(since) < end && end <= shown_clock.shown(finished),
        _ => false,
    }
}

fn usage(run: &EmulatedRun, metric: &str) -> f64 {
    match metric {
        "CpuUsage" => millicores(run),
        _ => bytes(run),
    }
}

/// A container's CPU use in thousandths of a core.
pub fn millicores(run: &EmulatedRun) -> f64 {
    run.script.cpu.unwrap_or(DEFAULT_USAGE.0)
}

/// A container's memory use in bytes.
pub fn bytes(run: &EmulatedRun) -> f64 {
    run.script.memory.unwrap_or(DEFAULT_USAGE.1)
}
