//! A programme with money, a brief and tasks, and a person in it of whom everything is said that can be said.

mod syncs;

use koc_proto::{
    google::r#type::Money,
    koc::{budget::v1 as budget, registry::v1 as registry, task::v1 as task},
};
use koc_tests::{
    answer::id,
    service::{TestChannel, channel_to},
    suite::{SERVICES, Suite},
    token, wait,
};
use std::time::{Duration, UNIX_EPOCH};

use budget::{
    ledger_service_client::LedgerServiceClient as Ledger, member_limit_service_client::MemberLimitServiceClient as Limits,
    plan_service_client::PlanServiceClient as Plans, reserve_draw_service_client::ReserveDrawServiceClient as Draws,
};
use registry::{
    erasure_service_client::ErasureServiceClient as Erasures, member_service_client::MemberServiceClient as Members,
    programme_service_client::ProgrammeServiceClient as Programmes, tier_service_client::TierServiceClient as Tiers,
};
use task::{
    assignment_service_client::AssignmentServiceClient as Assignments, brief_service_client::BriefServiceClient as Briefs,
    task_service_client::TaskServiceClient as Tasks,
};

/// In everything that is said of the person; small letters, as names are searched in them.
pub const MARKER: &str = "zqmarker";
pub const PHONE: &str = "+8613798712345";
const PATIENCE: Duration = Duration::from_secs(30);
const DAY_SECONDS: i64 = 24 * 60 * 60;

/// The programme, and the way to the services.
pub struct Stage {
    urls: [String; 4],
    programme: String,
    envelope: String,
    /// When the CRM exported all whom it has.
    exported: i64,
    database: sqlx::PgPool,
}

/// The person, under two ids of which one leads to the other.
pub struct Person {
    pub loser_id: String,
    pub profile: registry::MemberProfile,
    accepted: String,
    working: String,
}

fn words(what: &str) -> String {
    format!("{MARKER} {what}")
}

fn yuan(units: i64) -> Option<Money> {
    Some(Money { currency_code: "CNY".into(), units, nanos: 0 })
}

fn seconds() -> i64 {
    let now = UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_secs();
    i64::try_from(now).expect("in range")
}

fn in_days(days: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: seconds() + days * DAY_SECONDS, nanos: 0 })
}

/// Something in every field.
pub fn profile() -> registry::MemberProfile {
    registry::MemberProfile {
        display_name: words("name"),
        email: format!("{MARKER}@example.com"),
        phone: PHONE.into(),
        region_code: "CN-GD".into(),
        city: words("city"),
        channels: vec![registry::Channel { platform: "DOUYIN".into(), handle: words("handle"), followers: Some(1) }],
        vehicles: vec![registry::Vehicle { model: words("model"), vin: MARKER.into() }],
        motivations: vec![registry::Motivation::Helping.into()],
        tags: vec![words("tag")],
        consents: vec![registry::Consent { purpose: registry::ConsentPurpose::Participation.into(), granted: true }],
    }
}

