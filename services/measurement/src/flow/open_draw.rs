//! A spike is strong enough for money: how much is worked out, then the budget is asked. The amount is fixed before the call, so
//! that a call that is made again asks for the same.

use crate::{
    domain::{
        appraisal::{self, COHORT_DAYS},
        distribution::Welford,
        ids::SignalId,
        maturity::project_to_maturity,
        output::{Measured, Metric, Output},
        spike::boost::{self, AudienceEvidence, BoostInputs, BoostProposal, Gate, GateResult, check_gates, propose_boost},
        value::{OpinionDirection, ValueModel},
    },
    flow::{broken, open_programme::ACTOR, record_observations::changed, state_of, to_state},
    peer::{DrawRequest, PeerError, Peers},
    store::{
        self,
        signal::{Draw, Signal},
    },
};
use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::{
    clock,
    job::{self, Job, JobError, JobHandler, NewJob},
    members::{self, Purpose},
    money::{Currency, Money},
    outbox,
    postgres::Db,
};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

/// The kind of these jobs, and their steps.
pub const KIND: &str = "open_draw";
const SIZE: &str = "size";
const REQUEST: &str = "request";

/// Worth of a paid read against an organic one. An assumption: advertising finds people who did not look for it.
const PAID_RELEVANCE: f64 = 0.5;
/// The least time to decide on a draw.
const MIN_DECIDE_TIME: TimeDelta = TimeDelta::hours(1);
/// Outputs of a platform that a spike is compared with.
const MAX_COMPARED: i64 = 2_000;
/// Paid reach within so long before the reading makes a burst no longer organic.
const PAID_WINDOW: TimeDelta = TimeDelta::hours(24);

/// A draw that was worked out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sized {
    amount_minor: i64,
    decide_by: DateTime<Utc>,
    evidence: Vec<(String, String)>,
    explanation: String,
}

/// Starts the job for a signal.
pub async fn start(conn: &mut PgConnection, signal: &Signal) -> Result<(), sqlx::Error> {
    let state = serde_json::Value::Null;
    let job =
        NewJob { kind: KIND, programme: signal.programme, subject: signal.id.0, step: SIZE, state, actor: ACTOR, run_time: None };
    job::start(conn, job).await.map(|_| ())
}

/// Runs these jobs.
pub struct OpenDraw {
    pub db: Db,
    pub peers: Peers,
}

/// What the amount is worked out from.
struct Spike {
    signal: Signal,
    own: Measured,
    model: ValueModel,
    max_draw_minor: i64,
    target_roi: f64,
    asked_minor: i64,
    compared: Vec<Measured>,
    paid_lately: bool,
    now: DateTime<Utc>,
}

enum Found {
    Spike(Box<Spike>),
    /// No draw, and why.
    NoDraw(String),
    Over,
}

#[async_trait]
impl JobHandler for OpenDraw {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        match job.step.as_str() {
            SIZE => self.size(job).await,
            _ => self.request(job).await,
        }
    }
}

