//! The budget by HTTP/JSON: money to the last digit, and refusals with their figures.

use crate::world::*;
use koc_tests::http::detail;
use serde_json::{Value, json};

fn yuan(units: &str, nanos: i32) -> Value {
    json!({"currencyCode": "CNY", "units": units, "nanos": nanos})
}

#[tokio::test]
async fn money_is_held_paid_and_refused_with_figures() {
    let world = World::new().await;
    let http = world.budget.http();
    let programme = format!("/v1/programmes/{}", world.programme);
    let reservations = format!("{programme}/reservations");
    let ask = |amount: Value| json!({"requestId": id(), "envelopeId": world.envelope, "purpose": "assignment/1", "amount": amount, "timeToLive": "3600s"});
    let request = ask(yuan("100", 10_000_000));
    let first = http.post(&reservations, &request).await;
    assert_eq!(first.headers.get("koc-replayed"), None);
    let held = first.good();
    assert_eq!(held["envelopeAvailable"], yuan("8899", 990_000_000));
    let reservation = &held["reservation"];
    let parts = [&reservation["amount"], &reservation["reserved"], &reservation["committed"]];
    assert_eq!(parts, [&yuan("100", 10_000_000), &yuan("100", 10_000_000), &yuan("0", 0)]);
    let again = http.post(&reservations, &request).await;
    assert_eq!(again.headers["koc-replayed"], "true");
    assert_eq!(again.good(), held, "a retry holds nothing more");

    let path = format!("{reservations}/{}", reservation["reservationId"].as_str().expect("an id"));
    let spend = http.post(&format!("{path}:commit"), &json!({"requestId": id()})).await.good();
    assert_eq!(spend["reservation"]["committed"], yuan("100", 10_000_000));
    assert_eq!(http.get(&path).await.good()["reservation"], spend["reservation"]);
    let entries = http.get(&format!("{programme}/envelopes/{}/ledgerEntries?pageSize=10", world.envelope)).await.good();
    let told: Vec<_> =
        entries["entries"].as_array().expect("entries").iter().map(|e| (&e["envelopeSequence"], &e["kind"])).collect();
    let kinds = ["LEDGER_ENTRY_KIND_ALLOCATE", "LEDGER_ENTRY_KIND_RESERVE", "LEDGER_ENTRY_KIND_COMMIT"].map(Value::from);
    let places = ["1", "2", "3"].map(Value::from);
    assert_eq!(told, places.iter().zip(&kinds).collect::<Vec<_>>(), "{entries}");

    let too_much = ask(yuan("9000", 0));
    for _ in 0..2 {
        let error = http.post(&reservations, &too_much).await.refused(400, "FAILED_PRECONDITION", "ENVELOPE_EXHAUSTED");
        let figures = &detail(&error, "ErrorInfo")["metadata"];
        assert_eq!(figures["limit_id"], world.envelope.as_str(), "{error}");
        assert_eq!(detail(&error, "PreconditionFailure")["violations"][0]["type"], "ENVELOPE_EXHAUSTED", "{error}");
    }
    let fraction = http.post(&reservations, &ask(yuan("1", 1))).await;
    assert_eq!(fraction.status, 400, "finer than a fen");
    let both = json!({"requestId": id(), "reservationId": id()});
    http.post(&format!("{path}:spend"), &both).await.refused(400, "INVALID_ARGUMENT", "FIELD_VIOLATIONS");
}
