//! An ARM error response: a status and `{"error":{"code","message"}}`.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::json;

/// An error with the service's status, code and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmFailure {
    /// The HTTP status, 4xx or 5xx.
    pub status: StatusCode,
    /// The error code of ARM or of the service.
    pub code: String,
    /// The message, in the service's words.
    pub message: String,
    /// The field or resource that the error is about, if the service names one.
    pub target: Option<String>,
    /// Additional headers, such as `retry-after`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ArmFailure {
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

    /// 400: the request is invalid.
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 409: the resource's state does not allow the request.
    pub fn conflict(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 404 for a resource that does not exist, as ARM's gateway words it.
    pub fn resource_not_found(resource: &str, resource_group: &str) -> Self {
        let message = format!(
            "The Resource '{resource}' under resource group '{resource_group}' was not found. For \
             more details please go to https://aka.ms/ARMResourceNotFoundFix"
        );
        Self::new(StatusCode::NOT_FOUND, "ResourceNotFound", message).from_gateway()
    }

    /// Marks the error as coming from ARM's gateway, with the header `x-ms-failure-cause`.
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

    /// Sets the field or resource that the error is about.
    #[must_use]
    pub fn about(mut self, target: &str) -> Self {
        self.target = Some(target.to_owned());
        self
    }
}

impl IntoResponse for ArmFailure {
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
