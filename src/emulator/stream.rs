//! Exec and attach: the websocket that connects a client to a container's terminal.
//!
//! In: a session that `arm::containers` opened, and a client that sends its password. Out: the
//! terminal's bytes in both directions. The protocol is the service's: no subprotocol; the first text
//! frame is the password (attach also accepts it in the `Authorization` header); input arrives as
//! binary or text frames; output is one merged stream; a close frame without an exit code ends the
//! session.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path, State, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use rand::RngExt as _;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;
use uuid::Uuid;

use super::engine::Terminal;
use super::group::id::GroupKey;
use super::group::run::{EmulatedRun, RunState};
use super::state::EmulatorState;

/// How long a session waits for its client, and how long a connected client may take to send the
/// password.
const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
/// How often the emulator polls a simulated container's log for an attached client.
const ATTACH_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// What a session does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamWork {
    /// Runs a command in a terminal.
    Exec {
        /// The command. The service splits it at blanks; there is no quoting.
        command: String,
    },
    /// Shows the container's output from now on.
    Attach,
}

/// A session whose client has not connected yet.
#[derive(Clone, Debug)]
pub struct StreamSession {
    /// The container group.
    pub group: GroupKey,
    /// The container's name.
    pub container: String,
    /// Exec or attach.
    pub work: StreamWork,
    /// Terminal height in characters. The protocol has no way to change it later.
    pub rows: u16,
    /// Terminal width in characters.
    pub cols: u16,
}

/// Open sessions by id, with password and deadline.
#[derive(Default)]
pub struct StreamSessions(Mutex<HashMap<Uuid, (StreamSession, String, Instant)>>);

impl StreamSessions {
    /// Opens a session. Returns its id and the password that the client must send.
    pub fn open(&self, session: StreamSession) -> (Uuid, String) {
        let letters = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghjkmnpqrstuvwxyz23456789[]{}!.>|";
        let mut random = rand::rng();
        let password: String = (0..32)
            .map(|_| char::from(letters[random.random_range(0..letters.len())]))
            .collect();
        let number = Uuid::new_v4();
        let mut waiting = self.0.lock();
        let now = Instant::now();
        waiting.retain(|_, (_, _, deadline)| *deadline > now);
        waiting.insert(number, (session, password.clone(), now + SESSION_TIMEOUT));
        (number, password)
    }

    fn take(&self, number: Uuid) -> Option<(StreamSession, String)> {
        let mut waiting = self.0.lock();
        let (session, password, deadline) = waiting.remove(&number)?;
        (deadline > Instant::now()).then_some((session, password))
    }
}

/// `GET /execstream/sessionId/{number}` and `/attachstream/...`.
pub async fn connect(
    State(shared): State<Arc<EmulatorState>>,
    Path(number): Path<String>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let session = number
        .parse()
        .ok()
        .and_then(|number| shared.sessions.take(number));
    let Some((session, password)) = session else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let known = headers
        .get(header::AUTHORIZATION)
        .is_some_and(|value| value == password.as_str());
    upgrade.on_upgrade(move |mut socket| async move {
        if known || sends_password(&mut socket, &password).await {
            serve(&shared, &mut socket, session).await;
        }
        // The client may already be gone; ignore the error.
        let _ = socket.send(Message::Close(None)).await;
    })
}

/// Whether the first frame is the password.
async fn sends_password(socket: &mut WebSocket, password: &str) -> bool {
    let first = tokio::time::timeout(SESSION_TIMEOUT, socket.recv()).await;
    matches!(first, Ok(Some(Ok(Message::Text(text)))) if text.as_str() == password)
}

async fn serve(shared: &Arc<EmulatorState>, socket: &mut WebSocket, session: StreamSession) {
    let StreamSession {
        group,
        container,
        work,
        rows,
        cols,
    } = session;
    if !is_running(shared, &group, &container) {
        return;
    }
    let Some(engine) = &shared.engine else {
        let hangs = with_run(shared, &group, &container, |run| run.script.exec_hang);
        match work {
            StreamWork::Exec { .. } if hangs == Some(true) => until_closed(socket).await,
            StreamWork::Exec { command } => simulated_shell(socket, &command).await,
            StreamWork::Attach => simulated_output(shared, socket, &group, &container).await,
        }
        return;
    };
    let terminal = match work {
        StreamWork::Exec { command } => {
            let words: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
            engine.exec(&group, &container, words, (rows, cols)).await
        }
        StreamWork::Attach => engine.attach(&group, &container).await,
    };
    match terminal {
        Ok(terminal) => bridge(socket, terminal).await,
        Err(error) => drop(
            socket
                .send(Message::Text(format!("{error}\r\n").into()))
                .await,
        ),
    }
}

fn with_run<T>(
    shared: &EmulatorState,
    group: &GroupKey,
    container: &str,
    look: impl FnOnce(&EmulatedRun) -> T,
) -> Option<T> {
    let now = shared.clock.now();
    let mut store = shared.store();
    let group = store.group(group, now)?;
    group
        .containers
        .iter()
        .chain(&group.init)
        .find(|run| run.name == container)
        .map(look)
}

