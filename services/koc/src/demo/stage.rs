//! What the demo plays on: the clients, the ids of its requests, and what it tells.

use super::sample::Sample;
use crate::client;
use koc_chassis::{
    clock,
    money::{Currency, Money},
    peer::{PeerChannel, Token},
};
use koc_proto::{
    google::r#type::Money as Wire,
    koc::{budget::v1 as budget, feed::v1::Change, measurement::v1 as measurement, registry::v1 as registry, task::v1 as task},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Who acts in the demo, by their part.
pub const ADMIN: &str = "programme-admin";
pub const PLANNER: &str = "planner";
pub const FINANCE: &str = "finance";
pub const EDITOR: &str = "editor";
pub const MEMBER: &str = "community-app";
pub const ANALYST: &str = "analyst";
pub const HEAD: &str = "programme-head";

/// Calls a method with patience; see [`client::patiently`].
macro_rules! call {
    ($actor:expr, $client:expr, $method:ident, $request:expr) => {{
        let (client, request) = ($client, $request);
        $crate::client::patiently($actor, || {
            let (mut client, request) = (client.clone(), request.clone());
            async move { client.$method(request).await }
        })
        .await
    }};
}
/// As `call!`, where a refusal ends the demo.
macro_rules! must {
    ($actor:expr, $client:expr, $method:ident, $request:expr) => {
        $crate::demo::stage::call!($actor, $client, $method, $request)
            .map_err(|status| anyhow::anyhow!("{} was refused: {}", stringify!($method), $crate::client::describe(&status)))
    };
}
pub(super) use {call, must};

pub struct Stage {
    pub sample: Sample,
    pub programme: Uuid,
    pub currency: Currency,
    registry: PeerChannel,
    budget: PeerChannel,
    task: PeerChannel,
    measurement: PeerChannel,
    telling: bool,
}

macro_rules! clients {
    ($($name:ident: $channel:ident $module:ident :: $client_module:ident :: $client:ident),+ $(,)?) => {
        impl Stage {
            $(pub fn $name(&self) -> $module::$client_module::$client<PeerChannel> {
                $module::$client_module::$client::new(self.$channel.clone())
            })+
        }
    };
}

clients! {
    programmes: registry registry::programme_service_client::ProgrammeServiceClient,
    members: registry registry::member_service_client::MemberServiceClient,
    tiers: registry registry::tier_service_client::TierServiceClient,
    registry_feed: registry registry::feed_service_client::FeedServiceClient,
    plans: budget budget::plan_service_client::PlanServiceClient,
    limits: budget budget::member_limit_service_client::MemberLimitServiceClient,
    reservations: budget budget::reservation_service_client::ReservationServiceClient,
    ledger: budget budget::ledger_service_client::LedgerServiceClient,
    draws: budget budget::reserve_draw_service_client::ReserveDrawServiceClient,
    budget_feed: budget budget::feed_service_client::FeedServiceClient,
    briefs: task task::brief_service_client::BriefServiceClient,
    tasks: task task::task_service_client::TaskServiceClient,
    assignments: task task::assignment_service_client::AssignmentServiceClient,
    task_feed: task task::feed_service_client::FeedServiceClient,
    outputs: measurement measurement::output_service_client::OutputServiceClient,
    observations: measurement measurement::observation_service_client::ObservationServiceClient,
    values: measurement measurement::value_service_client::ValueServiceClient,
    signals: measurement measurement::signal_service_client::SignalServiceClient,
    decisions: measurement measurement::decision_service_client::DecisionServiceClient,
    measurement_feed: measurement measurement::feed_service_client::FeedServiceClient,
}

impl Stage {
    /// `urls` in the order registry, budget, task, measurement.
    pub fn open(sample: Sample, programme: Uuid, urls: [&String; 4], token: &Token, telling: bool) -> anyhow::Result<Self> {
        let [registry, budget, task, measurement] = urls.map(|url| client::channel(url, token));
        let currency = Currency::from_code(&sample.programme.currency);
        let currency = currency.ok_or_else(|| anyhow::anyhow!("the sample's currency is not known"))?;
        Ok(Self {
            sample,
            programme,
            currency,
            registry: registry?,
            budget: budget?,
            task: task?,
            measurement: measurement?,
            telling,
        })
    }

    pub fn registry_channel(&self) -> PeerChannel {
        self.registry.clone()
    }

    pub fn programme_id(&self) -> String {
        self.programme.to_string()
    }

    /// The id of the request that this step sends, the same at each run.
    pub fn request_id(&self, step: &str) -> String {
        Uuid::new_v5(&self.programme, step.as_bytes()).to_string()
    }

    /// An amount of the sample, `1234.50`, as it goes over the wire.
    pub fn amount(&self, text: &str) -> anyhow::Result<Wire> {
        let (units, cents) = text.split_once('.').unwrap_or((text, "0"));
        let nanos: i32 = format!("{cents:0<9}").parse()?;
        let wire = Wire { currency_code: self.currency.code().to_owned(), units: units.parse()?, nanos };
        Money::parse("amount", &wire, self.currency).map_err(|v| anyhow::anyhow!("{text}: {}", v.description))?;
        Ok(wire)
    }

    /// An amount in words.
    pub fn money(&self, wire: Option<&Wire>) -> String {
        match wire.map(|w| Money::parse("amount", w, self.currency)) {
            Some(Ok(money)) => money.to_string(),
            Some(Err(_)) => "an amount of another currency".to_owned(),
            None => "none".to_owned(),
        }
    }

    pub fn say(&self, text: &str) {
        if self.telling {
            tell(text);
        }
    }

    pub fn title(&self, text: &str) {
        self.say(&format!("\n{text}"));
    }

    /// When the programme was created: the demo's dates of today are counted from it, so that they stay what they were.
    pub async fn created(&self) -> anyhow::Result<chrono::DateTime<chrono::Utc>> {
        let request = registry::GetProgrammeRequest { programme_id: self.programme_id() };
        let programme = must!(ADMIN, self.programmes(), get_programme, request)?.programme.unwrap_or_default();
        clock::required("create_time", programme.create_time.as_ref()).map_err(|v| anyhow::anyhow!(v.description))
    }
}

#[allow(clippy::print_stdout)]
pub fn tell(text: &str) {
    println!("{text}");
}

/// Facts of each service by trace and name.
type Published = BTreeMap<String, [BTreeMap<String, u32>; 4]>;

/// Tells which services a trace crossed, by the facts they published under it. When a run finds everything done already, it published
/// nothing itself: then that of an earlier run is told, the one that crossed the most services.
pub async fn tell_trace(stage: &Stage, own: &str) -> anyhow::Result<()> {
    let mut published = Published::new();
    macro_rules! read {
        ($index:literal, $module:ident, $client:expr) => {{
            let mut after_position = 0;
            loop {
                let request = $module::ListChangesRequest { programme_id: stage.programme_id(), after_position, page_size: 1000 };
                let page = must!(ANALYST, $client, list_changes, request)?;
                count(&page.changes, $index, &mut published);
                if page.through_position >= page.head_position {
                    break;
                }
                after_position = page.through_position;
            }
        }};
    }
    read!(0, registry, stage.registry_feed());
    read!(1, budget, stage.budget_feed());
    read!(2, task, stage.task_feed());
    read!(3, measurement, stage.measurement_feed());

    let crossed =
        |trace: &&String| published.get(*trace).map_or(0, |by_service| by_service.iter().filter(|f| !f.is_empty()).count());
    let own = own.to_owned();
    let (trace, whose) = match published.keys().max_by_key(crossed) {
        Some(earlier) if crossed(&&own) == 0 => (earlier, " of an earlier run"),
        _ => (&own, ""),
    };
    stage.say(&format!("  Trace {trace}{whose} crossed, by the facts published under it:"));
    let none = Default::default();
    let by_service = published.get(trace).unwrap_or(&none);
    for (service, facts) in ["registry", "budget", "task", "measurement"].into_iter().zip(by_service) {
        let facts: Vec<String> = facts.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let facts = if facts.is_empty() { "nothing".to_owned() } else { facts.join(", ") };
        stage.say(&format!("    {service:<12} {facts}"));
    }
    Ok(())
}

fn count(changes: &[Change], service: usize, published: &mut Published) {
    for change in changes {
        let Some(trace) = change.traceparent.split('-').nth(1) else { continue };
        let name = change.fact.as_ref().map_or("", |f| f.type_url.rsplit('.').next().unwrap_or_default());
        let by_service = published.entry(trace.to_owned()).or_default();
        if let Some(facts) = by_service.get_mut(service) {
            *facts.entry(name.to_owned()).or_default() += 1;
        }
    }
}
