//! Points by rule, and any sequence of movements.

use super::*;
use proptest::prelude::*;
use uuid::Uuid;

fn at(hour: i64) -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::hours(500_000 + hour)
}

fn account() -> Account {
    Account { member: MemberId(Uuid::nil()), balance: 0, lifetime: 0, last_sequence: 0, listed: true, lots: BTreeMap::new() }
}

fn source(reference: &str) -> Source {
    Source { reference: reference.to_owned(), reason_code: "TEST".to_owned() }
}

/// Acts at an hour, with ids that count on from the account's entries.
fn acting<T>(hour: i64, last: i64, act: impl FnOnce(&mut Act<'_>) -> T) -> T {
    let mut next = last;
    let mut ids = || {
        next += 1;
        EntryId(Uuid::from_u128(u128::try_from(next).expect("from 1")))
    };
    act(&mut Act { actor: "tester", now: at(hour), ids: &mut ids })
}

impl Account {
    fn earns(&mut self, amount: i64, expires: Option<i64>, hour: i64) -> Entry {
        let earning = Earning { source: source("task/1"), amount, expire_time: expires.map(at) };
        acting(hour, self.last_sequence, |act| self.earn(earning, act))
    }

    fn redeems(&mut self, amount: i64, hour: i64) -> Result<(Entry, Vec<Draw>), Refusal> {
        acting(hour, self.last_sequence, |act| self.redeem(source("order/1"), amount, act))
    }

    fn expires(&mut self, hour: i64) -> Vec<Entry> {
        acting(hour, self.last_sequence, |act| self.expire_due(act))
    }

    fn reverses(&mut self, origin: &Entry, draws: &[Draw], amount: i64, hour: i64) -> Result<Entry, Refusal> {
        acting(hour, self.last_sequence, |act| self.reverse(origin, draws, amount, act))
    }

    fn left(&self) -> Vec<i64> {
        self.lots.values().map(|lot| lot.remaining).collect()
    }
}

#[test]
fn what_expires_first_is_redeemed_first_and_what_never_expires_last() {
    let mut account = account();
    account.earns(10, None, 0);
    account.earns(10, Some(9), 0);
    account.earns(10, Some(5), 0);
    account.earns(10, Some(9), 0);
    let (entry, draws) = account.redeems(25, 1).expect("40 are there");
    assert_eq!((entry.change, entry.balance_after, entry.sequence), (-25, 15, 5));
    let drawn: Vec<_> = draws.iter().map(|draw| (draw.lot_sequence, draw.amount)).collect();
    assert_eq!(drawn, [(3, 10), (2, 10), (4, 5)]);
    assert_eq!(account.left(), [10, 0, 0, 5]);
}

#[test]
fn more_than_the_balance_is_refused_with_both_figures_and_moves_nothing() {
    let mut account = account();
    account.earns(10, None, 0);
    let before = account.clone();
    let refusal = account.redeems(11, 1).expect_err("one too many");
    assert_eq!(refusal, Refusal::Insufficient { member: account.member, asked: 11, balance: 10 });
    assert_eq!(account, before);
}

#[test]
fn each_lot_that_is_over_expires_with_an_entry_of_its_own_at_the_instant_it_says() {
    let mut account = account();
    account.earns(10, Some(5), 0);
    account.earns(7, Some(4), 0);
    account.earns(3, Some(6), 0);
    account.redeems(2, 1).expect("there");
    let expired: Vec<_> = account.expires(5).iter().map(|e| (e.origin.map(|o| o.sequence), e.change, e.balance_after)).collect();
    assert_eq!(expired, [(Some(2), -5, 13), (Some(1), -10, 3)]);
    assert_eq!(account.expires(5), []);
    assert_eq!(account.lifetime, 20);
}

#[test]
fn an_earning_that_was_redeemed_is_taken_back_as_far_as_there_is_something() {
    let mut account = account();
    let wrong = account.earns(100, None, 0);
    account.earns(30, None, 0);
    account.redeems(60, 1).expect("there");
    let entry = account.reverses(&wrong, &[], 100, 2).expect("an earning");
    assert_eq!((entry.change, entry.shortfall(), entry.balance_after, entry.lifetime_after), (-70, 30, 0, 30));
}

#[test]
fn what_a_reversal_fell_short_of_is_made_up_before_a_cancelled_redemption_gives_anything_back() {
    let mut account = account();
    let wrong = account.earns(100, None, 0);
    let (order, draws) = account.redeems(60, 1).expect("there");
    assert_eq!(account.reverses(&wrong, &[], 100, 2).expect("an earning").shortfall(), 60);
    let entry = account.reverses(&order, &draws, 60, 3).expect("a redemption");
    assert_eq!((entry.change, entry.shortfall(), entry.balance_after), (0, 60, 0));
}

#[test]
fn what_would_have_expired_meanwhile_comes_back_for_thirty_days() {
    let mut account = account();
    account.earns(10, Some(5), 0);
    account.earns(10, Some(9_000), 0);
    let (order, draws) = account.redeems(15, 1).expect("there");
    let entry = account.reverses(&order, &draws, 15, 6).expect("a redemption");
    assert_eq!((entry.change, entry.balance_after), (15, 20));
    assert_eq!(account.left(), [10, 10]);
    assert_eq!(account.lots[&1].expire_time, Some(at(6) + RETURN_LIFE));
    assert_eq!(account.lots[&2].expire_time, Some(at(9_000)));
}

#[test]
fn part_of_a_redemption_comes_back_where_it_lives_longest() {
    let mut account = account();
    account.earns(10, Some(5), 0);
    account.earns(10, None, 0);
    let (order, draws) = account.redeems(20, 1).expect("there");
    account.reverses(&order, &draws, 12, 2).expect("a part");
    assert_eq!(account.left(), [2, 10]);
}

#[test]
fn more_than_the_entry_and_entries_that_nobody_made_are_not_reversed() {
    let mut account = account();
    let earning = account.earns(10, Some(5), 0);
    let refusal = account.reverses(&earning, &[], 11, 1).expect_err("too much");
    assert_eq!(refusal, Refusal::ExceedsEntry { entry: earning.id, asked: 11, amount: 10 });
    let expiry = account.expires(5).remove(0);
    let refusal = account.reverses(&expiry, &[], 10, 6).expect_err("an expiry");
    assert_eq!(refusal, Refusal::NotReversible { entry: expiry.id, kind: Kind::Expire });
    let reversal = account.reverses(&earning, &[], 4, 6).expect("all gone, and lifetime falls");
    assert_eq!((reversal.change, reversal.lifetime_after), (0, 6));
    assert!(account.reverses(&reversal, &[], 4, 6).is_err());
}

#[test]
fn points_that_are_over_before_they_are_given_are_refused() {
    let earning = |hour| Earning { source: source("task/1"), amount: 1, expire_time: Some(at(hour)) };
    assert_eq!(earning(5).check_time(at(5)).expect_err("over").rule, "EXPIRE_TIME_PAST");
    assert_eq!(earning(6).check_time(at(5)), Ok(()));
}

#[derive(Debug, Clone)]
enum Step {
    Earn { amount: i64, expires: Option<i64> },
    Redeem { amount: i64 },
    Reverse { of: usize, amount: i64 },
    Wait { hours: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..100i64, prop::option::of(1..1_500i64)).prop_map(|(amount, expires)| Step::Earn { amount, expires }),
        4 => (1..150i64).prop_map(|amount| Step::Redeem { amount }),
        3 => (0..40usize, 1..120i64).prop_map(|(of, amount)| Step::Reverse { of, amount }),
        2 => (1..800i64).prop_map(|hours| Step::Wait { hours }),
    ]
}

