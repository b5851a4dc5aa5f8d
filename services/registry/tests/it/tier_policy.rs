//! Drafts of tier policies, trials of them, and how they come into force.

use crate::world::{DAY, PATIENCE, World, ahead, at, fact, id, in_city, pairs, refused, row, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use koc_tests::wait;
use pb::TierOutcome::{Dormant, Reviewed, Rose, Stayed};
use tonic::{Code, Status};

impl World {
    async fn get_draft(&self, draft_id: &str) -> Result<pb::TierPolicyDraft, Status> {
        let request = pb::GetTierPolicyDraftRequest { programme_id: self.programme.clone(), draft_id: draft_id.to_owned() };
        Ok(self.tier_policies().get_tier_policy_draft(request).await?.into_inner().draft.unwrap_or_default())
    }

    fn change(&self, draft: &pb::TierPolicyDraft, policy: pb::TierPolicy) -> pb::UpdateTierPolicyDraftRequest {
        pb::UpdateTierPolicyDraftRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            draft_id: draft.draft_id.clone(),
            policy: Some(policy),
            reason: "second thoughts".into(),
            etag: draft.etag.clone(),
        }
    }

    fn discard(&self, draft: &pb::TierPolicyDraft) -> pb::DiscardTierPolicyDraftRequest {
        pb::DiscardTierPolicyDraftRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            draft_id: draft.draft_id.clone(),
            reason: "not wanted".into(),
            etag: draft.etag.clone(),
        }
    }

    async fn policy_at(&self, as_of_time: Option<prost_types::Timestamp>) -> Result<pb::TierPolicyVersion, Status> {
        let request = pb::GetTierPolicyRequest { programme_id: self.programme.clone(), as_of_time };
        Ok(self.tier_policies().get_tier_policy(request).await?.into_inner().version.unwrap_or_default())
    }

    async fn versions(&self) -> Vec<i32> {
        let (mut versions, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = pb::ListTierPoliciesRequest { programme_id: self.programme.clone(), page_size: 2, page_token };
            let page = self.tier_policies().list_tier_policies(request).await.expect("a page").into_inner();
            versions.extend(page.versions.iter().map(number));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return versions;
            }
        }
    }

    fn trial_request(&self, draft_id: &str) -> pb::StartTierDryRunRequest {
        pb::StartTierDryRunRequest { programme_id: self.programme.clone(), request_id: id(), draft_id: draft_id.to_owned() }
    }

    async fn trial(&self, draft: &pb::TierPolicyDraft) -> pb::TierDryRun {
        let started = self.tier_policies().start_tier_dry_run(self.trial_request(&draft.draft_id)).await.expect("a trial");
        let dry_run_id = started.into_inner().dry_run.expect("the trial").dry_run_id;
        wait::until("the trial to end", PATIENCE, async || {
            let request = pb::GetTierDryRunRequest { programme_id: self.programme.clone(), dry_run_id: dry_run_id.clone() };
            let run = self.tier_policies().get_tier_dry_run(request).await.expect("the trial").into_inner().dry_run;
            run.filter(|run| !run.running)
        })
        .await
    }

    async fn tried(&self, dry_run_id: &str, page_size: i32) -> Vec<pb::TierMove> {
        let (mut moves, mut page_token) = (Vec::new(), String::new());
        loop {
            let (programme_id, dry_run_id) = (self.programme.clone(), dry_run_id.to_owned());
            let request = pb::ListTierDryRunMembersRequest { programme_id, dry_run_id, page_size, page_token };
            let page = self.tier_policies().list_tier_dry_run_members(request).await.expect("a page").into_inner();
            moves.extend(page.moves);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return moves;
            }
        }
    }
}

fn number(version: &pb::TierPolicyVersion) -> i32 {
    version.policy.as_ref().map_or(0, |policy| policy.version)
}

fn outputs(min_outputs: i32) -> pb::TierPolicy {
    pb::TierPolicy { min_outputs: Some(min_outputs), ..Default::default() }
}

