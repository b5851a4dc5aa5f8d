use super::*;
use crate::domain::consent::{Consent, Purpose};
use proptest::prelude::*;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + second)
}

fn row(second: i64, values: Profile, clear: &[&str]) -> Row {
    let clear: Vec<String> = clear.iter().map(|name| (*name).to_owned()).collect();
    Row::new("p1".into(), at(second), values, &clear, false).expect("no rule broken")
}

fn city(name: &str) -> Profile {
    Profile { city: name.into(), ..Profile::default() }
}

/// Folds a row in where no field is anybody's.
fn fold(person: &mut Person, row: &Row, source: &str) -> Outcome {
    person.fold(row, source, &Owners::default()).outcome
}

#[test]
fn a_newer_row_updates_and_an_older_one_is_stale() {
    let mut person = Person::default();
    assert_eq!(fold(&mut person, &row(2, city("Guangzhou"), &[]), "crm"), Outcome::Updated);
    assert_eq!(fold(&mut person, &row(1, city("Shenzhen"), &[]), "crm"), Outcome::Stale);
    assert_eq!(fold(&mut person, &row(3, city("Foshan"), &[]), "crm"), Outcome::Updated);
    assert_eq!(person.record.profile.city, "Foshan");
}

#[test]
fn the_same_row_again_leaves_everything_as_it_is() {
    let first = row(1, city("Guangzhou"), &[]);
    let mut person = Person::default();
    fold(&mut person, &first, "crm");
    let mut again = Person::new(person.record.clone());
    assert_eq!(fold(&mut again, &first, "crm"), Outcome::Unchanged);
    assert_eq!(again, Person::new(person.record));
}

#[test]
fn an_equal_value_of_a_later_time_is_unchanged_but_holds_off_what_lies_between() {
    let mut person = Person::default();
    fold(&mut person, &row(1, city("Guangzhou"), &[]), "crm");
    assert_eq!(fold(&mut person, &row(3, city("Guangzhou"), &[]), "crm"), Outcome::Unchanged);
    assert_eq!(fold(&mut person, &row(2, city("Shenzhen"), &[]), "crm"), Outcome::Stale);
}

#[test]
fn a_row_may_win_one_field_and_lose_another() {
    let mut person = Person::default();
    fold(&mut person, &row(5, city("Guangzhou"), &[]), "crm");
    let older = Profile { display_name: "Wei".into(), ..city("Shenzhen") };
    assert_eq!(fold(&mut person, &row(4, older, &[]), "shop"), Outcome::Updated);
    assert_eq!((person.record.profile.city.as_str(), person.record.profile.display_name.as_str()), ("Guangzhou", "Wei"));
    assert_eq!(person.changed, BTreeSet::from([Field::City, Field::DisplayName]));
}

#[test]
fn a_field_that_ends_as_it_began_is_no_change_of_the_person() {
    let mut person = Person::default();
    fold(&mut person, &row(1, city("Guangzhou"), &[]), "crm");
    let mut person = Person::new(person.record);
    assert_eq!(fold(&mut person, &row(2, city("Shenzhen"), &[]), "crm"), Outcome::Updated);
    assert_eq!(fold(&mut person, &row(3, city("Guangzhou"), &[]), "crm"), Outcome::Updated);
    assert!(person.changed.is_empty() && person.stamped);
}

#[test]
fn a_cleared_field_stays_empty_against_older_values() {
    let mut person = Person::default();
    fold(&mut person, &row(2, Profile::default(), &["city"]), "crm");
    assert_eq!(fold(&mut person, &row(1, city("Guangzhou"), &[]), "crm"), Outcome::Stale);
    assert_eq!(person.record.profile.city, "");
}

