//! Starts a command whose terminal uses the HTTP connection for its raw bytes ("hijacking").
//!
//! In: a prepared command. Out: the two halves of the connection. bollard has this call, but expects
//! the frames that only streams without a terminal have: it loses output that begins with a byte below
//! 3. The request is fixed, so this module writes it directly.

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Chain};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::error::EngineError;

/// How long the engine may take to start the command.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How many bytes of the response head, or of an error message, are read at most.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// The command's output from its first byte on.
pub type HijackedOutput = Chain<Cursor<Vec<u8>>, OwnedReadHalf>;

/// Starts the command `id` in a terminal of `size` (rows, columns).
pub async fn start(
    socket: &Path,
    id: &str,
    size: (u16, u16),
) -> Result<(HijackedOutput, OwnedWriteHalf), EngineError> {
    let on_timeout =
        |_| EngineError::Terminal("the container engine did not answer in time".to_owned());
    let result = tokio::time::timeout(START_TIMEOUT, request(socket, id, size))
        .await
        .map_err(on_timeout)?;
    result.map_err(|error| EngineError::Terminal(error.to_string()))?
}

async fn request(
    socket: &Path,
    id: &str,
    (rows, cols): (u16, u16),
) -> std::io::Result<Result<(HijackedOutput, OwnedWriteHalf), EngineError>> {
    let mut stream = UnixStream::connect(socket).await?;
    let body =
        serde_json::json!({"Detach": false, "Tty": true, "ConsoleSize": [rows, cols]}).to_string();
    let head = format!(
        "POST /exec/{id}/start HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    let (mut received, mut end) = (Vec::new(), None);
    while end.is_none() && received.len() < MAX_HEAD_BYTES {
        if stream.read_buf(&mut received).await? == 0 {
            break;
        }
        end = received
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
            .map(|at| at + 4);
    }
    let end = end.unwrap_or(received.len());
    let status = received[..end]
        .split(|b| *b == b' ')
        .nth(1)
        .unwrap_or_default();
    // The request asks for 101. Engines before API 1.22 answer 200 and then behave the same.
    if status != b"101" && status != b"200" {
        let mut rest = received.split_off(end);
        // Error messages are short. A partial one is good enough.
        let more = stream.read_buf(&mut rest);
        let _ = tokio::time::timeout(Duration::from_millis(200), more).await;
        return Ok(Err(EngineError::Terminal(error_message(&rest))));
    }
    let early = received.split_off(end);
    let (read, write) = stream.into_split();
    Ok(Ok((Cursor::new(early).chain(read), write)))
}

/// The message of an error response.
fn error_message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let json = text
        .find('{')
        .and_then(|at| serde_json::from_str::<serde_json::Value>(text[at..].trim()).ok());
    let message = json.as_ref().and_then(|json| json["message"].as_str());
    message.unwrap_or(text.trim()).to_owned()
}