impl OpenDraw {
    async fn size(&self, job: &Job) -> Result<(), JobError> {
        let sized = match self.find(job).await? {
            Found::Over => None,
            Found::NoDraw(reason) => Some(Err(reason)),
            Found::Spike(spike) => {
                let currency = Currency::from_code(&spike.signal.currency)
                    .ok_or_else(|| JobError::Broken(format!("{} is no currency", spike.signal.currency)))?;
                let left = self.peers.reserve_left(job.programme(), spike.signal.observed_at, currency).await?;
                Some(match left {
                    Some(left) => work_out(&spike, left).map_err(broken)?,
                    None => Err("No active plan with a strategic reserve holds the time of the spike.".to_owned()),
                })
            }
        };
        let mut tx = self.db.begin().await?;
        match sized {
            None => job.finish(&mut tx).await?,
            Some(Ok(sized)) => job.advance(&mut tx, REQUEST, &to_state(&sized)?).await?,
            Some(Err(reason)) => {
                settle(&mut tx, job, Draw::None, &reason).await?;
                job.finish(&mut tx).await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    async fn find(&self, job: &Job) -> Result<Found, JobError> {
        let mut conn = self.db.read().await?;
        let programme = job.programme();
        let signal = store::signal::find(&mut conn, programme, SignalId(job.subject_id)).await?;
        let Some(signal) = signal.filter(|signal| signal.draw == Draw::Pending) else { return Ok(Found::Over) };
        let Some(output) = store::output::find(&mut conn, programme, signal.output).await? else { return Ok(Found::Over) };
        let standing = members::standing(&mut conn, programme, output.member).await?;
        if standing.suspended {
            return Ok(Found::NoDraw("The member is suspended.".to_owned()));
        }
        if standing.withdrew(Purpose::ContentUse) {
            return Ok(Found::NoDraw("The member does not consent to the use of its content any more.".to_owned()));
        }
        let model = store::programme::active_model(&mut conn, programme).await?;
        let policy = store::programme::active_policy(&mut conn, programme).await?;
        let (Some(model), Some(policy)) = (model, policy) else {
            return Err(JobError::Broken("the programme is not open here yet".to_owned()));
        };
        let Some(max_draw_minor) = policy.max_draw_per_output_minor else {
            return Ok(Found::NoDraw("The decision policy sets no amount that a signal may draw.".to_owned()));
        };
        let at = signal.observed_at;
        let (days, platform) = (model.attribution_days, output.platform.clone());
        let own = store::output::measure(&mut conn, vec![output], at, days).await?.remove(0);
        let from = at - TimeDelta::days(COHORT_DAYS);
        let mut like: Vec<Output> = store::output::published(&mut conn, programme, from, at, MAX_COMPARED).await?;
        like.retain(|other| other.platform == platform);
        let compared = store::output::measure(&mut conn, like, at, days).await?;
        let paid_lately = store::observation::grew_paid(&mut conn, signal.output, Metric::Views, at - PAID_WINDOW, at).await?;
        let asked_minor = store::signal::asked_minor(&mut conn, signal.output).await?;
        let now = clock::now(&mut conn).await?;
        let target_roi = policy.thresholds.target_roi;
        let spike = Spike { signal, own, model, max_draw_minor, target_roi, asked_minor, compared, paid_lately, now };
        Ok(Found::Spike(Box::new(spike)))
    }

    async fn request(&self, job: &Job) -> Result<(), JobError> {
        let sized: Sized = state_of(job)?;
        let mut conn = self.db.read().await?;
        let signal = store::signal::find(&mut conn, job.programme(), SignalId(job.subject_id)).await?;
        drop(conn);
        let Some(signal) = signal else { return Err(JobError::Broken("the signal is gone".to_owned())) };
        let currency = Currency::from_code(&signal.currency)
            .ok_or_else(|| JobError::Broken(format!("{} is no currency", signal.currency)))?;
        let request = DrawRequest {
            request_id: job.request_id("request_reserve_draw"),
            programme: signal.programme,
            member: signal.member,
            output: signal.output,
            as_of: signal.observed_at,
            amount: Money::new(sized.amount_minor, currency),
            evidence: sized.evidence.clone(),
            decide_by: sized.decide_by,
        };
        let asked = self.peers.request_draw(&request).await;
        let mut tx = self.db.begin().await?;
        match asked {
            Ok(draw) => {
                settle(&mut tx, job, Draw::Requested { draw, amount_minor: sized.amount_minor }, &sized.explanation).await?;
                store::output::put_draw(&mut tx, signal.programme, draw, signal.output, false).await?;
            }
            Err(PeerError::Refused { reason, message }) => {
                let reason = format!("The budget refused with {reason}: {message}. {}", sized.explanation);
                settle(&mut tx, job, Draw::Refused { amount_minor: sized.amount_minor }, &reason).await?;
            }
            Err(PeerError::Failed(status)) => return Err(status.into()),
        }
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Writes what came of a signal's draw.
async fn settle(conn: &mut PgConnection, job: &Job, draw: Draw, reason: &str) -> Result<(), JobError> {
    let locked = store::signal::lock(conn, job.programme(), SignalId(job.subject_id)).await?;
    let Some(signal) = locked.filter(|signal| signal.draw == Draw::Pending) else { return Ok(()) };
    store::signal::put_draw(conn, signal.id, &draw, reason).await?;
    outbox::append(conn, &[changed(&Signal { draw, ..signal })]).await?;
    Ok(())
}

/// The draw to ask for, or why there is none.
fn work_out(spike: &Spike, reserve_left: Money) -> Result<Result<Sized, String>, crate::domain::InputError> {
    let (signal, own) = (&spike.signal, &spike.own);
    let reads = own.counters.organic(Metric::Views).unwrap_or(0) as f64;
    let half_life_hours = own.output.half_life_hours();
    // An age of zero hours has no projection; a minute stands for it.
    let age_hours = own.output.age_hours(signal.observed_at).max(1.0 / 60.0);
    let projected = project_to_maturity(reads, age_hours, &Welford::default(), half_life_hours)?;
    let rate = if signal.window_hours > 0.0 { signal.window_count / signal.window_hours } else { 0.0 };
    let own_value = appraisal::cash_per_thousand_reads([own], &spike.model)?.filter(|value| *value > 0.0);
    // An output without orders yet is taken to sell like others on its platform.
    let value = match own_value {
        Some(value) => value,
        None => appraisal::cash_per_thousand_reads(&spike.compared, &spike.model)?.unwrap_or(0.0).max(0.0),
    };
    let proposal = propose_boost(
        &BoostInputs {
            currency: reserve_left.currency,
            reserve_left_minor: reserve_left.minor.max(0),
            output_cap_minor: (spike.max_draw_minor - spike.asked_minor).max(0),
            remaining_reads: boost::remaining_reads(projected.median, reads, rate, half_life_hours),
            value_per_thousand_reads_minor: value,
            cost_per_thousand_minor: spike.model.emv_rates.as_ref().map(|rates| rates.thousand_reads_minor),
            relevance: PAID_RELEVANCE,
            target_marginal_roi: spike.target_roi,
            half_life_hours,
        },
        spike.now,
    )?;
    let gates = check_gates(&AudienceEvidence {
        opinion: OpinionDirection::Insufficient,
        duplicate_share: None,
        likes_per_read: appraisal::ratio_in_band(&own.counters, &spike.compared, Metric::Likes),
        comments_per_read: appraisal::ratio_in_band(&own.counters, &spike.compared, Metric::Comments),
        brand_safety_flagged: None,
        paid_boost_active: spike.paid_lately,
    })?;
    let gates_text = describe(&gates);
    let explanation = format!("{} {gates_text}", proposal.explanation);
    if gates.iter().any(|gate| !gate.met) || proposal.amount_minor == 0 {
        return Ok(Err(explanation));
    }
    let evidence = evidence(signal, &proposal, &gates);
    let decide_by = proposal.expires_at.max(spike.now + MIN_DECIDE_TIME);
    Ok(Ok(Sized { amount_minor: proposal.amount_minor, decide_by, evidence, explanation }))
}

fn evidence(signal: &Signal, proposal: &BoostProposal, gates: &[GateResult]) -> Vec<(String, String)> {
    let mut items = vec![
        ("score".to_owned(), format!("{:.2}", signal.score)),
        ("ratio_to_baseline".to_owned(), format!("{:.2}", signal.ratio)),
        ("window_count".to_owned(), format!("{:.0}", signal.window_count)),
        ("expected_count".to_owned(), format!("{:.1}", signal.expected_count)),
        ("window_hours".to_owned(), format!("{:.2}", signal.window_hours)),
    ];
    if let Some(response) = &proposal.response {
        items.push(("first_marginal_value".to_owned(), format!("{:.2}", response.first_marginal_value)));
        items.push(("expected_value_minor".to_owned(), response.expected_value_minor.to_string()));
    }
    for gate in gates {
        let stands = match (gate.measured, gate.met) {
            (false, _) => "not evaluated",
            (true, true) => "met",
            (true, false) => "not met",
        };
        items.push((format!("gate_{}", gate_name(gate.gate)), stands.to_owned()));
    }
    items
}

fn describe(gates: &[GateResult]) -> String {
    let named = |text: &str, keep: fn(&GateResult) -> bool| {
        let names: Vec<&str> = gates.iter().filter(|gate| keep(gate)).map(|gate| gate_name(gate.gate)).collect();
        if names.is_empty() { String::new() } else { format!(" {text}: {}.", names.join(", ")) }
    };
    let met = named("Gates met", |gate| gate.measured && gate.met);
    let unmet = named("Gates not met, so no draw", |gate| gate.measured && !gate.met);
    let unknown = named("Not evaluated", |gate| !gate.measured);
    format!("{met}{unmet}{unknown}").trim_start().to_owned()
}

fn gate_name(gate: Gate) -> &'static str {
    match gate {
        Gate::OpinionNotUnfavourable => "opinion",
        Gate::FewDuplicates => "few_duplicates",
        Gate::LikesPlausible => "likes_plausible",
        Gate::CommentsPlausible => "comments_plausible",
        Gate::BrandSafe => "brand_safe",
        Gate::Organic => "organic",
    }
}
