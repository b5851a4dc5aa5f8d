//! An amendment that nobody decides lapses at its decide-by time.

use super::fact;
use crate::{
    domain::{amendment::AmendmentState, reserve_draw::Decided},
    ids::AmendmentId,
    store,
};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    job::{Job, JobError, JobHandler},
    outbox::{self, NewFact},
    postgres::Db,
};

/// The kind of job; its subject is the amendment.
pub const KIND: &str = "lapse_amendment";
/// Its only step.
pub const STEP: &str = "lapse";

/// Lapses amendments.
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
        let id = AmendmentId(job.subject_id);
        let mut tx = self.db.begin().await?;
        store::amendment::lock(&mut tx, job.programme(), id).await?;
        if let Some(mut amendment) = store::amendment::find(&mut tx, job.programme(), id).await?
            && amendment.state == AmendmentState::Proposed
        {
            if clock::now(&mut tx).await? < amendment.decide_by_time {
                job.retry_as(&mut tx, &job.state, amendment.decide_by_time).await?;
                tx.commit().await?;
                return Ok(());
            }
            let decided = Decided { by: None, reason: "nobody decided it in time".to_owned() };
            amendment.state = AmendmentState::Lapsed { decided };
            store::amendment::update(&mut tx, &amendment).await?;
            let changed = NewFact::new(amendment.programme, id.0, &fact::amendment_changed(&amendment));
            outbox::append(&mut tx, &[changed]).await?;
        }
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}