#[test]
fn a_word_on_one_purpose_leaves_those_on_the_others() {
    let consents = |words: &[(Purpose, bool)]| Profile {
        consents: words.iter().map(|&(purpose, granted)| Consent { purpose, granted }).collect(),
        ..Profile::default()
    };
    let withdrawn = row(1, consents(&[(Purpose::Profiling, false)]), &[]);
    let granted = row(2, consents(&[(Purpose::Contact, true)]), &[]);
    for rows in [[&withdrawn, &granted], [&granted, &withdrawn]] {
        let mut person = Person::default();
        for row in rows {
            assert_eq!(fold(&mut person, row, "crm"), Outcome::Updated);
        }
        assert!(person.record.profile.withdraws(Purpose::Profiling));
        assert_eq!(person.record.profile, consents(&[(Purpose::Profiling, false), (Purpose::Contact, true)]));
    }
}

#[test]
fn absent_fields_are_left_untouched() {
    let mut person = Person::default();
    fold(&mut person, &row(1, city("Guangzhou"), &[]), "crm");
    let named = Profile { display_name: "Wei".into(), ..Profile::default() };
    fold(&mut person, &row(2, named, &[]), "crm");
    assert_eq!(person.record.profile.city, "Guangzhou");
}

#[test]
fn a_caller_has_the_last_word_over_a_clock_ahead() {
    let mut person = Person::default();
    let ahead = row(300, city("Shenzhen"), &[]);
    fold(&mut person, &ahead, "crm");
    person.overwrite([Field::City], &city("Guangzhou"), at(0));
    assert_eq!(fold(&mut person, &ahead, "crm"), Outcome::Stale);
    assert_eq!(person.record.profile.city, "Guangzhou");
}

#[test]
fn a_clock_more_than_ten_minutes_ahead_is_refused() {
    let ahead = row(601, city("Guangzhou"), &[]);
    assert_eq!(ahead.check_clock(at(0)).expect_err("ahead").rule, "SOURCE_TIME_AHEAD");
    assert_eq!(ahead.check_clock(at(1)), Ok(()));
}

#[test]
fn clearing_an_unknown_field_or_one_with_a_value_is_refused() {
    let clear = ["shoe_size".to_owned(), "city".to_owned()];
    let broken = Row::new("p1".into(), at(0), city("Guangzhou"), &clear, false).expect_err("two rules");
    let rules: Vec<_> = broken.iter().map(|v| v.rule.as_str()).collect();
    assert_eq!(rules, ["FIELD_UNKNOWN", "FIELD_CLEARED_AND_SET"]);
}

#[test]
fn a_deleted_person_has_no_values() {
    let broken = Row::new("p1".into(), at(0), city("Guangzhou"), &[], true).expect_err("a value");
    assert_eq!((broken[0].field.as_str(), broken[0].rule.as_str()), ("deleted", "DELETED_WITH_VALUES"));
    let row = Row::new("p1".into(), at(0), Profile::default(), &[], true).expect("no rule broken");
    assert_eq!(row, Row::deletion("p1".into(), at(0)));
}

#[test]
fn a_field_takes_rows_of_its_owner_alone_whatever_stood_there() {
    let owners = Owners::new([(Field::City, "crm".to_owned())]);
    let mut person = Person::default();
    // Before it belonged to anybody.
    fold(&mut person, &row(9, city("Shenzhen"), &[]), "shop");
    let older = person.fold(&row(1, city("Guangzhou"), &[]), "crm", &owners);
    assert_eq!((older.outcome, person.record.profile.city.as_str()), (Outcome::Updated, "Guangzhou"));
    let named = Profile { display_name: "Wei".into(), ..city("Foshan") };
    let others = person.fold(&row(20, named, &[]), "shop", &owners);
    assert_eq!(others, Fold { outcome: Outcome::Updated, ignored: vec![Field::City] });
    assert_eq!((person.record.profile.city.as_str(), person.record.profile.display_name.as_str()), ("Guangzhou", "Wei"));
}

