//! HonourService.

use crate::{
    domain::{
        leaderboard::{Board, Month, ranks, second_number},
        title::{Title, TitleSet},
    },
    error::Error,
    store::{
        self,
        leaderboard::{Place, TOP},
    },
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    fault::Violation,
    gate::{Call, Gate, Work},
    ids::{MemberId, ProgrammeId},
    page,
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use tonic::{Request, Response, Status};

pub struct HonourApi {
    gate: Gate<Error>,
}

impl HonourApi {
    pub fn new(gate: Gate<Error>) -> Self {
        Self { gate }
    }

    async fn list_titles(&self, call: Call) -> Result<pb::ListTitlesResponse, Error> {
        let programme = call.programme;
        let mut conn = self.gate.db().read().await?;
        store::programme::get(&mut conn, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
        let set = store::title::active(&mut conn, programme).await?;
        Ok(pb::ListTitlesResponse { version: set.version, titles: titles(&set) })
    }

    async fn standing(&self, call: Call, request: pb::GetStandingRequest) -> Result<pb::GetStandingResponse, Error> {
        let member = MemberId::parse("member_id", &request.member_id)?;
        let programme = call.programme;
        let mut tx = self.gate.db().snapshot().await?;
        let not_found = Error::MemberNotFound { member: Some(member) };
        let member = store::merge::resolve(&mut tx, programme, member).await?.ok_or(not_found)?;
        let (now, present) = present(&mut tx, programme).await?;
        let holding = store::points::holding(&mut tx, programme, member, now).await?;
        let set = store::title::active(&mut tx, programme).await?;
        let (held, next) = set.of(holding.lifetime);
        let lifetime = Board::Lifetime.name();
        let rank = match holding.listed && holding.lifetime > 0 {
            true => store::leaderboard::rank(&mut tx, programme, &lifetime, holding.lifetime).await?,
            false => 0,
        };
        let month = Board::Month(present).name();
        let in_month = store::leaderboard::points(&mut tx, programme, std::slice::from_ref(&month), &[member.0]).await?;
        Ok(pb::GetStandingResponse {
            balance: holding.balance,
            lifetime_points: holding.lifetime,
            next_expiring_points: holding.next_expiring.map_or(0, |(points, _)| points),
            next_expire_time: holding.next_expiring.map(|(_, time)| clock::to_proto(time)),
            title: held.map(title),
            next_title: next.map(title),
            points_to_next_title: next.map_or(0, |next| next.min_lifetime_points - holding.lifetime),
            rank,
            ranked_count: store::leaderboard::ranked_count(&mut tx, programme, &lifetime).await?,
            month_points: in_month.into_values().next().unwrap_or(0),
            month,
        })
    }

    async fn list(&self, call: Call, request: pb::ListLeaderboardRequest) -> Result<pb::ListLeaderboardResponse, Error> {
        let programme = call.programme.to_string();
        let filters = [programme.as_str(), &request.month];
        let from = page::key("ListLeaderboard", &filters, &request.page_token).and_then(place)?;
        let size = page::size(request.page_size);
        let mut tx = self.gate.db().snapshot().await?;
        let board = board(&mut tx, call.programme, &request.month).await?;
        let mut places = store::leaderboard::below(&mut tx, call.programme, &board, from, size + 1).await?;
        let token = |(points, member): &Place| page::token("ListLeaderboard", &filters, &format!("{points}/{member}"));
        let next_page_token = page::cut(&mut places, size, token);
        let entries = ranked(&mut tx, call.programme, &board, &places).await?;
        let ranked_count = store::leaderboard::ranked_count(&mut tx, call.programme, &board).await?;
        Ok(pb::ListLeaderboardResponse { entries, next_page_token, ranked_count })
    }

    async fn position(
        &self,
        call: Call,
        request: pb::GetLeaderboardPositionRequest,
    ) -> Result<pb::GetLeaderboardPositionResponse, Error> {
        let member = MemberId::parse("member_id", &request.member_id)?;
        let (programme, neighbours) = (call.programme, i64::from(request.neighbours));
        let mut tx = self.gate.db().snapshot().await?;
        let board = board(&mut tx, programme, &request.month).await?;
        let member = store::merge::resolve(&mut tx, programme, member).await?.unwrap_or(member);
        let points = store::leaderboard::ranked_points(&mut tx, programme, &board, member).await?;
        let place = (points.ok_or(Error::NotRanked { member })?, member);
        let mut places = store::leaderboard::above(&mut tx, programme, &board, place, neighbours).await?;
        places.reverse();
        let own = places.len();
        places.push(place);
        places.extend(store::leaderboard::below(&mut tx, programme, &board, place, neighbours).await?);
        let mut before = ranked(&mut tx, programme, &board, &places).await?;
        let mut after = before.split_off(own);
        let position = Some(after.remove(0));
        let ranked_count = store::leaderboard::ranked_count(&mut tx, programme, &board).await?;
        Ok(pb::GetLeaderboardPositionResponse { position, before, after, ranked_count })
    }
}

/// The time, and the month that it is where the programme is.
async fn present(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(DateTime<Utc>, Month), Error> {
    let found = store::programme::get(conn, programme).await?.ok_or(Error::ProgrammeNotFound { programme })?;
    let now = clock::now(conn).await?;
    Ok((now, Month::of(now, found.time_zone)))
}

/// The name of the board of a month, or of lifetime points when it is empty.
async fn board(conn: &mut PgConnection, programme: ProgrammeId, month: &str) -> Result<String, Error> {
    let (_, present) = present(conn, programme).await?;
    if month.is_empty() {
        return Ok(Board::Lifetime.name());
    }
    let month =
        Month::parse(month).ok_or_else(|| Violation::new("month", "string.pattern", "must be a month such as 2026-11"))?;
    match present.first_kept() {
        first_kept if month < first_kept => Err(Error::MonthNotKept { first_kept }),
        _ => Ok(Board::Month(month).name()),
    }
}

/// The place after which a page begins.
fn place(key: Option<String>) -> Result<Place, Violation> {
    let Some(key) = key else { return Ok(TOP) };
    let place = key
        .split_once('/')
        .and_then(|(points, member)| Some((points.parse().ok()?, MemberId::parse("page_token", member).ok()?)));
    place.ok_or_else(|| Violation::new("page_token", "PAGE_TOKEN_INVALID", "must come from the page before"))
}

/// Places that follow each other, with their ranks.
async fn ranked(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    board: &str,
    places: &[Place],
) -> Result<Vec<pb::LeaderboardEntry>, Error> {
    let points: Vec<i64> = places.iter().map(|(points, _)| *points).collect();
    let Some(highest) = points.first() else { return Ok(Vec::new()) };
    let first = store::leaderboard::rank(conn, programme, board, *highest).await?;
    let second = match second_number(&points) {
        Some(points) => Some(store::leaderboard::rank(conn, programme, board, points).await?),
        None => None,
    };
    let entry =
        |(rank, (points, member)): (i64, &Place)| pb::LeaderboardEntry { rank, member_id: member.to_string(), points: *points };
    Ok(ranks(&points, first, second).into_iter().zip(places).map(entry).collect())
}

fn titles(set: &TitleSet) -> Vec<pb::Title> {
    set.titles().iter().map(title).collect()
}

fn title(title: &Title) -> pb::Title {
    let Title { title_id, display_name, min_lifetime_points } = title.clone();
    pb::Title { title_id, display_name, min_lifetime_points }
}

async fn create_titles(work: &mut Work, request: pb::CreateTitleSetRequest) -> Result<pb::CreateTitleSetResponse, Error> {
    let (programme, actor) = (work.programme(), work.actor().to_owned());
    if !store::programme::lock(work.conn(), programme).await? {
        return Err(Error::ProgrammeNotFound { programme });
    }
    let version = store::title::active(work.conn(), programme).await?.version + 1;
    let title = |wire: pb::Title| Title {
        title_id: wire.title_id,
        display_name: wire.display_name,
        min_lifetime_points: wire.min_lifetime_points,
    };
    let set = TitleSet::new(version, request.titles.into_iter().map(title).collect())?;
    let now = work.now().await?;
    store::title::insert(work.conn(), programme, &set, &request.reason, &actor, now).await?;
    work.emit(programme.0, &pb::TitleSetCreated { programme_id: programme.to_string(), version }).await?;
    work.audit(programme.0, Some(request.reason));
    Ok(pb::CreateTitleSetResponse { version, titles: titles(&set) })
}

#[tonic::async_trait]
impl pb::honour_service_server::HonourService for HonourApi {
    async fn create_title_set(
        &self,
        request: Request<pb::CreateTitleSetRequest>,
    ) -> Result<Response<pb::CreateTitleSetResponse>, Status> {
        self.gate.mutate(request, |work, request| Box::pin(create_titles(work, request))).await.map(Into::into)
    }

    async fn list_titles(&self, request: Request<pb::ListTitlesRequest>) -> Result<Response<pb::ListTitlesResponse>, Status> {
        self.gate.read(request, |call, _| self.list_titles(call)).await
    }

    async fn get_standing(&self, request: Request<pb::GetStandingRequest>) -> Result<Response<pb::GetStandingResponse>, Status> {
        self.gate.read(request, |call, request| self.standing(call, request)).await
    }

    async fn list_leaderboard(
        &self,
        request: Request<pb::ListLeaderboardRequest>,
    ) -> Result<Response<pb::ListLeaderboardResponse>, Status> {
        self.gate.read(request, |call, request| self.list(call, request)).await
    }

    async fn get_leaderboard_position(
        &self,
        request: Request<pb::GetLeaderboardPositionRequest>,
    ) -> Result<Response<pb::GetLeaderboardPositionResponse>, Status> {
        self.gate.read(request, |call, request| self.position(call, request)).await
    }
}
