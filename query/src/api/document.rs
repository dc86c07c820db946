//! The OpenAPI document. `ui/openapi.json` is a copy that the page's types are made from; a test
//! holds the two together (`FLOWTAP_WRITE=1 cargo test -p flowtap-query openapi` writes it).
#![allow(dead_code, reason = "the functions below only carry the description of an endpoint")]

use utoipa::OpenApi;

use super::types::{
    AgentList, ErrorAnswer, FlowDetail, FlowList, MapAnswer, SqlAnswer, SqlQuestion, State, Why,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Flowtap",
        description = "What happened to the messages of an event-driven system. Times are RFC 3339 \
                       in UTC with microseconds; null means not known; lists are never null."
    ),
    paths(flows, flow, why, agents, map, sql),
    components(schemas(ErrorAnswer))
)]
struct Document;

/// The document as JSON.
pub fn document() -> String {
    let mut document = Document::openapi();
    document.info.license = None;
    document.info.contact = None;
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

/// Flows, newest first.
#[utoipa::path(get, path = "/api/v1/flows", params(
    ("from" = Option<String>, Query, description = "Started at or after this time (RFC 3339)"),
    ("to" = Option<String>, Query, description = "Started before this time (RFC 3339)"),
    ("state" = Option<Vec<State>>, Query, description = "In one of these states; may be repeated"),
    ("service" = Option<String>, Query, description = "This service takes part"),
    ("type" = Option<String>, Query, description = "A message of this type is in it"),
    ("key" = Option<String>, Query, description = "With this business key: VALUE or NAME=VALUE"),
    ("text" = Option<String>, Query, description = "This text is an id or key of it, or stands in its summary"),
    ("limit" = Option<usize>, Query, description = "At most so many, 1 to 500; default 50"),
    ("cursor" = Option<String>, Query, description = "`next` of the page before"),
), responses((status = 200, body = FlowList), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)))]
fn flows() {}

/// One flow: records, who caused what, verdict.
#[utoipa::path(get, path = "/api/v1/flows/{flow}", params(
    ("flow" = String, Path, description = "The id of a flow"),
), responses((status = 200, body = FlowDetail), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)))]
fn flow() {}

/// What happened to what an id names: a flow, a message, a business key, a trace.
#[utoipa::path(get, path = "/api/v1/why", params(
    ("id" = String, Query, description = "The id"),
), responses((status = 200, body = Why), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)))]
fn why() {}

/// All sidecars, and what they cover.
#[utoipa::path(get, path = "/api/v1/agents",
    responses((status = 200, body = AgentList), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)))]
fn agents() {}

/// Who talks to whom.
#[utoipa::path(get, path = "/api/v1/map", params(
    ("from" = Option<String>, Query, description = "From this time (RFC 3339), to the minute"),
    ("to" = Option<String>, Query, description = "Before this time (RFC 3339), to the minute"),
), responses((status = 200, body = MapAnswer), (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)))]
fn map() {}

/// A question in SQL. It only reads.
#[utoipa::path(post, path = "/api/v1/sql", request_body = SqlQuestion, responses(
    (status = 200, content((SqlAnswer = "application/json"), (String = "text/csv"), (Vec<u8> = "application/vnd.apache.arrow.stream"))),
    (status = "4XX", body = ErrorAnswer), (status = "5XX", body = ErrorAnswer)))]
fn sql() {}

#[cfg(test)]
mod tests {
    #[test]
    fn the_openapi_document_of_the_page_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../ui/openapi.json");
        let made = super::document();
        if std::env::var_os("FLOWTAP_WRITE").is_some() {
            std::fs::write(path, &made).expect("ui/ can be written");
        }
        let kept = std::fs::read_to_string(path).expect("ui/openapi.json is there");
        assert!(
            kept == made,
            "ui/openapi.json is old: FLOWTAP_WRITE=1 cargo test -p flowtap-query openapi"
        );
    }
}
