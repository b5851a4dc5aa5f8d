//! SyncService.

use super::convert::{self, Wire};
use crate::{
    domain::{
        suppression::Keys,
        sync::Row,
        sync_run::{Credit, DEFAULT_MAX_DELETE_PERCENT, Mode, Refusal, Run, RunId, Settings},
        text::storable,
    },
    error::Error,
    flow::{
        apply_batch::{Batch, apply_batch},
        sync_run::{self, Sent, SentRow},
    },
    store::{self, audit::Act},
};
use futures::{Stream, stream};
use koc_chassis::{
    auth::Caller,
    clock,
    context::{self, Current},
    fault::{Violation, Violations},
    gate::{Call, Gate},
    ids::ProgrammeId,
};
use koc_proto::{koc::registry::v1 as pb, rules::Rules};
use pb::sync_members_request::Message;
use prost::Message as _;
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::{Instrument, Span, info_span};

/// Batches at work at once may hold one in so many of the database connections, so that other calls have some too. Those beyond wait,
/// in the order they came.
const CONNECTIONS_PER_BATCH: u32 = 4;
/// One batch of a stream may take so long.
const BATCH_DEADLINE: Duration = Duration::from_secs(30);

pub struct SyncApi {
    gate: Gate<Error>,
    drain: CancellationToken,
    slots: Arc<Semaphore>,
    keys: Arc<Keys>,
}

impl SyncApi {
    pub fn new(gate: Gate<Error>, keys: Arc<Keys>, drain: CancellationToken) -> Self {
        let slots = gate.db().pool().options().get_max_connections().div_ceil(CONNECTIONS_PER_BATCH);
        Self { gate, drain, slots: Arc::new(Semaphore::new(slots as usize)), keys }
    }
}

/// Waits for the turn of a batch.
async fn turn(slots: &Semaphore) -> Result<SemaphorePermit<'_>, Error> {
    // Nobody closes the semaphore.
    slots.acquire().await.map_err(|_| Error::Draining)
}

