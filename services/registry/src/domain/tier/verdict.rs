//! What becomes of a member.

use super::{Candidate, Outcome, Reading, Review, Rules, Standing, Tier, neighbours};
use crate::domain::{
    consent::{Purpose, withdrawn},
    name::named,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const PROBABILITY: &str = "probability";
const PERIODS: &str = "periods";

/// How many more members each tier takes; tiers that are not named take any number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rooms(BTreeMap<String, i64>);

impl Rooms {
    /// Of tiers with a capacity, by how many members are in them.
    pub fn new(rules: &Rules, members: &BTreeMap<String, i64>) -> Self {
        let left = |tier: &str, max: i64| max - members.get(tier).copied().unwrap_or(0);
        Self(rules.capacities.iter().map(|c| (c.tier_id.clone(), left(&c.tier_id, c.max_members))).collect())
    }

    /// Tiers with a capacity, each with how many of its members matter: who is beyond the capacity and what may leave before it is looked at again.
    pub fn limits(rules: &Rules, leaving: i64) -> Vec<(&str, i64)> {
        rules.capacities.iter().map(|c| (c.tier_id.as_str(), c.max_members.saturating_add(leaving))).collect()
    }

    fn full(&self, tier: &str) -> bool {
        self.0.get(tier).is_some_and(|left| *left <= 0)
    }

    /// After a move.
    pub fn moved(&mut self, from: &str, to: &str) {
        if let Some(left) = self.0.get_mut(from) {
            *left += 1;
        }
        if let Some(left) = self.0.get_mut(to) {
            *left -= 1;
        }
    }
}

/// What is to become of a candidate, with figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Its own when it stays.
    pub to_tier_id: String,
    pub reason: String,
    /// What is to be kept of it.
    pub standing: Standing,
}

/// One condition of a rise.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    pub name: &'static str,
    pub met: bool,
    pub text: String,
    /// What is there and what is needed, where they are numbers.
    pub figures: Option<(f64, f64)>,
}

/// Judges a candidate by `rules`. `tiers` are the programme's, lowest first; a member moves one tier at a time, and falls only after a review
/// in a period before. The same candidate is judged the same at any time, but for days that count, room and holds that end. Judged again, what this
/// gives stays as it is; only who was cleared may rise then.
pub fn judge(candidate: &Candidate, tiers: &[Tier], rules: &Rules, rooms: &Rooms, now: DateTime<Utc>) -> Verdict {
    let stays = |reason: String| decided(candidate, Outcome::Stayed, reason, candidate.standing);
    if let Some(hold) = candidate.standing.hold.filter(|hold| hold.stands(now)) {
        let until = hold.end.map_or_else(|| "somebody ends it".to_owned(), |end| end.format("%Y-%m-%d").to_string());
        return stays(format!("held in {} by hand until {until}", candidate.tier_id));
    }
    if withdrawn(&candidate.consents, Purpose::Profiling) {
        return stays("the consent to profiling is withdrawn".to_owned());
    }
    let (next, lower) = neighbours(tiers, &candidate.tier_id);
    let periods = candidate.periods(rules);
    let stay_days = (now - candidate.tier_since).num_days();
    if let Some(lower) = lower.filter(|_| stay_days >= i64::from(rules.min_stay_days))
        && let Some(verdict) = review(candidate, &periods, lower, rules, now)
    {
        return verdict;
    }
    let Some(newest) = periods.first() else {
        return stays("nothing was measured since the last move".to_owned());
    };
    let Some(next) = next else { return stays(format!("{} is the highest tier", candidate.tier_id)) };
    let conditions = conditions(candidate, &periods, next, rules, rooms, now);
    let texts = |of: &dyn Fn(&&Condition) -> bool| conditions.iter().filter(of).map(|c| c.text.clone()).collect::<Vec<_>>();
    // A probability that is not reached says all about the periods.
    let high = conditions.iter().all(|c| c.name != PROBABILITY || c.met);
    let held = texts(&|c| !c.met && (high || c.name != PERIODS));
    if !held.is_empty() {
        return stays(held.join("; "));
    }
    let standing = Standing { counted_to: Some(newest.as_of), review: None, hold: None };
    let reason = format!("{}; decision {}", texts(&|c| c.met).join("; "), newest.decision);
    Verdict { to_tier_id: next.id.clone(), ..decided(candidate, Outcome::Rose, reason, standing) }
}

