//! Who may call what.

use crate::webhook::Webhooks;
use crate::world::{
    Badges, Feed, FieldOwners, Honours, MemberFeed, MemberImports, Members, Points, Programmes, Sync, SyncRuns, TierPolicies,
    Tiers, Values, World, at, id, identity, in_city, programme_request, refused, row,
};
use koc_chassis::token::all_scopes;
use koc_proto::koc::registry::v1 as pb;
use koc_tests::token;
use std::collections::HashMap;
use tonic::{Code, Status};

/// Each method of the registry, with the scope it needs.
const SCOPES: [(&str, &str); 81] = [
    ("create_programme", "registry.programme.write"),
    ("get_programme", "registry.programme.read"),
    ("create_member", "registry.member.write"),
    ("get_member", "registry.member.read"),
    ("batch_get_members", "registry.member.read"),
    ("lookup_member", "registry.member.read"),
    ("list_members", "registry.member.read"),
    ("update_member", "registry.member.write"),
    ("search_members", "registry.pii"),
    ("suspend_member", "registry.member.suspend"),
    ("reinstate_member", "registry.member.suspend"),
    ("merge_members", "registry.member.merge"),
    ("unmerge_members", "registry.member.merge"),
    ("list_member_history", "registry.member.read"),
    ("batch_upsert_members", "registry.member.sync"),
    ("sync_members", "registry.member.sync"),
    ("get_sync_run", "registry.member.sync"),
    ("list_sync_runs", "registry.member.sync"),
    ("confirm_sweep", "registry.member.sweep"),
    ("list_rejected_rows", "registry.pii"),
    ("retry_rejected_rows", "registry.member.sync"),
    ("create_member_import", "registry.member.sync"),
    ("append_member_import_chunk", "registry.member.sync"),
    ("import_members", "registry.member.sync"),
    ("get_member_import", "registry.member.sync"),
    ("cancel_member_import", "registry.member.sync"),
    ("set_field_owner", "registry.field_owner.write"),
    ("list_field_owners", "registry.field_owner.read"),
    ("list_tiers", "registry.tier.read"),
    ("propose_tier", "registry.tier.propose"),
    ("evaluate_tiers", "registry.tier.write"),
    ("get_tier_progress", "registry.tier.read"),
    ("list_tier_forecast", "registry.tier.read"),
    ("assign_tier", "registry.tier.assign"),
    ("end_tier_hold", "registry.tier.assign"),
    ("list_tier_moves", "registry.tier.read"),
    ("create_tier_policy_draft", "registry.tier.write"),
    ("update_tier_policy_draft", "registry.tier.write"),
    ("get_tier_policy_draft", "registry.tier.read"),
    ("list_tier_policy_drafts", "registry.tier.read"),
    ("discard_tier_policy_draft", "registry.tier.write"),
    ("activate_tier_policy_draft", "registry.tier.approve"),
    ("get_tier_policy", "registry.tier.read"),
    ("list_tier_policies", "registry.tier.read"),
    ("start_tier_dry_run", "registry.tier.write"),
    ("get_tier_dry_run", "registry.tier.read"),
    ("list_tier_dry_run_members", "registry.tier.read"),
    ("update_value_profile", "registry.value_profile.write"),
    ("get_value_profile", "registry.member.read"),
    ("earn_points", "registry.points.earn"),
    ("batch_earn_points", "registry.points.earn"),
    ("redeem_points", "registry.points.redeem"),
    ("reverse_points", "registry.points.reverse"),
    ("list_points_entries", "registry.points.read"),
    ("create_badge", "registry.badge.write"),
    ("update_badge", "registry.badge.write"),
    ("list_badges", "registry.badge.read"),
    ("award_badge", "registry.badge.award"),
    ("revoke_badge", "registry.badge.award"),
    ("evaluate_badges", "registry.badge.award"),
    ("list_member_badges", "registry.badge.read"),
    ("create_title_set", "registry.honour.write"),
    ("list_titles", "registry.honour.read"),
    ("get_standing", "registry.honour.read"),
    ("list_leaderboard", "registry.honour.read"),
    ("get_leaderboard_position", "registry.honour.read"),
    ("list_changes", "registry.feed.read"),
    ("list_member_changes", "registry.member.watch"),
    ("list_member_standings", "registry.feed.read"),
    ("create_webhook", "registry.webhook.write"),
    ("get_webhook", "registry.webhook.read"),
    ("list_webhooks", "registry.webhook.read"),
    ("update_webhook", "registry.webhook.write"),
    ("delete_webhook", "registry.webhook.write"),
    ("pause_webhook", "registry.webhook.write"),
    ("resume_webhook", "registry.webhook.write"),
    ("rotate_webhook_secret", "registry.webhook.write"),
    ("get_webhook_secrets", "registry.webhook.secret"),
    ("list_webhook_deliveries", "registry.webhook.read"),
    ("replay_webhook", "registry.webhook.write"),
    ("redeliver_webhook_event", "registry.webhook.write"),
];

