//! One trace from a call to what it causes in other places, and the audit entry that names it.

use crate::mini::{self, PATIENCE, admitted, create, replica};
use futures::{StreamExt, stream::BoxStream};
use koc_chassis::{
    consumer::{Consumer, Effect, EffectError, Source},
    context,
    gate::Gate,
    job::{self, Job, JobError, JobHandler, NewJob},
    sequencer,
};
use koc_proto::koc::{feed::v1::Change, registry::v1 as pb};
use koc_tests::{service, wait};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use sqlx::PgConnection;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tonic::Status;
use tracing::Instrument;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use uuid::Uuid;

/// Keeps spans as they end.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("whole").extend(batch);
        Ok(())
    }
}

impl Spans {
    async fn find(&self, what: &str, is: impl Fn(&SpanData) -> bool) -> SpanData {
        wait::until(what, PATIENCE, async || self.0.lock().expect("whole").iter().find(|span| is(span)).cloned()).await
    }
}

/// Sends the spans of this process to one place, whatever is logged; the subscriber is the process's own.
fn spans() -> Spans {
    static SPANS: OnceLock<Spans> = OnceLock::new();
    let install = || {
        let spans = Spans::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry()
            .with(tracing_subscriber::EnvFilter::new(format!("error,{}=trace", context::SPANS)))
            .with(layer);
        tracing::subscriber::set_global_default(subscriber).expect("nobody else sets it");
        spans
    };
    SPANS.get_or_init(install).clone()
}

/// A feed of the one change.
struct One(Change);

#[async_trait::async_trait]
impl Source for One {
    async fn watch(&self, after: i64) -> Result<BoxStream<'static, Result<(Vec<Change>, i64), Status>>, Status> {
        let news = (after < self.0.position).then(|| Ok((vec![self.0.clone()], self.0.position)));
        Ok(futures::stream::iter(news).chain(futures::stream::pending()).boxed())
    }
}

/// Starts a job, so that the trace goes on in its step.
struct Starting;

#[async_trait::async_trait]
impl Effect for Starting {
    async fn apply(&self, conn: &mut PgConnection, _: &Change) -> Result<(), EffectError> {
        let (subject, state) = (Uuid::now_v7(), serde_json::json!({}));
        let new =
            NewJob { kind: "follow", programme: Uuid::nil().into(), subject, step: "first", state, actor: "ada", run_time: None };
        job::start(conn, new).await?;
        Ok(())
    }
}

struct Finishing(koc_chassis::postgres::Db);

#[async_trait::async_trait]
impl JobHandler for Finishing {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        assert_eq!(context::current().expect("a step is a call of its own").actor, "ada");
        let mut tx = self.0.begin().await?;
        job.finish(&mut tx).await?;
        Ok(tx.commit().await?)
    }
}

