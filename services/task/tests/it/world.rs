//! A programme with money and members, and short ways to do what every test does.

use crate::seat::{Seat, start_budget, start_registry, start_task};
use koc_proto::{
    google::r#type::Money,
    koc::{budget::v1 as budget, feed::v1::Change, registry::v1 as registry, task::v1 as pb},
};
use koc_tests::{
    service::{self, TestChannel},
    wait,
};
use std::time::Duration;
use tonic::Status;

pub use koc_tests::answer::{fact, id, refused, violations};

pub use pb::{AssignmentState as State, SettlementState as Settlement};

pub type Assignments = pb::assignment_service_client::AssignmentServiceClient<TestChannel>;
type Briefs = pb::brief_service_client::BriefServiceClient<TestChannel>;
type Tasks = pb::task_service_client::TaskServiceClient<TestChannel>;
type Reservations = budget::reservation_service_client::ReservationServiceClient<TestChannel>;
type Plans = budget::plan_service_client::PlanServiceClient<TestChannel>;

/// How long something may take that happens by itself.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// From now; see [`World::task_request`].
pub const OFFER_DAYS: u32 = 7;
pub const DELIVERY_DAYS: u32 = 30;
/// What the envelope holds when it is new.
pub const ENVELOPE_UNITS: i64 = 9_000;
/// What one assignment of [`World::task_request`] costs.
pub const REWARD_UNITS: i64 = 1_000;

pub struct World {
    pub registry: Seat,
    pub budget: Seat,
    pub task: Seat,
    pub programme: String,
    pub plan: String,
    pub envelope: String,
}

pub fn yuan(units: i64) -> Money {
    Money { currency_code: "CNY".into(), units, nanos: 0 }
}

/// So many minor units of CNY.
pub fn fen(minor: i64) -> Money {
    Money { currency_code: "CNY".into(), units: minor / 100, nanos: i32::try_from(minor % 100).expect("below 100") * 10_000_000 }
}

/// The minor units of an amount in CNY.
pub fn minor(money: Option<&Money>) -> i64 {
    let money = money.expect("an amount");
    assert_eq!(money.currency_code, "CNY");
    money.units * 100 + i64::from(money.nanos) / 10_000_000
}

/// Some days from the test's start, by the machine's clock.
pub fn in_days(days: u32) -> prost_types::Timestamp {
    prost_types::Timestamp::from(std::time::UNIX_EPOCH + epoch() + DAY * days)
}

fn epoch() -> Duration {
    std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970")
}

impl World {
    /// Three services, a programme in CNY, and an active plan whose envelope holds [`ENVELOPE_UNITS`].
    pub async fn new() -> Self {
        let registry = start_registry(service::free_address(), service::database(&koc_registry::SCHEMA).await).await;
        let database = service::database(&koc_budget::SCHEMA).await;
        let budget = start_budget(service::free_address(), database, registry.url.clone()).await;
        let database = service::database(&koc_task::SCHEMA).await;
        let task = start_task(service::free_address(), database, registry.url.clone(), budget.url.clone()).await;
        let mut world = Self {
            registry: Seat::new(registry),
            budget: Seat::new(budget),
            task: Seat::new(task),
            programme: id(),
            plan: String::new(),
            envelope: String::new(),
        };
        world.create_programme().await;
        world.create_plan().await;
        world.activate_plan().await;
        world
    }

    async fn create_programme(&self) {
        let request = registry::CreateProgrammeRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            display_name: "Owners' circle".into(),
            currency_code: "CNY".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        let mut client = registry::programme_service_client::ProgrammeServiceClient::new(self.registry.channel());
        client.create_programme(request).await.expect("a programme");
    }

