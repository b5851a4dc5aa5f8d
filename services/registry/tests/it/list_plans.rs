//! How lists of members are found: by an index, whatever the filter and the order. With `KOC_MEMBERS=1000000` the table has as many rows,
//! and what each page took is printed.

use crate::world::World;
use koc_chassis::ids::ProgrammeId;
use koc_registry::{
    domain::{
        filter,
        member_list::{Field, Order},
    },
    store::member,
};
use sqlx::{AssertSqlSafe, Execute, PgConnection, Row};
use std::time::{Duration, Instant};

/// Members as the planner should see them: most of them BASE and NEW, few at the top, spread over regions, platforms and two years.
const FILL: &str = "
    INSERT INTO member (
        programme_id, member_id, display_name, email, phone, region_code, city, channels, vehicles, motivations, tags, consents,
        provenance, trust_level, tier_id, tier_since, version, create_time, update_time
    )
    SELECT p.programme_id, lpad(to_hex(n), 32, '0')::uuid, 'member ' || n, '', '',
           'CN-' || (ARRAY['GD', 'SH', 'BJ', 'ZJ', 'JS', 'SC', 'HB', 'HN', 'FJ', 'XZ'])[1 + floor(power(random(), 2) * 10)], '',
           jsonb_build_array(jsonb_build_object(
               'platform', (ARRAY['DOUYIN', 'XIAOHONGSHU', 'WEIBO', 'BILIBILI', 'ZHIHU'])[1 + floor(power(random(), 3) * 5)],
               'handle', 'h' || n, 'followers', n
           )),
           '[]', jsonb_build_array((ARRAY['HELPING', 'MASTERY', 'GATHERING', 'RECOGNITION', 'REWARD'])[1 + floor(random() * 5)]), '[]',
           '[]', '{}', CASE WHEN n % 1000 = 0 THEN 'PARTNER' WHEN n % 50 = 1 THEN 'TRUSTED' WHEN n % 10 = 2 THEN 'PROVEN' ELSE 'NEW' END,
           CASE WHEN n % 200 = 0 THEN 'APEX' WHEN n % 12 = 1 THEN 'CORE' ELSE 'BASE' END, now(), 1,
           '2024-11-01'::timestamptz + n * (interval '2 years' / $1), '2024-11-01'::timestamptz + random() * interval '2 years'
    FROM programme p, generate_series(1, $1) AS n";

const FILTERS: [&str; 21] = [
    "",
    "tier_id = APEX",
    "tier_id = BASE",
    "tier_id != BASE",
    "tier_id = NOBODY",
    "profile.region_code = CN-XZ",
    "profile.region_code != CN-GD",
    "trust_level = NEW",
    "trust_level != NEW",
    "trust_level = PARTNER",
    "state = SUSPENDED",
    "state != SUSPENDED",
    "state = SUSPENDED OR trust_level = PARTNER",
    "create_time > 2026-10-25T00:00:00Z",
    "update_time > 2026-10-31T12:00:00Z",
    "update_time != 2026-10-31T12:00:00Z",
    "profile.motivations:HELPING",
    "profile.channels.platform:ZHIHU",
    "tier_id = APEX AND profile.region_code = CN-XZ AND trust_level = PARTNER",
    "tier_id = APEX OR trust_level = PARTNER OR update_time > 2026-10-31T12:00:00Z",
    "(tier_id != BASE OR profile.channels.platform:ZHIHU) AND NOT (profile.region_code = CN-GD OR create_time < 2026-01-01T00:00:00Z)",
];
const ORDERS: [&str; 10] = [
    "member_id",
    "member_id desc",
    "create_time",
    "create_time desc",
    "update_time",
    "update_time desc",
    "tier_id",
    "tier_id desc",
    "profile.region_code",
    "profile.region_code desc",
];

#[tokio::test]
async fn every_filter_in_every_order_is_served_by_an_index() {
    let asked = std::env::var("KOC_MEMBERS").ok().map(|members| members.parse::<i32>().expect("a number"));
    let world = World::new().await;
    let admin = &world.registry.database.admin;
    sqlx::query(FILL).bind(asked.unwrap_or(30_000)).execute(admin).await.expect("filled");
    sqlx::raw_sql("VACUUM ANALYZE member").execute(admin).await.expect("counted");
    let programme = ProgrammeId::parse("programme_id", &world.programme).expect("an id");
    let mut conn = admin.acquire().await.expect("a connection");
    let (mut wrong, mut took) = (Vec::new(), Vec::new());
    for filter in FILTERS {
        for order in ORDERS {
            let found = page(&mut conn, programme, filter, order).await;
            took.push((found.took, filter, order));
            if found.plan.iter().any(|line| line.contains("Seq Scan on member")) {
                wrong.push(format!("{filter} by {order}\n{}", found.plan.join("\n")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    if asked.is_some() {
        took.sort_unstable();
        let median = took[took.len() / 2].0;
        eprintln!("{} kinds of pages of 50: median {median:?}; the slowest:", took.len());
        for (time, filter, order) in took.iter().rev().take(15) {
            eprintln!("{time:>12.3?}  {filter}  by {order}");
        }
    }
}

struct Found {
    plan: Vec<String>,
    /// The quickest of three.
    took: Duration,
}

async fn page(conn: &mut PgConnection, programme: ProgrammeId, filter: &str, order: &str) -> Found {
    let filter: Vec<_> = filter::parse::<Field>(filter).expect("a filter").into_iter().collect();
    let order = Order::parse(order).expect("an order");
    let mut sql = member::statement(programme, &filter, order, None, 51);
    let text = format!("EXPLAIN {}", sql.sql().as_str());
    let arguments = sql.build().take_arguments().expect("values").expect("values");
    let rows = sqlx::query_with(AssertSqlSafe(text), arguments).persistent(false).fetch_all(&mut *conn).await.expect("a plan");
    let plan = rows.iter().map(|row| row.get(0)).collect();
    let mut took = Duration::MAX;
    for _ in 0..3 {
        let begun = Instant::now();
        member::list(conn, programme, &filter, order, None, 51).await.expect("a page");
        took = took.min(begun.elapsed());
    }
    Found { plan, took }
}
