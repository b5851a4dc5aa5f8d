//! Any sequence of operations on a real database, with crashes, retries, duplicates and reordering, against the books in memory: what
//! was committed is what they say, and what was not committed never was.

mod model;

use chrono::{DateTime, TimeDelta};
use koc_budget::{
    domain::{
        balances::Balances,
        books::{Books, Command, EnvelopeBook, Posting},
        member_limit::LimitUse,
        period::Period,
        plan::Stage,
        reversal::{Original, ReversalReason},
    },
    flow::{post_operations::post, verify_ledger},
    ids::{EntryId, EnvelopeId, MemberId, PlanId, ProgrammeId, ReservationId},
    store::{
        ledger,
        operation::{Answer, Keys, Operation},
    },
};
use koc_chassis::postgres::Db;
use koc_tests::service::{self, ServiceDatabase};
use model::{Model, Told};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

const CASES: u32 = 200;
const ALLOCATED: i64 = 1_000;
/// Of each of the two envelopes.
const OVERRUN: [i64; 2] = [0, 120];
/// Holds end half an hour past a full hour and waits last full hours, so that the real time that a case takes makes no difference.
const HOUR: i64 = 60 * 60;
#[derive(Debug, Clone)]
enum Ask {
    Reserve {
        envelope: usize,
        member: bool,
        amount: i64,
        hours: i64,
    },
    Commit {
        of: Index,
        amount: Option<i64>,
        release_rest: bool,
    },
    Spend {
        of: Index,
        amount: Option<i64>,
    },
    Release {
        of: Index,
        amount: Option<i64>,
    },
    Extend {
        of: Index,
        hours: i64,
    },
    Reverse {
        entry: Index,
        amount: Option<i64>,
        release: bool,
    },
    Expire {
        of: Index,
    },
    /// What was sent before, whatever came of it, as a caller sends it again.
    Retry {
        of: Index,
    },
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Committed,
    /// Committed, and nobody is told: the process dies between the commit and the answer.
    Unanswered,
    /// The process dies before the commit.
    RolledBack,
    /// The connection breaks before the commit.
    Killed,
}

#[derive(Debug, Clone)]
enum Step {
    Transaction { asks: Vec<Ask>, fate: Fate },
    SetLimit { limit: i64 },
    SetStage { stage: Stage },
    Wait { hours: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    let amount = || prop::option::weighted(0.7, 1..200i64);
    let of = any::<Index>;
    let ask = prop_oneof![
        5 => (0..2usize, any::<bool>(), 1..400i64, 0..3i64)
            .prop_map(|(envelope, member, amount, hours)| Ask::Reserve { envelope, member, amount, hours }),
        6 => (of(), amount(), prop::bool::weighted(0.2))
            .prop_map(|(of, amount, release_rest)| Ask::Commit { of, amount, release_rest }),
        4 => (of(), amount()).prop_map(|(of, amount)| Ask::Spend { of, amount }),
        2 => (of(), amount()).prop_map(|(of, amount)| Ask::Release { of, amount }),
        2 => (of(), 0..3i64).prop_map(|(of, hours)| Ask::Extend { of, hours }),
        3 => (of(), amount(), any::<bool>()).prop_map(|(entry, amount, release)| Ask::Reverse { entry, amount, release }),
        1 => of().prop_map(|of| Ask::Expire { of }),
        4 => of().prop_map(|of| Ask::Retry { of }),
    ];
    let fate = prop_oneof![
        6 => Just(Fate::Committed),
        2 => Just(Fate::Unanswered),
        2 => Just(Fate::RolledBack),
        1 => Just(Fate::Killed),
    ];
    prop_oneof![
        12 => (prop::collection::vec(ask, 1..6), fate).prop_map(|(asks, fate)| Step::Transaction { asks, fate }),
        1 => (0..900i64).prop_map(|limit| Step::SetLimit { limit }),
        1 => prop_oneof![4 => Just(Stage::Active), 1 => Just(Stage::Closed)].prop_map(|stage| Step::SetStage { stage }),
        2 => (1..3i64).prop_map(|hours| Step::Wait { hours }),
    ]
}

fn lasting(hours: i64) -> TimeDelta {
    TimeDelta::seconds(hours * HOUR + HOUR / 2)
}

struct Bench {
    database: ServiceDatabase,
    db: Db,
}

impl Bench {
    async fn new() -> Self {
        let database = service::database(&koc_budget::SCHEMA).await;
        let db = Db::new(&database.app_url, "budget", 2).expect("an address");
        Self { database, db }
    }

