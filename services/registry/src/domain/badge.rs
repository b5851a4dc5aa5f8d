//! Badges (徽章): what they are given for, by their conditions or by hand.

use super::{name::named, value::ValueType};
use chrono::{DateTime, Utc};
use koc_chassis::{
    fault::{Violation, Violations},
    ids::MemberId,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

koc_chassis::typed_id! {
    /// One handing-out of a badge.
    AwardId,
}

named! {
    /// What a condition looks at.
    ConditionKind {
        LifetimePoints = "LIFETIME_POINTS",
        Tier = "TIER",
        ValueType = "VALUE_TYPE",
        BadgeCount = "BADGE_COUNT",
    }
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Condition {
    LifetimePoints {
        min_points: i64,
    },
    /// This tier or a higher one.
    Tier {
        tier_id: String,
    },
    ValueType {
        value_type: ValueType,
    },
    BadgeCount {
        badge_id: String,
        min_count: i32,
    },
}

/// What of a condition was sent: only what its kind names may be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    pub min_points: i64,
    pub tier_id: String,
    pub value_type: Option<ValueType>,
    pub badge_id: String,
    pub min_count: i32,
}

impl Condition {
    /// CONDITION_INVALID unless the fields of the kind are there, and no others.
    pub fn new(field: &str, kind: ConditionKind, sent: Sent) -> Result<Self, Violation> {
        let rest = |sent: &Sent| *sent == Sent::default();
        let (condition, sent) = match kind {
            ConditionKind::LifetimePoints => {
                let min_points = sent.min_points;
                ((min_points > 0).then_some(Self::LifetimePoints { min_points }), Sent { min_points: 0, ..sent })
            }
            ConditionKind::Tier => {
                let tier_id = sent.tier_id.clone();
                ((!tier_id.is_empty()).then_some(Self::Tier { tier_id }), Sent { tier_id: String::new(), ..sent })
            }
            ConditionKind::ValueType => {
                (sent.value_type.map(|value_type| Self::ValueType { value_type }), Sent { value_type: None, ..sent })
            }
            ConditionKind::BadgeCount => {
                let (badge_id, min_count) = (sent.badge_id.clone(), sent.min_count);
                let there = !badge_id.is_empty() && min_count > 0;
                let condition = there.then_some(Self::BadgeCount { badge_id, min_count });
                (condition, Sent { badge_id: String::new(), min_count: 0, ..sent })
            }
        };
        condition.filter(|_| rest(&sent)).ok_or_else(|| {
            let text = format!("must set what {} looks at, and nothing else", kind.name());
            Violation::new(field, "CONDITION_INVALID", text)
        })
    }
}

/// A badge as one version has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Badge {
    pub id: String,
    /// From 1.
    pub version: i32,
    pub display_name: String,
    pub description: String,
    pub conditions: Vec<Condition>,
    pub repeatable: bool,
    pub retired: bool,
    pub version_time: DateTime<Utc>,
}

impl Badge {
    /// TIER_UNKNOWN and BADGE_UNKNOWN unless the conditions look at what there is; a badge is no condition of its own.
    pub fn check(&self, tiers: &BTreeSet<String>, badges: &BTreeSet<String>) -> Result<(), Vec<Violation>> {
        let mut violations = Violations::default();
        for (i, condition) in self.conditions.iter().enumerate() {
            let field = |name: &str| format!("badge.conditions[{i}].{name}");
            match condition {
                Condition::Tier { tier_id } if !tiers.contains(tier_id) => {
                    violations.push(Violation::new(field("tier_id"), "TIER_UNKNOWN", "must be a tier of the programme"));
                }
                Condition::BadgeCount { badge_id, .. } if *badge_id == self.id || !badges.contains(badge_id) => {
                    violations.push(Violation::new(field("badge_id"), "BADGE_UNKNOWN", "must be another badge of the programme"));
                }
                _ => {}
            }
        }
        violations.finish()
    }

    /// Whether it is given by itself.
    pub fn is_by_rule(&self) -> bool {
        !self.retired && !self.conditions.is_empty()
    }

    /// Whether a rise of lifetime points meets one of its conditions.
    pub fn is_met_between(&self, before: i64, after: i64) -> bool {
        let met = |condition: &Condition| matches!(condition, Condition::LifetimePoints { min_points } if before < *min_points && *min_points <= after);
        self.is_by_rule() && self.conditions.iter().any(met)
    }
}