    async fn create_plan(&mut self) {
        let envelope = |class: budget::ResourceClass, units| budget::NewEnvelope {
            resource_class: class.into(),
            display_name: class.as_str_name().to_lowercase(),
            allocated: Some(yuan(units)),
            ..Default::default()
        };
        let request = budget::CreatePlanRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            display_name: "this year".into(),
            period_start_time: Some(prost_types::Timestamp::from(std::time::UNIX_EPOCH + epoch() - DAY)),
            period_end_time: Some(in_days(1_000)),
            envelopes: vec![
                envelope(budget::ResourceClass::Incentive, ENVELOPE_UNITS),
                envelope(budget::ResourceClass::StrategicReserve, ENVELOPE_UNITS / 9),
            ],
            automatic_draw_limit: None,
            policy: None,
        };
        let plan = self.plans("planner").create_plan(request).await.expect("a plan").into_inner().plan.unwrap_or_default();
        let incentive = i32::from(budget::ResourceClass::Incentive);
        let envelope = plan.envelopes.iter().find(|e| e.resource_class == incentive).expect("the envelope asked for");
        (self.plan, self.envelope) = (plan.plan_id.clone(), envelope.envelope_id.clone());
    }

    async fn activate_plan(&self) {
        let (programme_id, plan_id) = (self.programme.clone(), self.plan.clone());
        let request = budget::SubmitPlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: String::new(),
        };
        self.plans("planner").submit_plan(request).await.expect("submitted");
        let request = budget::ApprovePlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: String::new(),
        };
        self.plans("controller").approve_plan(request).await.expect("approved");
        let request = budget::ActivatePlanRequest { programme_id, request_id: id(), plan_id, etag: String::new() };
        self.plans("planner").activate_plan(request).await.expect("active");
    }

    /// An envelope of a plan that is not active.
    pub async fn idle_envelope(&mut self) -> String {
        let (plan, envelope) = (self.plan.clone(), self.envelope.clone());
        self.create_plan().await;
        self.plan = plan;
        std::mem::replace(&mut self.envelope, envelope)
    }

    pub fn briefs(&self) -> Briefs {
        Briefs::new(self.task.channel())
    }

    pub fn tasks(&self) -> Tasks {
        Tasks::new(self.task.channel())
    }

    pub fn assignments(&self) -> Assignments {
        Assignments::new(self.task.channel())
    }

    pub fn reservations(&self) -> Reservations {
        Reservations::new(self.budget.channel())
    }

    pub fn plans(&self, actor: &str) -> Plans {
        Plans::new(self.budget.channel_of(actor))
    }

    pub fn limits(&self) -> budget::member_limit_service_client::MemberLimitServiceClient<TestChannel> {
        budget::member_limit_service_client::MemberLimitServiceClient::new(self.budget.channel_of("controller"))
    }

    pub async fn member(&self) -> String {
        self.member_with(registry::MemberProfile { region_code: "CN-GD".into(), ..Default::default() }).await
    }

    pub async fn member_with(&self, profile: registry::MemberProfile) -> String {
        let request = registry::CreateMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            profile: Some(profile),
            external_identities: Vec::new(),
        };
        let mut client = registry::member_service_client::MemberServiceClient::new(self.registry.channel());
        client.create_member(request).await.expect("a member").into_inner().member.unwrap_or_default().member_id
    }

    pub fn brief_request(&self) -> pb::CreateBriefRequest {
        pb::CreateBriefRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            display_name: "Weekend with the new estate".into(),
            content: Some(content()),
        }
    }

    /// A brief whose first revision is published.
    pub async fn brief(&self) -> String {
        let brief = self.briefs().create_brief(self.brief_request()).await.expect("a brief").into_inner().brief;
        let brief_id = brief.unwrap_or_default().brief_id;
        self.publish_brief(&brief_id).await.expect("published");
        brief_id
    }

    pub async fn publish_brief(&self, brief_id: &str) -> Result<pb::Brief, Status> {
        let (programme_id, brief_id) = (self.programme.clone(), brief_id.to_owned());
        let request = pb::PublishBriefRevisionRequest { programme_id, request_id: id(), brief_id };
        Ok(self.briefs().publish_brief_revision(request).await?.into_inner().brief.unwrap_or_default())
    }

    /// A task of ten places on a brief, for anybody.
    pub fn task_request(&self, brief_id: &str) -> pb::CreateTaskRequest {
        pb::CreateTaskRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            display_name: "Launch stories".into(),
            brief_id: brief_id.to_owned(),
            brief_revision: 1,
            target: None,
            capacity: 10,
            reward: Some(yuan(REWARD_UNITS)),
            envelope_id: self.envelope.clone(),
            offer_deadline: Some(in_days(OFFER_DAYS)),
            delivery_deadline: Some(in_days(DELIVERY_DAYS)),
            review_days: 0,
        }
    }

    /// A published task on a new brief, as `change` makes the request.
    pub async fn task_with(&self, change: impl FnOnce(&mut pb::CreateTaskRequest)) -> String {
        let mut request = self.task_request(&self.brief().await);
        change(&mut request);
        let task = self.tasks().create_task(request).await.expect("a task").into_inner().task.unwrap_or_default();
        self.publish_task(&task.task_id).await.expect("published");
        task.task_id
    }

    pub async fn publish_task(&self, task_id: &str) -> Result<pb::Task, Status> {
        let (programme_id, task_id) = (self.programme.clone(), task_id.to_owned());
        let request = pb::PublishTaskRequest { programme_id, request_id: id(), task_id };
        Ok(self.tasks().publish_task(request).await?.into_inner().task.unwrap_or_default())
    }

    pub async fn get_task(&self, task_id: &str) -> Result<pb::Task, Status> {
        let request = pb::GetTaskRequest { programme_id: self.programme.clone(), task_id: task_id.to_owned() };
        Ok(self.tasks().get_task(request).await?.into_inner().task.unwrap_or_default())
    }

    pub async fn offer(&self, task_id: &str, member_id: &str) -> Result<pb::Assignment, Status> {
        let request = pb::OfferAssignmentRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            task_id: task_id.to_owned(),
            member_id: member_id.to_owned(),
        };
        Ok(self.assignments().offer_assignment(request).await?.into_inner().assignment.unwrap_or_default())
    }

    pub async fn accept(&self, assignment_id: &str) -> Result<pb::Assignment, Status> {
        let (programme_id, assignment_id) = (self.programme.clone(), assignment_id.to_owned());
        let request = pb::AcceptAssignmentRequest { programme_id, request_id: id(), assignment_id };
        Ok(self.assignments().accept_assignment(request).await?.into_inner().assignment.unwrap_or_default())
    }

    pub async fn decline(&self, assignment_id: &str) -> Result<pb::Assignment, Status> {
        let (programme_id, assignment_id) = (self.programme.clone(), assignment_id.to_owned());
        let request = pb::DeclineAssignmentRequest { programme_id, request_id: id(), assignment_id };
        Ok(self.assignments().decline_assignment(request).await?.into_inner().assignment.unwrap_or_default())
    }

    /// Hands in the named deliverables; gives the submission's id.
    pub async fn submit(&self, assignment_id: &str, stage: pb::SubmissionStage, keys: &[&str]) -> Result<String, Status> {
        let request = self.submit_request(assignment_id, stage, keys);
        Ok(self.assignments().submit_work(request).await?.into_inner().submission_id)
    }

    pub fn submit_request(&self, assignment_id: &str, stage: pb::SubmissionStage, keys: &[&str]) -> pb::SubmitWorkRequest {
        pb::SubmitWorkRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            assignment_id: assignment_id.to_owned(),
            stage: stage.into(),
            deliverables: keys.iter().map(|key| deliverable(key)).collect(),
        }
    }

    pub async fn review(
        &self,
        assignment_id: &str,
        submission_id: &str,
        verdict: pb::ReviewVerdict,
        accepted: &[&str],
    ) -> Result<pb::Assignment, Status> {
        let request = pb::ReviewSubmissionRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            assignment_id: assignment_id.to_owned(),
            submission_id: submission_id.to_owned(),
            verdict: verdict.into(),
            accepted_deliverable_keys: accepted.iter().map(|key| (*key).to_owned()).collect(),
            comment: "the light is lovely".into(),
        };
        Ok(self.assignments().review_submission(request).await?.into_inner().assignment.unwrap_or_default())
    }

    pub async fn complete(&self, assignment_id: &str) -> Result<pb::Assignment, Status> {
        let (programme_id, assignment_id) = (self.programme.clone(), assignment_id.to_owned());
        let request = pb::CompleteAssignmentRequest { programme_id, request_id: id(), assignment_id };
        Ok(self.assignments().complete_assignment(request).await?.into_inner().assignment.unwrap_or_default())
    }

    /// From work in progress to a settled completion, with these deliverables handed in and accepted.
    pub async fn finish(&self, assignment_id: &str, keys: &[&str]) -> pb::Assignment {
        let live = self.submit(assignment_id, pb::SubmissionStage::Live, keys).await.expect("handed in");
        self.review(assignment_id, &live, pb::ReviewVerdict::Approved, &[]).await.expect("approved");
        self.complete(assignment_id).await.expect("completed");
        self.wait_for(assignment_id, State::Completed, Settlement::Settled).await
    }

    pub async fn get(&self, assignment_id: &str) -> Result<pb::Assignment, Status> {
        let (programme_id, assignment_id) = (self.programme.clone(), assignment_id.to_owned());
        let request = pb::GetAssignmentRequest { programme_id, assignment_id };
        Ok(self.assignments().get_assignment(request).await?.into_inner().assignment.unwrap_or_default())
    }

    /// Waits until an assignment is as it should become by itself.
    pub async fn wait_for(&self, assignment_id: &str, state: State, settlement: Settlement) -> pb::Assignment {
        let what = format!("assignment to be {} and {}", state.as_str_name(), settlement.as_str_name());
        wait::until(&what, PATIENCE, async || {
            let found = self.get(assignment_id).await.expect("the assignment is there");
            (found.state() == state && found.settlement_state() == settlement).then_some(found)
        })
        .await
    }

    /// An assignment that a new member accepted in a new task, with its money held.
    pub async fn in_progress(&self) -> pb::Assignment {
        let task = self.task_with(|_| {}).await;
        self.in_progress_in(&task).await
    }

    pub async fn in_progress_in(&self, task_id: &str) -> pb::Assignment {
        let offered = self.offer(task_id, &self.member().await).await.expect("offered");
        self.accept(&offered.assignment_id).await.expect("accepted");
        self.wait_for(&offered.assignment_id, State::InProgress, Settlement::Held).await
    }

    pub async fn reservation(&self, reservation_id: &str) -> budget::Reservation {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        let request = budget::GetReservationRequest { programme_id, reservation_id };
        let found = self.reservations().get_reservation(request).await.expect("the reservation is there");
        found.into_inner().reservation.unwrap_or_default()
    }

    /// The balances of the envelope, as the budget service has them.
    pub async fn balances(&self) -> budget::Balances {
        let (programme_id, plan_id) = (self.programme.clone(), self.plan.clone());
        let request = budget::GetPlanSummaryRequest { programme_id, plan_id, as_of_time: None };
        let mut plans = self.plans("planner");
        let envelopes = plans.get_plan_summary(request).await.expect("a summary").into_inner().envelopes;
        let envelope = envelopes.into_iter().find(|e| e.envelope_id == self.envelope).expect("the envelope is there");
        envelope.balances.expect("it has balances")
    }

    /// What the envelope has reserved, committed and available, in minor units.
    pub async fn money(&self) -> [i64; 3] {
        let balances = self.balances().await;
        [balances.reserved, balances.committed, balances.available].map(|part| minor(part.as_ref()))
    }

    /// All of the task service's changes about a subject, in order.
    pub async fn changes(&self, subject_id: &str) -> Vec<Change> {
        let mut client = pb::feed_service_client::FeedServiceClient::new(self.task.channel());
        let request = pb::ListChangesRequest { programme_id: self.programme.clone(), after_position: 0, page_size: 1_000 };
        let page = client.list_changes(request).await.expect("a page").into_inner();
        page.changes.into_iter().filter(|change| change.subject_id == subject_id).collect()
    }

    /// Waits until the feed has so many changes about a subject.
    pub async fn wait_for_changes(&self, subject_id: &str, count: usize) -> Vec<Change> {
        wait::until("the changes to be published", PATIENCE, async || {
            let changes = self.changes(subject_id).await;
            (changes.len() >= count).then_some(changes)
        })
        .await
    }

    /// What the task's row says is filled, and how many assignments take a place.
    pub async fn places(&self, task_id: &str) -> (i32, i64) {
        sqlx::query_as(
            "SELECT t.filled, (SELECT count(*) FROM assignment AS a WHERE a.task_id = t.task_id
                 AND a.state NOT IN ('UNFUNDED', 'DECLINED', 'REJECTED', 'EXPIRED'))
             FROM task AS t WHERE t.task_id = $1::uuid",
        )
        .bind(task_id)
        .fetch_one(&self.task.database.admin)
        .await
        .expect("the task is there")
    }
}

