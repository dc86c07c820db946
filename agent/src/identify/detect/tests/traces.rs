//! Traces under the names and in the forms of each tracer.

use super::*;

fn of(headers: &[(&str, &str)]) -> Vec<String> {
    let headers: Headers<'_> = headers.iter().map(|(name, value)| text(name, value)).collect();
    ids(&Content::of_record(b"orders", None, &headers, None))
}

#[test]
fn traces_of_every_format() {
    // openzipkin/b3-propagation@3e54cda
    let b3 =
        ["trace=80f198ee56343ba864fe8b2a57d3eff7 header:b3", "span=e457b5a2e4d86bd1 header:b3"];
    let single = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90";
    assert_eq!(of(&[("b3", single)]), b3);
    assert_eq!(of(&[("b3", &single[..49])]), b3);
    assert_eq!(of(&[("b3", "1")]), Vec::<String>::new());
    assert_eq!(
        of(&[("X-B3-TraceId", "64fe8b2a57d3eff7"), ("x-b3-spanid", "E457B5A2E4D86BD1")]),
        [
            "trace=000000000000000064fe8b2a57d3eff7 header:X-B3-TraceId",
            "span=e457b5a2e4d86bd1 header:x-b3-spanid"
        ]
    );
    // ddtrace 4.16, captured
    assert_eq!(
        of(&[
            ("x-datadog-trace-id", "10038581944306458416"),
            ("x-datadog-parent-id", "7756690129750912880"),
            ("x-datadog-tags", "_dd.p.dm=-0,_dd.p.tid=6b0188dd00000000"),
        ]),
        [
            "trace=6b0188dd000000008b50351777095f30 header:x-datadog-trace-id",
            "span=6ba54c938894ef70 header:x-datadog-parent-id"
        ]
    );
    // jaegertracing/jaeger-client-go@8d8e8fc: without leading zeros, perhaps as in a URL
    for value in ["a8f1:2b:0:1", "a8f1%3A2b%3A0%3A1"] {
        assert_eq!(
            of(&[("uber-trace-id", value)]),
            [
                "trace=0000000000000000000000000000a8f1 header:uber-trace-id",
                "span=000000000000002b header:uber-trace-id"
            ]
        );
    }
    // aws/aws-xray-sdk-node
    assert_eq!(
        of(&[(
            "X-Amzn-Trace-Id",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
        )]),
        [
            "trace=5759e988bd862e3fe1be46a994272793 header:X-Amzn-Trace-Id",
            "span=53995c3f42cd8ad8 header:X-Amzn-Trace-Id"
        ]
    );
    for (name, value) in [
        ("uber-trace-id", "0:0:0:0"),
        ("uber-trace-id", "x:y:z:1"),
        ("x-datadog-trace-id", "0"),
        ("X-Amzn-Trace-Id", "Root=1-x"),
        ("X-B3-TraceId", "zz"),
    ] {
        assert_eq!(of(&[(name, value)]), Vec::<String>::new(), "{value}");
    }
    assert_eq!(of(&[("b3", single), ("traceparent", TRACE)])[0][..10], *"trace=038a");
}
