//! Who may approve what: policies in versions, one person and two, evidence, shares and cool-downs.

use crate::{reserve_draw::*, world::*};
use futures::future::join_all;
use koc_proto::koc::budget::v1::{self as pb, ReserveDrawState as State};
use koc_tests::{service::TestChannel, wait};
use std::time::Duration;
use tonic::{Code, Status};

type Policies = pb::reserve_policy_service_client::ReservePolicyServiceClient<TestChannel>;

const HOUR: Duration = Duration::from_secs(60 * 60);

fn proposal(world: &World, terms: pb::ReserveTerms) -> pb::ProposeReservePolicyRequest {
    pb::ProposeReservePolicyRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        plan_id: world.plan.clone(),
        terms: Some(terms),
        reason: "a campaign with larger stakes".into(),
        etag: String::new(),
    }
}

async fn propose(world: &World, request: pb::ProposeReservePolicyRequest) -> Result<pb::Amendment, Status> {
    let answer = world.amendments("cfo").propose_reserve_policy(request).await?;
    Ok(answer.into_inner().amendment.unwrap_or_default())
}

/// Proposed by one, approved by another.
pub async fn set(world: &World, terms: pb::ReserveTerms) -> pb::ReservePolicy {
    let proposed = propose(world, proposal(world, terms)).await.expect("proposed");
    world.approve_amendment("chair", &proposed.amendment_id).await.expect("applied");
    policy(world, &world.plan, 0).await.expect("a policy")
}

async fn policy(world: &World, plan: &str, version: i64) -> Result<pb::ReservePolicy, Status> {
    let request = pb::GetReservePolicyRequest { programme_id: world.programme.clone(), plan_id: plan.to_owned(), version };
    let mut client = Policies::new(world.budget.channel());
    Ok(client.get_reserve_policy(request).await?.into_inner().policy.unwrap_or_default())
}

/// Nothing automatic, two people above `limit`.
pub fn two_above(limit: i64) -> pb::ReserveTerms {
    pb::ReserveTerms { one_person_limit: Some(fen(limit)), ..Default::default() }
}

