use proptest::prelude::*;

use super::returns::{return_on, returns};
use super::*;
use crate::domain::cohort::rate::RateCount;

fn order(order_id: &str, margin_minor: i64, credit: f64, grade: Grade) -> AttributedOrder {
    AttributedOrder { order_id: order_id.to_owned(), margin_minor, credit, grade }
}

fn value(evidence: OutputEvidence, model: &ValueModel) -> OutputValue {
    value_output(&evidence, model).expect("valid evidence")
}

fn insight() -> InsightEvidence {
    InsightEvidence {
        adopted: vec![],
        pending: 0,
        decided: RateCount { successes: 0, trials: 0 },
        mean_benefit_minor: None,
        novelty: None,
        benefit_percentile: None,
    }
}

fn social() -> SocialEvidence {
    SocialEvidence {
        new_followers: 100,
        followers_grade: Grade::B,
        activity: None,
        qualified_leads: 4,
        leads_grade: Grade::A,
        uplift_percentile: None,
        leads_percentile: None,
        attendance: None,
        cohesion: None,
    }
}

#[test]
fn an_order_known_twice_counts_once_on_its_strongest_evidence() {
    let content = ContentEvidence {
        orders: vec![
            order("o-1", 80_000, 1.0, Grade::C),
            order("o-1", 80_000, 0.5, Grade::A),
            order("o-2", 10_001, 0.5, Grade::B),
        ],
        reuses: vec![Reuse { replacement_cost_minor: 30_000, grade: Grade::B }],
        ..ContentEvidence::default()
    };
    let value = value(OutputEvidence::Content(content), &ValueModel::standard("CNY"));
    let amounts: Vec<(ComponentKind, Grade, i64)> = value.components.iter().map(|c| (c.kind, c.grade, c.amount_minor)).collect();
    assert_eq!(
        amounts,
        [
            (ComponentKind::AttributedMargin, Grade::A, 40_000),
            (ComponentKind::AttributedMargin, Grade::B, 5_000), // 5,000.5, half to even
            (ComponentKind::ReuseSaving, Grade::B, 15_000),
        ]
    );
    assert_eq!(value.cash_minor, 60_000);
    assert_eq!(value.score, None);
}

#[test]
fn media_equivalence_follows_the_published_arithmetic_and_stays_out_of_cash() {
    // 5,000 likes at .30, 500 comments at .50, 50,000 reads at .05 a thousand: 1,752.50.
    let rates = EmvRates { like_minor: 30, comment_minor: 50, thousand_reads_minor: 5, ..EmvRates::default() };
    let model = ValueModel { emv_rates: Some(rates), report_return_with_emv: true, ..ValueModel::standard("CNY") };
    let engagement = Engagement { reads: 50_000, likes: 5_000, comments: 500, ..Engagement::default() };
    let content = ContentEvidence { engagement, ..ContentEvidence::default() };
    let value = value(OutputEvidence::Content(content), &model);
    assert_eq!(value.media_equivalent.map(|media| media.amount_minor), Some(175_250));
    assert_eq!(value.cash_minor, 0);
    let costs = Costs { marginal_minor: 0, amortised_minor: 100_000, full_tco_minor: 175_250 };
    let returns = returns(&value, &costs).expect("valid costs");
    assert_eq!(returns.marginal, None);
    assert_eq!((returns.amortised, returns.full_tco), (Some(-1.0), Some(-1.0)));
    assert_eq!(returns.full_tco_with_emv, Some(0.0));
}

#[test]
fn a_content_score_renormalises_what_is_missing_and_reports_coverage() {
    let content = ContentEvidence {
        reach_percentile: Some(0.8),
        engagement_percentile: Some(0.6),
        depth_score: Some(50.0),
        ..ContentEvidence::default()
    };
    let score = value(OutputEvidence::Content(content), &ValueModel::standard("CNY")).score.expect("parts measured");
    assert!((score.coverage - 0.65).abs() < 1e-12);
    assert!((score.value - 100.0 * (0.25 * 0.8 + 0.25 * 0.6 + 0.15 * 0.5) / 0.65).abs() < 1e-9);
    assert_eq!(score.parts.len(), 5);
}

#[test]
fn an_estimated_benefit_counts_half_and_pending_suggestions_are_not_cash() {
    let adopted = |confirmed| AdoptedSuggestion {
        suggestion_id: "s".to_owned(),
        benefit_minor: 100_000,
        share: 0.5,
        confirmed,
        grade: Grade::C,
    };
    let evidence = InsightEvidence {
        adopted: vec![adopted(true), adopted(false)],
        pending: 3,
        decided: RateCount { successes: 2, trials: 5 },
        mean_benefit_minor: Some(50_000),
        novelty: Some(0.5),
        ..insight()
    };
    let value = value(OutputEvidence::Insight(evidence), &ValueModel::standard("CNY"));
    assert_eq!(value.cash_minor, 75_000);
    assert_eq!(value.pending_minor, 30_000); // 3 · (1 + 2)/(10 + 5) · 50,000
    let score = value.score.expect("parts measured");
    assert!((score.value - 100.0 * (0.5 * 0.4 + 0.3 * 0.5) / 0.8).abs() < 1e-9);
}

