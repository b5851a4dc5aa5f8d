//! ValueService.

use crate::{
    api::{convert, ensure_programme, judged},
    domain::{
        appraisal::{self, Appraised, COHORT_DAYS, Field},
        ids::OutputId,
        output::{Measured, Output},
        posterior::{MAX_MEMBER_OUTPUTS, OutputResult, Posterior, PosteriorError, PosteriorInputs, posterior},
        value::{EmvRates, ValueModel, model::DEFAULT_ATTRIBUTION_DAYS, returns::return_on},
    },
    error::Error,
    peer::Peers,
    store::{self, programme::Record},
};
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    gate::{Call, Gate},
    ids::{MemberId, ProgrammeId},
    members::{self, Purpose},
    money::{Currency, Money},
};
use koc_proto::koc::measurement::v1 as pb;
use sqlx::PgConnection;
use std::collections::BTreeSet;
use tonic::{Request, Response, Status};

/// Outputs of a programme that one value is compared with.
const MAX_COMPARED: i64 = 5_000;
/// Outputs of one member that one value sums.
const MAX_OWN: i64 = MAX_MEMBER_OUTPUTS as i64;

/// Prices of a follower and of a thousand views. The highest counter times this still is an amount of money.
const MAX_PRICE_MINOR: i64 = 4_000_000;

/// Serves value models and values.
pub struct ValueApi {
    pub gate: Gate<Error>,
    pub peers: Peers,
}

fn parse_model(message: &pb::ValueModel, version: i32, currency: Currency) -> Result<ValueModel, Error> {
    let mut violations = Violations::default();
    let mut amount = |field: &str, wire: Option<&koc_proto::google::r#type::Money>| {
        let parsed = wire.map(|wire| Money::parse_not_negative(field, Some(wire), currency)).transpose();
        let minor = violations.take(parsed).flatten().map_or(0, |money| money.minor);
        if minor > MAX_PRICE_MINOR {
            let rule = format!("must be at most {MAX_PRICE_MINOR} minor units");
            violations.push(Violation::new(field, "PRICE_TOO_HIGH", rule));
        }
        minor
    };
    let follower_value_minor = amount("value_model.value_per_follow", message.value_per_follow.as_ref());
    let price = amount("value_model.media_price_per_thousand_views", message.media_price_per_thousand_views.as_ref());
    violations.finish()?;
    let days = u32::try_from(message.attribution_days).ok().filter(|days| *days > 0).unwrap_or(DEFAULT_ATTRIBUTION_DAYS);
    Ok(ValueModel {
        version: u32::try_from(version).unwrap_or(u32::MAX),
        attribution_days: days,
        follower_value_minor,
        emv_rates: (price > 0).then(|| EmvRates { thousand_reads_minor: price, ..EmvRates::default() }),
        ..ValueModel::standard(currency.code())
    })
}

/// The outputs to compare with: those of the trailing 180 days before `as_of`, read at that time, but for those of members who do not consent
/// to profiling: who is not judged helps to judge nobody.
async fn field(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    as_of: DateTime<Utc>,
    model: &ValueModel,
) -> Result<Vec<Measured>, Error> {
    let from = as_of - TimeDelta::days(COHORT_DAYS);
    let mut outputs = store::output::published(conn, programme, from, as_of, MAX_COMPARED).await?;
    let members: BTreeSet<MemberId> = outputs.iter().map(|output| output.member).collect();
    let standings = members::standings(conn, programme, &Vec::from_iter(members)).await?;
    outputs.retain(|output| standings.get(&output.member).is_none_or(|standing| !standing.withdrew(Purpose::Profiling)));
    Ok(store::output::measure(conn, outputs, as_of, model.attribution_days).await?)
}

async fn active_model(conn: &mut PgConnection, programme: ProgrammeId) -> Result<ValueModel, Error> {
    store::programme::active_model(conn, programme).await?.ok_or(Error::ValueModelNotFound(programme))
}

fn output_value(appraised: &Appraised<'_>, model: &ValueModel, as_of: DateTime<Utc>) -> Result<pb::OutputValue, Error> {
    let Appraised { measured, value } = appraised;
    let currency = convert::currency(&measured.output.currency)?;
    let cost_minor = measured.output.cost_minor();
    Ok(pb::OutputValue {
        output_id: measured.output.id.to_string(),
        value_model_version: convert::version(model.version),
        as_of: Some(clock::to_proto(as_of)),
        value: convert::money(value.cash_minor, currency),
        components: value.components.iter().map(|component| convert::component(component, currency)).collect(),
        score: value.score.as_ref().map(|score| score.value),
        score_coverage: value.score.as_ref().map_or(0.0, |score| score.coverage),
        media_equivalent: value.media_equivalent.and_then(|media| convert::money(media.amount_minor, currency)),
        cost: Some(convert::cost_basis(cost_minor, currency)),
        roi: return_on(value.cash_minor, cost_minor)?,
    })
}

