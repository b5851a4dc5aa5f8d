//! Readings of one batch, taken in one transaction: recorded once, placed in time, shown to the spike detector.

use crate::{
    domain::{
        ids::{OutputId, SignalId},
        reading::{self, Alarm, Observation, Placement, Series, Total},
        spike::{SpikeState, Trigger},
    },
    error::Error,
    flow::open_draw,
    store::{
        observation::{self, ReadOutput},
        signal::{self, Draw, Signal},
    },
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::{Violation, is_race},
    ids::ProgrammeId,
    outbox::{self, NewFact},
    postgres::Db,
};
use koc_proto::koc::measurement::v1 as pb;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// How often a batch that lost a race is tried.
const MAX_ATTEMPTS: u32 = 5;

/// What became of a reading.
#[derive(Debug)]
pub enum Outcome {
    Recorded,
    Duplicate,
    Late,
    Adjusted,
    Rejected(Error),
}

impl From<Placement> for Outcome {
    fn from(placement: Placement) -> Self {
        match placement {
            Placement::Latest => Self::Recorded,
            Placement::Late => Self::Late,
            Placement::Adjusted => Self::Adjusted,
        }
    }
}

/// Takes readings; the outcomes are in their order.
///
/// # Errors
/// What failed for all of them; nothing is recorded then.
pub async fn record(db: &Db, programme: ProgrammeId, observations: &[Observation]) -> Result<Vec<Outcome>, Error> {
    let mut attempt = 1;
    loop {
        let mut tx = db.begin().await?;
        match take(&mut tx, programme, observations).await {
            Ok(outcomes) => {
                tx.commit().await?;
                db.wake();
                return Ok(outcomes);
            }
            Err(Error::Database(error)) if is_race(&error) && attempt < MAX_ATTEMPTS => {
                tx.rollback().await?;
                attempt += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

type Key = (Series, DateTime<Utc>);

async fn take(conn: &mut PgConnection, programme: ProgrammeId, all: &[Observation]) -> Result<Vec<Outcome>, Error> {
    let ids: Vec<Uuid> = all.iter().map(|o| o.series.output.0).collect::<BTreeSet<_>>().into_iter().collect();
    let outputs = observation::lock_outputs(conn, programme, &ids).await?;
    let latest = clock::now(conn).await? + clock::MAX_AHEAD;

    // The first reading of each key in the batch stands for it.
    let mut first: HashMap<Key, &Observation> = HashMap::new();
    for one in all.iter().filter(|o| outputs.contains_key(&o.series.output) && o.at <= latest) {
        first.entry((one.series, one.at)).or_insert(one);
    }
    let mut candidates: Vec<Observation> = first.values().map(|o| **o).collect();
    candidates.sort_by_key(|o| (o.series, o.at));
    let new = observation::insert(conn, &candidates).await?;
    let (fresh, known): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|o| new.contains(&(o.series, o.at)));
    let known = observation::values(conn, &known).await?;

    let placements = place(conn, &fresh).await?;
    watch(conn, programme, &outputs, &fresh, &placements).await?;

    let mut told = std::collections::HashSet::new();
    let outcome = |one: &Observation| {
        let key = (one.series, one.at);
        if !outputs.contains_key(&one.series.output) {
            return Outcome::Rejected(Error::OutputNotFound(one.series.output));
        }
        if one.at > latest {
            let rule = "must be at most 10 minutes ahead of the server's clock";
            return Outcome::Rejected(Violation::new("observe_time", "OBSERVED_AHEAD", rule).into());
        }
        let recorded = known.get(&key).copied().or_else(|| first.get(&key).map(|o| o.value)).unwrap_or(one.value);
        if recorded != one.value {
            return Outcome::Rejected(Error::ObservationConflict { recorded });
        }
        match placements.get(&key) {
            Some(placement) if told.insert(key) => (*placement).into(),
            _ => Outcome::Duplicate,
        }
    };
    Ok(all.iter().map(outcome).collect())
}

/// Places new readings, by counter and time, in their counters and writes the totals.
async fn place(conn: &mut PgConnection, fresh: &[Observation]) -> Result<HashMap<Key, Placement>, Error> {
    let ids: Vec<Uuid> = fresh.iter().map(|o| o.series.output.0).collect::<BTreeSet<_>>().into_iter().collect();
    let stored = observation::totals(conn, &ids).await?;
    let mut totals: BTreeMap<Series, Option<Total>> = BTreeMap::new();
    let mut placements = HashMap::with_capacity(fresh.len());
    let mut late = BTreeSet::new();
    for one in fresh {
        let total = totals.entry(one.series).or_insert_with(|| stored.get(&one.series).copied());
        let placement = Total::take(total, one);
        if placement == Placement::Late {
            late.insert(one.series);
        }
        placements.insert((one.series, one.at), placement);
    }
    let totals: Vec<(Series, Total)> = totals.into_iter().filter_map(|(series, total)| Some((series, total?))).collect();
    observation::put_totals(conn, &totals).await?;
    if !late.is_empty() {
        observation::mark_adjusted(conn, &late.into_iter().collect::<Vec<_>>()).await?;
    }
    Ok(placements)
}

/// Shows the detector what it watches, and writes what it found.
async fn watch(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    outputs: &HashMap<OutputId, ReadOutput>,
    fresh: &[Observation],
    placements: &HashMap<Key, Placement>,
) -> Result<(), Error> {
    let is_late = |o: &Observation| placements.get(&(o.series, o.at)) == Some(&Placement::Late);
    let watched: Vec<Observation> = fresh.iter().filter(|o| reading::is_watched(&o.series) && !is_late(o)).copied().collect();
    if watched.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = watched.iter().map(|o| o.series.output.0).collect::<BTreeSet<_>>().into_iter().collect();
    let mut states = observation::spike_states(conn, &ids).await?;
    for id in ids {
        if let Some(output) = outputs.get(&OutputId(id)) {
            states.entry(OutputId(id)).or_insert_with(|| SpikeState::new(output.published_at));
        }
    }
    let alarms = reading::watch(&mut states, &watched)?;
    observation::put_spike_states(conn, &states).await?;
    for alarm in alarms {
        if let Some(output) = outputs.get(&alarm.output) {
            raise(conn, programme, output, &alarm).await?;
        }
    }
    Ok(())
}

async fn raise(conn: &mut PgConnection, programme: ProgrammeId, output: &ReadOutput, alarm: &Alarm) -> Result<(), Error> {
    let money = alarm.trigger == Trigger::Money;
    let window = &alarm.tick.window;
    let signal = Signal {
        id: SignalId::new(),
        programme,
        member: output.member,
        output: alarm.output,
        metric: crate::domain::output::Metric::Views.number(),
        money,
        score: alarm.tick.score,
        ratio: alarm.tick.ratio,
        window_count: window.count,
        expected_count: window.expected,
        window_hours: window.span_bins * f64::from(reading::spike_config().bin_seconds) / 3_600.0,
        observed_at: alarm.at,
        draw: if money { Draw::Pending } else { Draw::None },
        draw_reason: if money { "Being looked at." } else { "Worth a look; not strong enough to ask for money." }.to_owned(),
        currency: output.currency.clone(),
    };
    signal::insert(conn, &signal).await?;
    outbox::append(conn, &[changed(&signal)]).await?;
    if money {
        open_draw::start(conn, &signal).await?;
    }
    Ok(())
}

/// The fact that a signal was found or its draw moved on.
pub fn changed(signal: &Signal) -> NewFact {
    let level = if signal.money { pb::SignalLevel::Money } else { pb::SignalLevel::Notify };
    let fact = pb::SignalChanged {
        signal_id: signal.id.to_string(),
        output_id: signal.output.to_string(),
        level: level.into(),
        draw_state: draw_state(&signal.draw).into(),
    };
    NewFact::new(signal.programme, signal.output.0, &fact)
}

/// How far a draw is, in the contract's words.
pub fn draw_state(draw: &Draw) -> pb::DrawState {
    match draw {
        Draw::None => pb::DrawState::None,
        Draw::Pending => pb::DrawState::Pending,
        Draw::Requested { .. } => pb::DrawState::Requested,
        Draw::Refused { .. } => pb::DrawState::Refused,
    }
}