#[tokio::test]
async fn an_effect_and_the_job_it_starts_continue_the_trace_of_the_call_and_the_audit_names_it() {
    let spans = spans();
    let database = service::database(&mini::schema()).await;
    let db = replica(&database);
    let gate: Gate<mini::Error> = Gate::new(db.clone(), "registry.koc");

    let cause = tracing::info_span!(target: context::SPANS, "the cause");
    let cause_context = cause.context().span().span_context().clone();
    let request = create("one");
    let created = gate.mutate(admitted(request.clone()), |work, req| {
        Box::pin(async move {
            let subject = work.programme().0;
            work.emit(subject, &pb::ProgrammeCreated { programme_id: req.programme_id }).await?;
            work.audit(subject, Some("a new brand".into()));
            Ok(pb::CreateProgrammeResponse::default())
        })
    });
    created.instrument(cause.clone()).await.expect("created");
    drop(cause);
    let trace = cause_context.trace_id();

    let audited: (String, String, String, Uuid, String, String) =
        sqlx::query_as("SELECT actor, client, method, subject_id, reason, trace_id FROM audit_entry")
            .fetch_one(&database.admin)
            .await
            .expect("one entry");
    let programme = Uuid::try_parse(&request.programme_id).expect("a UUID");
    let expected = ("ada", "platform", "koc.registry.v1.CreateProgrammeRequest", programme, "a new brand");
    assert_eq!((audited.0.as_str(), audited.1.as_str(), audited.2.as_str(), audited.3, audited.4.as_str()), expected);
    assert_eq!(audited.5, trace.to_string());

    sequencer::Sequencer::new(&db).step(None).await.expect("sequences");
    let feed = koc_chassis::feed::Feed::start(db.clone(), CancellationToken::new());
    let change = feed.list(None, 0, 1).await.expect("a page").changes.remove(0);
    assert!(change.traceparent.contains(&trace.to_string()), "{}", change.traceparent);

    let consumer = Consumer::new(db.clone(), "registry", Arc::new(One(change)), Arc::new(Starting));
    let handlers: HashMap<&'static str, Arc<dyn JobHandler>> = HashMap::from([("follow", Arc::new(Finishing(db.clone())) as _)]);
    let _consumer = AbortOnDropHandle::new(tokio::spawn(consumer.run(CancellationToken::new())));
    let _jobs = AbortOnDropHandle::new(tokio::spawn(job::run(db, handlers, CancellationToken::new())));

    let ours = |span: &SpanData, name: &str| span.span_context.trace_id() == trace && span.name == name;
    let effect = spans.find("the effect's span", |span| ours(span, "apply ProgrammeCreated")).await;
    assert_eq!(effect.parent_span_id, cause_context.span_id());
    assert_eq!(effect.links.len(), 1);
    assert_ne!(effect.links[0].span_context.trace_id(), trace, "the pull that brought it has a trace of its own");
    let step = spans.find("the step's span", |span| ours(span, "follow first")).await;
    assert_eq!(step.parent_span_id, effect.span_context.span_id());
}

#[tokio::test]
async fn a_call_continues_its_callers_trace_over_the_wire_and_facts_carry_it_on() {
    let spans = spans();
    let mini = mini::start().await;
    let caller = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut request = tonic::Request::new(create("one"));
    let traceparent = format!("00-{caller}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("text"));
    mini.programmes().create_programme(request).await.expect("created");
    let (audited, told): (String, String) = sqlx::query_as("SELECT trace_id, traceparent FROM audit_entry, told")
        .fetch_one(&mini.running.database.admin)
        .await
        .expect("one of each");
    assert_eq!(audited, caller);
    assert!(told.contains(caller) && told != traceparent, "{told}");
    drop(spans);
}

#[tokio::test]
async fn a_call_by_http_is_one_span_of_its_callers_trace() {
    let spans = spans();
    let mini = mini::start().await;
    let (caller, parent) = ("7c2f92f3577b34da6a3ce929d0e0e473", "11f067aa0ba902b7");
    let request = create("one");
    let body = serde_json::json!({"programmeId": request.programme_id, "requestId": request.request_id, "displayName": "one",
        "currencyCode": "CNY", "timeZone": "Asia/Shanghai"});
    let traceparent = format!("00-{caller}-{parent}-01");
    let headers = [("content-type", "application/json"), ("traceparent", traceparent.as_str())];
    mini.running.http().send(http::Method::POST, "/v1/programmes", &headers, body.to_string().into()).await.good();
    let ours = |span: &SpanData| span.span_context.trace_id().to_string() == caller && span.parent_span_id.to_string() == parent;
    let span = spans.find("the call's span", ours).await;
    assert_eq!(span.name, "koc.registry.v1.ProgrammeService/CreateProgramme");
    assert_eq!(spans.0.lock().expect("whole").iter().filter(|span| ours(span)).count(), 1);
    let audited: String =
        sqlx::query_scalar("SELECT trace_id FROM audit_entry").fetch_one(&mini.running.database.admin).await.expect("one entry");
    assert_eq!(audited, caller);
}