/// Calls every method with a message that holds, and gives what each was told.
async fn knock(world: &World, token: Option<String>, member_id: &str) -> Vec<(&'static str, Result<(), Status>)> {
    let programme_id = world.programme.clone();
    let channel = || world.registry.channel_with(token.clone(), None);
    let (mut programmes, mut members, mut sync) = (Programmes::new(channel()), Members::new(channel()), Sync::new(channel()));
    let (mut runs, mut owners, mut imports) =
        (SyncRuns::new(channel()), FieldOwners::new(channel()), MemberImports::new(channel()));
    let (mut tiers, mut values, mut feed) = (Tiers::new(channel()), Values::new(channel()), Feed::new(channel()));
    let member_id = member_id.to_owned();
    let mut told = Vec::new();
    macro_rules! call {
        ($client:ident.$method:ident($message:expr)) => {
            told.push((stringify!($method), $client.$method($message).await.map(|_| ())))
        };
    }
    let scores = vec![pb::ValueScore { value_type: 1, ..Default::default() }];
    let proposal = pb::TierProposal { as_of: Some(at(1)), decision_id: id(), ..Default::default() };
    call!(programmes.create_programme(programme_request(&programme_id)));
    call!(programmes.get_programme(pb::GetProgrammeRequest { programme_id: programme_id.clone() }));
    call!(members.create_member(world.create_request(in_city("广州"))));
    call!(members.get_member(pb::GetMemberRequest { programme_id: programme_id.clone(), member_id: member_id.clone() }));
    call!(members.batch_get_members(pb::BatchGetMembersRequest {
        programme_id: programme_id.clone(),
        member_ids: vec![member_id.clone()],
    }));
    call!(members.lookup_member(pb::LookupMemberRequest {
        programme_id: programme_id.clone(),
        external_identity: Some(identity("crm", "1")),
    }));
    call!(members.list_members(pb::ListMembersRequest { programme_id: programme_id.clone(), ..Default::default() }));
    call!(members.update_member(world.update_request(&member_id, in_city("深圳"), &["profile.city"])));
    call!(members.search_members(pb::SearchMembersRequest {
        programme_id: programme_id.clone(),
        query: "车主".into(),
        ..Default::default()
    }));
    call!(members.suspend_member(pb::SuspendMemberRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        reason: "spam".into(),
        etag: String::new(),
    }));
    call!(members.reinstate_member(pb::ReinstateMemberRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        reason: "a mistake".into(),
        etag: String::new(),
    }));
    call!(members.merge_members(pb::MergeMembersRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        winner_member_id: member_id.clone(),
        loser_member_id: id(),
        reason: "twice".into(),
        etag: String::new(),
    }));
    call!(members.unmerge_members(pb::UnmergeMembersRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        loser_member_id: member_id.clone(),
        reason: "not twice".into(),
    }));
    call!(members.list_member_history(pb::ListMemberHistoryRequest {
        programme_id: programme_id.clone(),
        member_id: member_id.clone(),
        ..Default::default()
    }));
    call!(sync.batch_upsert_members(world.batch("crm", vec![row("1", 1, in_city("广州"))])));
    let opening = pb::SyncOpening { source_system: "crm".into(), run_name: "door".into(), ..Default::default() };
    let message = Some(pb::sync_members_request::Message::Open(opening));
    let open = pb::SyncMembersRequest { programme_id: programme_id.clone(), message };
    // A stream is let in by its scope; what its first message may enter shows in the first answer.
    let streamed = match sync.sync_members(tokio_stream::once(open)).await {
        Ok(answers) => answers.into_inner().message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    told.push(("sync_members", streamed));
    let sync_run_id = id();
    call!(runs.get_sync_run(pb::GetSyncRunRequest { programme_id: programme_id.clone(), sync_run_id: sync_run_id.clone() }));
    call!(runs.list_sync_runs(pb::ListSyncRunsRequest { programme_id: programme_id.clone(), ..Default::default() }));
    call!(runs.confirm_sweep(pb::ConfirmSweepRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        sync_run_id: sync_run_id.clone(),
        reason: "checked".into(),
    }));
    call!(runs.list_rejected_rows(pb::ListRejectedRowsRequest {
        programme_id: programme_id.clone(),
        sync_run_id: sync_run_id.clone(),
        ..Default::default()
    }));
    call!(runs.retry_rejected_rows(pb::RetryRejectedRowsRequest {
        programme_id: programme_id.clone(),
        sync_run_id,
        ..Default::default()
    }));
    let import_id = id();
    call!(imports.create_member_import(pb::CreateMemberImportRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        run: Some(pb::SyncOpening { source_system: "crm".into(), run_name: "file".into(), ..Default::default() }),
    }));
    call!(imports.append_member_import_chunk(pb::AppendMemberImportChunkRequest {
        programme_id: programme_id.clone(),
        import_id: import_id.clone(),
        offset: 0,
        content: vec![b'x'],
    }));
    call!(imports.import_members(pb::ImportMembersRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        import_id: import_id.clone(),
        total_bytes: 0,
    }));
    call!(
        imports
            .get_member_import(pb::GetMemberImportRequest { programme_id: programme_id.clone(), import_id: import_id.clone() })
    );
    call!(imports.cancel_member_import(pb::CancelMemberImportRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        import_id,
    }));
    call!(owners.set_field_owner(pb::SetFieldOwnerRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        field: "email".into(),
        source_system: "crm".into(),
        reason: "theirs".into(),
        etag: String::new(),
    }));
    call!(owners.list_field_owners(pb::ListFieldOwnersRequest { programme_id: programme_id.clone() }));
    call!(tiers.list_tiers(pb::ListTiersRequest { programme_id: programme_id.clone() }));
    call!(tiers.propose_tier(pb::ProposeTierRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        proposal: Some(proposal),
    }));
    call!(tiers.evaluate_tiers(pb::EvaluateTiersRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        validate_only: false,
        after_member_id: String::new()
    }));
    call!(
        tiers.get_tier_progress(pb::GetTierProgressRequest { programme_id: programme_id.clone(), member_id: member_id.clone() })
    );
    call!(tiers.list_tier_forecast(pb::ListTierForecastRequest { programme_id: programme_id.clone(), ..Default::default() }));
    call!(tiers.assign_tier(pb::AssignTierRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        tier_id: "CORE".into(),
        hold_end_time: None,
        reason: "a founder".into(),
    }));
    call!(tiers.end_tier_hold(pb::EndTierHoldRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        reason: "as others".into(),
    }));
    call!(tiers.list_tier_moves(pb::ListTierMovesRequest { programme_id: programme_id.clone(), member_id: member_id.clone() }));
    let mut policies = TierPolicies::new(channel());
    let draft = pb::TierPolicyDraft { draft_id: id(), etag: "v1".into(), ..Default::default() };
    call!(policies.create_tier_policy_draft(world.draft_request(Default::default(), "looser")));
    call!(policies.update_tier_policy_draft(pb::UpdateTierPolicyDraftRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        draft_id: id(),
        policy: Some(Default::default()),
        reason: "looser".into(),
        etag: String::new(),
    }));
    call!(policies.get_tier_policy_draft(pb::GetTierPolicyDraftRequest { programme_id: programme_id.clone(), draft_id: id() }));
    call!(
        policies.list_tier_policy_drafts(pb::ListTierPolicyDraftsRequest {
            programme_id: programme_id.clone(),
            ..Default::default()
        })
    );
    call!(policies.discard_tier_policy_draft(pb::DiscardTierPolicyDraftRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        draft_id: id(),
        reason: "not wanted".into(),
        etag: String::new(),
    }));
    call!(policies.activate_tier_policy_draft(world.activate_request(&draft)));
    call!(policies.get_tier_policy(pb::GetTierPolicyRequest { programme_id: programme_id.clone(), as_of_time: None }));
    call!(policies.list_tier_policies(pb::ListTierPoliciesRequest { programme_id: programme_id.clone(), ..Default::default() }));
    call!(policies.start_tier_dry_run(pb::StartTierDryRunRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        draft_id: id(),
    }));
    call!(policies.get_tier_dry_run(pb::GetTierDryRunRequest { programme_id: programme_id.clone(), dry_run_id: id() }));
    call!(policies.list_tier_dry_run_members(pb::ListTierDryRunMembersRequest {
        programme_id: programme_id.clone(),
        dry_run_id: id(),
        ..Default::default()
    }));
    call!(values.update_value_profile(pb::UpdateValueProfileRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        member_id: member_id.clone(),
        scores,
        as_of: Some(at(1)),
        past_return: None,
        value_model_version: "1".into(),
    }));
    call!(
        values.get_value_profile(pb::GetValueProfileRequest { programme_id: programme_id.clone(), member_id: member_id.clone() })
    );
    let mut points = Points::new(channel());
    call!(points.earn_points(world.earn_request(&member_id, 5)));
    call!(points.batch_earn_points(pb::BatchEarnPointsRequest {
        programme_id: programme_id.clone(),
        earnings: vec![pb::PointsEarning::default()],
    }));
    call!(points.redeem_points(world.redeem_request(&member_id, 5)));
    call!(points.reverse_points(world.reverse_request(&id(), None)));
    call!(points.list_points_entries(world.entries_request(&member_id)));
    let mut badges = Badges::new(channel());
    call!(badges.create_badge(world.badge_request("A", Vec::new())));
    call!(badges.update_badge(world.retire_request("A")));
    call!(badges.list_badges(pb::ListBadgesRequest { programme_id: programme_id.clone(), ..Default::default() }));
    call!(badges.award_badge(world.award_request(&member_id, "A")));
    call!(badges.revoke_badge(world.revoke_request(&id())));
    call!(badges.evaluate_badges(world.evaluation_request()));
    call!(badges.list_member_badges(world.awards_request(&member_id)));
    let mut honours = Honours::new(channel());
    call!(honours.create_title_set(world.titles_request(&[("A", 1)])));
    call!(honours.list_titles(pb::ListTitlesRequest { programme_id: programme_id.clone() }));
    call!(honours.get_standing(world.standing_request(&member_id)));
    call!(honours.list_leaderboard(world.board_request("")));
    call!(honours.get_leaderboard_position(world.position_request(&member_id, 0)));
    call!(feed.list_changes(pb::ListChangesRequest { programme_id: programme_id.clone(), after_position: 0, page_size: 0 }));
    let mut follow = MemberFeed::new(channel());
    call!(follow.list_member_changes(pb::ListMemberChangesRequest { programme_id: programme_id.clone(), ..Default::default() }));
    call!(
        follow.list_member_standings(pb::ListMemberStandingsRequest { programme_id: programme_id.clone(), ..Default::default() })
    );
    let mut webhooks = Webhooks::new(channel());
    call!(webhooks.create_webhook(pb::CreateWebhookRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        url: "https://crm.example.com/".into(),
        columns: 1,
        ..Default::default()
    }));
    call!(webhooks.get_webhook(pb::GetWebhookRequest { programme_id: programme_id.clone(), webhook_id: id() }));
    call!(webhooks.list_webhooks(pb::ListWebhooksRequest { programme_id: programme_id.clone() }));
    call!(webhooks.update_webhook(pb::UpdateWebhookRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        webhook_id: id(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["kinds".into()] }),
        ..Default::default()
    }));
    call!(webhooks.delete_webhook(pb::DeleteWebhookRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        webhook_id: id()
    }));
    call!(webhooks.pause_webhook(pb::PauseWebhookRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        webhook_id: id()
    }));
    call!(webhooks.resume_webhook(pb::ResumeWebhookRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        webhook_id: id()
    }));
    call!(webhooks.rotate_webhook_secret(pb::RotateWebhookSecretRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        webhook_id: id(),
        overlap_hours: 0,
    }));
    call!(webhooks.get_webhook_secrets(pb::GetWebhookSecretsRequest { programme_id: programme_id.clone(), webhook_id: id() }));
    call!(webhooks.list_webhook_deliveries(pb::ListWebhookDeliveriesRequest {
        programme_id: programme_id.clone(),
        webhook_id: id(),
        ..Default::default()
    }));
    call!(webhooks.replay_webhook(pb::ReplayWebhookRequest {
        programme_id: programme_id.clone(),
        request_id: id(),
        webhook_id: id(),
        position: String::new(),
    }));
    call!(webhooks.redeliver_webhook_event(pb::RedeliverWebhookEventRequest {
        programme_id,
        request_id: id(),
        webhook_id: id(),
        sequence: 1,
    }));

    told
}