fn is_running(shared: &EmulatorState, group: &GroupKey, container: &str) -> bool {
    let running = |run: &EmulatedRun| matches!(run.current, Some(RunState::Running { .. }));
    with_run(shared, group, container, running).unwrap_or(false)
}

/// Copies bytes in both directions until the terminal or the client ends. Both directions run at the
/// same time: a command that echoes its input stops reading while the client does not read its output.
async fn bridge(socket: &mut WebSocket, terminal: Terminal) {
    let Terminal {
        mut output,
        mut input,
    } = terminal;
    let (mut sink, mut frames) = socket.split();
    let shown = async {
        while let Some(bytes) = output.next().await {
            if sink.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
    };
    let typed = async {
        while let Some(Ok(frame)) = frames.next().await {
            let bytes = match frame {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => return,
            };
            if !write(&mut input, &bytes).await {
                return;
            }
        }
    };
    tokio::select! {
        () = shown => {}
        () = typed => {}
    }
}

async fn write(input: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> bool {
    input.write_all(bytes).await.is_ok() && input.flush().await.is_ok()
}

/// Shows nothing until the client ends the session.
async fn until_closed(socket: &mut WebSocket) {
    while let Some(Ok(frame)) = socket.recv().await {
        if matches!(frame, Message::Close(_)) {
            return;
        }
    }
}

/// A shell without a container. It echoes input, knows `echo` and `exit`, and ends on Ctrl-C or Ctrl-D.
/// Any other command prints that it is simulated, and ends.
async fn simulated_shell(socket: &mut WebSocket, command: &str) {
    let program = command.split_whitespace().next().unwrap_or_default();
    if !program.ends_with("sh") {
        let text = format!("{command}: simulated\r\n");
        let _ = socket.send(Message::Text(text.into())).await;
        return;
    }
    let mut line = String::new();
    if socket.send(Message::Text("# ".into())).await.is_err() {
        return;
    }
    while let Some(Ok(frame)) = socket.recv().await {
        let bytes = match frame {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::from(text),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => return,
        };
        let (reply, ended) = shell_reply(&mut line, &String::from_utf8_lossy(&bytes));
        if socket.send(Message::Text(reply.into())).await.is_err() || ended {
            return;
        }
    }
}

/// The output of a simulated shell after `text` is typed, and whether the shell ends.
fn shell_reply(line: &mut String, text: &str) -> (String, bool) {
    let mut reply = String::new();
    for letter in text.chars() {
        match letter {
            '\u{3}' | '\u{4}' => return (reply, true),
            '\r' | '\n' => {
                reply.push_str("\r\n");
                let command = std::mem::take(line);
                match command
                    .trim()
                    .split_once(' ')
                    .unwrap_or((command.trim(), ""))
                {
                    ("exit", _) => return (reply, true),
                    ("", _) => {}
                    ("echo", words) => reply.extend([words, "\r\n"]),
                    (other, _) => reply.extend(["sh: ", other, ": simulated\r\n"]),
                }
                reply.push_str("# ");
            }
            _ => {
                line.push(letter);
                reply.push(letter);
            }
        }
    }
    (reply, false)
}

async fn simulated_output(
    shared: &EmulatorState,
    socket: &mut WebSocket,
    group: &GroupKey,
    container: &str,
) {
    let mut position =
        with_run(shared, group, container, |run| run.log.written()).unwrap_or_default();
    let mut ticks = tokio::time::interval(ATTACH_POLL_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            frame = socket.recv() => match frame {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        }
        let state = with_run(shared, group, container, |run| {
            (
                run.log.since(position),
                run.log.written(),
                matches!(run.current, Some(RunState::Running { .. })),
            )
        });
        let Some((text, written, running)) = state else {
            return;
        };
        position = written;
        let is_gone = !text.is_empty() && socket.send(Message::Text(text.into())).await.is_err();
        if is_gone || !running {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simulated_shell_echoes_and_ends_on_exit_and_on_ctrl_c() {
        let mut line = String::new();
        assert_eq!(
            shell_reply(&mut line, "echo hi\n"),
            ("echo hi\r\nhi\r\n# ".to_owned(), false)
        );
        assert_eq!(
            shell_reply(&mut line, "exit\n"),
            ("exit\r\n".to_owned(), true)
        );
        assert_eq!(shell_reply(&mut line, "\u{3}"), (String::new(), true));
    }

    #[test]
    fn a_session_is_taken_once_and_its_password_is_long_and_has_punctuation() {
        let sessions = StreamSessions::default();
        let key = GroupKey {
            subscription: String::new(),
            resource_group: String::new(),
            name: String::new(),
        };
        let session = StreamSession {
            group: key,
            container: "a".into(),
            work: StreamWork::Attach,
            rows: 1,
            cols: 1,
        };
        let (number, password) = sessions.open(session);
        assert_eq!(password.len(), 32);
        assert!(
            sessions
                .take(number)
                .is_some_and(|(_, expected)| expected == password)
        );
        assert!(sessions.take(number).is_none());
    }
}