/// What of a member conditions look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub member: MemberId,
    pub lifetime_points: i64,
    pub tier_id: String,
    pub value_types: BTreeSet<ValueType>,
    /// Awards that stand, by badge.
    pub held: BTreeMap<String, i32>,
    /// Badges that were ever given to the member, and those of them that conditions gave.
    pub given: BTreeSet<String>,
    pub given_by_rule: BTreeSet<String>,
}

/// What conditions were met by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_points: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier_id: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub value_types: BTreeSet<ValueType>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub badge_counts: BTreeMap<String, i32>,
}

/// The badges that a member's conditions give now, with the evidence, in the order in which they follow from each other. `ranks` are
/// those of the tiers. A badge is given by its conditions once; one that is not repeatable not to who was given it by hand.
pub fn due<'b>(holder: &Holder, badges: &'b [Badge], ranks: &BTreeMap<String, i32>) -> Vec<(&'b Badge, Evidence)> {
    let (mut holder, mut due) = (holder.clone(), Vec::new());
    // Each round but the last gives a badge, and no badge is given twice.
    loop {
        let may = |badge: &&Badge| {
            let given = if badge.repeatable { &holder.given_by_rule } else { &holder.given };
            badge.is_by_rule() && !given.contains(&badge.id)
        };
        let next = badges.iter().filter(may).find_map(|badge| Some((badge, met(&holder, badge, ranks)?)));
        let Some((badge, evidence)) = next else { return due };
        holder.given.insert(badge.id.clone());
        holder.given_by_rule.insert(badge.id.clone());
        *holder.held.entry(badge.id.clone()).or_default() += 1;
        due.push((badge, evidence));
    }
}

/// What a badge's conditions are met by; None unless all are.
fn met(holder: &Holder, badge: &Badge, ranks: &BTreeMap<String, i32>) -> Option<Evidence> {
    let mut evidence = Evidence::default();
    for condition in &badge.conditions {
        match condition {
            Condition::LifetimePoints { min_points } if holder.lifetime_points >= *min_points => {
                evidence.lifetime_points = Some(holder.lifetime_points);
            }
            Condition::Tier { tier_id } if ranks.get(&holder.tier_id)? >= ranks.get(tier_id)? => {
                evidence.tier_id = Some(holder.tier_id.clone());
            }
            Condition::ValueType { value_type } if holder.value_types.contains(value_type) => {
                evidence.value_types.insert(*value_type);
            }
            Condition::BadgeCount { badge_id, min_count } if holder.held.get(badge_id)? >= min_count => {
                evidence.badge_counts.insert(badge_id.clone(), *holder.held.get(badge_id)?);
            }
            _ => return None,
        }
    }
    Some(evidence)
}

/// One handing-out of a badge to a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Award {
    pub id: AwardId,
    pub member: MemberId,
    pub badge_id: String,
    pub badge_version: i32,
    pub origin: AwardOrigin,
    pub actor: String,
    pub award_time: DateTime<Utc>,
    /// None while it stands.
    pub revoke_time: Option<DateTime<Utc>>,
}

/// How a badge came to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwardOrigin {
    Rule(Evidence),
    /// By hand, from this source.
    Hand(String),
}

impl AwardOrigin {
    /// Whether conditions gave it, to this member or to one that was merged into it.
    pub fn is_by_rule(&self) -> bool {
        match self {
            Self::Rule(_) => true,
            Self::Hand(source) => source.starts_with(MERGE_SOURCE),
        }
    }
}

