//! A programme with money, and short ways to what every test does: settled work, readings, values and decisions.

use chrono::{DateTime, TimeDelta, Utc};
use koc_chassis::{
    config::{BudgetPeer, RegistryPeer, ServeConfig, TaskPeer},
    ids::ProgrammeId,
    outbox::{self, NewFact},
    telemetry::Metrics,
};
use koc_proto::{
    google::r#type::Money,
    koc::{budget::v1 as budget, feed::v1::Change, measurement::v1 as pb, registry::v1 as registry, task::v1 as task},
    rules::Rules,
};
use koc_tests::{
    service::{self, Running, ServiceDatabase, TestChannel},
    wait,
};
use std::{collections::HashMap, net::SocketAddr, ops::Deref, time::Duration};
use tonic::Status;
use uuid::Uuid;

pub use koc_tests::answer::{fact, id, refused, violations};

pub use pb::ObservationOutcome as Outcome;

pub type Decisions = pb::decision_service_client::DecisionServiceClient<TestChannel>;
pub type Observations = pb::observation_service_client::ObservationServiceClient<TestChannel>;
pub type Outputs = pb::output_service_client::OutputServiceClient<TestChannel>;
pub type Signals = pb::signal_service_client::SignalServiceClient<TestChannel>;
pub type Values = pb::value_service_client::ValueServiceClient<TestChannel>;
pub type Draws = budget::reserve_draw_service_client::ReserveDrawServiceClient<TestChannel>;
pub type Reservations = budget::reservation_service_client::ReservationServiceClient<TestChannel>;
type Plans = budget::plan_service_client::PlanServiceClient<TestChannel>;

/// How long something may take that happens by itself.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const HOUR: Duration = Duration::from_secs(60 * 60);
/// What the plan holds for work, what it holds in reserve, and what may be drawn without a person.
const INCENTIVE_UNITS: i64 = 9_000;
const RESERVE_UNITS: i64 = 1_000;
const AUTOMATIC_UNITS: i64 = 100;

/// Where a service runs, and its database while it does not.
pub struct Seat {
    at: SocketAddr,
    running: Option<Running>,
    stopped: Option<ServiceDatabase>,
}

impl Seat {
    fn new(running: Running) -> Self {
        Self { at: running.address, running: Some(running), stopped: None }
    }

    pub async fn stop(&mut self) {
        self.stopped = Some(self.running.take().expect("it runs").stop().await);
    }

    /// Its database while it does not run.
    pub fn idle(&self) -> &ServiceDatabase {
        self.stopped.as_ref().expect("it is stopped")
    }

    fn leave(&mut self) -> (SocketAddr, ServiceDatabase) {
        (self.at, self.stopped.take().expect("it is stopped"))
    }
}

impl Deref for Seat {
    type Target = Running;

    fn deref(&self) -> &Running {
        self.running.as_ref().expect("it runs")
    }
}

pub struct World {
    pub registry: Seat,
    pub budget: Seat,
    pub task: Seat,
    pub measurement: Seat,
    pub programme: String,
    pub plan: String,
    pub envelope: String,
    /// When the test began, to the second.
    pub start: DateTime<Utc>,
}

pub fn yuan(units: i64) -> Money {
    Money { currency_code: "CNY".into(), units, nanos: 0 }
}

/// Minor units of an amount.
pub fn fen(money: Option<&Money>) -> i64 {
    let money = money.expect("an amount is there");
    assert_eq!(money.currency_code, "CNY");
    money.units * 100 + i64::from(money.nanos / 10_000_000)
}

pub fn at(time: DateTime<Utc>) -> Option<prost_types::Timestamp> {
    Some(koc_chassis::clock::to_proto(time))
}

/// By the machine's clock, which the services' databases read as well; whole seconds survive every way they go.
fn now() -> DateTime<Utc> {
    let seconds = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970").as_secs();
    DateTime::from_timestamp(i64::try_from(seconds).expect("in range"), 0).expect("in range")
}

fn registry_url(at: SocketAddr) -> RegistryPeer {
    RegistryPeer { registry_url: format!("http://{at}") }
}

fn budget_url(at: SocketAddr) -> BudgetPeer {
    BudgetPeer { budget_url: format!("http://{at}") }
}

