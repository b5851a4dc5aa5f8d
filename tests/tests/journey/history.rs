//! Many clients on one database through several replicas of the budget, while replicas are killed and Postgres restarts: afterwards the
//! ledger must hold each answer that was given, once, and its order must explain it.

mod check;
mod client;
mod ledger;

use client::{Client, Event, Shared};
use koc_chassis::cluster::{self, Authentication, Binaries, Cluster, ClusterOptions, Source};
use koc_proto::koc::{budget::v1 as pb, registry::v1 as registry};
use koc_tests::{
    answer::id,
    process::{Process, migrate},
    service::{channel_to, free_address},
    token,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{
    path::PathBuf,
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{runtime::Runtime, task::JoinSet};
use uuid::Uuid;

const CLIENTS: usize = 64;
const REPLICAS: usize = 3;
/// What a client does, one after the other; `KOC_HISTORY_ROUNDS=1000` makes a longer history, `KOC_HISTORY_SEED=7` another one.
const ROUNDS: usize = 10;
/// Disturbances, evenly over the clients' work: at each a replica is killed, at these Postgres instead.
const DISTURBANCES: usize = 10;
const POSTGRES_DIES: usize = 4;
const POSTGRES_RESTARTS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at how far the clients are.
const PAUSE: Duration = Duration::from_millis(5);

/// What the envelopes hold, and how far they may overrun. The clients ask for more.
const ENVELOPES: [(i64, i64); 4] = [(5_000, 0), (5_000, 300), (9_000, 0), (4_000, 150)];
/// Members have money of the envelope of the same place alone.
const MEMBER_LIMITS: [i64; 2] = [1_500, 900];

/// A server of this test's own, since it is killed.
struct Postgres {
    options: ClusterOptions,
    cluster: Option<Cluster>,
}

impl Postgres {
    fn start() -> Self {
        let programs = std::env::temp_dir().join(format!("koc-tests-{}", cluster::effective_uid()));
        let binaries = Binaries::find_or_install(&programs, Source::Any).expect("Postgres is found or fetched");
        let folder: PathBuf = std::env::temp_dir().join(format!("koc-history-{}", Uuid::new_v4().simple()));
        let options = ClusterOptions {
            // The services are told where it is once.
            port: Some(free_address().port()),
            authentication: Authentication::Quick,
            ..ClusterOptions::new(folder, binaries)
        };
        let cluster = Some(Cluster::start(options.clone()).expect("Postgres starts"));
        Self { options, cluster }
    }

    fn url(&self) -> String {
        self.cluster.as_ref().expect("it runs").superuser_url("postgres")
    }

    /// Ends it, by `kill -9` or as an operator does, and starts it again.
    fn restart(&mut self, kill: bool) {
        let cluster = self.cluster.take().expect("it runs");
        if kill {
            let killed = Command::new("kill").args(["-KILL", &cluster.pid().to_string()]).status();
            assert!(killed.expect("kill runs").success());
        }
        drop(cluster);
        self.cluster = Some(Cluster::start(self.options.clone()).expect("Postgres starts again"));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.cluster.take());
        // What is left in the temporary folder is no failure.
        let _ = cluster::erase(&self.options.dir);
    }
}

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn each_answer_stands_in_the_ledger_once_and_its_order_explains_it() {
    let (rounds, seed) = (setting("KOC_HISTORY_ROUNDS", ROUNDS), setting("KOC_HISTORY_SEED", 1) as u64);
    // Before the runtime, and from the thread that lives as long as the test: the server ends with it.
    let mut postgres = Postgres::start();
    let runtime = Runtime::new().expect("a runtime");
    let (mut replicas, _registry, shared) = runtime.block_on(open(&postgres.url()));

    let mut clients = JoinSet::new();
    for nr in 0..CLIENTS {
        let (shared, random) = (Arc::clone(&shared), StdRng::seed_from_u64(seed * 1_000 + nr as u64));
        let client = async move { Client::new(shared, random, nr).run(rounds).await };
        clients.spawn_on(client, runtime.handle());
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut events: Vec<Event> = Vec::new();
    for disturbance in 1..=DISTURBANCES {
        let due = CLIENTS * rounds * disturbance / (DISTURBANCES + 1);
        while shared.done.load(Ordering::Relaxed) < due {
            // One that failed has nothing more to wait for.
            while let Some(ended) = clients.try_join_next() {
                events.extend(ended.expect("a client comes through"));
            }
            std::thread::sleep(PAUSE);
        }
        match disturbance {
            POSTGRES_DIES => postgres.restart(true),
            POSTGRES_RESTARTS => postgres.restart(false),
            _ => {
                let victim = &mut replicas[random.random_range(0..REPLICAS)];
                victim.kill();
                victim.launch(&shared.environment);
            }
        }
    }
    runtime.block_on(async {
        while let Some(ended) = clients.join_next().await {
            events.extend(ended.expect("a client comes through"));
        }
        for replica in &replicas {
            replica.ready().await;
        }
    });
    runtime.block_on(check::history(&postgres.url(), &shared, &events));
    runtime.block_on(check::answers_again(&shared, &events));
}

/// Replicas of the budget beside a registry, and an active plan whose envelopes the clients will empty.
async fn open(superuser: &str) -> (Vec<Process>, Process, Arc<Shared>) {
    migrate(superuser, &["registry", "budget"]).await.expect("migrated");
    let mut registry = Process::new("registry", superuser);
    let environment = vec![("KOC_REGISTRY_URL".to_owned(), registry.url())];
    registry.launch(&environment);
    let mut replicas: Vec<Process> = (0..REPLICAS).map(|_| Process::new("budget", superuser)).collect();
    for replica in &mut replicas {
        replica.launch(&environment);
    }
    for process in replicas.iter().chain([&registry]) {
        process.ready().await;
    }
    let programme = id();
    let request = registry::CreateProgrammeRequest {
        programme_id: programme.clone(),
        request_id: id(),
        display_name: "Owners' circle".into(),
        currency_code: "CNY".into(),
        time_zone: "Asia/Shanghai".into(),
    };
    let channel = channel_to(&registry.url(), Some(token::all("planner")), None);
    let mut programmes = registry::programme_service_client::ProgrammeServiceClient::new(channel);
    programmes.create_programme(request).await.expect("a programme");
    let urls: Vec<String> = replicas.iter().map(Process::url).collect();
    let envelopes = activate(&urls[0], &programme).await;
    let members = limit(&urls[0], &programme).await;
    let shared = Shared::new(&urls, programme, envelopes, members, environment);
    (replicas, registry, Arc::new(shared))
}

fn days(days: i64) -> Option<prost_types::Timestamp> {
    let epoch = std::time::UNIX_EPOCH.elapsed().expect("the clock is past 1970");
    let start = i64::try_from(epoch.as_secs()).expect("a time of this era");
    Some(prost_types::Timestamp { seconds: start + days * 24 * 60 * 60, nanos: 0 })
}

async fn activate(url: &str, programme: &str) -> Vec<String> {
    let plans = |actor: &str| pb::plan_service_client::PlanServiceClient::new(channel_to(url, Some(token::all(actor)), None));
    let envelope = |(nr, (allocated, overrun)): (usize, &(i64, i64))| pb::NewEnvelope {
        resource_class: pb::ResourceClass::Inclusive.into(),
        display_name: format!("envelope {nr}"),
        allocated: Some(client::fen(*allocated)),
        overrun_limit: Some(client::fen(*overrun)),
        ..Default::default()
    };
    let request = pb::CreatePlanRequest {
        programme_id: programme.to_owned(),
        request_id: id(),
        display_name: "history".into(),
        period_start_time: days(-1),
        period_end_time: days(100),
        envelopes: ENVELOPES.iter().enumerate().map(envelope).collect(),
        ..Default::default()
    };
    let plan = plans("planner").create_plan(request).await.expect("a plan").into_inner().plan.expect("a plan");
    let (programme_id, plan_id) = (programme.to_owned(), plan.plan_id.clone());
    let request = pb::SubmitPlanRequest { programme_id, request_id: id(), plan_id, ..Default::default() };
    plans("planner").submit_plan(request).await.expect("submitted");
    let (programme_id, plan_id) = (programme.to_owned(), plan.plan_id.clone());
    let request = pb::ApprovePlanRequest { programme_id, request_id: id(), plan_id, ..Default::default() };
    plans("controller").approve_plan(request).await.expect("approved");
    let (programme_id, plan_id) = (programme.to_owned(), plan.plan_id.clone());
    let request = pb::ActivatePlanRequest { programme_id, request_id: id(), plan_id, ..Default::default() };
    plans("planner").activate_plan(request).await.expect("active");
    plan.envelopes.into_iter().map(|envelope| envelope.envelope_id).collect()
}

async fn limit(url: &str, programme: &str) -> Vec<String> {
    let channel = channel_to(url, Some(token::all("planner")), None);
    let mut limits = pb::member_limit_service_client::MemberLimitServiceClient::new(channel);
    let mut members = Vec::new();
    for limit in MEMBER_LIMITS {
        let request = pb::SetMemberLimitRequest {
            programme_id: programme.to_owned(),
            request_id: id(),
            member_id: id(),
            period_start_time: days(-2),
            period_end_time: days(200),
            limit: Some(client::fen(limit)),
            decision_id: String::new(),
            reason: "for the test".into(),
        };
        members.push(request.member_id.clone());
        limits.set_member_limit(request).await.expect("a limit");
    }
    members
}
