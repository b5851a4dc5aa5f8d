//! MemberFeedService.

use super::{
    convert::{self, Wire},
    standing,
};
use crate::{
    domain::member_feed::{Event, EventKind, Now, Place},
    error::Error,
    flow::follow_members::Follower,
};
use chrono::{DateTime, Utc};
use futures::{Stream, stream};
use koc_chassis::{
    clock,
    fault::{Fault, Violation, Violations},
    feed::{BATCH, Feed, Page},
    gate::{Call, Gate},
    ids::ProgrammeId,
    page,
};
use koc_proto::koc::registry::v1 as pb;
use prost::Message;
use std::{
    collections::{BTreeSet, VecDeque},
    pin::Pin,
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// A stream without events says so this often when its reader names no interval.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Events are put into one message up to this size, and one event in any case: readers take four times as much unless told otherwise.
const MESSAGE_BYTES: usize = 1024 * 1024;

pub struct MemberFeedApi {
    gate: Gate<Error>,
    feed: Feed,
    drain: CancellationToken,
}

/// What both methods are asked for.
struct Asked {
    position: String,
    snapshot: bool,
    kinds: Vec<i32>,
}

impl MemberFeedApi {
    pub fn new(gate: Gate<Error>, feed: Feed, drain: CancellationToken) -> Self {
        Self { gate, feed, drain }
    }

    /// Who reads on, and from where.
    async fn follow(&self, call: &Call, asked: Asked) -> Result<(Follower, Place), Error> {
        let mut violations = Violations::default();
        let place = violations.take(place(call.programme, &asked.position)).flatten();
        if asked.snapshot && !asked.position.is_empty() {
            let rule = "must be empty to begin with a snapshot; one that was begun goes on by its position alone";
            violations.push(Violation::new("position", "POSITION_WITH_SNAPSHOT", rule));
        }
        let mut kinds = BTreeSet::new();
        for (i, number) in asked.kinds.into_iter().enumerate() {
            kinds.extend(violations.take(EventKind::from_wire(&format!("kinds[{i}]"), number)));
        }
        violations.finish()?;
        let follower = Follower::new(self.gate.db().clone(), self.feed.clone(), call.programme, kinds);
        let place = match place {
            None => follower.begin(asked.snapshot).await?,
            Some(place) => follower.check(&place).await.map(|()| place)?,
        };
        Ok((follower, place))
    }

    async fn list(&self, call: Call, request: pb::ListMemberChangesRequest) -> Result<pb::ListMemberChangesResponse, Error> {
        let asked = Asked { position: request.position, snapshot: request.snapshot, kinds: request.kinds };
        let (follower, place) = self.follow(&call, asked).await?;
        let size = page::size(request.page_size);
        let page = self.feed.list(Some(call.programme), place.position, if place.snapshot.is_some() { 1 } else { size }).await?;
        let part = match place.snapshot {
            Some(after) => Part::of_snapshot(&follower, place, after, size).await?,
            None => Part::of_page(&follower, place.epoch, &page).await?,
        };
        Ok(pb::ListMemberChangesResponse {
            position: token(call.programme, &part.place),
            sequence: part.place.position,
            head_sequence: page.head,
            send_time: Some(clock::to_proto(page.time)),
            in_snapshot: part.place.snapshot.is_some(),
            more: part.place.snapshot.is_some() || part.place.position < page.head,
            events: part.events.into_iter().map(event).collect(),
        })
    }
}

/// Some events, and where they lead.
struct Part {
    events: Vec<Event>,
    place: Place,
}

impl Part {
    async fn of_snapshot(follower: &Follower, place: Place, after: Uuid, size: i64) -> Result<Self, Error> {
        let (events, next) = follower.members(&place, after, size).await?;
        Ok(Self { events, place: Place { snapshot: next, ..place } })
    }

    async fn of_page(follower: &Follower, epoch: Uuid, page: &Page) -> Result<Self, Error> {
        let events = follower.join(follower.told(page)?).await?;
        let place = follower.place(epoch, page.through, None).await?;
        Ok(Self { events, place })
    }
}

type Events = Pin<Box<dyn Stream<Item = Result<pb::WatchMembersResponse, Status>> + Send + 'static>>;

#[tonic::async_trait]
impl pb::member_feed_service_server::MemberFeedService for MemberFeedApi {
    type WatchMembersStream = Events;

    async fn watch_members(
        &self,
        request: Request<pb::WatchMembersRequest>,
    ) -> Result<Response<Self::WatchMembersStream>, Status> {
        let (call, request) = self.gate.admit(request)?;
        let heartbeat = match request.heartbeat_seconds {
            0 => HEARTBEAT,
            seconds => Duration::from_secs(seconds.unsigned_abs().into()),
        };
        let asked = Asked { position: request.position, snapshot: request.snapshot, kinds: request.kinds };
        let (follower, place) = self.follow(&call, asked).await.map_err(|error| self.gate.status(&error))?;
        // Waits, two pages ahead, while a snapshot is read before them.
        let pages = self.feed.clone().heartbeat_every(heartbeat).watch(Some(call.programme), place.position);
        let pages = pages.map_err(|fault| self.gate.status(&fault.into()))?;
        let (gate, drain) = (self.gate.clone(), self.drain.clone());
        let watch = Watch { gate, drain, follower, place, pages, ready: VecDeque::new() };
        // Nothing is read for a reader that has not taken what was read before.
        let events = stream::unfold(Some(watch), |watch| async move {
            let mut watch = watch?;
            match watch.next().await {
                Ok(Some(message)) => Some((Ok(message), Some(watch))),
                Ok(None) => None,
                Err(error) => Some((Err(watch.gate.status(&error)), None)),
            }
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_member_changes(
        &self,
        request: Request<pb::ListMemberChangesRequest>,
    ) -> Result<Response<pb::ListMemberChangesResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }

    async fn list_member_standings(
        &self,
        request: Request<pb::ListMemberStandingsRequest>,
    ) -> Result<Response<pb::ListMemberStandingsResponse>, Status> {
        let (programme, request) = self.gate.admit_feed(request)?;
        let answer = standing::list(self.gate.db(), programme, request).await;
        answer.map(Response::new).map_err(|error| self.gate.status(&error))
    }
}

/// A stream at work.
struct Watch {
    gate: Gate<Error>,
    drain: CancellationToken,
    follower: Follower,
    place: Place,
    pages: mpsc::Receiver<Result<Page, Fault>>,
    ready: VecDeque<pb::WatchMembersResponse>,
}

impl Watch {
    async fn next(&mut self) -> Result<Option<pb::WatchMembersResponse>, Error> {
        if self.ready.is_empty() {
            let (part, head, time) = match self.place.snapshot {
                Some(_) if self.drain.is_cancelled() => return Err(Error::Draining),
                Some(after) => {
                    let part = Part::of_snapshot(&self.follower, self.place, after, BATCH).await?;
                    let time = part.events.first().map(|event| event.told.time);
                    (part, self.place.position, time)
                }
                None => {
                    let Some(page) = self.pages.recv().await else { return Ok(None) };
                    let page = page?;
                    (Part::of_page(&self.follower, self.place.epoch, &page).await?, page.head, Some(page.time))
                }
            };
            self.place = part.place;
            self.ready = messages(self.follower.programme(), part, head, time);
        }
        Ok(self.ready.pop_front())
    }
}

/// Puts events into as many messages as their size asks for, one at least. Each leads to where its last event is.
fn messages(programme: ProgrammeId, part: Part, head: i64, time: Option<DateTime<Utc>>) -> VecDeque<pb::WatchMembersResponse> {
    let message = |events: Vec<pb::MemberEvent>, place: Place| pb::WatchMembersResponse {
        events,
        position: token(programme, &place),
        sequence: place.position,
        head_sequence: head.max(place.position),
        send_time: time.map(clock::to_proto),
        in_snapshot: place.snapshot.is_some(),
    };
    let mut messages = VecDeque::new();
    let (mut events, mut bytes) = (Vec::new(), 0);
    let mut reached = part.place;
    for next in part.events {
        let place = match next.told.kind {
            EventKind::Snapshot => Place { snapshot: Some(next.told.member.0), ..part.place },
            _ => Place { position: next.told.position, fact: next.told.fact, ..part.place },
        };
        let wire = event(next);
        let size = wire.encoded_len();
        if bytes + size > MESSAGE_BYTES && !events.is_empty() {
            messages.push_back(message(std::mem::take(&mut events), reached));
            bytes = 0;
        }
        bytes += size;
        events.push(wire);
        reached = place;
    }
    messages.push_back(message(events, part.place));
    messages
}

pub(super) fn event(event: Event) -> pb::MemberEvent {
    let Event { told, now } = event;
    let mut wire = pb::MemberEvent {
        event_id: told.fact.map(|fact| fact.to_string()).unwrap_or_default(),
        sequence: told.position,
        kind: told.kind.to_wire(),
        member_id: told.member.to_string(),
        changed_fields: told.changed_fields,
        event_time: Some(clock::to_proto(told.time)),
        ..Default::default()
    };
    match now {
        Now::Member(member) => wire.member = Some(convert::member(*member)),
        Now::MergedInto(winner) => wire.merged_into_member_id = winner.to_string(),
        Now::Erased => wire.erased = true,
    }
    wire
}

fn token(programme: ProgrammeId, place: &Place) -> String {
    page::token("MemberFeed", &[&programme.to_string()], &place.key())
}

/// The place that a token stands for; None for an empty one.
pub(super) fn place(programme: ProgrammeId, token: &str) -> Result<Option<Place>, Violation> {
    let invalid = || Violation::new("position", "POSITION_INVALID", "must come from an answer for the same programme");
    let key = page::key("MemberFeed", &[&programme.to_string()], token).map_err(|_| invalid())?;
    key.map(|key| Place::of_key(&key).ok_or_else(invalid)).transpose()
}
