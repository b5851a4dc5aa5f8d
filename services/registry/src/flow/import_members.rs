//! A file of members: taken in chunk by chunk, then read and applied by a job, a batch at a step. What was read moves in the transaction of
//! its rows, so a crash costs a step and no row counts twice.

use super::{
    apply_batch::is_lost_race,
    retry_rejected::Parse,
    sync_run::{self, Sent, SentRow},
};
use crate::{
    IDENTITY,
    domain::{
        member_import::{Import, ImportId, ImportState, MAX_LINE_BYTES, Place, Refusal, lines},
        suppression::Keys,
        sync::Row,
        sync_run::{RunState, Settings},
    },
    error::Error,
    store::{self, audit::Act},
};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    fault::Violation,
    gate::Work,
    job::{self, Job, JobError, JobHandler, NewJob},
    postgres::Db,
};
use koc_proto::{FILE_DESCRIPTOR_SET, koc::registry::v1 as pb, rules::Rules};
use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor};
use serde_json::Value;
use sqlx::PgConnection;
use std::{sync::Arc, time::Duration};

/// The kind of job; its subject is the import.
pub const KIND: &str = "import_members";
/// Its steps.
const READ: &str = "read";
const FORGET: &str = "forget";
/// What stands beside the actor of what it does.
const CLIENT: &str = "koc.registry.import";

/// Lines in a batch.
const LINES: usize = 500;
/// Bytes that are read for a batch; if not even one line ends there, more are.
const WINDOW_BYTES: i32 = 256 * 1024;
const LARGE_WINDOW_BYTES: i32 = MAX_LINE_BYTES as i32 + 1;
/// The longest chunk, as the contract has it.
const MAX_CHUNK_BYTES: i64 = 4 * 1024 * 1024;
/// Chunks that are removed in one step.
const FORGOTTEN_AT_ONCE: i64 = 16;

/// Opens an import with its run. Errors: PROGRAMME_NOT_FOUND, RUN_DIFFERS, RUN_BEGUN, IMPORT_EXISTS.
pub async fn create(work: &mut Work, settings: &Settings) -> Result<Import, Error> {
    let call = work.call.clone();
    let run = sync_run::open_in(work.conn(), (&call).into(), settings).await?;
    if run.state != RunState::Open || run.committed_through > 0 {
        return Err(Refusal::RunBegun { run: run.id }.into());
    }
    let (actor, now) = (work.actor().to_owned(), work.now().await?);
    let import = Import {
        id: ImportId::new(),
        programme: run.programme,
        run: run.id,
        state: ImportState::Receiving,
        received_bytes: 0,
        read_bytes: 0,
        read_lines: 0,
        actor,
        create_time: now,
        update_time: now,
        end_time: None,
    };
    match store::member_import::insert(work.conn(), &import).await? {
        None => Ok(import),
        Some(other) => Err(Refusal::Exists { import: other }.into()),
    }
}

/// Appends a chunk; gives the offset of the next.
/// Errors: IMPORT_NOT_FOUND, IMPORT_STATE, CHUNK_GAP, CHUNK_DIFFERS, IMPORT_TOO_LARGE.
pub async fn append(db: &Db, act: Act<'_>, import: ImportId, offset: i64, content: &[u8]) -> Result<i64, Error> {
    let mut tx = db.begin().await?;
    let mut import = lock(&mut tx, act, import).await?;
    match import.place(offset, content.len())? {
        Place::Compare => {
            if store::member_import::chunk(&mut tx, &import, offset).await?.as_deref() != Some(content) {
                return Err(Refusal::ChunkDiffers { import: import.id, offset }.into());
            }
        }
        Place::Append => {
            store::member_import::append(&mut tx, &import, offset, content).await?;
            import.received_bytes += i64::try_from(content.len()).unwrap_or(0);
            import.update_time = clock::now(&mut tx).await?;
            store::member_import::update(&mut tx, &import).await?;
        }
    }
    tx.commit().await?;
    Ok(import.received_bytes)
}

/// Lets the rows be applied. Errors: IMPORT_NOT_FOUND, IMPORT_STATE, IMPORT_INCOMPLETE.
pub async fn start(conn: &mut PgConnection, act: Act<'_>, import: ImportId, total_bytes: i64) -> Result<Import, Error> {
    let mut import = lock(conn, act, import).await?;
    import.start(total_bytes)?;
    (import.state, import.update_time) = (ImportState::Running, clock::now(conn).await?);
    store::member_import::update(conn, &import).await?;
    start_job(conn, act, &import, READ).await?;
    Ok(import)
}

/// Stops an import: a job that reads it sees so at its next step, and one that was not started has its chunks removed by a job of its own.
/// Errors: IMPORT_NOT_FOUND, IMPORT_STATE.
pub async fn cancel(conn: &mut PgConnection, act: Act<'_>, import: ImportId) -> Result<Import, Error> {
    let mut import = lock(conn, act, import).await?;
    import.cancel()?;
    if import.state == ImportState::Receiving {
        start_job(conn, act, &import, FORGET).await?;
    }
    end(conn, &mut import, ImportState::Cancelled).await?;
    store::member_import::update(conn, &import).await?;
    Ok(import)
}

/// Cancels imports that nobody has gone on with for `left`.
pub async fn abandon(db: &Db, left: Duration) -> Result<(), Error> {
    for (programme, id) in store::member_import::abandoned(db, left).await? {
        let act = Act { programme, actor: CLIENT, client: CLIENT };
        let mut tx = db.begin().await?;
        match cancel(&mut tx, act, id).await {
            // Somebody went on with it meanwhile.
            Err(Error::ImportRefused(_)) => tx.rollback().await?,
            done => {
                done?;
                tx.commit().await?;
                db.wake();
            }
        }
    }
    Ok(())
}

