//! Members, grants and what they take from, as tests set them up.

use crate::{catalogue::*, world::*};
use koc_proto::koc::{
    budget::v1 as pb,
    registry::v1::{self as registry, TrustLevel, ValueType},
};
use koc_tests::service::TestChannel;
use tonic::Status;

pub type Grants = pb::grant_service_client::GrantServiceClient<TestChannel>;
pub type Stocks = pb::stock_service_client::StockServiceClient<TestChannel>;
pub type Bookings = pb::booking_service_client::BookingServiceClient<TestChannel>;

type Members = registry::member_service_client::MemberServiceClient<TestChannel>;

pub fn grants(world: &World, actor: &str) -> Grants {
    Grants::new(world.budget.channel_of(actor))
}

/// A member in tier BASE whom the brand trusts so much.
pub async fn member(world: &World, trust_level: TrustLevel) -> String {
    let mut members = Members::new(world.registry());
    let programme_id = world.programme.clone();
    let profile = Some(registry::MemberProfile::default());
    let request = registry::CreateMemberRequest { programme_id, request_id: id(), profile, external_identities: Vec::new() };
    let created = members.create_member(request).await.expect("a member").into_inner().member.expect("a member");
    if trust_level != TrustLevel::New {
        change(world, &created.member_id, "trust_level", None, trust_level).await;
    }
    created.member_id
}

pub async fn change(world: &World, member_id: &str, path: &str, profile: Option<registry::MemberProfile>, trust: TrustLevel) {
    let request = registry::UpdateMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.into(),
        profile,
        trust_level: trust.into(),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.into()] }),
        etag: String::new(),
    };
    Members::new(world.registry()).update_member(request).await.expect("changed");
}

/// Takes the consent to take part back.
pub async fn withdraw(world: &World, member_id: &str) {
    let consent = registry::Consent { purpose: registry::ConsentPurpose::Participation.into(), granted: false };
    let profile = registry::MemberProfile { consents: vec![consent], ..Default::default() };
    change(world, member_id, "profile.consents", Some(profile), TrustLevel::Unspecified).await;
}

/// Gives a member the labels of these value types.
pub async fn label(world: &World, member_id: &str, value_types: &[ValueType]) {
    let score = |value_type: &ValueType| registry::ValueScore {
        value_type: (*value_type).into(),
        score: 0.8,
        confidence: 0.9,
        labelled: true,
        evidence_output_ids: Vec::new(),
    };
    let request = registry::UpdateValueProfileRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.into(),
        scores: value_types.iter().map(score).collect(),
        as_of: Some(in_days(0)),
        past_return: None,
        value_model_version: "1".into(),
    };
    let mut profiles = registry::value_profile_service_client::ValueProfileServiceClient::new(world.registry());
    assert!(profiles.update_value_profile(request).await.expect("a profile").into_inner().updated);
}

/// Lifts a member one tier.
pub async fn promote(world: &World, member_id: &str) {
    let mut tiers = registry::tier_service_client::TierServiceClient::new(world.registry());
    let proposal = registry::TierProposal {
        promote_probability: 1.0,
        output_count: 20,
        as_of: Some(in_days(0)),
        decision_id: id(),
        reason: "good work".into(),
        ..Default::default()
    };
    let (programme_id, member_id) = (world.programme.clone(), member_id.to_owned());
    let request = registry::ProposeTierRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        member_id,
        proposal: Some(proposal),
    };
    tiers.propose_tier(request).await.expect("a proposal");
    let request =
        registry::EvaluateTiersRequest { programme_id, request_id: id(), validate_only: false, after_member_id: String::new() };
    assert_eq!(tiers.evaluate_tiers(request).await.expect("evaluated").into_inner().promoted.len(), 1);
}

/// To a member, paid by the world's envelope.
pub fn issue_request(world: &World, member: &str, resource: &pb::Resource, usage: pb::ResourceUsage) -> pb::IssueGrantRequest {
    pb::IssueGrantRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member.into(),
        resource_id: resource.resource_id.clone(),
        usage: Some(usage),
        envelope_id: world.envelope.clone(),
        unit_id: String::new(),
        session_date: String::new(),
        reason: "a launch".into(),
        eligibility_reason: String::new(),
        nda_reference: String::new(),
        embargo_until_time: None,
    }
}

pub async fn issue(world: &World, request: pb::IssueGrantRequest) -> Result<pb::Grant, Status> {
    Ok(grants(world, "planner").issue_grant(request).await?.into_inner().grant.unwrap_or_default())
}

/// A step of a grant by an actor, by its RPC; what a request has beyond the grant comes after.
macro_rules! step {
    ($world:expr, $actor:expr, $method:ident, $request:ident, $grant:expr $(, $field:ident: $value:expr)*) => {{
        let request = pb::$request {
            programme_id: $world.programme.clone(),
            request_id: id(),
            grant_id: $grant.into(),
            $($field: $value),*
        };
        grants($world, $actor).$method(request).await.map(|answer| answer.into_inner().grant.unwrap_or_default())
    }};
}

pub async fn approve(world: &World, actor: &str, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, actor, approve_grant, ApproveGrantRequest, grant, reason: "known in person".into())
}

pub async fn reject(world: &World, actor: &str, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, actor, reject_grant, RejectGrantRequest, grant, reason: "not yet".into())
}

pub async fn cancel(world: &World, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, "planner", cancel_grant, CancelGrantRequest, grant, reason: "the launch moved".into())
}

pub async fn ship(world: &World, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, "store", ship_grant, ShipGrantRequest, grant, shipping_reference: "SF-1".into())
}