fn decided(candidate: &Candidate, outcome: Outcome, reason: String, standing: Standing) -> Verdict {
    Verdict { outcome, to_tier_id: candidate.tier_id.clone(), reason, standing }
}

/// What the lower cut makes of a member above the lowest tier; None when it leaves the member as it is.
fn review(candidate: &Candidate, periods: &[&Reading], lower: &Tier, rules: &Rules, now: DateTime<Utc>) -> Option<Verdict> {
    let standing = candidate.standing;
    let newest = periods.first();
    let low = newest.filter(|reading| reading.is_low(rules));
    let level = |reading: &Reading| {
        let (probability, needed) = (reading.demote_probability(rules), rules.min_demote_probability);
        format!("probability {} of a level below {} reaches {}", figure(probability), rules.cut_keep, figure(needed))
    };
    match (standing.review, low) {
        (Some(Review { as_of, dormant: false, .. }), Some(reading)) => {
            // Periods before the review's own do not count, and neither does its own.
            let after = as_of + rules.half_period();
            let since = periods.iter().take_while(|reading| reading.as_of >= after && reading.is_low(rules)).count();
            let (since, needed) = (i32::try_from(since).unwrap_or(i32::MAX), rules.demote_periods);
            if since < needed || since == 0 {
                return None;
            }
            let reason = format!(
                "{} in {since} periods in a row of {needed} needed, after the review of {}; decision {}",
                level(reading),
                as_of.format("%Y-%m-%d"),
                reading.decision,
            );
            let standing = Standing { counted_to: Some(reading.as_of), review: None, hold: None };
            Some(Verdict { to_tier_id: lower.id.clone(), ..decided(candidate, Outcome::Fell, reason, standing) })
        }
        (_, Some(reading)) => {
            let review = Review { since: now, as_of: reading.as_of, dormant: false };
            let reason = format!(
                "{}: {} is at risk when {} more such periods follow; decision {}",
                level(reading),
                candidate.tier_id,
                rules.demote_periods,
                reading.decision
            );
            let standing = Standing { review: Some(review), ..standing };
            Some(decided(candidate, Outcome::Reviewed, reason, standing))
        }
        (Some(review), None) if newest.is_some_and(|reading| ends(&review, reading)) => {
            let reason = match newest {
                Some(reading) if !review.dormant => format!(
                    "probability {} of a level below {} is under {}; decision {}",
                    figure(reading.demote_probability(rules)),
                    rules.cut_keep,
                    figure(rules.min_demote_probability),
                    reading.decision
                ),
                _ => "outputs were measured again".to_owned(),
            };
            Some(decided(candidate, Outcome::Cleared, reason, Standing { review: None, ..standing }))
        }
        (None, None) => {
            let from = candidate.dormant_from(rules).filter(|from| *from <= now)?;
            let review = Review { since: now, as_of: now, dormant: true };
            let reason = format!("no output in {} periods of {} days", rules.dormant_periods, rules.period_days);
            let reason = format!("{reason}, and half a period for measurement: since {}", from.format("%Y-%m-%d"));
            Some(decided(candidate, Outcome::Dormant, reason, Standing { review: Some(review), ..standing }))
        }
        (Some(_), None) => None,
    }
}

/// Whether a reading that is not low ends a review: it is newer, rests on an output, and tells of the level if that was low.
fn ends(review: &Review, reading: &Reading) -> bool {
    reading.as_of > review.as_of && reading.output_count > 0 && (review.dormant || reading.level.is_some())
}

