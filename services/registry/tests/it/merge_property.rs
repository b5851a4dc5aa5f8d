//! Any sequence of merges, their ends, points and rows of a CRM: ids lead where they should, nothing is lost, doubled or below zero, and when all is
//! undone everybody has what is their own.

use crate::world::{Synced, World, in_city, row};
use koc_proto::koc::registry::v1 as pb;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tonic::Status;

const MEMBERS: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    Merge { winner: usize, loser: usize },
    Unmerge { loser: usize },
    Earn { member: usize, amount: i64 },
    Redeem { member: usize, amount: i64 },
    Row { member: usize, second: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let member = || 0..MEMBERS;
    prop_oneof![
        4 => (member(), member()).prop_map(|(winner, loser)| Step::Merge { winner, loser }),
        3 => member().prop_map(|loser| Step::Unmerge { loser }),
        4 => (member(), 1..100i64).prop_map(|(member, amount)| Step::Earn { member, amount }),
        3 => (member(), 1..120i64).prop_map(|(member, amount)| Step::Redeem { member, amount }),
        3 => (member(), 10..99i64).prop_map(|(member, second)| Step::Row { member, second }),
    ]
}

/// What should be: the merges that stand, the last one last, and the points of all.
#[derive(Default)]
struct Model {
    merges: Vec<(usize, usize)>,
    points: i64,
}

impl Model {
    fn end(&self, member: usize) -> usize {
        match self.merges.iter().find(|(_, loser)| *loser == member) {
            Some((winner, _)) => self.end(*winner),
            None => member,
        }
    }

    fn merge(&mut self, winner: usize, loser: usize) -> Result<(), &'static str> {
        if winner == loser {
            return Err("FIELD_VIOLATIONS");
        }
        if self.end(winner) != winner || self.end(loser) != loser {
            return Err("MEMBER_MERGED");
        }
        self.merges.push((winner, loser));
        Ok(())
    }

    fn unmerge(&mut self, loser: usize) -> Result<(), &'static str> {
        let at = self.merges.iter().position(|(_, merged)| *merged == loser).ok_or("MEMBER_NOT_MERGED")?;
        let winner = self.merges[at].0;
        let last = self.merges.iter().rposition(|(one, other)| *one == winner || *other == winner);
        if last != Some(at) {
            return Err("MERGE_NOT_LAST");
        }
        self.merges.remove(at);
        Ok(())
    }
}

#[track_caller]
fn assert_same<T>(answer: Result<T, Status>, expected: Result<(), &'static str>, step: &Step) {
    let answer = answer.map(|_| ()).map_err(|status| koc_chassis::fault::reason_of(&status));
    assert_eq!(answer, expected.map_err(str::to_owned), "{step:?}");
}

async fn run(world: &World, case: usize, steps: &[Step]) {
    let name = |member: usize| format!("{case}-{member}");
    let rows = (0..MEMBERS).map(|member| row(&name(member), 1, in_city(&format!("城 {member}")))).collect();
    let ids: Vec<String> = world.upsert(rows).await.into_iter().map(|result| result.member_id).collect();
    let mut model = Model::default();
    for step in steps {
        match step.clone() {
            Step::Merge { winner, loser } => {
                assert_same(world.merge(&ids[winner], &ids[loser]).await, model.merge(winner, loser), step);
            }
            Step::Unmerge { loser } => assert_same(world.unmerge(&ids[loser]).await, model.unmerge(loser), step),
            Step::Earn { member, amount } => {
                assert_eq!(world.earn(&ids[member], amount).await.member_id, ids[model.end(member)]);
                model.points += amount;
            }
            Step::Redeem { member, amount } => match world.redeem(&ids[member], amount).await {
                Ok(_) => model.points -= amount,
                Err(status) => assert_eq!(koc_chassis::fault::reason_of(&status), "INSUFFICIENT_POINTS"),
            },
            Step::Row { member, second } => {
                let email = pb::MemberProfile { email: format!("{second}@example.com"), ..Default::default() };
                let result = world.upsert(vec![row(&name(member), second, email)]).await.remove(0);
                assert_eq!(result.member_id, ids[model.end(member)]);
                assert_eq!(result.outcome() == Synced::Merged, model.end(member) != member, "{step:?}");
            }
        }
    }
    check(world, &model, &ids).await;
    while let Some((_, loser)) = model.merges.last().copied() {
        model.unmerge(loser).expect("the last of all is the last of its winner");
        world.unmerge(&ids[loser]).await.expect("parted");
    }
    check(world, &model, &ids).await;
    for (member, id) in ids.iter().enumerate() {
        let found = world.get(id).await.expect("found");
        assert_eq!(found.profile.unwrap_or_default().city, format!("城 {member}"));
        let identities: Vec<_> = found.external_identities.into_iter().map(|identity| identity.external_id).collect();
        assert_eq!(identities, [name(member)]);
    }
}

async fn check(world: &World, model: &Model, ids: &[String]) {
    let mut points = 0;
    for (member, id) in ids.iter().enumerate() {
        let end = model.end(member);
        assert_eq!(world.get(id).await.expect("found").member_id, ids[end]);
        if end == member {
            points += world.standing(id).await.balance;
        }
    }
    assert_eq!(points, model.points);
    world.assert_points_add_up().await;
}

#[test]
fn whatever_is_merged_and_parted_adds_up() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = runtime.block_on(World::new());
    let cases = std::sync::atomic::AtomicUsize::new(0);
    let config = Config { cases: 16, max_shrink_iters: 40, failure_persistence: None, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..30);
    let done = TestRunner::new(config).run(&steps, |steps| {
        let case = cases.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        runtime.block_on(run(&world, case, &steps));
        Ok(())
    });
    if let Err(error) = done {
        panic!("{error}");
    }
}
