//! Operations on one container of a group: logs, exec and attach.

use std::sync::Arc;

use http::StatusCode;
use serde_json::json;

use super::ArmCall;
use super::error::ArmFailure;
use super::groups::{parse_body, require_group};
use super::response::ArmResponse;
use super::route::ContainerVerb;
use crate::emulator::group::id::GroupId;
use crate::emulator::group::lifecycle::EmulatedGroup;
use crate::emulator::group::log::{ContainerLog, RUNNING_LIMIT, last_bytes};
use crate::emulator::group::model::ExecBody;
use crate::emulator::group::run::{EmulatedRun, RunState};
use crate::emulator::group::stage::GroupStage;
use crate::emulator::state::EmulatorState;
use crate::emulator::stream::{StreamSession, StreamWork};

/// Handles an operation on one container.
pub async fn container(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    id: &GroupId,
    name: &str,
    verb: ContainerVerb,
) -> Result<ArmResponse, ArmFailure> {
    match verb {
        ContainerVerb::ListLogs => logs(shared, call, id, name).await,
        ContainerVerb::ExecuteCommand => exec(shared, call, id, name),
        ContainerVerb::Attach => {
            find_log(shared, id, name)?;
            Ok(session(
                shared,
                call,
                id,
                name,
                StreamWork::Attach,
                (24, 80),
            ))
        }
    }
}

async fn logs(
    shared: &Arc<EmulatorState>,
    call: &ArmCall,
    id: &GroupId,
    name: &str,
) -> Result<ArmResponse, ArmFailure> {
    let tail = match call.query.get("tail") {
        None => None,
        Some(text) => Some(
            text.parse::<i32>()
                .ok()
                .and_then(|n| usize::try_from(n).ok())
                .ok_or_else(|| {
                    let message = format!(
                        "The value '{text}' of the parameter 'tail' must be a number of lines."
                    );
                    ArmFailure::bad_request("InvalidParameter", message)
                })?,
        ),
    };
    let timestamps = call
        .query
        .get("timestamps")
        .is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let log = find_log(shared, id, name)?;
    let content = match (&shared.engine, log) {
        (Some(engine), None) => {
            let text = engine.logs(&id.key(), name, tail, timestamps).await;
            last_bytes(text, RUNNING_LIMIT)
        }
        (_, log) => {
            let shown_clock = shared.clock.shown_clock();
            let times = timestamps.then_some(&shown_clock);
            log.unwrap_or_default().text(tail, times)
        }
    };
    Ok(ArmResponse::ok(json!({"content": content})))
}

fn exec(
    shared: &EmulatorState,
    call: &ArmCall,
    id: &GroupId,
    name: &str,
) -> Result<ArmResponse, ArmFailure> {
    let body: ExecBody = parse_body(call)?;
    let command = body.command.unwrap_or_default();
    if command.trim().is_empty() {
        let message = "The property 'command' is required.";
        return Err(ArmFailure::bad_request("InvalidRequestContent", message).about("command"));
    }
    let size = body.terminal_size.unwrap_or_default();
    let in_range = |n: Option<i64>, default| {
        n.and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)
            .unwrap_or(default)
    };
    let size = (in_range(size.rows, 24), in_range(size.cols, 80));
    // Like the service, succeed also for a container that has ended: its session just closes.
    find_log(shared, id, name)?;
    Ok(session(
        shared,
        call,
        id,
        name,
        StreamWork::Exec { command },
        size,
    ))
}

fn session(
    shared: &EmulatorState,
    call: &ArmCall,
    id: &GroupId,
    container: &str,
    work: StreamWork,
    (rows, cols): (u16, u16),
) -> ArmResponse {
    let path = match work {
        StreamWork::Exec { .. } => "execstream",
        StreamWork::Attach => "attachstream",
    };
    let session = StreamSession {
        group: id.key(),
        container: container.to_owned(),
        work,
        rows,
        cols,
    };
    let (number, password) = shared.sessions.open(session);
    let origin = call.origin.replacen("http", "ws", 1);
    let uri = format!("{origin}/{path}/sessionId/{number}?api-version=1.0&rows={rows}&cols={cols}");
    ArmResponse::ok(json!({"webSocketUri": uri, "password": password}))
}

/// Checks that the container has started. Returns its log, or `None` if the engine has the log (a real
/// container of a group that is not stopped).
fn find_log(
    shared: &EmulatorState,
    id: &GroupId,
    name: &str,
) -> Result<Option<ContainerLog>, ArmFailure> {
    let now = shared.clock.now();
    let mut store = shared.store();
    let group = require_group(&mut store, id, now)?;
    let Some(run) = run(group, name) else {
        let resource = format!(
            "Microsoft.ContainerInstance/containerGroups/{}/containers/{name}",
            id.name
        );
        return Err(ArmFailure::resource_not_found(
            &resource,
            &id.resource_group,
        ));
    };
    let started = !matches!(run.current, None | Some(RunState::Waiting { detail: "" }));
    if !started
        || matches!(
            group.stage,
            GroupStage::Allocating { .. } | GroupStage::Pulling { .. }
        )
    {
        let message = format!("The container group '{}' is not ready.", id.name);
        let error = ArmFailure::new(
            StatusCode::CONFLICT,
            "ContainerGroupDeploymentNotReady",
            message,
        );
        return Err(error);
    }
    let kept = !group.is_real || group.stage == GroupStage::Stopped;
    Ok(kept.then(|| run.log.clone()))
}

fn run<'a>(group: &'a EmulatedGroup, name: &str) -> Option<&'a EmulatedRun> {
    group
        .containers
        .iter()
        .chain(&group.init)
        .find(|run| run.name == name)
}
