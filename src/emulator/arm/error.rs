//! What ARM answers when it does not do what was asked: a status and `{"error":{"code","message"}}`.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

/// A refusal with the status, code and words of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmError {
    /// The HTTP status, 4xx or 5xx.
    pub status: StatusCode,
    /// ARM's or the service's code.
    pub code: String,
    /// The message for people.
    pub message: String,
    /// What the error is about, if the service names it.
    pub target: Option<String>,
    /// Headers beside the usual ones, such as `retry-after`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ArmError {
    /// An error of `status` with `code` and `message`.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message: message.into(),
            target: None,
            headers: Vec::new(),
        }
    }

    /// 400: the request itself is wrong.
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 409: the resource is not in a state for it.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 404 as the gateway answers it for a resource that is not there.
    pub fn resource_not_found(resource: &str, resource_group: &str) -> Self {
        let message = format!(
            "The Resource '{resource}' under resource group '{resource_group}' was not found. For \
             more details please go to https://aka.ms/ARMResourceNotFoundFix"
        );
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFound", message).from_gateway()
    }

    /// Marks the error as one of ARM's gateway, as `x-ms-failure-cause` does on the wire.
    #[must_use]
    pub fn from_gateway(self) -> Self {
        self.with_header("x-ms-failure-cause", "gateway")
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Names what the error is about.
    #[must_use]
    pub fn about(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }
}

impl IntoResponse for ArmError {
    fn into_response(self) -> Response {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(target) = self.target {
            error["target"] = target.into();
        }
        let mut response = (self.status, axum::Json(json!({"error": error}))).into_response();
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