proptest! {
    #[test]
    fn the_balance_is_the_sum_of_entries_and_of_lots_and_never_below_zero(steps in prop::collection::vec(step(), 1..60)) {
        let (mut account, mut hour) = (account(), 0);
        let mut entries: Vec<(Entry, Vec<Draw>, bool)> = Vec::new();
        for step in steps {
            let expired = account.expires(hour);
            entries.extend(expired.into_iter().map(|entry| (entry, Vec::new(), false)));
            match step {
                Step::Earn { amount, expires } => {
                    let entry = account.earns(amount, expires.map(|after| hour + after), hour);
                    entries.push((entry, Vec::new(), false));
                }
                Step::Redeem { amount } => {
                    let fits = amount <= account.balance;
                    let redeemed = account.redeems(amount, hour);
                    prop_assert_eq!(redeemed.is_ok(), fits);
                    entries.extend(redeemed.map(|(entry, draws)| (entry, draws, false)));
                }
                Step::Reverse { of, amount } => {
                    let Some((origin, draws, reversed)) = entries.get_mut(of) else { continue };
                    if std::mem::replace(reversed, true) {
                        continue;
                    }
                    let (origin, draws) = (origin.clone(), draws.clone());
                    let fits = amount <= origin.amount && matches!(origin.kind, Kind::Earn | Kind::Redeem);
                    let done = account.reverses(&origin, &draws, amount, hour);
                    prop_assert_eq!(done.is_ok(), fits);
                    if done.is_err() {
                        entries[of].2 = false;
                    }
                    entries.extend(done.map(|entry| (entry, Vec::new(), false)));
                }
                Step::Wait { hours } => hour += hours,
            }
            prop_assert!(account.balance >= 0 && account.lifetime >= 0);
            prop_assert_eq!(account.balance, entries.iter().map(|(entry, ..)| entry.change).sum::<i64>());
            prop_assert_eq!(account.balance, account.lots.values().map(|lot| lot.remaining).sum::<i64>());
            prop_assert!(account.lots.values().all(|lot| (0..=lot.amount).contains(&lot.remaining)));
            prop_assert!(entries.iter().zip(1..).all(|((entry, ..), nr)| entry.sequence == nr && entry.shortfall() >= 0));
            if let Some((last, ..)) = entries.last() {
                prop_assert_eq!((last.balance_after, last.lifetime_after), (account.balance, account.lifetime));
            }
        }
    }
}
