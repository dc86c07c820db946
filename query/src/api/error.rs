//! Errors as the API says them: a word for programs, a sentence for people.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::types::{ErrorAnswer, ErrorBody};
use crate::answer::AnswerError;

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: &'static str, message: String) -> Self {
        Self { status, code, message }
    }

    pub(super) fn question(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let error = ErrorBody { code: self.code.to_owned(), message: self.message };
        let mut response = (self.status, Json(ErrorAnswer { error })).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

impl From<AnswerError> for ApiError {
    fn from(error: AnswerError) -> Self {
        let message = error.to_string();
        match error {
            AnswerError::Question(_) => Self::question(message),
            AnswerError::Store(_) | AnswerError::Read(_) => {
                tracing::warn!(error = message, "no answer");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unreadable", message)
            }
        }
    }
}
