//! Value profiles, as measurement writes them.

use crate::world::{World, at, consents, id, in_city, named, pairs, refused, violations};
use futures::future::join_all;
use koc_proto::koc::registry::v1 as pb;
use tonic::{Code, Status};

fn score(value_type: pb::ValueType, score: f64) -> pb::ValueScore {
    pb::ValueScore {
        value_type: value_type.into(),
        score,
        confidence: 0.75,
        labelled: score > 0.5,
        evidence_output_ids: vec![id()],
    }
}

fn request(world: &World, member_id: &str, second: i64, scores: Vec<pb::ValueScore>) -> pb::UpdateValueProfileRequest {
    pb::UpdateValueProfileRequest {
        programme_id: world.programme.clone(),
        request_id: id(),
        member_id: member_id.to_owned(),
        scores,
        as_of: Some(at(second)),
        past_return: Some(0.35),
        value_model_version: "2026-1".into(),
    }
}

async fn update(world: &World, request: pb::UpdateValueProfileRequest) -> Result<bool, Status> {
    Ok(world.values().update_value_profile(request).await?.into_inner().updated)
}

async fn get(world: &World, member_id: &str) -> Result<pb::GetValueProfileResponse, Status> {
    let request = pb::GetValueProfileRequest { programme_id: world.programme.clone(), member_id: member_id.to_owned() };
    Ok(world.values().get_value_profile(request).await?.into_inner())
}

#[tokio::test]
async fn a_run_replaces_the_scores_of_the_run_before_and_shows_in_the_member() {
    let world = World::new().await;
    let before = world.member(in_city("广州")).await;
    assert_eq!(get(&world, &before.member_id).await.expect("nothing yet"), Default::default());

    let (content, insight) = (score(pb::ValueType::Content, 0.9), score(pb::ValueType::Insight, 1.0 / 3.0));
    assert!(update(&world, request(&world, &before.member_id, 1, vec![insight.clone(), content.clone()])).await.expect("new"));
    let member = world.get(&before.member_id).await.expect("it is there");
    assert_eq!(member.value_scores, [content.clone(), insight]);
    assert_ne!(member.etag, before.etag);
    assert_eq!((member.profile, &member.tier_id, member.tier_since), (before.profile, &before.tier_id, before.tier_since));

    let social = score(pb::ValueType::Social, 5e-324);
    let later =
        pb::UpdateValueProfileRequest { past_return: None, ..request(&world, &before.member_id, 2, vec![social.clone()]) };
    assert!(update(&world, later.clone()).await.expect("later"));
    let profile = get(&world, &before.member_id).await.expect("a profile");
    assert_eq!((profile.scores, profile.as_of), (vec![social.clone()], Some(at(2))));
    assert_eq!((profile.past_return, profile.value_model_version.as_str()), (None, "2026-1"));

    // The same scores of a later run are no change of the member, but they hold off what lies between.
    let same = request(&world, &before.member_id, 4, vec![social.clone()]);
    let seen = world.get(&before.member_id).await.expect("it is there");
    assert!(update(&world, same).await.expect("later"));
    assert!(!update(&world, request(&world, &before.member_id, 3, vec![content])).await.expect("older"));
    assert_eq!(world.get(&before.member_id).await.expect("it is there"), seen);
    let profile = get(&world, &before.member_id).await.expect("a profile");
    assert_eq!((profile.scores, profile.as_of, profile.past_return), (vec![social], Some(at(4)), Some(0.35)));

    let told = world.told(&before.member_id).await;
    let fields: Vec<_> = told[1..].iter().map(|change| (change.version, change.changed_fields.as_slice())).collect();
    assert_eq!(fields, [(2, &["value_scores".to_owned()][..]), (3, &["value_scores".to_owned()][..])]);
    // A caller's write leaves the scores, and a retry is answered as before.
    world.update(world.update_request(&before.member_id, named("来信"), &["profile.display_name"])).await.expect("updated");
    assert!(update(&world, later).await.expect("a retry"));
    assert_eq!(world.get(&before.member_id).await.expect("it is there").value_scores, seen.value_scores);
}

