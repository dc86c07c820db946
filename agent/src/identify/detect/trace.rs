//! Traces: W3C Trace Context (w3c/trace-context@acab820), whose `traceparent` gives the trace and
//! the span, also under the names that .NET writers give it; then B3, Datadog, Jaeger and X-Ray. A
//! trace is no transaction: batches and retries start new ones.

use super::headers::{Name, bits};
use super::{Field, Found, View};
use crate::identify::text::{Text, traceparent};

/// Headers that may hold a `traceparent`.
const TRACEPARENTS: [Name; 6] = [
    Name::Traceparent,
    Name::MtActivity,
    Name::AxonTraceparent,
    // .NET writers put the same text into a parent id.
    Name::ParentDash,
    Name::ParentScore,
    Name::Parent,
];

const OTHERS: u128 = bits(&[Name::B3, Name::B3Trace, Name::DatadogTrace, Name::Jaeger, Name::XRay]);

/// Both ids of a `traceparent`, unless a trace is already there: they are taken together.
pub(in crate::identify) fn offer<'a>(
    found: &mut Found<'a>,
    text: &Text<'a>,
    from: &Text<'static>,
    header: Option<usize>,
) {
    if found.has(Field::TraceId) || found.has(Field::SpanId) {
        return;
    }
    let parts = match text {
        Text::Lent(text) => {
            traceparent(text).map(|(trace, span)| (Text::Lent(trace), Text::Lent(span)))
        }
        made => traceparent(made)
            .map(|(trace, span)| (Text::Owned(trace.to_owned()), Text::Owned(span.to_owned()))),
    };
    if let Some((trace, span)) = parts {
        found.offer(Field::TraceId, trace, from.clone(), header);
        found.offer(Field::SpanId, span, from.clone(), header);
    }
}

pub(super) fn detect<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    if view.heads.any(bits(&TRACEPARENTS)) {
        for name in TRACEPARENTS {
            detect_in(name, view, found);
        }
    }
    if view.heads.any(OTHERS) && !found.has(Field::TraceId) {
        for detect in [b3, b3_of_many, datadog, jaeger, x_ray] {
            if !found.has(Field::TraceId) {
                detect(view, found);
            }
        }
    }
}

pub(super) fn detect_header<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    detect_in(Name::Traceparent, view, found);
}

fn detect_in<'a>(name: Name, view: &View<'_, 'a>, found: &mut Found<'a>) {
    if let Some((text, from, at)) = view.named(name) {
        offer(found, &text, &from, Some(at));
    }
}

/// Trace and span from what is not a `traceparent`, as hex digits that may lack zeros in front.
fn offer_hex(
    found: &mut Found<'_>,
    trace: (&str, &Text<'static>, usize),
    span: Option<(&str, &Text<'static>, usize)>,
) {
    let Some(id) = padded(trace.0, 32) else { return };
    found.offer(Field::TraceId, Text::Owned(id), trace.1.clone(), Some(trace.2));
    if let Some((text, from, at)) = span
        && let Some(id) = padded(text, 16)
    {
        found.offer(Field::SpanId, Text::Owned(id), from.clone(), Some(at));
    }
}

/// Hex digits in lower case, filled up with zeros; `None` where they are none, too many, or zero.
fn padded(text: &str, length: usize) -> Option<String> {
    let hex = !text.is_empty()
        && text.len() <= length
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
        && text.bytes().any(|byte| byte != b'0');
    hex.then(|| format!("{:0>length$}", text.to_ascii_lowercase()))
}

/// `b3`: `{trace}-{span}[-{sampled}[-{parent}]]` (openzipkin/b3-propagation@3e54cda); Brave's form
/// for messages.
fn b3<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let Some((text, from, at)) = view.named(Name::B3) else { return };
    let mut parts = text.split('-');
    if let (Some(trace), Some(span)) = (parts.next(), parts.next())
        && matches!(trace.len(), 16 | 32)
    {
        offer_hex(found, (trace, &from, at), Some((span, &from, at)));
    }
}

fn b3_of_many<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let Some((trace, from, at)) = view.named(Name::B3Trace) else { return };
    let span = view.named(Name::B3Span);
    let span = span.as_ref().map(|(text, from, at)| (text.as_str(), from, *at));
    offer_hex(found, (&trace, &from, at), span);
}

/// Decimal numbers; the upper half of the trace stands in a tag (DataDog/dd-trace-js@5735ffe).
fn datadog<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let Some((trace, from, at)) = view.named(Name::DatadogTrace) else { return };
    let Ok(low) = trace.parse::<u64>() else { return };
    let tags = view.named(Name::DatadogTags);
    let high = tags.as_ref().and_then(|(tags, ..)| {
        let tag = tags.split(',').find_map(|tag| tag.strip_prefix("_dd.p.tid="))?;
        (tag.len() == 16).then_some(tag)
    });
    let trace = format!("{}{low:016x}", high.unwrap_or_default());
    let span = view.named(Name::DatadogParent);
    let span = span
        .as_ref()
        .and_then(|(text, from, at)| Some((format!("{:x}", text.parse::<u64>().ok()?), from, *at)));
    let span = span.as_ref().map(|(text, from, at)| (text.as_str(), *from, *at));
    offer_hex(found, (&trace, &from, at), span);
}

/// `{trace}:{span}:{parent}:{flags}` (jaegertracing/jaeger-client-go@8d8e8fc), perhaps with the
/// colons as in a URL.
fn jaeger<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let Some((text, from, at)) = view.named(Name::Jaeger) else { return };
    let text = text.replace("%3A", ":").replace("%3a", ":");
    let parts: Vec<&str> = text.split(':').collect();
    if let [trace, span, _, _] = parts[..] {
        offer_hex(found, (trace, &from, at), Some((span, &from, at)));
    }
}

/// `Root=1-{8 hex}-{24 hex};Parent={16 hex};Sampled=1` (aws/aws-xray-sdk-node).
fn x_ray<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let Some((text, from, at)) = view.named(Name::XRay) else { return };
    let part = |name: &str| text.split(';').find_map(|part| part.trim().strip_prefix(name));
    let Some((time, rest)) = part("Root=1-").and_then(|root| root.split_once('-')) else { return };
    if time.len() == 8 && rest.len() == 24 {
        let span = part("Parent=").map(|span| (span, &from, at));
        offer_hex(found, (&format!("{time}{rest}"), &from, at), span);
    }
}
