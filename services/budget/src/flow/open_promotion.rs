//! A member rose to a tier with a gift: the grant is opened, by the same command that a planner would send. A refusal may pass (the stock is
//! filled up, a plan begins, the member is reinstated), so it is asked for again for a week.

use crate::{
    api::Api,
    domain::{
        grant::costs_nothing_to_issue,
        plan::Stage,
        promotion::{AGAIN_AFTER, GIVEN_ALREADY, MAX_TRIES, NO_RISE, Promotion, Sources, State, paying},
        resource::Resource,
    },
    error::Error,
    flow::estimate_cost::estimated,
    ids::{GrantId, ProgrammeId, PromotionId},
    store,
};
use async_trait::async_trait;
use koc_chassis::{
    auth::Caller,
    clock,
    fault::{ServiceError, reason_of},
    job::{self, Job, JobError, JobHandler, NewJob},
    money::Currency,
    peer::is_transient,
};
use koc_proto::koc::budget::v1::{self as pb, grant_service_server::GrantService};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::sync::Arc;
use tonic::{Code, Request, Status};

/// The kind of these jobs; their one step is of the same name.
pub const KIND: &str = "open_promotion";
/// In whose name the service acts by itself.
const ACTOR: &str = "service:budget";
/// Why a gift that costs cash is not given: no active plan has an envelope for it.
const NO_ENVELOPE: &str = "ENVELOPE_REQUIRED";

/// How far a job is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    /// How often the grant was asked for.
    tries: u32,
    /// What it is asked for with; None before that is found out.
    sources: Option<Sources>,
}

/// Starts the job.
pub async fn start(conn: &mut PgConnection, programme: ProgrammeId, promotion: PromotionId) -> Result<(), sqlx::Error> {
    let state = serde_json::json!(Progress::default());
    let new = NewJob { kind: KIND, programme, subject: promotion.0, step: KIND, state, actor: ACTOR, run_time: None };
    job::start(conn, new).await.map(|_| ())
}

/// Runs these jobs.
pub struct OpenPromotion {
    pub api: Api,
}

#[async_trait]
impl JobHandler for OpenPromotion {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let progress: Progress = serde_json::from_value(job.state.clone()).map_err(|error| broken(&error))?;
        let mut conn = self.api.gate.db().read().await?;
        let found = store::promotion::find(&mut conn, job.programme(), PromotionId(job.subject_id)).await?;
        drop(conn);
        let promotion = found.ok_or_else(|| broken(&"the promotion is gone"))?;
        match &progress.sources {
            None => self.prepare(job, &promotion, progress).await,
            Some(sources) => self.ask(job, &promotion, sources, progress.tries).await,
        }
    }
}

impl OpenPromotion {
    /// Finds out whether the move was a rise, and what pays for the gift.
    async fn prepare(&self, job: &Job, promotion: &Promotion, progress: Progress) -> Result<(), JobError> {
        let (programme, members) = (promotion.programme, &self.api.members);
        let (from, to) = (&promotion.from_tier_id, &promotion.tier_id);
        if !members.is_rise(programme, from, to).await.map_err(failed)? {
            return self.settle(job, promotion, State::Refused(NO_RISE.to_owned())).await;
        }
        let currency = self.api.currencies.of(programme).await.map_err(failed)?;
        let region = members.region(programme, promotion.member).await.map_err(failed)?;
        let mut tx = self.api.gate.db().begin().await?;
        if store::promotion::has_another(&mut tx, promotion).await? {
            tx.rollback().await?;
            return self.settle(job, promotion, State::Refused(GIVEN_ALREADY.to_owned())).await;
        }
        let found = store::resource::find(&mut tx, programme, promotion.resource, None).await?;
        let resource = found.ok_or_else(|| broken(&"the resource is gone"))?;
        match sources(&mut tx, promotion, &resource, region, currency).await {
            Ok(sources) => {
                let state = serde_json::json!(Progress { tries: progress.tries + 1, sources: Some(sources) });
                job.advance(&mut tx, KIND, &state).await?;
                tx.commit().await?;
                Ok(())
            }
            Err(Error::Database(error)) => Err(error.into()),
            Err(error) => {
                tx.rollback().await?;
                self.refused(job, promotion, error.fault().reason.to_string(), progress.tries + 1).await
            }
        }
    }

