//! The ledger: dense, append-only, chained, and found out when it was changed.

use crate::world::*;
use koc_proto::koc::budget::v1::{self as pb, LedgerEntryKind as Kind};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tonic::Code;

/// A world with three reservations in all states, and their entries in the envelope: what the tests below meddle with.
pub async fn eventful() -> (World, Vec<pb::LedgerEntry>) {
    let world = World::new().await;
    let member_id = id();
    world.set_limit(world.limit_request(&member_id, 5_000)).await.expect("a limit");
    for amount in [300, 200, 100] {
        let request = pb::ReserveRequest { member_id: member_id.clone(), ..world.reserve_request(amount) };
        let held = world.reserve_with(request).await.expect("held").reservation_id;
        world.commit(&held, Some(amount / 2)).await.expect("owed");
        world.spend(&held, Some(amount / 4)).await.expect("paid");
        world.release(&held, Some(1)).await.expect("given back");
    }
    assert_eq!(world.verified().await, 14);
    let entries = world.entries(&world.envelope).await;
    (world, entries)
}

#[tokio::test]
async fn entries_are_dense_and_read_in_pages_with_what_was_available_after_each() {
    let (world, entries) = eventful().await;
    let mut available = 0;
    for (entry, sequence) in entries.iter().zip(1..) {
        let amount = minor(entry.amount.as_ref());
        available += match entry.kind() {
            Kind::Allocate | Kind::Release | Kind::Expire => amount,
            Kind::Reserve => -amount,
            _ => 0,
        };
        assert_eq!((entry.envelope_sequence, minor(entry.available_after.as_ref())), (sequence, available));
        assert_eq!((entry.envelope_id.as_str(), entry.reservation_id.is_empty()), (world.envelope.as_str(), sequence == 1));
    }
    assert_eq!((entries.len(), available), (13, world.available(&world.envelope).await));

    let mut client = pb::ledger_service_client::LedgerServiceClient::new(world.budget.channel());
    let mut request = pb::ListLedgerEntriesRequest {
        programme_id: world.programme.clone(),
        envelope_id: world.envelope.clone(),
        page_size: 5,
        ..Default::default()
    };
    let mut paged = Vec::new();
    loop {
        let page = client.list_ledger_entries(request.clone()).await.expect("a page").into_inner();
        assert!(page.entries.len() <= 5);
        paged.extend(page.entries);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(paged, entries);
    let elsewhere = pb::ListLedgerEntriesRequest { envelope_id: world.reserve.clone(), ..request.clone() };
    let found = violations(client.list_ledger_entries(elsewhere).await);
    assert_eq!(found, [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
    let nowhere = pb::ListLedgerEntriesRequest { envelope_id: id(), page_token: String::new(), ..request };
    refused(client.list_ledger_entries(nowhere).await, Code::NotFound, "ENVELOPE_NOT_FOUND");
    // A programme without money has a ledger without entries.
    let programme_id = world.create_programme("CNY").await;
    let empty = client.verify_ledger(pb::VerifyLedgerRequest { programme_id }).await.expect("verified").into_inner();
    assert_eq!((empty.valid, empty.entry_count, empty.chain_head), (true, 0, "0".repeat(64)));
}

#[tokio::test]
async fn neither_the_service_nor_the_owner_can_change_what_was_written() {
    let (world, _) = eventful().await;
    let app = world.budget.database.app_url.clone();
    let owner = app.replacen("koc_budget_app", "koc_budget_owner", 1);
    assert_ne!(app, owner);
    let mut app = PgConnection::connect(&app).await.expect("the service's role");
    let mut owner = PgConnection::connect(&owner).await.expect("the owner's role");
    for table in ["ledger_entry", "ledger_chain", "operation"] {
        for change in [
            format!("UPDATE budget.{table} SET programme_id = programme_id"),
            format!("DELETE FROM budget.{table}"),
            format!("TRUNCATE budget.{table} CASCADE"),
        ] {
            let refused = sqlx::query(AssertSqlSafe(change.clone())).execute(&mut app).await.expect_err("refused");
            let refused = refused.into_database_error().expect("by the database");
            assert_eq!(refused.code().as_deref(), Some("42501"), "{change}: {refused}");
            let refused = sqlx::query(AssertSqlSafe(change.clone())).execute(&mut owner).await.expect_err("refused");
            let refused = refused.into_database_error().expect("by the database");
            assert_eq!(refused.code().as_deref(), Some("23000"), "{change}: {refused}");
            assert!(refused.message().ends_with("is append-only"), "{refused}");
        }
    }
    for change in ["UPDATE budget.audit_entry SET actor = 'nobody'", "DELETE FROM budget.audit_entry"] {
        let refused = sqlx::query(change).execute(&mut app).await.expect_err("refused");
        assert_eq!(refused.into_database_error().expect("by the database").code().as_deref(), Some("42501"));
    }
    assert_eq!(world.verified().await, 14);
}

/// Changes the database as a superuser may, past triggers and foreign keys. `$1` in each statement is `id`.
pub async fn meddle(world: &World, id: &str, statements: &[&'static str]) {
    let mut tx = world.budget.database.admin.begin().await.expect("a transaction");
    sqlx::query("SET LOCAL session_replication_role = replica").execute(&mut *tx).await.expect("a superuser");
    for statement in statements {
        let done = sqlx::query(*statement).bind(id).execute(&mut *tx).await.expect("changed");
        assert!(done.rows_affected() > 0, "{statement} changes something");
    }
    tx.commit().await.expect("committed");
}

/// Checks that a change is found at an entry, with these words, and is gone when it is undone.
async fn found(world: &World, id: &str, change: &[&'static str], undo: &[&'static str], bad_entry_id: &str, words: &str) {
    meddle(world, id, change).await;
    let report = world.verify().await;
    assert!(!report.valid && report.finding.contains(words), "{words}: {report:?}");
    assert_eq!(report.bad_entry_id, bad_entry_id, "{}", report.finding);
    meddle(world, id, undo).await;
    let report = world.verify().await;
    assert!(report.valid, "undone: {}", report.finding);
}

#[tokio::test]
async fn the_first_bad_entry_is_named_whatever_was_changed() {
    let (world, entries) = eventful().await;
    let (middle, last) = (entries[6].entry_id.as_str(), entries[12].entry_id.as_str());
    let entry = async |change, undo, words| found(&world, middle, change, undo, middle, words).await;
    entry(
        &["UPDATE ledger_entry SET amount = amount + 1 WHERE entry_id = $1::uuid"],
        &["UPDATE ledger_entry SET amount = amount - 1 WHERE entry_id = $1::uuid"],
        "does not give the hash",
    )
    .await;
    entry(
        &["UPDATE ledger_entry SET actor = actor || 'x' WHERE entry_id = $1::uuid"],
        &["UPDATE ledger_entry SET actor = left(actor, -1) WHERE entry_id = $1::uuid"],
        "does not give the hash",
    )
    .await;
    entry(
        &["CREATE TABLE gone AS SELECT * FROM ledger_entry", "DELETE FROM ledger_entry WHERE entry_id = $1::uuid"],
        &["INSERT INTO ledger_entry SELECT * FROM gone WHERE entry_id = $1::uuid"],
        "stands in the chain and not in the ledger",
    )
    .await;
    let flip = "UPDATE ledger_chain SET hash = set_byte(hash, 0, 255 - get_byte(hash, 0)) WHERE entry_id = $1::uuid";
    entry(&[flip], &[flip], "it or the link was changed").await;

    // An entry with its link: the next link comes where it should not.
    let next = world.entry_after(middle).await;
    let cut = ["CREATE TABLE cut AS SELECT * FROM ledger_chain", "DELETE FROM ledger_chain WHERE entry_id = $1::uuid"];
    let mend = ["INSERT INTO ledger_chain SELECT * FROM cut WHERE entry_id = $1::uuid"];
    found(&world, middle, &cut, &mend, &next, "links are missing").await;
    // The chain's end, which no later link gives away.
    found(&world, last, &cut[1..], &mend, last, "not in the chain").await;

    // Balances beside the ledger: the envelope's are named by its last entry, a reservation's by its own.
    found(
        &world,
        &world.envelope,
        &["UPDATE envelope SET spent = spent + 1 WHERE envelope_id = $1::uuid"],
        &["UPDATE envelope SET spent = spent - 1 WHERE envelope_id = $1::uuid"],
        last,
        "entries give",
    )
    .await;
    let held = entries[6].reservation_id.as_str();
    found(
        &world,
        held,
        &["UPDATE reservation SET committed = committed - 1, spent = spent + 1 WHERE reservation_id = $1::uuid"],
        &["UPDATE reservation SET committed = committed + 1, spent = spent - 1 WHERE reservation_id = $1::uuid"],
        &entries[8].entry_id,
        "its entries give",
    )
    .await;
    found(
        &world,
        held,
        &["CREATE TABLE lost AS SELECT * FROM reservation", "DELETE FROM reservation WHERE reservation_id = $1::uuid"],
        &["INSERT INTO reservation SELECT * FROM lost WHERE reservation_id = $1::uuid"],
        &entries[5].entry_id,
        "does not exist",
    )
    .await;
    found(
        &world,
        &world.programme,
        &["UPDATE member_limit SET used = used + 1 WHERE programme_id = $1::uuid"],
        &["UPDATE member_limit SET used = used - 1 WHERE programme_id = $1::uuid"],
        "",
        "is in use",
    )
    .await;
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_finding_and_no_failure() {
    let (world, entries) = eventful().await;
    for constraint in ["ledger_entry_kind", "ledger_entry_accounts"] {
        let drop = AssertSqlSafe(format!("ALTER TABLE ledger_entry DROP CONSTRAINT {constraint}"));
        sqlx::query(drop).execute(&world.budget.database.admin).await.expect("dropped");
    }
    let unknown = ["UPDATE ledger_entry SET kind = 'GIFT' WHERE entry_id = $1::uuid"];
    meddle(&world, &entries[6].entry_id, &unknown).await;
    let report = world.verify().await;
    assert!(!report.valid && report.finding.contains("ledger_entry.kind"), "{report:?}");
}

#[tokio::test]
async fn an_entry_that_came_past_the_service_is_named_though_all_sums_agree() {
    let (world, entries) = eventful().await;
    let held = entries[12].reservation_id.as_str();
    // A payment of one fen that nobody asked for, with every balance in step.
    let forged = [
        "INSERT INTO ledger_entry
         SELECT gen_random_uuid(), programme_id, envelope_id, 14, 'SPEND', 'COMMITTED', 'SPENT', 1, reservation_id, available_after,
                operation_id, actor, entry_time
         FROM ledger_entry WHERE reservation_id = $1::uuid AND envelope_sequence = 13",
        "UPDATE reservation SET committed = committed - 1, spent = spent + 1 WHERE reservation_id = $1::uuid",
        "UPDATE envelope SET committed = committed - 1, spent = spent + 1, sequence = 14
         WHERE envelope_id = (SELECT envelope_id FROM reservation WHERE reservation_id = $1::uuid)",
    ];
    meddle(&world, held, &forged).await;
    let report = world.verify().await;
    let entries = world.entries(&world.envelope).await;
    assert_eq!((report.valid, report.bad_entry_id.as_str()), (false, entries[13].entry_id.as_str()), "{}", report.finding);
    // Also after the service went on.
    world.reserve(5).await.expect("held");
    assert!(!world.verify().await.valid);
}