#[tokio::test]
async fn who_withdrew_consent_to_profiling_is_not_scored() {
    let world = World::new().await;
    let withdrawn = world.member(consents(pb::ConsentPurpose::Profiling, false)).await.member_id;
    let scores = vec![score(pb::ValueType::Content, 0.5)];
    let figures = refused(
        update(&world, request(&world, &withdrawn, 1, scores.clone())).await,
        Code::FailedPrecondition,
        "CONSENT_WITHDRAWN",
    );
    assert_eq!((&figures["subject"], figures["purpose"].as_str()), (&withdrawn, "PROFILING"));
    assert_eq!(get(&world, &withdrawn).await.expect("nothing"), Default::default());
    // Another purpose does not matter, nor does silence.
    let other = world.member(consents(pb::ConsentPurpose::Contact, false)).await.member_id;
    assert!(update(&world, request(&world, &other, 1, scores.clone())).await.expect("scored"));
    let nobody = id();
    refused(update(&world, request(&world, &nobody, 1, scores)).await, Code::NotFound, "MEMBER_NOT_FOUND");
    refused(get(&world, &nobody).await, Code::NotFound, "MEMBER_NOT_FOUND");
}

#[tokio::test]
async fn all_that_a_profile_breaks_is_reported_at_once() {
    let world = World::new().await;
    let member_id = world.member(in_city("广州")).await.member_id;
    let broken = pb::UpdateValueProfileRequest {
        scores: vec![
            pb::ValueScore { score: f64::NAN, confidence: -0.1, value_type: 0, ..Default::default() },
            pb::ValueScore {
                score: 1.000_001,
                confidence: f64::INFINITY,
                value_type: 1,
                evidence_output_ids: vec![id(); 201],
                ..Default::default()
            },
        ],
        as_of: None,
        past_return: Some(f64::NEG_INFINITY),
        value_model_version: String::new(),
        ..request(&world, &member_id, 1, Vec::new())
    };
    assert_eq!(
        violations(update(&world, broken).await),
        pairs([
            ("scores[0].value_type", "enum.not_in"),
            ("scores[0].score", "double.lte"),
            ("scores[0].score", "double.gte"),
            ("scores[0].confidence", "double.gte"),
            ("scores[1].score", "double.lte"),
            ("scores[1].confidence", "double.lte"),
            ("scores[1].evidence_output_ids", "repeated.max_items"),
            ("as_of", "required"),
            ("past_return", "double.finite"),
            ("value_model_version", "string.min_len"),
        ])
    );
    let twice = vec![
        score(pb::ValueType::Content, 0.5),
        pb::ValueScore { evidence_output_ids: vec!["seven".into()], ..score(pb::ValueType::Content, 0.5) },
    ];
    let mut twice = request(&world, &member_id, 1, twice);
    twice.as_of = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    assert_eq!(
        violations(update(&world, twice).await),
        pairs([("as_of", "timestamp"), ("scores[1]", "SCORE_REPEATED"), ("scores[1].evidence_output_ids[0]", "string.uuid"),])
    );
    let none = request(&world, &member_id, 1, Vec::new());
    assert_eq!(violations(update(&world, none).await), pairs([("scores", "repeated.min_items")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_runs_at_once_the_newest_stands_and_no_other_write_is_lost() {
    let world = World::new().await;
    let member_id = world.member(in_city("广州")).await.member_id;
    let runs = (1..=10_i32).map(|second| {
        let world = &world;
        let scores = vec![score(pb::ValueType::Content, f64::from(second) / 10.0)];
        let run = request(world, &member_id, i64::from(second), scores);
        let write = world.update_request(
            &member_id,
            pb::MemberProfile { tags: vec![second.to_string()], ..named("来信") },
            &["profile.tags"],
        );
        async move {
            update(world, run).await.expect("answered");
            world.update(write).await.expect("updated");
        }
    });
    join_all(runs).await;
    let profile = get(&world, &member_id).await.expect("a profile");
    assert_eq!(profile.as_of, Some(at(10)));
    let member = world.get(&member_id).await.expect("it is there");
    assert_eq!((member.value_scores, member.profile.unwrap_or_default().tags.len()), (profile.scores, 1));
    let versions: Vec<_> = world.told(&member_id).await.into_iter().map(|change| change.version).collect();
    assert!(versions.len() > 11 && versions.iter().zip(1..).all(|(version, nr)| *version == nr), "{versions:?}");
}
