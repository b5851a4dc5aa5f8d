use super::*;
use crate::domain::cost::{
    depreciation::{Method, Point},
    model::{
        DigitalCost, EarlyAccessCost, GiftCardCost, GiftKitCost, InformationPrivilegeCost, LoanVehicleCost, Opportunity,
        PaidBoostCost, ProductionCrewCost, RegionalEventCost, StipendCost, TaxBearer, TaxRule, TravelCost,
    },
    parse_date,
    rate_table::{
        TableKind,
        tests::{table, text},
    },
    usage::Incident,
};
use proptest::prelude::*;
use rust_decimal::dec;

fn cny() -> Currency {
    Currency::from_code("CNY").expect("CNY is a currency")
}

fn day(text: &str) -> NaiveDate {
    parse_date("day", text).expect("a day")
}

fn usage() -> Usage {
    Usage {
        date: day("2026-06-01"),
        quantity: None,
        region_code: None,
        start_date: None,
        end_date: None,
        kilometres: None,
        incidents: Vec::new(),
        guests: None,
        active_users: None,
        months: None,
        media_spend: None,
        tax_category: None,
    }
}

fn tables() -> Vec<RateTable> {
    vec![
        table("kit.production", TableKind::Steps, &[text("", "1", "95"), text("", "500", "68"), text("", "2000", "52.5")]),
        table("shipping.cn", TableKind::Keyed, &[text("CN-GD", "", "12"), text("CN-XJ", "", "28.5")]),
        table("car.km", TableKind::Keyed, &[text("energy", "", "0.18"), text("tyres", "", "0.06")]),
        table("transport.cn", TableKind::Keyed, &[text("CN-SH", "", "1200")]),
        table("tax.example", TableKind::Withholding, &[text("PRIZE", "0", "0.2")]),
    ]
}

fn run(model: &CostModel, usage: &Usage) -> Result<Estimate, CostError> {
    estimate(model, 3, usage, &tables(), cny())
}

fn amounts(estimate: &Estimate) -> Vec<(&str, i64)> {
    estimate.items.iter().map(|item| (item.name.as_str(), item.amount)).collect()
}

fn figure(estimate: &Estimate, name: &str) -> Option<Decimal> {
    estimate.figures.iter().find(|figure| figure.name == name).map(|figure| figure.value)
}

#[track_caller]
fn broken(model: &CostModel, usage: &Usage) -> Vec<(String, String)> {
    match run(model, usage) {
        Err(CostError::Invalid(violations)) => violations.into_iter().map(|v| (v.field, v.rule)).collect(),
        other => panic!("violations were expected: {other:?}"),
    }
}

fn badges() -> DigitalCost {
    DigitalCost {
        development: dec!(480_000),
        amortisation_months: None,
        in_service_date: day("2026-01-01"),
        monthly_run: dec!(8_000),
        user_rate: dec!(0.05),
        block: None,
        user_value_rate: Some(dec!(0.6)),
    }
}

fn kit() -> GiftKitCost {
    GiftKitCost {
        design: dec!(60_000),
        proofing: dec!(9_000),
        planned_units: 1_000,
        production_table_id: "kit.production".into(),
        storage_rate: dec!(0.8),
        storage_months: None,
        shipping_table_id: "shipping.cn".into(),
    }
}

fn car() -> LoanVehicleCost {
    LoanVehicleCost {
        price: dec!(300_000),
        salvage: Some(dec!(135_000)),
        life_months: 36,
        in_service_date: day("2026-01-01"),
        depreciation_method: Method::StraightLine,
        residual_curve: Vec::new(),
        opportunity_cost: Opportunity::CapitalRecovery { annual_share: None },
        annual_insurance: dec!(7_800),
        annual_tax: dec!(0),
        annual_maintenance: dec!(4_800),
        annual_repair: dec!(3_000),
        kilometre_table_id: "car.km".into(),
        utilisation_share: None,
    }
}

fn loan() -> Usage {
    Usage { start_date: Some(day("2026-06-10")), end_date: Some(day("2026-07-10")), ..usage() }
}

