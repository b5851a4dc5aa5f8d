//! Merging members that are one person, and parting them again.

use crate::world::{
    Synced, World, ahead, fact, full_profile, id, identity, in_city, named, outcomes, pairs, refused, row, violations,
};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use std::time::Duration;
use tonic::{Code, Status};

impl World {
    pub fn merge_request(&self, winner: &str, loser: &str) -> pb::MergeMembersRequest {
        pb::MergeMembersRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            winner_member_id: winner.into(),
            loser_member_id: loser.into(),
            reason: "同一位车主".into(),
            etag: String::new(),
        }
    }

    pub async fn merge_with(&self, request: pb::MergeMembersRequest) -> Result<pb::Member, Status> {
        Ok(self.members().merge_members(request).await?.into_inner().member.unwrap_or_default())
    }

    pub async fn merge(&self, winner: &str, loser: &str) -> Result<pb::Member, Status> {
        self.merge_with(self.merge_request(winner, loser)).await
    }

    /// The winner and the loser.
    pub async fn unmerge(&self, loser: &str) -> Result<(pb::Member, pb::Member), Status> {
        let request = pb::UnmergeMembersRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            loser_member_id: loser.into(),
            reason: "两位车主".into(),
        };
        let answer = self.members().unmerge_members(request).await?.into_inner();
        Ok((answer.winner.unwrap_or_default(), answer.loser.unwrap_or_default()))
    }
}

/// Two members that a CRM knows as 1 and 2.
async fn two(world: &World, one: pb::MemberProfile, other: pb::MemberProfile) -> (String, String) {
    let results = world.upsert(vec![row("1", 10, one), row("2", 20, other)]).await;
    (results[0].member_id.clone(), results[1].member_id.clone())
}

#[tokio::test]
async fn the_losers_id_and_identities_lead_to_the_winner() {
    let world = World::new().await;
    let (winner, loser) = two(&world, named("何"), in_city("广州")).await;

    let merged = world.merge(&winner, &loser).await.expect("merged");

    assert_eq!(merged.member_id, winner);
    assert_eq!(merged.profile, Some(pb::MemberProfile { city: "广州".into(), ..named("何") }));
    assert_eq!(merged.external_identities, [identity("crm", "1"), identity("crm", "2")]);
    assert_eq!(world.get(&loser).await.expect("by the loser's id"), merged);
    assert_eq!(world.lookup("crm", "2").await.expect("by its identity"), merged);
    let batch =
        pb::BatchGetMembersRequest { programme_id: world.programme.clone(), member_ids: vec![loser.clone(), winner.clone()] };
    let batch = world.members().batch_get_members(batch).await.expect("both").into_inner();
    assert_eq!((batch.members, batch.missing_member_ids.len()), (vec![merged.clone(), merged.clone()], 0));
    // It is listed and found once.
    let list = pb::ListMembersRequest { programme_id: world.programme.clone(), ..Default::default() };
    assert_eq!(world.members().list_members(list).await.expect("a page").into_inner().members, std::slice::from_ref(&merged));
    let tiers = world.tiers().list_tiers(pb::ListTiersRequest { programme_id: world.programme.clone() }).await.expect("tiers");
    assert_eq!(tiers.into_inner().tiers.iter().map(|tier| tier.member_count).sum::<i64>(), 1);

    // What is written by the loser's names is written to the winner.
    let update = world.update_request(
        &loser,
        pb::MemberProfile { email: "he@example.com".into(), ..Default::default() },
        &["profile.email"],
    );
    assert_eq!(world.update(update).await.expect("updated").member_id, winner);
    let results =
        world.upsert(vec![row("2", 30, in_city("深圳")), row("2", 15, in_city("北京")), row("1", 5, named("旧"))]).await;
    assert_eq!(outcomes(&results), [Synced::Merged, Synced::Merged, Synced::Stale]);
    assert!(results.iter().all(|result| result.member_id == winner));
    let now = world.get(&loser).await.expect("found").profile.unwrap_or_default();
    assert_eq!((now.display_name.as_str(), now.city.as_str(), now.email.as_str()), ("何", "深圳", "he@example.com"));

    let changes = world.changes().await;
    let told: Vec<pb::MemberMerged> = changes.iter().filter(|change| change.subject_id == loser).filter_map(fact).collect();
    assert_eq!(told.len(), 1);
    assert_eq!((&told[0].winner_member_id, &told[0].loser_member_id), (&winner, &loser));
    assert_eq!(world.told(&winner).await[1].changed_fields, ["profile.city", "external_identities"]);
}

