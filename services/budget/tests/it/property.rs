//! Any sequence of calls, held against a small model of the contract: money is conserved, limits hold, a retry changes nothing.

use crate::world::*;
use koc_proto::{google::r#type::Money, koc::budget::v1 as pb};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use std::{cell::RefCell, collections::HashMap, time::Duration};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Holds end half an hour past a full hour and waits last full hours: the real time that a case takes makes no difference.
const HOUR: Duration = Duration::from_secs(60 * 60);
const HALF_HOUR: i64 = 30 * 60;
/// Of each of the two envelopes.
const ALLOCATED: i64 = 1_000;
/// How far each of them may overrun.
const OVERRUN: [i64; 2] = [0, 150];

/// How many reservations are at work at a time.
const LATEST: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Reserve { envelope: usize, member: Option<usize>, amount: i64, hours: i64 },
    Commit { of: Index, amount: Option<i64>, release_rest: bool },
    Spend { of: Index, amount: Option<i64> },
    Release { of: Index, amount: Option<i64> },
    Extend { of: Index, hours: i64 },
    Reverse { of: Index, entry: Index, amount: Option<i64>, release: bool },
    Retry { of: Index },
    SetLimit { member: usize, limit: i64 },
    Wait { hours: u32 },
}

/// So weighted that holds expire with something committed of them, are committed again, and are asked for more than there is.
fn step() -> impl Strategy<Value = Step> {
    let amount = || prop::option::weighted(0.8, 1..200i64);
    let of = any::<Index>;
    let release_rest = || prop::bool::weighted(0.2);
    prop_oneof![
        6 => (0..2usize, prop::option::of(0..2usize), 1..400i64, 0..3i64)
            .prop_map(|(envelope, member, amount, hours)| Step::Reserve { envelope, member, amount, hours }),
        9 => (of(), amount(), release_rest()).prop_map(|(of, amount, release_rest)| Step::Commit { of, amount, release_rest }),
        4 => (of(), amount()).prop_map(|(of, amount)| Step::Spend { of, amount }),
        2 => (of(), amount()).prop_map(|(of, amount)| Step::Release { of, amount }),
        2 => (of(), 0..3i64).prop_map(|(of, hours)| Step::Extend { of, hours }),
        3 => (of(), of(), amount(), any::<bool>())
            .prop_map(|(of, entry, amount, release)| Step::Reverse { of, entry, amount, release }),
        3 => of().prop_map(|of| Step::Retry { of }),
        1 => (0..2usize, 0..900i64).prop_map(|(member, limit)| Step::SetLimit { member, limit }),
        3 => (1..3u32).prop_map(|hours| Step::Wait { hours }),
    ]
}

/// A call as it was sent.
#[derive(Debug, Clone)]
enum Call {
    Reserve(pb::ReserveRequest),
    Commit(pb::CommitRequest),
    Spend(pb::SpendRequest),
    Release(pb::ReleaseRequest),
    Extend(pb::ExtendRequest),
    Reverse(pb::ReverseRequest),
}

/// What was answered, in full: the reservation and what is available, or the reason with its figures.
type Answer = Result<(pb::Reservation, Option<Money>), (String, HashMap<String, String>)>;

impl Call {
    async fn send(&self, world: &World) -> Answer {
        let mut client = world.reservations();
        let told = |status: Status| {
            assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
            let info = status.get_error_details().error_info().cloned().expect("a reason");
            (info.reason, info.metadata)
        };
        let (reservation, available) = match self.clone() {
            Self::Reserve(request) => {
                let answer = client.reserve(request).await.map_err(told)?.into_inner();
                (answer.reservation, answer.envelope_available)
            }
            Self::Commit(request) => {
                let answer = client.commit(request).await.map_err(told)?.into_inner();
                (answer.reservation, answer.envelope_available)
            }
            Self::Spend(request) => (client.spend(request).await.map_err(told)?.into_inner().reservation, None),
            Self::Release(request) => {
                let answer = client.release(request).await.map_err(told)?.into_inner();
                (answer.reservation, answer.envelope_available)
            }
            Self::Extend(request) => {
                let answer = client.extend(request).await.map_err(told)?.into_inner();
                (answer.reservation, answer.envelope_available)
            }
            Self::Reverse(request) => {
                let answer = client.reverse(request).await.map_err(told)?.into_inner();
                (answer.reservation, answer.envelope_available)
            }
        };
        Ok((reservation.expect("a reservation"), available))
    }
}

/// What a reservation should be.
#[derive(Debug, Clone)]
struct Held {
    id: String,
    envelope: usize,
    member: Option<usize>,
    /// reserved, committed, spent, released
    parts: [i64; 4],
    recoverable: i64,
    /// By the case's clock, in seconds.
    expires: i64,
    /// What can be reversed, in order.
    entries: Vec<Entry>,
}