/// The member's return with its uncertainty; None when nothing was spent.
fn member_posterior(
    all: &[Appraised<'_>],
    own: &[Appraised<'_>],
    as_of: DateTime<Utc>,
    policy: &crate::domain::decision::DecisionPolicy,
) -> Result<Option<Posterior>, Error> {
    let newest: Option<&Output> =
        own.iter().map(|one| &one.measured.output).max_by_key(|output| (output.published_at, output.id));
    let Some(like) = newest else { return Ok(None) };
    let inputs = PosteriorInputs {
        outputs: own.iter().map(|one| appraisal::result(one, 0)).collect::<Vec<OutputResult>>(),
        cohort: appraisal::pool(all, like, as_of).results,
        target_roi: policy.target_roi,
        floor_roi: policy.floor_roi,
    };
    match posterior(&inputs, &policy.posterior) {
        Ok(found) => Ok(Some(found)),
        Err(PosteriorError::NoSpend | PosteriorError::EmptyCohort) => Ok(None),
        Err(PosteriorError::Input(error)) => Err(error.into()),
    }
}

#[tonic::async_trait]
impl pb::value_service_server::ValueService for ValueApi {
    async fn create_value_model(
        &self,
        request: Request<pb::CreateValueModelRequest>,
    ) -> Result<Response<pb::CreateValueModelResponse>, Status> {
        let opened =
            async |call: &Call, _: &pb::CreateValueModelRequest| ensure_programme(&self.gate, &self.peers, call.programme).await;
        self.gate
            .mutate_after(request, opened, |work, req: pb::CreateValueModelRequest, ()| {
                Box::pin(async move {
                    let (programme, actor) = (work.programme(), work.actor().to_owned());
                    let known = store::programme::lock(work.conn(), programme).await?;
                    let known = known.ok_or(Error::ProgrammeNotFound(programme))?;
                    let currency = convert::currency(&known.currency)?;
                    let version = known.value_model_version + 1;
                    let model = parse_model(&req.value_model.unwrap_or_default(), version, currency)?;
                    let time = work.now().await?;
                    let record = Record { actor: &actor, reason: &req.reason, time };
                    store::programme::add_model(work.conn(), programme, version, &model, record).await?;
                    work.audit(programme.0, Some(req.reason.clone()));
                    Ok(pb::CreateValueModelResponse { value_model: Some(convert::value_model(&model, currency)) })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_output_value(
        &self,
        request: Request<pb::GetOutputValueRequest>,
    ) -> Result<Response<pb::GetOutputValueResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::GetOutputValueRequest| async move {
                let id = OutputId::parse("output_id", &req.output_id)?;
                let given = req.as_of.as_ref().map(|time| clock::from_proto("as_of", time)).transpose()?;
                let mut conn = self.gate.db().read().await?;
                let output = store::output::find(&mut conn, call.programme, id).await?.ok_or(Error::OutputNotFound(id))?;
                judged(&mut conn, call.programme, output.member).await?;
                let model = active_model(&mut conn, call.programme).await?;
                let now = clock::now(&mut conn).await?;
                let as_of = given.map_or(now, |time| time.min(now));
                let own = store::output::measure(&mut conn, vec![output], as_of, model.attribution_days).await?;
                let others = field(&mut conn, call.programme, as_of, &model).await?;
                let field = Field::new(&others, &model, as_of)?;
                let mut output_value_found = None;
                for measured in &own {
                    output_value_found = Some(output_value(&field.appraise(measured)?, &model, as_of)?);
                }
                Ok(pb::GetOutputValueResponse { output_value: output_value_found })
            })
            .await
    }

    async fn get_member_value(
        &self,
        request: Request<pb::GetMemberValueRequest>,
    ) -> Result<Response<pb::GetMemberValueResponse>, Status> {
        self.gate
            .read(request, |call, req: pb::GetMemberValueRequest| async move {
                let mut violations = Violations::default();
                let member = violations.take(MemberId::parse("member_id", &req.member_id));
                let start = violations.take(clock::required("period_start_time", req.period_start_time.as_ref()));
                let end = violations.take(clock::required("period_end_time", req.period_end_time.as_ref()));
                if start >= end {
                    violations.push(Violation::new("period_end_time", "PERIOD_EMPTY", "must be after the period's start"));
                }
                violations.finish()?;
                let (Some(member), Some(start), Some(end)) = (member, start, end) else {
                    return Err(Error::Invalid(Vec::new()));
                };
                let mut conn = self.gate.db().read().await?;
                judged(&mut conn, call.programme, member).await?;
                let member = members::group(&mut conn, call.programme, member).await?[0];
                let model = active_model(&mut conn, call.programme).await?;
                let policy = store::programme::active_policy(&mut conn, call.programme).await?;
                let policy = policy.ok_or(Error::ValueModelNotFound(call.programme))?.thresholds;
                let currency = convert::currency(&model.currency)?;
                // A period that is not over yet is looked at as of now, or its outputs would pass for older than they are.
                let as_of = end.min(clock::now(&mut conn).await?);
                // The member's own are read apart: in a big programme they are not among the newest.
                let own = store::output::published_by(&mut conn, call.programme, member, start, as_of, MAX_OWN).await?;
                let own = store::output::measure(&mut conn, own, as_of, model.attribution_days).await?;
                let compared = field(&mut conn, call.programme, as_of, &model).await?;
                drop(conn);
                let message = tokio::task::spawn_blocking(move || {
                    let own = appraisal::value_all(&own, &model)?;
                    let value = own.iter().map(|one| one.value.cash_minor).fold(0_i64, i64::saturating_add);
                    let cost = own.iter().map(|one| one.measured.output.cost_minor()).fold(0_i64, i64::saturating_add);
                    let posterior = member_posterior(&appraisal::value_all(&compared, &model)?, &own, as_of, &policy)?;
                    Ok::<_, Error>(pb::MemberValue {
                        member_id: member.to_string(),
                        value_model_version: convert::version(model.version),
                        output_count: i32::try_from(own.len()).unwrap_or(i32::MAX),
                        value: convert::money(value, currency),
                        cost: convert::money(cost, currency),
                        roi: return_on(value, cost)?,
                        posterior: posterior.as_ref().map(convert::posterior),
                    })
                });
                let member_value = message.await.map_err(|_| Error::Interrupted)??;
                Ok(pb::GetMemberValueResponse { member_value: Some(member_value) })
            })
            .await
    }
}
