//! The admin interface under `/_emulator/`: faults, capacity, quotas, rights, the path to subnets, limits, the clock,
//! scripts of simulated containers, the timeline, the counters, and an HTML page.
//!
//! In: JSON. Out: JSON, or 400 with the invalid field and the reason. No credential is needed.

pub mod page;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use http::StatusCode;
use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::arm::route::region;
use super::arm::throttle::ThrottleLimits;
use super::group::id::{GroupId, GroupKey};
use super::group::run::RunState;
use super::group::script::{ContainerScript, to_duration};
use super::state::EmulatorState;
use super::store::{CapacityFailure, GroupStore};

type AdminState = State<Arc<EmulatorState>>;
type AdminResult = Result<Json<Value>, AdminError>;

/// An error response: status and message.
#[derive(Debug)]
struct AdminError(StatusCode, String);

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

/// The routes under `/_emulator`.
pub fn router() -> Router<Arc<EmulatorState>> {
    Router::new()
        .route("/", get(page::page))
        .route("/metrics", get(metrics))
        .route("/timeline", get(timeline))
        .route("/faults", get(faults).post(add_fault).delete(remove_faults))
        .route("/faults/{id}", delete(remove_fault))
        .route(
            "/capacity/{region}",
            put(lack_capacity).delete(restore_capacity),
        )
        .route("/quotas", put(set_quotas))
        .route("/rights", put(set_rights))
        .route("/path", put(set_path))
        .route("/limits", get(limits).put(set_limits))
        .route("/clock", get(clock).post(set_clock))
        .route("/scripts", put(set_script))
        .route("/exit", post(exit))
        .route(
            "/groups/{subscription}/{resource_group}/{name}",
            delete(vanish),
        )
        .route("/reset", post(reset))
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, AdminError> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut reader).map_err(|why| refuse(why.to_string()))
}

fn refuse(why: String) -> AdminError {
    AdminError(StatusCode::BAD_REQUEST, why)
}

fn done() -> Json<Value> {
    Json(json!({"done": true}))
}

async fn metrics(State(shared): AdminState) -> String {
    shared.counters.text()
}

async fn timeline(State(shared): AdminState) -> Json<Value> {
    let (now, shown_clock) = (shared.clock.now(), shared.clock.shown_clock());
    let mut store = shared.store();
    store.advance_all(now);
    let entries = store
        .timeline
        .entries()
        .map(|entry| entry.shown(&shown_clock));
    Json(json!({"groups": entries.collect::<Vec<_>>()}))
}

async fn faults(State(shared): AdminState) -> Json<Value> {
    Json(json!({"faults": shared.store().faults.rules()}))
}

async fn add_fault(State(shared): AdminState, body: Bytes) -> AdminResult {
    let id = shared.store().faults.add(read(&body)?).map_err(refuse)?;
    Ok(Json(json!({"id": id})))
}

async fn remove_faults(State(shared): AdminState) -> Json<Value> {
    Json(json!({"removed": shared.store().faults.remove(None)}))
}