async fn run_registry(at: SocketAddr, database: ServiceDatabase) -> Running {
    let serve = |common: ServeConfig, stop| {
        let erasure = koc_registry::config::ErasureConfig {
            suppression_keys_file: Some(koc_tests::token::suppression_keys_file().to_owned()),
            ..Default::default()
        };
        koc_registry::serve(koc_registry::Config { erasure, ..koc_registry::Config::from(common) }, Metrics::new(), stop)
    };
    service::start_on(at, database, serve).await
}

async fn run_budget(at: SocketAddr, database: ServiceDatabase, registry: SocketAddr) -> Running {
    service::start_on(at, database, |common, stop| {
        let config = koc_budget::config::Config { common, registry: registry_url(registry) };
        koc_budget::serve(config, Metrics::new(), stop)
    })
    .await
}

async fn run_task(at: SocketAddr, database: ServiceDatabase, registry: SocketAddr, budget: SocketAddr) -> Running {
    service::start_on(at, database, |common, stop| {
        let config = koc_task::config::Config { common, registry: registry_url(registry), budget: budget_url(budget) };
        koc_task::serve(config, Metrics::new(), stop)
    })
    .await
}

async fn run_measurement(at: SocketAddr, database: ServiceDatabase, peers: [SocketAddr; 3]) -> Running {
    let [registry, budget, task] = peers;
    service::start_on(at, database, |common, stop| {
        let task = TaskPeer { task_url: format!("http://{task}") };
        let config = koc_measurement::Config { common, registry: registry_url(registry), budget: budget_url(budget), task };
        koc_measurement::serve(config, Metrics::new(), stop)
    })
    .await
}

impl World {
    /// Four services, a programme in CNY that measurement knows, and an active plan with a reserve.
    pub async fn new() -> Self {
        let [r, b, t, m] = std::array::from_fn(|_| service::free_address());
        let (registry, budget, task, measurement) = tokio::join!(
            async { run_registry(r, service::database(&koc_registry::SCHEMA).await).await },
            async { run_budget(b, service::database(&koc_budget::SCHEMA).await, r).await },
            async { run_task(t, service::database(&koc_task::SCHEMA).await, r, b).await },
            async { run_measurement(m, service::database(&koc_measurement::SCHEMA).await, [r, b, t]).await },
        );
        let mut world = Self {
            registry: Seat::new(registry),
            budget: Seat::new(budget),
            task: Seat::new(task),
            measurement: Seat::new(measurement),
            programme: id(),
            plan: String::new(),
            envelope: String::new(),
            start: now(),
        };
        world.create_programme(&world.programme).await;
        world.create_plan().await;
        wait::until("the programme to be known", PATIENCE, async || {
            let known = world.count("SELECT count(*) FROM programme").await;
            (known == 1).then_some(())
        })
        .await;
        world
    }

    pub async fn start_registry(&mut self) {
        let (at, database) = self.registry.leave();
        self.registry = Seat::new(run_registry(at, database).await);
    }

    pub async fn start_budget(&mut self) {
        let (at, database) = self.budget.leave();
        self.budget = Seat::new(run_budget(at, database, self.registry.at).await);
    }

    pub async fn start_measurement(&mut self) {
        let (at, database) = self.measurement.leave();
        let peers = [self.registry.at, self.budget.at, self.task.at];
        self.measurement = Seat::new(run_measurement(at, database, peers).await);
    }

    pub async fn create_programme(&self, programme_id: &str) {
        let request = registry::CreateProgrammeRequest {
            programme_id: programme_id.to_owned(),
            request_id: id(),
            display_name: "Owners' circle".into(),
            currency_code: "CNY".into(),
            time_zone: "Asia/Shanghai".into(),
        };
        let mut client = registry::programme_service_client::ProgrammeServiceClient::new(self.registry.channel());
        client.create_programme(request).await.expect("a programme");
    }

