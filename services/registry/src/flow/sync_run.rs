//! A run of a sync: opened, fed batch by batch, closed. A batch and what the run says of it are one transaction, under the run's lock.

use super::{
    apply_batch::{Applied, Batch, MAX_ATTEMPTS, apply, is_lost_race},
    suppress, sweep_unseen,
};
use crate::{
    IDENTITY,
    domain::{
        suppression::Keys,
        sync::{Outcome, Row},
        sync_run::{Course, Mode, Refusal, Run, RunId, RunState, Settings},
        text::identifies,
    },
    error::Error,
    store::{
        self,
        audit::Act,
        rejected_row::{Place, RejectedRow},
        sync_run::Committed,
    },
};
use koc_chassis::{
    clock,
    fault::{self, Violation},
    postgres::Db,
};
use koc_proto::{codec, google::rpc, koc::registry::v1 as pb, rules::Rules};
use prost::Message;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};

/// A batch of a run as it was sent.
#[derive(Debug)]
pub struct Sent {
    pub number: i64,
    pub rows: Vec<SentRow>,
    /// The same rows, or what they break.
    pub parsed: Vec<Result<Row, Vec<Violation>>>,
    /// Persons whose rows the sender could not read.
    pub unread: Vec<String>,
    /// SHA-256 of all that was sent.
    hash: Vec<u8>,
}

/// A row as it was sent.
#[derive(Debug)]
pub struct SentRow {
    pub external_id: String,
    /// Encoded.
    pub content: Vec<u8>,
}

