//! Verifications in the background: of ledgers of any size, in parts, while they grow and across restarts.

use crate::{
    ledger::{eventful, meddle},
    world::*,
};
use koc_budget::{
    domain::verification::{
        Finding,
        course::{Course, Place},
    },
    flow::verify_ledger::{self, scope},
    ids::ProgrammeId,
    store::ledger::{Scope, extent, verify_part},
};
use koc_chassis::postgres::Db;
use koc_proto::koc::budget::v1::{self as pb, LedgerVerificationState as State};
use koc_tests::{ledger, service::TestChannel, wait};
use tonic::{Code, Status};

type Ledgers = pb::ledger_service_client::LedgerServiceClient<TestChannel>;

impl World {
    fn ledgers(&self) -> Ledgers {
        Ledgers::new(self.budget.channel())
    }

    async fn start_verification(&self) -> Result<pb::LedgerVerification, Status> {
        let request = pb::StartLedgerVerificationRequest { programme_id: self.programme.clone(), request_id: id() };
        Ok(self.ledgers().start_ledger_verification(request).await?.into_inner().verification.expect("it has begun"))
    }

    async fn verification(&self, verification_id: &str) -> Result<pb::LedgerVerification, Status> {
        let (programme_id, verification_id) = (self.programme.clone(), verification_id.to_owned());
        let request = pb::GetLedgerVerificationRequest { programme_id, verification_id };
        Ok(self.ledgers().get_ledger_verification(request).await?.into_inner().verification.expect("it is there"))
    }

    async fn cancel_verification(&self, verification_id: &str) -> Result<pb::LedgerVerification, Status> {
        let request = pb::CancelLedgerVerificationRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            verification_id: verification_id.to_owned(),
            reason: "the month is closed first".into(),
        };
        Ok(self.ledgers().cancel_ledger_verification(request).await?.into_inner().verification.expect("it is ended"))
    }

    /// Waits for the end of a verification.
    async fn ended(&self, verification_id: &str) -> pb::LedgerVerification {
        wait::until("the verification to end", PATIENCE, async || {
            let found = self.verification(verification_id).await.expect("there");
            (found.state() != State::Running).then_some(found)
        })
        .await
    }

    /// As [`Self::ended`], of a new one.
    async fn verified_in_background(&self) -> pb::LedgerVerification {
        let begun = self.start_verification().await.expect("begun");
        self.ended(&begun.verification_id).await
    }

    fn programme_id(&self) -> ProgrammeId {
        ProgrammeId::parse("programme_id", &self.programme).expect("an id")
    }

    pub fn db(&self) -> Db {
        Db::new(&self.budget.database.app_url, "budget", 2).expect("an address")
    }

    /// A course as the service begins it.
    async fn course(&self, db: &Db) -> Course {
        let mut tx = db.snapshot().await.expect("a snapshot");
        Course::new(extent(&mut tx, self.programme_id()).await.expect("an extent").links)
    }
}

/// The next part, in a snapshot of its own.
async fn part(db: &Db, scope: &Scope, course: &mut Course) -> Option<Finding> {
    let mut snapshot = db.snapshot().await.expect("a snapshot");
    verify_part(&mut snapshot, scope, course).await.expect("verified")
}

