//! Between the domain's values and the contract's messages.

use crate::{
    domain::{
        decision::Factor,
        judgement::Judgement,
        output::Output,
        posterior::Posterior,
        reading::{Series, Total},
        value::{Component, ComponentKind, Grade, ValueModel},
    },
    error::Error,
    flow::{record_observations::draw_state, run_decisions},
    store::{
        decision::{Answers, StoredDecision},
        output::Attainment,
        signal::{Draw, Signal},
    },
};
use koc_chassis::{
    clock,
    money::{Currency, Money},
};
use koc_proto::{google::r#type::Money as WireMoney, koc::measurement::v1 as pb};

/// The currency with a stored code.
///
/// # Errors
/// A code that was stored and is none any more.
pub fn currency(code: &str) -> Result<Currency, Error> {
    Currency::from_code(code).ok_or_else(|| sqlx::Error::Decode(format!("{code} is no currency").into()).into())
}

pub fn money(minor: i64, currency: Currency) -> Option<WireMoney> {
    Some(Money::new(minor, currency).to_proto())
}

/// Fixed costs and lent things are not told to this service: the wider bases hold what the marginal one does.
pub fn cost_basis(minor: i64, currency: Currency) -> pb::CostBasis {
    let amount = money(minor, currency);
    pb::CostBasis { marginal: amount.clone(), amortised: amount.clone(), full_tco: amount }
}

pub fn output(output: &Output, totals: &[(Series, Total)], attainments: &[Attainment]) -> Result<pb::Output, Error> {
    let currency = currency(&output.currency)?;
    let totals = totals.iter().filter(|(series, _)| series.output == output.id).map(|(series, total)| pb::MetricTotal {
        metric: series.metric.number().into(),
        paid: series.paid,
        value: total.value,
        observe_time: Some(clock::to_proto(total.at)),
        adjusted: total.adjusted,
    });
    let attainments = attainments.iter().filter(|a| a.output == output.id).map(|a| pb::TargetAttainment {
        metric: a.metric.into(),
        target_value: a.target_value,
        reached_value: a.reached_value,
        attainment: a.reached_value as f64 / a.target_value as f64,
        due_time: Some(clock::to_proto(a.due)),
    });
    Ok(pb::Output {
        output_id: output.id.to_string(),
        programme_id: output.programme.to_string(),
        member_id: output.member.to_string(),
        assignment_id: output.assignment.to_string(),
        deliverable_key: output.deliverable_key.clone(),
        deliverable_kind: output.kind.clone(),
        platform: output.platform.clone(),
        tier_id: output.tier.clone(),
        publish_time: Some(clock::to_proto(output.published_at)),
        cost: Some(cost_basis(output.cost_minor(), currency)),
        totals: totals.collect(),
        attainments: attainments.collect(),
        create_time: Some(clock::to_proto(output.created_at)),
        brief_id: output.brief.to_string(),
    })
}

pub fn signal(signal: &Signal) -> Result<pb::Signal, Error> {
    let currency = currency(&signal.currency)?;
    let (draw, amount_minor) = match signal.draw {
        Draw::None | Draw::Pending => (None, None),
        Draw::Requested { draw, amount_minor } => (Some(draw), Some(amount_minor)),
        Draw::Refused { amount_minor } => (None, Some(amount_minor)),
    };
    let level = if signal.money { pb::SignalLevel::Money } else { pb::SignalLevel::Notify };
    Ok(pb::Signal {
        signal_id: signal.id.to_string(),
        programme_id: signal.programme.to_string(),
        member_id: signal.member.to_string(),
        output_id: signal.output.to_string(),
        metric: signal.metric.into(),
        level: level.into(),
        score: signal.score,
        ratio_to_baseline: signal.ratio,
        window_count: signal.window_count,
        expected_count: signal.expected_count,
        observe_time: Some(clock::to_proto(signal.observed_at)),
        draw_state: draw_state(&signal.draw).into(),
        reserve_draw_id: draw.map(|draw| draw.to_string()).unwrap_or_default(),
        draw_amount: amount_minor.and_then(|minor| money(minor, currency)),
        draw_reason: signal.draw_reason.clone(),
    })
}

pub fn posterior(posterior: &Posterior) -> pb::RoiPosterior {
    pb::RoiPosterior {
        mean: posterior.mean,
        q05: posterior.q05,
        q50: posterior.q50,
        q95: posterior.q95,
        probability_above_target: posterior.p_target,
        probability_above_floor: posterior.p_floor,
        prior_share: posterior.prior_share,
        seed: posterior.seed.clone(),
    }
}

pub fn component(component: &Component, currency: Currency) -> pb::ValueComponent {
    let name = match component.kind {
        ComponentKind::AttributedMargin => "attributed_orders",
        ComponentKind::ReuseSaving => "reuse_saving",
        ComponentKind::AdoptedBenefit => "adopted_benefit",
        ComponentKind::NewFollowers => "new_followers",
        ComponentKind::ActivityUplift => "activity_uplift",
        ComponentKind::QualifiedLeads => "qualified_leads",
    };
    let grade = match component.grade {
        Grade::A => "A",
        Grade::B => "B",
        Grade::C => "C",
        Grade::D => "D",
    };
    pb::ValueComponent {
        name: name.to_owned(),
        amount: money(component.amount_minor, currency),
        evidence_grade: grade.to_owned(),
    }
}

pub fn value_model(model: &ValueModel, currency: Currency) -> pb::ValueModel {
    let priced = |minor: i64| (minor > 0).then(|| Money::new(minor, currency).to_proto());
    pb::ValueModel {
        version: version(model.version),
        value_per_follow: priced(model.follower_value_minor),
        media_price_per_thousand_views: model.emv_rates.as_ref().and_then(|rates| priced(rates.thousand_reads_minor)),
        attribution_days: version(model.attribution_days),
    }
}

/// A count as the contract's int32.
pub fn version(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

pub fn decision(stored: &StoredDecision) -> Result<pb::Decision, Error> {
    decision_with(stored, &stored.outcome, &stored.input_hash)
}

/// The decision with another outcome and hash in place of the stored ones: what a replay gives.
pub fn decision_with(stored: &StoredDecision, outcome: &Judgement, input_hash: &str) -> Result<pb::Decision, Error> {
    let currency = currency(&stored.currency)?;
    let (judged, period) = (&outcome.decision, &stored.inputs.period);
    Ok(pb::Decision {
        decision_id: stored.id.to_string(),
        programme_id: stored.programme.to_string(),
        member_id: stored.member.to_string(),
        period_start_time: Some(clock::to_proto(period.start)),
        period_end_time: Some(clock::to_proto(period.end)),
        action: run_decisions::action(judged.action).into(),
        state: run_decisions::state(&stored.progress).into(),
        rule_id: format!("{:?}", judged.rule),
        explanation: outcome.explanation.clone(),
        factors: judged.factors.iter().map(factor).collect(),
        counterfactuals: judged.counterfactuals.iter().map(|c| format!("{}: {}", c.outcome.name(), c.text)).collect(),
        posterior: outcome.posterior.as_ref().map(posterior),
        value: money(outcome.value_minor, currency),
        cost: money(outcome.cost_minor, currency),
        output_count: version(outcome.output_count),
        top_outputs: outcome
            .top_outputs
            .iter()
            .map(|top| pb::OutputContribution {
                output_id: top.output_id.clone(),
                value: money(top.value_minor, currency),
                cost: money(top.cost_minor, currency),
            })
            .collect(),
        next_limit: outcome.next_limit_minor.and_then(|minor| money(minor, currency)),
        next_period_start_time: Some(clock::to_proto(period.end)),
        next_period_end_time: Some(clock::to_proto(period.next_end)),
        policy_version: stored.policy_version,
        value_model_version: stored.inputs.value_model_version,
        input_hash: input_hash.to_owned(),
        decided_by: stored.decided_by.clone(),
        approved_by: stored.progress.approved_by().to_owned(),
        create_time: Some(clock::to_proto(stored.created_at)),
        application: application(&stored.answers),
    })
}

fn application(answers: &Answers) -> Option<pb::DecisionApplication> {
    let text = |answer: &Option<String>| answer.clone().unwrap_or_default();
    (*answers != Answers::default()).then(|| pb::DecisionApplication {
        value_profile: text(&answers.profile),
        tier_proposal: text(&answers.tier),
        member_limit: text(&answers.limit),
    })
}

fn factor(factor: &Factor) -> pb::DecisionFactor {
    pb::DecisionFactor { name: factor.name.clone(), value: factor.value, threshold: Some(factor.threshold), met: factor.met }
}
