//! Requests that become streams: exec, attach and port-forward.
//!
//! In: an authorized request. Out: the answer 101 and a task that runs as long as the stream, or an error before
//! the upgrade.

use std::time::Duration;

use http::StatusCode;
use hyper::Request;
use hyper::body::Incoming;

use super::nodes::FoundPod;
use super::remote_command::{self, CommandOutcome, CommandRequest, CommandStreams};
use super::response::{ApiResult, HttpError};
use super::session_lifetime::{self, SessionTarget};
use super::tasks::ListenerTasks;
use super::upgrade::{self, negotiate};
use super::{attach, exec, logs, port_forward};

/// The longest life of a stream, so that a forgotten shell does not stay open forever.
const MAX_STREAM_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Runs a command in a container.
pub fn exec(
    found: FoundPod,
    container: &str,
    request: Request<Incoming>,
    tasks: &ListenerTasks,
) -> ApiResult {
    let wanted = command_request(&found, container, &request)?;
    if wanted.command.is_empty() {
        return Err(HttpError::bad_request("command: it is missing"));
    }
    let target = exec::ExecTarget {
        pod: found.clone(),
        container: container.to_owned(),
    };
    let session = (found, SessionTarget::Container(container.to_owned()));
    start_command(
        request,
        tasks,
        wanted,
        session,
        |streams, wanted| async move { exec::run(&target, &wanted, streams).await },
    )
}

/// Sends the client what a container writes.
pub fn attach(
    found: FoundPod,
    container: &str,
    request: Request<Incoming>,
    tasks: &ListenerTasks,
) -> ApiResult {
    let wanted = command_request(&found, container, &request)?;
    if wanted.stdin {
        // No colon in this text: old versions of kubectl parse a text with a colon as YAML and show none of it.
        return Err(HttpError::bad_request(format!(
            "standard input of container {container} cannot be attached to, as Azure Container Instances does \
             not connect it; attach without -i, or use kubectl exec"
        )));
    }
    let source = logs::LogSource {
        container: container.to_owned(),
        pod: found.clone(),
    };
    let session = (found, SessionTarget::Container(container.to_owned()));
    start_command(request, tasks, wanted, session, |streams, _| {
        attach::run(source, streams)
    })
}

/// Forwards ports of a pod.
pub fn port_forward(
    found: &FoundPod,
    mut request: Request<Incoming>,
    tasks: &ListenerTasks,
) -> ApiResult {
    let ports = port_forward::parse_ports(request.uri().query().unwrap_or_default());
    let ports = ports.map_err(HttpError::bad_request)?;
    let address = found.pod.address.filter(|_| !found.pod.is_group_deleted);
    let Some(address) = address else {
        return Err(HttpError::bad_request(format!(
            "pod {} has no address",
            found.pod.name
        )));
    };
    let negotiated = match negotiate(request.headers(), &port_forward::PROTOCOLS) {
        Ok(negotiated) => negotiated,
        Err(response) => return Ok(*response),
    };
    let (response, pending) = upgrade::upgrade(&mut request, &negotiated)?;
    let session = (found.clone(), SessionTarget::Address);
    tasks.spawn(async move {
        let Some((io, _permit)) = pending.connection().await else {
            return;
        };
        let forwarded = port_forward::forward(io, &negotiated, address, &ports);
        run_session(forwarded, &session).await;
    });
    Ok(response)
}

fn command_request(
    found: &FoundPod,
    container: &str,
    request: &Request<Incoming>,
) -> Result<CommandRequest, HttpError> {
    let wanted = CommandRequest::parse(request.uri().query().unwrap_or_default());
    if !wanted.has_streams() {
        return Err(HttpError::bad_request(
            "you must specify at least 1 of stdin, stdout, stderr",
        ));
    }
    let has_ended = found.pod.container(container).is_some_and(|c| c.has_ended);
    if has_ended {
        let message = format!("container {container} of pod {} has ended", found.pod.name);
        return Err(HttpError::new(StatusCode::BAD_REQUEST, message));
    }
    Ok(wanted)
}

fn start_command<F>(
    mut request: Request<Incoming>,
    tasks: &ListenerTasks,
    wanted: CommandRequest,
    session: (FoundPod, SessionTarget),
    run: impl FnOnce(CommandStreams, CommandRequest) -> F + Send + 'static,
) -> ApiResult
where
    F: Future<Output = CommandOutcome> + Send + 'static,
{
    let negotiated = match negotiate(request.headers(), &remote_command::PROTOCOLS) {
        Ok(negotiated) => negotiated,
        Err(response) => return Ok(*response),
    };
    let (response, pending) = upgrade::upgrade(&mut request, &negotiated)?;
    tasks.spawn(async move {
        let Some((io, _permit)) = pending.connection().await else {
            return;
        };
        let command = wanted.clone();
        let connected =
            remote_command::connect(io, &negotiated, &wanted, |streams| run(streams, command));
        run_session(connected, &session).await;
    });
    Ok(response)
}

/// Runs a stream until it ends, its pod or container ends, or [`MAX_STREAM_LIFETIME`] is over.
async fn run_session(
    stream: impl Future<Output = ()>,
    (found, opened): &(FoundPod, SessionTarget),
) {
    let ended = tokio::select! {
        stream = tokio::time::timeout(MAX_STREAM_LIFETIME, stream) => match stream {
            Ok(()) => return,
            Err(_) => "it has lasted for 24 hours",
        },
        why = session_lifetime::wait_until_over(found, opened) => why,
    };
    let (namespace, pod) = (&found.pod.namespace, &found.pod.name);
    tracing::info!(namespace, pod, why = ended, "ending a session");
}
