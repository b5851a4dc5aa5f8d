//! Logs, traces and metrics. Logs are JSON lines on standard error; traces and metrics go to an OTLP collector when there is one;
//! metrics can be scraped too.

use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{
    EnvFilter,
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// What a process measures, for scraping.
pub use prometheus::Registry as Metrics;

/// What must be flushed before the process ends.
pub struct Telemetry {
    tracer: SdkTracerProvider,
    meter: SdkMeterProvider,
    metrics: Metrics,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter {filter:?} is not understood")]
    Filter { filter: String, source: tracing_subscriber::filter::ParseError },
    #[error("the exporter for {endpoint:?} could not be built: {problem}")]
    Exporter { endpoint: String, problem: String },
    #[error("a subscriber is set already")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Writes nothing of spans' fields, which no log line shows: to keep them as JSON, and to parse that for each field that comes later, cost
/// a call more than its work did.
struct NoSpanFields;

impl<'w> FormatFields<'w> for NoSpanFields {
    fn format_fields<R: RecordFields>(&self, _: Writer<'w>, _: R) -> std::fmt::Result {
        Ok(())
    }
}

/// Sets up the process's telemetry for a service. Needs a tokio runtime.
pub fn init(service: &'static str, log: &str, otlp_endpoint: Option<&str>) -> Result<Telemetry, TelemetryError> {
    // An empty variable in a manifest means: no collector.
    let otlp_endpoint = otlp_endpoint.filter(|endpoint| !endpoint.is_empty());
    global::set_text_map_propagator(TraceContextPropagator::new());
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attributes([KeyValue::new("service.namespace", "koc"), KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))])
        .build();
    let failed = |problem: &dyn std::fmt::Display| TelemetryError::Exporter {
        endpoint: otlp_endpoint.unwrap_or_default().to_owned(),
        problem: problem.to_string(),
    };

    // Without a collector spans have their ids, which logs and audit entries name, and nothing is recorded of them.
    let root = if otlp_endpoint.is_some() { Sampler::AlwaysOn } else { Sampler::AlwaysOff };
    let mut tracer =
        SdkTracerProvider::builder().with_resource(resource.clone()).with_sampler(Sampler::ParentBased(Box::new(root)));
    let metrics = Metrics::new();
    let scraped = opentelemetry_prometheus::exporter().with_registry(metrics.clone()).build().map_err(|e| failed(&e))?;
    let mut meter = SdkMeterProvider::builder().with_resource(resource).with_reader(scraped);
    if let Some(endpoint) = otlp_endpoint {
        let spans = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
        tracer = tracer.with_batch_exporter(spans.map_err(|e| failed(&e))?);
        let points = opentelemetry_otlp::MetricExporter::builder().with_tonic().with_endpoint(endpoint).build();
        meter = meter.with_periodic_exporter(points.map_err(|e| failed(&e))?);
    }
    let (tracer, meter) = (tracer.build(), meter.build());
    global::set_tracer_provider(tracer.clone());
    global::set_meter_provider(meter.clone());

    // One filter for all layers: filters per layer lose spans.
    let directives = format!("{log},{}=trace,sqlx::postgres::notice=warn", crate::context::SPANS);
    let filter = EnvFilter::try_new(directives).map_err(|source| TelemetryError::Filter { filter: log.to_owned(), source })?;
    tracing_subscriber::registry()
        .with(filter)
        // What it adds by itself nobody looks at, and the clock is read each time that a span is entered.
        .with(
            tracing_opentelemetry::layer()
                .with_tracer(tracer.tracer(service))
                .with_tracked_inactivity(false)
                .with_location(false)
                .with_threads(false),
        )
        .with(
            tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .fmt_fields(NoSpanFields)
                .with_writer(std::io::stderr),
        )
        .try_init()?;
    Ok(Telemetry { tracer, meter, metrics })
}

impl Telemetry {
    /// What the process measures.
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Sends what is not sent yet. Blocks for as long as the exporters do.
    pub fn shutdown(self) {
        for ended in [self.tracer.shutdown(), self.meter.shutdown()] {
            if let Err(error) = ended {
                tracing::debug!(error = %error, "telemetry did not end cleanly");
            }
        }
    }
}
