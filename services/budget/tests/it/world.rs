//! A programme with an active plan, and short ways to do what every test does. Amounts are in fen.

use koc_chassis::{config::RegistryPeer, telemetry::Metrics};
use koc_proto::{
    google::r#type::Money,
    koc::{budget::v1 as pb, feed::v1::Change, registry::v1 as registry},
    rules::Rules,
};
use koc_tests::{
    service::{self, Running, ServiceDatabase, TestChannel},
    wait,
};
use std::{net::SocketAddr, sync::OnceLock, time::Duration};
use tonic::{Code, Response, Status};

pub use koc_tests::answer::{fact, id, refused, violations};

pub type Reservations = pb::reservation_service_client::ReservationServiceClient<TestChannel>;
pub type Plans = pb::plan_service_client::PlanServiceClient<TestChannel>;

/// How long something may take that happens by itself.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What the envelope of [`World::new`] holds.
pub const ENVELOPE: i64 = 900_000;
/// What the strategic reserve of [`World::new`] holds.
pub const RESERVE: i64 = 100_000;
/// A draw of at most so much is approved without a person.
pub const DRAW_LIMIT: i64 = 30_000;

pub struct World {
    pub budget: Running,
    pub programme: String,
    pub plan: String,
    pub envelope: String,
    pub reserve: String,
    reservations: Reservations,
    registry: Running,
}

pub fn fen(minor: i64) -> Money {
    let nanos = i32::try_from(minor % 100 * 10_000_000).expect("below a yuan");
    Money { currency_code: "CNY".into(), units: minor / 100, nanos }
}

/// An amount in fen.
#[track_caller]
pub fn minor(money: Option<&Money>) -> i64 {
    let money = money.expect("an amount");
    assert_eq!(money.currency_code, "CNY");
    money.units * 100 + i64::from(money.nanos) / 10_000_000
}

/// Some days from the test's start, by the machine's clock: the same time whenever it is asked for.
pub fn in_days(days: i64) -> prost_types::Timestamp {
    static START: OnceLock<i64> = OnceLock::new();
    let start = START.get_or_init(|| {
        let epoch = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
        i64::try_from(epoch.as_secs()).expect("a time of this era")
    });
    prost_types::Timestamp { seconds: start + days * 24 * 60 * 60, nanos: 0 }
}

pub async fn start_budget(address: SocketAddr, database: ServiceDatabase, registry_url: String) -> Running {
    service::start_on(address, database, |common, stop| {
        let registry = RegistryPeer { registry_url };
        koc_budget::serve(koc_budget::config::Config { common, registry }, Metrics::new(), stop)
    })
    .await
}

pub fn new_envelope(class: pb::ResourceClass, name: &str, allocated: i64) -> pb::NewEnvelope {
    let allocated = Some(fen(allocated));
    pb::NewEnvelope { resource_class: class.into(), display_name: name.into(), allocated, ..Default::default() }
}

impl World {
    /// A registry with a programme in CNY, a budget, and an active plan from yesterday on with an envelope and a reserve.
    pub async fn new() -> Self {
        let registry = service::start(&koc_registry::SCHEMA, |common, stop| {
            let erasure = koc_registry::config::ErasureConfig {
                suppression_keys_file: Some(koc_tests::token::suppression_keys_file().to_owned()),
                ..Default::default()
            };
            koc_registry::serve(koc_registry::Config { erasure, ..koc_registry::Config::from(common) }, Metrics::new(), stop)
        });
        let (registry, database) = tokio::join!(registry, service::database(&koc_budget::SCHEMA));
        let budget = start_budget(service::free_address(), database, registry.url.clone()).await;
        let reservations = Reservations::new(budget.channel());
        let [programme, plan, envelope, reserve] = Default::default();
        let mut world = Self { budget, programme, plan, envelope, reserve, reservations, registry };
        world.renew().await;
        world
    }

    /// Goes on with a new programme and its plan.
    pub async fn renew(&mut self) {
        self.programme = self.create_programme("CNY").await;
        let plan = self.create_plan(self.plan_request()).await.expect("a plan");
        self.activate(&plan.plan_id).await;
        [self.envelope, self.reserve] = [0, 1].map(|index: usize| plan.envelopes[index].envelope_id.clone());
        self.plan = plan.plan_id;
    }

