//! The sender's side of a run: rows of a file in numbered batches, as many under way as the registry grants, over a new stream when one
//! breaks. How rows fall into batches follows from the file and its mapping alone, so that another process goes on where one was killed.

use super::{Mapping, MemberFile, Reject, Row, wire};
use crate::client::{self, PATIENCE};
use csv::StringRecord;
use koc_chassis::{fault::reason_of, peer::PeerChannel};
use koc_proto::koc::registry::v1::{
    self as pb, sync_members_request::Message, sync_run_service_client::SyncRunServiceClient,
    sync_service_client::SyncServiceClient,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read, Seek},
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Rows of the file in one batch: what the registry takes at once.
const BATCH: usize = 500;
/// Batches that wait for the stream to take them: as many as are ever granted.
const WAITING: usize = 8;
/// How often the same file is imported under the same settings before a name has to be given.
const MAX_REPEATS: u32 = 1_000;

/// How often something was found, by column and reason.
pub type Tally = BTreeMap<String, u64>;

/// What a run is opened with.
#[derive(Debug, Clone)]
pub struct RunPlan {
    /// The same for the same file, mapping and settings.
    pub name: String,
    /// A person chose the name: it says nothing of the file.
    pub chosen: bool,
    pub mode: pb::SyncMode,
    pub as_of: Option<prost_types::Timestamp>,
    pub max_delete_percent: Option<i32>,
    pub dry_run: bool,
}

/// What became of a file.
#[derive(Debug, Default)]
pub struct Upload {
    /// The run as it was closed.
    pub run: pb::SyncRun,
    /// Rows of the file, whatever became of them.
    pub rows: u64,
    /// Rows that were not sent, as the mapping refused them.
    pub refused: u64,
    /// Why rows were rejected, by mapping or registry; a row may have several reasons.
    pub reasons: Tally,
    /// Values that were left out of rows that are otherwise fine.
    pub left_out: Tally,
    /// Rows whose fields belong to other source systems, by field.
    pub ignored: Tally,
    /// Batches that had been committed before, and were passed over.
    pub resumed_behind: i64,
    /// Why rejected rows of those are not told; empty when they are.
    pub untold: String,
}

impl Upload {
    /// Rows that the registry counted as this.
    pub fn count(&self, outcome: pb::SyncOutcome) -> u64 {
        let rows = self.run.counts.iter().find(|count| count.outcome() == outcome).map_or(0, |count| count.rows);
        u64::try_from(rows).unwrap_or(0)
    }

    pub fn rejected(&self) -> u64 {
        self.refused + self.count(pb::SyncOutcome::Rejected)
    }

    fn reject(&mut self, why: &[Reject]) {
        for reject in why {
            *self.reasons.entry(format!("{} {}", reject.column, reject.reason).trim_start().to_owned()).or_default() += 1;
        }
    }
}

/// A row on its way.
struct Pending {
    line: u64,
    cells: StringRecord,
    row: pb::MemberRow,
}

/// A batch on its way.
struct Batch {
    number: i64,
    rows: Vec<Pending>,
    unread: Vec<String>,
}

impl Batch {
    fn message(&self) -> Message {
        Message::Batch(pb::SyncBatch {
            batch_number: self.number,
            rows: self.rows.iter().map(|pending| pending.row.clone()).collect(),
            unread_external_ids: self.unread.clone(),
        })
    }
}

struct Open {
    sender: mpsc::Sender<pb::SyncMembersRequest>,
    answers: tonic::Streaming<pb::SyncMembersResponse>,
    credit: usize,
    /// Batches sent over this stream without an answer: the first of those that are under way.
    sent: usize,
}

/// Sends files as runs.
pub struct Uploader<'m> {
    channel: PeerChannel,
    programme: String,
    mapping: &'m Mapping,
    plan: RunPlan,
    /// The run, once it was opened.
    run: pb::SyncRun,
    stream: Option<Open>,
    under_way: VecDeque<Batch>,
}

/// What is told while a file is sent: a rejected row with its line, its cells and all reasons; and how far it is, in rows and bytes.
pub trait Listener {
    fn rejected(&mut self, line: u64, cells: &StringRecord, why: &[Reject]) -> anyhow::Result<()>;
    fn at(&mut self, _rows: u64, _bytes: u64) {}
}