/// How the sources begin of what a member has since another was merged into it, whose conditions gave it; the merge's id follows.
pub const MERGE_SOURCE: &str = "merge/";

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn badge(id: &str, conditions: Vec<Condition>) -> Badge {
        Badge {
            id: id.into(),
            version: 1,
            display_name: id.into(),
            description: String::new(),
            conditions,
            repeatable: false,
            retired: false,
            version_time: DateTime::UNIX_EPOCH,
        }
    }

    fn holder(lifetime_points: i64, tier_id: &str) -> Holder {
        Holder {
            member: MemberId(Uuid::nil()),
            lifetime_points,
            tier_id: tier_id.into(),
            value_types: BTreeSet::from([ValueType::Content]),
            held: BTreeMap::new(),
            given: BTreeSet::new(),
            given_by_rule: BTreeSet::new(),
        }
    }

    fn ranks() -> BTreeMap<String, i32> {
        [("BASE", 1), ("CORE", 2), ("APEX", 3)].map(|(id, rank)| (id.to_owned(), rank)).into()
    }

    fn ids(due: Vec<(&Badge, Evidence)>) -> Vec<&str> {
        due.into_iter().map(|(badge, _)| badge.id.as_str()).collect()
    }

    #[test]
    fn a_badge_is_given_when_all_its_conditions_hold_exactly() {
        let conditions = vec![
            Condition::LifetimePoints { min_points: 100 },
            Condition::Tier { tier_id: "CORE".into() },
            Condition::ValueType { value_type: ValueType::Content },
        ];
        let badges = [badge("A", conditions)];
        assert_eq!(due(&holder(99, "CORE"), &badges, &ranks()), []);
        assert_eq!(due(&holder(100, "BASE"), &badges, &ranks()), []);
        let other = Holder { value_types: BTreeSet::from([ValueType::Social]), ..holder(100, "CORE") };
        assert_eq!(due(&other, &badges, &ranks()), []);
        let evidence = Evidence {
            lifetime_points: Some(100),
            tier_id: Some("APEX".into()),
            value_types: BTreeSet::from([ValueType::Content]),
            badge_counts: BTreeMap::new(),
        };
        assert_eq!(due(&holder(100, "APEX"), &badges, &ranks()), [(&badges[0], evidence)]);
    }

    #[test]
    fn badges_that_count_others_follow_in_the_same_step() {
        let points = |min_points| vec![Condition::LifetimePoints { min_points }];
        let count = |badge_id: &str, min_count| vec![Condition::BadgeCount { badge_id: badge_id.into(), min_count }];
        let badges = [badge("C", count("B", 1)), badge("B", count("A", 1)), badge("A", points(5)), badge("D", count("A", 2))];
        assert_eq!(ids(due(&holder(5, "BASE"), &badges, &ranks())), ["A", "B", "C"]);
    }

    #[test]
    fn what_was_given_before_is_not_given_again_though_it_was_revoked() {
        let rule = || vec![Condition::LifetimePoints { min_points: 5 }];
        let repeatable = Badge { repeatable: true, ..badge("B", rule()) };
        let badges = [badge("A", rule()), repeatable];
        let given = Holder { given: BTreeSet::from(["A".into(), "B".into()]), ..holder(5, "BASE") };
        assert_eq!(ids(due(&given, &badges, &ranks())), ["B"]);
        let by_rule = Holder { given_by_rule: BTreeSet::from(["B".into()]), ..given };
        assert_eq!(due(&by_rule, &badges, &ranks()), []);
    }

    #[test]
    fn badges_without_conditions_and_retired_ones_are_given_to_nobody() {
        let retired = Badge { retired: true, ..badge("A", vec![Condition::LifetimePoints { min_points: 1 }]) };
        assert!(!retired.is_met_between(0, 1));
        assert_eq!(due(&holder(5, "BASE"), &[retired, badge("B", Vec::new())], &ranks()), []);
    }

    #[test]
    fn only_a_rise_over_the_threshold_meets_a_condition_anew() {
        let badge = badge("A", vec![Condition::LifetimePoints { min_points: 10 }]);
        assert!(badge.is_met_between(9, 10) && badge.is_met_between(0, 99));
        assert!(!badge.is_met_between(10, 11) && !badge.is_met_between(1, 9) && !badge.is_met_between(12, 9));
    }

    #[test]
    fn a_condition_holds_what_its_kind_names_and_nothing_else() {
        let sent = Sent { min_points: 5, ..Sent::default() };
        let condition = Condition::new("c", ConditionKind::LifetimePoints, sent.clone());
        assert_eq!(condition, Ok(Condition::LifetimePoints { min_points: 5 }));
        for (kind, sent) in [
            (ConditionKind::LifetimePoints, Sent { tier_id: "CORE".into(), ..sent.clone() }),
            (ConditionKind::Tier, sent.clone()),
            (ConditionKind::ValueType, Sent::default()),
            (ConditionKind::BadgeCount, Sent { badge_id: "A".into(), ..Sent::default() }),
        ] {
            assert_eq!(Condition::new("c", kind, sent).expect_err("not its own").rule, "CONDITION_INVALID");
        }
    }

    #[test]
    fn conditions_look_at_tiers_and_other_badges_of_the_programme() {
        let own = Condition::BadgeCount { badge_id: "A".into(), min_count: 1 };
        let badge = badge("A", vec![Condition::Tier { tier_id: "GONE".into() }, own]);
        let broken = badge.check(&ranks().into_keys().collect(), &BTreeSet::from(["A".into()])).expect_err("two rules");
        let rules: Vec<_> = broken.iter().map(|v| (v.field.as_str(), v.rule.as_str())).collect();
        assert_eq!(rules, [("badge.conditions[0].tier_id", "TIER_UNKNOWN"), ("badge.conditions[1].badge_id", "BADGE_UNKNOWN")]);
    }
}
