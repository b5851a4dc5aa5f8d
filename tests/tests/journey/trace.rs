//! The loop, and one trace through it.

use koc_tests::{
    otlp::{Collector, Received},
    suite::{SERVICES, Suite},
    wait,
};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_closes_and_one_trace_crosses_all_four_services() {
    let collector = Collector::start().await;
    let suite = Suite::start(Some(collector.endpoint())).await;

    let told = suite.run(&["demo"]).await;
    for expected in
        ["APPROVER_IS_REQUESTER", "ENVELOPE_EXHAUSTED", "INCREASE", "MAINTAIN", "REVIEW", "REDUCE", "all sums and the chain hold"]
    {
        assert!(told.contains(expected), "the demo tells of {expected}:\n{told}");
    }
    let trace = told.split("Trace ").nth(1).and_then(|t| t.split(' ').next()).expect("the demo names its trace");

    // Every service sends its part of the trace, and every parent but the root's is among what was sent.
    let spans = wait::until("all spans of the trace", PATIENCE, async || whole(&collector.spans(), trace)).await;
    let services: BTreeSet<&str> = spans.iter().map(|s| s.service.as_str()).collect();
    for service in SERVICES {
        assert!(services.contains(format!("koc-{service}").as_str()), "{service} is in the trace: {services:?}");
    }
    let by_id: HashMap<&[u8], &Received> = spans.iter().map(|s| (s.span.span_id.as_slice(), s)).collect();
    let roots: Vec<_> = spans.iter().filter(|s| s.span.parent_span_id.is_empty()).collect();
    assert_eq!(roots.len(), 1, "one root");
    assert_eq!(roots[0].service, "koc-demo");

    // Through the feed: what measurement does about a settled assignment descends from the task service's work, and links to
    // the pull that brought the fact.
    let effect = spans.iter().find(|s| s.service == "koc-measurement" && s.span.name == "apply AssignmentSettled");
    let effect = effect.expect("measurement applied the fact");
    assert!(ancestors(effect, &by_id).iter().any(|a| a.service == "koc-task"), "its ancestors include the task service");
    assert_eq!(effect.span.links.len(), 1, "it links to the pull");

    // Through a command: what the budget does about an acceptance descends from the task service's job.
    let reserve = spans.iter().find(|s| s.service == "koc-budget" && s.span.name.ends_with("ReservationService/Reserve"));
    let reserve = reserve.expect("the budget was asked");
    let above = ancestors(reserve, &by_id);
    assert!(above.iter().any(|a| a.service == "koc-task"), "its ancestors include the task service");

    // The same again is a replay of the first: the same end state.
    let first = suite.run(&["demo", "--digest"]).await;
    assert_eq!(first, suite.run(&["demo", "--digest"]).await);
}

/// The spans of a trace, once no parent is missing and all services have sent.
fn whole(all: &[Received], trace: &str) -> Option<Vec<Received>> {
    let hex = |id: &[u8]| id.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let spans: Vec<Received> = all.iter().filter(|s| hex(&s.span.trace_id) == trace).cloned().collect();
    let ids: BTreeSet<&[u8]> = spans.iter().map(|s| s.span.span_id.as_slice()).collect();
    let complete = spans.iter().all(|s| s.span.parent_span_id.is_empty() || ids.contains(s.span.parent_span_id.as_slice()));
    let rooted = spans.iter().any(|s| s.span.parent_span_id.is_empty());
    (complete && rooted).then_some(spans)
}

fn ancestors<'a>(span: &Received, by_id: &HashMap<&[u8], &'a Received>) -> Vec<&'a Received> {
    let mut above = Vec::new();
    let mut parent = by_id.get(span.span.parent_span_id.as_slice());
    while let Some(next) = parent {
        above.push(*next);
        parent = by_id.get(next.span.parent_span_id.as_slice());
    }
    above
}
