//! Who changed what of a member.

use crate::world::{Members, Synced, World, consents, full_profile, id, in_city, outcomes, pairs, row, violations};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::token;
use tonic::Code;

fn request(world: &World, member_id: &str) -> pb::ListMemberHistoryRequest {
    pb::ListMemberHistoryRequest { programme_id: world.programme.clone(), member_id: member_id.into(), ..Default::default() }
}

/// As somebody with these scopes sees it, newest first.
async fn history(world: &World, scopes: &[&str], member_id: &str) -> Vec<pb::MemberHistoryEntry> {
    let token = token::token("console", scopes, &["*".to_owned()]);
    let mut members = Members::new(world.registry.channel_with(Some(token), None));
    members.list_member_history(request(world, member_id)).await.expect("a page").into_inner().changes
}

const ALL: [&str; 2] = ["registry.member.read", "registry.pii"];

/// (path, before, after) of a change.
fn fields(change: &pb::MemberHistoryEntry) -> Vec<(&str, &str, &str)> {
    change.fields.iter().map(|field| (field.path.as_str(), field.before.as_str(), field.after.as_str())).collect()
}

/// A member from a CRM, then changed by a caller, by the CRM again, and by a caller.
async fn changed(world: &World) -> String {
    let created = world.upsert(vec![row("1", 1, in_city("广州"))]).await;
    let member_id = created[0].member_id.clone();
    let update = pb::UpdateMemberRequest {
        trust_level: pb::TrustLevel::Proven.into(),
        ..world.update_request(&member_id, in_city("深圳"), &["profile.city", "trust_level"])
    };
    world.update(update).await.expect("updated");
    let profile = pb::MemberProfile { email: "he@example.com".into(), ..consents(pb::ConsentPurpose::Contact, false) };
    assert_eq!(outcomes(&world.upsert(vec![row("1", 2, profile.clone()), row("1", 2, profile)]).await)[1], Synced::Unchanged);
    let clear = world.update_request(&member_id, Default::default(), &["profile.city"]);
    world.update(clear).await.expect("updated");
    member_id
}

#[tokio::test]
async fn each_change_tells_who_made_it_from_where_and_what_was_there_before_and_after() {
    let world = World::new().await;
    let member_id = changed(&world).await;

    let found = history(&world, &ALL, &member_id).await;

    let heads: Vec<_> = found.iter().map(|c| (c.version, c.kind(), c.source_system.as_str())).collect();
    let (created, updated) = (pb::MemberChangeKind::Created, pb::MemberChangeKind::Updated);
    assert_eq!(heads, [(4, updated, "api"), (3, updated, "crm"), (2, updated, "api"), (1, created, "crm")]);
    assert_eq!(fields(&found[0]), [("profile.city", "\"深圳\"", "")]);
    assert_eq!(fields(&found[1])[1], ("profile.consents.CONTACT", "", "false"));
    assert_eq!(fields(&found[2]), [("profile.city", "\"广州\"", "\"深圳\""), ("trust_level", "\"NEW\"", "\"PROVEN\"")]);
    assert_eq!(fields(&found[3]), [("profile.city", "", "\"广州\"")]);
    assert!(found.iter().all(|change| !change.actor.is_empty() && change.change_time.is_some()));

    // Page by page it is the same.
    let mut paged = Vec::new();
    let mut next = pb::ListMemberHistoryRequest { page_size: 3, ..request(&world, &member_id) };
    loop {
        let page = world.members().list_member_history(next.clone()).await.expect("a page").into_inner();
        paged.extend(page.changes.iter().map(|change| change.version));
        next.page_token = page.next_page_token;
        if next.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, [4, 3, 2, 1]);
}

#[tokio::test]
async fn without_the_scope_for_it_nothing_personal_is_shown() {
    let world = World::new().await;
    let member = world.member(full_profile()).await;
    let clear = world.update_request(&member.member_id, Default::default(), &["profile.email", "profile.region_code"]);
    world.update(clear).await.expect("updated");
    let suspend = pb::SuspendMemberRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member.member_id.clone(),
        reason: "电话骚扰".into(),
        etag: String::new(),
    };
    world.members().suspend_member(suspend).await.expect("suspended");

    let seen = history(&world, &["registry.member.read"], &member.member_id).await;

    assert_eq!((seen[0].kind(), seen[0].reason.as_str()), (pb::MemberChangeKind::Suspended, ""));
    assert_eq!(fields(&seen[0]), [("state", "\"ACTIVE\"", "\"SUSPENDED\"")]);
    assert_eq!(fields(&seen[1]), [("profile.email", "", ""), ("profile.region_code", "\"CN-GD\"", "")]);
    assert_eq!(seen[1].fields.iter().map(|field| field.masked).collect::<Vec<_>>(), [true, false]);
    for field in &seen[2].fields {
        let open = ["profile.region_code", "profile.motivations"].contains(&field.path.as_str());
        assert_eq!(field.masked, !open && !field.path.starts_with("profile.consents"), "{}", field.path);
    }
    let all = history(&world, &ALL, &member.member_id).await;
    assert_eq!(all[0].reason, "电话骚扰");
    assert_eq!(fields(&all[1])[0], ("profile.email", "\"letters@example.com\"", ""));
}

#[tokio::test]
async fn what_was_written_of_changes_stays_and_only_the_values_can_be_erased() {
    let world = World::new().await;
    let member_id = changed(&world).await;
    let app = world.replica();
    for sql in ["UPDATE member_change SET actor = ''", "DELETE FROM member_change", "TRUNCATE member_change CASCADE"] {
        let refused = sqlx::query(sql).execute(app.pool()).await.expect_err(sql);
        assert_eq!(refused.as_database_error().and_then(|error| error.code()).as_deref(), Some("42501"), "{sql}");
    }
    sqlx::query("DELETE FROM member_change_value").execute(app.pool()).await.expect("erased");

    let found = history(&world, &ALL, &member_id).await;

    assert_eq!(found.len(), 4);
    assert_eq!(fields(&found[0]), [("profile.city", "", "")]);
}

#[tokio::test]
async fn the_history_of_nobody_and_a_token_of_another_are_refused() {
    let world = World::new().await;
    let one = changed(&world).await;
    let other = world.member(in_city("广州")).await.member_id;
    crate::world::refused(world.members().list_member_history(request(&world, &id())).await, Code::NotFound, "MEMBER_NOT_FOUND");
    let first = pb::ListMemberHistoryRequest { page_size: 1, ..request(&world, &one) };
    let page_token = world.members().list_member_history(first).await.expect("a page").into_inner().next_page_token;
    let taken = pb::ListMemberHistoryRequest { page_token, ..request(&world, &other) };
    let found = violations(world.members().list_member_history(taken).await);
    assert_eq!(found, pairs([("page_token", "PAGE_TOKEN_INVALID")]));
}
