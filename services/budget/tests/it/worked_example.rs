//! The worked example of `services/budget/COSTS.md`: the figures there, by EstimateCost, and in the ledger after fulfilment. Each figure
//! that is asserted here stands there too, computed by hand.

use crate::{catalogue::*, granting::*, world::*};
use koc_proto::koc::{
    budget::v1::{self as pb, ResourceClass::Inclusive, cost_model::Model},
    registry::v1::{TrustLevel, ValueType},
};

/// The page, against which the figures are checked.
const PAGE: &str = include_str!("../../COSTS.md");

/// Checks that a figure in fen stands on the page, as yuan.
#[track_caller]
fn on_page(fen: i64) -> i64 {
    let (yuan, rest) = (fen / 100, fen % 100);
    let grouped: Vec<String> =
        yuan.to_string().as_bytes().rchunks(3).rev().map(|digits| String::from_utf8(digits.to_vec()).expect("digits")).collect();
    let text = format!("{}.{rest:02}", grouped.join(","));
    assert!(PAGE.contains(&text), "{text} is not on the page");
    fen
}

#[tokio::test]
async fn the_loan_car_kit_wallpapers_and_event_cost_what_the_page_says() {
    let mut world = World::new().await;
    world.envelope = world.envelope_of(20_000_000).await;
    example_tables(&world).await;
    let member = member(&world, TrustLevel::Partner).await;
    label(&world, &member, &[ValueType::Social]).await;
    let mut spent = 0;

    // The car: a month, 1,000 km; it comes back after 28 days with 1,250 km and a scratch of 1,500.00 at half fault.
    let car = resource(&world, Inclusive, "loan car", Model::LoanVehicle(car())).await;
    let unit = register(&world, &car.resource_id, "car 1").await.expect("a unit");
    let planned = estimate(&world, &car.resource_id, loan()).await.expect("an estimate");
    let expected = [
        ("capital_recovery", on_page(660_778)),
        ("insurance", on_page(75_423)),
        ("tax", 0),
        ("maintenance", on_page(46_414)),
        ("repair", on_page(29_009)),
        ("energy", on_page(18_000)),
        ("tyres", on_page(6_000)),
    ];
    assert_eq!(items(&planned), expected);
    assert_eq!(totals(&planned), [on_page(24_000), on_page(174_846), 660_778, on_page(835_624), 835_624]);
    let request = pb::IssueGrantRequest { unit_id: unit.unit_id, ..issue_request(&world, &member, &car, loan()) };
    let grant = issue(&world, request).await.expect("booked");
    let kept = pb::CostEstimate { estimate_id: String::new(), ..grant.estimate.clone().expect("an estimate") };
    assert_eq!(kept, planned);
    assert_eq!(parts(&world.get(&grant.reservation_id).await.expect("a hold")), [174_846, 0, 0, 0]);
    hand_over(&world, &grant.grant_id).await.expect("handed over");
    let scratch = pb::Incident { cost: Some(fen(150_000)), fault_share: "0.5".into() };
    let back = take_back(&world, &grant.grant_id, "2026-07-08", "1250", vec![scratch]).await.expect("back");
    let real = back.restated.expect("restated");
    let expected = [
        ("capital_recovery", on_page(616_726)),
        ("insurance", on_page(70_395)),
        ("tax", 0),
        ("maintenance", on_page(43_320)),
        ("repair", on_page(27_075)),
        ("energy", on_page(22_500)),
        ("tyres", on_page(7_500)),
        ("incident", on_page(75_000)),
    ];
    assert_eq!(items(&real), expected);
    assert_eq!(totals(&real), [on_page(105_000), on_page(245_790), 616_726, on_page(862_516), 862_516]);
    assert_eq!(minor(back.variance.as_ref()), on_page(26_892));
    settle(&world, &grant.grant_id).await.expect("settled");
    spent += 245_790;
    let car_grant = grant.grant_id;
    use pb::MemoAccount::{Consumption, Grants};
    let entries = vec![("capital_recovery".to_owned(), Consumption, 616_726)];
    assert_eq!(memo(&world, &car_grant).await, (entries, vec![(Consumption, -616_726), (Grants, 616_726)]));

    // A kit to Xinjiang.
    let kit = resource(&world, Inclusive, "gift kit", Model::GiftKit(kit())).await;
    receive(&world, &kit.resource_id, 1_000).await.expect("received");
    let used = pb::ResourceUsage { region_code: "CN-XJ".into(), ..usage() };
    let planned = estimate(&world, &kit.resource_id, used.clone()).await.expect("an estimate");
    let expected = [
        ("design", on_page(6_000)),
        ("proofing", on_page(900)),
        ("production", on_page(6_800)),
        ("storage", on_page(240)),
        ("shipping", on_page(2_850)),
    ];
    assert_eq!(
        (items(&planned), totals(&planned)),
        (expected.to_vec(), [on_page(9_890), 9_890, on_page(6_900), on_page(16_790), 16_790])
    );
    let grant = issue(&world, issue_request(&world, &member, &kit, used)).await.expect("issued");
    ship(&world, &grant.grant_id).await.expect("shipped");
    deliver(&world, &grant.grant_id).await.expect("delivered");
    spent += 9_890;
    assert_eq!(memo(&world, &grant.grant_id).await.1, [(Consumption, -6_900), (Grants, 6_900)]);

    // Wallpapers to 10,000, of whom with others 20,000 use them.
    let pack = resource(&world, Inclusive, "wallpapers", Model::DigitalAsset(wallpapers())).await;
    let used = pb::ResourceUsage { quantity: Some(10_000), active_users: Some(20_000), ..usage() };
    let month = estimate(&world, &pack.resource_id, used).await.expect("an estimate");
    let expected = [("issue", 0), ("development", on_page(2_000_000)), ("run", on_page(800_000)), ("users", on_page(100_000))];
    assert_eq!((items(&month), totals(&month)[4]), (expected.to_vec(), on_page(2_900_000)));
    assert_eq!((figure(&month, "unit_cost"), figure(&month, "break_even_active_users")), ("1.45", "50910"));
    let ten_thousand = pb::ResourceUsage { quantity: Some(10_000), ..usage() };
    let request = pb::IssueGrantRequest { envelope_id: String::new(), ..issue_request(&world, &member, &pack, ten_thousand) };
    let grant = issue(&world, request).await.expect("issued");
    fulfil(&world, &grant.grant_id).await.expect("fulfilled");
    assert_eq!(memo(&world, &grant.grant_id).await, (Vec::new(), Vec::new()));

    // An event for 50.
    let event = resource(&world, Inclusive, "event", Model::RegionalEvent(event())).await;
    let used = pb::ResourceUsage { guests: Some(50), ..usage() };
    let planned = estimate(&world, &event.resource_id, used.clone()).await.expect("an estimate");
    let expected = [
        ("venue", on_page(3_000_000)),
        ("set_up", on_page(1_200_000)),
        ("staff", on_page(800_000)),
        ("catering", on_page(900_000)),
        ("guest_supplies", on_page(300_000)),
    ];
    assert_eq!((items(&planned), figure(&planned, "unit_cost")), (expected.to_vec(), "1240"));
    assert_eq!(totals(&planned), [1_200_000, on_page(6_200_000), 0, 6_200_000, 6_200_000]);
    let grant = issue(&world, issue_request(&world, &member, &event, used)).await.expect("issued");
    fulfil(&world, &grant.grant_id).await.expect("fulfilled");
    spent += 6_200_000;

    // In the ledger: what was paid, and nothing held any more; in the memo accounts: what was used up.
    assert_eq!(world.available(&world.envelope).await, 20_000_000 - on_page(spent));
    let open = "SELECT (reserved + committed)::bigint FROM envelope WHERE envelope_id = $1::uuid";
    assert_eq!(world.count(open, &world.envelope).await, 0);
    assert_eq!(memo(&world, "").await.1, [(Consumption, -623_626), (Grants, on_page(623_626))]);
    world.verified().await;
}
