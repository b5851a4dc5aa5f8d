//! Cars, crews and seats: no day of one is given twice.

use crate::{catalogue::*, granting::*, world::*};
use futures::future::join_all;
use koc_proto::koc::{
    budget::v1::{self as pb, GrantState as State, ResourceClass::Inclusive, cost_model::Model},
    registry::v1::{TrustLevel, ValueType},
};
use tonic::Code;

fn from_to(start: &str, end: &str) -> pb::ResourceUsage {
    pb::ResourceUsage { start_date: start.into(), end_date: end.into(), ..loan() }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_want_a_car_on_one_day_one_gets_it_and_half_open_days_touch() {
    let mut world = World::new().await;
    world.envelope = world.envelope_of(90_000_000).await;
    example_tables(&world).await;
    let car = resource(&world, Inclusive, "car", Model::LoanVehicle(car())).await;
    let unit = register(&world, &car.resource_id, "car 1").await.expect("a unit");
    refused(register(&world, &car.resource_id, "car 1").await, Code::AlreadyExists, "UNIT_NAME_TAKEN");
    let member = member(&world, TrustLevel::Proven).await;
    let book = async |unit_id: &str, start: &str, end: &str| {
        let request = issue_request(&world, &member, &car, from_to(start, end));
        issue(&world, pb::IssueGrantRequest { unit_id: unit_id.into(), ..request }).await
    };
    let tries = join_all((0..8).map(|day| {
        let (book, unit) = (&book, &unit);
        async move { book(&unit.unit_id, &format!("2026-06-0{}", day + 1), "2026-06-10").await }
    }));
    let (booked, others): (Vec<_>, Vec<_>) = tries.await.into_iter().partition(Result::is_ok);
    assert_eq!(booked.len(), 1);
    for other in others {
        let figures = refused(other, Code::FailedPrecondition, "BOOKING_OVERLAPS");
        assert_eq!((figures["subject"].as_str(), figures["end_date"].as_str()), (unit.unit_id.as_str(), "2026-06-10"));
    }
    let first = booked.into_iter().flatten().next().expect("one");
    assert_eq!((first.state(), first.unit_id.as_str()), (State::Booked, unit.unit_id.as_str()));
    // The day on which one ends is the first that another may begin on.
    book(&unit.unit_id, "2026-06-10", "2026-06-12").await.expect("booked");
    refused(book(&unit.unit_id, "2026-06-11", "2026-06-12").await, Code::FailedPrecondition, "BOOKING_OVERLAPS");
    // Another car is another car.
    let second = register(&world, &car.resource_id, "car 2").await.expect("a unit");
    book(&second.unit_id, "2026-06-11", "2026-06-12").await.expect("booked");
    // Cancelled days are free again, and leave the calendar.
    cancel(&world, &first.grant_id).await.expect("cancelled");
    book(&unit.unit_id, "2026-06-01", "2026-06-10").await.expect("booked");
    let days = |list: &[(&str, &str)]| -> Vec<(String, String, bool)> {
        list.iter().map(|(start, end)| ((*start).to_owned(), (*end).to_owned(), false)).collect()
    };
    let all = calendar(&world, &unit.unit_id, "2026-01-01", "2027-01-01").await.expect("a calendar");
    assert_eq!(all, days(&[("2026-06-01", "2026-06-10"), ("2026-06-10", "2026-06-12")]));
    let touched = calendar(&world, &unit.unit_id, "2026-06-10", "2026-06-11").await.expect("a calendar");
    assert_eq!(touched, days(&[("2026-06-10", "2026-06-12")]));
    refused(calendar(&world, &id(), "2026-06-10", "2026-06-11").await, Code::NotFound, "UNIT_NOT_FOUND");
    let empty = violations(calendar(&world, &unit.unit_id, "2026-06-10", "2026-06-10").await);
    assert_eq!(empty, [("end_date".to_owned(), "PERIOD_EMPTY".to_owned())]);
    let long = violations(calendar(&world, &unit.unit_id, "2026-06-10", "2029-06-10").await);
    assert_eq!(long, [("end_date".to_owned(), "PERIOD_TOO_LONG".to_owned())]);
}

#[tokio::test]
async fn a_grant_names_a_unit_where_there_is_one_and_of_its_resource() {
    let world = World::new().await;
    example_tables(&world).await;
    let member = member(&world, TrustLevel::Proven).await;
    label(&world, &member, &[ValueType::Content, ValueType::Insight]).await;
    let car = resource(&world, Inclusive, "car", Model::LoanVehicle(car())).await;
    let without = issue_request(&world, &member, &car, loan());
    assert_eq!(violations(issue(&world, without.clone()).await), [("unit_id".to_owned(), "UNIT_REQUIRED".to_owned())]);
    let unknown = pb::IssueGrantRequest { unit_id: id(), ..without };
    refused(issue(&world, unknown).await, Code::NotFound, "UNIT_NOT_FOUND");
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    refused(register(&world, &kit.resource_id, "box 1").await, Code::FailedPrecondition, "RESOURCE_KIND");
    let used = pb::ResourceUsage { region_code: "CN-GD".into(), ..usage() };
    let booked =
        pb::IssueGrantRequest { unit_id: id(), session_date: "2026-06-01".into(), ..issue_request(&world, &member, &kit, used) };
    let expected = [("unit_id", "UNIT_NOT_TAKEN"), ("session_date", "SESSION_DATE_NOT_TAKEN")];
    assert_eq!(violations(issue(&world, booked).await), expected.map(|(f, r)| (f.to_owned(), r.to_owned())));

    // A seat is booked for its day.
    let session = pb::InformationPrivilegeCost {
        session: Some(fen(900_000)),
        planned_seats: 12,
        seat_rate: "85".into(),
        agreement_rate: "40".into(),
    };
    let board = resource(&world, Inclusive, "board", Model::InformationPrivilege(session)).await;
    let seat = register(&world, &board.resource_id, "seat 1").await.expect("a unit");
    let request = || pb::IssueGrantRequest {
        request_id: id(),
        unit_id: seat.unit_id.clone(),
        session_date: "2026-06-20".into(),
        nda_reference: "nda-7".into(),
        embargo_until_time: Some(in_days(30)),
        ..issue_request(&world, &member, &board, usage())
    };
    let grant = issue(&world, request()).await.expect("issued");
    assert_eq!((grant.nda_reference.as_str(), grant.embargo_until_time), ("nda-7", Some(in_days(30))));
    refused(issue(&world, request()).await, Code::FailedPrecondition, "BOOKING_OVERLAPS");
    let other_car = pb::IssueGrantRequest { unit_id: seat.unit_id.clone(), ..issue_request(&world, &member, &car, loan()) };
    refused(issue(&world, other_car).await, Code::NotFound, "UNIT_NOT_FOUND");
    let secret = pb::IssueGrantRequest { nda_reference: String::new(), ..request() };
    refused(issue(&world, secret).await, Code::FailedPrecondition, "NDA_REQUIRED");
    let mut bookings = Bookings::new(world.budget.channel());
    let request = pb::ListUnitsRequest {
        programme_id: world.programme.clone(),
        resource_id: board.resource_id.clone(),
        page_size: 0,
        page_token: String::new(),
    };
    assert_eq!(bookings.list_units(request).await.expect("a page").into_inner().units, [seat]);
}