    /// An active plan of two envelopes, with money, and a member with a limit.
    async fn open(&self) -> Model {
        let (programme, plan, member) = (ProgrammeId(Uuid::now_v7()), PlanId(Uuid::now_v7()), MemberId(Uuid::now_v7()));
        let envelopes = [EnvelopeId(Uuid::now_v7()), EnvelopeId(Uuid::now_v7())];
        let now = DateTime::from_timestamp(1_767_225_600, 0).expect("in range");
        let period = Period::new(now, now + TimeDelta::days(100)).expect("not empty");
        sqlx::query("INSERT INTO programme (programme_id, currency_code, record_time) VALUES ($1, 'CNY', koc_now())")
            .bind(programme.0)
            .execute(&self.database.admin)
            .await
            .expect("a programme");
        sqlx::query(
            "INSERT INTO plan (plan_id, programme_id, display_name, period_start_time, period_end_time, state, required_approvals,
                               approval_validity_us, min_reserve_percent, max_reserve_percent, submitted_by, approved_by, approve_times,
                               version, create_time)
             VALUES ($1, $2, 'plan', $3, $4, 'ACTIVE', 1, 1, 0, 100, 'a', '{b}', ARRAY[koc_now()], 1, koc_now())",
        )
        .bind(plan.0)
        .bind(programme.0)
        .bind(period.start())
        .bind(period.end())
        .execute(&self.database.admin)
        .await
        .expect("a plan");
        let mut books = Books::default();
        for (nr, (envelope, overrun_limit)) in envelopes.iter().zip(OVERRUN).enumerate() {
            sqlx::query(
                "INSERT INTO envelope (envelope_id, plan_id, programme_id, ordinal, resource_class, display_name, planned, overrun_limit)
                 VALUES ($1, $2, $3, $4, 'INCLUSIVE', $5, $6, $7)",
            )
            .bind(envelope.0)
            .bind(plan.0)
            .bind(programme.0)
            .bind(i32::try_from(nr).expect("few"))
            .bind(nr.to_string())
            .bind(ALLOCATED)
            .bind(overrun_limit)
            .execute(&self.database.admin)
            .await
            .expect("an envelope");
            let book = EnvelopeBook {
                programme,
                plan,
                is_reserve: false,
                has_children: false,
                stage: Stage::Active,
                period,
                balances: Balances::default(),
                overrun_limit,
                sequence: 0,
            };
            books.envelopes.insert(*envelope, book);
        }
        let limit = LimitUse { programme, member, period, limit: 600, used: 0 };
        sqlx::query(
            "INSERT INTO member_limit (programme_id, member_id, period_start_time, period_end_time, amount, used, reason, set_by, update_time)
             VALUES ($1, $2, $3, $4, $5, 0, 'test', 'test', koc_now())",
        )
        .bind(programme.0)
        .bind(member.0)
        .bind(period.start())
        .bind(period.end())
        .bind(limit.limit)
        .execute(&self.database.admin)
        .await
        .expect("a limit");
        books.limits.push(limit);
        let mut model = Model {
            programme,
            plan,
            books,
            postings: Vec::new(),
            answers: BTreeMap::new(),
            now,
            envelopes,
            member,
            sent: Vec::new(),
            made: Vec::new(),
        };
        let allocate = |envelope| model.operation(Command::Allocate { envelope, amount: ALLOCATED });
        let operations: Vec<Operation> = envelopes.map(allocate).into();
        self.transaction(&mut model, &operations, Fate::Committed).await;
        model
    }

