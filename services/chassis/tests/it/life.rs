//! The life of a service: it does not serve on a database that is behind, it drains, and it ends when a part of it breaks.

use crate::mini::{self, Hold, PATIENCE, create, replica, schema};
use koc_chassis::{
    config::ServeConfig, fault::reason_of, gate::Gate, postgres::DatabaseError, server::Service, telemetry::Metrics,
};
use koc_proto::koc::registry::v1 as pb;
use koc_tests::{service, token, wait};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use uuid::Uuid;

fn config(database: &service::ServiceDatabase) -> ServeConfig {
    ServeConfig {
        database_url: database.app_url.clone(),
        listen: Some(service::free_address()),
        ops_listen: Some(service::free_address()),
        jwks_file: token::jwks_file().to_owned(),
        peer_token_file: None,
        database_connections: 8,
        feed_days: None,
        otlp_endpoint: None,
        log: "warn".into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_told_to_stop_finishes_its_calls_takes_no_new_ones_and_ends() {
    let ticks = Arc::new(AtomicUsize::new(0));
    let ticking = ticks.clone();
    let every = move |service: &mut Service| {
        service.every(Duration::from_millis(10), move || {
            ticking.fetch_add(1, Ordering::SeqCst);
            std::future::ready(())
        });
    };
    let mini = mini::start_with(|config| config, Metrics::new(), Box::new(every)).await;
    let (address, ops, hold) = (mini.running.address, mini.ops, mini.hold.clone());
    let held = hold.permits.forget_permits(usize::MAX);
    let mut client = mini.programmes();
    let request = pb::GetProgrammeRequest { programme_id: Uuid::now_v7().to_string() };
    let at_work = tokio::spawn(async move { client.get_programme(request).await });
    wait::until("the call to be at work", PATIENCE, async || (hold.entered.load(Ordering::SeqCst) == 1).then_some(())).await;
    let mut changes = mini.feed().watch_changes(pb::WatchChangesRequest::default()).await.expect("open").into_inner();
    changes.message().await.expect("the head").expect("a message");
    // Somebody watches health at both ports.
    let endpoint = |address| Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let watching = HealthCheckRequest { service: "koc.registry.v1".into() };
    let mut health = HealthClient::new(endpoint(address)).watch(watching.clone()).await.expect("open").into_inner();
    assert_eq!(health.message().await.expect("answered").expect("a status").status(), ServingStatus::Serving);
    wait::until("some ticks", PATIENCE, async || (ticks.load(Ordering::SeqCst) > 2).then_some(())).await;

    let stopping = tokio::spawn(mini.running.stop());
    let end = changes.message().await.expect_err("the stream ends");
    assert_eq!((end.code(), reason_of(&end).as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(health.message().await.expect("told").expect("a status").status(), ServingStatus::NotServing);
    wait::until("new calls to be refused", PATIENCE, async || TcpStream::connect(address).await.is_err().then_some(())).await;
    for service in ["", "koc.registry.v1"] {
        let asked = HealthClient::new(endpoint(ops)).check(HealthCheckRequest { service: service.into() }).await;
        assert_eq!(asked.expect("probes see the end").into_inner().status(), ServingStatus::NotServing);
    }
    let mut socket = TcpStream::connect(ops).await.expect("it still listens");
    socket.write_all(b"GET /readyz HTTP/1.1\r\nhost: koc\r\nconnection: close\r\n\r\n").await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("draining"), "{answer}");
    assert!(!stopping.is_finished(), "it waits for the call at work");

    hold.permits.add_permits(held);
    at_work.await.expect("a task").expect("the call ends well");
    // Well before the drain's own limit of 20 s.
    tokio::time::timeout(Duration::from_secs(10), stopping).await.expect("it ends").expect("and well");
    let last = ticks.load(Ordering::SeqCst);
    tokio::task::yield_now().await;
    assert_eq!(ticks.load(Ordering::SeqCst), last);
}

#[tokio::test]
async fn what_was_committed_before_the_end_is_in_the_feed_after_the_next_start() {
    let mini = mini::start().await;
    mini.programmes().create_programme(create("one")).await.expect("created");
    let database = mini.running.stop().await;
    // Committed by a replica that had no time left to sequence it.
    let gate: Gate<mini::Error> = Gate::new(replica(&database), "registry.koc");
    let second = gate.mutate(mini::admitted(create("two")), |work, req| {
        Box::pin(async move {
            work.emit(work.programme().0, &pb::ProgrammeCreated { programme_id: req.programme_id }).await?;
            Ok(pb::CreateProgrammeResponse::default())
        })
    });
    second.await.expect("created");
    let hold = Hold { permits: Arc::new(Semaphore::new(1)), entered: Arc::default() };
    let again = service::start_on(service::free_address(), database, |config, stop| {
        mini::serve(config, hold, Metrics::new(), Box::new(|_| {}), stop)
    })
    .await;
    let feed = pb::feed_service_client::FeedServiceClient::new(again.channel());
    wait::until("both in the feed", PATIENCE, async || {
        let page = feed.clone().list_changes(pb::ListChangesRequest::default()).await.expect("a page").into_inner();
        (page.changes.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_service_whose_background_work_panics_ends_with_an_error() {
    let database = service::database(&schema()).await;
    let hold = Hold { permits: Arc::new(Semaphore::new(1)), entered: Arc::default() };
    let stop = CancellationToken::new();
    let broken = |service: &mut Service| service.every(Duration::from_millis(1), || async { panic!("as this test wants") });
    let served = mini::serve(config(&database), hold, Metrics::new(), Box::new(broken), stop.clone());
    let error = tokio::time::timeout(PATIENCE, served).await.expect("it ends").expect_err("and says so");
    assert!(error.to_string().contains("background work panicked"), "{error:#}");
    assert!(stop.is_cancelled());
}

#[tokio::test]
async fn a_service_does_not_serve_on_a_schema_that_lacks_a_migration() {
    let database = service::database(&schema()).await;
    let db = replica(&database);
    db.ready(&schema()).await.expect("all are there");
    for (sql, expected) in [("DELETE FROM _sqlx_migrations WHERE version = 1", 1), ("DROP TABLE _sqlx_migrations", 1)] {
        sqlx::query(sql).execute(&database.admin).await.expect("a superuser may");
        let error = db.ready(&schema()).await.expect_err("one is missing");
        assert!(matches!(error, DatabaseError::NotMigrated { missing, .. } if missing == expected), "{error}");
        assert!(error.to_string().contains("koc migrate chassis"));
    }
}

#[tokio::test]
async fn the_application_role_can_neither_change_the_audit_nor_the_schema() {
    let database = service::database(&schema()).await;
    let db = replica(&database);
    for sql in [
        "UPDATE audit_entry SET actor = 'x'",
        "DELETE FROM audit_entry",
        "TRUNCATE audit_entry",
        "DELETE FROM _sqlx_migrations",
        "DROP TABLE fact",
        "CREATE TABLE mine (id integer)",
        "CREATE TABLE public.mine (id integer)",
    ] {
        let error = sqlx::query(sql).execute(db.pool()).await.expect_err(sql);
        assert_eq!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("42501"), "{sql}: {error}");
    }
}