#[tokio::test]
async fn a_policy_has_versions_and_a_waiting_draw_keeps_its_own() {
    let world = World::new().await;
    let first = policy(&world, &world.plan, 0).await.expect("a policy");
    let terms = first.terms.clone().expect("terms");
    assert_eq!((first.version, minor(terms.automatic_limit.as_ref())), (1, DRAW_LIMIT));
    assert_eq!((terms.one_person_limit, terms.max_share_bp, terms.output_cool_down_hours), (None, Some(10_000), Some(24)));
    assert_eq!((terms.member_cool_down_hours, terms.report_within_hours), (Some(0), Some(2_880)));

    // Asked for under the first version: one person, whatever comes after.
    let waiting = ask(&world, request(&world, DRAW_LIMIT + 1).await).await.expect("taken");
    assert_eq!((waiting.policy_version, waiting.approvals_needed, waiting.automatic), (1, 1, false));
    let asked = pb::ProposeReservePolicyRequest { etag: first.etag.clone(), ..proposal(&world, two_above(100)) };
    let proposed = propose(&world, asked.clone()).await.expect("proposed");
    assert_eq!((proposed.kind(), proposed.state()), (pb::AmendmentKind::ReservePolicy, pb::AmendmentState::Proposed));
    let wanted = proposed.reserve_terms.clone().expect("terms");
    assert_eq!((minor(wanted.one_person_limit.as_ref()), wanted.report_within_hours), (100, Some(2_880)));
    assert_eq!(propose(&world, asked.clone()).await.expect("the first answer"), proposed);
    // One person alone changes nothing.
    let rival = propose(&world, proposal(&world, two_above(200))).await.expect("proposed");
    let of = proposed.amendment_id.as_str();
    refused(world.approve_amendment("cfo", of).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    assert_eq!(policy(&world, &world.plan, 0).await.expect("a policy"), first);
    let applied = world.approve_amendment("chair", of).await.expect("applied");
    assert_eq!((applied.state(), applied.decided_by.as_str()), (pb::AmendmentState::Applied, "chair"));
    assert_eq!(applied.reserve_terms, proposed.reserve_terms);
    let second = policy(&world, &world.plan, 0).await.expect("a policy");
    assert_eq!((second.version, second.set_by.as_str(), second.reason.as_str()), (2, "cfo", asked.reason.as_str()));
    assert_eq!((second.amendment_id.as_str(), second.terms.as_ref()), (of, proposed.reserve_terms.as_ref()));
    refused(world.approve_amendment("chair", &rival.amendment_id).await, Code::FailedPrecondition, "AMENDMENT_CONFLICT");
    let told =
        wait::until("the fact", PATIENCE, async || world.facts_of::<pb::ReservePolicyChanged>(&world.plan).await.pop()).await;
    assert_eq!((told.plan_id.as_str(), told.version, told.amendment_id.as_str()), (world.plan.as_str(), 2, of));
    let stale = pb::ProposeReservePolicyRequest { request_id: id(), ..asked };
    refused(propose(&world, stale).await, Code::Aborted, "ETAG_MISMATCH");
    assert_eq!(policy(&world, &world.plan, 1).await.expect("a policy"), first);
    let approved = approve(&world, "controller", &waiting.reserve_draw_id).await.expect("approved");
    assert_eq!((approved.state(), approved.policy_version), (State::Approved, 1));
    // What was automatic is no more, and needs two.
    let now = ask(&world, request(&world, 101).await).await.expect("taken");
    assert_eq!((now.state(), now.policy_version, now.approvals_needed), (State::Requested, 2, 2));
    let sql = "SELECT count(*) FROM audit_entry WHERE subject_id = $1::uuid AND actor = 'cfo' AND reason = 'a campaign with larger stakes'";
    assert_eq!(world.count(sql, of).await, 1);

    refused(policy(&world, &world.plan, 3).await, Code::NotFound, "POLICY_VERSION_NOT_FOUND");
    refused(policy(&world, &id(), 0).await, Code::NotFound, "PLAN_NOT_FOUND");
    let nowhere = pb::ProposeReservePolicyRequest { plan_id: id(), ..proposal(&world, two_above(1)) };
    refused(propose(&world, nowhere).await, Code::NotFound, "PLAN_NOT_FOUND");
    let bare = world.envelope_of(100).await;
    let sql = "SELECT plan_id::text FROM envelope WHERE envelope_id = $1::uuid";
    let bare: String = sqlx::query_scalar(sql).bind(bare).fetch_one(&world.budget.database.admin).await.expect("a plan");
    let bare = pb::ProposeReservePolicyRequest { plan_id: bare, ..proposal(&world, two_above(1)) };
    refused(propose(&world, bare).await, Code::FailedPrecondition, "RESERVE_MISSING");
    let same = propose(&world, proposal(&world, second.terms.clone().expect("terms"))).await;
    assert_eq!(violations(same), [("terms".to_owned(), "AMENDMENT_EMPTY".to_owned())]);
    let contradiction = pb::ReserveTerms { automatic_limit: Some(fen(101)), ..two_above(100) };
    let pair = |field: &str, rule: &str| (field.to_owned(), rule.to_owned());
    let wrong = propose(&world, proposal(&world, contradiction)).await;
    assert_eq!(violations(wrong), [pair("terms.automatic_limit", "POLICY_CONTRADICTS")]);
    let odd = pb::ReserveTerms { automatic_limit: Some(fen(-1)), one_person_limit: Some(fen(-2)), ..Default::default() };
    let wrong = propose(&world, proposal(&world, odd)).await;
    let negative = |field| pair(field, "AMOUNT_NEGATIVE");
    assert_eq!(violations(wrong), [negative("terms.automatic_limit"), negative("terms.one_person_limit")]);
    let odd = pb::ReserveTerms { max_share_bp: Some(0), required_evidence: vec!["A".into()], ..Default::default() };
    let wrong = violations(propose(&world, proposal(&world, odd)).await);
    let fields: Vec<&str> = wrong.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["terms.required_evidence[0]", "terms.max_share_bp"]);
}