pub async fn deliver(world: &World, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, "store", confirm_grant_delivery, ConfirmGrantDeliveryRequest, grant, payment_reference: "invoice-1".into())
}

pub async fn hand_over(world: &World, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, "store", hand_over_grant, HandOverGrantRequest, grant)
}

pub async fn take_back(
    world: &World,
    grant: &str,
    end: &str,
    kilometres: &str,
    incidents: Vec<pb::Incident>,
) -> Result<pb::Grant, Status> {
    let (end_date, kilometres) = (end.to_owned(), kilometres.to_owned());
    step!(world, "store", return_grant, ReturnGrantRequest, grant, end_date: end_date, kilometres: kilometres, incidents: incidents)
}

pub async fn settle(world: &World, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, "finance", settle_grant, SettleGrantRequest, grant, payment_reference: "invoice-2".into())
}

pub async fn fulfil(world: &World, grant: &str) -> Result<pb::Grant, Status> {
    step!(world, "planner", fulfil_grant, FulfilGrantRequest, grant, payment_reference: "invoice-3".into())
}

pub async fn get(world: &World, grant_id: &str) -> Result<pb::Grant, Status> {
    let (programme_id, grant_id) = (world.programme.clone(), grant_id.to_owned());
    let request = pb::GetGrantRequest { programme_id, grant_id };
    Ok(grants(world, "anyone").get_grant(request).await?.into_inner().grant.unwrap_or_default())
}

pub async fn receive(world: &World, resource_id: &str, quantity: i64) -> Result<pb::StockMovement, Status> {
    let request = pb::ReceiveStockRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        resource_id: resource_id.into(),
        quantity,
        reference: "delivery-1".into(),
    };
    let mut stocks = Stocks::new(world.budget.channel_of("store"));
    Ok(stocks.receive_stock(request).await?.into_inner().movement.unwrap_or_default())
}

pub async fn stock(world: &World, resource_id: &str) -> Result<pb::ListStockMovementsResponse, Status> {
    let request = pb::ListStockMovementsRequest {
        programme_id: world.programme.clone(),
        resource_id: resource_id.into(),
        page_size: 1_000,
        page_token: String::new(),
    };
    Ok(Stocks::new(world.budget.channel_of("store")).list_stock_movements(request).await?.into_inner())
}

pub async fn register(world: &World, resource_id: &str, name: &str) -> Result<pb::Unit, Status> {
    let request = pb::RegisterUnitRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        resource_id: resource_id.into(),
        display_name: name.into(),
    };
    let mut bookings = Bookings::new(world.budget.channel_of("fleet"));
    Ok(bookings.register_unit(request).await?.into_inner().unit.unwrap_or_default())
}

/// The bookings of a unit between two days: first day, day after the last, whether it is over.
pub async fn calendar(world: &World, unit_id: &str, start: &str, end: &str) -> Result<Vec<(String, String, bool)>, Status> {
    let request = pb::ListBookingsRequest {
        programme_id: world.programme.clone(),
        unit_id: unit_id.into(),
        start_date: start.into(),
        end_date: end.into(),
    };
    let bookings = Bookings::new(world.budget.channel_of("fleet")).list_bookings(request).await?.into_inner().bookings;
    Ok(bookings.into_iter().map(|booking| (booking.start_date, booking.end_date, booking.ended)).collect())
}

/// The memo entries of a grant as (item, credit account, amount), and the balances of the accounts; checks that the programme's totals are
/// the sums of all its entries.
pub async fn memo(world: &World, grant_id: &str) -> (Vec<(String, pb::MemoAccount, i64)>, Vec<(pb::MemoAccount, i64)>) {
    let request = pb::ListMemoEntriesRequest {
        programme_id: world.programme.clone(),
        grant_id: grant_id.into(),
        page_size: 0,
        page_token: String::new(),
    };
    let mut client = pb::memo_service_client::MemoServiceClient::new(world.budget.channel());
    let all = pb::ListMemoEntriesRequest { grant_id: String::new(), ..request.clone() };
    let page = client.list_memo_entries(request).await.expect("a page").into_inner();
    let all = client.list_memo_entries(all).await.expect("a page").into_inner().balances;
    let summed: Vec<(String, i64)> = sqlx::query_as(
        "SELECT 'MEMO_ACCOUNT_' || side.account, sum(side.amount)::bigint
         FROM memo_entry AS m
         CROSS JOIN LATERAL (VALUES (m.debit_account, m.amount), (m.credit_account, -m.amount)) AS side (account, amount)
         WHERE m.programme_id = $1::uuid
         GROUP BY side.account
         ORDER BY side.account",
    )
    .bind(&world.programme)
    .fetch_all(&world.budget.database.admin)
    .await
    .expect("sums");
    let total = |balance: &pb::MemoBalance| (balance.account().as_str_name().to_owned(), minor(balance.balance.as_ref()));
    assert_eq!(all.iter().map(total).collect::<Vec<_>>(), summed);
    let entry = |entry: &pb::MemoEntry| (entry.item.clone(), entry.credit_account(), minor(entry.amount.as_ref()));
    let balance = |balance: &pb::MemoBalance| (balance.account(), minor(balance.balance.as_ref()));
    (page.entries.iter().map(entry).collect(), page.balances.iter().map(balance).collect())
}

/// A month in summer.
pub fn loan() -> pb::ResourceUsage {
    pb::ResourceUsage { start_date: "2026-06-10".into(), end_date: "2026-07-10".into(), kilometres: "1000".into(), ..usage() }
}