async fn lock(conn: &mut PgConnection, act: Act<'_>, import: ImportId) -> Result<Import, Error> {
    let found = store::member_import::lock(conn, act.programme, import).await?;
    Ok(found.ok_or(Refusal::NotFound { import })?)
}

async fn start_job(conn: &mut PgConnection, act: Act<'_>, import: &Import, step: &'static str) -> Result<(), sqlx::Error> {
    let (programme, actor) = (act.programme, act.actor);
    let job = NewJob { kind: KIND, programme, subject: import.id.0, step, state: Value::Null, actor, run_time: None };
    job::start(conn, job).await?;
    Ok(())
}

async fn end(conn: &mut PgConnection, import: &mut Import, state: ImportState) -> Result<(), sqlx::Error> {
    let now = clock::now(conn).await?;
    (import.state, import.end_time) = (state, Some(now));
    Ok(())
}

/// Drives imports.
pub struct Reader {
    db: Db,
    parse: Parse,
    keys: Arc<Keys>,
    row: MessageDescriptor,
}

impl Reader {
    /// `parse` reads a row as it is read from a stream.
    pub fn new(db: Db, parse: Parse, keys: Arc<Keys>) -> Self {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).expect("the contracts are compiled in");
        let row = pool.get_message_by_name(pb::MemberRow::NAME).expect("the contract of a row is among them");
        Self { db, parse, keys, row }
    }

    /// Applies the next lines; gives the step to go on with.
    async fn read(&self, conn: &mut PgConnection, act: Act<'_>, import: &mut Import) -> Result<&'static str, Error> {
        let mut part = store::member_import::read(conn, import, WINDOW_BYTES, MAX_CHUNK_BYTES).await?;
        if !part.contains(&b'\n') {
            part = store::member_import::read(conn, import, LARGE_WINDOW_BYTES, MAX_CHUNK_BYTES).await?;
        }
        let ends = import.read_bytes + i64::try_from(part.len()).unwrap_or(0) == import.received_bytes;
        let found = lines(&part, LINES, ends);
        if found.lines.is_empty() && !ends {
            end(conn, import, ImportState::LineTooLong).await?;
            return Ok(FORGET);
        }
        let mut run = sync_run::lock(conn, act, import.run).await?;
        // Somebody closed it, or nobody went on with it for too long: what is left of the file comes too late for it.
        if run.state != RunState::Open {
            end(conn, import, ImportState::Cancelled).await?;
            return Ok(FORGET);
        }
        let lines = found.lines.iter().filter(|line| !line.trim_ascii().is_empty());
        let (rows, parsed) = lines.map(|line| self.line(line)).unzip();
        let sent = Sent::new(run.committed_through + 1, rows, parsed, Vec::new());
        if !sent.rows.is_empty() {
            run = sync_run::apply_next(conn, act, run, &sent, &self.keys).await?.0;
        }
        import.read_bytes += i64::try_from(found.bytes).unwrap_or(0);
        import.read_lines += i64::try_from(found.lines.len()).unwrap_or(0);
        if import.read_bytes < import.received_bytes {
            return Ok(READ);
        }
        sync_run::close_in(conn, act, &mut run).await?;
        end(conn, import, ImportState::Ended).await?;
        Ok(FORGET)
    }

    fn line(&self, line: &[u8]) -> (SentRow, Result<Row, Vec<Violation>>) {
        match self.json(line) {
            Ok(wire) => {
                let row = SentRow { external_id: wire.external_id.clone(), content: wire.encode_to_vec() };
                (row, (self.parse)(wire))
            }
            // What the parser says may repeat what stands there.
            Err(column) => {
                let rule = format!("must be a MemberRow as JSON; it cannot be read beyond its character {column}");
                let row = SentRow { external_id: String::new(), content: Vec::new() };
                (row, Err(vec![Violation::new("row", "LINE_UNREADABLE", rule)]))
            }
        }
    }

    /// A line as a row, or how far it could be read.
    fn json(&self, line: &[u8]) -> Result<pb::MemberRow, usize> {
        let mut from = serde_json::Deserializer::from_slice(line);
        let options = DeserializeOptions::new();
        let message = DynamicMessage::deserialize_with_options(self.row.clone(), &mut from, &options);
        let message = message.and_then(|message| from.end().map(|()| message)).map_err(|error| error.column())?;
        message.transcode_to().map_err(|_| line.len())
    }
}

#[async_trait]
impl JobHandler for Reader {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let act = Act { programme: job.programme(), actor: &job.actor, client: CLIENT };
        let mut tx = self.db.begin().await?;
        let mut import = lock(&mut tx, act, ImportId(job.subject_id)).await.map_err(failed)?;
        let next = match (job.step.as_str(), import.state) {
            (READ, ImportState::Running) => Some(self.read(&mut tx, act, &mut import).await.map_err(failed)?),
            // Cancelled: what is left is to be removed.
            _ => {
                let forgotten = store::member_import::forget(&mut tx, &import, FORGOTTEN_AT_ONCE).await?;
                (forgotten > 0).then_some(FORGET)
            }
        };
        import.update_time = clock::now(&mut tx).await?;
        store::member_import::update(&mut tx, &import).await?;
        match next {
            Some(step) => job.advance(&mut tx, step, &Value::Null).await?,
            None => job.finish(&mut tx).await?,
        }
        tx.commit().await?;
        Ok(())
    }
}

/// A step that lost a race is done again, as any that failed.
fn failed(error: Error) -> JobError {
    let lost = is_lost_race(&error);
    match error {
        Error::Database(error) => JobError::Database(error),
        other if lost => JobError::Broken(format!("lost a race: {other}")),
        other => JobError::Broken(format!("{}: {other}", IDENTITY.name)),
    }
}
