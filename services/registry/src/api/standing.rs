//! MemberFeedService's list of standings.

use super::convert::Wire;
use crate::{domain::standing::Standing, error::Error, store};
use koc_chassis::{fault::Violation, ids::ProgrammeId, page, postgres::Db};
use koc_proto::koc::registry::v1 as pb;
use uuid::Uuid;

const LIST: &str = "ListMemberStandings";

/// A page of one programme's members, or of all members.
pub async fn list(
    db: &Db,
    programme: Option<ProgrammeId>,
    request: pb::ListMemberStandingsRequest,
) -> Result<pb::ListMemberStandingsResponse, Error> {
    let filters = [request.programme_id.as_str()];
    let after = page::key(LIST, &filters, &request.page_token)?.as_deref().map(parse_key).transpose()?;
    let after = after.unwrap_or((programme.map_or(Uuid::nil(), |programme| programme.0), Uuid::nil()));
    let last = programme.map_or(Uuid::max(), |programme| programme.0);
    let size = page::size(request.page_size);
    let mut conn = db.read().await?;
    let mut found = store::standing::list(&mut conn, after, last, size + 1).await?;
    let key = |standing: &Standing| format!("{}/{}", standing.programme, standing.member);
    let next_page_token = page::cut(&mut found, size, |standing| page::token(LIST, &filters, &key(standing)));
    Ok(pb::ListMemberStandingsResponse { standings: found.into_iter().map(standing).collect(), next_page_token })
}

fn parse_key(key: &str) -> Result<(Uuid, Uuid), Violation> {
    let parsed = key.split_once('/').and_then(|(one, other)| Some((Uuid::try_parse(one).ok()?, Uuid::try_parse(other).ok()?)));
    parsed.ok_or_else(page::invalid_token)
}

fn standing(standing: Standing) -> pb::MemberStanding {
    pb::MemberStanding {
        programme_id: standing.programme.to_string(),
        member_id: standing.member.to_string(),
        suspended: standing.suspended,
        withdrawn_purposes: standing.withdrawn.into_iter().map(Wire::to_wire).collect(),
        version: standing.version,
        last_merge: standing.last_merge.map(|last| pb::MemberStandingMerge {
            merge_id: last.merge.to_string(),
            winner_member_id: last.winner.to_string(),
            undone: last.undone,
        }),
    }
}
