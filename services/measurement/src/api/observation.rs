//! ObservationService: readings by the batch, in a stream or one by one.

use crate::{
    domain::{
        ids::OutputId,
        output::Metric,
        reading::{Observation, Series},
        spike::MAX_CUMULATIVE,
    },
    error::Error,
    flow::record_observations::{Outcome, record},
};
use futures::{Stream, StreamExt};
use koc_chassis::{
    auth::Caller,
    clock,
    fault::{Fault, Violation, Violations},
    gate::Gate,
    ids::ProgrammeId,
};
use koc_proto::{google::rpc::Status as WireStatus, koc::measurement::v1 as pb, rules::Rules};
use prost::Message;
use std::{pin::Pin, sync::Arc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;

/// Answers that wait for a slow reader of a stream; the stream's own readings wait behind them.
const QUEUE: usize = 2;

/// More followers than anybody has.
const MAX_FOLLOWS: u64 = 1_000_000_000;

/// Takes readings.
pub struct ObservationApi {
    pub gate: Gate<Error>,
    pub domain: &'static str,
    /// Streams end between two batches when the service goes away.
    pub stop: CancellationToken,
}

/// A reading that keeps to its rules.
fn parse(message: &pb::Observation) -> Result<Observation, Error> {
    let broken = message.violations();
    if !broken.is_empty() {
        return Err(Error::Invalid(broken));
    }
    let mut violations = Violations::default();
    let output = violations.take(OutputId::parse("output_id", &message.output_id));
    let at = violations.take(clock::required("observe_time", message.observe_time.as_ref()));
    let metric = Metric::from_number(message.metric);
    if metric.is_none() {
        violations.push(Violation::new("metric", "enum.defined_only", "must be one of the metrics"));
    }
    let highest = if metric == Some(Metric::Follows) { MAX_FOLLOWS } else { MAX_CUMULATIVE };
    if u64::try_from(message.value).is_ok_and(|value| value > highest) {
        let rule = format!("must be at most {highest}: no counter is so high");
        violations.push(Violation::new("value", "COUNTER_TOO_HIGH", rule));
    }
    violations.finish()?;
    match (output, metric, at) {
        (Some(output), Some(metric), Some(at)) => {
            let series = Series { output, metric, paid: message.paid };
            Ok(Observation { series, at, value: message.value })
        }
        _ => Err(Error::Invalid(Vec::new())),
    }
}

/// Takes a batch; one result per reading, in order.
async fn take(
    gate: &Gate<Error>,
    programme: ProgrammeId,
    batch: &[pb::Observation],
) -> Result<Vec<pb::ObservationResult>, Error> {
    let parsed: Vec<Result<Observation, Error>> = batch.iter().map(parse).collect();
    let valid: Vec<Observation> = parsed.iter().filter_map(|one| one.as_ref().ok().copied()).collect();
    let mut taken = if valid.is_empty() { Vec::new() } else { record(gate.db(), programme, &valid).await? }.into_iter();
    let results = parsed.into_iter().enumerate().map(|(index, one)| {
        let outcome = match one {
            Ok(_) => taken.next().unwrap_or(Outcome::Rejected(Error::Interrupted)),
            Err(error) => Outcome::Rejected(error),
        };
        result(gate, index, outcome)
    });
    Ok(results.collect())
}

fn result(gate: &Gate<Error>, index: usize, outcome: Outcome) -> pb::ObservationResult {
    let (outcome, status) = match outcome {
        Outcome::Recorded => (pb::ObservationOutcome::Recorded, None),
        Outcome::Duplicate => (pb::ObservationOutcome::Duplicate, None),
        Outcome::Late => (pb::ObservationOutcome::Late, None),
        Outcome::Adjusted => (pb::ObservationOutcome::Adjusted, None),
        Outcome::Rejected(error) => {
            let status = gate.status(&error);
            // A status with details carries itself, encoded, as its details.
            let wire = WireStatus::decode(status.details()).unwrap_or_else(|_| WireStatus {
                code: status.code().into(),
                message: status.message().to_owned(),
                details: Vec::new(),
            });
            (pb::ObservationOutcome::Rejected, Some(wire))
        }
    };
    pb::ObservationResult { index: i32::try_from(index).unwrap_or(i32::MAX), outcome: outcome.into(), status }
}

type Answers = Pin<Box<dyn Stream<Item = Result<pb::RecordObservationsResponse, Status>> + Send>>;

#[tonic::async_trait]
impl pb::observation_service_server::ObservationService for ObservationApi {
    type RecordObservationsStream = Answers;

    async fn record_observations(
        &self,
        request: Request<Streaming<pb::RecordObservationsRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let caller = self.gate.caller(&request)?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let batches = Batches {
            gate: self.gate.clone(),
            domain: self.domain,
            stop: self.stop.clone(),
            caller,
            messages: request.into_inner(),
            sender,
        };
        tokio::spawn(batches.run().in_current_span());
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn batch_record_observations(
        &self,
        request: Request<pb::BatchRecordObservationsRequest>,
    ) -> Result<Response<pb::BatchRecordObservationsResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::BatchRecordObservationsRequest| async move {
                let results = take(&self.gate, call.programme, &req.observations).await?;
                Ok(pb::BatchRecordObservationsResponse { results })
            })
            .await
    }
}

/// One stream at work.
struct Batches {
    gate: Gate<Error>,
    domain: &'static str,
    stop: CancellationToken,
    caller: Arc<Caller>,
    messages: Streaming<pb::RecordObservationsRequest>,
    sender: mpsc::Sender<Result<pb::RecordObservationsResponse, Status>>,
}

impl Batches {
    async fn run(mut self) {
        let mut expected = 1;
        loop {
            let message = tokio::select! {
                () = self.stop.cancelled() => {
                    let going = Fault::unavailable("DRAINING", "the service is going away; send what is not committed again");
                    let _ = self.sender.send(Err(going.into_status(self.domain))).await;
                    return;
                }
                () = self.sender.closed() => return,
                message = self.messages.next() => message,
            };
            let answer = match message {
                None => return,
                Some(Err(status)) => Err(status),
                Some(Ok(message)) => self.batch(message, expected).await,
            };
            expected += 1;
            let failed = answer.is_err();
            if self.sender.send(answer).await.is_err() || failed {
                return;
            }
        }
    }

    async fn batch(
        &self,
        message: pb::RecordObservationsRequest,
        expected: i64,
    ) -> Result<pb::RecordObservationsResponse, Status> {
        let call = self.gate.enter(self.caller.clone(), &message)?;
        if message.batch_number != expected {
            let rule = format!("must be {expected}: batches count from 1 by 1");
            let violation = Violation::new("batch_number", "BATCH_NUMBER", rule);
            return Err(Fault::invalid(vec![violation]).into_status(self.domain));
        }
        let results = take(&self.gate, call.programme, &message.observations).await;
        let results = results.map_err(|error| self.gate.status(&error))?;
        Ok(pb::RecordObservationsResponse { committed_through: message.batch_number, results })
    }
}