/// Every condition of a rise to `next`, met or not.
pub fn conditions(
    candidate: &Candidate,
    periods: &[&Reading],
    next: &Tier,
    rules: &Rules,
    rooms: &Rooms,
    now: DateTime<Utc>,
) -> Vec<Condition> {
    let condition = |name, met, text, figures| Condition { name, met, text, figures };
    let newest = periods.first();
    let probability = newest.map_or(0.0, |reading| reading.promote_probability(rules));
    let (high, needed) = (newest.is_some_and(|reading| reading.is_high(rules)), rules.min_promote_probability);
    let verb = if high { "reaches" } else { "is below" };
    let text = format!("probability {} {verb} {}", figure(probability), figure(needed));
    let mut all = vec![condition(PROBABILITY, high, text, Some((probability, needed)))];

    let (outputs, needed) = (newest.map_or(0, |reading| reading.output_count), rules.min_outputs);
    let met = outputs >= needed;
    let text =
        if met { format!("{outputs} outputs of {needed} needed") } else { format!("{outputs} outputs are fewer than {needed}") };
    all.push(condition("outputs", met, text, Some((f64::from(outputs), f64::from(needed)))));

    let (days, needed) = ((now - candidate.tier_since).num_days(), rules.min_stay_days);
    let met = days >= i64::from(needed);
    let tier = &candidate.tier_id;
    let text = match met {
        true => format!("{days} days in {tier} of {needed} needed"),
        false => format!("{days} days in {tier} are fewer than {needed}"),
    };
    all.push(condition("stay", met, text, Some((days as f64, f64::from(needed)))));

    let weight = newest.map_or(0.0, |reading| reading.weight);
    let one_is_enough = weight >= rules.single_period_weight;
    let needed = if one_is_enough { 1 } else { rules.promote_periods };
    let streak = periods.iter().take_while(|reading| reading.is_high(rules)).count();
    let streak = i32::try_from(streak).unwrap_or(i32::MAX);
    let met = streak >= needed;
    let text = format!("{streak} periods in a row of {needed} needed (evidence weighs {weight:.1})");
    all.push(condition(PERIODS, met, text, Some((f64::from(streak), f64::from(needed)))));

    if rules.capacities.iter().any(|capacity| capacity.tier_id == next.id) {
        let full = rooms.full(&next.id);
        let text = format!("{} {}", next.id, if full { "is full" } else { "has room" });
        all.push(condition("room", !full, text, None));
    }
    all
}

named! {
    /// What threatens a member's tier.
    Risk {
        Review = "REVIEW",
        Low = "LOW",
        Fall = "FALL",
        Dormant = "DORMANT",
    }
}

/// What threatens a member's tier if nothing changes, and when at the earliest: if its next period is measured as the last one, or no
/// further output comes. None in the lowest tier, when nothing does, and while a person holds the member without an end.
pub fn risk(candidate: &Candidate, tiers: &[Tier], rules: &Rules) -> Option<(Risk, DateTime<Utc>)> {
    let (risk, time) = unheld_risk(candidate, tiers, rules)?;
    match candidate.standing.hold {
        None => Some((risk, time)),
        Some(hold) => hold.end.map(|end| (risk, time.max(end))),
    }
}

fn unheld_risk(candidate: &Candidate, tiers: &[Tier], rules: &Rules) -> Option<(Risk, DateTime<Utc>)> {
    neighbours(tiers, &candidate.tier_id).1?;
    let periods = candidate.periods(rules);
    let Some(newest) = periods.first().filter(|reading| reading.is_low(rules)) else {
        return match candidate.standing.review {
            Some(_) => None,
            None => candidate.dormant_from(rules).map(|from| (Risk::Dormant, from)),
        };
    };
    // Who must not move yet is not at risk yet.
    let least = TimeDelta::days(i64::from(rules.min_stay_days));
    let stay_end = if least.is_zero() { DateTime::UNIX_EPOCH } else { candidate.tier_since + least };
    let of_level = candidate.standing.review.filter(|review| !review.dormant);
    let Some(review) = of_level else { return Some((Risk::Review, newest.as_of.max(stay_end))) };
    let after = review.as_of + rules.half_period();
    let since = periods.iter().take_while(|reading| reading.as_of >= after && reading.is_low(rules)).count();
    let since = i32::try_from(since).unwrap_or(i32::MAX);
    // What is enough already falls when it is judged next.
    let missing = (rules.demote_periods - since).max(0);
    let time = newest.as_of + TimeDelta::days(i64::from(rules.period_days) * i64::from(missing));
    Some((if missing <= 1 { Risk::Fall } else { Risk::Low }, time.max(stay_end)))
}

/// A probability to three places, cut and not rounded: what is below a bound must not read as the bound.
fn figure(probability: f64) -> String {
    format!("{:.3}", (probability * 1_000.0 + 1e-9).floor() / 1_000.0)
}
