//! What was told against what is there.

use super::{
    PATIENCE,
    client::{Answer, Asked, Event, Shared, minor},
    ledger::{Entry, Envelope, Ledger, Operation},
};
use koc_proto::koc::budget::v1 as pb;
use koc_tests::wait;
use serde_json::Value;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
};
use uuid::Uuid;

/// Every request that was answered has this answer and its entries, once; one that was not has all of its entries or none; and each
/// refusal is explained by the place in the order at which it was decided.
pub async fn history(superuser: &str, shared: &Shared, events: &[Event]) {
    let options = PgConnectOptions::from_str(superuser).expect("an address").options([("search_path", "budget")]);
    let ledger = Ledger::read(&mut PgConnection::connect_with(&options).await.expect("Postgres runs")).await;
    let mut entries: HashMap<Uuid, Vec<(&Envelope, usize)>> = HashMap::new();
    for envelope in ledger.envelopes.values() {
        for (place, entry) in envelope.entries.iter().enumerate() {
            entries.entry(entry.operation).or_default().push((envelope, place));
        }
    }
    let mut explained = HashSet::new();
    let (mut done, mut refused, mut lost) = (0, 0, 0);
    for Event { asked, answer } in events {
        let (method, request_id) = asked.key();
        let key = (method.to_owned(), uuid(request_id));
        assert!(explained.insert(key.clone()), "a request is one event");
        let kept = ledger.operations.get(&key);
        match (answer, kept) {
            (Answer::Unknown, None) => lost += 1,
            (_, None) => panic!("{asked:?} was answered {answer:?} and is not there"),
            (answer, Some(kept)) => {
                let own = entries.remove(&kept.id).unwrap_or_default();
                match (&kept.done, &kept.refusal) {
                    (Some(receipt), None) => {
                        done += 1;
                        check_done(&ledger, asked, kept, receipt, &own);
                    }
                    (None, Some(refusal)) => {
                        refused += 1;
                        assert!(own.is_empty(), "{asked:?} was refused and moved money");
                        explain(&ledger, asked, kept, refusal);
                    }
                    _ => panic!("{kept:?} is neither done nor refused"),
                }
                check_told(kept, answer);
            }
        }
    }
    // What else moved money is the plan's activation, and nothing stands in the ledger that nobody asked for.
    let others = ledger.operations.iter().filter(|(key, _)| !explained.contains(key));
    let activation = "koc.budget.v1.ActivatePlanRequest";
    for ((method, _), operation) in others {
        assert_eq!(method, activation, "{operation:?}");
        entries.remove(&operation.id);
    }
    assert!(entries.is_empty(), "entries of no operation: {entries:?}");
    assert!(done > 0 && refused > 0, "both ends are met: {done} done, {refused} refused, {lost} lost without a trace");

    wait::until("the chain to cover all", PATIENCE, async || {
        let request = pb::VerifyLedgerRequest { programme_id: shared.programme.clone() };
        let found = shared.ledger(0).verify_ledger(request).await.ok()?.into_inner();
        assert!(found.valid, "{}", found.finding);
        (found.chained_count == found.entry_count).then_some(())
    })
    .await;
}

/// What was answered is answered so again, by whichever replica.
pub async fn answers_again(shared: &Shared, events: &[Event]) {
    let replicas: Vec<_> = (0..shared.urls.len()).map(|replica| shared.reservations(replica)).collect();
    let answered = events.iter().filter(|event| event.answer != Answer::Unknown);
    for (event, client) in answered.zip(replicas.iter().cycle()) {
        let again = wait::until("an answer", PATIENCE, async || {
            let answer = event.asked.send(&mut client.clone()).await;
            (answer != Answer::Unknown).then_some(answer)
        })
        .await;
        assert_eq!(again, event.answer, "{:?}", event.asked);
    }
}

fn uuid(text: &str) -> Uuid {
    Uuid::try_parse(text).expect("an id")
}

fn of_reservation(asked: &Asked) -> Option<Uuid> {
    match asked {
        Asked::Reserve(_) => None,
        Asked::Commit(pb::CommitRequest { reservation_id, .. })
        | Asked::Spend(pb::SpendRequest { reservation_id, .. })
        | Asked::Release(pb::ReleaseRequest { reservation_id, .. })
        | Asked::Extend(pb::ExtendRequest { reservation_id, .. })
        | Asked::Reverse(pb::ReverseRequest { reservation_id, .. }) => Some(uuid(reservation_id)),
    }
}

/// What is asked in minor units; None for all.
fn amount(asked: &Asked) -> Option<i64> {
    let amount = match asked {
        Asked::Reserve(request) => &request.amount,
        Asked::Commit(request) => &request.amount,
        Asked::Spend(request) => &request.amount,
        Asked::Release(request) => &request.amount,
        Asked::Extend(_) => &None,
        Asked::Reverse(request) => &request.amount,
    };
    amount.as_ref().map(|amount| minor(Some(amount)))
}

