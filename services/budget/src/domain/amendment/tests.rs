use super::*;
use crate::domain::{envelope::NewEnvelope, plan::ResourceClass, resource_kind::ResourceKind};
use chrono::TimeDelta;
use proptest::prelude::*;
use uuid::Uuid;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).expect("in range")
}

fn envelope_id(index: usize) -> EnvelopeId {
    EnvelopeId(Uuid::from_u128(index as u128 + 1))
}

/// One class, split by region and one region by kind.
fn tree(totals: [i64; 5]) -> Tree {
    let places = [
        ("core", None, None, None),
        ("sh", Some("core"), Some("CN-SH"), None),
        ("bj", Some("core"), Some("CN-BJ"), None),
        ("sh kits", Some("sh"), None, Some(ResourceKind::GiftKit)),
        ("sh travel", Some("sh"), None, Some(ResourceKind::Travel)),
    ];
    let mut tree = Tree::default();
    for (index, ((name, parent, region, kind), total)) in places.into_iter().zip(totals).enumerate() {
        let new = NewEnvelope {
            class: parent.is_none().then_some(ResourceClass::Incentive),
            display_name: name.into(),
            parent: parent.map(str::to_owned),
            region: region.map(str::to_owned),
            kind,
            total,
            overrun_limit: 0,
        };
        tree.add("e", envelope_id(index), &new).expect("a tree");
    }
    tree
}

fn amendment() -> Amendment {
    Amendment {
        id: AmendmentId::new(),
        programme: ProgrammeId::new(),
        plan: PlanId::new(),
        kind: AmendmentKind::Change,
        state: AmendmentState::Proposed,
        lines: Vec::new(),
        total_before: 0,
        total_after: 0,
        closing: None,
        terms: None,
        reason: "more for Shanghai".into(),
        base_version: 4,
        proposed_by: "lin".into(),
        approvals: Vec::new(),
        decide_by_time: at(0) + TimeDelta::days(30),
        create_time: at(0),
    }
}

#[test]
fn a_transfer_changes_its_ends_and_what_stands_above_them_up_to_what_they_share() {
    let before = tree([100, 60, 30, 20, 30]);
    let mut after = before.clone();
    after.shift(3, -15);
    after.shift(2, 15);
    let lines = diff(PlanId::new(), &before, &after);
    let told: Vec<_> = lines.iter().map(|l| (l.display_name.as_str(), l.before, l.after, l.own_change)).collect();
    assert_eq!(told, [("sh", 60, 45, 0), ("bj", 30, 45, 15), ("sh kits", 20, 5, -15)]);
    assert_eq!(lines.iter().map(|l| l.own_change).sum::<i64>(), 0);
}

#[test]
fn what_a_child_gets_within_its_parents_amount_comes_from_what_the_parent_holds_itself() {
    let before = tree([100, 60, 30, 20, 30]);
    let mut after = before.clone();
    after.branches[2].total = 40;
    let lines = diff(PlanId::new(), &before, &after);
    let told: Vec<_> = lines.iter().map(|l| (l.display_name.as_str(), l.before, l.after, l.own_change)).collect();
    assert_eq!(told, [("core", 100, 100, -10), ("bj", 30, 40, 10)]);
}

#[test]
fn an_amendment_is_decided_once_by_another_person_and_in_time() {
    let policy = Policy::default();
    let own = amendment().approve("lin", &policy, at(1));
    assert_eq!(own, Err(AmendmentStandstill::NotApproved(NotApproved::ApproverIsRequester)));
    assert_eq!(amendment().approve("wei", &policy, at(1)), Ok(true));
    let late = amendment().approve("wei", &policy, at(0) + TimeDelta::days(30));
    assert_eq!(late, Err(AmendmentStandstill::State { is: AmendmentStage::Lapsed }));
    assert_eq!(amendment().withdraw("wei", String::new(), at(1)), Err(AmendmentStandstill::NotTheRequester));
    let mut rejected = amendment();
    rejected.reject("wei", "too early".into(), at(1)).expect("open");
    assert_eq!(rejected.approve("mei", &policy, at(2)), Err(AmendmentStandstill::State { is: AmendmentStage::Rejected }));
    let two = Policy { required_approvals: 2, ..policy };
    let mut wanted = amendment();
    assert_eq!(wanted.approve("wei", &two, at(1)), Ok(false));
    let twice = wanted.approve("wei", &two, at(2));
    assert_eq!(twice, Err(AmendmentStandstill::NotApproved(NotApproved::ApproverRepeated)));
    assert_eq!(wanted.approve("mei", &two, at(3)), Ok(true));
}

#[test]
fn what_is_left_goes_to_the_same_region_and_kind_or_to_the_class() {
    let into = tree([0; 5]);
    let target = |index: usize| carry_over_target(&into.branches[index].place, &into);
    assert_eq!((target(3), target(0)), (Some(3), Some(0)));
    let elsewhere = Place { region: Some("CN-GD".into()), ..into.branches[3].place.clone() };
    assert_eq!(carry_over_target(&elsewhere, &into), Some(0));
    let other = Place { class: ResourceClass::Exclusive, ..elsewhere };
    assert_eq!(carry_over_target(&other, &into), None);
}

proptest! {
    /// Whatever is changed: what is put in and taken out adds up to the change of the whole, and each level's change to that below it.
    #[test]
    fn a_difference_adds_up_at_every_level(
        before in prop::array::uniform5(0..50i64),
        changes in prop::collection::vec((0..5usize, -20..20i64), 1..8),
    ) {
        let own = |own: [i64; 5]| {
            let mut whole = tree([0; 5]);
            own.iter().enumerate().for_each(|(index, amount)| whole.shift(index, *amount));
            whole
        };
        let before = own(before);
        let mut after = before.clone();
        changes.iter().for_each(|(index, amount)| after.shift(*index, *amount));
        let policy = Policy::default();
        prop_assert!(before.check(&policy).is_ok());
        prop_assert_eq!(after.check(&policy).is_ok(), after.own().iter().all(|own| *own >= 0));
        let lines = diff(PlanId::new(), &before, &after);
        let moved: i128 = lines.iter().map(|line| i128::from(line.own_change)).sum();
        prop_assert_eq!(moved, after.total() - before.total());
        for line in &lines {
            let below: i64 = lines.iter().filter(|l| l.place.parent == Some(line.envelope)).map(|l| l.after - l.before).sum();
            prop_assert_eq!(line.after - line.before, line.own_change + below);
        }
    }
}
