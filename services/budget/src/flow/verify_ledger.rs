//! Verification of a programme's ledger: at once for a small one, as a job for one of any size. The job's steps are short, none of them holds
//! a snapshot for longer than a part takes, and its state says where it goes on.

use super::fact;
use crate::{
    domain::verification::{
        Finding,
        course::{Course, Extent, VerificationState},
    },
    ids::{EntryId, ProgrammeId, VerificationId},
    store::{
        self,
        ledger::{Scope, verify_part},
    },
};
use async_trait::async_trait;
use koc_chassis::{
    clock, context,
    job::{Job, JobError, JobHandler},
    outbox::{self, NewFact},
    postgres::Db,
};
use koc_proto::koc::budget::v1 as pb;
use prost::Message;
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// The kind of job; its subject is the verification.
pub const KIND: &str = "verify_ledger";
/// Entries in a part. It takes a fraction of a second, for which its snapshot keeps the vacuum waiting.
const PART_ENTRIES: i64 = 20_000;
/// A part of the job is halved after each failure, which may have been that it took too long, down to so many.
const LEAST_PART_ENTRIES: i64 = 100;
/// A step takes on no further part when less than this is left of its time: enough for one on a machine that is many times slower.
const LEFT_FOR_LAST_PART: Duration = Duration::from_secs(5);

/// What a verification in one snapshot found.
#[derive(Debug)]
pub struct Report {
    pub course: Course,
    pub finding: Option<Finding>,
}

/// Verifies all of a ledger in the snapshot of `conn`.
pub async fn at_once(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Report, sqlx::Error> {
    let Extent { links, .. } = store::ledger::extent(conn, programme).await?;
    let (scope, mut course) = (scope(programme, 0), Course::new(links));
    while !course.is_at_end() {
        if let Some(finding) = verify_part(conn, &scope, &mut course).await? {
            return Ok(Report { course, finding: Some(finding) });
        }
    }
    Ok(Report { course, finding: None })
}

/// All of a programme, in parts that are the smaller the more often one failed.
pub fn scope(programme: ProgrammeId, failures: u32) -> Scope {
    let size = PART_ENTRIES.checked_shr(failures).unwrap_or(0).max(LEAST_PART_ENTRIES);
    Scope { programme, size, entry_of }
}

fn entry_of(fact: &[u8]) -> Option<EntryId> {
    let posted = pb::LedgerPosted::decode(fact).ok()?;
    Uuid::try_parse(&posted.entry_id).ok().map(EntryId)
}

/// Drives verifications.
pub struct Verify {
    db: Db,
}

impl Verify {
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl JobHandler for Verify {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let id = VerificationId(job.subject_id);
        let mut course: Course = serde_json::from_value(job.state.clone()).map_err(|e| JobError::Broken(e.to_string()))?;
        let scope = scope(job.programme(), job.failures());
        let finding = loop {
            let mut snapshot = self.db.snapshot().await?;
            let finding = verify_part(&mut snapshot, &scope, &mut course).await?;
            snapshot.rollback().await?;
            if finding.is_some() || course.is_at_end() || context::time_left() < LEFT_FOR_LAST_PART {
                break finding;
            }
        };
        let mut tx = self.db.begin().await?;
        let state = match finding {
            Some(finding) => VerificationState::Failed { end_time: clock::now(&mut tx).await?, finding },
            None if course.is_at_end() => VerificationState::Passed { end_time: clock::now(&mut tx).await? },
            None => VerificationState::Running,
        };
        store::verification::keep(&mut tx, id, &course, &state).await?;
        match &state {
            VerificationState::Running => {
                let kept = serde_json::to_value(&course).map_err(|e| JobError::Broken(e.to_string()))?;
                job.advance(&mut tx, course.step(), &kept).await?;
            }
            ended => {
                let fact = fact::ledger_verification_ended(id, ended.stage());
                outbox::append(&mut tx, &[NewFact::new(job.programme(), id.0, &fact)]).await?;
                job.finish(&mut tx).await?;
            }
        }
        tx.commit().await?;
        match &state {
            // The finding stands in the row: its ids and figures are for those who may read the ledger.
            VerificationState::Failed { .. } => {
                tracing::error!(verification = %id, programme = %job.programme_id, "a ledger does not add up")
            }
            VerificationState::Passed { .. } => {
                tracing::info!(verification = %id, programme = %job.programme_id, entries = course.counts.entries, "a ledger adds up");
            }
            _ => {}
        }
        Ok(())
    }
}