impl Sent {
    pub fn new(number: i64, rows: Vec<SentRow>, parsed: Vec<Result<Row, Vec<Violation>>>, unread: Vec<String>) -> Self {
        let mut hash = Sha256::new();
        for part in rows.iter().map(|row| row.content.as_slice()).chain([[].as_slice()]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        for id in &unread {
            hash.update((id.len() as u64).to_be_bytes());
            hash.update(id);
        }
        Self { number, rows, parsed, unread, hash: hash.finalize().to_vec() }
    }
}

/// Opens a run, or goes on with the one of its name. Errors: PROGRAMME_NOT_FOUND, RUN_DIFFERS, AS_OF_AHEAD.
pub async fn open(db: &Db, act: Act<'_>, settings: &Settings) -> Result<Run, Error> {
    let mut tx = db.begin().await?;
    let run = open_in(&mut tx, act, settings).await?;
    tx.commit().await?;
    Ok(run)
}

/// As [`open`] in the caller's transaction.
pub async fn open_in(conn: &mut PgConnection, act: Act<'_>, settings: &Settings) -> Result<Run, Error> {
    let programme = act.programme;
    store::programme::get(conn, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let now = clock::now(conn).await?;
    settings.check_clock(now)?;
    store::sync_run::insert(conn, programme, settings, act.actor, now).await?;
    let run = store::sync_run::named(conn, programme, &settings.source_system, &settings.name).await?;
    // It was inserted, or in the way.
    let run = run.ok_or(sqlx::Error::RowNotFound)?;
    run.reopen(settings)?;
    Ok(run)
}

/// Applies a batch, or finds the answer that it was given.
/// Errors: RUN_NOT_FOUND, RUN_CLOSED, RUN_OF_IMPORT, BATCH_GAP, BATCH_DIFFERS, BATCH_FORGOTTEN.
pub async fn take(db: &Db, act: Act<'_>, run: RunId, sent: &Sent, keys: &Keys) -> Result<pb::SyncMembersResponse, Error> {
    let mut attempt = 1;
    loop {
        let mut tx = db.begin().await?;
        match take_in(&mut tx, act, run, sent, keys).await {
            Ok(answer) => {
                tx.commit().await?;
                db.wake();
                return Ok(answer);
            }
            Err(error) if is_lost_race(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
        tx.rollback().await?;
    }
}

async fn take_in(
    conn: &mut PgConnection,
    act: Act<'_>,
    run: RunId,
    sent: &Sent,
    keys: &Keys,
) -> Result<pb::SyncMembersResponse, Error> {
    let run = lock(conn, act, run).await?;
    if run.course(sent.number)? == Course::Replay {
        let committed = store::sync_run::batch(conn, &run, sent.number).await?;
        let committed = committed.ok_or(Refusal::BatchForgotten { run: run.id, batch: sent.number })?;
        if committed.content_hash != sent.hash {
            return Err(Refusal::BatchDiffers { run: run.id, batch: sent.number }.into());
        }
        let answer = pb::SyncMembersResponse::decode(committed.answer.as_slice());
        let answer = answer.map_err(|error| sqlx::Error::Decode(error.into()))?;
        return Ok(pb::SyncMembersResponse { replayed: true, ..answer });
    }
    refuse_import(conn, &run).await?;
    let (_, answer) = apply_next(conn, act, run, sent, keys).await?;
    Ok(answer)
}

/// Applies the next batch of a run that is locked and open; gives the run as it is then, and the answer.
pub async fn apply_next(
    conn: &mut PgConnection,
    act: Act<'_>,
    mut run: Run,
    sent: &Sent,
    keys: &Keys,
) -> Result<(Run, pb::SyncMembersResponse), Error> {
    let applied = apply_of(conn, act, &run, &sent.parsed, keys).await?;
    let now = clock::now(conn).await?;
    let source_system = run.settings.source_system.clone();
    let broken = applied.iter().zip(&sent.rows).filter(|(applied, _)| applied.outcome() == Outcome::Rejected);
    let broken = broken.map(|(_, row)| pb::MemberRow::decode(row.content.as_slice()));
    let broken: Vec<pb::MemberRow> = broken.collect::<Result<_, _>>().map_err(|error| sqlx::Error::Decode(error.into()))?;
    let mut erased = suppress::of_erased(conn, act.programme, keys, &source_system, &broken).await?.into_iter();
    let (mut rejected, mut told_of) = (Vec::new(), Vec::new());
    for ((applied, row), row_index) in applied.iter().zip(&sent.rows).zip(0..) {
        run.counts.add(applied.outcome());
        // What breaks a rule is told; of persons who were erased nothing is kept.
        let erased = match applied {
            Applied::Rejected(_) => erased.next().unwrap_or(false),
            Applied::Done { outcome, .. } => *outcome == Outcome::Suppressed,
        };
        if erased {
            continue;
        }
        told_of.push(row.external_id.as_str());
        if let Applied::Rejected(violations) = applied {
            let place = Place { batch_number: sent.number, row_index };
            let (content, violations) = (row.content.clone(), violations.clone());
            rejected.push(RejectedRow { place, content, violations, create_time: now });
        }
    }
    store::rejected_row::put_all(conn, &run, &rejected).await?;
    if run.settings.mode == Mode::Full {
        let unread: Vec<&str> = sent.unread.iter().map(String::as_str).collect();
        let (unread, nobody): (Vec<&str>, Vec<&str>) = unread.into_iter().partition(|id| identifies(id));
        let gone = suppress::external_ids(conn, act.programme, keys, &source_system, &unread).await?;
        told_of.extend(unread.into_iter().filter(|id| !gone.contains(*id)));
        let (seen, unidentified): (Vec<&str>, Vec<&str>) = told_of.into_iter().partition(|id| identifies(id));
        store::sweep::mark(conn, &run, &seen).await?;
        run.unseen.unidentified += i64::try_from(nobody.len() + unidentified.len()).unwrap_or(i64::MAX);
    }
    (run.committed_through, run.update_time) = (sent.number, now);
    store::sync_run::update(conn, &run).await?;
    let answer = pb::SyncMembersResponse { committed_through: sent.number, results: results(applied), ..Default::default() };
    let mut stored = answer.clone();
    stored.strip_personal();
    let committed = Committed { content_hash: sent.hash.clone(), answer: stored.encode_to_vec() };
    store::sync_run::insert_batch(conn, &run, sent.number, &committed, now).await?;
    Ok((run, answer))
}

/// Applies rows as the run says: those of a trial are taken back.
pub async fn apply_of(
    conn: &mut PgConnection,
    act: Act<'_>,
    run: &Run,
    rows: &[Result<Row, Vec<Violation>>],
    keys: &Keys,
) -> Result<Vec<Applied>, Error> {
    let Settings { source_system, validate_only, mode, as_of, .. } = &run.settings;
    let as_of = as_of.filter(|_| *mode == Mode::Full);
    let method = pb::SyncMembersRequest::NAME;
    let batch = Batch { source_system, rows, as_of, validate_only: *validate_only, method, keys };
    if !validate_only {
        return apply(conn, act, &batch).await;
    }
    let mut trial = conn.begin().await?;
    let applied = apply(&mut trial, act, &batch).await?;
    trial.rollback().await?;
    Ok(applied)
}

/// Closes a run: all was sent. One that is closed stays as it is. Errors: RUN_NOT_FOUND, RUN_OF_IMPORT.
pub async fn close(db: &Db, act: Act<'_>, run: RunId) -> Result<Run, Error> {
    let mut tx = db.begin().await?;
    let mut run = lock(&mut tx, act, run).await?;
    refuse_import(&mut tx, &run).await?;
    close_in(&mut tx, act, &mut run).await?;
    tx.commit().await?;
    db.wake();
    Ok(run)
}

/// Closes a run that is locked, in the caller's transaction.
pub async fn close_in(conn: &mut PgConnection, act: Act<'_>, run: &mut Run) -> Result<(), Error> {
    let state = run.closed();
    if state == run.state {
        return Ok(());
    }
    let now = clock::now(conn).await?;
    (run.state, run.update_time, run.closed_by) = (state, now, Some(act.actor.to_owned()));
    run.end_time = (state == RunState::Ended).then_some(now);
    store::sync_run::update(conn, run).await?;
    if state == RunState::Checking {
        sweep_unseen::start(conn, act, run, sweep_unseen::CHECK).await?;
    }
    Ok(())
}

/// What a file feeds is no stream's: neither more rows nor the word that these were all. The run is locked.
async fn refuse_import(conn: &mut PgConnection, run: &Run) -> Result<(), Error> {
    match store::sync_run::import_at_work(conn, run).await? {
        Some(import) => Err(Refusal::OfImport { run: run.id, import }.into()),
        None => Ok(()),
    }
}

/// Locks a run. Errors: RUN_NOT_FOUND.
pub async fn lock(conn: &mut PgConnection, act: Act<'_>, run: RunId) -> Result<Run, Error> {
    let found = store::sync_run::lock(conn, act.programme, run).await?;
    Ok(found.ok_or(Refusal::NotFound { run })?)
}

/// The results of rows, in their order.
pub fn results(applied: Vec<Applied>) -> Vec<pb::MemberRowResult> {
    applied.into_iter().zip(0..).map(|(applied, row_index)| result(applied, row_index)).collect()
}

pub fn result(applied: Applied, row_index: i32) -> pb::MemberRowResult {
    match applied {
        Applied::Done { outcome, member, ignored } => pb::MemberRowResult {
            row_index,
            outcome: outcome_to_wire(outcome).into(),
            member_id: member.map(|id| id.to_string()).unwrap_or_default(),
            status: None,
            ignored_fields: ignored.into_iter().map(|field| field.name().to_owned()).collect(),
        },
        Applied::Rejected(violations) => pb::MemberRowResult {
            row_index,
            outcome: outcome_to_wire(Outcome::Rejected).into(),
            status: Some(status(violations)),
            ..Default::default()
        },
    }
}

pub fn outcome_to_wire(outcome: Outcome) -> pb::SyncOutcome {
    match outcome {
        Outcome::Created => pb::SyncOutcome::Created,
        Outcome::Updated => pb::SyncOutcome::Updated,
        Outcome::Unchanged => pb::SyncOutcome::Unchanged,
        Outcome::Stale => pb::SyncOutcome::Stale,
        Outcome::Rejected => pb::SyncOutcome::Rejected,
        Outcome::Merged => pb::SyncOutcome::Merged,
        Outcome::Deleted => pb::SyncOutcome::Deleted,
        Outcome::Suppressed => pb::SyncOutcome::Suppressed,
    }
}

/// The status of a rejected row.
pub fn status(violations: Vec<Violation>) -> rpc::Status {
    fault::to_rpc(&codec::invalid(IDENTITY.domain, violations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(contents: &[&[u8]], unread: &[&str]) -> Vec<u8> {
        let row = |content: &&[u8]| SentRow { external_id: String::new(), content: content.to_vec() };
        let unread = unread.iter().map(|id| (*id).to_owned()).collect();
        Sent::new(1, contents.iter().map(row).collect(), Vec::new(), unread).hash
    }

    #[test]
    fn batches_that_differ_in_anything_have_another_hash() {
        let hashes = [
            sent(&[b"ab"], &[]),
            sent(&[b"a", b"b"], &[]),
            sent(&[b"ba"], &[]),
            sent(&[], &["ab"]),
            sent(&[b"ab"], &["ab"]),
            sent(&[b"ab", b""], &[]),
        ];
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(hashes[0], sent(&[b"ab"], &[]));
    }

    #[test]
    fn the_status_of_a_rejected_row_carries_its_field_violations() {
        use tonic_types::pb::BadRequest;
        let status = status(vec![Violation::new("profile.email", "string.pattern", "must match")]);
        assert_eq!(status.code, tonic::Code::InvalidArgument as i32);
        let detail = status.details.iter().find(|any| any.type_url.ends_with("google.rpc.BadRequest")).expect("field violations");
        let broken = BadRequest::decode(detail.value.as_slice()).expect("a BadRequest");
        assert_eq!(broken.field_violations[0].field, "profile.email");
    }
}
