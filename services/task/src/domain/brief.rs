//! Briefs (规格说明): what is wanted, and what each part of it is worth.

use chrono::{DateTime, Utc};
use koc_chassis::money::Money;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

use super::BriefId;

/// A brief with some or all of its revisions.
#[derive(Debug, Clone)]
pub struct Brief {
    pub id: BriefId,
    pub display_name: String,
    pub create_time: DateTime<Utc>,
    /// Oldest first.
    pub revisions: Vec<Revision>,
}

/// One state of a brief.
#[derive(Debug, Clone)]
pub struct Revision {
    /// From 1.
    pub number: i32,
    pub content: BriefContent,
    /// None for the draft.
    pub publish_time: Option<DateTime<Utc>>,
}

/// What a brief says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefContent {
    pub goal: String,
    pub product: String,
    pub key_messages: Vec<String>,
    pub avoid: Vec<String>,
    pub disclosure_label: String,
    pub creative_freedom: CreativeFreedom,
    pub package: Package,
    pub output_targets: Vec<OutputTarget>,
}

impl BriefContent {
    /// The targets that hold for members of `tier_id`: those for it and those for all.
    pub fn targets_of<'a>(&'a self, tier_id: &'a str) -> impl Iterator<Item = &'a OutputTarget> {
        self.output_targets.iter().filter(move |target| target.tier_id.as_deref().is_none_or(|tier| tier == tier_id))
    }
}

/// What is to be delivered (交付包): keys differ, weights sum to 100.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Package(Vec<DeliverableSpec>);

/// What the weights of a package sum to.
pub const WEIGHTS_SUM_PERCENT: u32 = 100;

/// What is wrong with a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PackageFlaw {
    /// The weights sum to something else than 100.
    WeightsSum(u32),
    /// The deliverable at this place has the key of an earlier one.
    Duplicate(usize),
}

/// A deliverable of a package and what it is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share<'a> {
    pub spec: &'a DeliverableSpec,
    pub worth: Money,
}

impl Package {
    pub fn parse(specs: Vec<DeliverableSpec>) -> Result<Self, Vec<PackageFlaw>> {
        let mut flaws = Vec::new();
        let mut seen = HashSet::new();
        for (place, spec) in specs.iter().enumerate() {
            if !seen.insert(spec.key.as_str()) {
                flaws.push(PackageFlaw::Duplicate(place));
            }
        }
        let sum = specs.iter().map(|spec| u32::from(spec.weight_percent)).sum();
        if sum != WEIGHTS_SUM_PERCENT {
            flaws.push(PackageFlaw::WeightsSum(sum));
        }
        if flaws.is_empty() { Ok(Self(specs)) } else { Err(flaws) }
    }

    pub fn deliverables(&self) -> &[DeliverableSpec] {
        &self.0
    }

    pub fn contains(&self, key: &str) -> bool {
        self.0.iter().any(|spec| spec.key == key)
    }

    /// What each of the deliverables with the given keys is worth: the reward split by weight over the whole package, so that
    /// the parts of a package sum to the reward whatever is accepted.
    pub fn shares(&self, reward: Money, accepted: &[String]) -> Vec<Share<'_>> {
        let weights: Vec<u32> = self.0.iter().map(|spec| u32::from(spec.weight_percent)).collect();
        let parts = self.0.iter().zip(reward.split(&weights)).map(|(spec, worth)| Share { spec, worth });
        parts.filter(|share| accepted.contains(&share.spec.key)).collect()
    }
}

/// One thing to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverableSpec {
    pub key: String,
    pub kind: DeliverableKind,
    /// Its part of the reward, 1 to 100.
    pub weight_percent: u8,
    pub acceptance_criteria: String,
}

/// What an output should reach (产出目标).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputTarget {
    pub metric: Metric,
    /// In the metric's unit.
    pub target_value: i64,
    /// From publication.
    pub within_days: i32,
    /// None for all tiers.
    pub tier_id: Option<String>,
}

/// How much the member decides (创作自由度).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CreativeFreedom {
    Scripted,
    Guided,
    Open,
    CoCreation,
}

/// Kinds of deliverables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DeliverableKind {
    Article,
    Video,
    PhotoSet,
    CommunityFeedback,
    CompetitorAnalysis,
    InsightReport,
    Event,
}

/// What can be measured of an output: counts, but for the margin, which is in minor units of the programme's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Metric {
    Views,
    Likes,
    Comments,
    Shares,
    Saves,
    Follows,
    Orders,
    OrderMargin,
}

#[cfg(test)]
mod tests {
    use super::*;
    use koc_chassis::money::Currency;
    use proptest::prelude::*;

    fn spec(key: &str, weight_percent: u8) -> DeliverableSpec {
        let acceptance_criteria = "tells what was asked".to_owned();
        DeliverableSpec { key: key.to_owned(), kind: DeliverableKind::Article, weight_percent, acceptance_criteria }
    }

    fn cny(minor: i64) -> Money {
        Money::new(minor, Currency::from_code("CNY").expect("CNY is a currency"))
    }

    #[test]
    fn all_flaws_of_a_package_are_found_at_once() {
        let flaws = Package::parse(vec![spec("article", 60), spec("video", 20), spec("article", 10)]).expect_err("flawed");
        assert_eq!(flaws, [PackageFlaw::Duplicate(2), PackageFlaw::WeightsSum(90)]);
    }

    #[test]
    fn an_odd_reward_is_shared_to_the_last_minor_unit() {
        let package = Package::parse(vec![spec("a", 33), spec("b", 33), spec("c", 34)]).expect("sound");
        let all = ["a", "b", "c"].map(str::to_owned);
        let shares = package.shares(cny(101), &all);
        assert_eq!(shares.iter().map(|s| s.worth.minor).collect::<Vec<_>>(), [33, 33, 35]);
    }

    #[test]
    fn a_target_without_a_tier_holds_for_all_and_one_with_a_tier_only_for_it() {
        let target = |tier: Option<&str>| OutputTarget {
            metric: Metric::Views,
            target_value: 1,
            within_days: 30,
            tier_id: tier.map(str::to_owned),
        };
        let content = BriefContent {
            goal: "reach".into(),
            product: String::new(),
            key_messages: Vec::new(),
            avoid: Vec::new(),
            disclosure_label: String::new(),
            creative_freedom: CreativeFreedom::Open,
            package: Package::parse(vec![spec("a", 100)]).expect("sound"),
            output_targets: vec![target(None), target(Some("CORE")), target(Some("APEX"))],
        };
        let tiers: Vec<_> = content.targets_of("CORE").map(|t| t.tier_id.clone()).collect();
        assert_eq!(tiers, [None, Some("CORE".to_owned())]);
    }

    proptest! {
        #[test]
        fn what_is_accepted_and_what_is_not_sum_to_the_reward(
            reward in 1..i64::MAX / 2, cut in 1u8..100, accepted in any::<[bool; 2]>(),
        ) {
            let package = Package::parse(vec![spec("a", cut), spec("b", 100 - cut)]).expect("sound");
            let pick = |wanted: bool| -> Vec<String> {
                ["a", "b"].iter().zip(accepted).filter(|(_, yes)| *yes == wanted).map(|(key, _)| (*key).to_owned()).collect()
            };
            let sum = |keys: &[String]| -> i64 { package.shares(cny(reward), keys).iter().map(|s| s.worth.minor).sum() };
            prop_assert_eq!(sum(&pick(true)) + sum(&pick(false)), reward);
        }
    }
}
