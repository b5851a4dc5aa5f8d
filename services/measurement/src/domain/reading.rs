//! What becomes of readings: each is recorded once, late ones count for totals only, and the spike detector sees the rest in the
//! order of time.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::error::InputError;
use super::ids::OutputId;
use super::output::Metric;
use super::spike::{Reading, SpikeConfig, SpikeState, Tick, Trigger};

/// One counter of one output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Series {
    pub output: OutputId,
    pub metric: Metric,
    pub paid: bool,
}

/// One reading of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    pub series: Series,
    pub at: DateTime<Utc>,
    pub value: i64,
}

/// The latest reading of a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    pub value: i64,
    pub at: DateTime<Utc>,
    /// Some reading is lower than one before it.
    pub adjusted: bool,
}

/// What a reading that was new is to its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    Latest,
    /// Older than the latest one.
    Late,
    /// The latest, and lower than the one before.
    Adjusted,
}

impl Total {
    /// Takes in a reading that was not known; `total` is that of its counter, if it was read before.
    pub fn take(total: &mut Option<Self>, observation: &Observation) -> Placement {
        let Observation { at, value, .. } = *observation;
        match total {
            Some(known) if at < known.at => Placement::Late,
            Some(known) => {
                let lower = value < known.value;
                *known = Self { value, at, adjusted: known.adjusted || lower };
                if lower { Placement::Adjusted } else { Placement::Latest }
            }
            None => {
                *total = Some(Self { value, at, adjusted: false });
                Placement::Latest
            }
        }
    }
}

/// The detector's settings for outputs of this service.
///
/// One width of bin, an hour, whatever the polling. Counts are held against what the baseline expects in the time that went
/// by, so a reading a day is a bin stretched to 24 h, and readings every few minutes are gathered to half an hour at least.
/// A width that followed the polling would have to rescale the baseline at each change, just when a burst makes a source poll
/// faster, and would see 24 hourly readings as one. The 24 readings that an alarm needs are a day's when polled hourly, and
/// 24 days' when polled daily: with fewer there is no baseline to speak of.
pub fn spike_config() -> SpikeConfig {
    SpikeConfig::default()
}

/// Which counter the detector watches.
pub fn is_watched(series: &Series) -> bool {
    series.metric == Metric::Views && !series.paid
}

/// A tick that raised something.
#[derive(Debug, Clone, PartialEq)]
pub struct Alarm {
    pub output: OutputId,
    pub at: DateTime<Utc>,
    pub trigger: Trigger,
    pub tick: Tick,
}

/// Shows the detector readings of watched counters that are the latest of theirs, by output and in the order of time; gives what
/// it raised. `states` holds the states of their outputs.
///
/// # Errors
/// Those of [`SpikeState::tick`].
pub fn watch(states: &mut BTreeMap<OutputId, SpikeState>, observations: &[Observation]) -> Result<Vec<Alarm>, InputError> {
    let config = spike_config();
    let mut alarms = Vec::new();
    for observation in observations {
        let Some(state) = states.get_mut(&observation.series.output) else { continue };
        let reading = Reading { at: observation.at, cumulative: u64::try_from(observation.value).unwrap_or(0) };
        let tick = state.tick(reading, None, &config)?;
        if tick.trigger != Trigger::None {
            alarms.push(Alarm { output: observation.series.output, at: observation.at, trigger: tick.trigger, tick });
        }
    }
    Ok(alarms)
}

#[cfg(test)]
mod tests;
