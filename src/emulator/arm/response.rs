//! A successful ARM response, and the headers that every response has.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::throttle::ThrottleHeaders;

/// A successful ARM response.
#[derive(Clone, Debug)]
pub struct ArmResponse {
    status: StatusCode,
    body: Option<Value>,
    headers: ThrottleHeaders,
}

impl ArmResponse {
    /// 200 with a body.
    pub fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, body)
    }

    /// A response with a body.
    pub fn new(status: StatusCode, body: Value) -> Self {
        Self {
            status,
            body: Some(body),
            headers: Vec::new(),
        }
    }

    /// A response without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self {
            status,
            body: None,
            headers: Vec::new(),
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Adds headers.
    #[must_use]
    pub fn with_headers(mut self, headers: ThrottleHeaders) -> Self {
        self.headers.extend(headers);
        self
    }
}

impl IntoResponse for ArmResponse {
    fn into_response(self) -> Response {
        let mut response = match self.body {
            Some(body) => (self.status, axum::Json(body)).into_response(),
            None => self.status.into_response(),
        };
        response.headers_mut().extend(self.headers);
        response
    }
}

/// Adds the headers that every recorded response has, and ARM's request ids.
pub fn add_common_headers(headers: &mut HeaderMap) {
    let fixed = [
        ("cache-control", "no-cache"),
        ("expires", "-1"),
        ("pragma", "no-cache"),
        (
            "strict-transport-security",
            "max-age=31536000; includeSubDomains",
        ),
        ("x-content-type-options", "nosniff"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|value| value == "application/json")
    {
        let value = HeaderValue::from_static("application/json; charset=utf-8");
        headers.insert(http::header::CONTENT_TYPE, value);
    }
    for name in ["x-ms-request-id", "x-ms-correlation-request-id"] {
        let id = HeaderValue::try_from(Uuid::new_v4().to_string());
        headers.insert(name, id.expect("an id is a header value"));
    }
}
