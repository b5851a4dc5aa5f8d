//! Any sequence of reservations, amendments, transfers and a closing, held against a small model of the tree: what funding gave is what is
//! allocated, and the sums hold at every level.

use crate::{planner::*, world::*};
use koc_proto::koc::budget::v1::{self as pb, OpenReservations};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use std::cell::RefCell;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Of [`branches`]: names, what each is a part of, and what it holds itself.
const NAMES: [&str; 6] = ["core", "sh", "bj", "sh kits", "sh travel", "reserve"];
const PARENTS: [Option<usize>; 6] = [None, Some(0), Some(0), Some(1), Some(1), None];
const OWN: [i64; 6] = [100, 50, 300, 250, 300, 100];
const LEAVES: [usize; 3] = [2, 3, 4];

#[derive(Debug, Clone)]
enum Step {
    Reserve { leaf: usize, amount: i64 },
    Commit { of: Index, amount: i64, release_rest: bool },
    Spend { of: Index },
    Release { of: Index },
    Propose { envelope: usize, by: i64 },
    Transfer { from: usize, to: usize, amount: i64 },
    Approve { of: Index },
    Close { release: bool },
}

fn step() -> impl Strategy<Value = Step> {
    let of = any::<Index>;
    prop_oneof![
        6 => (0..3usize, 1..200i64).prop_map(|(leaf, amount)| Step::Reserve { leaf: LEAVES[leaf], amount }),
        4 => (of(), 1..150i64, any::<bool>()).prop_map(|(of, amount, release_rest)| Step::Commit { of, amount, release_rest }),
        3 => of().prop_map(|of| Step::Spend { of }),
        2 => of().prop_map(|of| Step::Release { of }),
        4 => (0..6usize, -120..120i64).prop_map(|(envelope, by)| Step::Propose { envelope, by }),
        4 => (0..6usize, 0..6usize, 1..120i64).prop_map(|(from, to, amount)| Step::Transfer { from, to, amount }),
        8 => of().prop_map(|of| Step::Approve { of }),
        1 => any::<bool>().prop_map(|release| Step::Close { release }),
    ]
}

/// What each envelope holds itself: allocated, reserved, committed, spent. What a proposal would change, and upon which version.
#[derive(Debug, Clone)]
struct Model {
    own: [[i64; 4]; 6],
    held: Vec<(String, usize)>,
    proposed: Vec<(String, Proposal, u32)>,
    version: u32,
    closed: bool,
}

#[derive(Debug, Clone)]
enum Proposal {
    Moves([i64; 6]),
    Close { release: bool },
}

impl Model {
    fn available(&self, envelope: usize) -> i64 {
        let [allocated, reserved, committed, spent] = self.own[envelope];
        allocated - reserved - committed - spent
    }

    fn total(&self, envelope: usize) -> i64 {
        let below = (0..6).filter(|child| PARENTS[*child] == Some(envelope));
        self.own[envelope][0] + below.map(|child| self.total(child)).sum::<i64>()
    }

    /// Whether the reserve's share would be within 5 and 15 percent.
    fn share_fits(&self, moves: &[i64; 6]) -> bool {
        let after = |envelope: usize| self.own[envelope][0] + moves[envelope];
        let (reserve, total) = (after(5), (0..6).map(after).sum::<i64>());
        reserve * 100 >= total * 5 && reserve * 100 <= total * 15
    }

