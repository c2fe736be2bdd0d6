//! The realtime-metrics extension: the CPU and memory that containers use now, served at the group's
//! address.
//!
//! In: the store. Out: one HTTP server per group that is in a subnet, has the extension and has a
//! running container. Azure does not document the format. This one has the fields that Microsoft's own
//! virtual kubelet reads, and lists Azure's own `infra` container next to those of the group. Only for
//! simulated groups: the address of a group that an engine runs belongs to its containers.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::arm::metrics::{bytes, millicores};
use super::clock::ShownClock;
use super::group::id::GroupKey;
use super::group::run::{EmulatedRun, RunState};
use super::state::EmulatorState;

/// The port at which the extension answers.
pub const PORT: u16 = 18899;
/// The extension's `extensionType`.
const EXTENSION_TYPE: &str = "realtime-metrics";
/// How often [`serve`] looks for groups that have started or ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Serves the extensions of all groups until `cancel`.
pub async fn serve(shared: Arc<EmulatorState>, cancel: CancellationToken, tasks: TaskTracker) {
    let mut served: HashMap<GroupKey, (Ipv4Addr, DropGuard)> = HashMap::new();
    let mut every = tokio::time::interval(POLL_INTERVAL);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = cancel.cancelled() => return,
        }
        let groups = groups_to_serve(&shared);
        served.retain(|key, (address, _)| groups.get(key) == Some(address));
        for (key, address) in groups {
            if served.contains_key(&key) {
                continue;
            }
            match TcpListener::bind((address, PORT)).await {
                Ok(listener) => {
                    let group_cancel = cancel.child_token();
                    tasks.spawn(serve_group(
                        listener,
                        &shared,
                        key.clone(),
                        group_cancel.clone(),
                    ));
                    served.insert(key, (address, group_cancel.drop_guard()));
                }
                // Another emulator's group may hold the address; the next tick tries again.
                Err(error) => tracing::warn!(%address, %error, "cannot listen for a group"),
            }
        }
    }
}

/// The groups whose extension must answer now, with their addresses.
fn groups_to_serve(shared: &EmulatorState) -> HashMap<GroupKey, Ipv4Addr> {
    let now = shared.clock.now();
    let mut store = shared.store();
    store.advance_all(now);
    if store.is_path_cut {
        return HashMap::new();
    }
    let groups = store.groups.iter().filter(|(_, group)| {
        let properties = group.body.properties.as_ref();
        let has = |p: &super::group::model::Properties| {
            p.is_in_subnet() && p.has_extension(EXTENSION_TYPE)
        };
        !group.is_real && properties.is_some_and(has) && group.containers.iter().any(runs)
    });
    groups
        .filter_map(|(key, group)| Some((key.clone(), group.ip?)))
        .collect()
}

fn runs(run: &EmulatedRun) -> bool {
    matches!(run.current, Some(RunState::Running { .. }))
}

fn serve_group(
    listener: TcpListener,
    shared: &Arc<EmulatorState>,
    key: GroupKey,
    ends: CancellationToken,
) -> impl Future<Output = ()> + 'static + use<> {
    let extension = Arc::new(Extension {
        shared: shared.clone(),
        key,
        counted: Mutex::default(),
    });
    let router = Router::new()
        .route("/v1/stats", get(stats))
        .with_state(extension);
    async move {
        tokio::select! {
            ended = axum::serve(listener, router) => drop(ended),
            () = ends.cancelled() => {}
        }
    }
}

/// The realtime-metrics extension of one group.
struct Extension {
    shared: Arc<EmulatorState>,
    key: GroupKey,
    /// CPU use so far, by container. Accumulated, because a script may change the usage in between.
    counted: Mutex<HashMap<String, MeteredContainer>>,
}

/// The CPU seconds that one run used from `since` to `until`, in the times that clients see.
#[derive(Clone, Copy)]
struct MeteredContainer {
    since: Timestamp,
    until: Timestamp,
    seconds: f64,
}

async fn stats(State(extension): State<Arc<Extension>>) -> Result<Json<Value>, StatusCode> {
    let shared = &extension.shared;
    let (now, shown_clock) = (shared.clock.now(), shared.clock.shown_clock());
    let mut store = shared.store();
    let group = store
        .group(&extension.key, now)
        .ok_or(StatusCode::NOT_FOUND)?;
    let now = shown_clock.shown(now);
    let measured = group.containers.iter().filter(|run| !run.script.unmeasured);
    let mut usages: Vec<(String, f64, f64)> = measured
        .filter_map(|run| {
            Some((
                run.name.clone(),
                extension.count(run, now, &shown_clock)?,
                bytes(run),
            ))
        })
        .collect();
    usages.push(("infra".to_owned(), 0.5, 1_048_576.0));
    let (seconds, memory) = usages
        .iter()
        .fold((0.0, 0.0), |(s, m), (_, seconds, bytes)| {
            (s + seconds, m + bytes)
        });
    let containers = usages.iter().map(|(name, seconds, bytes)| {
        let mut stats_json = usage_json(*seconds, *bytes);
        stats_json["name"] = json!(name);
        stats_json
    });
    let mut stats_json = usage_json(seconds, memory);
    stats_json["containers"] = containers.collect();
    stats_json["timestamp"] = json!(u64::try_from(now.as_nanosecond()).unwrap_or_default());
    stats_json["network"] = json!({"name": "eth0", "interfaces": []});
    Ok(Json(stats_json))
}

impl Extension {
    /// The CPU seconds that the container's current run has used by `now`. `None` if it does not run.
    fn count(&self, run: &EmulatedRun, now: Timestamp, shown_clock: &ShownClock) -> Option<f64> {
        let Some(RunState::Running { since }) = run.current else {
            return None;
        };
        let since = shown_clock.shown(since);
        let start = MeteredContainer {
            since,
            until: since,
            seconds: 0.0,
        };
        let mut counters = self.counted.lock();
        let counter = counters.entry(run.name.clone()).or_insert(start);
        if counter.since != since {
            *counter = start;
        }
        let passed = now.duration_since(counter.until).as_secs_f64();
        counter.seconds += millicores(run) / 1000.0 * passed;
        counter.until = now;
        Some(counter.seconds)
    }
}

fn usage_json(seconds: f64, bytes: f64) -> Value {
    json!({
        "cpu": {"usageCoreNanoSeconds": to_u64(seconds * 1e9)},
        "memory": {
            "usageBytes": to_u64(bytes), "workingSetBytes": to_u64(bytes), "rssBytes": to_u64(bytes),
        },
    })
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such a cast goes to the nearest number that there is"
)]
fn to_u64(number: f64) -> u64 {
    number.round() as u64
}