/// Nobody listens.
impl Listener for () {
    fn rejected(&mut self, _: u64, _: &StringRecord, _: &[Reject]) -> anyhow::Result<()> {
        Ok(())
    }
}

impl<'m> Uploader<'m> {
    pub fn new(channel: PeerChannel, programme: String, mapping: &'m Mapping, plan: RunPlan) -> Self {
        Self { channel, programme, mapping, plan, run: pb::SyncRun::default(), stream: None, under_way: VecDeque::new() }
    }

    /// Sends all rows of a file, those behind what an earlier process had committed, and closes the run.
    pub async fn upload<R: Read + Seek>(
        &mut self,
        file: &mut MemberFile<'_, R>,
        listener: &mut impl Listener,
    ) -> anyhow::Result<Upload> {
        let mut upload = Upload::default();
        self.begin().await?;
        upload.resumed_behind = self.run.committed_through;
        // Where another file may have been sent under the name, the last batch is sent again: the registry knows what it was.
        let committed = self.run.committed_through - i64::from(self.plan.chosen);
        let mut earlier = Earlier::new(self.channel.clone(), &self.programme, &self.run);
        let mut number = 0;
        loop {
            let mut batch = Batch { number: number + 1, rows: Vec::new(), unread: Vec::new() };
            let rows = self.fill(&mut batch, file, &mut upload, listener)?;
            if rows == 0 {
                break;
            }
            if batch.rows.is_empty() && batch.unread.is_empty() {
                continue;
            }
            number = batch.number;
            if number <= committed {
                if let Err(status) = earlier.tell(&batch, self.mapping, &mut upload, listener).await? {
                    upload.untold = client::describe(&status);
                }
            } else {
                self.send(batch, &mut upload, listener).await?;
            }
            listener.at(upload.rows, file.bytes());
        }
        while !self.under_way.is_empty() {
            self.settle(&mut upload, listener).await?;
        }
        upload.run = self.close().await?;
        Ok(upload)
    }

    /// Fills a batch with the next rows of the file; says how many it read.
    fn fill<R: Read + Seek>(
        &self,
        batch: &mut Batch,
        file: &mut MemberFile<'_, R>,
        upload: &mut Upload,
        listener: &mut impl Listener,
    ) -> anyhow::Result<usize> {
        let mut rows = 0;
        for row in file.by_ref().take(BATCH) {
            let Row { line, external_id, cells, outcome } = row?;
            rows += 1;
            upload.rows += 1;
            match outcome {
                Ok(mapped) => {
                    for warning in &mapped.warnings {
                        *upload.left_out.entry(format!("{}: {}", warning.column, warning.reason)).or_default() += 1;
                    }
                    batch.rows.push(Pending { line, cells, row: wire::to_row(mapped) });
                }
                Err(why) => {
                    upload.refused += 1;
                    upload.reject(&why);
                    listener.rejected(line, &cells, &why)?;
                    if self.plan.mode == pb::SyncMode::Full {
                        batch.unread.push(external_id.unwrap_or_default());
                    }
                }
            }
        }
        Ok(rows)
    }

    /// Opens the run, or goes on with it. One of this name that is closed is another import of the same file: this is the next.
    async fn begin(&mut self) -> anyhow::Result<()> {
        for repeat in 1..=MAX_REPEATS {
            let name = if repeat == 1 { self.plan.name.clone() } else { format!("{}#{repeat}", self.plan.name) };
            let opening = pb::SyncOpening {
                sync_run_id: String::new(),
                source_system: self.mapping.source_system().to_owned(),
                run_name: name,
                mode: self.plan.mode.into(),
                validate_only: self.plan.dry_run,
                as_of: self.plan.as_of,
                max_delete_percent: self.plan.max_delete_percent,
            };
            let (stream, run) = self.patiently_open(opening).await?;
            if run.state() == pb::SyncRunState::Open {
                (self.run, self.stream) = (run, Some(stream));
                return Ok(());
            }
        }
        anyhow::bail!("this file was imported {MAX_REPEATS} times under the same settings; name the run with --run-name")
    }