    fn can(&self, moves: &[i64; 6]) -> bool {
        (0..6).all(|envelope| moves[envelope] >= 0 || self.available(envelope) >= -moves[envelope])
    }
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// A proposal is made unless it breaks a rule, which it is then refused for.
fn proposed(model: &mut Model, moves: [i64; 6], answer: Result<pb::Amendment, Status>) {
    match answer {
        Ok(amendment) => {
            assert!(!model.closed && model.can(&moves) && model.share_fits(&moves), "{moves:?} upon {model:?}");
            let change = minor(amendment.total_after.as_ref()) - minor(amendment.total_before.as_ref());
            assert_eq!(change, moves.iter().sum::<i64>());
            model.proposed.push((amendment.amendment_id, Proposal::Moves(moves), model.version));
        }
        Err(status) if status.code() == Code::InvalidArgument => {
            assert!(!model.share_fits(&moves) || moves == [0; 6] || !model.can(&moves), "{moves:?} upon {model:?}: {status:?}");
        }
        Err(status) => match reason(&status).as_str() {
            "PLAN_STATE" => assert!(model.closed),
            "ENVELOPE_EXHAUSTED" => assert!(!model.can(&moves)),
            other => panic!("{other}: {moves:?} upon {model:?}"),
        },
    }
}

fn approved(model: &mut Model, of: usize, answer: Result<pb::Amendment, Status>) {
    let (_, proposal, version) = model.proposed[of].clone();
    let held = model.own.iter().map(|own| own[1]).sum::<i64>();
    let expected = match &proposal {
        _ if version == u32::MAX => Some("AMENDMENT_STATE"),
        Proposal::Moves(_) if model.closed => Some("PLAN_STATE"),
        _ if version != model.version => Some("AMENDMENT_CONFLICT"),
        Proposal::Moves(moves) => (!model.can(moves)).then_some("ENVELOPE_EXHAUSTED"),
        Proposal::Close { release } => (held > 0 && !release).then_some("OPEN_RESERVATIONS"),
    };
    match (answer, expected) {
        (Err(status), Some(expected)) => assert_eq!(reason(&status), expected, "{proposal:?} upon {model:?}"),
        (Ok(_), None) => {
            match proposal {
                Proposal::Moves(moves) => (0..6).for_each(|envelope| model.own[envelope][0] += moves[envelope]),
                Proposal::Close { .. } => close(model),
            }
            model.version += 1;
            model.proposed[of].2 = u32::MAX;
        }
        (answer, expected) => panic!("{answer:?} where {expected:?} was expected: {proposal:?} upon {model:?}"),
    }
}

fn close(model: &mut Model) {
    model.closed = true;
    for own in &mut model.own {
        *own = [own[2] + own[3], 0, own[2], own[3]];
    }
}

async fn run(world: &mut World, steps: &[Step]) {
    world.renew().await;
    let world = &*world;
    let tree = world.active(world.tree_request()).await;
    let own = OWN.map(|allocated| [allocated, 0, 0, 0]);
    let mut model = Model { own, held: Vec::new(), proposed: Vec::new(), version: 0, closed: false };
    for step in steps {
        apply(world, &tree, &mut model, step).await;
    }
    // Everything stands as it should, in the rows, in the sums, and in the ledger.
    let summary = world.sums(&tree.plan).await;
    let mut funded = 0;
    for (index, name) in NAMES.iter().enumerate() {
        let shown = summary.envelopes.iter().find(|e| e.display_name == *name).and_then(|e| e.balances.as_ref());
        assert_eq!(minor(shown.and_then(|b| b.allocated.as_ref())), model.total(index), "{name}");
        assert_eq!(world.available(&tree.id(name)).await, model.available(index), "{name}");
        for entry in world.entries(&tree.id(name)).await {
            let amount = minor(entry.amount.as_ref());
            match (entry.credit_account(), entry.debit_account()) {
                (pb::LedgerAccount::Funding, _) => funded += amount,
                (_, pb::LedgerAccount::Funding) => funded -= amount,
                _ => {}
            }
        }
    }
    let total = summary.total.as_ref().expect("a total");
    let sum = |part: usize| model.own.iter().map(|own| own[part]).sum::<i64>();
    assert_eq!((funded, minor(total.allocated.as_ref())), (sum(0), sum(0)), "what funding gave is what is allocated");
    assert_eq!(standing(total)[..3], [sum(1), sum(2), sum(3)]);
    let found = world.verify().await;
    assert!(found.valid, "{}", found.finding);
}

async fn apply(world: &World, tree: &Tree, model: &mut Model, step: &Step) {
    let any = |of: &Index, len: usize| (len > 0).then(|| of.index(len));
    match step {
        Step::Reserve { leaf, amount } => match world.reserve_in(&tree.id(NAMES[*leaf]), *amount).await {
            Ok(held) => {
                assert!(!model.closed && model.available(*leaf) >= *amount);
                model.own[*leaf][1] += amount;
                model.held.push((held.reservation_id, *leaf));
            }
            Err(status) if model.closed => assert_eq!(reason(&status), "PLAN_STATE"),
            Err(status) => {
                assert!(model.available(*leaf) < *amount);
                assert_eq!(reason(&status), "ENVELOPE_EXHAUSTED");
            }
        },
        Step::Commit { of, amount, release_rest } => {
            let Some((id, leaf)) = any(of, model.held.len()).map(|of| model.held[of].clone()) else { return };
            let request = world.commit_request(&id, Some(*amount));
            let request = pb::CommitRequest { release_rest: *release_rest, ..request };
            let before = parts(&world.get(&id).await.expect("there"));
            if let Ok(answer) = world.reservations().commit(request).await {
                let after = parts(answer.into_inner().reservation.as_ref().expect("a reservation"));
                model.own[leaf][1] += after[0] - before[0];
                model.own[leaf][2] += after[1] - before[1];
                assert_eq!(after[1] - before[1], *amount);
            } else {
                assert!(before[0] < *amount);
            }
        }
        Step::Spend { of } => {
            let Some((id, leaf)) = any(of, model.held.len()).map(|of| model.held[of].clone()) else { return };
            let owed = parts(&world.get(&id).await.expect("there"))[1];
            // In a closed plan too.
            assert_eq!(world.spend(&id, None).await.is_ok(), owed > 0);
            model.own[leaf][2] -= owed;
            model.own[leaf][3] += owed;
        }
        Step::Release { of } => {
            let Some((id, leaf)) = any(of, model.held.len()).map(|of| model.held[of].clone()) else { return };
            let held = parts(&world.get(&id).await.expect("there"))[0];
            world.release(&id, None).await.expect("given back");
            model.own[leaf][1] -= held;
        }
        Step::Propose { envelope, by } => {
            // The envelope alone: what stands above it gives or takes the difference.
            let total = model.total(*envelope) + by;
            if total < 0 {
                return;
            }
            let mut moves = [0; 6];
            moves[*envelope] += by;
            if let Some(parent) = PARENTS[*envelope] {
                moves[parent] -= by;
            }
            let answer = world.propose(&tree.plan, &[(tree.id(NAMES[*envelope]), total)]).await;
            proposed(model, moves, answer);
        }
        Step::Transfer { from, to, amount } => {
            let answer = world.transfer(&tree.plan, &tree.id(NAMES[*from]), &tree.id(NAMES[*to]), *amount).await;
            let mut moves = [0; 6];
            moves[*from] -= amount;
            moves[*to] += amount;
            proposed(model, moves, answer);
        }
        Step::Approve { of } => {
            let Some(of) = any(of, model.proposed.len()) else { return };
            let answer = world.approve_amendment("controller", &model.proposed[of].0).await;
            approved(model, of, answer);
        }
        Step::Close { release } => {
            let open = if *release { OpenReservations::Release } else { OpenReservations::Refuse };
            let held = model.own.iter().map(|own| own[1]).sum::<i64>();
            let idle = held == 0 && (0..6).all(|envelope| model.available(envelope) == 0);
            match world.close(&tree.plan, open, "").await {
                Ok(closing) if closing.state() == pb::AmendmentState::Applied => {
                    assert!(idle && !model.closed);
                    close(model);
                    model.version += 1;
                }
                Ok(closing) => {
                    assert!(!model.closed && (held == 0 || *release));
                    model.proposed.push((closing.amendment_id, Proposal::Close { release: *release }, model.version));
                }
                Err(status) => match reason(&status).as_str() {
                    "PLAN_STATE" => assert!(model.closed),
                    "OPEN_RESERVATIONS" => assert!(held > 0 && !release),
                    other => panic!("{other}: {model:?}"),
                },
            }
        }
    }
}

#[test]
fn any_sequence_of_changes_conserves_money_and_its_sums_at_every_level() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = RefCell::new(runtime.block_on(World::new()));
    // Few and long, as the other sequences of calls are.
    let config = Config { cases: 6, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 20..120);
    let checked = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(run(&mut world.borrow_mut(), &steps));
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
