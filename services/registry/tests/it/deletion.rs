//! Persons whom a source system deletes, and who come back.

use crate::world::{World, fact, id, identity, in_city, outcomes, pairs, row, row_violations};
use koc_proto::koc::registry::v1 as pb;
use pb::{
    MemberState::{Active, Suspended},
    MemberSuspensionCause as Cause,
    SyncOutcome::{Created, Deleted, Merged, Rejected, Stale, Unchanged, Updated},
};

fn deleted(external_id: &str, second: i64) -> pb::MemberRow {
    pb::MemberRow { profile: None, deleted: true, ..row(external_id, second, Default::default()) }
}

async fn suspend(world: &World, member_id: &str) -> pb::Member {
    let request = pb::SuspendMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.into(),
        reason: "刷单".into(),
        etag: String::new(),
    };
    world.members().suspend_member(request).await.expect("suspended").into_inner().member.expect("the member")
}

#[tokio::test]
async fn a_deleted_person_is_suspended_keeps_all_and_comes_back_with_a_later_row() {
    let world = World::new().await;
    let member = world.upsert(vec![row("1", 1, in_city("广州"))]).await[0].member_id.clone();

    let gone = world.upsert(vec![deleted("1", 5)]).await;
    assert_eq!((outcomes(&gone), gone[0].member_id.as_str()), (vec![Deleted], member.as_str()));
    let seen = world.get(&member).await.expect("there");
    assert_eq!((seen.state(), seen.suspension_cause()), (Suspended, Cause::SourceDeleted));
    assert_eq!((seen.profile.clone(), seen.external_identities.len()), (Some(in_city("广州")), 0));
    assert_eq!(seen.deleted_identities, [identity("crm", "1")]);
    assert_eq!(world.lookup("crm", "1").await.expect("still found").member_id, member);

    // What is older than the deletion brings nobody back, though it may fill a field.
    assert_eq!(outcomes(&world.upsert(vec![deleted("1", 5), row("1", 4, in_city("深圳"))]).await), [Unchanged, Updated]);
    assert_eq!(world.get(&member).await.expect("there").state(), Suspended);
    let back = world.upsert(vec![row("1", 6, Default::default()), deleted("1", 5)]).await;
    assert_eq!(outcomes(&back), [Updated, Stale]);
    let seen = world.get(&member).await.expect("there");
    assert_eq!((seen.state(), seen.suspension_cause()), (Active, Cause::Unspecified));
    assert_eq!((seen.external_identities, seen.deleted_identities.len()), (vec![identity("crm", "1")], 0));

    let changes = world.changes().await;
    let suspended: Vec<pb::MemberSuspended> = changes.iter().filter_map(fact).collect();
    assert_eq!((suspended.len(), suspended[0].version, suspended[0].cause()), (1, 3, Cause::SourceDeleted));
    let reinstated: Vec<pb::MemberReinstated> = changes.iter().filter_map(fact).collect();
    assert_eq!((reinstated.len(), reinstated[0].version), (1, 6));
    let told = world.told(&member).await;
    assert_eq!(told.iter().map(|change| change.version).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!(told[1].changed_fields, ["external_identities"]);
}

#[tokio::test]
async fn a_member_that_another_source_still_has_takes_part() {
    let world = World::new().await;
    let mut request = world.create_request(in_city("广州"));
    request.external_identities = vec![identity("crm", "1"), identity("shop", "a")];
    let member = world.create(request).await.expect("created").member_id;
    world.upsert(vec![deleted("1", 1)]).await;
    let seen = world.get(&member).await.expect("there");
    assert_eq!((seen.state(), seen.external_identities), (Active, vec![identity("shop", "a")]));
    world.send(world.batch("shop", vec![deleted("a", 1)])).await;
    assert_eq!(world.get(&member).await.expect("there").state(), Suspended);
    world.upsert(vec![row("1", 2, Default::default())]).await;
    assert_eq!(world.get(&member).await.expect("there").state(), Active);
}

#[tokio::test]
async fn whom_a_caller_suspended_stays_so_when_the_source_has_it_again() {
    let world = World::new().await;
    let rows = world.upsert(vec![row("1", 1, in_city("广州")), row("2", 1, in_city("广州"))]).await;
    let (before, after) = (rows[0].member_id.clone(), rows[1].member_id.clone());
    suspend(&world, &before).await;
    world.upsert(vec![deleted("1", 2), deleted("2", 2)]).await;
    assert_eq!(suspend(&world, &after).await.suspension_cause(), Cause::Caller);
    world.upsert(vec![row("1", 3, Default::default()), row("2", 3, Default::default())]).await;
    for member in [&before, &after] {
        let seen = world.get(member).await.expect("there");
        assert_eq!((seen.state(), seen.suspension_cause()), (Suspended, Cause::Caller));
    }
}

#[tokio::test]
async fn a_deletion_that_comes_before_the_person_is_remembered() {
    let world = World::new().await;
    let unknown = world.upsert(vec![deleted("1", 5), deleted("1", 4)]).await;
    assert_eq!((outcomes(&unknown), unknown[0].member_id.as_str()), (vec![Deleted, Unchanged], ""));
    assert_eq!(world.count("SELECT count(*) FROM external_identity").await, 0);
    assert_eq!(outcomes(&world.upsert(vec![deleted("1", 5)]).await), [Unchanged]);

    let older = world.upsert(vec![row("1", 3, in_city("广州")), row("2", 3, in_city("广州")), deleted("2", 4)]).await;
    assert_eq!(outcomes(&older), [Created, Created, Deleted]);
    for result in &older[..2] {
        let seen = world.get(&result.member_id).await.expect("there");
        assert_eq!((seen.state(), seen.suspension_cause()), (Suspended, Cause::SourceDeleted));
    }
    assert_eq!(world.count("SELECT count(*) FROM identity_tombstone").await, 0);
    assert_eq!(outcomes(&world.upsert(vec![row("1", 6, Default::default())]).await), [Updated]);
    assert_eq!(world.lookup("crm", "1").await.expect("found").state(), Active);
}

#[tokio::test]
async fn a_deleted_row_has_no_values() {
    let world = World::new().await;
    let both = pb::MemberRow { deleted: true, ..row("1", 1, in_city("广州")) };
    let cleared = pb::MemberRow { clear_fields: vec!["city".into()], ..deleted("2", 1) };
    let results = world.upsert(vec![both, cleared]).await;
    assert_eq!(outcomes(&results), [Rejected, Rejected]);
    for result in &results {
        assert_eq!(row_violations(result), pairs([("deleted", "DELETED_WITH_VALUES")]));
    }
}

#[tokio::test]
async fn an_identity_of_a_merged_member_is_deleted_from_the_one_that_goes_on() {
    let world = World::new().await;
    let rows = world.upsert(vec![row("1", 1, in_city("广州")), row("2", 1, in_city("深圳"))]).await;
    let request = pb::MergeMembersRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        winner_member_id: rows[0].member_id.clone(),
        loser_member_id: rows[1].member_id.clone(),
        reason: "同一人".into(),
        etag: String::new(),
    };
    world.members().merge_members(request).await.expect("merged");
    assert_eq!(outcomes(&world.upsert(vec![deleted("1", 2)]).await), [Deleted]);
    let seen = world.get(&rows[0].member_id).await.expect("there");
    assert_eq!((seen.state(), seen.external_identities), (Active, vec![identity("crm", "2")]));
    assert_eq!(outcomes(&world.upsert(vec![deleted("2", 2)]).await), [Deleted]);
    assert_eq!(world.get(&rows[1].member_id).await.expect("leads on").state(), Suspended);
    let back = world.upsert(vec![row("2", 3, Default::default())]).await;
    assert_eq!((outcomes(&back), &back[0].member_id), (vec![Merged], &rows[0].member_id));
    assert_eq!(world.get(&rows[0].member_id).await.expect("there").state(), Active);
}