#[test]
fn social_value_is_cash_only_at_the_brands_own_rates() {
    let activity = ActivityChange {
        participants: BeforeAfter { before: 40.0, after: 60.0 },
        control: Some(BeforeAfter { before: 40.0, after: 48.0 }),
        grade: Grade::B,
    };
    let with_control = SocialEvidence { activity: Some(activity), ..social() };
    let free = value(OutputEvidence::Social(with_control.clone()), &ValueModel::standard("CNY"));
    assert_eq!((free.cash_minor, free.components.len()), (0, 0));
    let model = ValueModel {
        follower_value_minor: 10,
        active_member_value_minor: 500,
        lead_value_minor: 2_000,
        ..ValueModel::standard("CNY")
    };
    assert_eq!(value(OutputEvidence::Social(with_control.clone()), &model).cash_minor, 1_000 + 6_000 + 8_000);
    let raw = SocialEvidence { activity: Some(ActivityChange { control: None, ..activity }), ..with_control };
    let raw = value(OutputEvidence::Social(raw), &model);
    let uplift = raw.components.iter().find(|c| c.kind == ComponentKind::ActivityUplift).expect("an uplift");
    assert_eq!((uplift.grade, uplift.amount_minor), (Grade::D, 10_000));
}

#[test]
fn the_model_is_known_by_its_content() {
    let model = ValueModel::standard("CNY");
    let changed = ValueModel { reuse_discount: 0.4, ..model.clone() };
    assert_eq!(model.id(), ValueModel::standard("CNY").id());
    assert_eq!(model.id().len(), 64);
    assert_ne!(model.id(), changed.id());
}

#[test]
fn what_makes_no_sense_is_refused() {
    let model = ValueModel::standard("CNY");
    let credit = ContentEvidence { orders: vec![order("o", 1, f64::NAN, Grade::A)], ..ContentEvidence::default() };
    assert_eq!(value_output(&OutputEvidence::Content(credit), &model), Err(InputError::NotFinite { field: "credit" }));
    let reuse = Reuse { replacement_cost_minor: -1, grade: Grade::A };
    let reuse = ContentEvidence { reuses: vec![reuse], ..ContentEvidence::default() };
    assert!(matches!(
        value_output(&OutputEvidence::Content(reuse), &model),
        Err(InputError::NegativeAmount { field: "replacement_cost_minor", value_minor: -1 })
    ));
    let decided = InsightEvidence { decided: RateCount { successes: 2, trials: 1 }, ..insight() };
    assert!(matches!(value_output(&OutputEvidence::Insight(decided), &model), Err(InputError::Exceeds { .. })));
    let unusable = ValueModel { reuse_discount: 1.5, ..model };
    assert!(matches!(
        value_output(&OutputEvidence::Social(social()), &unusable),
        Err(InputError::OutOfRange { field: "reuse_discount", .. })
    ));
    assert!(return_on(1, -1).is_err());
    assert_eq!(return_on(150, 100), Ok(Some(0.5)));
    assert_eq!(return_on(150, 0), Ok(None));
}

proptest! {
    #[test]
    fn cash_is_the_sum_of_its_components_and_scores_stay_in_range(
        orders in prop::collection::vec((0_u8..6, -1_000_000_i64..1_000_000, 0.0_f64..=1.0, 0_usize..4), 0..20),
        percentiles in prop::collection::vec(prop::option::of(0.0_f64..=1.0), 4)
    ) {
        let grades = [Grade::A, Grade::B, Grade::C, Grade::D];
        let mut evidence = ContentEvidence {
            orders: orders.iter().map(|&(id, margin, credit, g)| order(&id.to_string(), margin, credit, grades[g])).collect(),
            reach_percentile: percentiles[0],
            engagement_percentile: percentiles[1],
            opinion_percentile: percentiles[2],
            purchase_influence_percentile: percentiles[3],
            ..ContentEvidence::default()
        };
        let model = ValueModel::standard("CNY");
        let first = value(OutputEvidence::Content(evidence.clone()), &model);
        prop_assert_eq!(first.cash_minor, first.components.iter().map(|c| c.amount_minor).sum::<i64>());
        if let Some(score) = &first.score {
            prop_assert!((0.0..=100.0).contains(&score.value) && score.coverage > 0.0 && score.coverage <= 1.0);
        }
        evidence.orders.reverse();
        prop_assert_eq!(first, value(OutputEvidence::Content(evidence), &model));
    }
}