type Batches = Pin<Box<dyn Stream<Item = Result<pb::SyncMembersResponse, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl pb::sync_service_server::SyncService for SyncApi {
    async fn batch_upsert_members(
        &self,
        request: Request<pb::BatchUpsertMembersRequest>,
    ) -> Result<Response<pb::BatchUpsertMembersResponse>, Status> {
        let (call, request) = self.gate.admit(request)?;
        let rows: Vec<_> = request.rows.into_iter().map(row).collect();
        let batch = Batch {
            source_system: &request.source_system,
            rows: &rows,
            as_of: None,
            validate_only: request.validate_only,
            method: pb::BatchUpsertMembersRequest::NAME,
            keys: &self.keys,
        };
        let applied = async {
            let _turn = turn(&self.slots).await?;
            apply_batch(self.gate.db(), Act::from(&call), &batch).await
        };
        let applied = applied.await.map_err(|error: Error| self.gate.status(&error))?;
        Ok(Response::new(pb::BatchUpsertMembersResponse { results: sync_run::results(applied) }))
    }

    type SyncMembersStream = Batches;

    async fn sync_members(
        &self,
        request: Request<Streaming<pb::SyncMembersRequest>>,
    ) -> Result<Response<Self::SyncMembersStream>, Status> {
        let sync = Sync {
            gate: self.gate.clone(),
            drain: self.drain.clone(),
            slots: self.slots.clone(),
            keys: self.keys.clone(),
            caller: self.gate.caller(&request)?,
            incoming: Incoming { messages: request.into_inner(), ahead: None },
            programme: None,
            run: None,
            credit: Credit::MOST,
            closed: false,
            span: Span::current(),
        };
        // One message is read ahead and no more until the answer before is taken; a caller that goes away drops the batch at work.
        let answers = stream::unfold(Some(sync), |sync| async move {
            let mut sync = sync?;
            match sync.next().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(sync))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

/// What a caller sends, read one message ahead: rows are decoded and checked while the database is at work on those before.
struct Incoming {
    messages: Streaming<pb::SyncMembersRequest>,
    /// The end of the stream is None.
    ahead: Option<Result<Option<Received>, Status>>,
}

/// A message, and what its batch comes to.
struct Received {
    /// Without its batch.
    request: pb::SyncMembersRequest,
    batch: Option<Result<Sent, Violation>>,
}

impl Incoming {
    /// Reads the next message, unless it is there. It may be dropped at any time: nothing is lost.
    async fn read(&mut self) {
        if self.ahead.is_none() {
            let message = self.messages.message().await;
            self.ahead = Some(message.map(|message| message.map(received)));
        }
    }

    async fn next(&mut self) -> Result<Option<Received>, Status> {
        self.read().await;
        self.ahead.take().unwrap_or(Ok(None))
    }
}

fn received(mut request: pb::SyncMembersRequest) -> Received {
    let batch = match request.message.take() {
        Some(Message::Batch(batch)) => Some(sent(batch)),
        other => {
            request.message = other;
            None
        }
    };
    Received { request, batch }
}

/// A stream at work.
struct Sync {
    gate: Gate<Error>,
    drain: CancellationToken,
    slots: Arc<Semaphore>,
    keys: Arc<Keys>,
    caller: Arc<Caller>,
    incoming: Incoming,
    /// That of the first message.
    programme: Option<ProgrammeId>,
    /// Once it is opened.
    run: Option<RunId>,
    credit: Credit,
    closed: bool,
    span: Span,
}

impl Sync {
    /// Takes the next message and answers it once what it asks is committed; None after the last.
    async fn next(&mut self) -> Result<Option<pb::SyncMembersResponse>, Status> {
        if self.closed {
            return Ok(None);
        }
        let received = tokio::select! {
            biased;
            () = self.drain.cancelled() => return Err(self.gate.status(&Error::Draining)),
            received = self.incoming.next() => received?,
        };
        let Some(Received { request, batch }) = received else { return Ok(None) };
        let span = match &batch {
            Some(Ok(sent)) => {
                info_span!(parent: &self.span, "sync_batch", batch_number = sent.number, rows = sent.rows.len())
            }
            _ => info_span!(parent: &self.span, "sync_run"),
        };
        let call = self.gate.enter(self.caller.clone(), &request)?;
        let current = Current { deadline: Instant::now() + BATCH_DEADLINE, actor: self.caller.actor.clone() };
        let answer = context::scope(current, self.answer(call, request.message, batch)).instrument(span).await;
        let answer = answer.map_err(|error| self.gate.status(&error))?;
        Ok(Some(pb::SyncMembersResponse { credit: self.credit.batches(), ..answer }))
    }

    async fn answer(
        &mut self,
        call: Call,
        message: Option<Message>,
        batch: Option<Result<Sent, Violation>>,
    ) -> Result<pb::SyncMembersResponse, Error> {
        let mut violations = Violations::default();
        if *self.programme.get_or_insert(call.programme) != call.programme {
            let rule = "must be the same in all messages of a stream";
            violations.push(Violation::new("programme_id", "PROGRAMME_CHANGED", rule));
        }
        match (self.run, message, batch) {
            (None, Some(Message::Open(opening)), _) => {
                let settings = violations.take_all(opened("open", opening));
                violations.finish()?;
                let Some(opened) = settings else { return Err(Error::Invalid(Vec::new())) };
                self.open(&call, opened).await
            }
            (Some(run), _, Some(batch)) => {
                let sent = violations.take(batch);
                violations.finish()?;
                let Some(sent) = sent else { return Err(Error::Invalid(Vec::new())) };
                self.take(&call, run, &sent).await
            }
            (Some(run), Some(Message::Close(_)), _) => {
                violations.finish()?;
                let run = sync_run::close(self.gate.db(), Act::from(&call), run).await?;
                self.closed = true;
                Ok(about(run))
            }
            (opened, ..) => {
                let (rule, text) = match opened {
                    None => ("RUN_NOT_OPENED", "must open a run first"),
                    Some(_) => ("RUN_OPENED", "must be a batch, or close the run: it is open"),
                };
                violations.push(Violation::new("message", rule, text));
                violations.finish()?;
                Err(Error::Invalid(Vec::new()))
            }
        }
    }

    async fn take(&mut self, call: &Call, run: RunId, sent: &Sent) -> Result<pb::SyncMembersResponse, Error> {
        let began = Instant::now();
        let Self { gate, slots, keys, incoming, credit, .. } = self;
        let at_work = async {
            let _turn = turn(slots).await?;
            sync_run::take(gate.db(), Act::from(call), run, sent, keys).await
        };
        tokio::pin!(at_work);
        let answer = tokio::select! {
            biased;
            answer = &mut at_work => answer,
            () = incoming.read() => at_work.await,
        };
        *credit = credit.after(began.elapsed());
        answer
    }

    async fn open(&mut self, call: &Call, opened: Opened) -> Result<pb::SyncMembersResponse, Error> {
        let run = match opened {
            Opened::Named(settings) => sync_run::open(self.gate.db(), call.into(), &settings).await?,
            Opened::Known(run) => {
                let mut conn = self.gate.db().read().await?;
                store::sync_run::get(&mut conn, call.programme, run).await?.ok_or(Refusal::NotFound { run })?
            }
        };
        self.run = Some(run.id);
        Ok(about(run))
    }
}

/// An answer that tells of a run.
fn about(run: Run) -> pb::SyncMembersResponse {
    pb::SyncMembersResponse {
        committed_through: run.committed_through,
        run: Some(super::sync_run::to_wire(run)),
        ..Default::default()
    }
}

/// The run that is asked for.
#[derive(Debug)]
pub(super) enum Opened {
    Known(RunId),
    Named(Settings),
}

/// Reads what stands in the field `at`.
pub(super) fn opened(at: &str, opening: pb::SyncOpening) -> Result<Opened, Vec<Violation>> {
    let field = |name: &str| format!("{at}.{name}");
    if !opening.sync_run_id.is_empty() {
        let run = RunId::parse(&field("sync_run_id"), &opening.sync_run_id);
        return Ok(Opened::Known(run.map_err(|broken| vec![broken])?));
    }
    let mut violations = Violations::default();
    for (name, text) in [("source_system", &opening.source_system), ("run_name", &opening.run_name)] {
        if text.is_empty() {
            violations.push(Violation::new(field(name), "string.min_len", "must be set, unless a sync_run_id is"));
        }
        violations.take(storable(&field(name), text));
    }
    let mode = match opening.mode {
        0 => Some(Mode::Incremental),
        number => violations.take(Mode::from_wire(&field("mode"), number)),
    };
    let as_of = opening.as_of.map(|time| clock::from_proto(&field("as_of"), &time));
    let as_of = violations.take(as_of.transpose()).flatten();
    if mode == Some(Mode::Full) && opening.as_of.is_none() {
        violations.push(Violation::new(field("as_of"), "AS_OF_REQUIRED", "must say when a full export was made"));
    }
    violations.finish()?;
    Ok(Opened::Named(Settings {
        source_system: opening.source_system,
        name: opening.run_name,
        mode: mode.unwrap_or(Mode::Incremental),
        validate_only: opening.validate_only,
        as_of,
        max_delete_percent: opening.max_delete_percent.unwrap_or(DEFAULT_MAX_DELETE_PERCENT),
    }))
}

fn sent(batch: pb::SyncBatch) -> Result<Sent, Violation> {
    if batch.rows.is_empty() && batch.unread_external_ids.is_empty() {
        return Err(Violation::new("batch", "BATCH_EMPTY", "must have rows, or ids of rows that could not be read"));
    }
    let rows = batch.rows.iter().map(|row| SentRow { external_id: row.external_id.clone(), content: row.encode_to_vec() });
    let rows = rows.collect();
    Ok(Sent::new(batch.batch_number, rows, batch.rows.into_iter().map(row).collect(), batch.unread_external_ids))
}

/// A row, or all that it breaks.
pub fn row(wire: pb::MemberRow) -> Result<Row, Vec<Violation>> {
    let mut broken = wire.violations();
    broken.extend(convert::no_mask("external_id", &wire.external_id).err());
    broken.extend(wire.profile.iter().filter_map(|profile| convert::unmasked(profile, |_| true).err()).flatten());
    if !broken.is_empty() {
        return Err(broken);
    }
    let mut violations = Violations::default();
    let source_time = violations.take(clock::required("source_time", wire.source_time.as_ref()));
    let values = violations.take_all(convert::profile(wire.profile.unwrap_or_default())).unwrap_or_default();
    let row = violations.take_all(Row::new(
        wire.external_id,
        source_time.unwrap_or_default(),
        values,
        &wire.clear_fields,
        wire.deleted,
    ));
    violations.finish()?;
    row.ok_or_else(Vec::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_row_reports_all_it_breaks_with_the_paths_of_its_fields() {
        let profile = pb::MemberProfile { email: "nobody".into(), phone: "12".into(), ..Default::default() };
        let wire = pb::MemberRow { profile: Some(profile), ..Default::default() };
        let fields: Vec<_> = row(wire).expect_err("four rules").into_iter().map(|v| v.field).collect();
        assert_eq!(fields, ["external_id", "source_time", "profile.email", "profile.phone"]);
    }

    #[test]
    fn a_row_of_masks_is_refused_for_each_of_them() {
        let channels = vec![pb::Channel { platform: "DOUYIN".into(), handle: "xiaomei".into(), followers: None }];
        let mut profile = pb::MemberProfile {
            display_name: "张小龙".into(),
            email: "zhang@mail.example.com".into(),
            phone: "+8613900000000".into(),
            region_code: "CN-GD".into(),
            city: "广州".into(),
            channels,
            vehicles: vec![pb::Vehicle { model: "E5".into(), vin: "LSV0000".into() }],
            motivations: vec![1],
            tags: vec!["vip".into()],
            ..Default::default()
        };
        let wire = |profile: &pb::MemberProfile, external_id: &str| pb::MemberRow {
            external_id: external_id.into(),
            source_time: Some(clock::to_proto(chrono::DateTime::UNIX_EPOCH)),
            profile: Some(profile.clone()),
            ..Default::default()
        };
        assert!(row(wire(&profile, "700")).is_ok());
        profile.mask_personal();
        let broken = row(wire(&profile, "7*")).expect_err("all of them");
        let masked: Vec<_> = broken.iter().filter(|v| v.rule == "MASKED_VALUE").map(|v| v.field.as_str()).collect();
        // Whatever the contract marks as personal is among them.
        static MARKED: AtomicUsize = AtomicUsize::new(0);
        wire(&profile, "7*").each_personal(|_, _| _ = MARKED.fetch_add(1, Ordering::Relaxed));
        assert_eq!((masked.len(), masked[0]), (MARKED.load(Ordering::Relaxed), "external_id"), "{masked:?}");
    }

    #[test]
    fn a_full_run_must_say_when_its_export_was_made() {
        let opening = pb::SyncOpening { mode: pb::SyncMode::Full.into(), run_name: "nightly".into(), ..Default::default() };
        let broken: Vec<_> = opened("open", opening).expect_err("two rules").into_iter().map(|v| (v.field, v.rule)).collect();
        let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
        assert_eq!(broken, [pair("open.source_system", "string.min_len"), pair("open.as_of", "AS_OF_REQUIRED")]);
    }
}
