//! Exec and attach over a websocket, with the service's protocol.

use futures::{SinkExt as _, StreamExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::azure::{Azure, body, within};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn open(azure: &Azure, action: &str, request: Option<Value>) -> (String, String) {
    let path = within("one", &format!("/containers/web/{action}"), "2023-05-01");
    let answer = azure.call(Method::POST, &path, request.as_ref()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let text = |field: &str| answer.body[field].as_str().expect("a text").to_owned();
    (text("webSocketUri"), text("password"))
}

async fn connected(uri: &str, password: &str) -> Socket {
    let (mut socket, _) = connect_async(uri).await.expect("a websocket");
    socket
        .send(Message::text(password))
        .await
        .expect("the password is sent");
    socket
}

/// The terminal's output up to `until`, or to its end.
async fn shown(socket: &mut Socket, until: &str) -> String {
    let mut text = String::new();
    while let Some(Ok(frame)) = socket.next().await {
        match frame {
            Message::Text(part) => text.push_str(&part),
            Message::Binary(part) => text.push_str(&String::from_utf8_lossy(&part)),
            Message::Close(_) => text.push_str("<end>"),
            _ => {}
        }
        if text.ends_with(until) {
            break;
        }
    }
    text
}

#[tokio::test]
async fn a_shell_wants_the_password_first_echoes_and_ends_with_a_close() {
    let azure = Azure::start().await;
    azure.running("one", &body(&[])).await;
    let (uri, password) = open(&azure, "exec", Some(json!({"command": "/bin/sh"}))).await;
    let mut socket = connected(&uri, &password).await;
    assert_eq!(shown(&mut socket, "# ").await, "# ");
    socket.send(Message::binary("echo hi\n")).await.unwrap();
    assert_eq!(shown(&mut socket, "# ").await, "echo hi\r\nhi\r\n# ");
    socket.send(Message::binary("exit\n")).await.unwrap();
    assert_eq!(shown(&mut socket, "<end>").await, "exit\r\n<end>");
}

#[tokio::test]
async fn a_wrong_password_and_a_second_client_get_nothing() {
    let azure = Azure::start().await;
    azure.running("one", &body(&[])).await;
    let (uri, password) = open(&azure, "exec", Some(json!({"command": "/bin/sh"}))).await;
    let mut socket = connected(&uri, "wrong").await;
    assert_eq!(shown(&mut socket, "<end>").await, "<end>");
    connect_async(&uri)
        .await
        .expect_err("the session is used up");
    let (uri, _) = open(&azure, "exec", Some(json!({"command": "/bin/sh"}))).await;
    let (mut binary, _) = connect_async(&uri).await.unwrap();
    binary.send(Message::binary(password)).await.unwrap();
    assert_eq!(
        shown(&mut binary, "<end>").await,
        "<end>",
        "the password must be a text frame"
    );
}

#[tokio::test]
async fn a_session_of_a_container_that_has_ended_just_closes() {
    let azure = Azure::start().await;
    azure
        .running("one", &body(&[("ACI_EMULATOR_EXIT_AFTER", "1000h")]))
        .await;
    azure
        .admin(
            Method::POST,
            "exit",
            json!({"group": "one", "container": "web", "code": 0}),
        )
        .await;
    let (uri, password) = open(&azure, "exec", Some(json!({"command": "/bin/sh"}))).await;
    let mut socket = connected(&uri, &password).await;
    assert_eq!(shown(&mut socket, "<end>").await, "<end>");
}

#[tokio::test]
async fn attach_shows_what_is_written_from_now_on_until_the_container_ends() {
    let azure = Azure::start().await;
    azure
        .running(
            "one",
            &body(&[
                ("ACI_EMULATOR_LOG", "before"),
                ("ACI_EMULATOR_LOG_EVERY", "1s"),
            ]),
        )
        .await;
    let (uri, password) = open(&azure, "attach", None).await;
    let mut socket = connected(&uri, &password).await;
    let old = azure
        .get(&within("one", "/containers/web/logs", "2023-05-01"))
        .await
        .body;
    let seen = old["content"].as_str().unwrap().lines().count() - 1;
    // The session starts at the present end of the log and shows later lines.
    azure.advance(2.0);
    let text = shown(&mut socket, &format!("line {}\n", seen + 2)).await;
    assert!(!text.contains("before"), "{text}");
    azure
        .admin(
            Method::POST,
            "exit",
            json!({"group": "one", "container": "web", "code": 0}),
        )
        .await;
    assert!(shown(&mut socket, "<end>").await.ends_with("<end>"));
}
