//! The catalogue: versions, whole cost models, ends, and estimates of every kind.

use crate::{catalogue::*, world::*};
use koc_proto::koc::budget::v1::{self as pb, ResourceClass::Exclusive, ResourceClass::Inclusive, cost_model::Model};
use tonic::{Code, Status};

fn update_request(world: &World, resource: &pb::Resource) -> pb::UpdateResourceRequest {
    pb::UpdateResourceRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        resource_id: resource.resource_id.clone(),
        etag: resource.etag.clone(),
        display_name: String::new(),
        resource_class: pb::ResourceClass::Unspecified.into(),
        cost_model: None,
        reason: "new prices".into(),
    }
}

async fn update(world: &World, request: pb::UpdateResourceRequest) -> Result<pb::Resource, Status> {
    Ok(resources(world, "planner").update_resource(request).await?.into_inner().resource.unwrap_or_default())
}

async fn get(world: &World, resource_id: &str, version: i64) -> Result<pb::Resource, Status> {
    let (programme_id, resource_id) = (world.programme.clone(), resource_id.to_owned());
    let request = pb::GetResourceRequest { programme_id, resource_id, version };
    Ok(resources(world, "anyone").get_resource(request).await?.into_inner().resource.unwrap_or_default())
}

fn retire_request(world: &World, resource_id: &str, date: &str, proceeds: Option<i64>) -> pb::RetireResourceRequest {
    pb::RetireResourceRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        resource_id: resource_id.into(),
        etag: String::new(),
        date: date.into(),
        proceeds: proceeds.map(fen),
        reason: "it was sold".into(),
    }
}

async fn retire(world: &World, request: pb::RetireResourceRequest) -> Result<pb::Resource, Status> {
    Ok(resources(world, "planner").retire_resource(request).await?.into_inner().resource.unwrap_or_default())
}