/// The example of a badge system: 480,000 over 24 months, 8,000 a month, 0.05 a user.
#[test]
fn a_digital_asset_costs_what_uptake_makes_it() {
    let used = Usage { quantity: Some(10_000), active_users: Some(20_000), ..usage() };
    let found = run(&CostModel::HonourSystem(badges()), &used).expect("an estimate");
    let items = [("issue", 0), ("development", 2_000_000), ("run", 800_000), ("users", 100_000)];
    assert_eq!(amounts(&found), items);
    assert_eq!((found.full(), found.marginal(), found.cash(), found.non_cash()), (2_900_000, 100_000, 900_000, 2_000_000));
    assert_eq!(figure(&found, "unit_cost"), Some(dec!(1.45)));
    assert_eq!(figure(&found, "break_even_active_users"), Some(dec!(50_910)));
    assert!(found.assumptions.contains(&Assumption { name: "amortisation_months".into(), value: "24".into(), is_default: true }));

    let nobody = run(&CostModel::HonourSystem(badges()), &Usage { active_users: Some(0), ..usage() }).expect("an estimate");
    assert_eq!((figure(&nobody, "unit_cost"), nobody.full()), (None, 2_800_000));
    // A digital asset is written off after 6 months, of which 5 are over; capacity comes in blocks.
    let blocks = DigitalCost { block: Some((15_000, dec!(300))), user_value_rate: None, ..badges() };
    let used = Usage { active_users: Some(20_000), months: Some(3), ..usage() };
    let found = run(&CostModel::DigitalAsset(blocks), &used).expect("an estimate");
    let items = [("issue", 0), ("development", 8_000_000), ("run", 2_400_000), ("users", 300_000), ("capacity", 180_000)];
    assert_eq!(amounts(&found), items);
    assert_eq!((figure(&found, "marginal_unit_cost"), figure(&found, "break_even_active_users")), (Some(dec!(0.07)), None));
    let early = Usage { date: day("2025-12-31"), active_users: Some(1), ..usage() };
    assert_eq!(broken(&CostModel::HonourSystem(badges()), &early), [("usage.date".to_owned(), "OUT_OF_SERVICE".to_owned())]);
}

#[test]
fn a_gift_kit_takes_the_step_of_its_batch_and_the_rate_of_its_region() {
    let used = Usage { quantity: Some(3), region_code: Some("CN-XJ".into()), ..usage() };
    let found = run(&CostModel::GiftKit(kit()), &used).expect("an estimate");
    let items = [("design", 18_000), ("proofing", 2_700), ("production", 20_400), ("storage", 720), ("shipping", 8_550)];
    assert_eq!(amounts(&found), items);
    assert_eq!((found.cash(), found.non_cash(), found.marginal()), (29_670, 20_700, 29_670));
    let source = &found.items[4].source;
    assert_eq!(source.table, Some(("shipping.cn".into(), 1, day("2026-01-01"))));
    assert_eq!((source.text.as_str(), found.items[0].source.text.as_str()), ("price list", "cost model, version 3"));
    let nowhere = Usage { region_code: Some("CN-XZ".into()), ..used };
    let missing = CostError::RateMissing { table: "shipping.cn".into(), key: "CN-XZ".into(), date: usage().date };
    assert_eq!(run(&CostModel::GiftKit(kit()), &nowhere), Err(missing));
}

#[test]
fn a_usage_says_what_the_kind_takes_and_nothing_else() {
    let wrong = Usage { guests: Some(3), active_users: Some(1), ..usage() };
    let expected =
        [("usage.region_code", "USAGE_REQUIRED"), ("usage.guests", "USAGE_NOT_TAKEN"), ("usage.active_users", "USAGE_NOT_TAKEN")];
    assert_eq!(broken(&CostModel::GiftKit(kit()), &wrong), expected.map(|(f, r)| (f.to_owned(), r.to_owned())));
}

/// 300,000 with 135,000 left after 36 months at 6 %: 5,694.62 a month; with 1,300 more 6,994.62, or 229.96 a day.
#[test]
fn a_car_costs_its_annuity_and_upkeep_for_each_day() {
    let always = LoanVehicleCost { utilisation_share: Some(Decimal::ONE), ..car() };
    let found = run(&CostModel::LoanVehicle(always), &loan()).expect("an estimate");
    assert_eq!(figure(&found, "charge_per_day").map(|rate| rate.round_dp(2)), Some(dec!(229.96)));
    assert_eq!(found.items[0].name, "capital_recovery");
    assert!(found.items.iter().all(|item| item.name != "depreciation"), "an annuity holds depreciation");
    // Held on 85 of 100 days, a day costs more.
    let incidents = vec![Incident { cost: dec!(1_000), fault_share: dec!(0.3) }];
    let used = Usage { kilometres: Some(dec!(1_250.5)), incidents, ..loan() };
    let found = run(&CostModel::LoanVehicle(car()), &used).expect("an estimate");
    assert_eq!(figure(&found, "charge_per_day").map(|rate| rate.round_dp(2)), Some(dec!(270.54)));
    let items = [
        ("capital_recovery", 660_778),
        ("insurance", 75_423),
        ("tax", 0),
        ("maintenance", 46_414),
        ("repair", 29_009),
        ("energy", 22_509),
        ("tyres", 7_503),
        ("incident", 30_000),
    ];
    assert_eq!(amounts(&found), items);
    assert_eq!((found.marginal(), found.non_cash()), (60_012, 660_778));
}

