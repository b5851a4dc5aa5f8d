//! What the registry's facts about members do to assignments: suspended, merged, consent withdrawn.

use crate::world::{PATIENCE, Settlement, State, World, refused};
use koc_proto::koc::{registry::v1::ConsentPurpose as Purpose, task::v1 as pb};
use koc_tests::{members::Members, wait};
use tonic::Code;

impl World {
    fn members(&self) -> Members {
        Members::new(self.registry.channel(), &self.programme)
    }

    /// Waits until a count about a member is what it should become by itself.
    async fn heard(&self, sql: &'static str, member: &str, count: i64) {
        wait::until("the registry to be heard", PATIENCE, async || {
            let found: i64 = sqlx::query_scalar(sql).bind(member).fetch_one(&self.task.database.admin).await.expect("a number");
            (found == count).then_some(())
        })
        .await;
    }

    /// The assignments that are listed for a member: each with whom it shows.
    async fn listed(&self, member: &str) -> Vec<(String, String)> {
        let request =
            pb::ListAssignmentsRequest { programme_id: self.programme.clone(), member_id: member.into(), ..Default::default() };
        let page = self.assignments().list_assignments(request).await.expect("a page").into_inner();
        page.assignments.into_iter().map(|one| (one.assignment_id, one.member_id)).collect()
    }
}

const SUSPENDED: &str = "SELECT count(*) FROM followed_member WHERE member_id = $1::uuid AND suspended";
const MERGED: &str = "SELECT count(*) FROM member_alias WHERE member_id = $1::uuid";