    /// An active plan with an envelope for work and a reserve.
    pub async fn create_plan(&mut self) {
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
            period_start_time: at(self.ago_days(300)),
            period_end_time: at(self.start + TimeDelta::days(300)),
            envelopes: vec![
                envelope(budget::ResourceClass::Incentive, INCENTIVE_UNITS),
                envelope(budget::ResourceClass::StrategicReserve, RESERVE_UNITS),
            ],
            automatic_draw_limit: Some(yuan(AUTOMATIC_UNITS)),
            policy: None,
        };
        let plans = |actor| Plans::new(self.budget.channel_of(actor));
        let plan = plans("planner").create_plan(request).await.expect("a plan").into_inner().plan.unwrap_or_default();
        let (programme_id, plan_id, etag) = (self.programme.clone(), plan.plan_id.clone(), String::new());
        let request = budget::SubmitPlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: etag.clone(),
        };
        plans("planner").submit_plan(request).await.expect("submitted");
        let request = budget::ApprovePlanRequest {
            programme_id: programme_id.clone(),
            request_id: id(),
            plan_id: plan_id.clone(),
            etag: etag.clone(),
        };
        plans("controller").approve_plan(request).await.expect("approved");
        let request = budget::ActivatePlanRequest { programme_id, request_id: id(), plan_id, etag };
        plans("planner").activate_plan(request).await.expect("active");
        let incentive = i32::from(budget::ResourceClass::Incentive);
        let envelope = plan.envelopes.iter().find(|e| e.resource_class == incentive).expect("the envelope asked for");
        (self.envelope, self.plan) = (envelope.envelope_id.clone(), plan.plan_id);
    }

    pub fn ago_days(&self, days: i64) -> DateTime<Utc> {
        self.start - TimeDelta::days(days)
    }

    pub fn outputs(&self) -> Outputs {
        Outputs::new(self.measurement.channel())
    }

    pub fn observations(&self) -> Observations {
        Observations::new(self.measurement.channel())
    }

    pub fn values(&self) -> Values {
        Values::new(self.measurement.channel())
    }

    pub fn signals(&self) -> Signals {
        Signals::new(self.measurement.channel())
    }

    pub fn decisions(&self, actor: &str) -> Decisions {
        Decisions::new(self.measurement.channel_of(actor))
    }

    pub fn draws(&self, actor: &str) -> Draws {
        Draws::new(self.budget.channel_of(actor))
    }

    pub async fn member(&self) -> String {
        let request = registry::CreateMemberRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            profile: Some(registry::MemberProfile { region_code: "CN-GD".into(), ..Default::default() }),
            external_identities: Vec::new(),
        };
        let mut client = registry::member_service_client::MemberServiceClient::new(self.registry.channel());
        client.create_member(request).await.expect("a member").into_inner().member.unwrap_or_default().member_id
    }

    /// An assignment as the task service tells that it is settled: an article of this cost, published so many days ago.
    pub fn settled(&self, member: &str, days_ago: i64, cost: Money) -> task::AssignmentSettled {
        task::AssignmentSettled {
            assignment_id: id(),
            task_id: id(),
            member_id: member.to_owned(),
            tier_id: "BASE".into(),
            brief_id: id(),
            brief_revision: 1,
            reservation_id: id(),
            earned: Some(cost.clone()),
            deliverables: vec![task::AcceptedDeliverable {
                deliverable_key: "article".into(),
                kind: task::DeliverableKind::Article.into(),
                cost: Some(cost),
                platform: "XIAOHONGSHU".into(),
                publish_time: at(self.ago_days(days_ago)),
            }],
            output_targets: Vec::new(),
        }
    }

    /// Publishes facts in the feed of a neighbour, each about its subject.
    pub async fn tell<F: Rules + prost::Message>(&self, from: &Seat, facts: &[(&str, F)]) {
        let programme = ProgrammeId(uuid(&self.programme));
        let facts: Vec<NewFact> = facts.iter().map(|(subject, fact)| NewFact::new(programme, uuid(subject), fact)).collect();
        let mut conn = from.database.admin.acquire().await.expect("a connection");
        outbox::append(&mut conn, &facts).await.expect("appended");
    }

    /// Has the task service tell of settled assignments of one deliverable each; the ids of their outputs, in order.
    pub async fn settle(&self, all: &[task::AssignmentSettled]) -> Vec<String> {
        let facts: Vec<_> = all.iter().map(|one| (one.assignment_id.as_str(), one.clone())).collect();
        self.tell(&self.task, &facts).await;
        wait::until("the outputs to appear", PATIENCE, async || {
            let known: HashMap<String, String> =
                self.all_outputs().await.into_iter().map(|output| (output.assignment_id, output.output_id)).collect();
            all.iter().map(|one| known.get(&one.assignment_id).cloned()).collect::<Option<Vec<_>>>()
        })
        .await
    }

    /// An output of a new member, published so many days ago.
    pub async fn output(&self, days_ago: i64, cost: Money) -> String {
        let settled = self.settled(&self.member().await, days_ago, cost);
        self.settle(&[settled]).await.remove(0)
    }

    pub async fn all_outputs(&self) -> Vec<pb::Output> {
        let request = pb::ListOutputsRequest { programme_id: self.programme.clone(), page_size: 1_000, ..Default::default() };
        self.outputs().list_outputs(request).await.expect("a page").into_inner().outputs
    }

    pub async fn get_output(&self, output_id: &str) -> Result<pb::Output, Status> {
        let request = pb::GetOutputRequest { programme_id: self.programme.clone(), output_id: output_id.to_owned() };
        Ok(self.outputs().get_output(request).await?.into_inner().output.unwrap_or_default())
    }

    /// What an output cost, in minor units.
    pub async fn cost(&self, output_id: &str) -> i64 {
        let output = self.get_output(output_id).await.expect("the output is there");
        fen(output.cost.unwrap_or_default().marginal.as_ref())
    }

    /// Takes readings in one batch.
    pub async fn record(&self, observations: Vec<pb::Observation>) -> Vec<pb::ObservationResult> {
        let request = pb::BatchRecordObservationsRequest { programme_id: self.programme.clone(), observations };
        self.observations().batch_record_observations(request).await.expect("taken").into_inner().results
    }

    pub async fn output_value(&self, output_id: &str, as_of: Option<DateTime<Utc>>) -> Result<pb::OutputValue, Status> {
        let request = pb::GetOutputValueRequest {
            programme_id: self.programme.clone(),
            output_id: output_id.to_owned(),
            as_of: as_of.and_then(at),
        };
        Ok(self.values().get_output_value(request).await?.into_inner().output_value.unwrap_or_default())
    }

    /// A new version of the decision policy, as `change` makes it of the first one.
    pub async fn policy(&self, change: impl FnOnce(&mut pb::DecisionPolicy)) -> pb::DecisionPolicy {
        let mut policy = first_policy();
        change(&mut policy);
        let request = pb::CreateDecisionPolicyRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            policy: Some(policy),
            reason: "as the test needs it".into(),
        };
        let created = self.decisions("analyst").create_decision_policy(request).await.expect("a policy");
        created.into_inner().policy.unwrap_or_default()
    }

    pub async fn all_signals(&self) -> Vec<pb::Signal> {
        let request = pb::ListSignalsRequest { programme_id: self.programme.clone(), page_size: 1_000, ..Default::default() };
        self.signals().list_signals(request).await.expect("a page").into_inner().signals
    }

    /// All of the measurement service's changes, in order.
    pub async fn changes(&self) -> Vec<Change> {
        let mut client = pb::feed_service_client::FeedServiceClient::new(self.measurement.channel());
        let request = pb::ListChangesRequest { programme_id: self.programme.clone(), after_position: 0, page_size: 1_000 };
        client.list_changes(request).await.expect("a page").into_inner().changes
    }

    /// The answer of a count in the measurement service's schema.
    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.measurement.database.admin).await.expect("a count")
    }
}

/// Version 1 of every programme's decision policy.
pub fn first_policy() -> pb::DecisionPolicy {
    use pb::DecisionAction::{Increase, Maintain, Review};
    pb::DecisionPolicy {
        version: 0,
        target_roi: 0.0,
        floor_roi: -0.3,
        min_outputs: 5,
        min_spend: None,
        increase_probability: 0.8,
        reduce_probability: 0.2,
        automatic_actions: [Increase, Maintain, Review].map(Into::into).into(),
        max_draw_per_output: None,
    }
}

pub fn uuid(text: &str) -> Uuid {
    text.parse().expect("an id")
}

/// An organic reading.
pub fn reading(output_id: &str, metric: pb::Metric, value: i64, time: DateTime<Utc>) -> pb::Observation {
    pb::Observation { output_id: output_id.to_owned(), metric: metric.into(), value, observe_time: at(time), paid: false }
}

pub fn outcomes(results: &[pb::ObservationResult]) -> Vec<Outcome> {
    results.iter().map(pb::ObservationResult::outcome).collect()
}