#[test]
fn a_car_has_one_opportunity_cost_and_days_cost_what_their_month_of_life_does() {
    // The first month by digits takes 165,000 × 36 / 666, the second 165,000 × 35 / 666: 8,918.92 and 8,671.17.
    let digits = LoanVehicleCost {
        depreciation_method: Method::SumOfDigits,
        opportunity_cost: Opportunity::CapitalCharge { annual_share: Some(dec!(0.12)) },
        utilisation_share: Some(Decimal::ONE),
        ..car()
    };
    let used = Usage { start_date: Some(day("2026-01-31")), end_date: Some(day("2026-02-03")), ..usage() };
    let found = run(&CostModel::LoanVehicle(digits), &used).expect("an estimate");
    let rates: Vec<(&str, Decimal, Decimal)> =
        found.items.iter().take(4).map(|i| (i.name.as_str(), i.quantity, i.rate)).collect();
    assert_eq!(
        rates,
        [
            ("depreciation", dec!(1), dec!(293.224767)),
            ("depreciation", dec!(2), dec!(285.079562)),
            ("capital_charge", dec!(1), dec!(97.164013)),
            ("capital_charge", dec!(2), dec!(94.272492)),
        ]
    );
    assert_eq!(found.full() - found.amortised(), 9_716 + 18_854);
    let margin = Opportunity::LostMargin { monthly_margin: dec!(2_000), probability_share: dec!(0.5) };
    let found = run(&CostModel::LoanVehicle(LoanVehicleCost { opportunity_cost: margin, ..car() }), &loan()).expect("one");
    let names: Vec<&str> = found.items.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(names[..2], ["depreciation", "lost_margin"]);
    // At the end of its life a car loses no more, and what is left of it still costs interest.
    let late = Usage { start_date: Some(day("2029-02-01")), end_date: Some(day("2029-02-02")), ..usage() };
    let found = run(&CostModel::LoanVehicle(car()), &late).expect("an estimate");
    assert_eq!((found.items[0].amount, figure(&found, "book_value")), (2_611, Some(dec!(135_000))));
}

#[test]
fn a_loan_lies_in_the_life_of_the_car_and_has_days() {
    let model = CostModel::LoanVehicle(car());
    let early = Usage { start_date: Some(day("2025-12-31")), ..loan() };
    assert_eq!(broken(&model, &early), [("usage.start_date".to_owned(), "OUT_OF_SERVICE".to_owned())]);
    let empty = Usage { end_date: Some(day("2026-06-10")), ..loan() };
    assert_eq!(broken(&model, &empty), [("usage.end_date".to_owned(), "PERIOD_EMPTY".to_owned())]);
    let long = Usage { end_date: Some(day("2040-06-10")), ..loan() };
    assert_eq!(broken(&model, &long), [("usage.end_date".to_owned(), "PERIOD_TOO_LONG".to_owned())]);
}

#[test]
fn a_car_model_is_checked_as_a_whole() {
    let rules = |car: LoanVehicleCost| -> Vec<(String, String)> {
        let found = CostModel::LoanVehicle(car).check("model").expect_err("broken");
        found.into_iter().map(|v| (v.field, v.rule)).collect()
    };
    let told = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(field, rule)| (format!("model.{field}"), (*rule).to_owned())).collect()
    };
    let point = |month, share| Point { month, share };
    let above = LoanVehicleCost { salvage: Some(dec!(300_000.01)), utilisation_share: Some(Decimal::ZERO), ..car() };
    assert_eq!(rules(above), told(&[("salvage", "SALVAGE_ABOVE_PRICE"), ("utilisation_share", "SHARE_OUT_OF_RANGE")]));
    let mixed = LoanVehicleCost { salvage: None, residual_curve: vec![point(36, dec!(0.5))], ..car() };
    assert_eq!(rules(mixed), told(&[("salvage", "SALVAGE_REQUIRED"), ("residual_curve", "RESIDUAL_CURVE_NOT_TAKEN")]));
    let market = LoanVehicleCost { depreciation_method: Method::MarketCurve, ..car() };
    assert_eq!(rules(market), told(&[("salvage", "SALVAGE_NOT_TAKEN"), ("residual_curve", "RESIDUAL_CURVE_REQUIRED")]));
    for curve in [vec![point(24, dec!(0.6))], vec![point(24, dec!(0.6)), point(36, dec!(0.7))]] {
        let market = LoanVehicleCost { depreciation_method: Method::MarketCurve, salvage: None, residual_curve: curve, ..car() };
        assert_eq!(rules(market), told(&[("residual_curve", "RESIDUAL_CURVE_SHAPE")]));
    }
}

