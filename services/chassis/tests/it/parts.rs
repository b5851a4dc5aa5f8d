//! The feed's table in parts: made ahead, read across, dropped when all in them is old, and made of the table that was there before.

use crate::mini::{self, count, replica};
use koc_chassis::{
    feed::{self, Feed},
    outbox::{self, NewFact},
    postgres::{CHASSIS_MIGRATIONS, Db},
    sequencer,
};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::service;
use sqlx::{ConnectOptions, migrate::Migrator};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Positions in a part.
const PART: i64 = 5_000_000;
const DAYS: Option<u16> = Some(30);

/// Tells so much and gives it places.
async fn tell(db: &Db, facts: usize) {
    let fact = NewFact::new(Uuid::nil().into(), Uuid::now_v7(), &pb::MemberChanged::default());
    let mut tx = db.begin().await.expect("a transaction");
    outbox::append(&mut tx, &vec![fact; facts]).await.expect("facts");
    tx.commit().await.expect("commits");
    assert_eq!(sequencer::Sequencer::new(db).step(None).await.expect("sequences"), facts);
}

async fn positions(feed: &Feed, after: i64) -> Vec<i64> {
    feed.list(None, after, 10).await.expect("a page").changes.iter().map(|change| change.position).collect()
}

#[tokio::test]
async fn facts_are_read_across_parts_and_an_old_part_goes_as_a_whole() {
    let database = service::database(&mini::schema()).await;
    let db = replica(&database);
    let feed = Feed::start(db.clone(), CancellationToken::new());
    let parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'fact'::regclass";
    assert_eq!(count(&database, parts).await, 1);
    // As if all but the last three of the first part were there already.
    let skip = sqlx::query("UPDATE feed_head SET position = $1").bind(PART - 3);
    skip.execute(&database.admin).await.expect("skipped");
    feed::keep_parts(db.clone(), DAYS).await;
    assert_eq!(count(&database, parts).await, 2, "made before it is needed");
    tell(&db, 5).await;
    let across: Vec<i64> = (PART - 2..=PART + 2).collect();
    assert_eq!(positions(&feed, PART - 3).await, across);
    assert_eq!(count(&database, "SELECT count(*) FROM fact_5000001").await, 2);

    // The next is made; nothing is old enough to go.
    feed::keep_parts(db.clone(), DAYS).await;
    assert_eq!(count(&database, parts).await, 3);
    assert_eq!(positions(&feed, PART - 3).await, across);

    // A month later the first part goes and the second, in which new facts stand, does not.
    sqlx::query("UPDATE test_clock SET shift = interval '31 days'").execute(&database.admin).await.expect("a month");
    feed::keep_parts(db.clone(), None).await;
    assert_eq!(count(&database, parts).await, 3, "kept for good when not told otherwise");
    tell(&db, 1).await;
    for _ in 0..2 {
        feed::keep_parts(db.clone(), DAYS).await;
        assert_eq!(count(&database, parts).await, 2);
    }
    assert_eq!(positions(&feed, PART).await, [PART + 1, PART + 2, PART + 3]);
    for programme in [None, Some(Uuid::now_v7().into())] {
        let fault = feed.list(programme, PART - 1, 10).await.expect_err("dropped");
        let figure = |name: &str| fault.metadata.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        assert_eq!((fault.code, fault.reason.as_str()), (tonic::Code::FailedPrecondition, "POSITION_DROPPED"));
        assert_eq!((figure("first_position"), figure("head_position")), (Some("5000001"), Some("5000003")));
        assert!(feed.list(programme, PART, 10).await.is_ok());
    }
    let mut stream = feed.watch(None, 0).expect("a stream");
    assert_eq!(stream.recv().await.expect("an answer").expect_err("dropped").reason, "POSITION_DROPPED");

    // The service's role drops no part that is younger, and none by itself.
    for sql in ["SELECT shorten_feed(29)", "DROP TABLE fact_5000001", "ALTER TABLE fact DETACH PARTITION fact_5000001"] {
        sqlx::query(sql).execute(db.pool()).await.expect_err(sql);
    }
}

#[tokio::test]
async fn a_table_that_a_migration_makes_is_open_to_the_service_at_once() {
    let database = service::database(&mini::schema()).await;
    let make = "DO $$ BEGIN
                    EXECUTE format('SET LOCAL ROLE %I', (SELECT tableowner FROM pg_tables WHERE tablename = 'fact_part'));
                    CREATE TABLE later (number bigint GENERATED ALWAYS AS IDENTITY, word text);
                END $$";
    sqlx::raw_sql(make).execute(&database.admin).await.expect("a table of the owner's");
    let db = replica(&database);
    sqlx::query("INSERT INTO later (word) VALUES ('new')").execute(db.pool()).await.expect("written");
    sqlx::query("UPDATE later SET word = 'newer'").execute(db.pool()).await.expect("changed");
}

#[tokio::test]
async fn facts_from_before_the_parts_stay_where_they_are() {
    let database = service::database(&mini::schema()).await;
    let options = database.admin.connect_options().as_ref().clone().options([("search_path", "older")]);
    let mut conn = options.connect().await.expect("a superuser");
    sqlx::query("CREATE SCHEMA older").execute(&mut conn).await.expect("a schema");
    let before = CHASSIS_MIGRATIONS.iter().filter(|migration| migration.version == 1).cloned().collect();
    Migrator::with_migrations(before).run(&mut conn).await.expect("the first version");
    sqlx::raw_sql(
        "INSERT INTO fact SELECT n, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'a.Fact', '', '', koc_now()
         FROM generate_series(1, 7) AS n;
         UPDATE feed_head SET position = 7",
    )
    .execute(&mut conn)
    .await
    .expect("facts");
    let file = "SELECT relfilenode FROM pg_class WHERE oid = $1::regclass";
    let old: sqlx::postgres::types::Oid = sqlx::query_scalar(file).bind("fact").fetch_one(&mut conn).await.expect("a table");

    Migrator::with_migrations(CHASSIS_MIGRATIONS.iter().cloned().collect()).run(&mut conn).await.expect("the newest version");
    let new: sqlx::postgres::types::Oid = sqlx::query_scalar(file).bind("fact_1").fetch_one(&mut conn).await.expect("a part");
    assert_eq!(old, new, "not copied");
    let found: Vec<i64> =
        sqlx::query_scalar("SELECT position FROM fact ORDER BY position").fetch_all(&mut conn).await.expect("facts");
    assert_eq!(found, (1..=7).collect::<Vec<_>>());
    let again = "INSERT INTO fact SELECT 7, fact_id, programme_id, subject_id, type_name, payload, traceparent, record_time FROM fact LIMIT 1";
    let twice = sqlx::query(again).execute(&mut conn).await.expect_err("a position is given once");
    assert_eq!(twice.as_database_error().and_then(|error| error.code()).as_deref(), Some("23505"));
}