/// What a commit or a payment left in the ledger.
#[derive(Debug, Clone)]
struct Entry {
    paid: bool,
    amount: i64,
    reversed: bool,
}

/// What everything should be. A hold that is overdue may have been given back already, or not: until somebody touches it, what is
/// available lies between two bounds.
#[derive(Debug, Default)]
struct Model {
    now: i64,
    held: Vec<Held>,
    limits: [Option<i64>; 2],
    /// Which entry of its reservation the call at hand reverses.
    undone: Option<usize>,
}

type Bounds = std::ops::RangeInclusive<i64>;

impl Model {
    fn bounds(&self, of: i64, counts: impl Fn(&Held) -> bool) -> Bounds {
        let own = || self.held.iter().filter(|held| counts(held));
        let free = of - own().map(|held| held.parts[..3].iter().sum::<i64>()).sum::<i64>();
        let overdue: i64 = own().filter(|held| held.expires <= self.now).map(|held| held.parts[0]).sum();
        free..=free + overdue
    }

    fn envelope(&self, envelope: usize) -> Bounds {
        self.bounds(ALLOCATED, |held| held.envelope == envelope)
    }

    /// What the member's limit leaves, if there is one.
    fn member(&self, member: Option<usize>) -> Option<Bounds> {
        let member = member?;
        let bounds = self.bounds(self.limits[member]?, |held| held.member == Some(member));
        Some((*bounds.start()).max(0)..=(*bounds.end()).max(0))
    }

    /// Whether `asked` was rightly given or refused by what was available; true when it was given.
    fn judge(&self, asked: i64, envelope: usize, member: Option<usize>, answer: &Answer) -> bool {
        let overrun = OVERRUN[envelope];
        let (envelope, member) = (self.envelope(envelope), self.member(member));
        let Err((reason, figures)) = answer else {
            assert!(asked <= *envelope.end() + overrun, "{asked} was given of {envelope:?}");
            assert!(member.is_none_or(|member| asked <= *member.end()), "{asked} was given past the member's limit");
            return true;
        };
        let number = |name: &str| figures[name].parse::<i64>().expect("a number");
        let (available, limit) = (number("available_minor"), figures["limit_type"].as_str());
        assert_eq!(number("asked_minor"), asked);
        assert!(asked > available, "{reason}: {figures:?}");
        match reason.as_str() {
            "ENVELOPE_EXHAUSTED" => {
                let left = number("overrun_left_minor");
                assert!(limit == "ENVELOPE" && envelope.contains(&available), "{figures:?}, {envelope:?}");
                assert!(left == overrun + available.min(0) && asked > available.max(0) + left, "{figures:?}");
            }
            "MEMBER_LIMIT_EXHAUSTED" => {
                let member = member.expect("a member's limit");
                assert!(limit == "MEMBER_LIMIT" && member.contains(&available), "{figures:?}, {member:?}");
                assert!(asked <= *envelope.end() + overrun, "the envelope is judged first");
            }
            other => panic!("{other}: {figures:?}"),
        }
        false
    }

    /// Whoever touches an overdue hold gives it back first.
    fn touch(&mut self, index: usize) {
        let held = &mut self.held[index];
        if held.expires <= self.now {
            let overdue = std::mem::take(&mut held.parts[0]);
            held.parts[3] += overdue;
            held.recoverable += overdue;
        }
    }