#[tokio::test]
async fn two_different_people_approve_what_is_large_and_a_name_makes_nothing_automatic() {
    let world = World::new().await;
    set(&world, two_above(1_000)).await;
    let large = ask(&world, request(&world, 1_001).await).await.expect("taken").reserve_draw_id;
    refused(approve(&world, "spike-detector", &large).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    let half = approve(&world, "controller", &large).await.expect("half approved");
    assert_eq!((half.state(), half.approvals_needed, half.reservation_id.as_str()), (State::Requested, 2, ""));
    assert_eq!(half.approvals.iter().map(|a| a.approved_by.as_str()).collect::<Vec<_>>(), ["controller"]);
    assert_eq!((half.decided_by.as_str(), world.available(&world.reserve).await), ("", RESERVE));
    refused(approve(&world, "controller", &large).await, Code::FailedPrecondition, "APPROVER_REPEATED");
    let whole = approve(&world, "treasurer", &large).await.expect("approved");
    assert_eq!((whole.state(), whole.decided_by.as_str(), whole.automatic), (State::Approved, "treasurer", false));
    let approvals: Vec<_> = whole.approvals.iter().map(|a| (a.approved_by.as_str(), a.reason.as_str())).collect();
    assert_eq!(approvals, [("controller", "it spreads"), ("treasurer", "it spreads")]);
    assert!(whole.approvals.iter().all(|a| a.approve_time.is_some()));
    assert_eq!(world.available(&world.reserve).await, RESERVE - 1_001);
    refused(approve(&world, "auditor", &large).await, Code::FailedPrecondition, "DRAW_STATE");
    told(&world, &large, &[State::Requested, State::Requested, State::Approved]).await;

    // After the first approval it may still be rejected, or lapse.
    let other = ask(&world, request(&world, 1_001).await).await.expect("taken").reserve_draw_id;
    approve(&world, "controller", &other).await.expect("half approved");
    let rejected = reject(&world, "treasurer", &other).await.expect("rejected");
    assert_eq!((rejected.state(), rejected.approvals.len()), (State::Rejected, 1));
    let late = ask(&world, request(&world, 1_001).await).await.expect("taken").reserve_draw_id;
    approve(&world, "controller", &late).await.expect("half approved");
    world.budget.advance(HOUR).await;
    let figures = refused(approve(&world, "treasurer", &late).await, Code::FailedPrecondition, "DRAW_STATE");
    assert_eq!(figures["state"], "LAPSED");

    // A person may be called like anything.
    let by_name = ask(&world, request(&world, 1).await).await.expect("taken").reserve_draw_id;
    let by_name = approve(&world, "policy", &by_name).await.expect("approved");
    assert_eq!((by_name.decided_by.as_str(), by_name.automatic, by_name.approvals.len()), ("policy", false, 1));
    let mut own = draws(&world, "policy");
    let own_draw = own.request_reserve_draw(request(&world, 1).await).await.expect("taken").into_inner().reserve_draw;
    let own_draw = own_draw.unwrap_or_default();
    assert_eq!((own_draw.requested_by.as_str(), own_draw.automatic), ("policy", false));
    let refusal = approve(&world, "policy", &own_draw.reserve_draw_id).await;
    refused(refusal, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_second_approvals_at_once_do_not_both_take_the_last_of_the_reserve() {
    let world = World::new().await;
    set(&world, two_above(0)).await;
    let most = RESERVE * 3 / 5;
    let mut halves = Vec::new();
    for _ in 0..2 {
        let half = ask(&world, request(&world, most).await).await.expect("taken").reserve_draw_id;
        approve(&world, "controller", &half).await.expect("half approved");
        halves.push(half);
    }
    let seconds = join_all(halves.iter().map(|half| approve(&world, "treasurer", half))).await;
    let (won, lost) = if seconds[0].is_ok() { (0, 1) } else { (1, 0) };
    let mut seconds: Vec<_> = seconds.into_iter().map(Some).collect();
    let held = seconds[won].take().expect("once").expect("approved").reservation_id;
    let refusal = seconds[lost].take().expect("once");
    short(refusal, "ENVELOPE_EXHAUSTED", &world.reserve, Some(most), RESERVE - most);
    // The refused approval counts for nothing; the first one stays, and the same person may try again when money is back.
    let waits = get(&world, &halves[lost]).await;
    assert_eq!((waits.state(), waits.approvals.len()), (State::Requested, 1));
    world.release(&held, None).await.expect("given back");
    let approved = approve(&world, "treasurer", &halves[lost]).await.expect("approved");
    assert_eq!((approved.state(), approved.approvals.len()), (State::Approved, 2));
    assert_eq!(world.available(&world.reserve).await, RESERVE - most);
    // Two people at once on one draw: both count, and it is approved once.
    let both = ask(&world, request(&world, 10).await).await.expect("taken").reserve_draw_id;
    let answers = join_all(["controller", "treasurer"].map(|who| approve(&world, who, &both))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(get(&world, &both).await.state(), State::Approved);
    assert_eq!(world.available(&world.reserve).await, RESERVE - most - 10);
    // The same person at once with herself counts once.
    let alone = ask(&world, request(&world, 10).await).await.expect("taken").reserve_draw_id;
    let answers = join_all((0..3).map(|_| approve(&world, "controller", &alone))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers.into_iter().filter(Result::is_err) {
        refused(answer, Code::FailedPrecondition, "APPROVER_REPEATED");
    }
    assert_eq!(get(&world, &alone).await.state(), State::Requested);
    world.verified().await;
}

#[tokio::test]
async fn policy_asks_for_named_evidence_bounds_a_draw_and_lets_members_cool_down() {
    let world = World::new().await;
    let terms = pb::ReserveTerms {
        automatic_limit: Some(fen(5_000)),
        required_evidence: vec!["ratio_to_baseline".into(), "organic_share".into()],
        max_share_bp: Some(2_000),
        output_cool_down_hours: Some(0),
        member_cool_down_hours: Some(6),
        ..Default::default()
    };
    set(&world, terms).await;
    let member = id();
    let item = |name: &str| pb::EvidenceItem { name: name.into(), value: "0.9".into() };
    let full = vec![item("organic_share"), item("ratio_to_baseline")];
    let for_member = |asked: pb::RequestReserveDrawRequest, member: &str| pb::RequestReserveDrawRequest {
        member_id: member.to_owned(),
        evidence: full.clone(),
        ..asked
    };
    // Half of the evidence, or nothing that bounds how often it is asked for: a person decides.
    let partial = pb::RequestReserveDrawRequest { member_id: id(), ..request(&world, 10).await };
    assert_eq!(ask(&world, partial).await.expect("taken").state(), State::Requested);
    let unbounded = pb::RequestReserveDrawRequest { evidence: full.clone(), ..request(&world, 10).await };
    assert_eq!(ask(&world, unbounded).await.expect("taken").state(), State::Requested);
    let drawn = ask(&world, for_member(request(&world, 5_000).await, &member)).await.expect("taken");
    assert_eq!((drawn.state(), drawn.automatic), (State::Approved, true));

    let figures =
        refused(ask(&world, for_member(request(&world, 1).await, &member)).await, Code::FailedPrecondition, "DRAW_COOLING_DOWN");
    assert_eq!((figures["subject"].as_str(), figures["subject_type"].as_str()), (member.as_str(), "member"));
    let until: chrono::DateTime<chrono::Utc> = figures["until"].parse().expect("a time");
    let created = drawn.create_time.expect("a time");
    assert_eq!(until.timestamp() - created.seconds, 6 * 60 * 60);
    world.budget.advance(HOUR * 6).await;
    let again = ask(&world, for_member(request(&world, 1).await, &member)).await.expect("taken");
    assert_eq!(again.state(), State::Approved);
    // Two at once for one member: one stands.
    let other = id();
    let both = [request(&world, 1).await, request(&world, 1).await].map(|asked| for_member(asked, &other));
    let answers = join_all(both.map(|asked| ask(&world, asked))).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers.into_iter().filter(Result::is_err) {
        refused(answer, Code::FailedPrecondition, "DRAW_COOLING_DOWN");
    }

    let most = RESERVE / 5;
    let over = ask(&world, request(&world, most + 1).await).await;
    let figures = refused(over, Code::FailedPrecondition, "DRAW_TOO_LARGE");
    assert_eq!((figures["limit_id"].as_str(), figures["limit_type"].as_str()), (world.plan.as_str(), "RESERVE_SHARE"));
    assert_eq!((figures["asked_minor"].clone(), figures["available_minor"].clone()), ((most + 1).to_string(), most.to_string()));
    assert_eq!(ask(&world, request(&world, most).await).await.expect("taken").state(), State::Requested);
    world.verified().await;
}
