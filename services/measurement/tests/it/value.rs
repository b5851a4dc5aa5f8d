//! What outputs and members were worth, with every figure computed by hand.

use crate::world::{World, at, fen, id, reading, refused, violations, yuan};
use chrono::{DateTime, TimeDelta, Utc};
use koc_proto::{
    google::r#type::Money,
    koc::measurement::v1::{self as pb, Metric},
};
use tonic::{Code, Status};

async fn model(world: &World, value_model: pb::ValueModel) -> Result<pb::ValueModel, Status> {
    let request = pb::CreateValueModelRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        value_model: Some(value_model),
        reason: "the brand says so".into(),
    };
    Ok(world.values().create_value_model(request).await?.into_inner().value_model.unwrap_or_default())
}

pub async fn member_value(
    world: &World,
    member_id: &str,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<pb::MemberValue, Status> {
    let request = pb::GetMemberValueRequest {
        programme_id: world.programme.clone(),
        member_id: member_id.to_owned(),
        period_start_time: at(start),
        period_end_time: at(end),
    };
    Ok(world.values().get_member_value(request).await?.into_inner().member_value.unwrap_or_default())
}

fn close(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a - b).abs() < 1e-9)
}

#[tokio::test]
async fn value_and_return_follow_from_readings_and_model_and_paid_attention_is_no_value() {
    let world = World::new().await;
    let output = world.output(60, yuan(1_000)).await;
    let day = |n: i64| world.ago_days(60) + TimeDelta::days(n);
    let paid = |one: pb::Observation| pb::Observation { paid: true, ..one };
    world
        .record(vec![
            reading(&output, Metric::OrderMargin, 50_000, day(1)),
            reading(&output, Metric::OrderMargin, 120_000, day(10)),
            paid(reading(&output, Metric::OrderMargin, 30_000, day(10))),
            reading(&output, Metric::Views, 12_500, day(10)),
            paid(reading(&output, Metric::Views, 5_000, day(10))),
            reading(&output, Metric::Follows, 40, day(10)),
            paid(reading(&output, Metric::Follows, 10, day(10))),
        ])
        .await;

    // Version 1 knows no worth of a follower and no price of attention: 1,200.00 + 300.00 of margin on 1,000.00 spent.
    let value = world.output_value(&output, None).await.expect("a value");
    assert_eq!((value.value_model_version, fen(value.value.as_ref())), (1, 150_000));
    let parts = |value: &pb::OutputValue| -> Vec<(String, i64, String)> {
        value.components.iter().map(|c| (c.name.clone(), fen(c.amount.as_ref()), c.evidence_grade.clone())).collect()
    };
    assert_eq!(parts(&value), [("attributed_orders".into(), 150_000, "A".into())]);
    assert_eq!((value.media_equivalent.clone(), value.score, value.score_coverage), (None, None, 0.0));
    let cost = value.cost.clone().unwrap_or_default();
    assert_eq!([&cost.marginal, &cost.amortised, &cost.full_tco].map(|c| fen(c.as_ref())), [100_000; 3]);
    assert!(close(value.roi, 0.5), "{:?}", value.roi);

    // What was known on the fifth day: 500.00 on 1,000.00.
    let then = world.output_value(&output, Some(day(5))).await.expect("a value");
    assert_eq!((fen(then.value.as_ref()), then.as_of), (50_000, at(day(5))));
    assert!(close(then.roi, -0.5), "{:?}", then.roi);
    let before = world.output_value(&output, Some(day(-1))).await.expect("a value");
    assert_eq!((fen(before.value.as_ref()), before.components.len()), (0, 0));

    // Version 2: 50 followers at 2.00, 12.5 thousand organic views at 50.00 shown apart, readings of 30 days.
    let asked = pb::ValueModel {
        version: 0,
        value_per_follow: Some(yuan(2)),
        media_price_per_thousand_views: Some(yuan(50)),
        attribution_days: 30,
    };
    let created = model(&world, asked.clone()).await.expect("a model");
    assert_eq!(created, pb::ValueModel { version: 2, ..asked });
    world.record(vec![reading(&output, Metric::OrderMargin, 900_000, day(31))]).await;
    let value = world.output_value(&output, None).await.expect("a value");
    assert_eq!((value.value_model_version, fen(value.value.as_ref())), (2, 160_000));
    let followers = ("new_followers".to_owned(), 10_000, "C".to_owned());
    assert_eq!(parts(&value), [("attributed_orders".into(), 150_000, "A".into()), followers]);
    assert_eq!(fen(value.media_equivalent.as_ref()), 62_500);
    assert!(close(value.roi, 0.6), "{:?}", value.roi);
}