pub fn content() -> pb::BriefContent {
    let spec = |key: &str, kind: pb::DeliverableKind, weight_percent| pb::DeliverableSpec {
        deliverable_key: key.into(),
        kind: kind.into(),
        weight_percent,
        acceptance_criteria: "shows the car in daily use".into(),
    };
    let target = |target_value, tier_id: &str| pb::OutputTarget {
        metric: pb::Metric::Views.into(),
        target_value,
        within_days: 30,
        tier_id: tier_id.into(),
    };
    pb::BriefContent {
        goal: "families see the boot in use".into(),
        product: "estate".into(),
        key_messages: vec!["fits a pram and a dog".into()],
        avoid: vec!["prices".into()],
        disclosure_label: "广告".into(),
        creative_freedom: pb::CreativeFreedom::Guided.into(),
        deliverables: vec![spec("article", pb::DeliverableKind::Article, 60), spec("video", pb::DeliverableKind::Video, 40)],
        output_targets: vec![target(10_000, ""), target(20_000, "BASE"), target(90_000, "APEX")],
    }
}

/// A deliverable as it can be handed in at any stage.
pub fn deliverable(key: &str) -> pb::SubmittedDeliverable {
    pb::SubmittedDeliverable {
        deliverable_key: key.into(),
        platform: "XIAOHONGSHU".into(),
        url: format!("https://example.com/{key}"),
        publish_time: Some(prost_types::Timestamp { seconds: 1_790_000_000, nanos: 0 }),
        text: format!("a weekend, told in a {key}"),
    }
}
