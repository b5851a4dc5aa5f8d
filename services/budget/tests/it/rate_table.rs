//! Rate tables: dated, versioned, never edited.

use crate::{catalogue::*, world::*};
use futures::future::join_all;
use koc_proto::koc::budget::v1::{self as pb, RateTableKind as Kind};
use tonic::{Code, Status};

async fn get(world: &World, rate_table_id: &str, version: i64, date: &str) -> Result<pb::RateTable, Status> {
    let (programme_id, rate_table_id) = (world.programme.clone(), rate_table_id.to_owned());
    let request = pb::GetRateTableRequest { programme_id, rate_table_id, version, date: date.into() };
    Ok(rate_tables(world).get_rate_table(request).await?.into_inner().rate_table.unwrap_or_default())
}

#[tokio::test]
async fn the_version_with_the_latest_day_that_has_come_counts() {
    let world = World::new().await;
    let of = |from: &str, rate: &str| table_request(&world, "shipping.cn", Kind::Keyed, from, vec![row("CN-GD", "", rate)]);
    let request = of("2026-01-01", "12");
    let first = set_table(&world, request.clone()).await.expect("a version");
    assert_eq!((first.version, first.set_by.as_str(), first.rows.as_slice()), (1, "buyer", request.rows.as_slice()));
    assert_eq!(set_table(&world, request).await.expect("the first answer"), first);
    set_table(&world, of("2026-07-01", "13")).await.expect("a version");
    // Set late for an early day, and one in place of another.
    set_table(&world, of("2026-03-01", "12.5")).await.expect("a version");
    set_table(&world, of("2026-07-01", "13.5")).await.expect("a version");
    let on = async |day: &str| get(&world, "shipping.cn", 0, day).await.map(|table| table.version);
    assert_eq!(on("2026-02-28").await.expect("one"), 1);
    assert_eq!(on("2026-06-30").await.expect("one"), 3);
    assert_eq!(on("2026-07-01").await.expect("one"), 4);
    assert_eq!(on("").await.expect("the newest"), 4);
    refused(on("2025-12-31").await, Code::NotFound, "RATE_TABLE_NOT_FOUND");
    assert_eq!(get(&world, "shipping.cn", 1, "").await.expect("by version"), first);
    refused(get(&world, "shipping.cn", 5, "").await, Code::NotFound, "RATE_TABLE_NOT_FOUND");
    let other = table_request(&world, "shipping.cn", Kind::Steps, "2026-08-01", vec![row("", "1", "9")]);
    let figures = refused(set_table(&world, other).await, Code::FailedPrecondition, "RATE_TABLE_KIND");
    assert_eq!((figures["subject"].as_str(), figures["kind"].as_str()), ("shipping.cn", "KEYED"));
}

#[tokio::test]
async fn all_that_is_wrong_with_a_table_is_told_at_once() {
    let world = World::new().await;
    let rows = vec![row("CN-GD", "1", "x"), row("", "", "12")];
    let told = violations(set_table(&world, table_request(&world, "a", Kind::Keyed, "2026-02-30", rows)).await);
    let expected = [
        ("valid_from_date", "DATE_INVALID"),
        ("rows[0].from", "ROW_NOT_OF_KIND"),
        ("rows[0].rate", "RATE_MALFORMED"),
        ("rows[1].key", "ROW_KEY"),
    ];
    assert_eq!(told, expected.map(|(field, rule)| (field.to_owned(), rule.to_owned())));
    let rows = vec![row("", "2", "9"), row("", "2.0", "8")];
    let told = violations(set_table(&world, table_request(&world, "a", Kind::Steps, "2026-02-01", rows)).await);
    let expected = [("rows[1]", "ROW_DUPLICATE"), ("rows", "FIRST_STEP_MISSING")];
    assert_eq!(told, expected.map(|(field, rule)| (field.to_owned(), rule.to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_set_at_the_same_time_are_dense_and_listed_in_order() {
    const CLIENTS: usize = 16;
    let world = World::new().await;
    let set = |n: usize| {
        let rows = vec![row("", "1", &n.to_string())];
        set_table(&world, table_request(&world, "kit.production", Kind::Steps, "2026-01-01", rows))
    };
    let mut versions: Vec<i64> =
        join_all((0..CLIENTS).map(set)).await.into_iter().map(|table| table.expect("a version").version).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=16).collect::<Vec<i64>>());
    set_table(&world, table_request(&world, "a", Kind::Steps, "2026-01-01", vec![row("", "0", "1")])).await.expect("one");
    let list = async |rate_table_id: &str, page_token: String| {
        let (programme_id, rate_table_id) = (world.programme.clone(), rate_table_id.to_owned());
        let request = pb::ListRateTablesRequest { programme_id, rate_table_id, page_size: 10, page_token };
        let page = rate_tables(&world).list_rate_tables(request).await?.into_inner();
        let keys: Vec<(String, i64)> = page.rate_tables.into_iter().map(|table| (table.rate_table_id, table.version)).collect();
        Ok::<_, Status>((keys, page.next_page_token))
    };
    let (first, token) = list("", String::new()).await.expect("a page");
    let (second, end) = list("", token.clone()).await.expect("a page");
    let expected = (1..=16).map(|version| ("kit.production".to_owned(), version));
    let expected: Vec<(String, i64)> = std::iter::once(("a".to_owned(), 1)).chain(expected).collect();
    assert_eq!(([first, second].concat(), end.as_str()), (expected, ""));
    assert_eq!(violations(list("a", token).await), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
    let (only, _) = list("a", String::new()).await.expect("a page");
    assert_eq!(only, [("a".to_owned(), 1)]);
}