    pub async fn create_plan(&self, request: pb::CreatePlanRequest) -> Result<pb::Plan, Status> {
        Ok(self.plans("planner").create_plan(request).await?.into_inner().plan.unwrap_or_default())
    }

    /// Ends the service as a signal would, and starts it again at its address, on its database.
    pub async fn restart(self) -> Self {
        let Self { budget, registry, .. } = self;
        let address = budget.address;
        let budget = start_budget(address, budget.stop().await, registry.url.clone()).await;
        Self { budget, registry, ..self }
    }

    /// As [`Self::restart`]; from then on the registry cannot be reached.
    pub async fn cut_off(self) -> Self {
        let Self { budget, registry, .. } = self;
        let address = budget.address;
        let nowhere = format!("http://{}", service::free_address());
        let budget = start_budget(address, budget.stop().await, nowhere).await;
        Self { budget, registry, ..self }
    }

    /// The way to the registry.
    pub fn registry(&self) -> TestChannel {
        self.registry.channel()
    }

    /// Another programme at the registry.
    pub async fn create_programme(&self, currency: &str) -> String {
        let programme = id();
        let request = registry::CreateProgrammeRequest {
            programme_id: programme.clone(),
            request_id: id(),
            display_name: "Owners' circle".into(),
            currency_code: currency.into(),
            time_zone: "Asia/Shanghai".into(),
        };
        let mut client = registry::programme_service_client::ProgrammeServiceClient::new(self.registry.channel());
        client.create_programme(request).await.expect("a programme");
        programme
    }

