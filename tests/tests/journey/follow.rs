//! What the registry tells of members reaches all: suspended, merged, consent withdrawn, and taken back again.

use koc_proto::{
    google::r#type::Money,
    koc::{
        budget::v1 as budget,
        measurement::v1 as measurement,
        registry::v1::{self as registry, ConsentPurpose},
        task::v1 as task,
    },
};
use koc_tests::{
    answer::{id, refused},
    members::Members,
    service::{TestChannel, channel_to},
    suite::Suite,
    token, wait,
};
use std::time::Duration;
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A programme with an active plan and a task with many places.
struct Stage {
    suite: Suite,
    programme: String,
    envelope: String,
    task: String,
}

fn yuan(units: i64) -> Option<Money> {
    Some(Money { currency_code: "CNY".into(), units, nanos: 0 })
}

/// So many days from now, by the machine's clock.
fn in_days(days: u32) -> Option<prost_types::Timestamp> {
    let now = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
    Some(prost_types::Timestamp::from(std::time::UNIX_EPOCH + now + DAY * days))
}

impl Stage {
    async fn new() -> Self {
        let (suite, [envelope, task]) = (Suite::start(None).await, Default::default());
        let mut stage = Self { suite, programme: id(), envelope, task };
        let request = registry::CreateProgrammeRequest {
            programme_id: stage.programme.clone(),
            request_id: id(),
            display_name: "Owners' circle".into(),
            currency_code: "CNY".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        let mut programmes = registry::programme_service_client::ProgrammeServiceClient::new(stage.to("registry"));
        programmes.create_programme(request).await.expect("a programme");
        stage.plan().await;
        stage.task().await;
        stage
    }

    fn to(&self, service: &str) -> TestChannel {
        self.by(service, "planner")
    }

    fn by(&self, service: &str, actor: &str) -> TestChannel {
        channel_to(&self.suite.url(service), Some(token::all(actor)), None)
    }

    async fn plan(&mut self) {
        let envelope = budget::NewEnvelope {
            resource_class: budget::ResourceClass::Inclusive.into(),
            display_name: "all".into(),
            allocated: yuan(9_000),
            ..Default::default()
        };
        let now = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
        let request = budget::CreatePlanRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            display_name: "this year".into(),
            period_start_time: Some(prost_types::Timestamp::from(std::time::UNIX_EPOCH + now - DAY)),
            period_end_time: in_days(1_000),
            envelopes: vec![envelope],
            ..Default::default()
        };
        let mut plans = budget::plan_service_client::PlanServiceClient::new(self.to("budget"));
        let plan = plans.create_plan(request).await.expect("a plan").into_inner().plan.unwrap_or_default();
        let (programme_id, plan_id, etag) = (self.programme.clone(), plan.plan_id, String::new());
        let submit = budget::SubmitPlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: etag.clone(),
        };
        plans.submit_plan(submit).await.expect("submitted");
        let approve = budget::ApprovePlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: etag.clone(),
        };
        let mut controller = budget::plan_service_client::PlanServiceClient::new(self.by("budget", "controller"));
        controller.approve_plan(approve).await.expect("approved");
        let activate = budget::ActivatePlanRequest { programme_id, request_id: id(), plan_id, etag };
        plans.activate_plan(activate).await.expect("active");
        self.envelope = plan.envelopes[0].envelope_id.clone();
    }

    async fn task(&mut self) {
        let spec = task::DeliverableSpec {
            deliverable_key: "article".into(),
            kind: task::DeliverableKind::Article.into(),
            weight_percent: 100,
            acceptance_criteria: "shows the car in daily use".into(),
        };
        let content = task::BriefContent {
            goal: "families see the boot in use".into(),
            product: "estate".into(),
            disclosure_label: "广告".into(),
            creative_freedom: task::CreativeFreedom::Guided.into(),
            deliverables: vec![spec],
            ..Default::default()
        };
        let (programme_id, display_name) = (self.programme.clone(), "Weekend with the new estate".to_owned());
        let request = task::CreateBriefRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            display_name: display_name.clone(),
            content: Some(content),
        };
        let mut briefs = task::brief_service_client::BriefServiceClient::new(self.to("task"));
        let brief_id = briefs.create_brief(request).await.expect("a brief").into_inner().brief.unwrap_or_default().brief_id;
        let publish = task::PublishBriefRevisionRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            brief_id: brief_id.clone(),
        };
        briefs.publish_brief_revision(publish).await.expect("published");
        let request = task::CreateTaskRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            display_name,
            brief_id,
            brief_revision: 1,
            capacity: 10,
            reward: yuan(100),
            envelope_id: self.envelope.clone(),
            offer_deadline: in_days(7),
            delivery_deadline: in_days(30),
            ..Default::default()
        };
        let mut tasks = task::task_service_client::TaskServiceClient::new(self.to("task"));
        self.task = tasks.create_task(request).await.expect("a task").into_inner().task.unwrap_or_default().task_id;
        let publish = task::PublishTaskRequest { programme_id, request_id: id(), task_id: self.task.clone() };
        tasks.publish_task(publish).await.expect("published");
    }

    fn assignments(&self) -> task::assignment_service_client::AssignmentServiceClient<TestChannel> {
        task::assignment_service_client::AssignmentServiceClient::new(self.to("task"))
    }

    async fn offer(&self, member_id: &str) -> Result<task::Assignment, Status> {
        let request = task::OfferAssignmentRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            task_id: self.task.clone(),
            member_id: member_id.into(),
        };
        Ok(self.assignments().offer_assignment(request).await?.into_inner().assignment.unwrap_or_default())
    }

    async fn assignment(&self, assignment_id: &str) -> task::Assignment {
        let request = task::GetAssignmentRequest { programme_id: self.programme.clone(), assignment_id: assignment_id.into() };
        self.assignments().get_assignment(request).await.expect("there").into_inner().assignment.unwrap_or_default()
    }

    async fn reserve(&self, member_id: &str) -> Result<budget::Reservation, Status> {
        let request = budget::ReserveRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            envelope_id: self.envelope.clone(),
            member_id: member_id.into(),
            purpose: "assignment/1".into(),
            amount: yuan(1),
            ..Default::default()
        };
        let mut client = budget::reservation_service_client::ReservationServiceClient::new(self.to("budget"));
        Ok(client.reserve(request).await?.into_inner().reservation.unwrap_or_default())
    }

    /// A member's value, and whose it is.
    async fn value(&self, member_id: &str) -> Result<String, Status> {
        let request = measurement::GetMemberValueRequest {
            programme_id: self.programme.clone(),
            member_id: member_id.into(),
            period_start_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            period_end_time: in_days(0),
        };
        let mut client = measurement::value_service_client::ValueServiceClient::new(self.to("measurement"));
        Ok(client.get_member_value(request).await?.into_inner().member_value.unwrap_or_default().member_id)
    }
}

