//! Who sends: rows made beforehand, over streams, as many batches under way as are granted.

use anyhow::Context;
use koc_proto::koc::registry::v1::{self as pb, sync_members_request::Message, sync_service_client::SyncServiceClient};
use koc_tests::service::Bearer;
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{service::interceptor::InterceptedService, transport::Endpoint};

/// Rows in a batch.
const BATCH: usize = 500;

/// What is to be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub url: String,
    pub token: String,
    pub programme: String,
    pub run: String,
    pub rows: usize,
    pub streams: usize,
}

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Sent {
    /// From the first batch to the last answer.
    pub seconds: f64,
    pub created: usize,
    pub unchanged: usize,
}

pub async fn send(order: Order) -> anyhow::Result<Sent> {
    let shares: Vec<Vec<Vec<pb::MemberRow>>> = (0..order.streams)
        .map(|nr| {
            let rows: Vec<_> = (0..order.rows).filter(|i| i % order.streams == nr).map(row).collect();
            rows.chunks(BATCH).map(<[_]>::to_vec).collect()
        })
        .collect();
    let channel = Endpoint::from_shared(order.url.clone())?.connect().await?;
    let started = Instant::now();
    let mut streams = JoinSet::new();
    for (nr, batches) in shares.into_iter().enumerate() {
        let bearer = Bearer::new(Some(order.token.clone()), None);
        let client = SyncServiceClient::new(InterceptedService::new(channel.clone(), bearer));
        streams.spawn(stream(client, order.clone(), nr, batches));
    }
    let mut sent = Sent::default();
    while let Some(done) = streams.join_next().await {
        let (created, unchanged) = done??;
        (sent.created, sent.unchanged) = (sent.created + created, sent.unchanged + unchanged);
    }
    sent.seconds = started.elapsed().as_secs_f64();
    Ok(sent)
}

async fn stream(
    mut client: SyncServiceClient<InterceptedService<tonic::transport::Channel, Bearer>>,
    order: Order,
    nr: usize,
    batches: Vec<Vec<pb::MemberRow>>,
) -> anyhow::Result<(usize, usize)> {
    let (messages, receiver) = mpsc::channel(16);
    let say = |message| pb::SyncMembersRequest { programme_id: order.programme.clone(), message: Some(message) };
    let run_name = format!("{}-{nr}", order.run);
    let opening = pb::SyncOpening { source_system: "crm".into(), run_name, ..Default::default() };
    messages.send(say(Message::Open(opening))).await?;
    let mut answers = client.sync_members(ReceiverStream::new(receiver)).await?.into_inner();
    let opened = answers.message().await?.context("the run is opened")?;
    let (mut credit, mut under_way) = (opened.credit, 0);
    let (mut created, mut unchanged) = (0, 0);
    let mut batches = batches.into_iter().zip(1..).peekable();
    loop {
        while under_way < credit && batches.peek().is_some() {
            let Some((rows, batch_number)) = batches.next() else { break };
            messages.send(say(Message::Batch(pb::SyncBatch { batch_number, rows, unread_external_ids: Vec::new() }))).await?;
            under_way += 1;
        }
        if under_way == 0 {
            break;
        }
        let answer = answers.message().await?.context("an answer")?;
        (credit, under_way) = (answer.credit, under_way - 1);
        let became = |outcome| answer.results.iter().filter(|result| result.outcome() == outcome).count();
        created += became(pb::SyncOutcome::Created);
        unchanged += became(pb::SyncOutcome::Unchanged);
    }
    messages.send(say(Message::Close(pb::SyncClosing {}))).await?;
    answers.message().await?.context("the run is closed")?;
    Ok((created, unchanged))
}

/// A person as a CRM tells of one.
fn row(i: usize) -> pb::MemberRow {
    let word = |purpose: pb::ConsentPurpose, granted| pb::Consent { purpose: purpose.into(), granted };
    pb::MemberRow {
        external_id: format!("51{i:08}"),
        source_time: Some(prost_types::Timestamp { seconds: 1_700_000_000 + (i as i64 % 86_400), nanos: 0 }),
        profile: Some(pb::MemberProfile {
            display_name: format!("车主{i}"),
            email: format!("owner{i}@example.com"),
            phone: format!("+861390{i:07}"),
            region_code: ["CN-GD", "CN-SH", "CN-BJ", "CN-ZJ"][i % 4].into(),
            city: ["广州", "上海", "北京", "杭州"][i % 4].into(),
            channels: vec![pb::Channel {
                platform: "XIAOHONGSHU".into(),
                handle: format!("owner{i}"),
                followers: Some(i as i64 % 10_000),
            }],
            vehicles: vec![pb::Vehicle { model: "Aurora E5".into(), vin: format!("LGXTESTV{i:09}") }],
            motivations: Vec::new(),
            tags: vec!["crm".into(), "stage:customer".into()],
            consents: vec![word(pb::ConsentPurpose::Participation, true), word(pb::ConsentPurpose::Contact, i.is_multiple_of(2))],
        }),
        clear_fields: Vec::new(),
        deleted: false,
    }
}