#[tokio::test]
async fn a_members_value_is_that_of_their_outputs_of_the_period_and_nothing_spent_has_no_return() {
    let world = World::new().await;
    let (member, other) = (world.member().await, world.member().await);
    let work = [
        world.settled(&member, 40, yuan(1_000)),
        world.settled(&member, 20, yuan(500)),
        world.settled(&other, 20, yuan(0)),
        world.settled(&member, 5, yuan(70)),
    ];
    let outputs = world.settle(&work).await;
    let margin = |place: usize, value| reading(&outputs[place], Metric::OrderMargin, value, world.ago_days(18));
    let late = reading(&outputs[0], Metric::OrderMargin, 500_000, world.ago_days(8));
    world.record(vec![margin(0, 160_000), margin(1, 10_000), margin(2, 3_000), late]).await;

    // 1,600.00 + 100.00 on 1,000.00 + 500.00; what was read or published after the period is another's.
    let (start, end) = (world.ago_days(45), world.ago_days(10));
    let value = member_value(&world, &member, start, end).await.expect("a value");
    let figures = (value.output_count, fen(value.value.as_ref()), fen(value.cost.as_ref()), value.value_model_version);
    assert_eq!(figures, (2, 170_000, 150_000, 1));
    assert!(close(value.roi, 200.0 / 1_500.0), "{:?}", value.roi);
    // Two outputs of their own, and the weight of five from the cohort.
    let posterior = value.posterior.clone().expect("something was spent");
    assert!((posterior.prior_share - 5.0 / 7.0).abs() < 1e-12);
    assert!(posterior.q05 <= posterior.q50 && posterior.q50 <= posterior.q95);
    assert!(posterior.probability_above_target <= posterior.probability_above_floor);
    assert_eq!(posterior.seed.len(), 64);
    assert_eq!(member_value(&world, &member, start, end).await.expect("a value"), value);

    let second = member_value(&world, &member, world.ago_days(30), end).await.expect("a value");
    assert_eq!((second.output_count, fen(second.value.as_ref()), fen(second.cost.as_ref())), (1, 10_000, 50_000));
    assert!(close(second.roi, -0.8), "{:?}", second.roi);

    let free = member_value(&world, &other, start, end).await.expect("a value");
    assert_eq!((free.output_count, fen(free.value.as_ref()), fen(free.cost.as_ref())), (1, 3_000, 0));
    assert_eq!((free.roi, free.posterior), (None, None));
    let free = world.output_value(&outputs[2], None).await.expect("a value");
    assert_eq!((fen(free.value.as_ref()), free.roi), (3_000, None));
    // A period that goes on is worth what it is worth now, as of now.
    let open = member_value(&world, &member, world.ago_days(30), world.ago_days(-400)).await.expect("a value");
    assert_eq!((open.output_count, fen(open.value.as_ref()), fen(open.cost.as_ref())), (2, 10_000, 57_000));
    assert!(open.posterior.is_some());
    let nobody = member_value(&world, &id(), start, end).await.expect("a value");
    assert_eq!((nobody.output_count, fen(nobody.value.as_ref()), nobody.roi), (0, 0, None));
}

#[tokio::test]
async fn a_score_is_the_place_among_outputs_of_the_same_kind() {
    let world = World::new().await;
    let member = world.member().await;
    let settled: Vec<_> = (0..7).map(|_| world.settled(&member, 20, yuan(10))).collect();
    let outputs = world.settle(&settled).await;
    let views = |place: usize, value| reading(&outputs[place], Metric::Views, value, world.ago_days(10));
    world.record((0..5).map(|place| views(place, 1_000)).collect()).await;

    // Five alike: each in the middle, reach (0.25) and engagement (0.25) of the weights measured.
    let score = |value: &pb::OutputValue| (value.score.unwrap_or(-1.0), value.score_coverage);
    let middle = world.output_value(&outputs[0], None).await.expect("a value");
    let (value, coverage) = score(&middle);
    assert!((value - 50.0).abs() < 1e-9 && (coverage - 0.5).abs() < 1e-9, "{value} {coverage}");

    // Twice the reach: ln(2001/1001) over the least scale of 0.1 is cut at 4; (Φ(4) + 1/2)/2.
    world.record(vec![views(5, 2_000)]).await;
    let (value, _) = score(&world.output_value(&outputs[5], None).await.expect("a value"));
    assert!((value - 100.0 * (0.999_968_328_758_166_9 + 0.5) / 2.0).abs() < 1e-6, "{value}");
    // Nothing read: no score, rather than the lowest.
    let unread = world.output_value(&outputs[6], None).await.expect("a value");
    assert_eq!((unread.score, unread.score_coverage, fen(unread.value.as_ref())), (None, 0.0, 0));
}

