//! One request and its answer over HTTP/1.1 or HTTP/2.
//!
//! In: a connection and a request. Out: the head of the answer, and its body as far as it is read. The connection
//! lives as long as [`ProbeExchange`]: dropping it closes the socket and ends every task that hyper started for it.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// How many bytes of an answer over HTTP/1.1 are buffered: its head must fit. hyper's default is 400 KB, and thousands
/// of probes may run at once.
const MAX_BUFFER: usize = 64 << 10;
/// How many bytes a server may send over HTTP/2 before they are read: the least that HTTP/2 starts with.
const HTTP2_WINDOW: u32 = 65_535;
/// How many bytes the headers of an answer over HTTP/2 may have.
const MAX_HEADER_LIST: u32 = 64 << 10;

/// The version of HTTP on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeBodyEnd {
    /// It was read to its end.
    Complete,
    /// As much as was wanted was read; there may be more.
    Cut,
}

/// Runs the futures of one connection, until it is dropped.
#[derive(Clone, Debug, Default)]
struct ProbeTasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for ProbeTasks {
    fn execute(&self, future: F) {
        let mut tasks = self.0.lock();
        tasks.spawn(future);
    }
}

/// An answer whose body has not been read.
#[derive(Debug)]
pub(super) struct ProbeExchange {
    /// The answer.
    response: Response<Incoming>,
    tasks: ProbeTasks,
}

impl Drop for ProbeExchange {
    fn drop(&mut self) {
        abort(&self.tasks);
    }
}

fn abort(tasks: &ProbeTasks) {
    let mut tasks = tasks.0.lock();
    tasks.abort_all();
}

/// Aborts the tasks if the exchange is given up before there is an answer.
struct ProbeTasksGuard(Option<ProbeTasks>);

impl Drop for ProbeTasksGuard {
    fn drop(&mut self) {
        if let Some(tasks) = &self.0 {
            abort(tasks);
        }
    }
}

impl ProbeExchange {
    /// Sends `request` over `stream`, and waits for the head of the answer. It has no timeout: the caller drops it.
    pub async fn send<S>(
        stream: S,
        protocol: ProbeProtocol,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tasks = ProbeTasks::default();
        let mut guard = ProbeTasksGuard(Some(tasks.clone()));
        let stream = TokioIo::new(stream);
        let response = match protocol {
            ProbeProtocol::Http1 => {
                let mut builder = http1::Builder::new();
                // Go writes the names of headers in this form, and old servers compare them exactly.
                builder.title_case_headers(true).max_buf_size(MAX_BUFFER);
                let (mut sender, connection) = builder.handshake(stream).await?;
                run(&tasks, connection);
                sender.send_request(request).await?
            }
            ProbeProtocol::Http2 => {
                let mut builder = http2::Builder::new(tasks.clone());
                builder
                    .initial_stream_window_size(HTTP2_WINDOW)
                    .initial_connection_window_size(HTTP2_WINDOW)
                    .max_header_list_size(MAX_HEADER_LIST);
                let (mut sender, connection) = builder.handshake(stream).await?;
                run(&tasks, connection);
                sender.send_request(request).await?
            }
        };
        guard.0 = None;
        Ok(Self { response, tasks })
    }

    /// The answer's head.
    pub fn head(&self) -> &Response<Incoming> {
        &self.response
    }

    /// Reads at most `most` bytes of the body. Returns them, the trailers, and whether there may be more: like the
    /// kubelet, it does not wait for the end after exactly `most` bytes.
    pub async fn read(&mut self, most: usize) -> hyper::Result<(Vec<u8>, HeaderMap, ProbeBodyEnd)> {
        let mut bytes = Vec::new();
        let mut trailers = HeaderMap::new();
        while let Some(frame) = self.response.frame().await {
            match frame?.into_data() {
                Ok(data) if bytes.len() + data.len() >= most => {
                    bytes.extend_from_slice(&data[..most - bytes.len()]);
                    return Ok((bytes, trailers, ProbeBodyEnd::Cut));
                }
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            }
        }
        Ok((bytes, trailers, ProbeBodyEnd::Complete))
    }
}

fn run<F: Future<Output = hyper::Result<()>> + Send + 'static>(tasks: &ProbeTasks, connection: F) {
    // An error of the connection is also the answer's.
    hyper::rt::Executor::execute(tasks, async {
        let _ = connection.await;
    });
}