    /// Moves what `call` should move, and checks that its answer says so.
    fn apply(&mut self, call: &Call, index: usize, answer: &Answer) {
        let exhausted = |answer: &Answer, asked: Option<i64>, available: i64| {
            let (reason, figures) = answer.as_ref().expect_err("more than there is");
            assert_eq!((reason.as_str(), figures["available_minor"].parse()), ("RESERVATION_EXHAUSTED", Ok(available)));
            assert_eq!(figures.get("asked_minor").map(|asked| asked.parse()), asked.map(Ok));
        };
        let amount = |money: &Option<Money>| money.as_ref().map(|money| minor(Some(money)));
        self.touch(index);
        let Held { parts: [reserved, committed, ..], recoverable, envelope, member, .. } = self.held[index].clone();
        match call {
            Call::Reserve(_) => unreachable!("makes a reservation"),
            Call::Commit(request) => {
                let (all, asked) = (reserved + recoverable, amount(&request.amount));
                let taken = asked.unwrap_or(all);
                if taken == 0 || taken > all {
                    return exhausted(answer, asked, all);
                }
                let again = (taken - reserved).max(0);
                if again > 0 && !self.judge(again, envelope, member, answer) {
                    return;
                }
                let held = &mut self.held[index];
                (held.parts[0], held.parts[1]) = (reserved + again - taken, committed + taken);
                held.recoverable -= again;
                held.entries.push(Entry { paid: false, amount: taken, reversed: false });
                if request.release_rest {
                    held.give_back();
                }
            }
            Call::Spend(request) => {
                let asked = amount(&request.amount);
                let taken = asked.unwrap_or(committed);
                if taken == 0 || taken > committed {
                    return exhausted(answer, asked, committed);
                }
                let held = &mut self.held[index];
                (held.parts[1], held.parts[2]) = (committed - taken, held.parts[2] + taken);
                held.entries.push(Entry { paid: true, amount: taken, reversed: false });
            }
            Call::Extend(request) => {
                if reserved + recoverable == 0 {
                    return exhausted(answer, None, 0);
                }
                if recoverable > 0 && !self.judge(recoverable, envelope, member, answer) {
                    return;
                }
                let ends = self.now + request.time_to_live.map_or(0, |ttl| ttl.seconds);
                let held = &mut self.held[index];
                (held.parts[0], held.recoverable, held.expires) = (reserved + recoverable, 0, held.expires.max(ends));
            }
            Call::Reverse(request) => {
                let nr = self.undone.unwrap_or_default();
                let held = &mut self.held[index];
                let Entry { paid, amount: moved, reversed } = held.entries[nr];
                if reversed {
                    assert_eq!(answer.as_ref().expect_err("reversed before").0, "ENTRY_REVERSED");
                    return;
                }
                let from = if paid { 2 } else { 1 };
                let (asked, available) = (amount(&request.amount).unwrap_or(moved), moved.min(held.parts[from]));
                if asked > available {
                    return exhausted(answer, Some(asked), available);
                }
                let to = if request.release { 3 } else { from - 1 };
                held.parts[from] -= asked;
                held.parts[to] += asked;
                held.entries[nr].reversed = true;
                self.touch(index);
            }
            Call::Release(request) => match amount(&request.amount) {
                Some(asked) if asked > reserved => return exhausted(answer, Some(asked), reserved),
                Some(asked) => {
                    let held = &mut self.held[index];
                    (held.parts[0], held.parts[3]) = (reserved - asked, held.parts[3] + asked);
                }
                None => self.held[index].give_back(),
            },
        }
        let (reservation, available) = answer.as_ref().expect("it was there to be moved");
        assert_eq!(parts(reservation), self.held[index].parts);
        let bounds = self.envelope(envelope);
        assert!(available.as_ref().is_none_or(|available| bounds.contains(&minor(Some(available)))));
    }
}

impl Held {
    fn give_back(&mut self) {
        self.parts[3] += std::mem::take(&mut self.parts[0]);
        self.recoverable = 0;
    }
}