impl Stage {
    /// A programme with an active plan.
    pub async fn set(suite: &Suite) -> Self {
        let database = sqlx::PgPool::connect(suite.database_url()).await.expect("the database is there");
        let (urls, exported) = (SERVICES.map(|name| suite.url(name)), seconds());
        let mut stage = Self { urls, programme: id(), envelope: String::new(), exported, database };
        let request = registry::CreateProgrammeRequest {
            programme_id: stage.programme.clone(),
            request_id: id(),
            display_name: "Owners' circle".into(),
            currency_code: "CNY".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        Programmes::new(stage.registry("planner")).create_programme(request).await.expect("a programme");
        let envelope = |class: budget::ResourceClass, units| budget::NewEnvelope {
            resource_class: class.into(),
            display_name: class.as_str_name().to_lowercase(),
            allocated: yuan(units),
            ..Default::default()
        };
        let programme_id = stage.programme.clone();
        let request = budget::CreatePlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            display_name: "this year".into(),
            period_start_time: in_days(-1),
            period_end_time: in_days(300),
            envelopes: vec![
                envelope(budget::ResourceClass::Incentive, 9_000),
                envelope(budget::ResourceClass::StrategicReserve, 1_000),
            ],
            automatic_draw_limit: None,
            policy: None,
        };
        let plan = Plans::new(stage.budget("planner")).create_plan(request).await.expect("a plan").into_inner().plan;
        let plan = plan.unwrap_or_default();
        let (plan_id, etag) = (plan.plan_id, String::new());
        stage.envelope = plan.envelopes[0].envelope_id.clone();
        let submit = budget::SubmitPlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: etag.clone(),
        };
        Plans::new(stage.budget("planner")).submit_plan(submit).await.expect("submitted");
        let approve = budget::ApprovePlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: etag.clone(),
        };
        Plans::new(stage.budget("controller")).approve_plan(approve).await.expect("approved");
        let activate = budget::ActivatePlanRequest { programme_id, request_id: id(), plan_id, etag };
        Plans::new(stage.budget("planner")).activate_plan(activate).await.expect("active");
        stage
    }

    pub fn programme(&self) -> &str {
        &self.programme
    }

    fn channel(&self, service: usize, actor: &str) -> TestChannel {
        channel_to(&self.urls[service], Some(token::all(actor)), None)
    }

    fn registry(&self, actor: &str) -> TestChannel {
        self.channel(0, actor)
    }

    fn budget(&self, actor: &str) -> TestChannel {
        self.channel(1, actor)
    }

    fn task(&self, actor: &str) -> TestChannel {
        self.channel(2, actor)
    }

    /// Lets the person go through all that is done with members.
    pub async fn play(&self) -> Person {
        let (winner_id, loser_id) = self.come_in().await;
        self.judge(&winner_id).await;
        let (accepted, working) = self.work(&winner_id).await;
        self.fund(&winner_id).await;
        Person { loser_id, profile: profile(), accepted, working }
    }

    /// Comes in twice, by a caller and by a sync, is changed, suspended, reinstated, and found to be one.
    async fn come_in(&self) -> (String, String) {
        let programme_id = self.programme.clone();
        let mut members = Members::new(self.registry("crm"));
        let request = registry::CreateMemberRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            profile: Some(profile()),
            external_identities: vec![identity("web")],
        };
        let winner = members.create_member(request).await.expect("created").into_inner().member.unwrap_or_default();
        assert_eq!(self.sync(&profile()).await, [registry::SyncOutcome::Created, registry::SyncOutcome::Unchanged]);
        let lookup =
            registry::LookupMemberRequest { programme_id: programme_id.clone(), external_identity: Some(identity("crm")) };
        let loser = members.lookup_member(lookup).await.expect("found").into_inner().member.unwrap_or_default();
        let request = registry::UpdateMemberRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            member_id: winner.member_id.clone(),
            profile: Some(registry::MemberProfile { city: words("another city"), ..Default::default() }),
            trust_level: 0,
            update_mask: Some(prost_types::FieldMask { paths: vec!["profile.city".into()] }),
            etag: String::new(),
        };
        members.update_member(request).await.expect("updated");
        let request = registry::SuspendMemberRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            member_id: winner.member_id.clone(),
            reason: words("was suspended"),
            etag: String::new(),
        };
        members.suspend_member(request).await.expect("suspended");
        let request = registry::ReinstateMemberRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            member_id: winner.member_id.clone(),
            reason: words("was reinstated"),
            etag: String::new(),
        };
        members.reinstate_member(request).await.expect("reinstated");
        let request = registry::MergeMembersRequest {
            programme_id,
            request_id: id(),
            winner_member_id: winner.member_id.clone(),
            loser_member_id: loser.member_id.clone(),
            reason: words("is one"),
            etag: String::new(),
        };
        members.merge_members(request).await.expect("merged");
        assert_eq!(self.export(1).await, [registry::SyncOutcome::Rejected; 3]);
        (winner.member_id, loser.member_id)
    }

    /// Is proposed for another tier.
    async fn judge(&self, member_id: &str) {
        let proposal = registry::TierProposal {
            promote_probability: 0.1,
            output_count: 1,
            level: None,
            evidence_weight: None,
            as_of: in_days(-1),
            decision_id: id(),
            reason: words("does well"),
        };
        let request = registry::ProposeTierRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            proposal: Some(proposal),
        };
        Tiers::new(self.registry("analyst")).propose_tier(request).await.expect("proposed");
    }

    /// Works on two tasks: in one its work is accepted and not completed, in the other it is sent back.
    async fn work(&self, member_id: &str) -> (String, String) {
        let accepted = self.in_progress(member_id).await;
        let submission = self.submit(&accepted, task::SubmissionStage::Live).await;
        self.review(&accepted, &submission, task::ReviewVerdict::Approved).await;
        let working = self.in_progress(member_id).await;
        let submission = self.submit(&working, task::SubmissionStage::Concept).await;
        self.review(&working, &submission, task::ReviewVerdict::ChangesRequested).await;
        (accepted, working)
    }

    async fn in_progress(&self, member_id: &str) -> String {
        let programme_id = self.programme.clone();
        let spec = task::DeliverableSpec {
            deliverable_key: "article".into(),
            kind: task::DeliverableKind::Article.into(),
            weight_percent: 100,
            acceptance_criteria: "shows the car in daily use".into(),
        };
        let content = task::BriefContent {
            goal: "families see the boot in use".into(),
            product: "estate".into(),
            key_messages: vec!["fits a pram and a dog".into()],
            avoid: Vec::new(),
            disclosure_label: "广告".into(),
            creative_freedom: task::CreativeFreedom::Guided.into(),
            deliverables: vec![spec],
            output_targets: Vec::new(),
        };
        let request = task::CreateBriefRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            display_name: "Weekend".into(),
            content: Some(content),
        };
        let mut briefs = Briefs::new(self.task("editor"));
        let brief_id = briefs.create_brief(request).await.expect("a brief").into_inner().brief.unwrap_or_default().brief_id;
        let request = task::PublishBriefRevisionRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            brief_id: brief_id.clone(),
        };
        briefs.publish_brief_revision(request).await.expect("published");
        let request = task::CreateTaskRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            display_name: "Launch stories".into(),
            brief_id,
            brief_revision: 1,
            target: None,
            capacity: 1,
            reward: yuan(1_000),
            envelope_id: self.envelope.clone(),
            offer_deadline: in_days(7),
            delivery_deadline: in_days(30),
            review_days: 0,
        };
        let mut tasks = Tasks::new(self.task("editor"));
        let task_id = tasks.create_task(request).await.expect("a task").into_inner().task.unwrap_or_default().task_id;
        let request = task::PublishTaskRequest { programme_id: programme_id.clone(), request_id: id(), task_id: task_id.clone() };
        tasks.publish_task(request).await.expect("published");
        let mut assignments = Assignments::new(self.task("editor"));
        let request = task::OfferAssignmentRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            task_id,
            member_id: member_id.to_owned(),
        };
        let offered = assignments.offer_assignment(request).await.expect("offered").into_inner().assignment;
        let assignment_id = offered.unwrap_or_default().assignment_id;
        let request = task::AcceptAssignmentRequest { programme_id, request_id: id(), assignment_id: assignment_id.clone() };
        assignments.accept_assignment(request).await.expect("accepted");
        self.wait_for(&assignment_id, task::AssignmentState::InProgress, task::SettlementState::Held).await;
        assignment_id
    }

    async fn submit(&self, assignment_id: &str, stage: task::SubmissionStage) -> String {
        let deliverable = task::SubmittedDeliverable {
            deliverable_key: "article".into(),
            platform: "XIAOHONGSHU".into(),
            url: format!("https://example.com/{MARKER}"),
            publish_time: in_days(0),
            text: words("wrote this"),
        };
        let request = task::SubmitWorkRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            assignment_id: assignment_id.to_owned(),
            stage: stage.into(),
            deliverables: vec![deliverable],
        };
        Assignments::new(self.task("member")).submit_work(request).await.expect("handed in").into_inner().submission_id
    }

    async fn review(&self, assignment_id: &str, submission_id: &str, verdict: task::ReviewVerdict) {
        let request = task::ReviewSubmissionRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            assignment_id: assignment_id.to_owned(),
            submission_id: submission_id.to_owned(),
            verdict: verdict.into(),
            accepted_deliverable_keys: Vec::new(),
            comment: words("wrote well"),
        };
        Assignments::new(self.task("editor")).review_submission(request).await.expect("reviewed");
    }

    /// Waits until an assignment is as it should become by itself.
    async fn wait_for(&self, assignment_id: &str, state: task::AssignmentState, settlement: task::SettlementState) {
        let assignments = Assignments::new(self.task("editor"));
        wait::until("an assignment to move", PATIENCE, async || {
            let request =
                task::GetAssignmentRequest { programme_id: self.programme.clone(), assignment_id: assignment_id.to_owned() };
            let found =
                assignments.clone().get_assignment(request).await.expect("found").into_inner().assignment.unwrap_or_default();
            (found.state() == state && found.settlement_state() == settlement).then_some(())
        })
        .await;
    }

    /// Has a limit, and money asked of the reserve.
    async fn fund(&self, member_id: &str) {
        let request = budget::SetMemberLimitRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            period_start_time: in_days(-2),
            period_end_time: in_days(400),
            limit: yuan(5_000),
            decision_id: String::new(),
            reason: words("returned much"),
        };
        Limits::new(self.budget("controller")).set_member_limit(request).await.expect("set");
        let request = budget::RequestReserveDrawRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            plan_id: String::new(),
            as_of: in_days(0),
            kind: budget::ReserveDrawKind::Other.into(),
            amount: yuan(10),
            member_id: member_id.to_owned(),
            output_id: String::new(),
            evidence: vec![budget::EvidenceItem { name: "liked_by".into(), value: words("and others") }],
            decide_by_time: in_days(1),
        };
        let asked = Draws::new(self.budget("scout")).request_reserve_draw(request).await.expect("asked").into_inner();
        let request = budget::RejectReserveDrawRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            reserve_draw_id: asked.reserve_draw.unwrap_or_default().reserve_draw_id,
            reason: words("has enough"),
        };
        Draws::new(self.budget("controller")).reject_reserve_draw(request).await.expect("rejected");
    }

    /// Waits until nothing is on its way any more: no fact without a place, no step to be done now.
    pub async fn settled(&self) {
        let sql = SERVICES.map(|name| {
            format!(
                "(SELECT count(*) FROM {name}.outbox) + (SELECT count(*) FROM {name}.job WHERE NOT done AND run_time <= now())"
            )
        });
        let sql = format!("SELECT {}", sql.join(" + "));
        wait::until("nothing to be on its way", PATIENCE, async || {
            let left: i64 =
                sqlx::query_scalar(sqlx::AssertSqlSafe(sql.clone())).fetch_one(&self.database).await.expect("a number");
            (left == 0).then_some(())
        })
        .await;
    }

    pub async fn erase(&self, member_id: &str) -> registry::Erasure {
        let request = registry::EraseMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            ground: registry::ErasureGround::Requested.into(),
            etag: String::new(),
        };
        let answer = Erasures::new(self.registry("privacy-officer")).erase_member(request).await.expect("erased");
        answer.into_inner().erasure.unwrap_or_default()
    }

    pub async fn erasure(&self, erasure_id: &str) -> registry::Erasure {
        let request = registry::GetErasureRequest { programme_id: self.programme.clone(), erasure_id: erasure_id.to_owned() };
        let answer = Erasures::new(self.registry("privacy-officer")).get_erasure(request).await.expect("found");
        answer.into_inner().erasure.unwrap_or_default()
    }

    /// Waits until the chain covers the whole ledger, which must add up; says how many entries it has.
    pub async fn verified(&self) -> i64 {
        let ledger = Ledger::new(self.budget("auditor"));
        wait::until("the chain to cover all", PATIENCE, async || {
            let request = budget::VerifyLedgerRequest { programme_id: self.programme.clone() };
            let found = ledger.clone().verify_ledger(request).await.expect("verified").into_inner();
            assert_eq!((found.valid, found.finding.as_str()), (true, ""));
            (found.chained_count == found.entry_count).then_some(found.entry_count)
        })
        .await
    }
}

fn identity(source_system: &str) -> registry::ExternalIdentity {
    registry::ExternalIdentity { source_system: source_system.into(), external_id: words("id") }
}

impl Person {
    /// Waits until accepted work is paid, and the money for all else is back.
    pub async fn wait_for_the_end(&self, stage: &Stage) {
        stage.wait_for(&self.accepted, task::AssignmentState::Completed, task::SettlementState::Settled).await;
        stage.wait_for(&self.working, task::AssignmentState::Declined, task::SettlementState::Settled).await;
    }
}
