//! The error of a call, as the client sees it.

use std::borrow::Cow;

use serde_json::{Value, json};

/// An error as the catalogue documents it.
#[derive(Debug)]
pub struct ErrorSpec {
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
}

/// The error of a call.
#[derive(Debug, Clone)]
pub struct ApiError {
    pub status: u16,
    pub code: Cow<'static, str>,
    pub message: Cow<'static, str>,
    pub hint: Option<String>,
    /// The database request for the transaction to be run again.
    pub retry: bool,
    /// When the client may try again, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

pub type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            code: Cow::Borrowed(code),
            message: Cow::Owned(message.into()),
            hint: None,
            retry: false,
            retry_after_ms: None,
        }
    }

    pub fn documented(spec: &'static ErrorSpec) -> ApiError {
        ApiError {
            status: spec.status,
            code: Cow::Borrowed(spec.code),
            message: Cow::Borrowed(spec.message),
            hint: None,
            retry: false,
            retry_after_ms: None,
        }
    }

    pub fn with_hint(mut self, hint: impl Into<String>) -> ApiError {
        self.hint = Some(hint.into());
        self
    }

    /// The same call may succeed after this time.
    pub fn with_retry_after(mut self, ms: u64) -> ApiError {
        self.retry_after_ms = Some(ms);
        self
    }

    /// A failure on our side; the cause goes to the log, not to the client.
    pub fn internal(cause: impl std::fmt::Display) -> ApiError {
        tracing::error!(%cause, "internal error");
        ApiError::new(500, "InternalError", "An error occurred while processing your request.")
    }

    pub fn envelope(&self, request_id: &str, host: &str) -> Value {
        let mut out = json!({
            "RequestId": request_id,
            "HostId": host,
            "Code": self.code,
            "Message": self.message,
        });
        if let Some(hint) = &self.hint {
            out["Recommend"] = Value::from(hint.as_str());
        }
        out
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(e: serde_json::Error) -> ApiError {
        ApiError::internal(e)
    }
}
