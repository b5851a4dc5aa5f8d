//! Grants: who may get what, what is asked before it leaves the house, and what it does to the money.

use crate::{catalogue::*, granting::*, world::*};
use koc_proto::koc::{
    budget::v1::{
        self as pb, EligibilityMismatch as Mismatch, GrantState as State, ResourceClass::Exclusive, ResourceClass::Incentive,
        ResourceClass::Inclusive, cost_model::Model,
    },
    registry::v1::{TrustLevel, ValueType},
};
use koc_tests::wait;
use tonic::Code;

fn to_guangdong() -> pb::ResourceUsage {
    pb::ResourceUsage { region_code: "CN-GD".into(), ..usage() }
}

/// Waits until a grant's facts are published, in order.
async fn told(world: &World, grant: &str, expected: &[State]) -> Vec<pb::GrantChanged> {
    let facts = wait::until("the grant's facts", PATIENCE, async || {
        let facts: Vec<pb::GrantChanged> = world.facts_of(grant).await;
        (facts.len() >= expected.len()).then_some(facts)
    })
    .await;
    assert_eq!(facts.iter().map(pb::GrantChanged::state).collect::<Vec<_>>(), expected);
    facts
}

#[tokio::test]
async fn a_kit_is_held_for_committed_when_shipped_and_spent_when_delivered() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 5).await.expect("received");
    let member = member(&world, TrustLevel::Proven).await;
    let request = issue_request(&world, &member, &kit, to_guangdong());
    let grant = issue(&world, request.clone()).await.expect("issued");
    // 68 + 3 × 0.80 + 12 in cash; 60 + 9 without.
    let estimate = grant.estimate.clone().expect("an estimate");
    assert_eq!((grant.state(), totals(&estimate)[1..3].to_vec()), (State::Issued, vec![8_240, 6_900]));
    assert_eq!(issue(&world, request).await.expect("the first answer"), grant);
    let of = grant.grant_id.as_str();
    let held = world.get(&grant.reservation_id).await.expect("a hold");
    assert_eq!((parts(&held), held.member_id.as_str(), held.purpose), ([8_240, 0, 0, 0], member.as_str(), format!("grant/{of}")));
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 4);
    refused(deliver(&world, of).await, Code::FailedPrecondition, "GRANT_STATE");
    refused(fulfil(&world, of).await, Code::FailedPrecondition, "RESOURCE_KIND");
    let shipped = ship(&world, of).await.expect("shipped");
    assert_eq!((shipped.state(), shipped.shipping_reference.as_str()), (State::Shipped, "SF-1"));
    assert_eq!(world.balances().await, [0, 8_240, 0, ENVELOPE - 8_240]);
    assert_eq!(memo(&world, of).await, (Vec::new(), Vec::new()));
    let figures = refused(cancel(&world, of).await, Code::FailedPrecondition, "GRANT_STATE");
    assert_eq!((figures["subject"].as_str(), figures["state"].as_str()), (of, "SHIPPED"));
    let delivered = deliver(&world, of).await.expect("delivered");
    assert_eq!(world.balances().await, [0, 0, 8_240, ENVELOPE - 8_240]);
    use pb::MemoAccount::{Consumption, Grants};
    let expected = [("design".to_owned(), Consumption, 6_000), ("proofing".to_owned(), Consumption, 900)];
    assert_eq!(memo(&world, of).await, (expected.to_vec(), vec![(Consumption, -6_900), (Grants, 6_900)]));
    assert_eq!((get(&world, of).await.expect("there"), delivered.estimate.clone()), (delivered.clone(), Some(estimate)));
    let facts = told(&world, of, &[State::Issued, State::Shipped, State::Delivered]).await;
    let cost = facts[2].cost.clone().expect("what it cost");
    let bases = [&cost.marginal, &cost.amortised, &cost.full].map(|money| minor(money.as_ref()));
    assert_eq!((facts[1].cost.clone(), bases, facts[2].member_id.as_str()), (None, [8_240, 15_140, 15_140], member.as_str()));
    refused(get(&world, &id()).await, Code::NotFound, "GRANT_NOT_FOUND");
    world.verified().await;
}

