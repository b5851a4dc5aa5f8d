//! Finding members by name and handle.

use crate::world::{Members, PATIENCE, World, named, pairs, refused, row, violations};
use koc_chassis::ids::ProgrammeId;
use koc_proto::koc::registry::v1 as pb;
use koc_registry::domain::search;
use koc_tests::{token, wait};
use sqlx::Row;
use std::time::{Duration, Instant};
use tonic::Code;

fn request(world: &World, query: &str) -> pb::SearchMembersRequest {
    pb::SearchMembersRequest { programme_id: world.programme.clone(), query: query.into(), ..Default::default() }
}

/// Display names of those that are found, in order.
async fn found(world: &World, query: &str) -> Vec<String> {
    let answer = world.members().search_members(request(world, query)).await.expect("a page").into_inner();
    answer.members.into_iter().map(|member| member.profile.unwrap_or_default().display_name).collect()
}

fn with_handle(display_name: &str, handle: &str) -> pb::MemberProfile {
    let channels = vec![pb::Channel { platform: "WEIBO".into(), handle: handle.into(), followers: None }];
    pb::MemberProfile { channels, ..named(display_name) }
}

#[tokio::test]
async fn names_of_any_script_are_found_whole_from_their_beginning_and_by_a_part() {
    let world = World::new().await;
    for profile in [
        named("王小明"),
        named("小明"),
        named("小明同学"),
        named("明小"),
        with_handle("李雷", "Lei_Li.1990"),
        with_handle("ＡＢＣ车主", "小鹏 P7"),
        named("100%_山"),
    ] {
        world.member(profile).await;
    }
    for (query, expected) in [
        ("小明", vec!["小明", "小明同学", "王小明"]),
        ("王", vec!["王小明"]),
        ("明", vec!["明小", "小明同学", "小明", "王小明"]),
        ("lei", vec!["李雷"]),
        ("LEI LI", vec!["李雷"]),
        ("i1", vec!["李雷"]),
        ("abc", vec!["ＡＢＣ车主"]),
        ("ｃ车", vec!["ＡＢＣ车主"]),
        ("小鹏p7", vec!["ＡＢＣ车主"]),
        // Each pair of it is in a name, and it is in none.
        ("王小明小", vec![]),
        ("0山", vec!["100%_山"]),
        ("李明", vec![]),
    ] {
        assert_eq!(found(&world, query).await, expected, "{query}");
    }
    let elsewhere = pb::SearchMembersRequest { programme_id: world.another_programme().await, ..request(&world, "小明") };
    assert!(world.members().search_members(elsewhere).await.expect("a page").into_inner().members.is_empty());
}

#[tokio::test]
async fn a_new_name_is_found_and_the_old_one_no_more() {
    let world = World::new().await;
    let synced = world.upsert(vec![row("1", 1, with_handle("旧名字", "old"))]).await[0].member_id.clone();
    assert_eq!(found(&world, "旧名").await, ["旧名字"]);
    world.update(world.update_request(&synced, named("新名字"), &["profile.display_name"])).await.expect("renamed");
    assert_eq!((found(&world, "旧名").await, found(&world, "新名").await), (vec![], vec!["新名字".to_owned()]));
    let mut cleared = row("1", 2, Default::default());
    cleared.clear_fields = vec!["channels".into()];
    world.upsert(vec![cleared]).await;
    assert_eq!(found(&world, "old").await, [""; 0]);
}

#[tokio::test]
async fn pages_hold_everybody_who_is_found_once_in_order() {
    let world = World::new().await;
    for name in ["张一", "老张", "张", "张二", "小张张", "张三"] {
        world.member(named(name)).await;
    }
    let (mut names, mut next) = (Vec::new(), pb::SearchMembersRequest { page_size: 2, ..request(&world, "张") });
    loop {
        let page = world.members().search_members(next.clone()).await.expect("a page").into_inner();
        names.extend(page.members.into_iter().map(|member| member.profile.unwrap_or_default().display_name));
        next.page_token = page.next_page_token;
        if next.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names, ["张", "张三", "张二", "张一", "小张张", "老张"]);
}

