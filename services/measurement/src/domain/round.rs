//! A round of decisions: every member of a period, from measured outputs to judgements.

use std::collections::{BTreeMap, BTreeSet};

use koc_chassis::ids::MemberId;

use super::appraisal::{self, Appraised, Field, Pool, PoolLevel};
use super::cohort::rate::RateCount;
use super::decision::{MemberOutput, PreviousDecision};
use super::error::InputError;
use super::judgement::{Inputs, Judgement, judge, pool_id};
use super::money::sum_minor;
use super::output::Measured;
use super::period::{Period, periods_ago};
use super::policy::ProgrammePolicy;
use super::tier_proposal::TierPolicy;
use super::types::TypePolicy;
use super::value::{ValueModel, ValueType};

/// What the decision before says to this one.
#[derive(Debug, Clone, PartialEq)]
pub struct Before {
    pub decision: PreviousDecision,
    pub tier_streak: u32,
    pub held_types: Vec<ValueType>,
}

impl From<&Judgement> for Before {
    fn from(judgement: &Judgement) -> Self {
        let decision = &judgement.decision;
        let held = judgement.profile.scores.iter().filter(|score| score.held).map(|score| score.value_type);
        Self {
            decision: PreviousDecision { action: decision.action, review_recorded: false, stretch_met: decision.stretch_met },
            tier_streak: judgement.tier.streak,
            held_types: held.collect(),
        }
    }
}

/// What a round is made from.
#[derive(Debug, Clone)]
pub struct Round {
    pub period: Period,
    /// First instants of the trailing periods, the present one's first.
    pub starts: Vec<chrono::DateTime<chrono::Utc>>,
    /// Outputs of the trailing periods and of the cohort's window, read at the end of the period.
    pub measured: Vec<Measured>,
    /// Those decided on in the period before.
    pub before: BTreeMap<MemberId, Before>,
    pub model: ValueModel,
    pub policy: ProgrammePolicy,
}

/// One member's part of a round.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub member: MemberId,
    pub inputs: Inputs,
    pub judgement: Judgement,
}

/// What a round gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdicts {
    /// By member.
    pub judged: Vec<Judged>,
    /// The pools that were compared with, by [`pool_id`].
    pub pools: BTreeMap<String, Pool>,
}

impl Round {
    /// Judges each member with outputs published in the period, and each decided on in the period before.
    ///
    /// # Errors
    /// Those of [`judge`] and of valuing the outputs.
    pub fn judge(&self) -> Result<Verdicts, InputError> {
        let field = Field::new(&self.measured, &self.model, self.period.end)?;
        let appraised = field.appraise_all()?;
        let mut by_member: BTreeMap<MemberId, Vec<(&Appraised<'_>, u32)>> = BTreeMap::new();
        for one in &appraised {
            if let Some(ago) = periods_ago(&self.starts, one.measured.output.published_at) {
                by_member.entry(one.measured.output.member).or_default().push((one, ago));
            }
        }
        let active = by_member.iter().filter(|(_, outputs)| outputs.iter().any(|(_, ago)| *ago == 0)).map(|(member, _)| *member);
        let members: BTreeSet<MemberId> = active.chain(self.before.keys().copied()).collect();

        let mut pools: BTreeMap<(String, Option<ValueType>), (String, Pool)> = BTreeMap::new();
        let mut judged = Vec::with_capacity(members.len());
        for member in members {
            let outputs = by_member.get(&member).map_or(&[][..], Vec::as_slice);
            let newest =
                outputs.iter().map(|(one, _)| &one.measured.output).max_by_key(|output| (output.published_at, output.id));
            let key = newest.map_or((String::new(), None), |output| (output.tier.clone(), Some(output.value_type())));
            let (id, pool) = pools.entry(key).or_insert_with(|| {
                let pool = newest.map_or(Pool { level: PoolLevel::Programme, results: Vec::new() }, |like| {
                    appraisal::pool(&appraised, like, self.period.end)
                });
                (pool_id(&pool.results), pool)
            });
            let inputs = self.inputs(member, outputs, &appraised, id, pool.level)?;
            let judgement = judge(&inputs, &pool.results)?;
            judged.push(Judged { member, inputs, judgement });
        }
        Ok(Verdicts { judged, pools: pools.into_values().collect() })
    }

    fn inputs(
        &self,
        member: MemberId,
        outputs: &[(&Appraised<'_>, u32)],
        appraised: &[Appraised<'_>],
        pool_id: &str,
        pool_level: PoolLevel,
    ) -> Result<Inputs, InputError> {
        let end = self.period.end;
        let mut window: Vec<MemberOutput> = outputs
            .iter()
            .map(|(one, ago)| MemberOutput {
                output_id: one.measured.output.id.to_string(),
                value_minor: one.value.cash_minor,
                cost_minor: one.measured.output.cost_minor(),
                periods_ago: *ago,
                grade: one.weakest_grade(),
            })
            .collect();
        window.sort_by(|a, b| (a.periods_ago, &a.output_id).cmp(&(b.periods_ago, &b.output_id)));
        let present = outputs.iter().filter(|(_, ago)| *ago == 0).map(|(one, _)| one.measured.output.reward_minor);
        let half_lives = outputs.iter().map(|(one, _)| {
            let output = &one.measured.output;
            output.age_hours(end) / output.half_life_hours()
        });
        let active: BTreeSet<u32> = outputs.iter().map(|(_, ago)| *ago).collect();
        let before = self.before.get(&member);
        let own: Vec<&Appraised<'_>> = outputs.iter().map(|(one, _)| *one).collect();
        Ok(Inputs {
            member_id: member.0,
            period: self.period,
            policy: self.policy.thresholds.clone(),
            type_policy: TypePolicy::default(),
            tier_policy: TierPolicy::default(),
            value_model_version: i32::try_from(self.model.version).unwrap_or(i32::MAX),
            value_model_id: self.model.id(),
            outputs: window,
            reward_minor: sum_minor("reward", present)?,
            pool_level,
            pool_id: pool_id.to_owned(),
            window_half_lives: half_lives.reduce(f64::min).unwrap_or(0.0),
            previous: before.map(|before| before.decision),
            previous_tier_streak: before.map_or(0, |before| before.tier_streak),
            held_types: before.map_or_else(Vec::new, |before| before.held_types.clone()),
            type_evidence: appraisal::type_evidence(appraised, &own, end)?,
            active_periods: RateCount {
                successes: active.len() as u64,
                trials: active.last().map_or(0, |oldest| u64::from(*oldest) + 1),
            },
        })
    }
}

#[cfg(test)]
mod tests;