#[tokio::test]
async fn without_a_token_nothing_is_told() {
    let world = World::new().await;
    let told = knock(&world, None, &id()).await;
    assert_eq!(told.len(), SCOPES.len());
    for (_, answer) in told {
        refused(answer, Code::Unauthenticated, "TOKEN_MISSING");
    }
}

#[tokio::test]
async fn each_method_needs_its_own_scope_and_no_other_will_do() {
    let world = World::new().await;
    let member_id = world.member(in_city("广州")).await.member_id;
    let scopes: HashMap<_, _> = SCOPES.into_iter().collect();
    let names: Vec<_> = knock(&world, Some(token::all("all")), &member_id).await.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, SCOPES.map(|(name, _)| name));
    // Each scope alone opens its own methods; all the others are closed, whatever they would find.
    let mut distinct: Vec<_> = scopes.values().copied().collect();
    distinct.sort_unstable();
    distinct.dedup();
    for scope in distinct {
        let token = token::token("one-scope", &[scope], std::slice::from_ref(&world.programme));
        for (name, answer) in knock(&world, Some(token), &member_id).await {
            let needed = scopes[name];
            if needed == scope {
                let code = answer.err().map(|status| status.code());
                assert!(!matches!(code, Some(Code::PermissionDenied | Code::Unauthenticated)), "{name} with {scope}: {code:?}");
            } else {
                assert_eq!(refused(answer, Code::PermissionDenied, "SCOPE_MISSING")["scope"], needed, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_token_for_another_programme_learns_nothing_of_what_exists() {
    let world = World::new().await;
    let member_id = world.member(in_city("广州")).await.member_id;
    let token = token::token("elsewhere", &all_scopes(), &[id()]);
    let before = world.count("SELECT count(*) FROM told").await;
    // The same answer for a member that is there and for one that is not.
    let mut told = knock(&world, Some(token.clone()), &member_id).await;
    told.extend(knock(&world, Some(token.clone()), &id()).await);
    let nowhere = World::of(world.registry, id());
    told.extend(knock(&nowhere, Some(token), &member_id).await);
    assert_eq!(told.len(), 3 * SCOPES.len());
    for (_, answer) in told {
        refused(answer, Code::PermissionDenied, "PROGRAMME_DENIED");
    }
    assert_eq!(nowhere.count("SELECT count(*) FROM told").await, before);
    assert_eq!(nowhere.count("SELECT count(*) FROM request_record").await, 2);
}