/// Few values, times and sources, so that ties of every kind come up.
fn any_row() -> impl Strategy<Value = (Row, &'static str)> {
    let text = prop::sample::select(vec!["", "a", "b", "c"]);
    let tags = prop::collection::btree_set(prop::sample::select(vec!["x", "y"]), 0..3);
    let word = || prop::option::of(any::<bool>());
    let words = (word(), word());
    let clear = prop::sample::subsequence(vec!["display_name", "city", "tags", "consents"], 0..=4);
    let source = prop::sample::select(vec!["crm", "shop", "forum"]);
    (0..3i64, text.clone(), text, tags, words, clear, source).prop_map(|(second, name, city, tags, words, clear, source)| {
        let said = [(Purpose::Profiling, words.0), (Purpose::Contact, words.1)];
        let values = Profile {
            display_name: name.into(),
            city: city.into(),
            tags: tags.into_iter().map(str::to_owned).collect(),
            consents: said.into_iter().filter_map(|(purpose, word)| word.map(|granted| Consent { purpose, granted })).collect(),
            ..Profile::default()
        };
        let empty = |name: &&str| Field::named(name).iter().all(|field| field.is_empty(&values));
        let clear: Vec<&str> = clear.into_iter().filter(empty).collect();
        (row(second, values, &clear), source)
    })
}

/// Each field belongs to one of the three sources, to another one, or to nobody.
fn any_owners() -> impl Strategy<Value = Owners> {
    let owner = || prop::option::of(prop::sample::select(vec!["crm", "shop", "forum", "api"]));
    (owner(), owner(), owner()).prop_map(|(name, city, tags)| {
        let fields = [(Field::DisplayName, name), (Field::City, city), (Field::Tags, tags)];
        Owners::new(fields.into_iter().filter_map(|(field, owner)| Some((field, owner?.to_owned()))))
    })
}

fn folded(rows: &[(Row, &'static str)], owners: &Owners) -> Record {
    let mut person = Person::default();
    for (row, source) in rows {
        person.fold(row, source, owners);
    }
    person.record
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn rows_in_any_order_and_any_number_end_the_same(
        (rows, shuffled) in prop::collection::vec(any_row(), 1..12).prop_flat_map(|rows| {
            // Each row at least once, some of them again, in any order.
            let twice: Vec<_> = rows.iter().chain(&rows).cloned().collect();
            let again = prop::sample::subsequence(twice.clone(), 0..=twice.len());
            let all = again.prop_map({ let rows = rows.clone(); move |extra| rows.iter().cloned().chain(extra).collect::<Vec<_>>() });
            (Just(rows), all.prop_shuffle())
        }),
        owners in any_owners(),
    ) {
        prop_assert_eq!(folded(&rows, &owners), folded(&shuffled, &owners));
    }

    /// What the winner of a merge holds is what it would hold had all rows been its own.
    #[test]
    fn rows_before_a_merge_count_as_if_they_had_come_after_it(
        rows in prop::collection::vec(any_row(), 1..12), cut in any::<prop::sample::Index>(), owners in any_owners(),
    ) {
        let (winner, loser) = rows.split_at(cut.index(rows.len()));
        let mut merged = Person::new(folded(winner, &owners));
        merged.absorb(&folded(loser, &owners), &owners);
        prop_assert_eq!(merged.record, folded(&rows, &owners));
    }

    #[test]
    fn who_does_not_own_a_field_leaves_no_trace_in_it(rows in prop::collection::vec(any_row(), 1..12), owners in any_owners()) {
        let record = folded(&rows, &owners);
        for (field, stamp) in &record.provenance.0 {
            prop_assert!(!owners.excludes(*field, &stamp.source), "{:?} has a stamp of {}", field, stamp.source);
        }
    }

    #[test]
    fn a_row_that_was_folded_changes_nothing_when_it_comes_again(rows in prop::collection::vec(any_row(), 1..12), pick in any::<prop::sample::Index>()) {
        let record = folded(&rows, &Owners::default());
        let (row, source) = pick.get(&rows);
        let mut person = Person::new(record.clone());
        let outcome = fold(&mut person, row, source);
        prop_assert!(matches!(outcome, Outcome::Unchanged | Outcome::Stale), "{:?}", outcome);
        prop_assert_eq!(person, Person::new(record));
    }
}
