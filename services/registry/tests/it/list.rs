//! Listing members.

use crate::world::{World, pairs, row, violations};
use koc_proto::koc::registry::v1 as pb;

fn list_request(world: &World, page_size: i32, page_token: &str) -> pb::ListMembersRequest {
    pb::ListMembersRequest {
        programme_id: world.programme.clone(),
        page_size,
        page_token: page_token.into(),
        ..Default::default()
    }
}

async fn list(world: &World, request: pb::ListMembersRequest) -> (Vec<String>, String) {
    let page = world.members().list_members(request).await.expect("a page").into_inner();
    (page.members.into_iter().map(|member| member.member_id).collect(), page.next_page_token)
}

/// Members in these regions, in order of creation.
async fn members_in(world: &World, regions: &[&str]) -> Vec<String> {
    let mut ids = Vec::new();
    for region in regions {
        let profile = pb::MemberProfile { region_code: (*region).into(), ..Default::default() };
        ids.push(world.member(profile).await.member_id);
    }
    ids
}

#[tokio::test]
async fn pages_hold_every_member_once_oldest_first() {
    let world = World::new().await;
    assert_eq!(list(&world, list_request(&world, 0, "")).await, (vec![], String::new()));
    let mut ids = members_in(&world, &["CN-GD"; 7]).await;

    let (first, token) = list(&world, list_request(&world, 3, "")).await;
    assert_eq!(first, ids[..3]);
    // Who comes between two pages comes last; a page may have another size.
    ids.extend(members_in(&world, &["CN-GD"]).await);
    let (second, last) = list(&world, list_request(&world, 4, &token)).await;
    assert_eq!(second, ids[3..7]);
    assert_eq!(list(&world, list_request(&world, 1, &last)).await, (ids[7..].to_vec(), String::new()));
    // A token may be used again, and a page that is just full is the last.
    assert_eq!(list(&world, list_request(&world, 5, &token)).await, (ids[3..].to_vec(), String::new()));
}

#[tokio::test]
async fn a_page_without_a_size_has_fifty_members_and_the_largest_a_thousand() {
    let world = World::new().await;
    for batch in 0..3 {
        let rows = (0..400).map(|i| row(&format!("{batch}-{i}"), 1, Default::default())).collect();
        world.upsert(rows).await;
    }
    assert_eq!(list(&world, list_request(&world, 0, "")).await.0.len(), 50);
    let (page, token) = list(&world, list_request(&world, 1_000, "")).await;
    assert_eq!(page.len(), 1_000);
    let (rest, end) = list(&world, list_request(&world, 1_000, &token)).await;
    assert_eq!((rest.len(), end.as_str()), (200, ""));
    assert!(page.iter().chain(&rest).is_sorted());

    for (page_size, rule) in [(1_001, "int.lte"), (-1, "int.gte")] {
        let found = violations(world.members().list_members(list_request(&world, page_size, "")).await);
        assert_eq!(found, pairs([("page_size", rule)]));
    }
}

#[tokio::test]
async fn filters_name_a_tier_a_region_or_both() {
    let world = World::new().await;
    let ids = members_in(&world, &["CN-GD", "CN-SH", "CN-GD", ""]).await;
    let to_core = "UPDATE member SET tier_id = 'CORE' WHERE member_id = $1::uuid";
    sqlx::query(to_core).bind(&ids[2]).execute(&world.registry.database.admin).await.expect("moved");
    let all = list_request(&world, 0, "");
    let by =
        |tier: &str, region: &str| pb::ListMembersRequest { tier_id: tier.into(), region_code: region.into(), ..all.clone() };

    assert_eq!(list(&world, by("", "CN-GD")).await.0, [ids[0].clone(), ids[2].clone()]);
    assert_eq!(list(&world, by("BASE", "")).await.0, [ids[0].clone(), ids[1].clone(), ids[3].clone()]);
    assert_eq!(list(&world, by("CORE", "CN-GD")).await.0, [ids[2].clone()]);
    assert_eq!(list(&world, by("CORE", "CN-SH")).await.0, [""; 0]);
    assert_eq!(list(&world, by("无", "省")).await.0, [""; 0]);

    let nul = violations(world.members().list_members(by("\0", "\0")).await);
    assert_eq!(nul, pairs([("tier_id", "string.no_nul"), ("region_code", "string.no_nul")]));
}

#[tokio::test]
async fn a_page_token_is_good_for_its_own_list_only() {
    let world = World::new().await;
    members_in(&world, &["CN-GD"; 3]).await;
    let request = list_request(&world, 2, "");
    let (_, token) = list(&world, request.clone()).await;
    assert!(!token.is_empty());
    let other_programme = world.another_programme().await;

    for other in [
        pb::ListMembersRequest { page_token: token.clone(), tier_id: "BASE".into(), ..request.clone() },
        pb::ListMembersRequest { page_token: token.clone(), region_code: "CN-GD".into(), ..request.clone() },
        pb::ListMembersRequest { page_token: token.clone(), programme_id: other_programme, ..request.clone() },
        pb::ListMembersRequest { page_token: token[1..].into(), ..request.clone() },
        pb::ListMembersRequest { page_token: "第二页".into(), ..request.clone() },
    ] {
        let found = violations(world.members().list_members(other).await);
        assert_eq!(found, pairs([("page_token", "PAGE_TOKEN_INVALID")]));
    }
    let long = pb::ListMembersRequest { page_token: "x".repeat(1_001), ..request };
    assert_eq!(violations(world.members().list_members(long).await), pairs([("page_token", "string.max_len")]));
}