#[tokio::test]
async fn a_change_makes_a_version_and_earlier_ones_stay_readable() {
    let world = World::new().await;
    let request = resource_request(&world, Exclusive, "long test car", Model::LoanVehicle(car()));
    let first = create(&world, request.clone()).await.expect("a resource");
    assert_eq!((first.kind(), first.state(), first.version), (pb::ResourceKind::LoanVehicle, pb::ResourceState::Active, 1));
    assert_eq!((first.cost_model.clone(), first.set_by.as_str()), (request.cost_model.clone(), "planner"));
    assert_eq!(create(&world, request.clone()).await.expect("the first answer"), first);
    let again = create(&world, pb::CreateResourceRequest { request_id: id(), ..request }).await;
    refused(again, Code::AlreadyExists, "RESOURCE_NAME_TAKEN");

    let dearer = pb::LoanVehicleCost { annual_insurance: Some(fen(900_000)), ..car() };
    let model = Some(pb::CostModel { model: Some(Model::LoanVehicle(dearer)) });
    let change = pb::UpdateResourceRequest { cost_model: model.clone(), ..update_request(&world, &first) };
    let second = update(&world, change.clone()).await.expect("a version");
    assert_eq!((second.version, second.reason.as_str(), second.display_name.as_str()), (2, "new prices", "long test car"));
    assert_eq!((&second.cost_model, second.resource_class()), (&model, Exclusive));
    let late = pb::UpdateResourceRequest { request_id: id(), ..change.clone() };
    refused(update(&world, late).await, Code::Aborted, "ETAG_MISMATCH");
    let other = Some(pb::CostModel { model: Some(Model::GiftKit(kit())) });
    let other = pb::UpdateResourceRequest { cost_model: other, ..update_request(&world, &second) };
    let figures = refused(update(&world, other).await, Code::FailedPrecondition, "RESOURCE_KIND");
    assert_eq!(figures["kind"], "LOAN_VEHICLE");

    let of = first.resource_id.as_str();
    assert_eq!(get(&world, of, 0).await.expect("the newest"), second);
    let old = get(&world, of, 1).await.expect("the first");
    assert_eq!((old.version, old.cost_model), (1, first.cost_model));
    refused(get(&world, of, 3).await, Code::NotFound, "RESOURCE_NOT_FOUND");
    refused(get(&world, &id(), 0).await, Code::NotFound, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn all_that_is_wrong_with_a_cost_model_is_told_at_once() {
    let world = World::new().await;
    let broken = pb::LoanVehicleCost {
        salvage: Some(fen(30_000_001)),
        in_service_date: "2026-02-30".into(),
        annual_tax: Some(fen(-1)),
        annual_repair: Some(koc_proto::google::r#type::Money { currency_code: "USD".into(), units: 1, nanos: 0 }),
        utilisation_share: "1.2".into(),
        ..car()
    };
    let told = violations(create(&world, resource_request(&world, Exclusive, "car", Model::LoanVehicle(broken))).await);
    let at = |field: &str, rule: &str| (format!("cost_model.loan_vehicle.{field}"), rule.to_owned());
    assert_eq!(
        told,
        [
            at("in_service_date", "DATE_INVALID"),
            at("annual_tax", "AMOUNT_NEGATIVE"),
            at("annual_repair.currency_code", "CURRENCY_MISMATCH"),
            at("utilisation_share", "SHARE_OUT_OF_RANGE"),
        ]
    );
    // What concerns several fields is judged when each is whole.
    let above = pb::LoanVehicleCost { salvage: Some(fen(30_000_001)), ..car() };
    let told = violations(create(&world, resource_request(&world, Exclusive, "car", Model::LoanVehicle(above))).await);
    assert_eq!(told, [at("salvage", "SALVAGE_ABOVE_PRICE")]);
    // The contract's own rules reach into the kind.
    let lifeless = pb::LoanVehicleCost { life_months: 0, opportunity_cost: Some(pb::OpportunityCost::default()), ..car() };
    let told = violations(create(&world, resource_request(&world, Exclusive, "car", Model::LoanVehicle(lifeless))).await);
    let expected = [at("life_months", "int.gte"), at("opportunity_cost.method", "required")];
    assert_eq!(told, expected);
    let none = resource_request(&world, Exclusive, "car", Model::GiftKit(kit()));
    let none = pb::CreateResourceRequest { cost_model: Some(pb::CostModel::default()), ..none };
    assert_eq!(violations(create(&world, none).await), [("cost_model.model".to_owned(), "required".to_owned())]);
    let half = pb::DigitalCost { block_users: 5, user_rate: "1e3".into(), ..wallpapers() };
    let told = violations(create(&world, resource_request(&world, Inclusive, "pack", Model::DigitalAsset(half))).await);
    let at = |field: &str, rule: &str| (format!("cost_model.digital_asset.{field}"), rule.to_owned());
    assert_eq!(told, [at("user_rate", "RATE_MALFORMED"), at("block", "BLOCK_INCOMPLETE")]);
}

#[tokio::test]
async fn a_resource_ends_with_a_gain_or_a_loss_on_what_is_in_the_books() {
    let world = World::new().await;
    let car = resource(&world, Exclusive, "car", Model::LoanVehicle(car())).await;
    // Twelve months of (300,000 − 135,000) / 36 = 4,583.33 are off.
    let request = retire_request(&world, &car.resource_id, "2027-01-01", Some(24_000_000));
    let ended = retire(&world, request.clone()).await.expect("retired");
    let end = ended.retirement.clone().expect("an end");
    let figures = [&end.book_value, &end.proceeds, &end.gain].map(|money| minor(money.as_ref()));
    assert_eq!((ended.state(), figures), (pb::ResourceState::Retired, [24_500_004, 24_000_000, -500_004]));
    assert_eq!(retire(&world, request).await.expect("the first answer"), ended);
    let again = retire(&world, retire_request(&world, &car.resource_id, "2027-01-01", None)).await;
    refused(again, Code::FailedPrecondition, "RESOURCE_RETIRED");
    let change = update(&world, update_request(&world, &ended)).await;
    refused(change, Code::FailedPrecondition, "RESOURCE_RETIRED");

    // What is not amortised of a digital asset is written off: 21 of 24 months of 20,000.
    let pack = resource(&world, Inclusive, "pack", Model::DigitalAsset(wallpapers())).await;
    let end = retire(&world, retire_request(&world, &pack.resource_id, "2026-04-15", None)).await.expect("retired").retirement;
    assert_eq!(minor(end.expect("an end").gain.as_ref()), -42_000_000);
    let box_ = resource(&world, Inclusive, "box", Model::GiftKit(kit())).await;
    let sold = retire(&world, retire_request(&world, &box_.resource_id, "2026-04-15", Some(1))).await;
    assert_eq!(violations(sold), [("proceeds".to_owned(), "PROCEEDS_NOT_TAKEN".to_owned())]);
    let end = retire(&world, retire_request(&world, &box_.resource_id, "2026-04-15", None)).await.expect("retired").retirement;
    let end = end.expect("an end");
    assert_eq!((end.book_value, end.proceeds, end.gain), (None, None, None));
    let audit = "SELECT count(*) FROM audit_entry WHERE subject_id = $1::uuid AND reason = 'it was sold'";
    assert_eq!(world.count(audit, &car.resource_id).await, 1);
}

#[tokio::test]
async fn resources_are_listed_by_kind_and_state_page_by_page() {
    let world = World::new().await;
    let car = resource(&world, Exclusive, "car", Model::LoanVehicle(car())).await;
    let pack = resource(&world, Inclusive, "pack", Model::DigitalAsset(wallpapers())).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    retire(&world, retire_request(&world, &pack.resource_id, "2026-04-15", None)).await.expect("retired");
    let list = async |kind: pb::ResourceKind, state: pb::ResourceState, page_size: i32, page_token: String| {
        let request = pb::ListResourcesRequest {
            programme_id: world.programme.clone(),
            kind: kind.into(),
            state: state.into(),
            page_size,
            page_token,
        };
        let page = resources(&world, "anyone").list_resources(request).await?.into_inner();
        let ids: Vec<String> = page.resources.into_iter().map(|resource| resource.resource_id).collect();
        Ok::<_, Status>((ids, page.next_page_token))
    };
    let (every, any) = (pb::ResourceKind::Unspecified, pb::ResourceState::Unspecified);
    let (first, token) = list(every, any, 2, String::new()).await.expect("a page");
    assert_eq!(first, [car.resource_id.clone(), pack.resource_id.clone()]);
    let (second, end) = list(every, any, 2, token.clone()).await.expect("a page");
    assert_eq!((second, end.as_str()), (vec![kit.resource_id.clone()], ""));
    let other = list(pb::ResourceKind::GiftKit, any, 2, token).await;
    assert_eq!(violations(other), [("page_token".to_owned(), "PAGE_TOKEN_INVALID".to_owned())]);
    let (kits, _) = list(pb::ResourceKind::GiftKit, any, 0, String::new()).await.expect("a page");
    assert_eq!(kits, [kit.resource_id]);
    let (retired, _) = list(every, pb::ResourceState::Retired, 0, String::new()).await.expect("a page");
    assert_eq!(retired, [pack.resource_id]);
    let programme_id = world.create_programme("CNY").await;
    let request = pb::ListResourcesRequest { programme_id, ..Default::default() };
    let none = resources(&world, "anyone").list_resources(request).await.expect("a page").into_inner();
    assert_eq!(none.resources, []);
}

#[tokio::test]
async fn an_estimate_names_the_rates_that_count_on_the_day_and_what_it_assumed() {
    let world = World::new().await;
    example_tables(&world).await;
    let kit = resource(&world, Inclusive, "kit", Model::GiftKit(kit())).await;
    let used = pb::ResourceUsage { quantity: Some(3), region_code: "CN-XJ".into(), ..usage() };
    let made = estimate(&world, &kit.resource_id, used.clone()).await.expect("an estimate");
    let expected = [("design", 18_000), ("proofing", 2_700), ("production", 20_400), ("storage", 720), ("shipping", 8_550)];
    assert_eq!((items(&made), totals(&made)), (expected.to_vec(), [29_670, 29_670, 20_700, 50_370, 50_370]));
    assert_eq!(made.usage, Some(used.clone()));
    let shipping = made.items[4].source.clone().expect("a source");
    let from = (shipping.rate_table_id.as_str(), shipping.version, shipping.valid_from_date.as_str(), shipping.source.as_str());
    assert_eq!(from, ("shipping.cn", 1, "2026-01-01", "shipping.cn, list of 2026-01-01"));
    assert_eq!((made.items[0].behaviour(), made.items[0].payment()), (pb::CostBehaviour::Fixed, pb::CostPayment::NonCash));
    assert_eq!((made.items[4].quantity.as_str(), made.items[4].rate.as_str()), ("3", "28.5"));
    let assumed: Vec<(&str, &str, bool)> =
        made.assumptions.iter().map(|a| (a.name.as_str(), a.value.as_str(), a.is_default)).collect();
    assert_eq!(assumed, [("quantity", "3", false), ("storage_months", "3", true), ("planned_units", "1000", false)]);
    assert_eq!(made.tax.as_ref().expect("a word on tax").status(), pb::TaxStatus::NotTaxed);

    // A later list counts from its day on, and changes nothing before.
    let rows = vec![row("CN-XJ", "", "30")];
    let kind = pb::RateTableKind::Keyed;
    set_table(&world, table_request(&world, "shipping.cn", kind, "2026-07-01", rows)).await.expect("a version");
    assert_eq!(estimate(&world, &kit.resource_id, used.clone()).await.expect("the same"), made);
    let later = pb::ResourceUsage { date: "2026-07-01".into(), ..used.clone() };
    let made = estimate(&world, &kit.resource_id, later).await.expect("an estimate");
    assert_eq!((items(&made)[4], made.items[4].source.as_ref().map_or(0, |s| s.version)), (("shipping", 9_000), 2));

    for (usage, table, key) in [
        (pb::ResourceUsage { region_code: "CN-XZ".into(), ..used.clone() }, "shipping.cn", "CN-XZ"),
        (pb::ResourceUsage { date: "2025-12-31".into(), ..used.clone() }, "kit.production", ""),
    ] {
        let figures = refused(estimate(&world, &kit.resource_id, usage.clone()).await, Code::FailedPrecondition, "RATE_MISSING");
        let told = (figures["subject"].as_str(), figures["key"].as_str(), figures["date"].as_str());
        assert_eq!(told, (table, key, usage.date.as_str()));
    }
    let wrong = pb::ResourceUsage { guests: Some(4), kilometres: "-1".into(), date: "2026-13-01".into(), ..usage() };
    let told = violations(estimate(&world, &kit.resource_id, wrong).await);
    let at = |field: &str, rule: &str| (format!("usage.{field}"), rule.to_owned());
    assert_eq!(told, [at("date", "DATE_INVALID"), at("kilometres", "RATE_MALFORMED")]);
    let told = violations(estimate(&world, &kit.resource_id, pb::ResourceUsage { guests: Some(4), ..usage() }).await);
    assert_eq!(told, [at("region_code", "USAGE_REQUIRED"), at("guests", "USAGE_NOT_TAKEN")]);
    refused(estimate(&world, &id(), used).await, Code::NotFound, "RESOURCE_NOT_FOUND");
}

#[tokio::test]
async fn issuing_wallpapers_to_ten_thousand_spends_nothing_and_uptake_makes_the_unit_cost() {
    let world = World::new().await;
    let pack = resource(&world, Inclusive, "pack", Model::DigitalAsset(wallpapers())).await;
    let used = |issued, users| pb::ResourceUsage { quantity: Some(issued), active_users: Some(users), ..usage() };
    let made = estimate(&world, &pack.resource_id, used(10_000, 20_000)).await.expect("an estimate");
    let expected = [("issue", 0), ("development", 2_000_000), ("run", 800_000), ("users", 100_000)];
    assert_eq!((items(&made), totals(&made)), (expected.to_vec(), [100_000, 900_000, 2_000_000, 2_900_000, 2_900_000]));
    assert_eq!((figure(&made, "unit_cost"), figure(&made, "break_even_active_users")), ("1.45", "50910"));
    let more = estimate(&world, &pack.resource_id, used(1_000_000, 20_000)).await.expect("an estimate");
    assert_eq!(totals(&more), totals(&made));
    let popular = estimate(&world, &pack.resource_id, used(10_000, 200_000)).await.expect("an estimate");
    assert_eq!(figure(&popular, "unit_cost"), "0.19");
    let unused = estimate(&world, &pack.resource_id, used(10_000, 0)).await.expect("an estimate");
    assert_eq!(figure(&unused, "unit_cost"), "");
}

#[tokio::test]
async fn every_kind_is_kept_and_estimated() {
    let world = World::new().await;
    example_tables(&world).await;
    let rows = vec![row("CN-SH", "", "1200")];
    let keyed = pb::RateTableKind::Keyed;
    set_table(&world, table_request(&world, "transport.cn", keyed, "2026-01-01", rows)).await.expect("a table");
    let days = pb::ResourceUsage { start_date: "2026-06-01".into(), end_date: "2026-06-04".into(), ..usage() };
    let brand = pb::TaxBearer::Brand.into();
    let (table, category) = ("tax.example".to_owned(), "PRIZE".to_owned());
    let honours = pb::DigitalCost { amortisation_months: 0, ..wallpapers() };
    let stipend = pb::StipendCost {
        payment: Some(fen(80_000)),
        tax_table_id: table.clone(),
        tax_category: category.clone(),
        tax_bearer: brand,
    };
    let card = pb::GiftCardCost {
        face_value: Some(fen(10_000)),
        discount_share: "0.05".into(),
        issuing_rate: String::new(),
        tax_table_id: table,
        tax_category: category,
        tax_bearer: pb::TaxBearer::Member.into(),
    };
    let travel = pb::TravelCost { transport_table_id: "transport.cn".into(), night_rate: "600".into(), day_rate: "150".into() };
    let crew = pb::ProductionCrewCost { day_rate: "4500".into(), equipment_rate: "1200".into(), job: Some(fen(200_000)) };
    let access = pb::EarlyAccessCost { preparation: Some(fen(1_000_000)), planned_members: 30, member_rate: "20".into() };
    let session = pb::InformationPrivilegeCost {
        session: Some(fen(900_000)),
        planned_seats: 12,
        seat_rate: "85".into(),
        agreement_rate: "40".into(),
    };
    let boost = pb::PaidBoostCost { fee_share: "0.08".into(), set_up: Some(fen(50_000)) };
    let kinds = [
        (Model::DigitalAsset(wallpapers()), pb::ResourceUsage { active_users: Some(100), ..usage() }, 2_800_500),
        (Model::HonourSystem(honours), pb::ResourceUsage { active_users: Some(100), ..usage() }, 2_800_500),
        (Model::GiftKit(kit()), pb::ResourceUsage { region_code: "CN-GD".into(), ..usage() }, 15_140),
        (Model::RegionalEvent(event()), pb::ResourceUsage { guests: Some(50), ..usage() }, 6_200_000),
        (Model::Stipend(stipend), usage(), 100_000),
        (Model::GiftCard(card), usage(), 9_500),
        (Model::LoanVehicle(car()), days.clone(), 81_162),
        (Model::Travel(travel), pb::ResourceUsage { region_code: "CN-SH".into(), ..days.clone() }, 285_000),
        (Model::ProductionCrew(crew), days, 1_910_000),
        (Model::EarlyAccess(access), usage(), 35_333),
        (Model::InformationPrivilege(session), usage(), 87_500),
        (Model::PaidBoost(boost), pb::ResourceUsage { media_spend: Some(fen(1_000_000)), ..usage() }, 1_130_000),
    ];
    for (number, (model, used, full)) in kinds.into_iter().enumerate() {
        let kept = resource(&world, Exclusive, &format!("resource {number}"), model.clone()).await;
        assert_eq!(kept.kind() as usize, number + 1);
        assert_eq!(kept.cost_model.and_then(|kept| kept.model), Some(model));
        let made = estimate(&world, &kept.resource_id, used).await.unwrap_or_else(|told| panic!("{number}: {told:?}"));
        assert_eq!(totals(&made)[4], full, "{made:?}");
        assert_eq!(made.items.iter().map(|item| minor(item.amount.as_ref())).sum::<i64>(), full);
    }
}

#[tokio::test]
async fn tax_without_a_rule_is_undetermined_and_never_guessed() {
    let world = World::new().await;
    let stipend = pb::StipendCost {
        payment: Some(fen(80_000)),
        tax_table_id: "tax.example".into(),
        tax_category: "PRIZE".into(),
        tax_bearer: pb::TaxBearer::Member.into(),
    };
    let pay = resource(&world, Exclusive, "pay", Model::Stipend(stipend)).await;
    let tax = async |used: pb::ResourceUsage| {
        estimate(&world, &pay.resource_id, used).await.expect("an estimate").tax.expect("a word on tax")
    };
    assert_eq!(tax(usage()).await.status(), pb::TaxStatus::Undetermined);
    example_tables(&world).await;
    let found = tax(usage()).await;
    assert_eq!(
        (found.status(), minor(found.withheld.as_ref()), minor(found.net.as_ref())),
        (pb::TaxStatus::Determined, 16_000, 64_000)
    );
    assert_eq!(found.source.expect("a source").rate_table_id, "tax.example");
    for open in [
        pb::ResourceUsage { tax_category: "ROYALTY".into(), ..usage() },
        pb::ResourceUsage { date: "2025-12-31".into(), ..usage() },
    ] {
        let found = tax(open).await;
        assert_eq!((found.status(), found.withheld, found.net), (pb::TaxStatus::Undetermined, None, None));
    }
}