#[tokio::test]
async fn a_members_value_is_whole_however_much_the_programme_publishes() {
    let world = World::new().await;
    let member = world.member().await;
    let outputs = world.settle(&[world.settled(&member, 40, yuan(200))]).await;
    world.record(vec![reading(&outputs[0], Metric::OrderMargin, 30_000, world.ago_days(30))]).await;
    // A day of a big programme: more newer outputs than one comparison reads.
    let others = "INSERT INTO output (output_id, programme_id, member_id, assignment_id, brief_id, deliverable_key, deliverable_kind,
            platform, tier_id, publish_time, currency_code, reward_minor, create_time)
        SELECT gen_random_uuid(), $1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 'article', 'DELIVERABLE_KIND_ARTICLE',
            'WEIBO', 'BASE', koc_now() - interval '20 days', 'CNY', 100, koc_now()
        FROM generate_series(1, 5001)";
    let programme: uuid::Uuid = world.programme.parse().expect("an id");
    sqlx::query(others).bind(programme).execute(&world.measurement.database.admin).await.expect("inserted");

    let value = member_value(&world, &member, world.ago_days(50), world.ago_days(10)).await.expect("a value");
    assert_eq!((value.output_count, fen(value.value.as_ref()), fen(value.cost.as_ref())), (1, 30_000, 20_000));
    assert!(close(value.roi, 0.5), "{:?}", value.roi);
    assert!(value.posterior.is_some());
}

#[tokio::test]
async fn what_cannot_be_valued_says_why() {
    let mut world = World::new().await;
    let output = world.output(10, yuan(100)).await;
    let dollars = Money { currency_code: "USD".into(), units: 1, nanos: 0 };
    let too_fine = Money { nanos: 1_000_000, ..yuan(1) };
    let broken =
        pb::ValueModel { value_per_follow: Some(dollars), media_price_per_thousand_views: Some(too_fine), ..Default::default() };
    let rule = |field: &str, rule: &str| (format!("value_model.{field}"), rule.to_owned());
    let expected = [
        rule("value_per_follow.currency_code", "CURRENCY_MISMATCH"),
        rule("media_price_per_thousand_views.nanos", "AMOUNT_TOO_FINE"),
    ];
    assert_eq!(violations(model(&world, broken).await), expected);
    let negative = pb::ValueModel { value_per_follow: Some(yuan(-1)), ..Default::default() };
    assert_eq!(violations(model(&world, negative).await)[0].0, "value_model.value_per_follow");
    let dear = pb::ValueModel { value_per_follow: Some(yuan(40_001)), ..Default::default() };
    assert_eq!(violations(model(&world, dear).await), [rule("value_per_follow", "PRICE_TOO_HIGH")]);
    let endless = pb::ValueModel { attribution_days: 366, ..Default::default() };
    assert_eq!(violations(model(&world, endless).await)[0].0, "value_model.attribution_days");
    let default = model(&world, pb::ValueModel::default()).await.expect("a model");
    assert_eq!((default.version, default.attribution_days), (2, 90));

    // The highest counters at the highest prices are an amount still.
    let top = Some(yuan(40_000));
    let dear = pb::ValueModel { value_per_follow: top.clone(), media_price_per_thousand_views: top, ..Default::default() };
    model(&world, dear).await.expect("a model");
    let most = |metric, value| reading(&output, metric, value, world.ago_days(1));
    let counters = vec![most(Metric::Follows, 1_000_000_000), most(Metric::Views, 1_000_000_000_000_000)];
    world.record(counters).await;
    let value = world.output_value(&output, None).await.expect("a value");
    let amounts = (fen(value.value.as_ref()), fen(value.media_equivalent.as_ref()));
    assert_eq!(amounts, (4_000_000_000_000_000, 4_000_000_000_000_000_000));

    refused(world.output_value(&id(), None).await, Code::NotFound, "OUTPUT_NOT_FOUND");
    let (start, end) = (world.ago_days(10), world.ago_days(20));
    let empty = member_value(&world, &id(), start, end).await;
    assert_eq!(violations(empty), [("period_end_time".to_owned(), "PERIOD_EMPTY".to_owned())]);

    // A programme that nobody knows: another's outputs do not show in it. Whether it is new only the registry can say.
    let home = std::mem::replace(&mut world.programme, id());
    let mut stranger = world;
    refused(model(&stranger, pb::ValueModel::default()).await, Code::NotFound, "PROGRAMME_NOT_FOUND");
    refused(stranger.output_value(&output, None).await, Code::NotFound, "OUTPUT_NOT_FOUND");
    refused(member_value(&stranger, &id(), end, start).await, Code::NotFound, "VALUE_MODEL_NOT_FOUND");
    stranger.registry.stop().await;
    refused(model(&stranger, pb::ValueModel::default()).await, Code::Unavailable, "REGISTRY_UNAVAILABLE");
    let world = World { programme: home, ..stranger };
    assert_eq!(model(&world, pb::ValueModel::default()).await.expect("a model").version, 4);
}