#[tokio::test]
async fn offers_to_who_is_suspended_end_and_work_that_was_taken_is_delivered_and_paid() {
    let world = World::new().await;
    let (members, member) = (world.members(), world.member().await);
    let (taken, open) = (world.task_with(|_| {}).await, world.task_with(|task| task.capacity = 1).await);
    let work = world.offer(&taken, &member).await.expect("offered").assignment_id;
    world.accept(&work).await.expect("accepted");
    world.wait_for(&work, State::InProgress, Settlement::Held).await;
    let offer = world.offer(&open, &member).await.expect("offered").assignment_id;

    members.suspend(&member).await;
    // Asked of the registry, so before it is told.
    refused(world.accept(&offer).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    world.wait_for(&offer, State::Expired, Settlement::None).await;
    assert_eq!(world.places(&open).await, (0, 0), "the place is another's");
    refused(world.offer(&open, &member).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    refused(world.accept(&offer).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    let told = world.wait_for_changes(&offer, 2).await;
    assert_eq!(told.len(), 2, "once");
    let done = world.finish(&work, &["article", "video"]).await;
    assert_eq!(done.state(), State::Completed);

    members.reinstate(&member).await;
    world.heard(SUSPENDED, &member, 0).await;
    let again = world.offer(&open, &member).await.expect("offered").assignment_id;
    assert_eq!(world.accept(&again).await.expect("accepted").state(), State::Reserving);
    world.wait_for(&again, State::InProgress, Settlement::Held).await;
}

#[tokio::test]
async fn an_offer_that_is_made_while_its_member_is_suspended_is_not_left_standing() {
    let world = World::new().await;
    let (task, member) = (world.task_with(|_| {}).await, world.member().await);
    // The suspension is being applied: its transaction has the member's lock, has ended the offers that it sees, and is not committed.
    let mut applying = world.task.database.admin.begin().await.expect("begun");
    let told = "INSERT INTO followed_member (programme_id, member_id, suspended, withdrawn, version) VALUES ($1::uuid, $2::uuid, true, '{}', $3)
                ON CONFLICT (programme_id, member_id) DO UPDATE SET suspended = true, version = excluded.version";
    let put = |version: i64| sqlx::query(told).bind(world.programme.clone()).bind(member.clone()).bind(version);
    sqlx::query("SELECT pg_advisory_xact_lock(x'6b746d62'::integer, hashtext($1))")
        .bind(&member)
        .execute(&mut *applying)
        .await
        .expect("locked");
    put(1_000).execute(&mut *applying).await.expect("told");
    let offer = world.offer(&task, &member);
    let applied = async {
        let waits = "SELECT count(*) FROM pg_locks
                     WHERE locktype = 'advisory' AND NOT granted AND classid = x'6b746d62'::integer::oid
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        wait::until("the offer to wait for it", PATIENCE, async || {
            let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&world.task.database.admin).await.expect("a number");
            (waiting > 0).then_some(())
        })
        .await;
        applying.commit().await.expect("applied");
    };
    let (offered, ()) = tokio::join!(offer, applied);
    // The registry, asked before, had nothing against it.
    refused(offered, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    assert_eq!(world.places(&task).await, (0, 0));
    // What was told of an older version than the registry's answer does not count.
    put(1).execute(&world.task.database.admin).await.expect("told long ago");
    world.offer(&task, &member).await.expect("offered");
}

#[tokio::test]
async fn money_that_is_asked_for_after_a_suspension_is_not_held() {
    let mut world = World::new().await;
    let (members, member) = (world.members(), world.member().await);
    let offer = world.offer(&world.task_with(|_| {}).await, &member).await.expect("offered").assignment_id;
    let budget = world.budget.stop().await;
    world.accept(&offer).await.expect("accepted");
    let task = world.task.stop().await;
    members.suspend(&member).await;
    world.start_budget(budget).await;
    wait::until("the budget to hear of it", PATIENCE, async || {
        let found: i64 =
            sqlx::query_scalar(SUSPENDED).bind(&member).fetch_one(&world.budget.database.admin).await.expect("a number");
        (found == 1).then_some(())
    })
    .await;
    world.start_task(task).await;
    let unfunded = world.wait_for(&offer, State::Unfunded, Settlement::None).await;
    assert_eq!(unfunded.unfunded.expect("why").reason, "MEMBER_SUSPENDED");
}

#[tokio::test]
async fn consent_to_take_part_ends_offers_when_it_is_withdrawn_and_no_other_does() {
    let world = World::new().await;
    let (members, task) = (world.members(), world.task_with(|_| {}).await);
    let withdrawn = "SELECT coalesce(sum(cardinality(withdrawn)), 0)::bigint FROM followed_member WHERE member_id = $1::uuid";
    for purpose in [Purpose::Participation, Purpose::Profiling, Purpose::ContentUse, Purpose::Contact] {
        let member = world.member().await;
        let offer = world.offer(&task, &member).await.expect("offered").assignment_id;
        members.consent(&member, purpose, false).await;
        world.heard(withdrawn, &member, 1).await;
        let ends = purpose == Purpose::Participation;
        let state = world.get(&offer).await.expect("there").state();
        assert_eq!(state, if ends { State::Expired } else { State::Offered }, "{purpose:?}");
        if ends {
            let unmet = refused(world.offer(&task, &member).await, Code::FailedPrecondition, "MEMBER_NOT_ELIGIBLE");
            assert_eq!(unmet["unmet"], "PARTICIPATION");
        } else {
            world.accept(&offer).await.expect("accepted");
        }
        members.consent(&member, purpose, true).await;
        world.heard(withdrawn, &member, 0).await;
    }
}

#[tokio::test]
async fn merged_members_are_one_person_who_has_a_task_once() {
    let world = World::new().await;
    let members = world.members();
    let (winner, loser) = (world.member().await, world.member().await);
    let (both, one, fresh) = (world.task_with(|_| {}).await, world.task_with(|_| {}).await, world.task_with(|_| {}).await);
    let offer = async |task: &str, member: &str| world.offer(task, member).await.expect("offered").assignment_id;
    let (kept, twice) = (offer(&both, &winner).await, offer(&both, &loser).await);
    let (spare, work) = (offer(&one, &winner).await, offer(&one, &loser).await);
    world.accept(&work).await.expect("accepted");
    world.wait_for(&work, State::InProgress, Settlement::Held).await;
    members.merge(&winner, &loser).await;

    // Of two offers the younger ends, and one beside work that was taken.
    world.wait_for(&twice, State::Expired, Settlement::None).await;
    world.wait_for(&spare, State::Expired, Settlement::None).await;
    assert_eq!(world.get(&kept).await.expect("there").state(), State::Offered);
    let all: Vec<_> = [&kept, &twice, &spare, &work].map(|one| (one.clone(), winner.clone())).into();
    assert_eq!((world.listed(&winner).await, world.listed(&loser).await), (all.clone(), all));
    assert_eq!(world.get(&work).await.expect("there").member_id, winner);
    let taken = refused(world.offer(&one, &winner).await, Code::AlreadyExists, "ASSIGNMENT_EXISTS");
    assert_eq!(taken["resource_id"], work);
    let since = world.offer(&fresh, &loser).await.expect("offered");
    assert_eq!(since.member_id, winner, "offered to the one that goes on");
    world.accept(&kept).await.expect("accepted");
    world.finish(&work, &["article", "video"]).await;

    members.unmerge(&loser).await;
    world.heard(MERGED, &loser, 0).await;
    assert_eq!(world.get(&work).await.expect("there").member_id, loser);
    assert_eq!(world.get(&since.assignment_id).await.expect("there").member_id, winner);
}

#[tokio::test]
async fn of_two_offers_to_one_person_one_is_accepted() {
    let world = World::new().await;
    let (winner, loser) = (world.member().await, world.member().await);
    let task = world.task_with(|_| {}).await;
    let offers = [
        world.offer(&task, &winner).await.expect("offered").assignment_id,
        world.offer(&task, &loser).await.expect("offered").assignment_id,
    ];
    // As if an offer had been made while the merge was told: both stand.
    sqlx::query("INSERT INTO member_alias (programme_id, member_id, leads_to) VALUES ($1::uuid, $2::uuid, $3::uuid)")
        .bind(&world.programme)
        .bind(&loser)
        .bind(&winner)
        .execute(&world.task.database.admin)
        .await
        .expect("merged");
    let (one, other) = tokio::join!(world.accept(&offers[0]), world.accept(&offers[1]));
    let (accepted, refusal) = if one.is_ok() { (one, other) } else { (other, one) };
    let accepted = accepted.expect("one of them is accepted").assignment_id;
    assert_eq!(refused(refusal, Code::AlreadyExists, "ASSIGNMENT_EXISTS")["resource_id"], accepted);
}

#[tokio::test]
async fn what_the_registry_dropped_from_its_feed_is_made_up_for_from_its_members() {
    let mut world = World::new().await;
    let members = world.members();
    let task = world.task_with(|_| {}).await;
    let (suspended, withdrew, winner, loser) =
        (world.member().await, world.member().await, world.member().await, world.member().await);
    let (first, back, idle) = (world.member().await, world.member().await, world.member().await);
    let mut offers = Vec::new();
    for member in [&suspended, &withdrew, &winner, &loser] {
        offers.push(world.offer(&task, member).await.expect("offered").assignment_id);
    }
    members.suspend(&back).await;
    world.heard(SUSPENDED, &back, 1).await;
    let away = world.task.stop().await;
    // One that leads to another that leads on, one that comes again, and one of whom nothing is kept.
    members.merge(&loser, &first).await;
    members.reinstate(&back).await;
    members.suspend(&idle).await;
    members.suspend(&suspended).await;
    members.consent(&withdrew, Purpose::Participation, false).await;
    members.merge(&winner, &loser).await;
    // As after a month without this service: what it was told is not kept any more.
    wait::until("all facts to be published", PATIENCE, async || {
        let open: i64 =
            sqlx::query_scalar("SELECT count(*) FROM outbox").fetch_one(&world.registry.database.admin).await.expect("a number");
        (open == 0).then_some(())
    })
    .await;
    for sql in ["DELETE FROM fact", "UPDATE feed_head SET dropped_position = position"] {
        sqlx::query(sql).execute(&world.registry.database.admin).await.expect("dropped");
    }
    world.start_task(away).await;

    for ended in [&offers[0], &offers[1], &offers[3]] {
        world.wait_for(ended, State::Expired, Settlement::None).await;
    }
    assert_eq!(world.get(&offers[2]).await.expect("there").state(), State::Offered);
    assert_eq!(world.get(&offers[3]).await.expect("there").member_id, winner);
    world.heard(SUSPENDED, &back, 0).await;
    world.heard(SUSPENDED, &idle, 1).await;
    let leads = "SELECT count(*) FROM member_alias AS a JOIN followed_merge AS m ON m.loser_id = a.member_id
                 WHERE a.member_id = $1::uuid AND m.winner_id <> a.leads_to";
    world.heard(leads, &first, 1).await;
    // It goes on from the head.
    members.reinstate(&suspended).await;
    world.heard(SUSPENDED, &suspended, 0).await;
    members.unmerge(&loser).await;
    world.heard(MERGED, &loser, 0).await;
    assert_eq!(world.get(&offers[3]).await.expect("there").member_id, loser);
    // The one that led to it leads to it still, and not to whom both led.
    let end: String = sqlx::query_scalar("SELECT leads_to::text FROM member_alias WHERE member_id = $1::uuid")
        .bind(&first)
        .fetch_one(&world.task.database.admin)
        .await
        .expect("it leads somewhere");
    assert_eq!(end, loser);
}