#[test]
fn tax_is_withheld_or_paid_on_top_or_left_open() {
    let rule = |bearer| TaxRule { tax_table_id: "tax.example".into(), tax_category: "PRIZE".into(), tax_bearer: bearer };
    let pay = |bearer| CostModel::Stipend(StipendCost { payment: dec!(800), tax: rule(bearer) });
    let twice = Usage { quantity: Some(2), ..usage() };
    let member = run(&pay(TaxBearer::Member), &twice).expect("an estimate");
    assert_eq!(
        (amounts(&member), member.tax.withheld, member.tax.net),
        (vec![("payment", 160_000)], Some(32_000), Some(128_000))
    );
    let brand = run(&pay(TaxBearer::Brand), &twice).expect("an estimate");
    assert_eq!(amounts(&brand), [("payment", 160_000), ("tax", 40_000)]);
    assert_eq!((brand.tax.withheld, brand.tax.net), (Some(40_000), Some(160_000)));

    let card = GiftCardCost {
        face_value: dec!(100),
        discount_share: Some(dec!(0.05)),
        issuing_rate: Some(dec!(0.3)),
        tax: rule(TaxBearer::Brand),
    };
    let found = run(&CostModel::GiftCard(card.clone()), &twice).expect("an estimate");
    assert_eq!(amounts(&found), [("card", 19_000), ("issuing", 60), ("tax", 5_000)]);
    // No rule for the category, and no table on the day: open, and no figure for it.
    let other = Usage { tax_category: Some("ROYALTY".into()), ..usage() };
    for open in [
        run(&CostModel::GiftCard(card.clone()), &other).expect("an estimate"),
        estimate(&CostModel::GiftCard(card), 1, &usage(), &[], cny()).expect("an estimate"),
    ] {
        assert_eq!((open.tax.status, open.tax.withheld, open.tax.net), (TaxStatus::Undetermined, None, None));
        assert!(open.items.iter().all(|item| item.name != "tax"));
    }
}

#[test]
fn the_other_kinds_are_sums_of_their_rates() {
    let event = RegionalEventCost {
        venue: dec!(30_000),
        set_up: dec!(12_000),
        staff: dec!(8_000),
        catering_rate: dec!(180),
        guest_rate: dec!(60),
        capacity: 80,
    };
    let found = run(&CostModel::RegionalEvent(event.clone()), &Usage { guests: Some(50), ..usage() }).expect("an estimate");
    assert_eq!((found.full(), found.marginal(), figure(&found, "unit_cost")), (6_200_000, 1_200_000, Some(dec!(1_240))));
    let crowded = Usage { guests: Some(81), ..usage() };
    let expected = [("usage.guests".to_owned(), "CAPACITY_EXCEEDED".to_owned())];
    assert_eq!(broken(&CostModel::RegionalEvent(event), &crowded), expected);

    let travel = TravelCost { transport_table_id: "transport.cn".into(), night_rate: dec!(600), day_rate: dec!(150) };
    let used = Usage {
        quantity: Some(2),
        region_code: Some("CN-SH".into()),
        start_date: Some(day("2026-06-01")),
        end_date: Some(day("2026-06-04")),
        ..usage()
    };
    let found = run(&CostModel::Travel(travel), &used).expect("an estimate");
    assert_eq!(amounts(&found), [("transport", 240_000), ("nights", 240_000), ("allowance", 90_000)]);

    let crew = ProductionCrewCost { day_rate: dec!(4_500), equipment_rate: dec!(1_200), job: dec!(2_000) };
    let found = run(&CostModel::ProductionCrew(crew), &Usage { region_code: None, quantity: None, ..used }).expect("one");
    assert_eq!(amounts(&found), [("crew", 1_350_000), ("equipment", 360_000), ("job", 200_000)]);

    let access = EarlyAccessCost { preparation: dec!(10_000), planned_members: 30, member_rate: dec!(20) };
    let found = run(&CostModel::EarlyAccess(access), &usage()).expect("an estimate");
    assert_eq!((amounts(&found), found.cash()), (vec![("preparation", 33_333), ("access", 2_000)], 2_000));

    let session =
        InformationPrivilegeCost { session: dec!(9_000), planned_seats: 12, seat_rate: dec!(85), agreement_rate: dec!(40) };
    let found = run(&CostModel::InformationPrivilege(session), &usage()).expect("an estimate");
    assert_eq!(amounts(&found), [("session", 75_000), ("seat", 8_500), ("agreement", 4_000)]);

    let boost = PaidBoostCost { fee_share: dec!(0.08), set_up: dec!(500) };
    let found = run(&CostModel::PaidBoost(boost), &Usage { media_spend: Some(dec!(12_345.67)), ..usage() }).expect("one");
    assert_eq!(amounts(&found), [("media", 1_234_567), ("fee", 98_765), ("set_up", 50_000)]);
}

