//! The policy against members whose true level is known: who rises should be above the cut, and hardly anybody should fall by chance.

use super::{
    standing::{Level, MAX_READINGS},
    *,
};
use chrono::{DateTime, Duration, Utc};
use koc_chassis::ids::MemberId;
use uuid::Uuid;

const MEMBERS: usize = 4_000;
/// Four years.
const PERIODS: i64 = 16;
const PERIOD_DAYS: i64 = 91;
/// Standard deviation of true levels when that of one output's score around its member's level is 1.
const BETWEEN_SD: f64 = 0.7;
/// After so many days an output's score counts half.
const HALF_LIFE_DAYS: f64 = 180.0;

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere and for ever.
struct Chance(u64);

impl Chance {
    /// In (0, 1).
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 + 1e-17
    }

    /// Box and Muller 1958.
    fn normal(&mut self) -> f64 {
        let (radius, angle) = ((-2.0 * self.uniform().ln()).sqrt(), std::f64::consts::TAU * self.uniform());
        radius * angle.cos()
    }
}

fn at(period: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + Duration::days(20_000 + period * PERIOD_DAYS)
}

/// What the policy made of the members.
#[derive(Debug, Default)]
struct Made {
    rose: usize,
    rose_rightly: usize,
    above: usize,
    fell: usize,
    fell_wrongly: usize,
    periods_above_base: usize,
}

/// Members that do not change, with so many outputs in each period.
fn run(outputs_per_period: usize, begin: &str, rules: &Rules) -> Made {
    let tiers = default_tiers();
    let mut chance = Chance(42);
    let mut made = Made::default();
    for _ in 0..MEMBERS {
        // In standard deviations, as the cuts are.
        let truth = chance.normal();
        let mut scores: Vec<(i64, f64)> = Vec::new();
        let mut member = Candidate {
            member: MemberId(Uuid::nil()),
            tier_id: begin.to_owned(),
            tier_since: at(0),
            consents: Vec::new(),
            standing: Standing::default(),
            readings: Vec::new(),
        };
        let mut has_risen = false;
        made.above += usize::from(truth > rules.cut_up);
        for period in 1..=PERIODS {
            scores.extend((0..outputs_per_period).map(|_| (period, BETWEEN_SD * truth + chance.normal())));
            let weigh = |(of, _): &(i64, f64)| 0.5_f64.powf((((period - of) * PERIOD_DAYS) as f64 + 45.5) / HALF_LIFE_DAYS);
            let weight: f64 = scores.iter().map(weigh).sum();
            let sum: f64 = scores.iter().map(|score| weigh(score) * score.1).sum();
            // Normal and normal: the posterior of a level with a prior around 0.
            let prior = BETWEEN_SD * BETWEEN_SD;
            let (mean, sd) = (prior * sum / (prior * weight + 1.0), (prior / (prior * weight + 1.0)).sqrt());
            member.readings.insert(
                0,
                Reading {
                    as_of: at(period),
                    level: Some(Level { mean: mean / BETWEEN_SD, sd: sd / BETWEEN_SD }),
                    told_probability: 0.0,
                    weight,
                    output_count: i32::try_from(scores.len()).expect("few"),
                    decision: Uuid::nil(),
                },
            );
            member.readings.truncate(MAX_READINGS);
            let verdict = judge(&member, &tiers, rules, &Rooms::default(), at(period));
            made.periods_above_base += usize::from(member.tier_id != "BASE");
            match verdict.outcome {
                Outcome::Rose if !has_risen => {
                    has_risen = true;
                    made.rose += 1;
                    made.rose_rightly += usize::from(truth > rules.cut_up);
                }
                Outcome::Fell => {
                    made.fell += 1;
                    made.fell_wrongly += usize::from(truth >= rules.cut_keep);
                }
                _ => {}
            }
            if verdict.to_tier_id != member.tier_id {
                member.tier_since = at(period);
            }
            (member.tier_id, member.standing) = (verdict.to_tier_id, verdict.standing);
        }
    }
    made
}

#[test]
fn most_who_rise_are_truly_above_the_cut_and_the_more_is_measured_the_more_of_those_rise() {
    let mut before = 0.0;
    for (outputs, least_recall) in [(2, 0.40), (4, 0.55), (8, 0.70)] {
        let made = run(outputs, "BASE", &Rules::default());
        let (precision, recall) = (made.rose_rightly as f64 / made.rose as f64, made.rose_rightly as f64 / made.above as f64);
        eprintln!("{outputs} outputs a period: precision {precision:.3}, recall {recall:.3}, {made:?}");
        assert!(precision > 0.85, "{outputs} outputs a period: {precision} {made:?}");
        assert!(recall > least_recall && recall > before, "{outputs} outputs a period: {recall} {made:?}");
        before = recall;
    }
}

#[test]
fn hardly_anybody_who_rose_falls_again_and_a_quicker_rule_would_cost_more() {
    for outputs in [2, 4, 8] {
        let made = run(outputs, "BASE", &Rules::default());
        eprintln!("{outputs} outputs a period: {made:?}");
        // By chance: of a thousand periods above the lowest tier hardly one ends in a fall of who belongs there.
        assert!(made.fell_wrongly * 1_000 <= made.periods_above_base, "{outputs} outputs a period: {made:?}");
    }
    // All begin in CORE: who is below falls, hardly anybody else does.
    let patient = run(4, "CORE", &Rules::default());
    let hasty = run(4, "CORE", &Rules { demote_periods: 1, min_demote_probability: 0.55, ..Rules::default() });
    eprintln!("patient {patient:?}, hasty {hasty:?}");
    assert!(patient.fell > MEMBERS / 20 && patient.fell_wrongly * 10 <= patient.fell, "{patient:?}");
    assert!(hasty.fell_wrongly > 2 * patient.fell_wrongly, "{hasty:?} {patient:?}");
}