#[tokio::test]
async fn it_does_not_matter_whether_rows_come_before_the_merge_or_after_it() {
    let rows = || {
        let profile =
            |city: &str, name: &str, email: &str| pb::MemberProfile { email: email.into(), city: city.into(), ..named(name) };
        [
            row("1", 5, profile("广州", "甲", "")),
            row("2", 6, profile("深圳", "", "b@example.com")),
            row("2", 4, profile("", "乙", "old@example.com")),
        ]
    };
    let mut ends = Vec::new();
    for before in 0..=3 {
        let world = World::new().await;
        let (winner, loser) = two(&world, full_profile(), Default::default()).await;
        sqlx::query("UPDATE member SET provenance = '{}' WHERE member_id = $1::uuid")
            .bind(&winner)
            .execute(&world.registry.database.admin)
            .await
            .expect("undated");
        for (i, row) in rows().into_iter().enumerate() {
            if i == before {
                world.merge(&winner, &loser).await.expect("merged");
            }
            world.upsert(vec![row]).await;
        }
        if before == 3 {
            world.merge(&winner, &loser).await.expect("merged");
        }
        ends.push(world.get(&winner).await.expect("found").profile);
    }
    assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
}

#[tokio::test]
async fn points_and_badges_add_up_and_no_source_counts_twice() {
    let world = World::new().await;
    let (winner, loser) = two(&world, named("何"), named("禾")).await;
    world.badges().create_badge(world.badge_request("PIONEER", Vec::new())).await.expect("a badge");
    let award = |member: &str| pb::AwardBadgeRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member.into(),
        badge_id: "PIONEER".into(),
        source: "event/1".into(),
        reason: "first".into(),
    };
    world.badges().award_badge(award(&loser)).await.expect("given");
    world.earn(&winner, 100).await;
    let soon = prost_types::Timestamp { nanos: 0, ..ahead(Duration::from_secs(86_400)) };
    let earned = pb::EarnPointsRequest { expire_time: Some(soon), ..world.earn_request(&loser, 50) };
    let entry = world.earn_with(earned.clone()).await.expect("earned");
    world.earn(&loser, 30).await;
    world.redeem(&loser, 10).await.expect("redeemed");

    world.merge(&winner, &loser).await.expect("merged");

    let both = world.standing(&loser).await;
    assert_eq!(both, world.standing(&winner).await);
    assert_eq!((both.balance, both.lifetime_points, both.month_points, both.rank, both.ranked_count), (170, 180, 180, 1, 1));
    assert_eq!((both.next_expiring_points, both.next_expire_time), (40, Some(soon)));
    world.assert_points_add_up().await;
    let again = pb::EarnPointsRequest { request_id: id(), ..earned };
    assert_eq!(world.earn_with(again).await.expect("as before").entry_id, entry.entry_id);
    assert_eq!(world.standing(&winner).await.balance, 170);
    refused(world.reverse(&entry.entry_id, None).await, Code::FailedPrecondition, "MEMBER_MERGED");
    // Of the loser it shows what was kept under its id.
    assert_eq!(world.entries(&loser).await[0].kind(), pb::PointsEntryKind::MergeOut);
    let held =
        pb::ListMemberBadgesRequest { programme_id: world.programme.clone(), member_id: loser.clone(), ..Default::default() };
    let held = world.badges().list_member_badges(held).await.expect("a page").into_inner().awards;
    assert_eq!(held.iter().map(|award| award.member_id.as_str()).collect::<Vec<_>>(), [winner.as_str()]);
    assert_eq!(world.badges().award_badge(award(&loser)).await.expect("as before").into_inner().award, Some(held[0].clone()));
    // New points by the old id are the winner's.
    assert_eq!(world.earn(&loser, 5).await.member_id, winner);
    world.redeem(&loser, 175).await.expect("all of it");
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn an_undone_merge_gives_back_what_is_left_of_what_was_brought() {
    let world = World::new().await;
    let (winner, loser) = two(
        &world,
        pb::MemberProfile { city: "广州".into(), ..named("何") },
        pb::MemberProfile { email: "b@example.com".into(), ..in_city("深圳") },
    )
    .await;
    world.badges().create_badge(world.badge_request("PIONEER", Vec::new())).await.expect("a badge");
    world.earn(&winner, 100).await;
    let soon = prost_types::Timestamp { nanos: 0, ..ahead(Duration::from_secs(86_400)) };
    world.earn_with(pb::EarnPointsRequest { expire_time: Some(soon), ..world.earn_request(&loser, 50) }).await.expect("earned");
    let (first, second) = (world.get(&winner).await.expect("found"), world.get(&loser).await.expect("found"));
    world.merge(&winner, &loser).await.expect("merged");
    // What happens meanwhile stays with the winner: 20 of what the loser brought are spent, and an address is written.
    world.redeem(&winner, 20).await.expect("redeemed");
    world.upsert(vec![row("2", 30, pb::MemberProfile { email: "new@example.com".into(), ..Default::default() })]).await;

    let (one, other) = world.unmerge(&loser).await.expect("parted");

    let profile = |member: &pb::Member| member.profile.clone().unwrap_or_default();
    assert_eq!(profile(&one), pb::MemberProfile { email: "new@example.com".into(), ..profile(&first) });
    assert_eq!((other.member_id.as_str(), profile(&other)), (loser.as_str(), profile(&second)));
    assert_eq!((one.external_identities, other.external_identities), (first.external_identities, second.external_identities));
    let (one, other) = (world.standing(&winner).await, world.standing(&loser).await);
    assert_eq!((one.balance, one.lifetime_points, other.balance, other.lifetime_points), (100, 100, 30, 50));
    assert_eq!((other.next_expiring_points, other.next_expire_time, one.ranked_count), (30, Some(soon), 2));
    world.assert_points_add_up().await;
    let results = world.upsert(vec![row("2", 40, in_city("成都"))]).await;
    assert_eq!((outcomes(&results), &results[0].member_id), (vec![Synced::Updated], &loser));
    let changes = world.changes().await;
    let told: Vec<pb::MemberUnmerged> = changes.iter().filter_map(fact).collect();
    assert_eq!((told.len(), &told[0].loser_member_id), (1, &loser));
    refused(world.unmerge(&loser).await, Code::FailedPrecondition, "MEMBER_NOT_MERGED");
    // They may be merged again, the other way round too.
    world.merge(&loser, &winner).await.expect("merged");
    assert_eq!(world.standing(&winner).await.balance, 130);
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn chains_are_flat_and_come_apart_from_their_end() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for (i, amount) in [1, 20, 300].into_iter().enumerate() {
        let member = world.upsert(vec![row(&i.to_string(), 1, in_city(&i.to_string()))]).await[0].member_id.clone();
        world.earn(&member, amount).await;
        ids.push(member);
    }
    world.merge(&ids[1], &ids[0]).await.expect("merged");
    world.merge(&ids[2], &ids[1]).await.expect("merged");
    for i in 0..3 {
        assert_eq!(world.get(&ids[i]).await.expect("found").member_id, ids[2]);
        assert_eq!(world.lookup("crm", &i.to_string()).await.expect("found").member_id, ids[2]);
    }
    assert_eq!(world.standing(&ids[0]).await.balance, 321);
    refused(world.merge(&ids[0], &ids[2]).await, Code::FailedPrecondition, "MEMBER_MERGED");
    refused(world.merge(&ids[2], &ids[0]).await, Code::FailedPrecondition, "MEMBER_MERGED");
    refused(world.unmerge(&ids[0]).await, Code::FailedPrecondition, "MERGE_NOT_LAST");

    world.unmerge(&ids[1]).await.expect("parted");
    assert_eq!(world.get(&ids[0]).await.expect("found").member_id, ids[1]);
    assert_eq!((world.standing(&ids[1]).await.balance, world.standing(&ids[2]).await.balance), (21, 300));
    world.unmerge(&ids[0]).await.expect("parted");
    for (i, amount) in [1, 20, 300].into_iter().enumerate() {
        let member = world.get(&ids[i]).await.expect("found");
        assert_eq!((&member.member_id, member.external_identities), (&ids[i], vec![identity("crm", &i.to_string())]));
        assert_eq!(member.profile, Some(in_city(&i.to_string())));
        assert_eq!(world.standing(&ids[i]).await.balance, amount);
    }
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn what_cannot_be_merged_is_refused_with_the_reason() {
    let world = World::new().await;
    let (one, other) = two(&world, named("何"), named("禾")).await;
    assert_eq!(violations(world.merge(&one, &one).await), pairs([("loser_member_id", "MERGE_WITH_ITSELF")]));
    refused(world.merge(&one, &id()).await, Code::NotFound, "MEMBER_NOT_FOUND");
    refused(world.unmerge(&id()).await, Code::NotFound, "MEMBER_NOT_FOUND");
    refused(world.unmerge(&one).await, Code::FailedPrecondition, "MEMBER_NOT_MERGED");
    let stale = pb::MergeMembersRequest { etag: "v9".into(), ..world.merge_request(&one, &other) };
    refused(world.merge_with(stale).await, Code::Aborted, "ETAG_MISMATCH");
    sqlx::query("UPDATE member SET state = 'SUSPENDED' WHERE member_id = $1::uuid")
        .bind(&other)
        .execute(&world.registry.database.admin)
        .await
        .expect("suspended");
    refused(world.merge(&one, &other).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    refused(world.merge(&other, &one).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
}

#[tokio::test]
async fn of_merges_at_once_in_a_circle_one_wins_and_work_goes_on_meanwhile() {
    let world = World::new().await;
    for _ in 0..5 {
        let (one, other) = (world.member(named("何")).await.member_id, world.member(named("禾")).await.member_id);
        let third = world.member(named("荷")).await.member_id;
        let circle = [(&one, &other), (&other, &third), (&third, &one)];
        let merges = join_all(circle.map(|(winner, loser)| world.merge(winner, loser)));
        let points = join_all([&one, &other, &third].map(|member| world.earn(member, 10)));
        let (merges, _) = tokio::join!(merges, points);
        for merge in &merges {
            if let Err(status) = merge {
                assert_eq!(koc_chassis::fault::reason_of(status), "MEMBER_MERGED", "{status:?}");
            }
        }
        let mut ends = Vec::new();
        for member in [&one, &other, &third] {
            ends.push(world.get(member).await.expect("found").member_id);
        }
        // No circle: whatever was merged leads to a member that leads to itself.
        for end in &ends {
            assert_eq!(&world.get(end).await.expect("found").member_id, end);
        }
        let live: std::collections::BTreeSet<&String> = ends.iter().collect();
        assert_eq!(live.len(), 3 - merges.iter().filter(|merge| merge.is_ok()).count());
        let mut sum = 0;
        for member in live {
            sum += world.standing(member).await.balance;
        }
        assert_eq!(sum, 30);
    }
    world.assert_points_add_up().await;
}

#[tokio::test]
async fn a_merge_stands_in_the_history_of_both() {
    let world = World::new().await;
    let (winner, loser) = two(&world, named("何"), in_city("广州")).await;
    let request = world.merge_request(&winner, &loser);
    let merged = world.merge_with(request.clone()).await.expect("merged");
    assert_eq!(world.merge_with(request).await.expect("again"), merged);
    world.unmerge(&loser).await.expect("parted");
    for (member, other, kinds) in [
        (&winner, &loser, [pb::MemberChangeKind::GaveBack, pb::MemberChangeKind::TookIn]),
        (&loser, &winner, [pb::MemberChangeKind::Unmerged, pb::MemberChangeKind::MergedInto]),
    ] {
        let request = pb::ListMemberHistoryRequest {
            programme_id: world.programme.clone(),
            member_id: member.clone(),
            ..Default::default()
        };
        let changes = world.members().list_member_history(request).await.expect("a page").into_inner().changes;
        assert_eq!(changes.iter().map(|change| change.kind()).take(2).collect::<Vec<_>>(), kinds);
        assert!(changes[..2].iter().all(|change| change.other_member_id == *other && !change.reason.is_empty()));
        assert_eq!(changes.iter().map(|change| change.version).collect::<Vec<_>>(), [3, 2, 1]);
    }
}
