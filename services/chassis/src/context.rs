//! What goes along with a call and everything it causes: its deadline and the person who acts. Peers are called with what is left
//! of the deadline and in the same name.

use std::time::Duration;
use tokio::time::Instant;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The longest that a call may take.
pub const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// How long a call may take when the caller sets no deadline.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(15);

/// The target of spans that carry a trace from one place to the next. The tracing middleware uses it too, and the log filter always
/// lets it through: what is logged must not decide whether a trace is whole.
pub const SPANS: &str = "otel::tracing";

/// The call that the present task works for.
#[derive(Debug, Clone)]
pub struct Current {
    pub deadline: Instant,
    pub actor: String,
}

tokio::task_local! {
    static CURRENT: Current;
}

/// Runs `work` for a call.
pub async fn scope<F: Future>(current: Current, work: F) -> F::Output {
    CURRENT.scope(current, work).await
}

/// The call that the present task works for, if any.
pub fn current() -> Option<Current> {
    CURRENT.try_with(Clone::clone).ok()
}

/// What is left of the deadline; the default where there is no call.
pub fn time_left() -> Duration {
    current().map_or(DEFAULT_DEADLINE, |c| c.deadline.saturating_duration_since(Instant::now()))
}

/// Reads a `grpc-timeout` header: at most 8 digits and a unit.
pub fn parse_timeout(header: &str) -> Option<Duration> {
    let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

/// The present span's W3C traceparent, to be stored with a fact or job; empty without a trace.
pub fn traceparent() -> String {
    use opentelemetry::propagation::Injector;
    struct Carrier(String);
    impl Injector for Carrier {
        fn set(&mut self, key: &str, value: String) {
            if key == "traceparent" {
                self.0 = value;
            }
        }
    }
    let mut carrier = Carrier(String::new());
    let context = tracing::Span::current().context();
    opentelemetry::global::get_text_map_propagator(|propagator| propagator.inject_context(&context, &mut carrier));
    carrier.0
}

/// Makes `span` a child of a stored context.
pub fn set_parent(span: &tracing::Span, traceparent: &str) {
    if traceparent.is_empty() {
        return;
    }
    let carrier = std::collections::HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let context = opentelemetry::global::get_text_map_propagator(|propagator| propagator.extract(&carrier));
    // Fails only when no OpenTelemetry layer is installed: then there is no trace to continue.
    let _ = span.set_parent(context);
}

/// The id of the present trace; None without one.
pub fn trace_id() -> Option<String> {
    use opentelemetry::trace::TraceContextExt;
    let context = tracing::Span::current().context();
    let span = context.span().span_context().clone();
    span.is_valid().then(|| span.trace_id().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_grpc_protocol_writes_them() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("1H"), Some(Duration::from_secs(3600)));
        for bad in ["", "5", "m", "123456789S", "-1S", "5x", "秒"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
    }
}