/// Asks until it is refused for this reason.
async fn until_refused<T: std::fmt::Debug>(reason: &str, ask: impl AsyncFn() -> Result<T, Status>) {
    wait::until(reason, PATIENCE, async || {
        let Err(status) = ask().await else { return None };
        (koc_chassis::fault::reason_of(&status) == reason).then_some(())
    })
    .await;
}

/// Asks until it succeeds, with what is wanted.
async fn until_found<T>(what: &str, ask: impl AsyncFn() -> Result<T, Status>, wanted: impl Fn(&T) -> bool) -> T {
    wait::until(what, PATIENCE, async || ask().await.ok().filter(|found| wanted(found))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_member_is_heard_by_every_service() {
    let stage = Stage::new().await;
    let members = Members::new(stage.to("registry"), &stage.programme);
    let (winner, loser, other) = (members.create().await, members.create().await, members.create().await);
    until_found("the programme to be known", async || stage.value(&other).await, |of| *of == other).await;

    // Suspended: nothing new, anywhere.
    let open = stage.offer(&other).await.expect("offered").assignment_id;
    stage.reserve(&other).await.expect("held");
    members.suspend(&other).await;
    until_refused("MEMBER_SUSPENDED", async || stage.reserve(&other).await).await;
    until_found(
        "the offer to end",
        async || Ok(stage.assignment(&open).await),
        |found| found.state() == task::AssignmentState::Expired,
    )
    .await;
    refused(stage.offer(&other).await, Code::FailedPrecondition, "MEMBER_SUSPENDED");
    members.reinstate(&other).await;
    until_found("money to be held again", async || stage.reserve(&other).await, |_| true).await;
    stage.offer(&other).await.expect("offered");

    // Merged: one person by either id.
    let first = stage.offer(&loser).await.expect("offered").assignment_id;
    members.merge(&winner, &loser).await;
    until_found("the winner's money", async || stage.reserve(&loser).await, |held| held.member_id == winner).await;
    until_found("the winner's assignment", async || Ok(stage.assignment(&first).await), |found| found.member_id == winner).await;
    until_found("the winner's value", async || stage.value(&loser).await, |of| *of == winner).await;
    let taken = refused(stage.offer(&winner).await, Code::AlreadyExists, "ASSIGNMENT_EXISTS");
    assert_eq!(taken["resource_id"], first);

    // Withdrawn by the loser's id, it holds for the winner; and for both, once they are parted.
    members.consent(&loser, ConsentPurpose::Profiling, false).await;
    until_refused("CONSENT_WITHDRAWN", async || stage.value(&winner).await).await;
    members.unmerge(&loser).await;
    until_found("the loser's own money", async || stage.reserve(&loser).await, |held| held.member_id == loser).await;
    let parted = async || Ok(stage.assignment(&first).await);
    until_found("the loser's own assignment", parted, |found| found.member_id == loser).await;
    until_refused("CONSENT_WITHDRAWN", async || stage.value(&loser).await).await;
    members.consent(&winner, ConsentPurpose::Profiling, true).await;
    until_found("the winner's value", async || stage.value(&winner).await, |of| *of == winner).await;
    refused(stage.value(&loser).await, Code::FailedPrecondition, "CONSENT_WITHDRAWN");
}