    async fn ask(&self, job: &Job, promotion: &Promotion, sources: &Sources, tries: u32) -> Result<(), JobError> {
        let request_id = job.request_id(&format!("issue_grant/{tries}"));
        let mut request = Request::new(request(promotion, sources, request_id));
        request.extensions_mut().insert(Arc::new(Caller::own("budget", ACTOR)));
        match self.api.issue_grant(request).await {
            Ok(answer) => {
                let grant = answer.into_inner().grant.unwrap_or_default();
                let grant = GrantId::parse("grant_id", &grant.grant_id).map_err(|_| broken(&"a grant without an id"))?;
                self.settle(job, promotion, State::Granted(grant)).await
            }
            Err(status) if is_refusal(&status) => self.refused(job, promotion, reason_of(&status), tries).await,
            Err(status) => Err(status.into()),
        }
    }

    /// Tries again later, or gives up.
    async fn refused(&self, job: &Job, promotion: &Promotion, reason: String, tries: u32) -> Result<(), JobError> {
        tracing::info!(promotion = %promotion.id, reason, tries, "the grant of a promotion was refused");
        if tries >= MAX_TRIES {
            return self.settle(job, promotion, State::Refused(reason)).await;
        }
        let mut tx = self.api.gate.db().begin().await?;
        let later = clock::now(&mut tx).await? + AGAIN_AFTER;
        store::promotion::put_state(&mut tx, promotion.id, &State::Pending(Some(reason))).await?;
        job.retry_as(&mut tx, &serde_json::json!(Progress { tries, sources: None }), later).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn settle(&self, job: &Job, promotion: &Promotion, state: State) -> Result<(), JobError> {
        let mut tx = self.api.gate.db().begin().await?;
        store::promotion::put_state(&mut tx, promotion.id, &state).await?;
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Where one of the resource is sent, and what pays for it.
async fn sources(
    conn: &mut PgConnection,
    promotion: &Promotion,
    resource: &Resource,
    region_code: Option<String>,
    currency: Currency,
) -> Result<Sources, Error> {
    let kind = resource.model.kind();
    if costs_nothing_to_issue(kind) {
        return Ok(Sources { region_code: None, envelope: None });
    }
    let sources = Sources { region_code, envelope: None };
    let usage = crate::api::usage_of(Some(&usage(promotion, &sources)), currency)?;
    if estimated(conn, resource, &usage, currency).await?.cash() == 0 {
        return Ok(sources);
    }
    let now = clock::now(conn).await?;
    let envelopes = match store::plan::active_at(conn, promotion.programme, now).await? {
        Some(plan) if plan.state.stage() == Stage::Active => store::envelope::list(conn, plan.id).await?,
        _ => Vec::new(),
    };
    let envelope = paying(&envelopes, resource.class, kind, sources.region_code.as_deref());
    let envelope = envelope.ok_or(Error::NoEnvelopePays { resource: resource.id, reason: NO_ENVELOPE })?;
    Ok(Sources { envelope: Some(envelope), ..sources })
}

/// One, on the day of the rise.
fn usage(promotion: &Promotion, sources: &Sources) -> pb::ResourceUsage {
    pb::ResourceUsage {
        date: promotion.move_time.date_naive().to_string(),
        quantity: Some(1),
        region_code: sources.region_code.clone().unwrap_or_default(),
        ..Default::default()
    }
}

fn request(promotion: &Promotion, sources: &Sources, request_id: String) -> pb::IssueGrantRequest {
    pb::IssueGrantRequest {
        programme_id: promotion.programme.to_string(),
        request_id,
        member_id: promotion.member.to_string(),
        resource_id: promotion.resource.to_string(),
        usage: Some(usage(promotion, sources)),
        envelope_id: sources.envelope.map(|id| id.to_string()).unwrap_or_default(),
        reason: format!("rose to {}", promotion.tier_id),
        ..Default::default()
    }
}

/// Whether a command was understood and refused.
fn is_refusal(status: &Status) -> bool {
    let business = [Code::FailedPrecondition, Code::NotFound, Code::AlreadyExists, Code::InvalidArgument];
    !is_transient(status) && business.contains(&status.code())
}

fn failed(error: Error) -> JobError {
    match error {
        Error::Database(error) => error.into(),
        Error::RegistryUnavailable(status) | Error::RegistryRefused(status) => status.into(),
        other => broken(&other),
    }
}

fn broken(what: &dyn std::fmt::Display) -> JobError {
    JobError::Broken(what.to_string())
}
