//! Tiers, their rules and moves as they go over the wire.

use super::super::convert::Wire;
use crate::{
    domain::tier::{
        Candidate, Policy, Reading, Review, Rules, Tier, neighbours,
        policy::Capacity,
        verdict::{Condition, Risk},
    },
    store::tier::{Move, standing::AtRisk},
};
use chrono::{DateTime, Utc};
use koc_chassis::{clock, fault::Violation, page};
use koc_proto::koc::registry::v1 as pb;
use uuid::Uuid;

/// What is absent is as in the default rules.
pub fn rules(wire: pb::TierPolicy) -> Rules {
    let default = Rules::default();
    Rules {
        min_promote_probability: wire.min_promote_probability.unwrap_or(default.min_promote_probability),
        min_stay_days: wire.min_stay_days.unwrap_or(default.min_stay_days),
        min_outputs: wire.min_outputs.unwrap_or(default.min_outputs),
        cut_up: wire.cut_up.unwrap_or(default.cut_up),
        promote_periods: wire.promote_periods.unwrap_or(default.promote_periods),
        single_period_weight: wire.single_period_weight.unwrap_or(default.single_period_weight),
        cut_keep: wire.cut_keep.unwrap_or(default.cut_keep),
        min_demote_probability: wire.min_demote_probability.unwrap_or(default.min_demote_probability),
        demote_periods: wire.demote_periods.unwrap_or(default.demote_periods),
        period_days: wire.period_days.unwrap_or(default.period_days),
        dormant_periods: wire.dormant_periods.unwrap_or(default.dormant_periods),
        capacities: wire.capacities.into_iter().map(|c| Capacity { tier_id: c.tier_id, max_members: c.max_members }).collect(),
    }
}

pub fn policy(policy: Policy) -> pb::TierPolicy {
    let Policy { version, rules } = policy;
    let capacity = |c: Capacity| pb::TierCapacity { tier_id: c.tier_id, max_members: c.max_members };
    pb::TierPolicy {
        version,
        min_promote_probability: Some(rules.min_promote_probability),
        min_stay_days: Some(rules.min_stay_days),
        min_outputs: Some(rules.min_outputs),
        cut_up: Some(rules.cut_up),
        promote_periods: Some(rules.promote_periods),
        single_period_weight: Some(rules.single_period_weight),
        cut_keep: Some(rules.cut_keep),
        min_demote_probability: Some(rules.min_demote_probability),
        demote_periods: Some(rules.demote_periods),
        period_days: Some(rules.period_days),
        dormant_periods: Some(rules.dormant_periods),
        capacities: rules.capacities.into_iter().map(capacity).collect(),
    }
}

/// A reading by these rules.
pub fn reading(reading: &Reading, rules: &Rules) -> pb::TierReading {
    pb::TierReading {
        as_of: Some(clock::to_proto(reading.as_of)),
        level: reading.level.map(|level| pb::TierLevel { mean: level.mean, sd: level.sd }),
        promote_probability: reading.promote_probability(rules),
        demote_probability: reading.demote_probability(rules),
        evidence_weight: reading.weight,
        output_count: reading.output_count,
        decision_id: reading.decision.to_string(),
    }
}

/// A move by these rules; without its time and actor when it did not happen.
pub fn tier_move(m: Move, rules: &Rules, happened: bool) -> pb::TierMove {
    pb::TierMove {
        member_id: m.member.to_string(),
        from_tier_id: m.from_tier_id,
        to_tier_id: m.to_tier_id,
        reason: m.reason,
        policy_version: m.policy_version,
        move_time: happened.then(|| clock::to_proto(m.time)),
        outcome: m.outcome.to_wire(),
        readings: m.readings.iter().map(|read| reading(read, rules)).collect(),
        actor: if happened { m.actor } else { String::new() },
    }
}

/// A move that rests on no reading.
pub fn by_hand(m: Move) -> pb::TierMove {
    tier_move(m, &Rules::default(), true)
}

pub fn condition(condition: Condition) -> pb::TierCondition {
    pb::TierCondition {
        name: condition.name.to_owned(),
        met: condition.met,
        text: condition.text,
        actual: condition.figures.map(|(actual, _)| actual),
        needed: condition.figures.map(|(_, needed)| needed),
    }
}

pub fn review(review: Review) -> pb::TierReview {
    pb::TierReview {
        since: Some(clock::to_proto(review.since)),
        as_of: Some(clock::to_proto(review.as_of)),
        dormant: review.dormant,
    }
}

pub fn forecast(at: &AtRisk, candidate: &Candidate, tiers: &[Tier], policy: &Policy) -> pb::TierForecast {
    let rules = &policy.rules;
    let lower = neighbours(tiers, &candidate.tier_id).1;
    let newest = candidate.periods(rules).first().map(|newest| newest.demote_probability(rules)).unwrap_or_default();
    let low = format!("probability {newest:.3} of a level below {}; ", rules.cut_keep);
    let reason = match at.risk {
        Risk::Review => format!("{low}one such period brings a review"),
        Risk::Low => format!("{low}under review, and more than one further such period brings a fall"),
        Risk::Fall => format!("{low}under review, and the next such period brings a fall"),
        Risk::Dormant => format!("no output in {} periods of {} days brings a review", rules.dormant_periods, rules.period_days),
    };
    pb::TierForecast {
        member_id: at.member.to_string(),
        tier_id: candidate.tier_id.clone(),
        lower_tier_id: lower.map(|lower| lower.id.clone()).unwrap_or_default(),
        risk: at.risk.to_wire(),
        risk_time: Some(clock::to_proto(at.time)),
        review: candidate.standing.review.map(review),
        reason,
    }
}

/// A place in the forecast as it stands in a page token.
pub fn key((time, member): (DateTime<Utc>, Uuid)) -> String {
    format!("{}.{member}", time.timestamp_micros())
}

pub fn place(list: &str, bound: &[&str], token: &str) -> Result<Option<(DateTime<Utc>, Uuid)>, Violation> {
    let Some(key) = page::key(list, bound, token)? else { return Ok(None) };
    let place = key.split_once('.').and_then(|(time, member)| Some((page::time(time)?, Uuid::try_parse(member).ok()?)));
    place.map(Some).ok_or_else(page::invalid_token)
}
