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

/// Tells which services a trace crossed, by the facts they published under it.
pub async fn tell_trace(stage: &Stage, trace: &str) -> anyhow::Result<()> {
    macro_rules! facts_of {
        ($module:ident, $client:expr) => {{
            let mut facts = BTreeMap::<String, u32>::new();
            let mut after_position = 0;
            loop {
                let request = $module::ListChangesRequest { programme_id: stage.programme_id(), after_position, page_size: 1000 };
                let page = must!(ANALYST, $client, list_changes, request)?;
                count(&page.changes, trace, &mut facts);
                if page.through_position >= page.head_position {
                    break facts;
                }
                after_position = page.through_position;
            }
        }};
    }
    let crossed = [
        ("registry", facts_of!(registry, stage.registry_feed())),
        ("budget", facts_of!(budget, stage.budget_feed())),
        ("task", facts_of!(task, stage.task_feed())),
        ("measurement", facts_of!(measurement, stage.measurement_feed())),
    ];
    stage.say(&format!("  Trace {trace} crossed, by the facts published under it:"));
    for (service, facts) in crossed {
        let facts: Vec<String> = facts.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let facts = if facts.is_empty() { "nothing".to_owned() } else { facts.join(", ") };
        stage.say(&format!("    {service:<12} {facts}"));
    }
    Ok(())
}

fn count(changes: &[Change], trace: &str, facts: &mut BTreeMap<String, u32>) {
    for change in changes.iter().filter(|c| c.traceparent.split('-').nth(1) == Some(trace)) {
        let name = change.fact.as_ref().map_or("", |f| f.type_url.rsplit('.').next().unwrap_or_default());
        *facts.entry(name.to_owned()).or_default() += 1;
    }
}