#[tokio::test]
async fn a_draft_is_changed_looked_at_and_brought_into_force_by_somebody_else() {
    let world = World::new().await;
    let draft =
        world.draft(pb::TierPolicy { version: 77, min_stay_days: Some(90), ..Default::default() }).await.expect("a draft");
    let policy = draft.policy.clone().expect("its rules");
    // What is left out is as by default.
    assert_eq!((policy.version, policy.min_stay_days(), policy.min_outputs(), policy.demote_periods()), (0, 90, 5, 2));
    assert!((policy.cut_up() - 0.842).abs() < 1e-12 && (policy.cut_keep() + 0.385).abs() < 1e-12);
    assert_eq!((draft.state(), draft.authors.as_slice()), (pb::TierPolicyDraftState::Open, &["tester".to_owned()][..]));
    assert_eq!(world.get_draft(&draft.draft_id).await.expect("it is there"), draft);

    let changed =
        world.approver().update_tier_policy_draft(world.change(&draft, outputs(7))).await.expect("changed").into_inner();
    let changed = changed.draft.expect("the draft");
    assert_eq!((changed.authors.len(), changed.policy.as_ref().map(pb::TierPolicy::min_stay_days)), (2, Some(0)));
    // What was read before the change is not what would come into force.
    let stale = world.tier_policies().activate_tier_policy_draft(world.activate_request(&draft)).await;
    assert_eq!(refused(stale, Code::Aborted, "ETAG_MISMATCH")["etag"], changed.etag);
    let stale = world.tier_policies().update_tier_policy_draft(world.change(&draft, outputs(8))).await;
    refused(stale, Code::Aborted, "ETAG_MISMATCH");
    // Each of its authors wrote it.
    for mut author in [world.tier_policies(), world.approver()] {
        let own = author.activate_tier_policy_draft(world.activate_request(&changed)).await;
        refused(own, Code::FailedPrecondition, "APPROVER_IS_REQUESTER");
    }
    assert_eq!(world.versions().await, [1]);

    let third = world.registry.channel_with(Some(koc_tests::token::all("tests")), Some("third".into()));
    let mut third = crate::world::TierPolicies::new(third);
    let request = world.activate_request(&changed);
    let version = third.activate_tier_policy_draft(request.clone()).await.expect("a version").into_inner().version.expect("it");
    assert_eq!((number(&version), version.actor.as_str(), version.authors.len()), (2, "third", 2));
    let again = third.activate_tier_policy_draft(request).await.expect("a retry").into_inner().version;
    assert_eq!(again.as_ref(), Some(&version));
    assert_eq!(world.policy_at(None).await.expect("in force"), version);
    let closed = world.get_draft(&draft.draft_id).await.expect("it is there");
    assert_eq!(closed.state(), pb::TierPolicyDraftState::Activated);
    assert_eq!(closed.policy.as_ref().map(|policy| policy.version), Some(2));
    for answer in [
        world.tier_policies().update_tier_policy_draft(world.change(&closed, outputs(9))).await.err(),
        world.tier_policies().discard_tier_policy_draft(world.discard(&closed)).await.err(),
        third.activate_tier_policy_draft(world.activate_request(&closed)).await.err(),
        world.tier_policies().start_tier_dry_run(world.trial_request(&closed.draft_id)).await.err(),
    ] {
        let answer = answer.map_or(Ok(()), Err);
        assert_eq!(refused(answer, Code::FailedPrecondition, "TIER_POLICY_DRAFT_CLOSED")["subject"], draft.draft_id);
    }
    let told: Vec<_> = world.changes().await.iter().filter_map(fact::<pb::TierPolicyActivated>).collect();
    assert_eq!(told.iter().map(|told| told.version).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_version_is_in_force_from_its_time_on_and_those_before_stay_readable() {
    let world = World::new().await;
    let first = world.policy_at(None).await.expect("the first");
    let later = world.draft(outputs(6)).await.expect("a draft");
    let mut request = world.activate_request(&later);
    request.effective_time = Some(at(0));
    let past = world.approver().activate_tier_policy_draft(request.clone()).await;
    assert_eq!(violations(past), pairs([("effective_time", "EFFECTIVE_TIME_PAST")]));
    (request.request_id, request.effective_time) = (id(), Some(ahead(DAY * 30)));
    let later = world.approver().activate_tier_policy_draft(request).await.expect("planned").into_inner().version.expect("it");
    assert_eq!(world.policy_at(None).await.expect("in force"), first);
    // Another one meanwhile, until that time comes.
    assert_eq!(world.policy(outputs(7)).await, 3);
    assert_eq!(number(&world.policy_at(None).await.expect("in force")), 3);
    assert_eq!(world.policy_at(Some(ahead(DAY * 31))).await.expect("planned"), later);
    world.registry.advance(DAY * 31).await;
    assert_eq!(world.policy_at(None).await.expect("in force"), later);
    assert_eq!(world.policy_at(first.effective_time).await.expect("the first"), first);
    refused(world.policy_at(Some(at(0))).await, Code::NotFound, "TIER_POLICY_NOT_FOUND");
    assert_eq!(world.versions().await, [3, 2, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_dense_and_a_draft_comes_into_force_once() {
    let world = World::new().await;
    let drafts = join_all((1..=4).map(|n| world.draft(outputs(n)))).await;
    let drafts: Vec<_> = drafts.into_iter().map(|draft| draft.expect("a draft")).collect();
    let requests = drafts.iter().flat_map(|draft| [world.activate_request(draft), world.activate_request(draft)]);
    let answers = join_all(requests.map(|request| {
        let mut approver = world.approver();
        async move { approver.activate_tier_policy_draft(request).await }
    }))
    .await;
    let (made, mut late): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), late.len()), (4, 4));
    for answer in late.drain(..) {
        // It changed meanwhile, and is closed.
        refused(answer, Code::Aborted, "ETAG_MISMATCH");
    }
    assert_eq!(world.versions().await, [5, 4, 3, 2, 1]);

    let app = sqlx::PgPool::connect(&world.registry.database.app_url).await.expect("the application role");
    for sql in [
        "UPDATE registry.tier_policy SET min_outputs = 0",
        "DELETE FROM registry.tier_policy",
        "DELETE FROM registry.tier_move",
        "UPDATE registry.audit_entry SET actor = 'nobody'",
    ] {
        let error = sqlx::query(sql).execute(&app).await.expect_err("append-only");
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("42501"), "{sql}");
    }
}

#[tokio::test]
async fn all_that_a_draft_breaks_is_reported_at_once() {
    let world = World::new().await;
    let broken = pb::TierPolicy {
        min_promote_probability: Some(f64::NAN),
        min_stay_days: Some(3_651),
        min_outputs: Some(-1),
        promote_periods: Some(0),
        period_days: Some(0),
        ..Default::default()
    };
    assert_eq!(
        violations(world.draft(broken).await),
        pairs([
            ("policy.min_promote_probability", "double.lte"),
            ("policy.min_promote_probability", "double.gte"),
            ("policy.min_stay_days", "int.lte"),
            ("policy.min_outputs", "int.gte"),
            ("policy.promote_periods", "int.gte"),
            ("policy.period_days", "int.gte"),
        ])
    );
    let capacity = |tier_id: &str| pb::TierCapacity { tier_id: tier_id.into(), max_members: 3 };
    let overlapping = pb::TierPolicy {
        cut_up: Some(0.1),
        cut_keep: Some(0.1),
        min_promote_probability: Some(0.4),
        min_demote_probability: Some(0.6),
        capacities: vec![capacity("CORE"), capacity("NOWHERE"), capacity("CORE")],
        ..Default::default()
    };
    assert_eq!(
        violations(world.draft(overlapping).await),
        pairs([
            ("policy.cut_keep", "TIER_BANDS_OVERLAP"),
            ("policy.min_demote_probability", "TIER_BANDS_OVERLAP"),
            ("policy.capacities[1].tier_id", "TIER_UNKNOWN"),
            ("policy.capacities[2].tier_id", "TIER_REPEATED"),
        ])
    );
    let empty = pb::CreateTierPolicyDraftRequest { policy: None, ..world.draft_request(Default::default(), "") };
    assert_eq!(
        violations(world.tier_policies().create_tier_policy_draft(empty).await),
        pairs([("policy", "required"), ("reason", "string.min_len")])
    );
    let nothing = pb::TierPolicyDraft { draft_id: id(), etag: "v1".into(), ..Default::default() };
    for answer in [
        world.tier_policies().update_tier_policy_draft(world.change(&nothing, outputs(1))).await.err(),
        world.tier_policies().discard_tier_policy_draft(world.discard(&nothing)).await.err(),
        world.tier_policies().activate_tier_policy_draft(world.activate_request(&nothing)).await.err(),
        world.tier_policies().start_tier_dry_run(world.trial_request(&nothing.draft_id)).await.err(),
        world.get_draft(&nothing.draft_id).await.err(),
    ] {
        refused(answer.map_or(Ok(()), Err), Code::NotFound, "TIER_POLICY_DRAFT_NOT_FOUND");
    }
    let (programme_id, dry_run_id) = (world.programme.clone(), id());
    let run = pb::GetTierDryRunRequest { programme_id: programme_id.clone(), dry_run_id: dry_run_id.clone() };
    refused(world.tier_policies().get_tier_dry_run(run).await, Code::NotFound, "TIER_DRY_RUN_NOT_FOUND");
    let members = pb::ListTierDryRunMembersRequest { programme_id, dry_run_id, ..Default::default() };
    refused(world.tier_policies().list_tier_dry_run_members(members).await, Code::NotFound, "TIER_DRY_RUN_NOT_FOUND");
}

#[tokio::test]
async fn drafts_are_listed_newest_first_and_only_so_many_are_open_at_once() {
    let world = World::new().await;
    let mut made = Vec::new();
    for n in 0..50 {
        made.insert(0, world.draft(outputs(n)).await.expect("a draft").draft_id);
    }
    refused(world.draft(outputs(1)).await, Code::FailedPrecondition, "TIER_POLICY_DRAFT_LIMIT");
    let last = world.get_draft(&made[0]).await.expect("it is there");
    let discarded = world.tier_policies().discard_tier_policy_draft(world.discard(&last)).await.expect("closed").into_inner();
    assert_eq!(discarded.draft.map(|draft| draft.state()), Some(pb::TierPolicyDraftState::Discarded));
    made.insert(0, world.draft(outputs(1)).await.expect("there is room again").draft_id);

    let (mut listed, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListTierPolicyDraftsRequest { programme_id: world.programme.clone(), page_size: 20, page_token };
        let page = world.tier_policies().list_tier_policy_drafts(request).await.expect("a page").into_inner();
        listed.extend(page.drafts.into_iter().map(|draft| draft.draft_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, made);
    let forged = pb::ListTierPolicyDraftsRequest { page_token: "x".into(), programme_id: world.programme.clone(), page_size: 1 };
    assert_eq!(
        violations(world.tier_policies().list_tier_policy_drafts(forged).await),
        pairs([("page_token", "PAGE_TOKEN_INVALID")])
    );
}

#[tokio::test]
async fn a_trial_counts_what_each_rule_would_do_and_changes_nobody() {
    let world = World::new().await;
    let rows: Vec<_> = (0..500).map(|i| row(&format!("{i}"), 1, in_city("广州"))).collect();
    for part in rows.chunks(250) {
        world.upsert(part.to_vec()).await;
    }
    // 100 have never been measured; of the others each fifth is high, each fifth low, and half of all stand in CORE.
    let fill = "
        UPDATE member SET tier_id = 'CORE' WHERE get_byte(uuid_send(member_id), 15) % 2 = 1;
        INSERT INTO tier_standing (programme_id, member_id)
        SELECT programme_id, member_id FROM member ORDER BY member_id LIMIT 400;
        INSERT INTO tier_reading
        SELECT programme_id, member_id, now(), (ARRAY[3, -3, 0, 0, 0])[1 + (row_number() OVER (ORDER BY member_id)) % 5], 0.3, 0, 9, 9,
               member_id
        FROM tier_standing";
    sqlx::raw_sql(fill).execute(&world.registry.database.admin).await.expect("filled");
    let core = world.count(
        "SELECT count(*) FROM member m JOIN tier_reading r USING (programme_id, member_id) WHERE m.tier_id = 'CORE' AND level_mean < -1",
    )
    .await;
    let high = world.count("SELECT count(*) FROM tier_reading WHERE level_mean > 1").await;

    let draft = world.draft(Default::default()).await.expect("a draft");
    let run = world.trial(&draft).await;
    let of = |run: &pb::TierDryRun, outcome: pb::TierOutcome| -> i64 {
        run.outcomes.iter().filter(|count| count.outcome() == outcome).map(|count| count.member_count).sum()
    };
    assert_eq!((run.judged_count, of(&run, Rose), of(&run, Reviewed)), (400, high, core));
    assert_eq!(of(&run, Stayed), 400 - high - core);
    assert_eq!(of(&run, Dormant), 0);
    assert!(run.outcomes.iter().all(|count| (count.from_tier_id == count.to_tier_id) == (count.outcome() != Rose)));
    let moves = world.tried(&run.dry_run_id, 60).await;
    assert_eq!(i64::try_from(moves.len()).expect("few"), high + core);
    assert!(moves.iter().all(|m| m.move_time.is_none() && m.readings.len() == 1 && !m.reason.is_empty()));
    assert!(moves.windows(2).all(|pair| pair[0].member_id < pair[1].member_id));
    // Members are as they were, and nothing was told of them.
    assert_eq!(world.count("SELECT count(*) FROM tier_move").await, 0);
    assert_eq!(world.count("SELECT count(*) FROM tier_standing WHERE review_since IS NOT NULL").await, 0);

    // Other rules, other figures: room for three, and nobody falls.
    let full = pb::TierCapacity { tier_id: "APEX".into(), max_members: 3 };
    let rules = pb::TierPolicy { demote_periods: Some(0), capacities: vec![full], ..Default::default() };
    let narrow = world.trial(&world.draft(rules).await.expect("a draft")).await;
    let to_apex = narrow.outcomes.iter().find(|count| count.to_tier_id == "APEX" && count.outcome() == Rose);
    assert_eq!((to_apex.map(|count| count.member_count), of(&narrow, Reviewed)), (Some(3), 0));
    // It keeps the rules that it began with.
    assert_eq!(narrow.policy.map(|policy| policy.demote_periods()), Some(0));

    // The evaluation by these rules does what the trial said.
    let open = "INSERT INTO tier_proposal SELECT programme_id, member_id, 0, 9, as_of, decision_id, '', now() FROM tier_reading";
    sqlx::query(open).execute(&world.registry.database.admin).await.expect("proposals");
    let request = pb::EvaluateTiersRequest { programme_id: world.programme.clone(), request_id: id(), ..Default::default() };
    let made = world.tiers().evaluate_tiers(request).await.expect("evaluated").into_inner();
    let counted = |moves: &[pb::TierMove]| i64::try_from(moves.len()).expect("few");
    assert_eq!((counted(&made.promoted), counted(&made.reviewed)), (high, core));
    let mut moved: Vec<_> = made.promoted.iter().chain(&made.reviewed).map(|m| (&m.member_id, &m.reason)).collect();
    moved.sort_unstable();
    assert_eq!(moved, moves.iter().map(|m| (&m.member_id, &m.reason)).collect::<Vec<_>>());
}