    pub fn plan_request(&self) -> pb::CreatePlanRequest {
        pb::CreatePlanRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            display_name: "this year".into(),
            period_start_time: Some(in_days(-1)),
            period_end_time: Some(in_days(1_000)),
            envelopes: vec![
                new_envelope(pb::ResourceClass::Incentive, "core", ENVELOPE),
                new_envelope(pb::ResourceClass::StrategicReserve, "reserve", RESERVE),
            ],
            automatic_draw_limit: Some(fen(DRAW_LIMIT)),
            policy: None,
        }
    }

    /// An active plan of one envelope that holds so much.
    pub async fn envelope_of(&self, allocated: i64) -> String {
        self.envelope_with(allocated, 0).await
    }

    /// As [`Self::envelope_of`], that may overrun by so much.
    pub async fn envelope_with(&self, allocated: i64, overrun: i64) -> String {
        let all = new_envelope(pb::ResourceClass::Inclusive, "all", allocated);
        let envelopes = vec![pb::NewEnvelope { overrun_limit: Some(fen(overrun)), ..all }];
        let request = pb::CreatePlanRequest { envelopes, automatic_draw_limit: None, ..self.plan_request() };
        let plan = self.create_plan(request).await.expect("a plan");
        self.activate(&plan.plan_id).await;
        plan.envelopes[0].envelope_id.clone()
    }

    /// Takes a drafted plan to ACTIVE.
    pub async fn activate(&self, plan_id: &str) {
        self.submit_plan("planner", plan_id, "").await.expect("submitted");
        self.approve_plan("controller", plan_id, "").await.expect("approved");
        self.activate_plan("planner", plan_id, "").await.expect("active");
    }

    pub async fn submit_plan(&self, actor: &str, plan_id: &str, etag: &str) -> Result<pb::Plan, Status> {
        let (programme_id, plan_id, etag) = (self.programme.clone(), plan_id.to_owned(), etag.to_owned());
        let request = pb::SubmitPlanRequest { programme_id, request_id: id(), plan_id, etag };
        Ok(self.plans(actor).submit_plan(request).await?.into_inner().plan.unwrap_or_default())
    }

    pub async fn approve_plan(&self, actor: &str, plan_id: &str, etag: &str) -> Result<pb::Plan, Status> {
        let (programme_id, plan_id, etag) = (self.programme.clone(), plan_id.to_owned(), etag.to_owned());
        let request = pb::ApprovePlanRequest { programme_id, request_id: id(), plan_id, etag };
        Ok(self.plans(actor).approve_plan(request).await?.into_inner().plan.unwrap_or_default())
    }

    pub async fn activate_plan(&self, actor: &str, plan_id: &str, etag: &str) -> Result<pb::Plan, Status> {
        let (programme_id, plan_id, etag) = (self.programme.clone(), plan_id.to_owned(), etag.to_owned());
        let request = pb::ActivatePlanRequest { programme_id, request_id: id(), plan_id, etag };
        Ok(self.plans(actor).activate_plan(request).await?.into_inner().plan.unwrap_or_default())
    }

    /// For a period that holds those of all plans here.
    pub fn limit_request(&self, member_id: &str, limit: i64) -> pb::SetMemberLimitRequest {
        pb::SetMemberLimitRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            member_id: member_id.to_owned(),
            period_start_time: Some(in_days(-2)),
            period_end_time: Some(in_days(2_000)),
            limit: Some(fen(limit)),
            decision_id: String::new(),
            reason: "what the last period returned".into(),
        }
    }

    pub async fn set_limit(&self, request: pb::SetMemberLimitRequest) -> Result<pb::MemberLimit, Status> {
        let mut client = pb::member_limit_service_client::MemberLimitServiceClient::new(self.budget.channel());
        Ok(client.set_member_limit(request).await?.into_inner().member_limit.unwrap_or_default())
    }

    pub fn plans(&self, actor: &str) -> Plans {
        Plans::new(self.budget.channel_of(actor))
    }

    pub fn reservations(&self) -> Reservations {
        self.reservations.clone()
    }

    /// For 15 minutes and for no member.
    pub fn reserve_request(&self, amount: i64) -> pb::ReserveRequest {
        pb::ReserveRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            envelope_id: self.envelope.clone(),
            member_id: String::new(),
            purpose: "assignment/1".into(),
            amount: Some(fen(amount)),
            time_to_live: None,
            validate_only: false,
        }
    }

    pub async fn reserve(&self, amount: i64) -> Result<pb::Reservation, Status> {
        self.reserve_with(self.reserve_request(amount)).await
    }

    pub async fn reserve_with(&self, request: pb::ReserveRequest) -> Result<pb::Reservation, Status> {
        Ok(self.reservations().reserve(request).await?.into_inner().reservation.unwrap_or_default())
    }

    pub fn commit_request(&self, reservation_id: &str, amount: Option<i64>) -> pb::CommitRequest {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        pb::CommitRequest {
            programme_id,
            request_id: id(),
            reservation_id,
            amount: amount.map(fen),
            release_rest: false,
            ..Default::default()
        }
    }

    pub fn spend_request(&self, reservation_id: &str, amount: Option<i64>) -> pb::SpendRequest {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        let payment_reference = "invoice-7".into();
        pb::SpendRequest {
            programme_id,
            request_id: id(),
            reservation_id,
            amount: amount.map(fen),
            payment_reference,
            ..Default::default()
        }
    }

    pub fn release_request(&self, reservation_id: &str, amount: Option<i64>) -> pb::ReleaseRequest {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        pb::ReleaseRequest { programme_id, request_id: id(), reservation_id, amount: amount.map(fen), ..Default::default() }
    }

    pub fn extend_request(&self, reservation_id: &str, time_to_live: Duration) -> pb::ExtendRequest {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        let time_to_live = prost_types::Duration::try_from(time_to_live).ok();
        pb::ExtendRequest { programme_id, request_id: id(), reservation_id, time_to_live, ..Default::default() }
    }

    /// Of all that the entry moved.
    pub fn reverse_request(&self, entry: &pb::LedgerEntry) -> pb::ReverseRequest {
        pb::ReverseRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            reservation_id: entry.reservation_id.clone(),
            entry_id: entry.entry_id.clone(),
            reason: pb::ReversalReason::WrongAmount.into(),
            ..Default::default()
        }
    }

    pub async fn commit(&self, reservation_id: &str, amount: Option<i64>) -> Result<pb::Reservation, Status> {
        let request = self.commit_request(reservation_id, amount);
        Ok(self.reservations().commit(request).await?.into_inner().reservation.unwrap_or_default())
    }

    pub async fn spend(&self, reservation_id: &str, amount: Option<i64>) -> Result<pb::Reservation, Status> {
        let request = self.spend_request(reservation_id, amount);
        Ok(self.reservations().spend(request).await?.into_inner().reservation.unwrap_or_default())
    }

    pub async fn release(&self, reservation_id: &str, amount: Option<i64>) -> Result<pb::Reservation, Status> {
        let request = self.release_request(reservation_id, amount);
        Ok(self.reservations().release(request).await?.into_inner().reservation.unwrap_or_default())
    }

    pub async fn extend(&self, reservation_id: &str, time_to_live: Duration) -> Result<pb::Reservation, Status> {
        let request = self.extend_request(reservation_id, time_to_live);
        Ok(self.reservations().extend(request).await?.into_inner().reservation.unwrap_or_default())
    }

    pub async fn reverse_with(&self, request: pb::ReverseRequest) -> Result<pb::Reservation, Status> {
        Ok(self.reservations().reverse(request).await?.into_inner().reservation.unwrap_or_default())
    }

    pub async fn get(&self, reservation_id: &str) -> Result<pb::Reservation, Status> {
        let (programme_id, reservation_id) = (self.programme.clone(), reservation_id.to_owned());
        let request = pb::GetReservationRequest { programme_id, reservation_id };
        Ok(self.reservations().get_reservation(request).await?.into_inner().reservation.unwrap_or_default())
    }

    pub fn summary_request(&self, plan_id: &str) -> pb::GetPlanSummaryRequest {
        let (programme_id, plan_id) = (self.programme.clone(), plan_id.to_owned());
        pb::GetPlanSummaryRequest { programme_id, plan_id, as_of_time: None }
    }

    pub async fn summary(&self) -> pb::GetPlanSummaryResponse {
        let request = self.summary_request(&self.plan);
        self.plans("planner").get_plan_summary(request).await.expect("a summary").into_inner()
    }

    /// The plan's envelope: reserved, committed, spent, available.
    pub async fn balances(&self) -> [i64; 4] {
        let summary = self.summary().await;
        let found = summary.envelopes.iter().find(|e| e.envelope_id == self.envelope).expect("the envelope is there");
        let balances = found.balances.as_ref().expect("it has balances");
        assert_eq!(minor(balances.allocated.as_ref()), ENVELOPE);
        standing(balances)
    }

    /// What any envelope has available, by its row.
    pub async fn available(&self, envelope: &str) -> i64 {
        let sql = "SELECT allocated - reserved - committed - spent FROM envelope WHERE envelope_id = $1::uuid";
        self.count(sql, envelope).await
    }

    /// A number from the database, asked for with one id.
    pub async fn count(&self, sql: &'static str, id: &str) -> i64 {
        sqlx::query_scalar(sql).bind(id).fetch_one(&self.budget.database.admin).await.expect("a number")
    }

    pub async fn verify(&self) -> pb::VerifyLedgerResponse {
        let mut client = pb::ledger_service_client::LedgerServiceClient::new(self.budget.channel());
        let request = pb::VerifyLedgerRequest { programme_id: self.programme.clone() };
        client.verify_ledger(request).await.expect("verified").into_inner()
    }

    /// Waits until the chain covers the whole ledger, which must add up; says how many entries it has.
    pub async fn verified(&self) -> i64 {
        wait::until("the chain to cover all", PATIENCE, async || {
            let found = self.verify().await;
            assert_eq!((found.valid, found.finding.as_str()), (true, ""));
            (found.chained_count == found.entry_count).then_some(found.entry_count)
        })
        .await
    }

    /// The entries of an envelope, in its order: kind and amount.
    pub async fn entries(&self, envelope: &str) -> Vec<pb::LedgerEntry> {
        let mut client = pb::ledger_service_client::LedgerServiceClient::new(self.budget.channel());
        let request = pb::ListLedgerEntriesRequest {
            programme_id: self.programme.clone(),
            envelope_id: envelope.to_owned(),
            page_size: 1_000,
            page_token: String::new(),
            reservation_id: String::new(),
        };
        client.list_ledger_entries(request).await.expect("a page").into_inner().entries
    }

    /// The latest entry of a kind of a reservation.
    pub async fn entry_of(&self, reservation_id: &str, kind: pb::LedgerEntryKind) -> pb::LedgerEntry {
        self.entries_of(reservation_id).await.into_iter().rfind(|entry| entry.kind() == kind).expect("an entry of the kind")
    }

    /// The entries of a reservation, in order.
    pub async fn entries_of(&self, reservation_id: &str) -> Vec<pb::LedgerEntry> {
        let mut client = pb::ledger_service_client::LedgerServiceClient::new(self.budget.channel());
        let request = pb::ListLedgerEntriesRequest {
            programme_id: self.programme.clone(),
            envelope_id: self.get(reservation_id).await.expect("there").envelope_id,
            page_size: 1_000,
            page_token: String::new(),
            reservation_id: reservation_id.to_owned(),
        };
        let entries = client.list_ledger_entries(request).await.expect("a page").into_inner().entries;
        assert!(entries.iter().all(|entry| entry.reservation_id == reservation_id), "only those of the reservation");
        entries
    }

    /// The entry that comes after one in the chain.
    pub async fn entry_after(&self, entry_id: &str) -> String {
        let sql = "SELECT n.entry_id::text FROM ledger_chain AS c
                   JOIN ledger_chain AS n ON n.programme_id = c.programme_id AND n.position = c.position + 1
                   WHERE c.entry_id = $1::uuid";
        sqlx::query_scalar(sql).bind(entry_id).fetch_one(&self.budget.database.admin).await.expect("a next one")
    }

    /// All changes of the programme, in order.
    pub async fn changes(&self) -> Vec<Change> {
        let mut client = pb::feed_service_client::FeedServiceClient::new(self.budget.channel());
        let request = pb::ListChangesRequest { programme_id: self.programme.clone(), after_position: 0, page_size: 1_000 };
        client.list_changes(request).await.expect("a page").into_inner().changes
    }

    /// The facts of one type about a subject, in order.
    pub async fn facts_of<F: Rules + prost::Message + Default>(&self, subject: &str) -> Vec<F> {
        self.changes().await.iter().filter(|change| change.subject_id == subject).filter_map(fact).collect()
    }

    /// Moves the clock by so much and waits until nothing that is held is overdue.
    pub async fn pass(&self, by: Duration) {
        self.budget.advance(by).await;
        wait::until("overdue holds to expire", PATIENCE, async || {
            let due: i64 = sqlx::query_scalar("SELECT count(*) FROM reservation WHERE reserved > 0 AND expire_time <= koc_now()")
                .fetch_one(&self.budget.database.admin)
                .await
                .expect("a number");
            (due == 0).then_some(())
        })
        .await;
    }
}