/// Three members: of tiers, trust levels, regions, motivations and platforms that differ.
async fn three(world: &World) -> [String; 3] {
    let mut ids = Vec::new();
    for (region, motivation, platform) in [("CN-GD", 1, "DOUYIN"), ("CN-SH", 2, "WEIBO"), ("", 1, "WEIBO")] {
        let channel = |handle: &str| pb::Channel { platform: platform.into(), handle: handle.into(), followers: None };
        let profile = pb::MemberProfile {
            region_code: region.into(),
            motivations: vec![motivation],
            channels: vec![channel("a"), channel("b")],
            ..Default::default()
        };
        ids.push(world.member(profile).await.member_id);
    }
    let sql = "UPDATE member SET tier_id = 'CORE', state = 'SUSPENDED', trust_level = 'PARTNER', update_time = '2100-01-01' WHERE member_id = $1::uuid";
    sqlx::query(sql).bind(&ids[1]).execute(&world.registry.database.admin).await.expect("raised");
    ids.try_into().expect("three")
}

fn by(world: &World, filter: &str, order_by: &str) -> pb::ListMembersRequest {
    pb::ListMembersRequest { filter: filter.into(), order_by: order_by.into(), ..list_request(world, 0, "") }
}

#[tokio::test]
async fn a_filter_finds_those_that_it_holds() {
    let world = World::new().await;
    let [first, second, third] = three(&world).await;
    for (filter, expected) in [
        ("", vec![&first, &second, &third]),
        ("tier_id = CORE", vec![&second]),
        ("tier_id != CORE", vec![&first, &third]),
        ("profile.region_code = \"\"", vec![&third]),
        ("NOT profile.region_code = CN-GD", vec![&second, &third]),
        ("trust_level = NEW", vec![&first, &third]),
        ("trust_level != NEW", vec![&second]),
        ("NOT (trust_level != NEW AND trust_level != PROVEN)", vec![&first, &third]),
        ("state = SUSPENDED", vec![&second]),
        ("state != SUSPENDED", vec![&first, &third]),
        ("profile.motivations:HELPING", vec![&first, &third]),
        ("profile.channels.platform:WEIBO AND profile.motivations:HELPING", vec![&third]),
        ("(profile.region_code = CN-GD OR profile.motivations:MASTERY) AND tier_id = BASE", vec![&first]),
        ("update_time = 2100-01-01T00:00:00Z", vec![&second]),
        ("update_time != \"2100-01-01T00:00:00Z\"", vec![&first, &third]),
        ("update_time >= 2100-01-01T08:00:00+08:00 OR profile.region_code = CN-GD", vec![&first, &second]),
        ("create_time < 2020-01-01T00:00:00Z", vec![]),
        ("NOT create_time < 2020-01-01T00:00:00Z", vec![&first, &second, &third]),
        ("tier_id = \"x' OR '1'='1\"", vec![]),
    ] {
        assert_eq!(list(&world, by(&world, filter, "")).await.0.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    let both = pb::ListMembersRequest { tier_id: "BASE".into(), ..by(&world, "profile.motivations:HELPING", "") };
    assert_eq!(list(&world, pb::ListMembersRequest { region_code: "CN-GD".into(), ..both }).await.0, [first]);
}

#[tokio::test]
async fn pages_in_any_order_hold_every_member_once() {
    let world = World::new().await;
    let regions = ["CN-SH", "CN-GD", "", "CN-GD", "CN-SH", "CN-GD", "CN-BJ"];
    let ids = members_in(&world, &regions).await;
    for order_by in ["member_id", "create_time", "update_time", "tier_id", "profile.region_code"] {
        let mut expected: Vec<usize> = (0..ids.len()).collect();
        if order_by == "profile.region_code" {
            expected.sort_by_key(|i| regions[*i]);
        }
        for descending in [false, true] {
            let order_by = if descending { format!("{order_by} desc") } else { order_by.to_owned() };
            let (mut found, mut page_token) = (Vec::new(), String::new());
            loop {
                let request = pb::ListMembersRequest { page_size: 2, page_token, ..by(&world, "tier_id = BASE", &order_by) };
                let (page, next) = list(&world, request).await;
                found.extend(page);
                if next.is_empty() {
                    break;
                }
                page_token = next;
            }
            let mut expected: Vec<&String> = expected.iter().map(|i| &ids[*i]).collect();
            if descending {
                expected.reverse();
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{order_by}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_filter_and_an_order_is_told_at_once() {
    let world = World::new().await;
    members_in(&world, &["CN-GD"; 3]).await;
    let request = pb::ListMembersRequest { page_size: 2, ..by(&world, "tier_id = BASE", "create_time") };
    let (_, token) = list(&world, request.clone()).await;
    for (changed, expected) in [
        (by(&world, "profile.email = \"a@example.com\"", "profile.email"), vec!["FILTER_FIELD_UNKNOWN", "ORDER_FIELD_UNKNOWN"]),
        (by(&world, "tier_id =", "create_time up"), vec!["FILTER_SYNTAX", "ORDER_SYNTAX"]),
        (by(&world, &"(".repeat(2_000), ""), vec!["FILTER_TOO_DEEP"]),
        (by(&world, &"x".repeat(2_001), &"x".repeat(101)), vec!["string.max_len", "string.max_len"]),
        (
            pb::ListMembersRequest { page_token: token.clone(), ..by(&world, "tier_id = CORE", "create_time") },
            vec!["PAGE_TOKEN_INVALID"],
        ),
        (pb::ListMembersRequest { page_token: token, ..by(&world, "tier_id = BASE", "update_time") }, vec!["PAGE_TOKEN_INVALID"]),
    ] {
        let found: Vec<String> =
            violations(world.members().list_members(changed).await).into_iter().map(|(_, rule)| rule).collect();
        assert_eq!(found, expected);
    }
}
