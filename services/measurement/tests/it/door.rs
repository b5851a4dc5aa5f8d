//! Who is let in, and what a retry gets.

use crate::world::{World, at, first_policy, id, refused, yuan};
use futures::{StreamExt, future::join_all};
use koc_chassis::{fault::reason_of, token::all_scopes};
use koc_proto::koc::measurement::v1 as pb;
use koc_tests::token;
use pb::{
    decision_service_client::DecisionServiceClient, feed_service_client::FeedServiceClient,
    observation_service_client::ObservationServiceClient, output_service_client::OutputServiceClient,
    signal_service_client::SignalServiceClient, value_service_client::ValueServiceClient,
};
use std::collections::BTreeSet;
use tonic::{Code, Status};

fn observation() -> pb::Observation {
    crate::world::reading(&id(), pb::Metric::Views, 1, chrono::DateTime::UNIX_EPOCH)
}

fn model_request(world: &World, request_id: &str, units: i64) -> pb::CreateValueModelRequest {
    pb::CreateValueModelRequest {
        programme_id: world.programme.clone(),
        request_id: request_id.to_owned(),
        value_model: Some(pb::ValueModel { value_per_follow: Some(yuan(units)), ..Default::default() }),
        reason: "the brand says so".into(),
    }
}

/// The answer to each method, called with this token.
async fn every_answer(world: &World, token: Option<String>) -> Vec<(&'static str, Result<(), Status>)> {
    let channel = || world.measurement.channel_with(token.clone(), None);
    let programme = || world.programme.clone();
    let (start, end) = (at(world.ago_days(20)), at(world.ago_days(10)));
    let mut answers = Vec::new();
    macro_rules! call {
        ($client:ident, $method:ident, $request:expr) => {
            answers.push((stringify!($method), $client::new(channel()).$method($request).await.map(drop)))
        };
    }
    call!(OutputServiceClient, get_output, pb::GetOutputRequest { programme_id: programme(), output_id: id() });
    call!(OutputServiceClient, list_outputs, pb::ListOutputsRequest { programme_id: programme(), ..Default::default() });
    let batch = pb::BatchRecordObservationsRequest { programme_id: programme(), observations: vec![observation()] };
    call!(ObservationServiceClient, batch_record_observations, batch);
    let batch = pb::RecordObservationsRequest { programme_id: programme(), batch_number: 1, observations: vec![observation()] };
    let stream = ObservationServiceClient::new(channel()).record_observations(futures::stream::iter([batch])).await;
    let answer = match stream {
        Ok(answers) => answers.into_inner().next().await.expect("an answer").map(drop),
        Err(status) => Err(status),
    };
    answers.push(("record_observations", answer));
    call!(ValueServiceClient, create_value_model, model_request(world, &id(), 1));
    let value = pb::GetOutputValueRequest { programme_id: programme(), output_id: id(), as_of: None };
    call!(ValueServiceClient, get_output_value, value);
    let value =
        pb::GetMemberValueRequest { programme_id: programme(), member_id: id(), period_start_time: start, period_end_time: end };
    call!(ValueServiceClient, get_member_value, value);
    call!(SignalServiceClient, get_signal, pb::GetSignalRequest { programme_id: programme(), signal_id: id() });
    call!(SignalServiceClient, list_signals, pb::ListSignalsRequest { programme_id: programme(), ..Default::default() });
    let policy = pb::CreateDecisionPolicyRequest {
        programme_id: programme(),
        request_id: id(),
        policy: Some(first_policy()),
        reason: "as before".into(),
    };
    call!(DecisionServiceClient, create_decision_policy, policy);
    let round = pb::RunDecisionsRequest {
        programme_id: programme(),
        request_id: id(),
        period_start_time: start,
        period_end_time: end,
        next_period_end_time: at(world.start),
    };
    call!(DecisionServiceClient, run_decisions, round);
    let approval =
        pb::ApproveDecisionRequest { programme_id: programme(), request_id: id(), decision_id: id(), reason: "it is so".into() };
    call!(DecisionServiceClient, approve_decision, approval);
    call!(DecisionServiceClient, get_decision, pb::GetDecisionRequest { programme_id: programme(), decision_id: id() });
    call!(DecisionServiceClient, list_decisions, pb::ListDecisionsRequest { programme_id: programme(), ..Default::default() });
    call!(DecisionServiceClient, replay_decision, pb::ReplayDecisionRequest { programme_id: programme(), decision_id: id() });
    call!(FeedServiceClient, list_changes, pb::ListChangesRequest { programme_id: programme(), ..Default::default() });
    call!(FeedServiceClient, watch_changes, pb::WatchChangesRequest { programme_id: programme(), after_position: 0 });
    answers
}

/// How each method answered, when all answered alike.
async fn all_told(world: &World, token: Option<String>) -> BTreeSet<(String, String)> {
    let answers = every_answer(world, token).await;
    assert_eq!(answers.len(), 17);
    let told = |(method, answer): (&str, Result<(), Status>)| {
        let status = answer.expect_err(method);
        (format!("{:?}", status.code()), reason_of(&status))
    };
    answers.into_iter().map(told).collect()
}

#[tokio::test]
async fn nobody_comes_in_without_a_token_a_scope_and_the_programme() {
    let world = World::new().await;
    let alike = |code: &str, reason: &str| BTreeSet::from([(code.to_owned(), reason.to_owned())]);
    assert_eq!(all_told(&world, None).await, alike("Unauthenticated", "TOKEN_MISSING"));
    let mine = [world.programme.clone()];
    let other_scope = token::token("shop", &["budget.plan.read"], &mine);
    assert_eq!(all_told(&world, Some(other_scope)).await, alike("PermissionDenied", "SCOPE_MISSING"));
    let other_programme = token::token("shop", &all_scopes(), &[id()]);
    assert_eq!(all_told(&world, Some(other_programme)).await, alike("PermissionDenied", "PROGRAMME_DENIED"));
    assert_eq!(world.count("SELECT count(*) FROM value_model").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM decision_policy").await, 1);

    // With all three each method does its work, or knows nothing of the ids it was asked about.
    let good = token::token("shop", &all_scopes(), &mine);
    for (method, answer) in every_answer(&world, Some(good)).await {
        assert!(
            answer.as_ref().is_ok_and(|()| true) || answer.as_ref().is_err_and(|s| s.code() == Code::NotFound),
            "{method}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_and_another_body_none() {
    let world = World::new().await;
    let request_id = id();
    let request = model_request(&world, &request_id, 3);
    let answers = join_all((0..4).map(|_| {
        let (mut values, request) = (world.values(), request.clone());
        async move { values.create_value_model(request).await.expect("a model").into_inner().value_model.unwrap_or_default() }
    }))
    .await;
    assert!(answers.iter().all(|model| model.version == 2 && *model == answers[0]), "{answers:?}");
    let next = world.values().create_value_model(model_request(&world, &id(), 4)).await.expect("a model").into_inner();
    assert_eq!(next.value_model.unwrap_or_default().version, 3);
    let again = world.values().create_value_model(request).await.expect("replayed").into_inner();
    assert_eq!(again.value_model.unwrap_or_default(), answers[0]);
    let other = world.values().create_value_model(model_request(&world, &request_id, 5)).await;
    refused(other, Code::InvalidArgument, "REQUEST_ID_REUSED");
    assert_eq!(world.count("SELECT count(*) FROM value_model").await, 3);
}
