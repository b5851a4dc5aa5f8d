//! Resources and rate tables as tests set them up.

use crate::world::*;
use koc_proto::koc::budget::v1::{self as pb, cost_model::Model};
use koc_tests::service::TestChannel;
use tonic::Status;

pub type Resources = pb::resource_service_client::ResourceServiceClient<TestChannel>;
pub type RateTables = pb::rate_table_service_client::RateTableServiceClient<TestChannel>;

pub fn resources(world: &World, actor: &str) -> Resources {
    Resources::new(world.budget.channel_of(actor))
}

pub fn rate_tables(world: &World) -> RateTables {
    RateTables::new(world.budget.channel_of("buyer"))
}

pub fn row(key: &str, from: &str, rate: &str) -> pb::RateRow {
    pb::RateRow { key: key.into(), from: from.into(), rate: rate.into(), ..Default::default() }
}

pub fn table_request(
    world: &World,
    id_: &str,
    kind: pb::RateTableKind,
    from: &str,
    rows: Vec<pb::RateRow>,
) -> pb::SetRateTableRequest {
    pb::SetRateTableRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        rate_table_id: id_.into(),
        kind: kind.into(),
        valid_from_date: from.into(),
        source: format!("{id_}, list of {from}"),
        rows,
    }
}

pub async fn set_table(world: &World, request: pb::SetRateTableRequest) -> Result<pb::RateTable, Status> {
    Ok(rate_tables(world).set_rate_table(request).await?.into_inner().rate_table.unwrap_or_default())
}

/// The rates of the examples in COSTS.md, valid from 2026 on.
pub async fn example_tables(world: &World) {
    use pb::RateTableKind::{Keyed, Steps, Withholding};
    for (id, kind, rows) in [
        ("kit.production", Steps, vec![row("", "1", "95"), row("", "500", "68"), row("", "2000", "52.5")]),
        ("shipping.cn", Keyed, vec![row("CN-GD", "", "12"), row("CN-XJ", "", "28.5")]),
        ("car.km", Keyed, vec![row("energy", "", "0.18"), row("tyres", "", "0.06")]),
        ("tax.example", Withholding, vec![row("PRIZE", "0", "0.2")]),
    ] {
        set_table(world, table_request(world, id, kind, "2026-01-01", rows)).await.expect("a table");
    }
}

pub fn resource_request(world: &World, class: pb::ResourceClass, name: &str, model: Model) -> pb::CreateResourceRequest {
    pb::CreateResourceRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        display_name: name.into(),
        resource_class: class.into(),
        cost_model: Some(pb::CostModel { model: Some(model) }),
    }
}

pub async fn create(world: &World, request: pb::CreateResourceRequest) -> Result<pb::Resource, Status> {
    Ok(resources(world, "planner").create_resource(request).await?.into_inner().resource.unwrap_or_default())
}

pub async fn resource(world: &World, class: pb::ResourceClass, name: &str, model: Model) -> pb::Resource {
    create(world, resource_request(world, class, name, model)).await.expect("a resource")
}

pub fn usage() -> pb::ResourceUsage {
    pb::ResourceUsage { date: "2026-06-01".into(), ..Default::default() }
}

pub async fn estimate(world: &World, resource_id: &str, usage: pb::ResourceUsage) -> Result<pb::CostEstimate, Status> {
    let (programme_id, resource_id) = (world.programme.clone(), resource_id.to_owned());
    let request = pb::EstimateCostRequest { programme_id, resource_id, resource_version: 0, usage: Some(usage) };
    Ok(resources(world, "planner").estimate_cost(request).await?.into_inner().estimate.unwrap_or_default())
}

/// Names and amounts of an estimate's items.
pub fn items(estimate: &pb::CostEstimate) -> Vec<(&str, i64)> {
    estimate.items.iter().map(|item| (item.name.as_str(), minor(item.amount.as_ref()))).collect()
}

/// marginal, cash, non-cash, amortised, full.
pub fn totals(estimate: &pb::CostEstimate) -> [i64; 5] {
    let pb::CostEstimate { marginal, cash, non_cash, amortised, full, .. } = estimate;
    [marginal, cash, non_cash, amortised, full].map(|money| minor(money.as_ref()))
}

pub fn figure<'a>(estimate: &'a pb::CostEstimate, name: &str) -> &'a str {
    estimate.figures.iter().find(|figure| figure.name == name).map_or("", |figure| figure.value.as_str())
}

/// Designed for 60,000 and proofed for 9,000, 1,000 of it.
pub fn kit() -> pb::GiftKitCost {
    pb::GiftKitCost {
        design: Some(fen(6_000_000)),
        proofing: Some(fen(900_000)),
        planned_units: 1_000,
        production_table_id: "kit.production".into(),
        storage_rate: "0.8".into(),
        storage_months: String::new(),
        shipping_table_id: "shipping.cn".into(),
    }
}

/// 300,000, of which 135,000 are left after 36 months; 6 % as an annuity.
pub fn car() -> pb::LoanVehicleCost {
    let recovery = pb::CapitalRecovery { annual_share: "0.06".into() };
    let method = pb::opportunity_cost::Method::CapitalRecovery(recovery);
    pb::LoanVehicleCost {
        price: Some(fen(30_000_000)),
        salvage: Some(fen(13_500_000)),
        life_months: 36,
        in_service_date: "2026-01-01".into(),
        depreciation_method: pb::DepreciationMethod::StraightLine.into(),
        residual_curve: Vec::new(),
        opportunity_cost: Some(pb::OpportunityCost { method: Some(method) }),
        annual_insurance: Some(fen(780_000)),
        annual_tax: Some(fen(0)),
        annual_maintenance: Some(fen(480_000)),
        annual_repair: Some(fen(300_000)),
        kilometre_table_id: "car.km".into(),
        utilisation_share: String::new(),
    }
}

/// 480,000 over 24 months, 8,000 a month, 0.05 a user, worth 0.60.
pub fn wallpapers() -> pb::DigitalCost {
    pb::DigitalCost {
        development: Some(fen(48_000_000)),
        amortisation_months: 24,
        in_service_date: "2026-01-01".into(),
        monthly_run: Some(fen(800_000)),
        user_rate: "0.05".into(),
        block_users: 0,
        block: None,
        user_value_rate: "0.6".into(),
    }
}

/// 30,000, 12,000 and 8,000 in any case, 240 a guest, of whom 80 find room.
pub fn event() -> pb::RegionalEventCost {
    pb::RegionalEventCost {
        venue: Some(fen(3_000_000)),
        set_up: Some(fen(1_200_000)),
        staff: Some(fen(800_000)),
        catering_rate: "180".into(),
        guest_rate: "60".into(),
        capacity: 80,
    }
}
