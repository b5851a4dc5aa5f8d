//! How the database finds what leaderboards, points, badges and tiers ask for: by an index, however many members there are. The statements are
//! those that the service sends, taken from the cache that it is built with.

use crate::world::World;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use std::{fs, path::Path};

/// Tables that grow with the members.
const LARGE: [&str; 12] = [
    "leaderboard_score",
    "points_account",
    "points_entry",
    "points_lot",
    "points_draw",
    "badge_award",
    "member",
    "tier_proposal",
    "tier_reading",
    "tier_standing",
    "tier_move",
    "tier_dry_run_member",
];
/// What statements about them have in them.
const ABOUT: [&str; 9] = [
    "leaderboard_",
    "points_",
    "badge_award",
    "tier_proposal",
    "tier_reading",
    "tier_standing",
    "tier_move",
    "tier_dry_run",
    "asked.most",
];

/// Some thousand members with points, awards and lots, as the planner should see them.
const FILL: &str = "
    INSERT INTO member
    SELECT p.programme_id, gen_random_uuid(), '', '', '', '', '', '[]', '[]', '[]', '[]', '[]', '{}', 'NEW', 'BASE', now(), 1,
           now(), now()
    FROM programme p, generate_series(1, 20000);
    INSERT INTO points_account SELECT programme_id, member_id, 5, 1 + (random() * 100000)::bigint, 2, true FROM member;
    INSERT INTO points_entry
    SELECT programme_id, member_id, s, gen_random_uuid(), 'EARN', 5, 5, 5 * s, 5 * s, 'task/' || s, 'TASK', NULL,
           now() + interval '1 day' * (random() * 300), 'filler', now()
    FROM points_account, generate_series(1, 2) AS s;
    INSERT INTO points_lot SELECT programme_id, member_id, sequence, 5, 5, 0, expire_time FROM points_entry;
    INSERT INTO points_draw SELECT programme_id, member_id, 2, sequence, 1 FROM points_lot WHERE sequence = 1;
    INSERT INTO leaderboard_score SELECT programme_id, b, member_id, lifetime_points, true
    FROM points_account, (VALUES ('LIFETIME'), ('2026-10'), ('2026-11')) AS boards (b);
    INSERT INTO leaderboard_bucket
    SELECT programme_id, board, nr, 5 FROM (SELECT DISTINCT programme_id, board FROM leaderboard_score) AS b, generate_series(1, 3000) AS nr;
    INSERT INTO badge_version SELECT programme_id, 'A', 1, 'A', '', '[]', false, false, '', '', now() FROM programme;
    INSERT INTO badge_award
    SELECT programme_id, gen_random_uuid(), member_id, 'A', 1, NULL, 'task/1', 'filler', now() FROM points_account;
    INSERT INTO tier_proposal SELECT programme_id, member_id, 0.5, 9, now(), member_id, '', now(), NULL FROM member;
    INSERT INTO tier_reading
    SELECT programme_id, member_id, now() - n * interval '91 days', 0, 1, 0, 9, 9, member_id FROM member, generate_series(1, 3) AS n;
    INSERT INTO tier_standing (programme_id, member_id, risk, risk_time)
    SELECT programme_id, member_id, CASE WHEN random() < 0.1 THEN 'FALL' ELSE 'DORMANT' END, now() + random() * interval '1 year'
    FROM member;
    INSERT INTO tier_move (programme_id, member_id, from_tier_id, to_tier_id, reason, policy_version, decision_id, actor, move_time)
    SELECT programme_id, member_id, 'BASE', 'BASE', '', 1, member_id, 'filler', now() FROM member;
    INSERT INTO tier_policy_draft
    SELECT programme_id, programme_id, '{}', '', '{}', 1, false, NULL, now(), now() FROM programme;
    INSERT INTO tier_dry_run
    SELECT programme_id, programme_id, programme_id, '{}', now(), 0, '[]', '{}', programme_id, 'filler', now(), NULL FROM programme;
    INSERT INTO tier_dry_run_member
    SELECT programme_id, programme_id, member_id, 'ROSE', 'BASE', 'CORE', '', '[]' FROM member;
    ANALYZE";