#[tokio::test]
async fn a_cancelled_grant_gives_everything_back_and_a_refused_one_took_nothing() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 500).await.expect("received");
    let member = member(&world, TrustLevel::Proven).await;
    let grant = issue(&world, issue_request(&world, &member, &kit, to_guangdong())).await.expect("issued");
    assert_eq!(cancel(&world, &grant.grant_id).await.expect("cancelled").state(), State::Cancelled);
    refused(ship(&world, &grant.grant_id).await, Code::FailedPrecondition, "GRANT_STATE");
    assert_eq!(world.balances().await, [0, 0, 0, ENVELOPE]);
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 500);
    // More than the envelope has: the kits stay on the shelf.
    let many = pb::ResourceUsage { quantity: Some(200), ..to_guangdong() };
    let dear = issue(&world, issue_request(&world, &member, &kit, many)).await;
    short(dear, "ENVELOPE_EXHAUSTED", &world.envelope, Some(1_648_000), ENVELOPE);
    let found = stock(&world, &kit.resource_id).await.expect("a page");
    assert_eq!((found.on_hand, found.movements.len()), (500, 3));
    // A member's limit counts as for any other hold.
    world.set_limit(world.limit_request(&member, 8_000)).await.expect("a limit");
    let over = issue(&world, issue_request(&world, &member, &kit, to_guangdong())).await;
    refused(over, Code::FailedPrecondition, "MEMBER_LIMIT_EXHAUSTED");
    let unpaid = pb::IssueGrantRequest { envelope_id: String::new(), ..issue_request(&world, &member, &kit, to_guangdong()) };
    assert_eq!(violations(issue(&world, unpaid).await), [("envelope_id".to_owned(), "ENVELOPE_REQUIRED".to_owned())]);
    world.verified().await;
}

#[tokio::test]
async fn a_member_who_does_not_fit_gets_it_with_a_reason_alone() {
    let world = World::new().await;
    let crew = pb::ProductionCrewCost { day_rate: "450".into(), equipment_rate: "120".into(), job: Some(fen(20_000)) };
    let crew = resource(&world, Incentive, "crew", Model::ProductionCrew(crew)).await;
    let member = member(&world, TrustLevel::Trusted).await;
    let days = pb::ResourceUsage { start_date: "2026-06-01".into(), end_date: "2026-06-03".into(), ..usage() };
    let request = || issue_request(&world, &member, &crew, days.clone());
    let mismatches = async || {
        let figures = refused(issue(&world, request()).await, Code::FailedPrecondition, "ELIGIBILITY_REASON_REQUIRED");
        figures["mismatches"].clone()
    };
    assert_eq!(mismatches().await, "TIER_CLASS,VALUE_TYPE");
    label(&world, &member, &[ValueType::Social, ValueType::Content]).await;
    assert_eq!(mismatches().await, "TIER_CLASS");
    let reasoned = pb::IssueGrantRequest { eligibility_reason: "the launch film".into(), ..request() };
    let grant = issue(&world, reasoned).await.expect("issued");
    assert_eq!((grant.mismatches().collect::<Vec<_>>(), grant.requested_by.as_str()), (vec![Mismatch::TierClass], "planner"));
    assert_eq!(grant.reason, "a launch; although the member does not fit: the launch film");
    promote(&world, &member).await;
    let fits = issue(&world, request()).await.expect("issued");
    assert_eq!((fits.mismatches.as_slice(), fits.reason.as_str()), (&[][..], "a launch"));
    // 2 × (450 + 120) + 200.
    let done = fulfil(&world, &fits.grant_id).await.expect("fulfilled");
    assert_eq!((done.state(), world.balances().await[2]), (State::Fulfilled, 134_000));
}