    /// Runs operations in one transaction to its end, and holds their answers against the model's.
    async fn transaction(&self, model: &mut Model, operations: &[Operation], fate: Fate) {
        let mut tx = self.db.begin().await.expect("a transaction");
        let answers = post(&mut tx, operations, Keys::Any).await.expect("decided");
        match fate {
            Fate::Committed | Fate::Unanswered => tx.commit().await.expect("committed"),
            Fate::RolledBack => return tx.rollback().await.expect("rolled back"),
            Fate::Killed => {
                let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.expect("a backend");
                // With a time to wait in: it has ended when this returns.
                let ended: bool = sqlx::query_scalar("SELECT pg_terminate_backend($1, 20000)")
                    .bind(pid)
                    .fetch_one(&self.database.admin)
                    .await
                    .expect("ended");
                assert!(ended && tx.commit().await.is_err(), "the connection broke");
                return;
            }
        }
        let decided: Vec<(Told, bool)> = operations.iter().map(|operation| model.decide(operation)).collect();
        if fate == Fate::Committed {
            let told: Vec<(Told, bool)> = answers.iter().map(told).collect();
            assert_eq!(told, decided, "{operations:?}");
        }
    }

    async fn command(&self, model: &mut Model, ask: &Ask) -> Option<Command> {
        Some(match ask {
            Ask::Reserve { envelope, member, amount, hours } => Command::Reserve {
                reservation: ReservationId::new(),
                envelope: model.envelopes[*envelope],
                member: member.then_some(model.member),
                purpose: "assignment/1".into(),
                amount: *amount,
                time_to_live: lasting(*hours),
            },
            Ask::Commit { of, amount, release_rest } => {
                Command::Commit { reservation: model.any(of)?, amount: *amount, release_rest: *release_rest }
            }
            Ask::Spend { of, amount } => Command::Spend { reservation: model.any(of)?, amount: *amount },
            Ask::Release { of, amount } => Command::Release { reservation: model.any(of)?, amount: *amount },
            Ask::Extend { of, hours } => Command::Extend { reservation: model.any(of)?, time_to_live: lasting(*hours) },
            Ask::Expire { of } => Command::Expire { reservation: model.any(of)? },
            Ask::Reverse { entry, amount, release } => {
                let posting = model.postings[entry.index(model.postings.len())];
                let reservation = posting.reservation?;
                let entry = self.entry(&posting).await;
                let original = Original { reservation, kind: posting.kind, amount: posting.amount, reversed: false };
                model.books.originals.insert(entry, original);
                Command::Reverse { reservation, entry, amount: *amount, release: *release, reason: ReversalReason::Duplicate }
            }
            Ask::Retry { .. } => return None,
        })
    }

    async fn operation(&self, model: &mut Model, ask: &Ask) -> Option<Operation> {
        if let Ask::Retry { of } = ask {
            let mut again = (!model.sent.is_empty()).then(|| model.sent[of.index(model.sent.len())].clone())?;
            // Each call thinks of an id of its own for what it makes; the first one's stands.
            if let Command::Reserve { reservation, .. } = &mut again.command {
                *reservation = ReservationId::new();
            }
            return Some(again);
        }
        let command = self.command(model, ask).await?;
        Some(model.operation(command))
    }

    async fn entry(&self, posting: &Posting) -> EntryId {
        let id = sqlx::query_scalar("SELECT entry_id FROM ledger_entry WHERE envelope_id = $1 AND envelope_sequence = $2")
            .bind(posting.envelope.0)
            .bind(posting.envelope_sequence)
            .fetch_one(&self.database.admin)
            .await;
        EntryId(id.expect("what was committed is there"))
    }