#[test]
fn what_no_ledger_could_hold_is_refused() {
    let dear = PaidBoostCost { fee_share: Decimal::ONE, set_up: dec!(50_000_000_000_000_000) };
    let used = Usage { media_spend: Some(dec!(50_000_000_000_000_000)), ..usage() };
    assert_eq!(broken(&CostModel::PaidBoost(dear), &used), [("usage".to_owned(), "AMOUNT_TOO_LARGE".to_owned())]);
}

#[test]
fn an_estimate_and_its_model_survive_being_stored() {
    let model = CostModel::LoanVehicle(car());
    let found = run(&model, &loan()).expect("an estimate");
    let json = serde_json::to_value((&model, &found, &loan())).expect("JSON");
    assert_eq!(serde_json::from_value::<(CostModel, Estimate, Usage)>(json).expect("the same"), (model, found, loan()));
}

proptest! {
    #[test]
    fn totals_are_the_sums_of_items_and_lie_in_order(
        quantity in 1_i64..100_000, users in 0_i64..1_000_000, days in 1_u64..400, kilometres in 0_i64..1_000_000,
    ) {
        let end = day("2026-06-10") + chrono::Days::new(days);
        let cases = [
            (CostModel::HonourSystem(badges()), Usage { active_users: Some(users), ..usage() }),
            (CostModel::GiftKit(kit()), Usage { quantity: Some(quantity), region_code: Some("CN-GD".into()), ..usage() }),
            (
                CostModel::LoanVehicle(LoanVehicleCost {
                    depreciation_method: Method::DoubleDeclining,
                    opportunity_cost: Opportunity::CapitalCharge { annual_share: None },
                    ..car()
                }),
                Usage { end_date: Some(end), kilometres: Some(Decimal::new(kilometres, 1)), ..loan() },
            ),
        ];
        for (model, usage) in &cases {
            let found = run(model, usage).expect("an estimate");
            prop_assert_eq!(found.full(), found.items.iter().map(|item| item.amount).sum::<i64>());
            prop_assert_eq!(found.full(), found.cash() + found.non_cash());
            prop_assert!(found.marginal() <= found.amortised() && found.amortised() <= found.full());
            for item in &found.items {
                let exact = item.quantity * item.rate * dec!(100);
                prop_assert!((Decimal::from(item.amount) - exact).abs() <= dec!(0.5), "{:?}", item);
            }
            prop_assert_eq!(&run(model, usage).expect("the same"), &found);
        }
    }

    #[test]
    fn more_kits_or_days_never_cost_less_and_more_users_never_cost_more_each(
        quantity in 1_i64..100_000, users in 1_i64..1_000_000, days in 1_u64..300,
    ) {
        let kits = |quantity| {
            let used = Usage { quantity: Some(quantity), region_code: Some("CN-GD".into()), ..usage() };
            run(&CostModel::GiftKit(kit()), &used).expect("an estimate").full()
        };
        prop_assert!(kits(quantity + 1) > kits(quantity));
        let held = |days| {
            let end = day("2026-06-10") + chrono::Days::new(days);
            run(&CostModel::LoanVehicle(car()), &Usage { end_date: Some(end), ..loan() }).expect("an estimate").full()
        };
        prop_assert!(held(days + 1) > held(days));
        let each = |users| {
            let found = run(&CostModel::HonourSystem(badges()), &Usage { active_users: Some(users), ..usage() }).expect("one");
            figure(&found, "unit_cost").expect("users")
        };
        prop_assert!(each(users + 1) <= each(users));
    }
}
