//! A draw that nobody decides lapses at its decide-by time.

use super::fact;
use crate::{domain::reserve_draw::DrawState, ids::ReserveDrawId, store};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    job::{Job, JobError, JobHandler},
    outbox::{self, NewFact},
    postgres::Db,
};

/// The kind of job; its subject is the draw.
pub const KIND: &str = "lapse_draw";
/// Its only step.
pub const STEP: &str = "lapse";

/// Lapses draws.
pub struct Lapse {
    db: Db,
}

impl Lapse {
    pub fn new(db: Db) -> Self {
        Self { db }
    }
}

#[async_trait]
impl JobHandler for Lapse {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let id = ReserveDrawId(job.subject_id);
        let mut tx = self.db.begin().await?;
        store::reserve_draw::lock(&mut tx, job.programme(), id).await?;
        if let Some(mut draw) = store::reserve_draw::find(&mut tx, job.programme(), id).await?
            && draw.state == DrawState::Requested
        {
            if clock::now(&mut tx).await? < draw.decide_by_time {
                job.retry_as(&mut tx, &job.state, draw.decide_by_time).await?;
                tx.commit().await?;
                return Ok(());
            }
            let reason = "nobody decided it in time".to_owned();
            store::reserve_draw::set_state(&mut tx, &mut draw, DrawState::Lapsed { reason }).await?;
            outbox::append(&mut tx, &[NewFact::new(draw.programme, draw.id.0, &fact::reserve_draw_changed(&draw))]).await?;
        }
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}
