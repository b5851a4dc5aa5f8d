//! AdvisorService.

mod answer;
mod question;

use super::Api;
use crate::{
    domain::advisor::{advice::advise, question::Question},
    error::Error,
    ids::{PlanId, ProgrammeId},
    store,
};
use koc_proto::koc::budget::v1 as pb;
use question::{Asked, PlanNow};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl pb::advisor_service_server::AdvisorService for Api {
    async fn advise_allocation(
        &self,
        request: Request<pb::AdviseAllocationRequest>,
    ) -> Result<Response<pb::AdviseAllocationResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::AdviseAllocationRequest| {
                let currency = self.currencies.of(call.programme).await?;
                let plan = match PlanId::parse_optional("plan_id", &request.plan_id)? {
                    Some(id) => Some(self.plan_now(call.programme, id).await?),
                    None => None,
                };
                let asked = question::read(&request, plan.as_ref(), currency)?;
                let turn = self.advice.clone().acquire_owned().await.map_err(|_| Error::AdviceStopped)?;
                solve(asked, turn).await.map(|(asked, advice)| answer::write(&asked, &advice, currency))
            })
            .await
    }
}

impl Api {
    async fn plan_now(&self, programme: ProgrammeId, id: PlanId) -> Result<PlanNow, Error> {
        let mut tx = self.gate.db().snapshot().await?;
        let plan = store::plan::find(&mut tx, programme, id).await?.ok_or(Error::PlanNotFound(id))?;
        let envelopes = store::envelope::list(&mut tx, id).await?;
        Ok(PlanNow { stage: plan.state.stage(), envelopes })
    }
}

/// As many questions are solved at once as half the machine can.
pub fn turns() -> Arc<Semaphore> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Arc::new(Semaphore::new(cores.div_ceil(2)))
}

/// Solves where it holds up nobody, and no longer than somebody waits.
async fn solve(asked: Asked, turn: OwnedSemaphorePermit) -> Result<(Asked, crate::domain::advisor::advice::Advice), Error> {
    struct StopOnDrop(Arc<AtomicBool>);
    impl Drop for StopOnDrop {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let gone = StopOnDrop(Arc::default());
    let stop = gone.0.clone();
    let work = move || {
        // Given back when the work ends, not when nobody waits any more.
        let _turn = turn;
        let question: &Question = &asked.question;
        let found = advise(question, &|| stop.load(Ordering::Relaxed));
        (asked, found)
    };
    let (asked, found) = tokio::task::spawn_blocking(work).await.map_err(Error::AdvisorFailed)?;
    drop(gone);
    match found {
        Ok(advice) => Ok((asked, advice)),
        Err(why) => Err(question::refusal(&asked, &why)),
    }
}