/// An answer in the client's hands is what is kept.
fn check_told(kept: &Operation, answer: &Answer) {
    match answer {
        Answer::Unknown => {}
        Answer::Done { reservation, available } => {
            let (parts, kept_available) = kept.done.as_ref().expect("done, as was told");
            let pb::Reservation { reserved, committed, spent, released, .. } = reservation.as_ref();
            assert_eq!([reserved, committed, spent, released].map(|part| minor(part.as_ref())), *parts);
            assert_eq!(Some(uuid(&reservation.reservation_id)), kept.reservation);
            assert!(available.as_ref().is_none_or(|available| minor(Some(available)) == *kept_available));
        }
        Answer::Refused { reason, figures } => {
            let refusal = kept.refusal.as_ref().expect("refused, as was told");
            assert_eq!(refusal["reason"], *reason);
            let asked = figures.get("asked_minor").map(|asked| Value::from(asked.parse::<i64>().expect("a number")));
            assert_eq!(refusal.get("asked").filter(|asked| !asked.is_null()), asked.as_ref());
        }
    }
}

/// The operation's entries are those that it asks for, next to each other, and how everything stands after them is what was answered.
fn check_done(ledger: &Ledger, asked: &Asked, kept: &Operation, receipt: &([i64; 4], i64), own: &[(&Envelope, usize)]) {
    let reservation = kept.reservation.expect("of a reservation");
    assert!(of_reservation(asked).is_none_or(|of| of == reservation), "{kept:?}");
    let envelope = &ledger.envelopes[&ledger.envelope_of[&reservation]];
    let found: Vec<&Entry> = own.iter().map(|(envelope, place)| &envelope.entries[*place]).collect();
    assert!(found.windows(2).all(|pair| pair[0].sequence + 1 == pair[1].sequence), "next to each other");
    assert!(found.iter().all(|entry| entry.reservation == Some(reservation) && entry.time == kept.time), "{found:?}");
    let kinds: Vec<&str> = found.iter().map(|entry| entry.kind.as_str()).collect();
    let expected: &[&[&str]] = match asked {
        Asked::Reserve(_) => &[&["RESERVE"]],
        Asked::Commit(request) if request.release_rest => &[&["COMMIT"], &["COMMIT", "RELEASE"]],
        Asked::Commit(_) => &[&["COMMIT"]],
        Asked::Spend(_) => &[&["SPEND"]],
        Asked::Release(request) if request.amount.is_none() => &[&[], &["RELEASE"]],
        Asked::Release(_) => &[&["RELEASE"]],
        Asked::Extend(_) => &[&[]],
        Asked::Reverse(request) if request.release => &[&["REFUND"], &["REVERSE_COMMIT", "RELEASE"]],
        Asked::Reverse(_) => &[&["REVERSE_SPEND"], &["REVERSE_COMMIT"]],
    };
    assert!(expected.contains(&kinds.as_slice()), "{asked:?} left {kinds:?}");
    if let (Some(asked), Some(first)) = (amount(asked), found.first()) {
        assert_eq!(asked, first.amount);
    }
    if let Asked::Reverse(request) = asked {
        assert_eq!(found[0].reverses, Some(uuid(&request.entry_id)));
    }
    let stands = |place: usize| (envelope.parts(reservation, place), envelope.available[place]) == *receipt;
    match own.last() {
        Some((_, place)) => assert!(stands(place + 1), "{asked:?} was answered {receipt:?}"),
        None => assert!(envelope.places(kept.time).any(stands), "{asked:?} was answered {receipt:?}"),
    }
}

/// There is a place in the order, at the time of the decision, where what was asked was more than there was.
fn explain(ledger: &Ledger, asked: &Asked, kept: &Operation, refusal: &Value) {
    let number = |name: &str| refusal[name].as_i64().expect("a number");
    let envelope = match asked {
        Asked::Reserve(request) => uuid(&request.envelope_id),
        other => ledger.envelope_of[&of_reservation(other).expect("of a reservation")],
    };
    let envelope = &ledger.envelopes[&envelope];
    let mut places = envelope.places(kept.time);
    let explained = match refusal["reason"].as_str().expect("a reason") {
        "ENVELOPE_EXHAUSTED" => {
            let (more, available, left) = (number("asked"), number("available"), number("overrun_left"));
            assert_eq!(Some(more), amount(asked));
            places.any(|place| envelope.available[place] == available)
                && left == envelope.overrun_limit + available.min(0)
                && more > available.max(0) + left
        }
        "MEMBER_LIMIT_EXHAUSTED" => {
            let Asked::Reserve(request) = asked else { panic!("nothing expires here: {asked:?}") };
            let (member, more, available) = (uuid(&request.member_id), number("asked"), number("available"));
            assert_eq!(Some(more), amount(asked));
            places.any(|place| (ledger.limits[&member] - envelope.used(member, place)).max(0) == available) && more > available
        }
        "RESERVATION_EXHAUSTED" => {
            let reservation = of_reservation(asked).expect("of a reservation");
            let available = number("available");
            let there = |place: usize| {
                let [reserved, committed, spent, _] = envelope.parts(reservation, place);
                match asked {
                    Asked::Spend(_) => committed,
                    Asked::Reverse(request) => {
                        let undone = envelope.entry(uuid(&request.entry_id));
                        undone.amount.min(if undone.kind == "SPEND" { spent } else { committed })
                    }
                    _ => reserved,
                }
            };
            let short = refusal["asked"].as_i64().map_or(available == 0, |asked| asked > available);
            places.any(|place| there(place) == available) && short
        }
        "ENTRY_REVERSED" => {
            let Asked::Reverse(request) = asked else { panic!("{asked:?} undoes nothing") };
            let undone = Some(uuid(&request.entry_id));
            envelope.entries[..*places.end()].iter().any(|entry| entry.reverses == undone)
        }
        other => panic!("{asked:?} was refused with {other}"),
    };
    assert!(explained, "the order does not explain {refusal} for {asked:?}");
}
