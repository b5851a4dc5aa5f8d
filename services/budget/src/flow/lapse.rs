//! What nobody decides lapses at its decide-by time: amendments and draws.

use super::fact;
use crate::{
    domain::{
        amendment::{Amendment, AmendmentState},
        reserve_draw::{Decided, Draw, DrawState},
    },
    ids::{AmendmentId, ProgrammeId, ReserveDrawId},
    store,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    job::{Job, JobError, JobHandler},
    outbox::{self, NewFact},
    postgres::Db,
};
use sqlx::PgConnection;
use std::marker::PhantomData;
use uuid::Uuid;

/// The only step of such a job.
pub const STEP: &str = "lapse";

const REASON: &str = "nobody decided it in time";

/// What waits to be decided; it is the subject of its job.
#[async_trait]
pub trait Waiting: Sized + Send + 'static {
    /// The kind of its job.
    const KIND: &'static str;

    /// Locks it; None when it does not wait any more.
    async fn lock(conn: &mut PgConnection, programme: ProgrammeId, subject: Uuid) -> Result<Option<Self>, sqlx::Error>;
    fn decide_by_time(&self) -> DateTime<Utc>;
    /// Keeps that it lapsed, and says what is to be told.
    async fn lapse(self, conn: &mut PgConnection) -> Result<NewFact, sqlx::Error>;
}

#[async_trait]
impl Waiting for Amendment {
    const KIND: &'static str = "lapse_amendment";

    async fn lock(conn: &mut PgConnection, programme: ProgrammeId, subject: Uuid) -> Result<Option<Self>, sqlx::Error> {
        let id = AmendmentId(subject);
        store::amendment::lock(conn, programme, id).await?;
        let found = store::amendment::find(conn, programme, id).await?;
        Ok(found.filter(|amendment| amendment.state == AmendmentState::Proposed))
    }

    fn decide_by_time(&self) -> DateTime<Utc> {
        self.decide_by_time
    }

    async fn lapse(mut self, conn: &mut PgConnection) -> Result<NewFact, sqlx::Error> {
        self.state = AmendmentState::Lapsed { decided: Decided { by: None, reason: REASON.to_owned() } };
        store::amendment::update(conn, &self).await?;
        Ok(NewFact::new(self.programme, self.id.0, &fact::amendment_changed(&self)))
    }
}

#[async_trait]
impl Waiting for Draw {
    const KIND: &'static str = "lapse_draw";

    async fn lock(conn: &mut PgConnection, programme: ProgrammeId, subject: Uuid) -> Result<Option<Self>, sqlx::Error> {
        let id = ReserveDrawId(subject);
        store::reserve_draw::lock(conn, programme, id).await?;
        Ok(store::reserve_draw::find(conn, programme, id).await?.filter(|draw| draw.state == DrawState::Requested))
    }

    fn decide_by_time(&self) -> DateTime<Utc> {
        self.decide_by_time
    }

    async fn lapse(mut self, conn: &mut PgConnection) -> Result<NewFact, sqlx::Error> {
        store::reserve_draw::set_state(conn, &mut self, DrawState::Lapsed { reason: REASON.to_owned() }).await?;
        Ok(NewFact::new(self.programme, self.id.0, &fact::reserve_draw_changed(&self)))
    }
}

/// Lapses what waits.
pub struct Lapse<W> {
    db: Db,
    of: PhantomData<fn() -> W>,
}

impl<W: Waiting> Lapse<W> {
    pub fn new(db: Db) -> Self {
        Self { db, of: PhantomData }
    }
}

#[async_trait]
impl<W: Waiting> JobHandler for Lapse<W> {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let mut tx = self.db.begin().await?;
        if let Some(waiting) = W::lock(&mut tx, job.programme(), job.subject_id).await? {
            if clock::now(&mut tx).await? < waiting.decide_by_time() {
                job.retry_as(&mut tx, &job.state, waiting.decide_by_time()).await?;
                tx.commit().await?;
                return Ok(());
            }
            let lapsed = waiting.lapse(&mut tx).await?;
            outbox::append(&mut tx, &[lapsed]).await?;
        }
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}