#[tokio::test]
async fn a_new_member_waits_for_another_person() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 1).await.expect("received");
    let member = member(&world, TrustLevel::New).await;
    let ask = async || issue(&world, issue_request(&world, &member, &kit, to_guangdong())).await.expect("taken");
    let waiting = ask().await;
    assert_eq!((waiting.state(), waiting.reservation_id.as_str()), (State::PendingApproval, ""));
    assert_eq!(
        (world.balances().await, stock(&world, &kit.resource_id).await.expect("a page").on_hand),
        ([0, 0, 0, ENVELOPE], 1)
    );
    let of = waiting.grant_id.as_str();
    refused(ship(&world, of).await, Code::FailedPrecondition, "GRANT_STATE");
    refused(approve(&world, "planner", of).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    refused(reject(&world, "planner", of).await, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    let second = ask().await;
    let approved = approve(&world, "controller", of).await.expect("approved");
    assert_eq!((approved.state(), approved.decided_by.as_str()), (State::Issued, "controller"));
    assert_eq!(parts(&world.get(&approved.reservation_id).await.expect("a hold")), [8_240, 0, 0, 0]);
    refused(approve(&world, "controller", of).await, Code::FailedPrecondition, "GRANT_STATE");
    // What an approval needs may be gone by then: the grant goes on waiting.
    refused(approve(&world, "controller", &second.grant_id).await, Code::FailedPrecondition, "STOCK_EXHAUSTED");
    assert_eq!(get(&world, &second.grant_id).await.expect("there").state(), State::PendingApproval);
    let rejected = reject(&world, "controller", &second.grant_id).await.expect("rejected");
    assert_eq!((rejected.state(), rejected.decided_by.as_str()), (State::Rejected, "controller"));
    // One that took nothing gives nothing back.
    let third = ask().await;
    assert_eq!(cancel(&world, &third.grant_id).await.expect("cancelled").state(), State::Cancelled);
    assert_eq!(stock(&world, &kit.resource_id).await.expect("a page").on_hand, 0);
    told(&world, of, &[State::PendingApproval, State::Issued]).await;
    let audit =
        "SELECT count(*) FROM audit_entry WHERE subject_id = $1::uuid AND actor = 'controller' AND reason = 'known in person'";
    assert_eq!(world.count(audit, of).await, 1);
}

#[tokio::test]
async fn what_cannot_be_undone_asks_for_consent_and_without_an_answer_nothing_leaves() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 9).await.expect("received");
    let (leaves, stays) = (member(&world, TrustLevel::Proven).await, member(&world, TrustLevel::Proven).await);
    let mine = issue(&world, issue_request(&world, &leaves, &kit, to_guangdong())).await.expect("issued");
    let theirs = issue(&world, issue_request(&world, &stays, &kit, to_guangdong())).await.expect("issued");
    withdraw(&world, &leaves).await;
    let figures = refused(ship(&world, &mine.grant_id).await, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
    assert_eq!(figures["subject"], leaves);
    let again = issue(&world, issue_request(&world, &leaves, &kit, to_guangdong())).await;
    refused(again, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
    let nobody = issue(&world, issue_request(&world, &id(), &kit, to_guangdong())).await;
    refused(nobody, Code::NotFound, "MEMBER_NOT_FOUND");
    cancel(&world, &mine.grant_id).await.expect("what is held goes back");
    let world = world.cut_off().await;
    refused(ship(&world, &theirs.grant_id).await, Code::Unavailable, "REGISTRY_UNAVAILABLE");
    let other = issue(&world, issue_request(&world, &stays, &kit, to_guangdong())).await;
    refused(other, Code::Unavailable, "REGISTRY_UNAVAILABLE");
    assert_eq!(get(&world, &theirs.grant_id).await.expect("there").state(), State::Issued);
    cancel(&world, &theirs.grant_id).await.expect("needs no answer");
}

#[tokio::test]
async fn issuing_a_digital_asset_spends_nothing() {
    let world = World::new().await;
    let pack = resource(&world, Inclusive, "pack", Model::DigitalAsset(wallpapers())).await;
    let member = member(&world, TrustLevel::Proven).await;
    let free = |usage| pb::IssueGrantRequest { envelope_id: String::new(), ..issue_request(&world, &member, &pack, usage) };
    let grant = issue(&world, free(pb::ResourceUsage { quantity: Some(10_000), ..usage() })).await.expect("issued");
    assert_eq!((grant.estimate, grant.reservation_id.as_str()), (None, ""));
    assert_eq!(fulfil(&world, &grant.grant_id).await.expect("fulfilled").state(), State::Fulfilled);
    assert_eq!((world.balances().await, memo(&world, &grant.grant_id).await.0), ([0, 0, 0, ENVELOPE], Vec::new()));
    let paid = issue(&world, issue_request(&world, &member, &pack, usage())).await;
    assert_eq!(violations(paid), [("envelope_id".to_owned(), "ENVELOPE_NOT_TAKEN".to_owned())]);
    let much = issue(&world, free(pb::ResourceUsage { active_users: Some(1), ..usage() })).await;
    assert_eq!(violations(much), [("usage.active_users".to_owned(), "USAGE_NOT_TAKEN".to_owned())]);
}

#[tokio::test]
async fn pay_whose_tax_is_open_is_not_granted() {
    let world = World::new().await;
    let stipend = pb::StipendCost {
        payment: Some(fen(80_000)),
        tax_table_id: "tax.example".into(),
        tax_category: "PRIZE".into(),
        tax_bearer: pb::TaxBearer::Brand.into(),
    };
    let pay = resource(&world, Inclusive, "pay", Model::Stipend(stipend)).await;
    let member = member(&world, TrustLevel::Proven).await;
    let figures =
        refused(issue(&world, issue_request(&world, &member, &pay, usage())).await, Code::FailedPrecondition, "TAX_UNDETERMINED");
    assert_eq!(figures["category"], "PRIZE");
    example_tables(&world).await;
    let grant = issue(&world, issue_request(&world, &member, &pay, usage())).await.expect("issued");
    fulfil(&world, &grant.grant_id).await.expect("fulfilled");
    assert_eq!(world.balances().await, [0, 0, 100_000, ENVELOPE - 100_000]);
}

#[tokio::test]
async fn a_car_that_was_used_more_or_less_than_planned_is_restated_at_the_first_rates() {
    let mut world = World::new().await;
    example_tables(&world).await;
    let car = resource(&world, Exclusive, "car", Model::LoanVehicle(car())).await;
    let unit = register(&world, &car.resource_id, "car 1").await.expect("a unit");
    let member = member(&world, TrustLevel::Partner).await;
    let lend = async |world: &World, start: &str, end: &str| {
        let used = pb::ResourceUsage { start_date: start.into(), end_date: end.into(), ..loan() };
        let request = pb::IssueGrantRequest {
            unit_id: unit.unit_id.clone(),
            eligibility_reason: "a long test".into(),
            ..issue_request(world, &member, &car, used)
        };
        let grant = issue(world, request).await.expect("booked");
        assert_eq!(hand_over(world, &grant.grant_id).await.expect("handed over").state(), State::HandedOver);
        grant
    };
    // Back after 20 of 30 days, with 400 of 1,000 km: (25.141015 + 15.471394 + 9.669621) × 20 + 0.24 × 400.
    let grant = lend(&world, "2026-06-10", "2026-07-10").await;
    let of = grant.grant_id.as_str();
    refused(settle(&world, of).await, Code::FailedPrecondition, "GRANT_STATE");
    let backwards = violations(take_back(&world, of, "2026-06-10", "400", Vec::new()).await);
    assert_eq!(backwards, [("end_date".to_owned(), "PERIOD_EMPTY".to_owned())]);
    let share = pb::Incident { cost: Some(fen(1)), fault_share: "2".into() };
    let broken = violations(take_back(&world, of, "2026-06-30", "-4", vec![share]).await);
    let expected = [("kilometres", "RATE_MALFORMED"), ("incidents[0].fault_share", "SHARE_OUT_OF_RANGE")];
    assert_eq!(broken, expected.map(|(field, rule)| (field.to_owned(), rule.to_owned())));
    // Rates that are set meanwhile, for the same days, change nothing of it.
    let dearer = vec![row("energy", "", "9"), row("tyres", "", "9")];
    set_table(&world, table_request(&world, "car.km", pb::RateTableKind::Keyed, "2026-01-01", dearer)).await.expect("set");
    let back = take_back(&world, of, "2026-06-30", "400", Vec::new()).await.expect("back");
    let last = back.restated.clone().expect("restated");
    assert_eq!((back.state(), totals(&last)[1]), (State::Returned, 50_282 + 30_943 + 19_339 + 9_600));
    let first = totals(grant.estimate.as_ref().expect("an estimate"));
    assert_eq!(minor(back.variance.as_ref()), totals(&last)[4] - first[4]);
    let days = calendar(&world, &unit.unit_id, "2026-06-01", "2026-08-01").await.expect("a calendar");
    assert_eq!(days, [("2026-06-10".to_owned(), "2026-06-30".to_owned(), true)]);
    let settled = settle(&world, of).await.expect("settled");
    assert_eq!((settled.state(), settled.extra_reservation_id.as_str()), (State::Settled, ""));
    let spent = totals(&last)[1];
    assert_eq!(world.balances().await, [0, 0, spent, ENVELOPE - spent]);
    assert_eq!(parts(&world.get(&settled.reservation_id).await.expect("a hold")), [0, 0, spent, first[1] - spent]);

    let cheaper = vec![row("energy", "", "0.18"), row("tyres", "", "0.06")];
    set_table(&world, table_request(&world, "car.km", pb::RateTableKind::Keyed, "2026-01-01", cheaper)).await.expect("set");
    // Longer, farther, with a damage: what is missing is held on the side, and without it nothing is settled.
    let envelope = world.envelope_of(600_000).await;
    world.envelope = envelope.clone();
    let grant = lend(&world, "2026-07-01", "2026-07-11").await;
    let of = grant.grant_id.as_str();
    let damage = pb::Incident { cost: Some(fen(800_000)), fault_share: "0.5".into() };
    let back = take_back(&world, of, "2026-07-12", "100", vec![damage]).await.expect("back");
    let (planned, real) = (totals(grant.estimate.as_ref().expect("one"))[1], totals(back.restated.as_ref().expect("one"))[1]);
    let request = pb::ReserveRequest { envelope_id: envelope.clone(), ..world.reserve_request(600_000 - planned) };
    let blocking = world.reserve_with(request).await.expect("all that is left");
    short(settle(&world, of).await, "ENVELOPE_EXHAUSTED", &envelope, Some(real - planned), 0);
    assert_eq!(get(&world, of).await.expect("there").state(), State::Returned);
    world.release(&blocking.reservation_id, None).await.expect("released");
    let settled = settle(&world, of).await.expect("settled");
    let [main, extra] = [&settled.reservation_id, &settled.extra_reservation_id];
    assert_eq!(parts(&world.get(main).await.expect("a hold")), [0, 0, planned, 0]);
    assert_eq!(parts(&world.get(extra).await.expect("a hold")), [0, 0, real - planned, 0]);
    assert_eq!(world.available(&envelope).await, 600_000 - real);
    world.verified().await;
}

#[tokio::test]
async fn a_car_leaves_with_its_money_held_and_its_plan_stays_open_until_it_is_settled() {
    let world = World::new().await;
    example_tables(&world).await;
    let car = resource(&world, Exclusive, "car", Model::LoanVehicle(car())).await;
    let unit = register(&world, &car.resource_id, "car 1").await.expect("a unit");
    let member = member(&world, TrustLevel::Partner).await;
    let book = async || {
        let request = pb::IssueGrantRequest {
            unit_id: unit.unit_id.clone(),
            eligibility_reason: "a long test".into(),
            ..issue_request(&world, &member, &car, loan())
        };
        issue(&world, request).await.expect("booked")
    };
    let bare = book().await;
    assert_eq!(cancel(&world, &bare.grant_id).await.expect("cancelled").state(), State::Cancelled);

    let grant = book().await;
    let held = world.get(&grant.reservation_id).await.expect("a hold").expire_time.expect("a time").seconds;
    hand_over(&world, &grant.grant_id).await.expect("handed over");
    let kept = world.get(&grant.reservation_id).await.expect("a hold").expire_time.expect("a time").seconds;
    assert!(kept >= held, "{kept} is before {held}");
    let close = async || world.close(&world.plan, pb::OpenReservations::Release, "").await;
    let figures = refused(close().await, Code::FailedPrecondition, "GRANTS_OUT");
    assert_eq!((&figures["subject"], figures["count"].as_str()), (&world.plan, "1"));
    take_back(&world, &grant.grant_id, "2026-06-30", "400", Vec::new()).await.expect("back");
    refused(close().await, Code::FailedPrecondition, "GRANTS_OUT");
    settle(&world, &grant.grant_id).await.expect("settled");
    assert_eq!(close().await.expect("proposed").state(), pb::AmendmentState::Proposed);
    world.verified().await;
}

#[tokio::test]
async fn a_car_without_held_money_leaves_on_an_active_plan_only() {
    let world = World::new().await;
    example_tables(&world).await;
    let car = resource(&world, Exclusive, "car", Model::LoanVehicle(car())).await;
    let unit = register(&world, &car.resource_id, "car 1").await.expect("a unit");
    let member = member(&world, TrustLevel::Partner).await;
    let request = pb::IssueGrantRequest {
        unit_id: unit.unit_id,
        eligibility_reason: "a long test".into(),
        ..issue_request(&world, &member, &car, loan())
    };
    let grant = issue(&world, request).await.expect("booked");
    let admin = &world.budget.database.admin;
    // As one whose estimate came to no cash.
    sqlx::query("UPDATE resource_grant SET reservation_id = NULL").execute(admin).await.expect("changed");
    sqlx::query("UPDATE plan SET state = 'CLOSED'").execute(admin).await.expect("changed");
    refused(hand_over(&world, &grant.grant_id).await, Code::FailedPrecondition, "PLAN_STATE");
    sqlx::query("UPDATE plan SET state = 'ACTIVE'").execute(admin).await.expect("changed");
    let found = get(&world, &grant.grant_id).await.expect("there");
    assert_eq!(found.state(), State::Booked, "it did not leave");
}

#[tokio::test]
async fn grants_are_listed_by_member_and_resource() {
    let world = World::new().await;
    let pack = resource(&world, Inclusive, "pack", Model::DigitalAsset(wallpapers())).await;
    let other = resource(&world, Inclusive, "other", Model::DigitalAsset(wallpapers())).await;
    let (one, two) = (member(&world, TrustLevel::Proven).await, member(&world, TrustLevel::Proven).await);
    let mut issued = Vec::new();
    for (member, resource) in [(&one, &pack), (&one, &other), (&two, &pack)] {
        let request = pb::IssueGrantRequest { envelope_id: String::new(), ..issue_request(&world, member, resource, usage()) };
        issued.push(issue(&world, request).await.expect("issued"));
    }
    let list = async |member_id: &str, resource_id: &str, page_size: i32, page_token: String| {
        let request = pb::ListGrantsRequest {
            programme_id: world.programme.clone(),
            member_id: member_id.into(),
            resource_id: resource_id.into(),
            page_size,
            page_token,
        };
        grants(&world, "anyone").list_grants(request).await.map(|page| page.into_inner())
    };
    let first = list("", "", 2, String::new()).await.expect("a page");
    let second = list("", "", 2, first.next_page_token.clone()).await.expect("a page");
    assert_eq!([first.grants, second.grants].concat(), issued);
    let mine = list(&one, "", 0, String::new()).await.expect("a page");
    assert_eq!(mine.grants, issued[..2]);
    let packs = list("", &pack.resource_id, 0, String::new()).await.expect("a page");
    assert_eq!(packs.grants, [issued[0].clone(), issued[2].clone()]);
    let other = list(&two, "", 2, first.next_page_token).await;
    assert_eq!(violations(other), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
}

#[tokio::test]
async fn a_grants_money_moves_with_the_grant_alone() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 5).await.expect("received");
    let member = member(&world, TrustLevel::Proven).await;
    let grant = issue(&world, issue_request(&world, &member, &kit, to_guangdong())).await.expect("issued");
    let (of, held) = (grant.grant_id.as_str(), grant.reservation_id.as_str());
    let figures = refused(world.release(held, None).await, Code::FailedPrecondition, "GRANT_OWNS_RESERVATION");
    assert_eq!((figures["subject"].as_str(), &figures["owner"]), (held, &format!("grant/{of}")));
    assert_eq!(figures["methods"], "RejectGrant or CancelGrant");
    let figures = refused(world.commit(held, Some(1)).await, Code::FailedPrecondition, "GRANT_OWNS_RESERVATION");
    assert_eq!(figures["methods"], "ShipGrant, ConfirmGrantDelivery, SettleGrant or FulfilGrant");
    let longer = world.reservations().extend(world.extend_request(held, DAY)).await.map(|extended| extended.into_inner());
    refused(longer, Code::FailedPrecondition, "GRANT_OWNS_RESERVATION");
    let rehearsed = pb::CommitRequest { validate_only: true, ..world.commit_request(held, None) };
    refused(world.reservations().commit(rehearsed).await, Code::FailedPrecondition, "GRANT_OWNS_RESERVATION");
    ship(&world, of).await.expect("shipped");
    refused(world.spend(held, None).await, Code::FailedPrecondition, "GRANT_OWNS_RESERVATION");
    let entry =
        async |kind| world.entries(&world.envelope).await.into_iter().find(|entry| entry.kind() == kind).expect("an entry");
    let owed = pb::ReverseRequest { release: true, ..world.reverse_request(&entry(pb::LedgerEntryKind::Commit).await) };
    refused(world.reverse_with(owed).await, Code::FailedPrecondition, "GRANT_OWNS_RESERVATION");
    deliver(&world, of).await.expect("delivered");
    // What was paid and came back is put right by hand: the grant is at its end.
    let paid = world.reverse_request(&entry(pb::LedgerEntryKind::Spend).await);
    let again = pb::ReverseRequest { release: false, ..paid.clone() };
    refused(world.reverse_with(again).await, Code::FailedPrecondition, "GRANT_OWNS_RESERVATION");
    world.reverse_with(pb::ReverseRequest { release: true, request_id: id(), ..paid }).await.expect("refunded");
    assert_eq!(world.balances().await, [0, 0, 0, ENVELOPE]);
    // The hold of another purpose is nobody's.
    let other = world.reserve(10).await.expect("held");
    world.release(&other.reservation_id, None).await.expect("given back");
    world.verified().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_with_open_grants_is_not_retired_and_its_estimates_stay_readable() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 5).await.expect("received");
    let member = member(&world, TrustLevel::Proven).await;
    let one = issue(&world, issue_request(&world, &member, &kit, to_guangdong())).await.expect("issued");
    let two = issue(&world, issue_request(&world, &member, &kit, to_guangdong())).await.expect("issued");
    let retire = async || {
        let request = pb::RetireResourceRequest {
            programme_id: world.programme.clone(),
            request_id: id(),
            resource_id: kit.resource_id.clone(),
            date: "2026-08-01".into(),
            reason: "no more of them".into(),
            ..Default::default()
        };
        resources(&world, "planner").retire_resource(request).await
    };
    let figures = refused(retire().await, Code::FailedPrecondition, "GRANTS_OPEN");
    assert_eq!((&figures["subject"], figures["count"].as_str()), (&kit.resource_id, "2"));
    cancel(&world, &one.grant_id).await.expect("cancelled");
    ship(&world, &two.grant_id).await.expect("shipped");
    let figures = refused(retire().await, Code::FailedPrecondition, "GRANTS_OPEN");
    assert_eq!(figures["count"], "1");
    deliver(&world, &two.grant_id).await.expect("delivered");
    // At once with one that is issued: the one comes first or the other.
    let (ended, issued) = tokio::join!(retire(), issue(&world, issue_request(&world, &member, &kit, to_guangdong())));
    match issued {
        Ok(_) => assert_eq!(refused(ended, Code::FailedPrecondition, "GRANTS_OPEN")["count"], "1"),
        Err(refusal) => {
            ended.expect("retired");
            refused(Err::<(), _>(refusal), Code::FailedPrecondition, "RESOURCE_RETIRED");
        }
    }
    let kept = one.estimate.expect("an estimate");
    let estimate = async |estimate_id: &str| {
        let request = pb::GetEstimateRequest { programme_id: world.programme.clone(), estimate_id: estimate_id.into() };
        resources(&world, "anyone").get_estimate(request).await.map(|answer| answer.into_inner().estimate)
    };
    assert_eq!(estimate(&kept.estimate_id).await.expect("there"), Some(kept));
    refused(estimate(&id()).await, Code::NotFound, "ESTIMATE_NOT_FOUND");
}
