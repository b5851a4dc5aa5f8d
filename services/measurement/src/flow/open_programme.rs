//! A programme was created: its currency is asked from the registry, and it begins with version 1 of model and policy.

use crate::{peer::Peers, store};
use async_trait::async_trait;
use koc_chassis::{
    clock,
    ids::ProgrammeId,
    job::{self, Job, JobError, JobHandler, NewJob},
    postgres::Db,
};
use sqlx::PgConnection;

/// The kind of these jobs; their one step is of the same name.
pub const KIND: &str = "open_programme";
/// In whose name the service acts by itself.
pub const ACTOR: &str = "measurement";

/// Starts the job. A programme that is open already is left as it is.
pub async fn start(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), sqlx::Error> {
    let state = serde_json::Value::Null;
    let job = NewJob { kind: KIND, programme, subject: programme.0, step: KIND, state, actor: ACTOR, run_time: None };
    job::start(conn, job).await.map(|_| ())
}

/// Runs these jobs.
pub struct OpenProgramme {
    pub db: Db,
    pub peers: Peers,
}

#[async_trait]
impl JobHandler for OpenProgramme {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let currency = self.peers.currency(job.programme()).await?;
        let mut tx = self.db.begin().await?;
        match currency {
            Some(currency) => {
                let now = clock::now(&mut tx).await?;
                store::programme::open(&mut tx, job.programme(), &currency, now).await?;
            }
            // The registry told of it, so it is there: a registry restored to an older state may not know it.
            None => return Err(JobError::Broken("the registry does not know the programme it told of".to_owned())),
        }
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}
