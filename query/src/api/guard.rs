//! Who may ask. A web page on the same machine must not reach the API: by a name that is not ours
//! (DNS rebinding), from another origin, or with a form. With a token nobody gets in without it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::ApiError;

/// Nothing but what comes with the page may run in it, and nobody may frame it.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// The rules of one server.
pub(super) struct Guard {
    pub(super) hosts: Vec<String>,
    pub(super) any_ip: bool,
    pub(super) token: Option<String>,
}

/// Lets a request through, or says why not.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match guard.refusal(&request) {
        Some(refusal) => refusal,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

impl Guard {
    fn refusal(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = request.uri().authority().map(Authority::as_str).or(text(header::HOST));
        let host = host.unwrap_or_default();
        if !self.knows(host) {
            let error = ApiError::new(
                StatusCode::MISDIRECTED_REQUEST,
                "unknown_host",
                format!("{host:?} is not a name of this server; --host adds one"),
            );
            return Some(error.into_response());
        }
        if let Some(origin) = headers.get(header::ORIGIN) {
            let own = origin.to_str().ok().and_then(|origin| origin.split_once("://")).is_some_and(
                |(scheme, name)| {
                    matches!(scheme, "http" | "https") && name.eq_ignore_ascii_case(host)
                },
            );
            if !own {
                return Some(foreign("the request comes from a page of another origin"));
            }
        }
        let api = request.uri().path().starts_with("/api/");
        if api && text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site") {
            return Some(foreign("the request comes from a page of another site"));
        }
        if request.method() == Method::POST && !is_json(headers) {
            let error = ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "not_json",
                "POST wants Content-Type: application/json".to_owned(),
            );
            return Some(error.into_response());
        }
        if request.uri().path() != "/healthz" && !self.admits(headers) {
            let error = ApiError::new(
                StatusCode::UNAUTHORIZED,
                "token_wanted",
                "give the token as Authorization: Bearer TOKEN, or as the password".to_owned(),
            );
            let mut response = error.into_response();
            // A browser asks for a password; any name will do.
            let challenge = HeaderValue::from_static("Basic realm=\"flowtap\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return Some(response);
        }
        None
    }

    /// Whether a `Host` may be meant for this server. An IP address cannot be rebound, so off
    /// loopback any will do.
    fn knows(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        self.hosts.contains(&name) || self.any_ip && name.parse::<IpAddr>().is_ok()
    }

    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, given)) = given.and_then(|given| given.split_once(' ')) else {
            return false;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return equal_in_constant_time(given.trim(), token);
        }
        let decoded = STANDARD.decode(given.trim()).ok().and_then(|it| String::from_utf8(it).ok());
        let password = decoded.as_deref().and_then(|it| it.split_once(':'));
        scheme.eq_ignore_ascii_case("basic")
            && password.is_some_and(|(_, password)| equal_in_constant_time(password, token))
    }
}

fn foreign(message: &str) -> Response {
    ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message.to_owned()).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"))
}

/// Compares without telling by its time how much was right.
fn equal_in_constant_time(a: &str, b: &str) -> bool {
    let differences = a.bytes().zip(b.bytes()).fold(0, |sum, (x, y)| sum | (x ^ y));
    a.len() == b.len() && differences == 0
}
