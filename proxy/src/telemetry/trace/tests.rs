use http::Request;

use super::*;
use crate::config::{TracePropagation, TraceProtocol};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn tracer(sample: Percent, propagation: Vec<TracePropagation>) -> (Tracer, Exporting, Counter) {
    let endpoint = "http://127.0.0.1:1".parse().expect("an endpoint");
    let settings = TraceSettings { endpoint, protocol: TraceProtocol::Grpc, sample, propagation };
    let dropped = Counter::default();
    let (tracer, exporting) = Tracer::new(&settings, None, Counter::default(), [dropped.clone(), Counter::default()]);
    (tracer, exporting, dropped)
}

fn head(fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::get("/a?b");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

/// The fields of a request that went through, with its own span written as `SPAN`.
fn passed_on(tracer: &Tracer, mut head: request::Parts) -> Vec<String> {
    let mut draws = 6_u64..;
    let trace = tracer.begin(&head, || draws.next().expect("enough"));
    let span = trace.map(|trace| {
        trace.write(&mut head.headers);
        format!("{:016x}", trace.span)
    });
    let text = |(name, value): (&http::HeaderName, &HeaderValue)| {
        let value = value.to_str().expect("text");
        let value = span.as_ref().map_or_else(|| value.to_owned(), |span| value.replace(&**span, "SPAN"));
        format!("{name}: {value}")
    };
    let mut fields: Vec<_> = head.headers.iter().map(text).collect();
    fields.sort();
    fields
}

#[test]
fn a_context_is_continued_in_the_form_in_which_it_came() {
    let (never, _exporting, _) = tracer(Percent::hundredths(0).expect("a share"), vec![TracePropagation::W3c]);
    let short = "8448eb211c80319c";
    for (case, fields, want) in [
        ("nothing", vec![], vec![]),
        (
            "W3C",
            vec![("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), ("tracestate", "a=b")],
            vec![format!("traceparent: 00-{TRACE}-SPAN-01"), "tracestate: a=b".into()],
        ),
        (
            "W3C of a later version",
            vec![("traceparent", "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03-more")],
            vec![format!("traceparent: 00-{TRACE}-SPAN-01")],
        ),
        (
            "B3",
            vec![("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")],
            vec![format!("b3: {TRACE}-SPAN-1-b7ad6b7169203331")],
        ),
        (
            "B3 of 64 bits, for debugging",
            vec![("b3", "8448eb211c80319c-b7ad6b7169203331-d-05e3ac9a4f6e3b90")],
            vec![format!("b3: {short}-SPAN-d-b7ad6b7169203331")],
        ),
        (
            "B3 in several fields",
            vec![("x-b3-traceid", TRACE), ("x-b3-spanid", "b7ad6b7169203331"), ("x-b3-sampled", "1")],
            vec![
                "x-b3-parentspanid: b7ad6b7169203331".into(),
                "x-b3-sampled: 1".into(),
                "x-b3-spanid: SPAN".into(),
                format!("x-b3-traceid: {TRACE}"),
            ],
        ),
        (
            "both",
            vec![
                ("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1"),
                ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ],
            vec![format!("b3: {TRACE}-SPAN-1-b7ad6b7169203331"), format!("traceparent: 00-{TRACE}-SPAN-01")],
        ),
    ] {
        assert_eq!(passed_on(&never, head(&fields)), want, "{case}");
    }
}

#[test]
fn what_is_not_recorded_is_passed_on_untouched() {
    let (never, _exporting, _) = tracer(Percent::hundredths(0).expect("a share"), vec![TracePropagation::W3c]);
    let (always, _exporting, _) = tracer(Percent::ALL, vec![TracePropagation::W3c]);
    for (case, tracer, name, value) in [
        ("not sampled", &always, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"),
        ("not sampled, B3", &always, "b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0"),
        ("denied, B3", &always, "b3", "0"),
        ("denied, B3 in several fields", &always, "x-b3-sampled", "0"),
        ("left to us", &never, "b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"),
        ("no trace", &never, "traceparent", "00-00000000000000000000000000000000-b7ad6b7169203331-01"),
        ("no span", &never, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"),
        ("upper case", &never, "traceparent", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"),
        (
            "too long for its version",
            &never,
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ),
        ("a version that cannot be", &never, "traceparent", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("too short", &never, "traceparent", "00-0af7"),
        ("signs", &never, "traceparent", "00-+af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        assert_eq!(passed_on(tracer, head(&[(name, value)])), [format!("{name}: {value}")], "{case}");
    }
    let two = [("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"); 2];
    assert_eq!(passed_on(&never, head(&two)).len(), 2, "two contexts are none");
}

#[test]
fn a_share_of_new_traces_is_recorded() {
    let new = vec![TracePropagation::W3c, TracePropagation::B3];
    let (tracer, _exporting, _) = tracer(Percent::hundredths(2_500).expect("a share"), new);
    let begun = (0..10_000_u64).filter_map(|draw| tracer.begin(&head(&[]), || draw)).collect::<Vec<_>>();
    assert_eq!(begun.len(), 2_500);
    assert!(begun.iter().all(|trace| trace.trace_id != 0 && trace.span != 0 && trace.parent.is_none()));
    let mut fields = HeaderMap::new();
    begun[0].write(&mut fields);
    assert!(fields.contains_key("traceparent") && fields.contains_key("b3"), "{fields:?}");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let (tracer, _exporting, dropped) = tracer(Percent::ALL, vec![TracePropagation::W3c]);
    let trace = tracer.begin(&head(&[]), || 7).expect("recorded");
    for _ in 0..WAITING + 3 {
        drop(tracer.attempt(&trace, ([127, 0, 0, 1], 80).into(), false, 9));
    }
    assert_eq!(dropped.get(), 3);
}