    async fn patiently_open(&self, opening: pb::SyncOpening) -> anyhow::Result<(Open, pb::SyncRun)> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.try_open(opening.clone()).await {
                Ok(opened) => return Ok(opened),
                Err(status) if client::passes(&status) && Instant::now() < give_up => pause().await,
                Err(status) => anyhow::bail!("the registry refused the run: {}", client::describe(&status)),
            }
        }
    }

    async fn try_open(&self, opening: pb::SyncOpening) -> Result<(Open, pb::SyncRun), Status> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let mut stream = Open { sender, answers: self.answers(receiver, opening).await?, credit: 1, sent: 0 };
        let answer = next(&mut stream).await?;
        let run = answer.run.ok_or_else(|| Status::data_loss("a run was opened and not told"))?;
        Ok((stream, run))
    }

    async fn answers(
        &self,
        receiver: mpsc::Receiver<pb::SyncMembersRequest>,
        opening: pb::SyncOpening,
    ) -> Result<tonic::Streaming<pb::SyncMembersResponse>, Status> {
        use tokio_stream::StreamExt;
        let first = self.request(Message::Open(opening));
        let messages = tokio_stream::once(first).chain(ReceiverStream::new(receiver));
        Ok(SyncServiceClient::new(self.channel.clone()).sync_members(messages).await?.into_inner())
    }

    fn request(&self, message: Message) -> pb::SyncMembersRequest {
        pb::SyncMembersRequest { programme_id: self.programme.clone(), message: Some(message) }
    }

    /// Sends a batch once there is credit for it.
    async fn send(&mut self, batch: Batch, upload: &mut Upload, listener: &mut impl Listener) -> anyhow::Result<()> {
        while self.under_way.len() >= self.stream.as_ref().map_or(1, |stream| stream.credit) {
            self.settle(upload, listener).await?;
        }
        self.under_way.push_back(batch);
        // What cannot be sent now is sent again when its answer is waited for.
        if let Err(status) = self.push().await {
            self.broken(&status)?;
        }
        Ok(())
    }

    /// Sends what is under way and was not sent over this stream, opening one if there is none.
    async fn push(&mut self) -> Result<(), Status> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let known = pb::SyncOpening { sync_run_id: self.run.sync_run_id.clone(), ..Default::default() };
                self.try_open(known).await?.0
            }
        };
        while let Some(batch) = self.under_way.get(stream.sent) {
            if stream.sender.send(self.request(batch.message())).await.is_err() {
                // The server has ended the stream: its reason is in the answers.
                break;
            }
            stream.sent += 1;
        }
        self.stream = Some(stream);
        Ok(())
    }

    /// Waits for the answer to the first batch under way, and accounts for its rows.
    async fn settle(&mut self, upload: &mut Upload, listener: &mut impl Listener) -> anyhow::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        let answer = loop {
            match self.try_settle().await {
                Ok(answer) => break answer,
                Err(status) if Instant::now() < give_up => {
                    self.broken(&status)?;
                    pause().await;
                }
                Err(status) => anyhow::bail!("the registry cannot be reached: {}", client::describe(&status)),
            }
        };
        let Some(batch) = self.under_way.pop_front() else { return Ok(()) };
        let (rows, results) = (batch.rows.len(), answer.results.len());
        anyhow::ensure!(answer.committed_through == batch.number, "batch {} was answered as another", batch.number);
        anyhow::ensure!(rows == results, "the registry answered {results} of {rows} rows");
        for (pending, result) in batch.rows.into_iter().zip(answer.results) {
            for field in &result.ignored_fields {
                *upload.ignored.entry(field.clone()).or_default() += 1;
            }
            match result.outcome() {
                pb::SyncOutcome::Rejected => {
                    let why = wire::reasons(pending.line, result.status.as_ref(), self.mapping);
                    upload.reject(&why);
                    listener.rejected(pending.line, &pending.cells, &why)?;
                }
                pb::SyncOutcome::Unspecified => anyhow::bail!("the registry gave line {} no outcome", pending.line),
                _ => {}
            }
        }
        Ok(())
    }

    async fn try_settle(&mut self) -> Result<pb::SyncMembersResponse, Status> {
        self.push().await?;
        let Some(stream) = &mut self.stream else { return Err(lost()) };
        let answer = next(stream).await?;
        stream.sent = stream.sent.saturating_sub(1);
        Ok(answer)
    }

    /// Gives a stream up that broke for a passing reason; any other ends the import.
    fn broken(&mut self, status: &Status) -> anyhow::Result<()> {
        self.stream = None;
        anyhow::ensure!(client::passes(status), "the registry refused a batch: {}", client::describe(status));
        Ok(())
    }

    async fn close(&mut self) -> anyhow::Result<pb::SyncRun> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.try_close().await {
                Ok(run) => return Ok(run),
                Err(status) if client::passes(&status) && Instant::now() < give_up => {
                    self.stream = None;
                    pause().await;
                }
                Err(status) => anyhow::bail!("the registry did not close the run: {}", client::describe(&status)),
            }
        }
    }

    async fn try_close(&mut self) -> Result<pb::SyncRun, Status> {
        self.push().await?;
        let Some(mut stream) = self.stream.take() else { return Err(lost()) };
        let sent = stream.sender.send(self.request(Message::Close(pb::SyncClosing {}))).await;
        let answer = next(&mut stream).await?;
        sent.map_err(|_| lost())?;
        answer.run.ok_or_else(|| Status::data_loss("a run was closed and not told"))
    }

    /// The run as it is now. Waits for a registry that cannot be reached for the moment.
    pub async fn look(&self) -> anyhow::Result<pb::SyncRun> {
        let give_up = Instant::now() + PATIENCE;
        let request = pb::GetSyncRunRequest { programme_id: self.programme.clone(), sync_run_id: self.run.sync_run_id.clone() };
        let answer = loop {
            match SyncRunServiceClient::new(self.channel.clone()).get_sync_run(request.clone()).await {
                Ok(answer) => break answer,
                Err(status) if client::passes(&status) && Instant::now() < give_up => pause().await,
                Err(status) => anyhow::bail!("the run cannot be read: {}", client::describe(&status)),
            }
        };
        answer.into_inner().run.ok_or_else(|| anyhow::anyhow!("the run was not told"))
    }
}

