//! Merging and unmerging members.

use crate::{api::convert, domain::text::storable, error::Error, flow::merge_members, store};
use koc_chassis::{
    fault::{Violation, Violations},
    gate::Work,
    ids::MemberId,
};
use koc_proto::koc::registry::v1 as pb;

pub(super) async fn merge(work: &mut Work, request: pb::MergeMembersRequest) -> Result<pb::MergeMembersResponse, Error> {
    let mut violations = Violations::default();
    let winner = violations.take(MemberId::parse("winner_member_id", &request.winner_member_id));
    let loser = violations.take(MemberId::parse("loser_member_id", &request.loser_member_id));
    violations.take(storable("reason", &request.reason));
    if winner.is_some() && winner == loser {
        let rule = "must be another member than the winner";
        violations.push(Violation::new("loser_member_id", "MERGE_WITH_ITSELF", rule));
    }
    violations.finish()?;
    let (Some(winner), Some(loser)) = (winner, loser) else { return Err(Error::Invalid(Vec::new())) };
    merge_members::merge(work, winner, loser, &request.etag, &request.reason).await?;
    let programme = work.programme();
    let member = store::member::get(work.conn(), programme, winner).await?.map(convert::member);
    Ok(pb::MergeMembersResponse { member })
}

pub(super) async fn unmerge(work: &mut Work, request: pb::UnmergeMembersRequest) -> Result<pb::UnmergeMembersResponse, Error> {
    let mut violations = Violations::default();
    let loser = violations.take(MemberId::parse("loser_member_id", &request.loser_member_id));
    violations.take(storable("reason", &request.reason));
    violations.finish()?;
    let loser = loser.ok_or_else(|| Error::Invalid(Vec::new()))?;
    let winner = merge_members::unmerge(work, loser, &request.reason).await?;
    let programme = work.programme();
    let winner = store::member::get(work.conn(), programme, winner).await?.map(convert::member);
    let loser = store::member::get(work.conn(), programme, loser).await?.map(convert::member);
    Ok(pb::UnmergeMembersResponse { winner, loser })
}
