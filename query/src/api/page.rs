//! The page, as Node built it into `ui/dist`. Paths of the page itself get `index.html`.

use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::Embed;

#[derive(Embed)]
#[folder = "../ui/dist"]
#[allow_missing = true]
struct Page;

const INDEX: &str = "index.html";

const MISSING: &str = "<!doctype html><meta charset=utf-8><title>Flowtap</title>
<h1>Flowtap</h1>
<p>This build of <code>flowtap</code> has no page in it. The API is there: <a href=/api/v1/openapi.json>/api/v1/openapi.json</a>.</p>
<p>To build the page (Node 20 or newer):</p>
<pre>npm --prefix ui ci
npm --prefix ui run build
cargo build --bin flowtap</pre>
";

/// A file of the page, else the page.
pub(super) async fn page(uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    if let Some(file) = Page::get(path) {
        // Vite puts a hash of the content into these names.
        let keep = if path.starts_with("assets/") {
            "public, max-age=31536000, immutable"
        } else {
            "no-cache"
        };
        let headers = [(header::CONTENT_TYPE, media_type(path)), (header::CACHE_CONTROL, keep)];
        return (headers, file.data).into_response();
    }
    if path.starts_with("assets/") {
        return (StatusCode::NOT_FOUND, "no such file\n").into_response();
    }
    let html = [(header::CONTENT_TYPE, media_type(INDEX)), (header::CACHE_CONTROL, "no-cache")];
    match Page::get(INDEX) {
        Some(index) => (html, index.data).into_response(),
        None => (html, MISSING).into_response(),
    }
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
