//! How members stand, as those read it who begin to follow them.

use crate::world::{World, id, in_city, named, refused, violations};
use koc_chassis::token::all_scopes;
use koc_proto::koc::registry::v1 as pb;
use koc_tests::{members::Members, token};
use pb::ConsentPurpose as Purpose;
use tonic::{Code, Status};

async fn list(world: &World, request: pb::ListMemberStandingsRequest) -> Result<pb::ListMemberStandingsResponse, Status> {
    Ok(world.follow().list_member_standings(request).await?.into_inner())
}

/// All that is listed, page by page.
async fn listed(world: &World, programme_id: &str, page_size: i32) -> Vec<pb::MemberStanding> {
    let mut request = pb::ListMemberStandingsRequest { programme_id: programme_id.into(), page_size, page_token: String::new() };
    let mut all = Vec::new();
    for _ in 0..100 {
        let page = list(world, request.clone()).await.expect("a page");
        assert!(page.standings.len() <= 1 || page_size > 1);
        all.extend(page.standings);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
    panic!("it has no end: {all:?}");
}

#[tokio::test]
async fn who_does_not_stand_as_a_new_member_is_listed_with_what_was_told_last() {
    let world = World::new().await;
    let members = Members::new(world.registry.channel(), &world.programme);
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(members.create().await);
    }
    let [plain, suspended, withdrew, first, middle, last, parted] = ids.try_into().expect("seven");
    members.suspend(&suspended).await;
    members.consent(&withdrew, Purpose::Profiling, false).await;
    for (winner, loser) in [(&middle, &first), (&last, &middle), (&last, &parted)] {
        world.merge(winner, loser).await.expect("merged");
    }
    world.unmerge(&parted).await.expect("parted");
    let elsewhere = world.another_programme().await;
    let other = Members::new(world.registry.channel(), &elsewhere).create().await;
    Members::new(world.registry.channel(), &elsewhere).suspend(&other).await;

    let found = listed(&world, &world.programme, 1).await;

    let shown: Vec<_> = found.iter().map(|one| (one.member_id.as_str(), one.suspended, one.withdrawn_purposes.clone())).collect();
    let expected = [
        (suspended.as_str(), true, Vec::new()),
        (&withdrew, false, vec![i32::from(Purpose::Profiling)]),
        (&first, false, Vec::new()),
        (&middle, false, Vec::new()),
        (&parted, false, Vec::new()),
    ];
    assert_eq!(shown, expected, "nothing of {plain} and {last}");
    let merges: Vec<_> = found[2..].iter().map(|one| one.last_merge.clone().expect("a merge")).collect();
    let told: Vec<_> = merges.iter().map(|merge| (merge.winner_member_id.as_str(), merge.undone)).collect();
    assert_eq!(told, [(middle.as_str(), false), (&last, false), (&last, true)], "each into whom it was merged itself");
    assert!(found[..2].iter().all(|one| one.last_merge.is_none()));
    // Its version is the one that was told.
    let told = world.changes().await.iter().filter_map(crate::world::fact::<pb::MemberSuspended>).next().expect("told");
    assert_eq!((told.member_id.as_str(), told.version), (suspended.as_str(), found[0].version));

    let all = listed(&world, "", 1_000).await;
    assert_eq!(all.len(), 6);
    let of = |programme: &str| all.iter().filter(|one| one.programme_id == programme).cloned().collect::<Vec<_>>();
    assert_eq!((of(&world.programme), of(&elsewhere).len()), (found, 1));
    assert_eq!(listed(&world, &elsewhere, 1).await, of(&elsewhere));
    // Who comes again stands as a new one does.
    members.reinstate(&suspended).await;
    assert!(listed(&world, &world.programme, 1_000).await.iter().all(|one| one.member_id != suspended));
}

#[tokio::test]
async fn standings_of_all_programmes_are_for_those_who_may_enter_all() {
    let world = World::new().await;
    let token = token::token("one", &all_scopes(), std::slice::from_ref(&world.programme));
    let mut client = crate::world::MemberFeed::new(world.registry.channel_with(Some(token), None));
    let request = pb::ListMemberStandingsRequest { programme_id: world.programme.clone(), ..Default::default() };
    client.list_member_standings(request.clone()).await.expect("its own");
    let all = pb::ListMemberStandingsRequest::default();
    refused(client.list_member_standings(all).await, Code::PermissionDenied, "PROGRAMME_DENIED");
    for _ in 0..2 {
        let member = world.member(named("甲")).await.member_id;
        Members::new(world.registry.channel(), &world.programme).suspend(&member).await;
    }
    let page = list(&world, pb::ListMemberStandingsRequest { page_size: 1, ..request.clone() }).await.expect("a page");
    let elsewhere = pb::ListMemberStandingsRequest { programme_id: id(), page_token: page.next_page_token, ..request };
    assert_eq!(violations(list(&world, elsewhere).await), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
}

#[tokio::test]
async fn members_that_are_led_elsewhere_by_the_merge_of_another_have_events_of_it() {
    let world = World::new().await;
    let (first, middle, last) = (
        world.member(in_city("广州")).await.member_id,
        world.member(in_city("深圳")).await.member_id,
        world.member(in_city("珠海")).await.member_id,
    );
    world.merge(&middle, &first).await.expect("merged");
    world.merge(&last, &middle).await.expect("merged");
    world.changes().await;
    let ask = |position: &str| pb::ListMemberChangesRequest {
        programme_id: world.programme.clone(),
        position: position.into(),
        page_size: 500,
        ..Default::default()
    };
    let page = world.follow().list_member_changes(ask("")).await.expect("a page").into_inner();
    let of_first: Vec<_> = page.events.iter().filter(|event| event.member_id == first).collect();
    let newest = of_first.last().expect("events");
    assert_eq!(
        (newest.changed_fields.as_slice(), newest.merged_into_member_id.as_str()),
        (&["merged_into_member_id".to_owned()][..], last.as_str())
    );

    world.unmerge(&middle).await.expect("parted");
    world.changes().await;
    let page = world.follow().list_member_changes(ask(&page.position)).await.expect("a page").into_inner();
    let of_first: Vec<_> = page.events.iter().filter(|event| event.member_id == first).collect();
    assert_eq!(of_first.len(), 1);
    assert_eq!(of_first[0].merged_into_member_id, middle, "it goes back to whom it was merged into itself");

    // A snapshot names it with where it leads: who has it from before learns so that it is no member of its own.
    let snapshot = pb::ListMemberChangesRequest { snapshot: true, ..ask("") };
    let events = world.follow().list_member_changes(snapshot).await.expect("a page").into_inner().events;
    let shown: Vec<_> = events.iter().map(|event| (event.member_id.as_str(), event.merged_into_member_id.as_str())).collect();
    assert_eq!(shown, [(first.as_str(), middle.as_str()), (&middle, ""), (&last, "")]);
}