#[tokio::test]
async fn who_may_not_see_persons_cannot_search_for_them() {
    let world = World::new().await;
    let token = token::token("shop", &["registry.member.read", "registry.member.write"], &["*".to_owned()]);
    let mut members = Members::new(world.registry.channel_with(Some(token), None));
    refused(members.search_members(request(&world, "小明")).await, Code::PermissionDenied, "SCOPE_MISSING");
    // One letter and mere punctuation, in full width, too: nothing of it is compared.
    for query in ["a_", "ａ", "！？"] {
        let short = violations(world.members().search_members(request(&world, query)).await);
        assert_eq!(short, pairs([("query", "QUERY_TOO_SHORT")]), "{query}");
    }
    let strange = pb::SearchMembersRequest { page_token: "x".into(), ..request(&world, "小明") };
    assert_eq!(violations(world.members().search_members(strange).await), pairs([("page_token", "PAGE_TOKEN_INVALID")]));
}

/// Names of two and three characters out of some hundred, and handles.
const FILL: &str = "
    WITH letters AS (SELECT '王李张刘陈杨黄赵吴周徐孙马朱胡郭何高林罗郑梁谢宋唐许韩冯邓曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈' AS family,
                            '伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红梅建国文辉斌宇浩凯欣雨晨佳怡子涵一诺思远' AS given)
    INSERT INTO member (
        programme_id, member_id, display_name, email, phone, region_code, city, channels, vehicles, motivations, tags, consents,
        provenance, trust_level, tier_id, tier_since, version, create_time, update_time
    )
    SELECT p.programme_id, lpad(to_hex(n), 32, '0')::uuid,
           substr(family, 1 + floor(power(random(), 2) * length(family))::int, 1) ||
               substr(given, 1 + floor(random() * length(given))::int, 1 + (n % 3 > 0)::int), '', '', '', '',
           jsonb_build_array(jsonb_build_object('platform', 'WEIBO', 'handle', 'user_' || md5(n::text), 'followers', n)),
           '[]', '[]', '[]', '[]', '{}', 'NEW', 'BASE', now(), 1, now(), now()
    FROM programme p, letters, generate_series(1, $1) AS n";

/// With `KOC_MEMBERS=1000000` among as many, and what each search took is printed.
#[tokio::test]
async fn a_search_reads_the_index_and_not_the_members() {
    let asked = std::env::var("KOC_MEMBERS").ok().map(|members| members.parse::<i32>().expect("a number"));
    let world = World::new().await;
    let admin = &world.registry.database.admin;
    sqlx::query(FILL).bind(asked.unwrap_or(20_000)).execute(admin).await.expect("filled");
    // As an older version writes them.
    let names = "INSERT INTO member_search SELECT programme_id, member_id, search_names(display_name, channels) FROM member";
    sqlx::query(names).execute(admin).await.expect("named");
    assert!(found(&world, "王").await.iter().any(|name| name.starts_with('王')), "who has no grams is found, too");
    let incomplete = "SELECT count(*) FROM member_search WHERE grams IS NULL";
    wait::until("the names to be completed", PATIENCE, async || {
        let left: i64 = sqlx::query_scalar(incomplete).fetch_one(admin).await.expect("a count");
        (left == 0).then_some(())
    })
    .await;
    sqlx::raw_sql("VACUUM ANALYZE").execute(admin).await.expect("counted");
    let plan = "EXPLAIN SELECT member_id FROM member_search s WHERE s.programme_id = $1::uuid AND grams @> $2";
    let programme = ProgrammeId(world.programme.parse().expect("an id"));
    for query in ["王明", "梅", "user1f2e", "e5"] {
        let grams: Vec<i64> = search::grams(programme, [&query.to_owned()]).into_iter().collect();
        let rows = sqlx::query(plan).bind(&world.programme).bind(grams).fetch_all(admin).await.expect("a plan");
        let lines: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert!(lines.iter().any(|line| line.contains("member_search_gram")), "{query}: {}", lines.join("\n"));
    }
    if asked.is_some() {
        for query in ["王明", "王明国", "梅", "王", "user_1f2e", "1f2e3d", "e5"] {
            let mut took = Duration::MAX;
            let mut members = 0;
            for _ in 0..3 {
                let begun = Instant::now();
                members = found(&world, query).await.len();
                took = took.min(begun.elapsed());
            }
            eprintln!("{took:>12.3?}  {query}: {members} on the page");
        }
    }
}