/// reserved, committed, spent, available; they must give what is allocated.
#[track_caller]
pub fn standing(balances: &pb::Balances) -> [i64; 4] {
    let parts = [&balances.reserved, &balances.committed, &balances.spent, &balances.available].map(|m| minor(m.as_ref()));
    assert_eq!(parts.iter().sum::<i64>(), minor(balances.allocated.as_ref()), "{balances:?}");
    parts
}

/// reserved, committed, spent, released; they must give the amount.
#[track_caller]
pub fn parts(reservation: &pb::Reservation) -> [i64; 4] {
    let pb::Reservation { reserved, committed, spent, released, amount, .. } = reservation;
    let parts = [reserved, committed, spent, released].map(|m| minor(m.as_ref()));
    assert_eq!(parts.iter().sum::<i64>(), minor(amount.as_ref()), "{reservation:?}");
    parts
}

/// Whether an answer says that it was given before.
pub fn replayed<T>(response: &Response<T>) -> bool {
    response.metadata().get("koc-replayed").is_some_and(|value| value == "true")
}

/// Checks a refusal for money: what was short, and by how much in fen.
#[track_caller]
pub fn short<T>(answer: Result<T, Status>, reason: &str, limit_id: &str, asked: Option<i64>, available: i64) {
    let figures = refused(answer, Code::FailedPrecondition, reason);
    let asked = asked.map(|asked| asked.to_string());
    assert_eq!(
        (figures["limit_id"].as_str(), figures.get("asked_minor"), figures["available_minor"].as_str()),
        (limit_id, asked.as_ref(), available.to_string().as_str())
    );
    assert_eq!(figures["currency"], "CNY");
}
