//! A round of decisions on a period, in one transaction under the programme's lock.

use crate::{
    domain::{
        appraisal::COHORT_DAYS,
        decision::Action,
        ids::DecisionId,
        period::{Period, trailing_starts},
        progress::Progress,
        round::{Before, Judged, Round},
    },
    error::Error,
    flow::apply_decision,
    store::{
        self,
        decision::{Answers, DecisionFilter, StoredDecision},
    },
};
use chrono::TimeDelta;
use koc_chassis::{
    fault::Violation,
    gate::Work,
    ids::MemberId,
    members::{self, Purpose},
    outbox::{self, NewFact},
};
use koc_proto::koc::measurement::v1 as pb;
use std::collections::{BTreeMap, BTreeSet};

/// Outputs that one round reads; beyond it the oldest are left out.
const MAX_OUTPUTS: i64 = 200_000;

/// Decides on a period, or answers with the decisions that were made on it. By member.
///
/// # Errors
/// `ProgrammeNotFound`; PERIOD_NOT_OVER and PERIOD_OVERLAPS as violations.
pub async fn run(work: &mut Work, period: Period) -> Result<Vec<StoredDecision>, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let known = store::programme::lock(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound(programme))?;
    let now = work.now().await?;
    if period.end > now {
        return Err(Violation::new("period_end_time", "PERIOD_NOT_OVER", "must be in the past").into());
    }
    let decided = store::decision::periods(work.conn(), programme).await?;
    if decided.iter().any(|other| (other.start, other.end) == (period.start, period.end)) {
        return by_member(work, DecisionFilter { period_start: Some(period.start), ..DecisionFilter::default() }).await;
    }
    if decided.iter().any(|other| other.start < period.end && period.start < other.end) {
        let rule = "must not overlap another period that was decided";
        return Err(Violation::new("period_start_time", "PERIOD_OVERLAPS", rule).into());
    }

    let model = store::programme::active_model(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound(programme))?;
    let policy = store::programme::active_policy(work.conn(), programme).await?.ok_or(Error::ProgrammeNotFound(programme))?;
    let ends: Vec<_> = decided.iter().map(|period| (period.start, period.end)).collect();
    let starts = trailing_starts(&period, &ends, policy.thresholds.window_periods);
    let from = starts.iter().copied().fold(period.end - TimeDelta::days(COHORT_DAYS), Ord::min);
    let outputs = store::output::published(work.conn(), programme, from, period.end, MAX_OUTPUTS).await?;
    let mut measured = store::output::measure(work.conn(), outputs, period.end, model.attribution_days).await?;
    let before = match decided.iter().filter(|other| other.end <= period.start).map(|other| other.start).max() {
        Some(start) => by_member(work, DecisionFilter { period_start: Some(start), ..DecisionFilter::default() }).await?,
        None => Vec::new(),
    };
    let mut before: BTreeMap<MemberId, Before> =
        before.iter().map(|decision| (decision.member, Before::from(&decision.outcome))).collect();
    // Who does not want to be judged is not, and helps to judge nobody; who is suspended is not decided on.
    let mut members: BTreeSet<MemberId> = measured.iter().map(|one| one.output.member).collect();
    members.extend(before.keys());
    let members: Vec<MemberId> = members.into_iter().collect();
    let standings = members::standings(work.conn(), programme, &members).await?;
    let judged = |member: &MemberId| standings.get(member).is_none_or(|standing| !standing.withdrew(Purpose::Profiling));
    let decided_on = |member: &MemberId| standings.get(member).is_none_or(|standing| !standing.suspended);
    measured.retain(|one| judged(&one.output.member));
    before.retain(|member, _| judged(member));
    let automatic = policy.automatic.clone();
    let policy_version = known.decision_policy_version;
    let round = Round { period, starts, measured, before, model, policy };
    // Thousands of draws per member: not on a thread that serves calls.
    let verdicts = tokio::task::spawn_blocking(move || round.judge()).await.map_err(|_| Error::Interrupted)??;

    store::decision::insert_period(work.conn(), programme, &period, &actor, now).await?;
    for (id, pool) in &verdicts.pools {
        store::decision::put_pool(work.conn(), programme, id, &pool.results).await?;
    }
    let mut decisions = Vec::with_capacity(verdicts.judged.len());
    for judged in verdicts.judged.into_iter().filter(|one| decided_on(&one.member)) {
        let Judged { member, inputs, judgement } = judged;
        let progress = Progress::of_new(judgement.decision.action, judgement.decision.needs_approval, &automatic);
        let decision = StoredDecision {
            id: DecisionId::new(),
            programme,
            member,
            input_hash: inputs.id(),
            inputs_text: serde_json::to_string(&inputs).map_err(|e| sqlx::Error::Encode(Box::new(e)))?,
            outcome_text: serde_json::to_string(&judgement).map_err(|e| sqlx::Error::Encode(Box::new(e)))?,
            inputs,
            outcome: judgement,
            policy_version,
            currency: known.currency.clone(),
            decided_by: actor.clone(),
            created_at: now,
            progress,
            answers: Answers::default(),
        };
        store::decision::insert(work.conn(), &decision).await?;
        outbox::append(work.conn(), &[changed(&decision)]).await?;
        if matches!(decision.progress, Progress::Applying { .. }) {
            apply_decision::start(work.conn(), &decision, &actor).await?;
        }
        decisions.push(decision);
    }
    Ok(decisions)
}

async fn by_member(work: &mut Work, filter: DecisionFilter) -> Result<Vec<StoredDecision>, Error> {
    let programme = work.programme();
    let mut decisions = store::decision::list(work.conn(), programme, filter, None, MAX_OUTPUTS).await?;
    // Of two that were merged since, the one's that goes on counts.
    decisions.sort_by_key(|decision| (decision.member, decision.inputs.member_id == decision.member.0));
    Ok(decisions)
}

/// The fact that a decision was made or moved on.
pub fn changed(decision: &StoredDecision) -> NewFact {
    let fact = pb::DecisionChanged {
        decision_id: decision.id.to_string(),
        member_id: decision.member.to_string(),
        action: action(decision.outcome.decision.action).into(),
        state: state(&decision.progress).into(),
    };
    NewFact::new(decision.programme, decision.member.0, &fact)
}

/// An action, in the contract's words.
pub fn action(action: Action) -> pb::DecisionAction {
    match action {
        Action::Increase => pb::DecisionAction::Increase,
        Action::Maintain => pb::DecisionAction::Maintain,
        Action::Review => pb::DecisionAction::Review,
        Action::Reduce => pb::DecisionAction::Reduce,
    }
}

/// Where a decision stands, in the contract's words.
pub fn state(progress: &Progress) -> pb::DecisionState {
    match progress {
        Progress::Proposed => pb::DecisionState::Proposed,
        Progress::Applying { .. } => pb::DecisionState::Applying,
        Progress::Applied { .. } => pb::DecisionState::Applied,
    }
}
