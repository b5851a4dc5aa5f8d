use super::*;
use uuid::Uuid;

fn new(name: &str, class: Option<ResourceClass>, total: i64) -> NewEnvelope {
    NewEnvelope { class, display_name: name.to_owned(), parent: None, region: None, kind: None, total, overrun_limit: 0 }
}

fn child(name: &str, parent: &str, region: Option<&str>, kind: Option<ResourceKind>, total: i64) -> NewEnvelope {
    NewEnvelope { parent: Some(parent.into()), region: region.map(str::to_owned), kind, ..new(name, None, total) }
}

/// The rules that a tree of these breaks, each with its field.
fn wrong(envelopes: &[NewEnvelope]) -> Vec<(String, String)> {
    let mut violations = Violations::default();
    let mut tree = Tree::default();
    for (index, new) in envelopes.iter().enumerate() {
        violations.take_all(tree.add(&format!("e[{index}]"), EnvelopeId(Uuid::from_u128(index as u128 + 1)), new));
    }
    violations.take_all(tree.check(&Policy::default()));
    violations.finish().err().unwrap_or_default().into_iter().map(|v| (v.field, v.rule)).collect()
}

fn pair(field: &str, rule: &str) -> (String, String) {
    (field.to_owned(), rule.to_owned())
}

const INCENTIVE: Option<ResourceClass> = Some(ResourceClass::Incentive);
const RESERVE: Option<ResourceClass> = Some(ResourceClass::StrategicReserve);

#[test]
fn the_reserves_share_lies_within_the_policys_bounds() {
    let plan = |reserve: i64| wrong(&[new("a", INCENTIVE, 1_000 - reserve), new("r", RESERVE, reserve)]);
    assert!(plan(50).is_empty() && plan(150).is_empty());
    assert_eq!(plan(49), [pair("e[1].allocated", "RESERVE_SHARE_OUT_OF_BOUNDS")]);
    assert_eq!(plan(151), [pair("e[1].allocated", "RESERVE_SHARE_OUT_OF_BOUNDS")]);
    assert!(wrong(&[new("a", INCENTIVE, 5)]).is_empty());
}

#[test]
fn names_are_unique_and_all_that_is_wrong_is_said_at_once() {
    let found = wrong(&[new("a", RESERVE, i64::MAX), new("a", RESERVE, i64::MAX)]);
    let rules: Vec<&str> = found.iter().map(|(_, rule)| rule.as_str()).collect();
    assert_eq!(rules, ["ENVELOPE_DUPLICATE", "ENVELOPE_DUPLICATE", "AMOUNT_TOO_LARGE", "RESERVE_SHARE_OUT_OF_BOUNDS"]);
}

#[test]
fn an_overrun_counts_towards_the_range_and_is_not_for_the_reserve() {
    let with = |name: &str, class, total, overrun_limit| NewEnvelope { overrun_limit, ..new(name, class, total) };
    assert!(wrong(&[with("a", INCENTIVE, 5, i64::MAX - 5)]).is_empty());
    assert_eq!(wrong(&[with("a", INCENTIVE, 5, i64::MAX - 4)]), [pair("envelopes", "AMOUNT_TOO_LARGE")]);
    let reserve = [with("a", INCENTIVE, 90, 7), with("r", RESERVE, 10, 1)];
    assert_eq!(wrong(&reserve), [pair("e[1].overrun_limit", "RESERVE_OVERRUN")]);
}

#[test]
fn a_class_is_split_by_region_and_by_kind() {
    let (sh, bj, kit) = (Some("CN-SH"), Some("CN-BJ"), Some(ResourceKind::GiftKit));
    let root = new("core", INCENTIVE, 100);
    let shanghai = child("sh", "core", sh, None, 60);
    assert!(
        wrong(&[root.clone(), shanghai.clone(), child("kits", "sh", None, kit, 60), child("bj", "core", bj, None, 40)])
            .is_empty()
    );
    let split = |second: NewEnvelope| wrong(&[root.clone(), shanghai.clone(), second]);
    assert_eq!(split(child("x", "nobody", sh, None, 0)), [pair("e[2].parent_display_name", "PARENT_UNKNOWN")]);
    assert_eq!(split(child("x", "core", sh, None, 0)), [pair("e[2]", "SPLIT_INVALID")], "as its sibling");
    assert_eq!(split(child("x", "core", None, None, 0)), [pair("e[2]", "SPLIT_INVALID")], "as its parent");
    assert_eq!(split(child("x", "sh", bj, None, 0)), [pair("e[2]", "SPLIT_INVALID")], "elsewhere than its parent");
    let exclusive = NewEnvelope { class: Some(ResourceClass::Exclusive), ..child("x", "core", bj, None, 0) };
    assert_eq!(split(exclusive), [pair("e[2].resource_class", "CLASS_DIFFERS")]);
    assert_eq!(wrong(&[new("a", None, 0)]), [pair("e[0].resource_class", "CLASS_MISSING")]);
    let reserve = [new("a", INCENTIVE, 90), new("r", RESERVE, 10), child("x", "r", sh, None, 1)];
    assert_eq!(wrong(&reserve), [pair("e[2]", "SPLIT_INVALID")]);
}

#[test]
fn a_parent_is_never_less_than_the_sum_of_its_children() {
    let tree = |parent: i64| {
        let children = [child("sh", "core", Some("CN-SH"), None, 60), child("bj", "core", Some("CN-BJ"), None, 40)];
        wrong(&[&[new("core", INCENTIVE, parent)][..], &children].concat())
    };
    assert!(tree(100).is_empty() && tree(101).is_empty());
    assert_eq!(tree(99), [pair("e[0].allocated", "ENVELOPE_BELOW_CHILDREN")]);
}

#[test]
fn what_is_put_into_a_child_is_held_by_all_above_it() {
    let mut tree = Tree::default();
    let kit = Some(ResourceKind::GiftKit);
    let envelopes =
        [new("core", INCENTIVE, 100), child("sh", "core", Some("CN-SH"), None, 60), child("kits", "sh", None, kit, 10)];
    for (index, new) in envelopes.iter().enumerate() {
        tree.add("e", EnvelopeId(Uuid::from_u128(index as u128 + 1)), new).expect("a tree");
    }
    assert_eq!(tree.own(), [40, 50, 10]);
    tree.shift(2, 5);
    assert_eq!((tree.own(), tree.total()), (vec![40, 50, 15], 105));
    tree.shift(0, -5);
    assert_eq!((tree.own(), tree.total()), (vec![35, 50, 15], 100));
}