fn lost() -> Status {
    Status::unavailable("the stream ended")
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

/// The next answer of a stream, with the credit that it grants.
async fn next(stream: &mut Open) -> Result<pb::SyncMembersResponse, Status> {
    let answer = stream.answers.message().await?.ok_or_else(lost)?;
    stream.credit = usize::try_from(answer.credit).unwrap_or(1).clamp(1, WAITING);
    Ok(answer)
}

/// The rejected rows of what was committed before this process, read in the order in which the file has them.
struct Earlier {
    client: SyncRunServiceClient<PeerChannel>,
    request: pb::ListRejectedRowsRequest,
    page: VecDeque<pb::RejectedRow>,
    ended: bool,
}

impl Earlier {
    fn new(channel: PeerChannel, programme: &str, run: &pb::SyncRun) -> Self {
        let request = pb::ListRejectedRowsRequest {
            programme_id: programme.to_owned(),
            sync_run_id: run.sync_run_id.clone(),
            page_size: 500,
            page_token: String::new(),
        };
        Self { client: SyncRunServiceClient::new(channel), request, page: VecDeque::new(), ended: false }
    }

    /// Tells the rejected rows of a batch; or why they cannot be read, once.
    async fn tell(
        &mut self,
        batch: &Batch,
        mapping: &Mapping,
        upload: &mut Upload,
        listener: &mut impl Listener,
    ) -> anyhow::Result<Result<(), Status>> {
        loop {
            if self.page.is_empty() && !self.ended {
                match self.client.list_rejected_rows(self.request.clone()).await {
                    Ok(answer) => {
                        let answer = answer.into_inner();
                        self.ended = answer.next_page_token.is_empty();
                        (self.page, self.request.page_token) = (answer.rows.into(), answer.next_page_token);
                    }
                    Err(status) if reason_of(&status) == "SCOPE_MISSING" => {
                        self.ended = true;
                        return Ok(Err(status));
                    }
                    Err(status) => anyhow::bail!("rejected rows cannot be read: {}", client::describe(&status)),
                }
            }
            let Some(row) = self.page.pop_front_if(|row| row.batch_number <= batch.number) else { return Ok(Ok(())) };
            let place = usize::try_from(row.row_index).unwrap_or(usize::MAX);
            if let Some(pending) = batch.rows.get(place).filter(|_| row.batch_number == batch.number) {
                let why = wire::reasons(pending.line, row.status.as_ref(), mapping);
                upload.reject(&why);
                listener.rejected(pending.line, &pending.cells, &why)?;
            }
        }
    }
}