async fn remove_fault(State(shared): AdminState, Path(id): Path<u64>) -> Json<Value> {
    Json(json!({"removed": shared.store().faults.remove(Some(id))}))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LackCapacity {
    failure: CapacityFailure,
    count: Option<u64>,
}

async fn lack_capacity(
    State(shared): AdminState,
    Path(location): Path<String>,
    body: Bytes,
) -> AdminResult {
    let request: LackCapacity = read(&body)?;
    if request.count == Some(0) {
        return Err(refuse("count: must be at least 1".to_owned()));
    }
    shared
        .store()
        .capacity
        .insert(region(&location), (request.failure, request.count));
    Ok(done())
}

async fn restore_capacity(State(shared): AdminState, Path(location): Path<String>) -> Json<Value> {
    Json(json!({"removed": shared.store().capacity.remove(&region(&location)).is_some()}))
}

async fn set_quotas(State(shared): AdminState, body: Bytes) -> AdminResult {
    let quotas: BTreeMap<String, u64> = read(&body)?;
    shared.store().quotas.extend(quotas);
    Ok(done())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetRights {
    withheld: Vec<String>,
}

/// Sets the role actions that the credential lacks. Replaces the earlier list.
async fn set_rights(State(shared): AdminState, body: Bytes) -> AdminResult {
    let request: SetRights = read(&body)?;
    let actions = request.withheld.iter().map(|action| action.to_lowercase());
    shared.store().withheld = actions.collect();
    Ok(done())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetPath {
    cut: bool,
}

/// Cuts the path to the groups in subnets, or restores it.
async fn set_path(State(shared): AdminState, body: Bytes) -> AdminResult {
    let request: SetPath = read(&body)?;
    shared.store().is_path_cut = request.cut;
    Ok(done())
}

async fn limits(State(shared): AdminState) -> Json<ThrottleLimits> {
    Json(shared.store().limits)
}

async fn set_limits(State(shared): AdminState, body: Bytes) -> AdminResult {
    let limits: ThrottleLimits = read(&body)?;
    let mut store = shared.store();
    store.limits = limits;
    store.throttle.reset();
    Ok(done())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetClock {
    paused: Option<bool>,
    speed: Option<f64>,
    advance: Option<SignedDuration>,
}

async fn clock(State(shared): AdminState) -> Json<Value> {
    let clock = &shared.clock;
    let now = clock.shown_clock().shown(clock.now());
    Json(json!({"now": now, "paused": clock.is_paused(), "speed": clock.speed()}))
}

async fn set_clock(State(shared): AdminState, body: Bytes) -> AdminResult {
    let request: SetClock = read(&body)?;
    if let Some(speed) = request.speed {
        if speed <= 0.0 {
            return Err(refuse(format!("speed: {speed} must be greater than 0")));
        }
        shared.clock.set_speed(speed);
    }
    match request.paused {
        Some(true) => shared.clock.pause(),
        Some(false) => shared.clock.resume(),
        None => {}
    }
    if let Some(duration) = request.advance {
        shared.clock.advance(to_duration(duration));
    }
    Ok(clock(State(shared)).await)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SetScript {
    group: String,
    container: String,
    script: ContainerScript,
}

/// Sets a container's script, for existing groups and for groups created later. An exit that is already
/// scheduled stays as it is until the container's next start.
async fn set_script(State(shared): AdminState, body: Bytes) -> AdminResult {
    let SetScript {
        group,
        container,
        script,
    } = read(&body)?;
    let now = shared.clock.now();
    let mut store = shared.store();
    for key in groups_named(&store, &group) {
        let Some(group) = store.group(&key, now).filter(|group| !group.is_real) else {
            continue;
        };
        for run in group
            .containers
            .iter_mut()
            .filter(|run| run.name == container)
        {
            run.script = script.clone();
        }
    }
    store.scripts.insert((group, container), script);
    Ok(done())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExitRequest {
    group: String,
    container: String,
    code: i32,
}

/// Ends a running simulated container with an exit code.
async fn exit(State(shared): AdminState, body: Bytes) -> AdminResult {
    let ExitRequest {
        group: name,
        container,
        code,
    } = read(&body)?;
    let now = shared.clock.now();
    let mut store = shared.store();
    let mut ended = 0;
    for key in groups_named(&store, &name) {
        let Some(group) = store.group(&key, now).filter(|group| !group.is_real) else {
            continue;
        };
        let policy = group.policy();
        let mut runs = group
            .containers
            .iter_mut()
            .filter(|run| run.name == container);
        if let Some(run) = runs.find(|run| matches!(run.current, Some(RunState::Running { .. }))) {
            run.exit(now, code, policy);
            ended += 1;
        }
    }
    if ended == 0 {
        let why = format!("no simulated container '{container}' of a group '{name}' is running");
        return Err(AdminError(StatusCode::NOT_FOUND, why));
    }
    Ok(done())
}

/// Removes a group immediately, without a DELETE: imitates a deletion by another client.
async fn vanish(
    State(shared): AdminState,
    Path((subscription, resource_group, name)): Path<(String, String, String)>,
) -> AdminResult {
    let key = GroupId {
        subscription,
        resource_group,
        name,
    }
    .key();
    let now = shared.clock.now();
    let removed = shared.store().remove(&key, now);
    if let (Some(_), Some(engine)) = (&removed, &shared.engine) {
        engine.remove(&shared, key);
    }
    Ok(Json(json!({"removed": removed.is_some()})))
}

/// Resets everything but the clock to the state at start.
async fn reset(State(shared): AdminState) -> Json<Value> {
    let keys: Vec<GroupKey> = {
        let mut store = shared.store();
        let keys = store.groups.keys().cloned().collect();
        *store = GroupStore::new(&shared.options);
        keys
    };
    if let Some(engine) = &shared.engine {
        for key in keys {
            engine.remove(&shared, key);
        }
    }
    shared.counters.reset();
    done()
}

fn groups_named(store: &GroupStore, name: &str) -> Vec<GroupKey> {
    let name = name.to_lowercase();
    store
        .groups
        .keys()
        .filter(|key| key.name == name)
        .cloned()
        .collect()
}