/// How a statement is done, whatever its parameters.
async fn plan(conn: &mut PgConnection, sql: &str, parameters: usize) -> Result<Vec<String>, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(format!("PREPARE planned AS {sql}"))).execute(&mut *conn).await?;
    let values = vec!["NULL"; parameters].join(", ");
    let execute =
        if parameters == 0 { "EXPLAIN EXECUTE planned".to_owned() } else { format!("EXPLAIN EXECUTE planned ({values})") };
    let plan = sqlx::raw_sql(AssertSqlSafe(execute)).fetch_all(&mut *conn).await?;
    sqlx::raw_sql("DEALLOCATE planned").execute(conn).await?;
    plan.iter().map(|row| row.try_get(0)).collect()
}

#[tokio::test]
async fn no_statement_about_honours_or_tiers_reads_a_large_table_from_end_to_end() {
    let world = World::new().await;
    let admin = &world.registry.database.admin;
    sqlx::raw_sql(FILL).execute(admin).await.expect("filled");
    let mut conn = admin.acquire().await.expect("a connection");
    // A plan for any values, as the service's statements get when they are sent often.
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *conn).await.expect("set");
    let (mut looked_at, mut wrong) = (0, Vec::new());
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx")).expect("the cache") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("text");
        let cached: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let sql = cached["query"].as_str().expect("a statement").to_owned();
        if !ABOUT.iter().any(|about| sql.contains(about)) {
            continue;
        }
        looked_at += 1;
        let parameters = cached["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        let plan = plan(&mut conn, &sql, parameters).await.unwrap_or_else(|error| panic!("{error}: {sql}"));
        let read: Vec<&String> =
            plan.iter().filter(|line| LARGE.iter().any(|table| line.contains(&format!("Seq Scan on {table} ")))).collect();
        if !read.is_empty() {
            wrong.push(format!("{sql}\n{}", plan.join("\n")));
        }
    }
    assert!(looked_at > 40, "{looked_at} statements");
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A run has just filled the table, and nobody has counted what is in it.
#[tokio::test]
async fn whom_a_run_has_seen_is_looked_up_one_by_one_though_nothing_is_known_of_the_table() {
    let world = World::new().await;
    let admin = &world.registry.database.admin;
    let fill = "
        ALTER TABLE sync_seen SET (autovacuum_enabled = false);
        INSERT INTO sync_run
        SELECT programme_id, '0190c2a5-0000-7000-8000-000000000001', 'crm', 'full', 'FULL', false, now(), 5, 'OPEN', 0, '{}', 0, 0, 0, 0,
               NULL, 'tester', now(), now(), NULL
        FROM programme;
        ALTER TABLE external_identity DISABLE TRIGGER ALL;
        INSERT INTO external_identity (programme_id, source_system, external_id, member_id, create_time)
        SELECT programme_id, 'crm', 'e' || n, gen_random_uuid(), now() FROM programme, generate_series(1, 20000) AS n;
        ANALYZE external_identity;
        INSERT INTO sync_seen SELECT programme_id, sync_run_id, 'e' || n FROM sync_run, generate_series(1, 20000) AS n;";
    sqlx::raw_sql(fill).execute(admin).await.expect("filled");
    let mut conn = admin.acquire().await.expect("a connection");
    sqlx::raw_sql("SET plan_cache_mode = force_generic_plan").execute(&mut *conn).await.expect("set");
    let mut looked_at = 0;
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx")).expect("the cache") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("text");
        let cached: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let sql = cached["query"].as_str().expect("a statement").to_owned();
        if !(sql.contains("sync_seen") && sql.contains("p.external_id")) {
            continue;
        }
        looked_at += 1;
        let parameters = cached["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        let plan = plan(&mut conn, &sql, parameters).await.unwrap_or_else(|error| panic!("{error}: {sql}")).join("\n");
        assert!(plan.contains("Index Only Scan using sync_seen_pkey") && plan.contains("external_id = p.external_id"), "{plan}");
        assert!(!plan.contains("Seq Scan on sync_seen") && !plan.contains("Seq Scan on external_identity"), "{plan}");
    }
    assert_eq!(looked_at, 1);
}
