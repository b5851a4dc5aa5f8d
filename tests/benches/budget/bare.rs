//! gRPC with nothing behind it: a method that answers at once, with the messages of a read.

use crate::load::{Caller, Measured, Order, drive};
use koc_proto::koc::budget::v1 as pb;
use std::{
    convert::Infallible,
    net::SocketAddr,
    task::{Context, Poll},
};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, http},
    server::{Grpc, NamedService, UnaryService},
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;

const PATH: &str = "/koc.bench.Bare/Get";

#[derive(Clone)]
struct Bare;

impl NamedService for Bare {
    const NAME: &'static str = "koc.bench.Bare";
}

struct Get;

impl UnaryService<pb::GetReservationRequest> for Get {
    type Response = pb::GetReservationResponse;
    type Future = BoxFuture<Response<Self::Response>, Status>;

    fn call(&mut self, request: Request<pb::GetReservationRequest>) -> Self::Future {
        let pb::GetReservationRequest { programme_id, reservation_id, .. } = request.into_inner();
        let reservation = Some(pb::Reservation { programme_id, reservation_id, ..sample() });
        Box::pin(async move { Ok(Response::new(pb::GetReservationResponse { reservation })) })
    }
}

impl tonic::codegen::Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(ProstCodec::default()).unary(Get, request).await) })
    }
}

/// What a reservation looks like.
fn sample() -> pb::Reservation {
    let money = || Some(koc_proto::google::r#type::Money { currency_code: "CNY".into(), units: 1_234, nanos: 0 });
    let time = Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 123_456_000 });
    pb::Reservation {
        envelope_id: uuid::Uuid::now_v7().to_string(),
        purpose: "assignment/1".into(),
        amount: money(),
        reserved: money(),
        committed: money(),
        spent: money(),
        released: money(),
        expire_time: time,
        create_time: time,
        ..Default::default()
    }
}

pub async fn serve(address: SocketAddr) -> anyhow::Result<()> {
    Ok(Server::builder().tcp_nodelay(true).add_service(Bare).serve(address).await?)
}

struct One {
    client: tonic::client::Grpc<Channel>,
    request: pb::GetReservationRequest,
}

impl Caller for One {
    async fn call(&mut self) -> anyhow::Result<bool> {
        self.client.ready().await?;
        let codec: ProstCodec<pb::GetReservationRequest, pb::GetReservationResponse> = ProstCodec::default();
        self.client.unary(Request::new(self.request.clone()), http::uri::PathAndQuery::from_static(PATH), codec).await?;
        Ok(true)
    }
}

pub async fn load(order: &Order, url: &str) -> anyhow::Result<Measured> {
    let channels = channels(&[url.to_owned()], order.callers).await?;
    let id = || uuid::Uuid::now_v7().to_string();
    let request = pb::GetReservationRequest { programme_id: id(), reservation_id: id() };
    let callers = (0..order.callers)
        .map(|nr| One { client: tonic::client::Grpc::new(channels[nr % channels.len()].clone()), request: request.clone() });
    Ok(drive(order, callers.collect()).await?.0)
}

/// Four connections for many callers, one for few, spread over the addresses.
pub async fn channels(urls: &[String], callers: usize) -> anyhow::Result<Vec<Channel>> {
    let count = if callers < 8 { 1 } else { 4_usize.next_multiple_of(urls.len()) };
    let mut channels = Vec::new();
    for url in urls.iter().cycle().take(count) {
        channels.push(Endpoint::from_shared(url.clone())?.tcp_nodelay(true).connect().await?);
    }
    Ok(channels)
}