/// Runs one sequence in a programme of its own. What `twice` marks is sent twice at the same time.
async fn run(world: &mut World, steps: &[(Step, bool)]) {
    world.renew().await;
    let envelopes = [world.envelope_with(ALLOCATED, OVERRUN[0]).await, world.envelope_with(ALLOCATED, OVERRUN[1]).await];
    let (world, members) = (&*world, [id(), id()]);
    let mut model = Model::default();
    let mut sent: Vec<(Call, Answer)> = Vec::new();
    for (step, twice) in steps {
        // Of the latest few, so that much happens to each.
        let made = model.held.len();
        let any = |of: &Index| (made > 0).then(|| made - 1 - of.index(made.min(LATEST)));
        let (call, of) = match step {
            Step::Wait { hours } => {
                world.budget.advance(HOUR * *hours).await;
                model.now += i64::from(*hours) * 2 * HALF_HOUR;
                continue;
            }
            Step::SetLimit { member, limit } => {
                world.set_limit(world.limit_request(&members[*member], *limit)).await.expect("a limit");
                model.limits[*member] = Some(*limit);
                continue;
            }
            Step::Retry { of } => {
                if !sent.is_empty() {
                    let (call, first) = &sent[of.index(sent.len())];
                    assert_eq!(&call.send(world).await, first, "a retry gets the first answer");
                }
                continue;
            }
            Step::Reserve { envelope, member, amount, hours } => {
                let call = Call::Reserve(pb::ReserveRequest {
                    envelope_id: envelopes[*envelope].clone(),
                    member_id: member.map(|member| members[member].clone()).unwrap_or_default(),
                    time_to_live: Some(prost_types::Duration { seconds: (2 * hours + 1) * HALF_HOUR, nanos: 0 }),
                    ..world.reserve_request(*amount)
                });
                (call, None)
            }
            Step::Commit { of, amount, release_rest } => {
                let Some(of) = any(of) else { continue };
                let request = world.commit_request(&model.held[of].id, *amount);
                (Call::Commit(pb::CommitRequest { release_rest: *release_rest, ..request }), Some(of))
            }
            Step::Spend { of, amount } => {
                let Some(of) = any(of) else { continue };
                (Call::Spend(world.spend_request(&model.held[of].id, *amount)), Some(of))
            }
            Step::Release { of, amount } => {
                let Some(of) = any(of) else { continue };
                (Call::Release(world.release_request(&model.held[of].id, *amount)), Some(of))
            }
            Step::Extend { of, hours } => {
                let Some(of) = any(of) else { continue };
                let lasting = Duration::from_secs(u64::try_from((2 * hours + 1) * HALF_HOUR).expect("positive"));
                (Call::Extend(world.extend_request(&model.held[of].id, lasting)), Some(of))
            }
            Step::Reverse { of, entry, amount, release } => {
                let Some(of) = any(of).filter(|of| !model.held[*of].entries.is_empty()) else { continue };
                let nr = entry.index(model.held[of].entries.len());
                model.undone = Some(nr);
                let entry = reversible(world, &model.held[of], nr).await;
                let request = world.reverse_request(&entry);
                (Call::Reverse(pb::ReverseRequest { amount: amount.map(fen), release: *release, ..request }), Some(of))
            }
        };
        let answer = if *twice {
            let (first, second) = tokio::join!(call.send(world), call.send(world));
            assert_eq!(first, second, "one request, one answer");
            first
        } else {
            call.send(world).await
        };
        match (of, step) {
            (Some(of), _) => model.apply(&call, of, &answer),
            (None, Step::Reserve { envelope, member, amount, hours }) => {
                if model.judge(*amount, *envelope, *member, &answer) {
                    let (reservation, _) = answer.as_ref().expect("given");
                    assert_eq!(parts(reservation), [*amount, 0, 0, 0]);
                    model.held.push(Held {
                        id: reservation.reservation_id.clone(),
                        envelope: *envelope,
                        member: *member,
                        parts: [*amount, 0, 0, 0],
                        recoverable: 0,
                        entries: Vec::new(),
                        expires: model.now + (2 * hours + 1) * HALF_HOUR,
                    });
                }
            }
            _ => unreachable!("only a reservation is new"),
        }
        sent.push((call, answer));
    }
    settle(world, &mut model, &envelopes).await;
}

/// An entry of the ledger that stands for one of the model's.
async fn reversible(world: &World, held: &Held, nr: usize) -> pb::LedgerEntry {
    let entries = world.entries_of(&held.id).await.into_iter().filter_map(|entry| match entry.kind() {
        pb::LedgerEntryKind::Commit => Some((false, entry)),
        pb::LedgerEntryKind::Spend => Some((true, entry)),
        _ => None,
    });
    let mut entries: Vec<_> = entries.collect();
    let told: Vec<_> = entries.iter().map(|(paid, entry)| (*paid, minor(entry.amount.as_ref()))).collect();
    assert_eq!(told, held.entries.iter().map(|entry| (entry.paid, entry.amount)).collect::<Vec<_>>());
    entries.swap_remove(nr).1
}

/// Everything stands as it should when what is overdue was given back.
async fn settle(world: &World, model: &mut Model, envelopes: &[String]) {
    let db = koc_chassis::postgres::Db::new(&world.budget.database.app_url, "budget", 2).expect("an address");
    // As another replica would, so that nobody waits for the service's own second.
    let (lane, work) = koc_budget::flow::lane::Lane::new(&db, koc_budget::flow::lane::OPERATIONS);
    let sweep = async {
        let mut swept = None;
        while let Some(last) = koc_budget::flow::expire_reservations::step(&db, &lane, swept).await.expect("swept") {
            swept = Some(last);
        }
        drop(lane);
    };
    tokio::join!(work, sweep);
    world.pass(Duration::ZERO).await;
    (0..model.held.len()).for_each(|index| model.touch(index));
    for held in &model.held {
        assert_eq!(parts(&world.get(&held.id).await.expect("there")), held.parts);
    }
    for (index, envelope) in envelopes.iter().enumerate() {
        let available = world.available(envelope).await;
        assert_eq!(model.envelope(index), available..=available);
    }
    let found = world.verify().await;
    assert!(found.valid, "{}", found.finding);
}

#[test]
fn any_sequence_of_calls_conserves_money_and_keeps_limits() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = RefCell::new(runtime.block_on(World::new()));
    // Few and long: each case has a programme of its own in one database, so a failing one is made smaller by running it again.
    let config = Config { cases: 6, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec((step(), prop::bool::weighted(0.2)), 1..160);
    let checked = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(run(&mut world.borrow_mut(), &steps));
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
