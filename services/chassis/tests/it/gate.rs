//! Mutations: retries, refusals, races and what is kept of them.

use crate::mini::{self, Error, admitted, count, create, replica};
use futures::future::join_all;
use koc_chassis::{
    fault::{Violation, reason_of},
    gate::{Gate, Outcome, Work, purge_records},
};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::service::{self, ServiceDatabase};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::Barrier;
use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

type Created = Result<Outcome<pb::CreateProgrammeResponse>, Status>;

async fn gate() -> (Gate<Error>, ServiceDatabase) {
    let database = service::database(&mini::schema()).await;
    sqlx::query("INSERT INTO account VALUES (1, 0), (2, 0)").execute(&database.admin).await.expect("accounts");
    (Gate::new(replica(&database), "registry.koc"), database)
}

/// Adds one to an account, with nothing in the table that would keep it from happening twice.
async fn add_one(work: &mut Work, account: i32) -> Result<(), Error> {
    sqlx::query("UPDATE account SET balance = balance + 1 WHERE account_id = $1").bind(account).execute(work.conn()).await?;
    Ok(())
}

async fn count_up(gate: &Gate<Error>, request: pb::CreateProgrammeRequest) -> Created {
    let counted = gate.mutate(admitted(request), |work, req| {
        Box::pin(async move {
            add_one(work, 1).await?;
            work.emit(work.programme().0, &pb::ProgrammeCreated { programme_id: req.programme_id.clone() }).await?;
            Ok(pb::CreateProgrammeResponse { programme: Some(mini::programme(&req.programme_id, &req.display_name)) })
        })
    });
    counted.await
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_says_so() {
    let (gate, database) = gate().await;
    let request = create("one");
    let first = count_up(&gate, request.clone()).await.expect("created");
    let again = count_up(&gate, request).await.expect("replayed");
    assert!(!first.replayed && again.replayed);
    assert_eq!(first.message, again.message);
    let replayed = |outcome: Outcome<_>| {
        Response::<pb::CreateProgrammeResponse>::from(outcome).metadata().get("koc-replayed").is_some_and(|v| v == "true")
    };
    assert!(!replayed(first) && replayed(again));
    assert_eq!(count(&database, "SELECT balance FROM account WHERE account_id = 1").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM told").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM audit_entry").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_duplicates_at_once_have_one_effect_and_one_answer() {
    let (gate, database) = gate().await;
    let other_replica = Gate::new(replica(&database), "registry.koc");
    let request = create("one");
    let calls = (0..32).map(|i| count_up(if i % 2 == 0 { &gate } else { &other_replica }, request.clone()));
    let outcomes: Vec<_> = join_all(calls).await.into_iter().map(|outcome| outcome.expect("answered")).collect();
    assert_eq!(outcomes.iter().filter(|o| !o.replayed).count(), 1);
    assert!(outcomes.iter().all(|o| o.message == outcomes[0].message));
    assert_eq!(count(&database, "SELECT balance FROM account WHERE account_id = 1").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM told").await, 1);
    assert_eq!(count(&database, "SELECT count(*) FROM audit_entry").await, 1);
}

#[tokio::test]
async fn a_request_id_with_another_body_is_refused_and_the_first_answer_stays() {
    let (gate, database) = gate().await;
    let request = create("one");
    count_up(&gate, request.clone()).await.expect("created");
    let other = pb::CreateProgrammeRequest { display_name: "two".into(), ..request.clone() };
    let refused = count_up(&gate, other).await.expect_err("refused");
    assert_eq!((refused.code(), reason_of(&refused).as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    let violations = refused.get_details_bad_request().expect("names the field").field_violations;
    assert_eq!(violations[0].field, "request_id");
    assert!(count_up(&gate, request).await.expect("replayed").replayed);
    assert_eq!(count(&database, "SELECT balance FROM account WHERE account_id = 1").await, 1);
}

#[tokio::test]
async fn a_refusal_by_a_rule_is_given_again_even_when_the_rule_would_pass_by_then() {
    let (gate, database) = gate().await;
    let request = create("one");
    let full = AtomicBool::new(true);
    let call = || {
        let full = full.load(Ordering::SeqCst);
        gate.mutate(admitted(request.clone()), move |work, _| {
            Box::pin(async move {
                add_one(work, 1).await?;
                if full { Err(Error::Full { free: 0 }) } else { Ok(pb::CreateProgrammeResponse::default()) }
            })
        })
    };
    let first = call().await.expect_err("full");
    full.store(false, Ordering::SeqCst);
    let again = call().await.expect_err("still the first answer");
    for refusal in [&first, &again] {
        let details = refusal.get_error_details();
        let info = details.error_info().expect("a reason");
        assert_eq!(
            (refusal.code(), info.reason.as_str(), info.domain.as_str()),
            (Code::FailedPrecondition, "FULL", "registry.koc")
        );
        assert_eq!(info.metadata["free"], "0");
        assert_eq!(details.precondition_failure().expect("which limit").violations[0].subject, "the-limit");
    }
    assert_eq!(first.message(), again.message());
    assert_eq!(count(&database, "SELECT balance FROM account WHERE account_id = 1").await, 0);
    assert_eq!(count(&database, "SELECT count(*) FROM audit_entry").await, 0);
}

#[tokio::test]
async fn passing_troubles_and_bad_fields_are_not_stored() {
    let (gate, database) = gate().await;
    let request = create("one");
    let tries = AtomicUsize::new(0);
    let call = || {
        let nr = tries.fetch_add(1, Ordering::SeqCst);
        gate.mutate(admitted(request.clone()), move |work, _| {
            Box::pin(async move {
                add_one(work, 1).await?;
                match nr {
                    0 => Err(Error::Busy),
                    1 => Err(Error::Invalid(Violation::new("time_zone", "TIME_ZONE_UNKNOWN", "must be known"))),
                    2 => Err(sqlx::query("SELECT 1 / 0").execute(work.conn()).await.expect_err("breaks").into()),
                    _ => Ok(pb::CreateProgrammeResponse::default()),
                }
            })
        })
    };
    let busy = call().await.expect_err("busy");
    assert_eq!((busy.code(), reason_of(&busy).as_str()), (Code::Unavailable, "BUSY"));
    assert!(busy.get_details_retry_info().is_some());
    assert_eq!(call().await.expect_err("a bad field").code(), Code::InvalidArgument);
    let broken = call().await.expect_err("broken");
    assert_eq!((broken.code(), reason_of(&broken).as_str()), (Code::Internal, "INTERNAL"));
    assert!(!broken.message().contains("division"), "what the database said stays inside: {}", broken.message());
    assert_eq!(count(&database, "SELECT count(*) FROM request_record").await, 0);
    assert!(!call().await.expect("now it works").replayed);
    assert_eq!(count(&database, "SELECT balance FROM account WHERE account_id = 1").await, 1);
}

#[tokio::test]
async fn a_stored_answer_holds_no_personal_data() {
    let (gate, database) = gate().await;
    let request = pb::CreateMemberRequest {
        programme_id: uuid::Uuid::now_v7().to_string(),
        request_id: uuid::Uuid::new_v4().to_string(),
        profile: Some(pb::MemberProfile {
            display_name: "Lin Xiaomei".into(),
            phone: "+8613800138000".into(),
            region_code: "CN-SH".into(),
            channels: vec![pb::Channel { platform: "WEIBO".into(), handle: "lin-xiaomei".into(), followers: Some(5) }],
            ..Default::default()
        }),
        external_identities: Vec::new(),
    };
    let call = || {
        gate.mutate(admitted(request.clone()), |_, req: pb::CreateMemberRequest| {
            let member = pb::Member { member_id: "m".into(), profile: req.profile, ..Default::default() };
            Box::pin(async move { Ok::<_, Error>(pb::CreateMemberResponse { member: Some(member) }) })
        })
    };
    let first = call().await.expect("created").message.member.expect("a member").profile.expect("a profile");
    assert_eq!(first.display_name, "Lin Xiaomei");
    let again = call().await.expect("replayed").message.member.expect("a member");
    assert_eq!(again.member_id, "m");
    let profile = again.profile.expect("a profile");
    assert_eq!((profile.display_name.as_str(), profile.phone.as_str(), profile.channels[0].handle.as_str()), ("", "", ""));
    assert_eq!((profile.region_code.as_str(), profile.channels[0].followers), ("CN-SH", Some(5)));
    let kept: String =
        sqlx::query_scalar("SELECT encode(answer, 'escape') FROM request_record").fetch_one(&database.admin).await.expect("kept");
    for personal in ["Lin", "xiaomei", "1380013"] {
        assert!(!kept.contains(personal), "{personal} in {kept}");
    }
}

#[tokio::test]
async fn a_dry_run_keeps_neither_its_answer_nor_its_refusal() {
    let (gate, database) = gate().await;
    let request = create("one");
    let dry = |passes: bool| {
        gate.mutate(admitted(request.clone()), move |work, _| {
            Box::pin(async move {
                work.dry_run();
                add_one(work, 1).await?;
                if passes { Ok(pb::CreateProgrammeResponse::default()) } else { Err(Error::Full { free: 0 }) }
            })
        })
    };
    assert!(!dry(true).await.expect("would pass").replayed);
    assert_eq!(reason_of(&dry(false).await.expect_err("would not")), "FULL");
    for (table, sql) in [
        ("account", "SELECT sum(balance)::bigint FROM account"),
        ("request_record", "SELECT count(*) FROM request_record"),
        ("audit_entry", "SELECT count(*) FROM audit_entry"),
    ] {
        assert_eq!(count(&database, sql).await, 0, "{table}");
    }
    assert!(!count_up(&gate, request).await.expect("the real call has its id").replayed);
}

#[tokio::test]
async fn what_is_asked_of_others_is_not_asked_again_by_a_retry() {
    let (gate, _database) = gate().await;
    let request = create("one");
    let asked = AtomicUsize::new(0);
    for replayed in [false, true] {
        let outcome: Outcome<pb::CreateProgrammeResponse> = gate
            .mutate_after(
                admitted(request.clone()),
                async |_, _| Ok(asked.fetch_add(1, Ordering::SeqCst)),
                |_, req, nr| {
                    Box::pin(async move {
                        Ok(pb::CreateProgrammeResponse { programme: Some(mini::programme(&req.programme_id, &nr.to_string())) })
                    })
                },
            )
            .await
            .expect("answered");
        assert_eq!(outcome.replayed, replayed);
        assert_eq!(outcome.message.programme.expect("a programme").display_name, "0");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Two mutations that each take both accounts, the other way round; their first runs meet when each has the first of its two.
/// Answers how often they ran.
async fn race(gate: &Gate<Error>, isolation: &'static str, accounts: [(i32, i32); 2]) -> usize {
    let (meeting, runs) = (Arc::new(Barrier::new(2)), Arc::new(AtomicUsize::new(0)));
    let one = |(first, second): (i32, i32)| {
        let (meeting, runs) = (meeting.clone(), runs.clone());
        let met = Arc::new(AtomicBool::new(false));
        gate.mutate(admitted(create("one")), move |work, _| {
            let (meeting, runs, met) = (meeting.clone(), runs.clone(), met.clone());
            Box::pin(async move {
                runs.fetch_add(1, Ordering::SeqCst);
                sqlx::query(isolation).execute(work.conn()).await?;
                // Begins the snapshot.
                sqlx::query("SELECT count(*) FROM account").execute(work.conn()).await?;
                if first != second {
                    add_one(work, first).await?;
                }
                if !met.swap(true, Ordering::SeqCst) {
                    meeting.wait().await;
                }
                add_one(work, second).await?;
                Ok(pb::CreateProgrammeResponse::default())
            })
        })
    };
    let (a, b) = tokio::join!(one(accounts[0]), one(accounts[1]));
    assert!(!a.expect("one passes").replayed && !b.expect("so does the other").replayed);
    runs.load(Ordering::SeqCst)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_that_was_in_a_deadlock_is_run_again() {
    let (gate, database) = gate().await;
    let sooner = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = 20', current_database()); END $$";
    sqlx::query(sooner).execute(&database.admin).await.expect("a superuser may");
    // Whoever is run again may take its first account before the other wakes, and so meet it once more.
    assert!(race(&gate, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED", [(1, 2), (2, 1)]).await >= 3);
    assert_eq!(count(&database, "SELECT sum(balance)::bigint FROM account").await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mutation_that_lost_its_snapshot_is_run_again() {
    let (gate, database) = gate().await;
    assert_eq!(race(&gate, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", [(1, 1), (1, 1)]).await, 3);
    assert_eq!(count(&database, "SELECT sum(balance)::bigint FROM account").await, 2);
}

#[tokio::test]
async fn a_record_is_forgotten_after_its_time_and_not_before() {
    let (gate, database) = gate().await;
    let request = create("one");
    count_up(&gate, request.clone()).await.expect("created");
    let keep = Duration::from_secs(30 * 86_400);
    assert_eq!(purge_records(gate.db(), keep).await.expect("purges"), 0);
    assert!(count_up(&gate, request.clone()).await.expect("replayed").replayed);
    database.advance(keep + Duration::from_secs(1)).await;
    assert_eq!(purge_records(gate.db(), keep).await.expect("purges"), 1);
    assert!(!count_up(&gate, request).await.expect("as if new").replayed);
}