    async fn run(&self, steps: &[Step]) {
        let mut model = self.open().await;
        for step in steps {
            match step {
                Step::Transaction { asks, fate } => {
                    let mut operations = Vec::with_capacity(asks.len());
                    for ask in asks {
                        if let Some(operation) = self.operation(&mut model, ask).await {
                            model.sent.push(operation.clone());
                            operations.push(operation);
                        }
                    }
                    if !operations.is_empty() {
                        self.transaction(&mut model, &operations, *fate).await;
                    }
                }
                Step::SetLimit { limit } => {
                    sqlx::query("UPDATE member_limit SET amount = $2 WHERE member_id = $1")
                        .bind(model.member.0)
                        .bind(limit)
                        .execute(&self.database.admin)
                        .await
                        .expect("set");
                    model.books.limits[0].limit = *limit;
                }
                Step::SetStage { stage } => {
                    sqlx::query("UPDATE plan SET state = $2 WHERE plan_id = $1")
                        .bind(model.plan.0)
                        .bind(stage.as_str())
                        .execute(&self.database.admin)
                        .await
                        .expect("set");
                    model.books.envelopes.values_mut().for_each(|book| book.stage = *stage);
                }
                Step::Wait { hours } => {
                    self.database.advance(Duration::from_secs((hours * HOUR).unsigned_abs())).await;
                    model.now += TimeDelta::seconds(hours * HOUR);
                }
            }
        }
        // All that was ever sent, once more: what was answered is answered so again.
        let mut sent = std::mem::take(&mut model.sent);
        sent.retain(|operation| model.answers.contains_key(&operation.key.request_id));
        if !sent.is_empty() {
            self.transaction(&mut model, &sent, Fate::Committed).await;
        }
        self.compare(&model).await;
    }

    /// The database is what the model is: its entries, balances, reservations and uses.
    async fn compare(&self, model: &Model) {
        let mut tx = self.db.snapshot().await.expect("a snapshot");
        for (id, book) in &model.books.envelopes {
            let entries = ledger::list(&mut tx, *id, 0, 10_000).await.expect("entries");
            let expected = model.postings.iter().filter(|p| p.envelope == *id);
            let told = |p: &Posting| (p.envelope_sequence, p.kind, p.amount, p.reservation, p.available_after, p.reversal);
            let found: Vec<_> = entries
                .iter()
                .map(|e| (e.envelope_sequence, e.kind, e.amount, e.reservation, e.available_after, e.reversal))
                .collect();
            assert_eq!(found, expected.map(told).collect::<Vec<_>>());
            assert!(entries.iter().all(|e| e.available_after + book.overrun_limit >= 0), "past the limit");
            let row: (i64, i64, i64, i64, i64) =
                sqlx::query_as("SELECT allocated, reserved, committed, spent, sequence FROM envelope WHERE envelope_id = $1")
                    .bind(id.0)
                    .fetch_one(&mut *tx)
                    .await
                    .expect("a row");
            let Balances { allocated, reserved, committed, spent } = book.balances;
            assert_eq!(row, (allocated, reserved, committed, spent, book.sequence));
        }
        let rows: Vec<(Uuid, i64, i64, i64, i64, i64)> = sqlx::query_as(
            "SELECT reservation_id, reserved, committed, spent, released, recoverable FROM reservation
             WHERE programme_id = $1 ORDER BY reservation_id",
        )
        .bind(model.programme.0)
        .fetch_all(&mut *tx)
        .await
        .expect("rows");
        let expected = model.books.reservations.values().map(|r| {
            let parts = r.parts;
            (r.id.0, parts.reserved, parts.committed, parts.spent, parts.released, r.recoverable)
        });
        assert_eq!(rows, expected.collect::<Vec<_>>());
        let used: i64 = sqlx::query_scalar("SELECT used FROM member_limit WHERE member_id = $1")
            .bind(model.member.0)
            .fetch_one(&mut *tx)
            .await
            .expect("a use");
        assert_eq!(used, model.books.limits[0].used);
        let report = verify_ledger::at_once(&mut tx, model.programme).await.expect("verified");
        assert_eq!((report.finding, report.course.counts.entries), (None, i64::try_from(model.postings.len()).expect("few")));
    }
}

fn told(answer: &Answer) -> (Told, bool) {
    match answer {
        Answer::Done { receipt, replayed } => (Told::of(receipt), *replayed),
        Answer::Refused { refusal, replayed } => (Told::Refused(refusal.clone()), *replayed),
        other => (Told::Other(format!("{other:?}")), false),
    }
}

#[test]
fn whatever_crashes_and_is_sent_again_the_database_is_what_the_books_say() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let bench = runtime.block_on(Bench::new());
    let config = Config { cases: CASES, max_shrink_iters: 500, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&prop::collection::vec(step(), 1..12), |steps| {
        runtime.block_on(bench.run(&steps));
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
}
