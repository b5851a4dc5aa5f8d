//! What the budget forgets of an erased member, and what it never forgets.

use crate::{
    catalogue::{example_tables, kit, resource, usage},
    granting::{grants, issue, issue_request, member, receive, ship},
    reserve_draw::{approve, ask, draws, get, reject, request},
    world::{DRAW_LIMIT, World, fen, id, refused},
};
use koc_proto::koc::{
    budget::v1::{self as pb, ResourceClass::Inclusive, cost_model::Model},
    registry::v1::TrustLevel,
};
use koc_tests::erasure::{erase, followed};
use tonic::Code;

const WORDS: &str = "words about somebody";

#[tokio::test]
async fn an_erased_members_words_go_and_the_ledger_stays_whole() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 5).await.expect("received");
    let gone = member(&world, TrustLevel::Proven).await;
    let stays = member(&world, TrustLevel::Proven).await;
    let mut shipped = Vec::new();
    for member in [&gone, &stays] {
        let to = pb::ResourceUsage { quantity: Some(1), region_code: "CN-GD".into(), ..usage() };
        let asked = pb::IssueGrantRequest {
            reason: WORDS.into(),
            nda_reference: WORDS.into(),
            ..issue_request(&world, member, &kit, to)
        };
        let grant = issue(&world, asked.clone()).await.expect("issued").grant_id;
        ship(&world, &grant).await.expect("shipped");
        let limit = pb::SetMemberLimitRequest { reason: WORDS.into(), ..world.limit_request(member, 100_000) };
        world.set_limit(limit).await.expect("set");
        let mut by_member = Vec::new();
        for decide in [true, false] {
            let asked = pb::RequestReserveDrawRequest {
                member_id: if decide { member.clone() } else { String::new() },
                evidence: vec![evidence("seen_by", WORDS), evidence("ratio", "7.4")],
                ..request(&world, DRAW_LIMIT + 1).await
            };
            by_member.push(ask(&world, asked).await.expect("taken").reserve_draw_id);
        }
        approve(&world, "controller", &by_member[0]).await.expect("approved");
        reject(&world, "controller", &by_member[1]).await.expect("rejected");
        let outcome = pb::ReportDrawOutcomeRequest {
            programme_id: world.programme.clone(),
            request_id: id(),
            reserve_draw_id: by_member[0].clone(),
            value: Some(fen(1)),
            figures: vec![evidence("liked_by", WORDS), evidence("views", "81,000")],
            note: WORDS.into(),
        };
        let spent = get(&world, &by_member[0]).await;
        world.commit(&spent.reservation_id, None).await.expect("owed");
        world.spend(&spent.reservation_id, None).await.expect("paid");
        draws(&world, "analyst").report_draw_outcome(outcome).await.expect("reported");
        shipped.push((asked, grant, by_member[0].clone()));
    }
    let entries = world.verified().await;

    let erasure = erase(world.registry(), &world.programme, &gone).await.expect("erased");
    let counts = followed(world.registry(), &world.programme, &erasure.erasure_id, "budget").await;

    // A grant; a limit; a draw with its approval and its outcome.
    assert_eq!((counts["resource_grant"], counts["member_limit"], counts["reserve_draw"]), (1, 1, 3));
    let [(asked, grant, draw), (_, other_grant, other_draw)] = &shipped[..] else { panic!("two members") };
    let read = async |grant_id: &str| {
        let request = pb::GetGrantRequest { programme_id: world.programme.clone(), grant_id: grant_id.to_owned() };
        grants(&world, "anyone").get_grant(request).await.expect("there").into_inner().grant.unwrap_or_default()
    };
    let (left, kept) = (read(grant).await, read(other_grant).await);
    assert_eq!((left.reason.as_str(), left.shipping_reference.as_str(), left.nda_reference.as_str()), ("", "erased", ""));
    assert_eq!((left.state(), &left.member_id), (pb::GrantState::Shipped, &gone));
    assert_eq!((kept.reason.as_str(), kept.shipping_reference.as_str(), kept.nda_reference.as_str()), (WORDS, "SF-1", WORDS));
    let (left, kept) = (get(&world, draw).await, get(&world, other_draw).await);
    assert_eq!(left.evidence, [evidence("seen_by", "erased"), evidence("ratio", "7.4")]);
    assert_eq!(left.approvals[0].reason, "");
    let outcome = left.outcome.expect("reported");
    assert_eq!((outcome.note.as_str(), outcome.figures), ("", vec![evidence("liked_by", "erased"), evidence("views", "81,000")]));
    assert_eq!((kept.approvals[0].reason.as_str(), kept.outcome.expect("reported").note.as_str()), ("it spreads", WORDS));

    // The ledger holds ids and figures, and no entry was touched.
    assert_eq!(world.verified().await, entries);
    // The answer to the first request is gone with its words; the request has no second effect.
    refused(issue(&world, asked.clone()).await, Code::FailedPrecondition, "MEMBER_ERASED");
    let fresh = pb::IssueGrantRequest { request_id: id(), ..asked.clone() };
    refused(issue(&world, fresh).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn what_is_never_changed_is_changed_by_an_erasure_alone() {
    let world = World::new().await;
    let draw = ask(&world, request(&world, DRAW_LIMIT + 1).await).await.expect("taken").reserve_draw_id;
    approve(&world, "controller", &draw).await.expect("approved");
    let admin = &world.budget.database.admin;
    let refused = sqlx::query("UPDATE reserve_draw_approval SET reason = ''").execute(admin).await.expect_err("append-only");
    assert!(refused.to_string().contains("append-only"), "{refused}");
    let sql = "SELECT set_config('koc.erasing', 'on', false)";
    let app = sqlx::PgPool::connect(&world.budget.database.app_url).await.expect("connected");
    let mut conn = app.acquire().await.expect("a connection");
    sqlx::query(sql).execute(&mut *conn).await.expect("anybody may set it");
    let refused = sqlx::query("UPDATE budget.reserve_draw_approval SET reason = ''").execute(&mut *conn).await;
    assert!(refused.expect_err("not for the service").to_string().contains("permission denied"));
    for forbidden in ["DELETE FROM reserve_draw_approval", "DELETE FROM reserve_draw_outcome"] {
        let refused = sqlx::query(forbidden).execute(admin).await.expect_err("append-only");
        assert!(refused.to_string().contains("append-only"), "{refused}");
    }
}

fn evidence(name: &str, value: &str) -> pb::EvidenceItem {
    pb::EvidenceItem { name: name.into(), value: value.into() }
}
