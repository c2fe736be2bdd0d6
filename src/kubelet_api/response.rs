//! Responses of the kubelet API: text for users, JSON for programs.

use axum::body::Body;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

/// A response, or an error that becomes one.
pub type ApiResult = Result<Response<Body>, HttpError>;

/// An HTTP error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpError {
    /// The status code.
    pub status: StatusCode,
    /// The message. The API server passes it to its client, except for status 404.
    pub message: String,
}

impl HttpError {
    /// An error with this status and message.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// A bad request (400): the API server passes the message to the user unchanged.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The error as a plain text response.
    pub fn into_response(self) -> Response<Body> {
        text_response(self.status, self.message)
    }
}

/// A plain text response.
pub fn text_response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}

/// A JSON response.
pub fn json_response(value: &impl Serialize) -> ApiResult {
    let bytes = serde_json::to_vec(value).map_err(|error| {
        HttpError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("writing the answer: {error}"),
        )
    })?;
    let mut response = Response::new(Body::from(bytes));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(response)
}
