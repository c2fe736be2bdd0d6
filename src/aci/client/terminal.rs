//! The websocket of a terminal session in a container.
//!
//! In: a [`TerminalSession`] and the bytes to type. Out: the bytes that the terminal prints. The protocol of ACI: no
//! extra header and no subprotocol; the first message is the password, as text; input is sent as binary messages;
//! the client ends the session with a close frame without a reason.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use reqwest::Upgraded;
use reqwest::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{AciClient, TerminalSession};
use crate::aci::error::Error;

/// Timeout for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// The input side of a terminal.
pub struct TerminalInput(SplitSink<WebSocketStream<Upgraded>, Message>);

/// The output side of a terminal.
pub struct TerminalOutput(SplitStream<WebSocketStream<Upgraded>>);

impl AciClient {
    /// Connects to the terminal of a session and sends the password.
    pub async fn connect(
        &self,
        session: &TerminalSession,
    ) -> Result<(TerminalInput, TerminalOutput), Error> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, self.open_websocket(session)).await;
        let connected = connected.unwrap_or_else(|_| Err("connecting takes too long".into()));
        let no_answer = |source| Error::NoAnswer {
            what: "connecting to a container's terminal".to_owned(),
            source,
        };
        let io = connected.map_err(no_answer)?;
        let socket = WebSocketStream::from_raw_socket(io, Role::Client, None).await;
        let (mut sink, stream) = socket.split();
        let sent = sink.send(Message::text(session.password.as_str())).await;
        sent.map_err(|error| no_answer(error.into()))?;
        Ok((TerminalInput(sink), TerminalOutput(stream)))
    }

    /// Opens the websocket with the shared HTTP client, which trusts the configured certificates.
    async fn open_websocket(
        &self,
        session: &TerminalSession,
    ) -> Result<Upgraded, Box<dyn std::error::Error + Send + Sync>> {
        let url = session.web_socket_uri.replacen("ws", "http", 1);
        let key = generate_key();
        let request = self.transport.http.get(url);
        let answer = request
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key)
            .send()
            .await
            // The URL is as secret as a password, so it must not be in the error.
            .map_err(reqwest::Error::without_url)?;
        let status = answer.status();
        let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
        if status.as_u16() != 101
            || accepted.is_none_or(|accepted| *accepted != derive_accept_key(key.as_bytes()))
        {
            return Err(format!("the service does not open the terminal: {status}").into());
        }
        Ok(answer
            .upgrade()
            .await
            .map_err(reqwest::Error::without_url)?)
    }
}

impl TerminalInput {
    /// Sends input. Returns false if the terminal has ended.
    pub async fn send(&mut self, bytes: Bytes) -> bool {
        self.0.send(Message::Binary(bytes)).await.is_ok()
    }

    /// Closes the terminal. ACI then ends the command that runs in it.
    pub async fn close(&mut self) {
        // The terminal may have ended already.
        let _ = self.0.close().await;
    }
}

impl TerminalOutput {
    /// The next output; `None` after the terminal has ended.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.0.next().await? {
                Ok(Message::Binary(bytes)) => return Some(bytes),
                Ok(Message::Text(text)) => return Some(text.into()),
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(_) | Message::Frame(_)) | Err(_) => return None,
            }
        }
    }
}