#[tokio::test]
async fn a_large_ledger_is_verified_in_the_background_and_by_parts_of_bounded_size() {
    let mut world = World::new().await;
    world.programme = id();
    let entries = ledger::grow(&world.budget.database.admin, world.programme_id().0, 4, 4).await.expect("a ledger");
    assert_eq!((entries, world.verify().await.entry_count), (48_004, entries));

    let (db, scope) = (world.db(), Scope { size: 1_000, ..scope(world.programme_id(), 0) });
    let (mut course, mut parts) = (world.course(&db).await, 0);
    while !course.is_at_end() {
        let before = course.counts;
        assert_eq!(part(&db, &scope, &mut course).await, None);
        let (after, bound) = (course.counts, scope.size);
        assert!(after.links - before.links <= bound && after.entries - before.entries <= bound, "{before:?} {after:?}");
        assert!(after.reservations - before.reservations <= bound / 4 && after.limits - before.limits <= bound / 4);
        // What is kept between the parts does not grow with the ledger.
        assert!(serde_json::to_vec(&course).expect("json").len() < 1_000);
        parts += 1;
    }
    assert!(parts > 49 + 48 + 64 + 6, "{parts}");

    let report = world.verified_in_background().await;
    assert_eq!((report.state(), report.finding.as_str(), report.bad_entry_id.as_str()), (State::Passed, "", ""));
    assert_eq!((report.entry_count, report.chained_count), (entries, entries));
    assert_eq!((report.verified_link_count, report.verified_entry_count), (entries, entries));
    assert_eq!((report.verified_reservation_count, report.verified_limit_count), (16_000, 1_600));
    assert_eq!(report.chain_head, world.verify().await.chain_head);
    assert!(report.end_time.is_some() && report.requested_by == "tester", "{report:?}");
    let ended: Vec<pb::LedgerVerificationEnded> = wait::until("the fact", PATIENCE, async || {
        let found = world.facts_of(&report.verification_id).await;
        (!found.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(ended.iter().map(pb::LedgerVerificationEnded::state).collect::<Vec<_>>(), [State::Passed]);

    // One fen in the midst of it.
    let bad = "01900000-0000-7003-8000-000000005dc0";
    meddle(&world, bad, &["UPDATE ledger_entry SET amount = amount + 1 WHERE entry_id = $1::uuid"]).await;
    let report = world.verified_in_background().await;
    assert_eq!((report.state(), report.bad_entry_id.as_str()), (State::Failed, bad), "{}", report.finding);
    assert!(report.finding.contains("does not give the hash") && report.verified_link_count < entries, "{report:?}");
}

#[tokio::test]
async fn what_is_written_meanwhile_is_no_alarm_and_what_was_bad_at_the_start_is_found() {
    let (world, entries) = eventful().await;
    let (db, scope) = (world.db(), Scope { size: 4, ..scope(world.programme_id(), 0) });
    let member_id = id();
    world.set_limit(world.limit_request(&member_id, 50_000)).await.expect("a limit");
    // Between the parts money moves in the envelope that is being walked; as often as a part has entries, so that it comes to an end.
    let walk = async |busy: usize| {
        let mut course = world.course(&db).await;
        for round in 0.. {
            if let Some(finding) = part(&db, &scope, &mut course).await {
                return (Some(finding), course);
            }
            if course.is_at_end() {
                return (None, course);
            }
            if round < busy {
                let request = pb::ReserveRequest { member_id: member_id.clone(), ..world.reserve_request(10) };
                let held = world.reserve_with(request).await.expect("held").reservation_id;
                world.commit(&held, Some(4)).await.expect("owed");
            }
        }
        unreachable!("it ends")
    };
    let (finding, course) = walk(12).await;
    assert_eq!(finding, None);
    assert_eq!(course.counts.links, 14, "the chain as it was at the start");
    assert_eq!(world.verified().await, 14 + 24);

    // An entry that came past the service, with every balance in step, before the start: whatever comes after it.
    let held = entries[12].reservation_id.as_str();
    let forged = [
        "INSERT INTO ledger_entry
         SELECT gen_random_uuid(), programme_id, envelope_id, 38, 'SPEND', 'COMMITTED', 'SPENT', 1, reservation_id,
                (SELECT allocated - reserved - committed - spent FROM envelope AS e WHERE e.envelope_id = l.envelope_id), operation_id, actor,
                entry_time
         FROM ledger_entry AS l WHERE reservation_id = $1::uuid AND envelope_sequence = 13",
        "UPDATE reservation SET committed = committed - 1, spent = spent + 1 WHERE reservation_id = $1::uuid",
        "UPDATE envelope SET committed = committed - 1, spent = spent + 1, sequence = 38
         WHERE envelope_id = (SELECT envelope_id FROM reservation WHERE reservation_id = $1::uuid)",
    ];
    meddle(&world, held, &forged).await;
    let forged = world.entries(&world.envelope).await[37].entry_id.clone();
    let (finding, _) = walk(6).await;
    let finding = finding.expect("found");
    assert_eq!(finding.entry.map(|id| id.to_string()), Some(forged.clone()), "{}", finding.text);
    assert!(finding.text.contains("not in the chain"), "{}", finding.text);
    let report = world.verified_in_background().await;
    assert_eq!((report.state(), report.bad_entry_id), (State::Failed, forged), "{}", report.finding);
}

#[tokio::test]
async fn a_verification_goes_on_where_a_process_that_is_gone_left_it() {
    let (world, entries) = eventful().await;
    // What another process did before it was killed: the chain, and some of the entries, with its lease.
    let (db, scope) = (world.db(), Scope { size: 5, ..scope(world.programme_id(), 0) });
    let mut course = world.course(&db).await;
    while !matches!(&course.place, Place::Envelopes { open: Some(_), .. }) {
        assert_eq!(part(&db, &scope, &mut course).await, None);
    }
    let walked = course.counts.entries;
    assert!((1..14).contains(&walked) && course.counts.links == 14, "{course:?}");
    // What it has walked is changed after it: the one that goes on does not come there again.
    let first = entries[0].entry_id.as_str();
    meddle(&world, first, &["UPDATE ledger_entry SET actor = actor || 'x' WHERE entry_id = $1::uuid"]).await;
    let verification_id = id();
    sqlx::query(
        "WITH verification AS (
             INSERT INTO ledger_verification (verification_id, programme_id, state, entry_count, link_count, chain_head, requested_by,
                                              start_time)
             VALUES ($1::uuid, $2, 'RUNNING', 14, 14, sha256(''), 'auditor', koc_now())
         )
         INSERT INTO job (job_id, kind, programme_id, subject_id, step, state, actor, traceparent, run_time, lease_id, lease_until, create_time)
         VALUES (gen_random_uuid(), $3, $2, $1::uuid, $4, $5, 'auditor', '', koc_now(), gen_random_uuid(), koc_now() - interval '1 s',
                 koc_now())",
    )
    .bind(&verification_id)
    .bind(world.programme_id().0)
    .bind(verify_ledger::KIND)
    .bind(course.step())
    .bind(serde_json::to_value(&course).expect("json"))
    .execute(&world.budget.database.admin)
    .await
    .expect("left behind");
    let report = world.ended(&verification_id).await;
    assert_eq!((report.state(), report.finding.as_str()), (State::Passed, ""));
    assert_eq!((report.verified_link_count, report.verified_entry_count, report.verified_reservation_count), (14, 14, 3));
    // The next one does.
    let report = world.verified_in_background().await;
    assert_eq!((report.state(), report.bad_entry_id.as_str()), (State::Failed, first));
}

#[tokio::test]
async fn one_verification_of_a_programme_runs_at_a_time_and_can_be_ended() {
    let (world, _) = eventful().await;
    // One that nobody drives.
    let running = id();
    sqlx::query(
        "INSERT INTO ledger_verification (verification_id, programme_id, state, entry_count, link_count, chain_head, requested_by, start_time)
         VALUES ($1::uuid, $2, 'RUNNING', 14, 14, sha256(''), 'auditor', koc_now())",
    )
    .bind(&running)
    .bind(world.programme_id().0)
    .execute(&world.budget.database.admin)
    .await
    .expect("running");
    let figures = refused(world.start_verification().await, Code::FailedPrecondition, "VERIFICATION_RUNNING");
    assert_eq!(figures["subject"], running);
    let cancelled = world.cancel_verification(&running).await.expect("ended");
    assert_eq!((cancelled.state(), cancelled.end_time.is_some()), (State::Cancelled, true));
    let figures = refused(world.cancel_verification(&running).await, Code::FailedPrecondition, "VERIFICATION_STATE");
    assert_eq!(figures["state"], "CANCELLED");
    refused(world.cancel_verification(&id()).await, Code::NotFound, "VERIFICATION_NOT_FOUND");
    refused(world.verification(&id()).await, Code::NotFound, "VERIFICATION_NOT_FOUND");

    let request = pb::StartLedgerVerificationRequest { programme_id: world.programme.clone(), request_id: id() };
    let begun = world.ledgers().start_ledger_verification(request.clone()).await.expect("begun").into_inner();
    let passed = world.ended(&begun.verification.clone().expect("it has begun").verification_id).await;
    assert_eq!(passed.state(), State::Passed);
    let again = world.ledgers().start_ledger_verification(request).await.expect("the same");
    assert!(replayed(&again));
    assert_eq!(again.into_inner(), begun, "the first answer");

    let mut list =
        pb::ListLedgerVerificationsRequest { programme_id: world.programme.clone(), page_size: 1, ..Default::default() };
    let page = world.ledgers().list_ledger_verifications(list.clone()).await.expect("a page").into_inner();
    assert_eq!(page.verifications, [passed]);
    list.page_token = page.next_page_token;
    let page = world.ledgers().list_ledger_verifications(list).await.expect("a page").into_inner();
    assert_eq!((page.verifications, page.next_page_token.as_str()), (vec![cancelled], ""));
}

#[tokio::test]
async fn a_ledger_too_large_for_one_call_is_refused_at_once() {
    let (world, _) = eventful().await;
    meddle(&world, &world.envelope, &["UPDATE envelope SET sequence = sequence + 300000 WHERE envelope_id = $1::uuid"]).await;
    let request = pb::VerifyLedgerRequest { programme_id: world.programme.clone() };
    let figures = refused(world.ledgers().verify_ledger(request).await, Code::FailedPrecondition, "LEDGER_TOO_LARGE");
    assert_eq!((figures["entry_count"].as_str(), figures["max_entry_count"].as_str()), ("300014", "150000"));
    let report = world.verified_in_background().await;
    assert_eq!((report.state(), report.entry_count), (State::Failed, 300_014));
    assert!(report.finding.contains("entries give"), "{}", report.finding);
}

#[test]
fn a_part_that_failed_is_tried_again_smaller_but_never_empty() {
    let sizes = [0, 1, 2, 7, 63, 64, u32::MAX].map(|failures| scope(ProgrammeId(uuid::Uuid::nil()), failures).size);
    assert_eq!(sizes, [20_000, 10_000, 5_000, 156, 100, 100, 100]);
}
