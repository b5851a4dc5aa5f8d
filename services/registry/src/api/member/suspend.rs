//! Suspending and reinstating members.

use crate::{
    api::convert::{self, Wire},
    domain::{
        history::{Before, Change, ChangeKind, STATE},
        member::{State, SuspensionCause},
        text::storable,
    },
    error::Error,
    flow::{erase_member::check_living, rank_members},
    store::{self, member::Turn},
};
use koc_chassis::{fault::Violations, gate::Work, ids::MemberId, page};
use koc_proto::koc::registry::v1 as pb;

pub(super) async fn suspend(work: &mut Work, request: pb::SuspendMemberRequest) -> Result<pb::SuspendMemberResponse, Error> {
    let asked = Asked { member_id: request.member_id, reason: request.reason, etag: request.etag };
    let member = put(work, asked, State::Suspended).await?;
    Ok(pb::SuspendMemberResponse { member })
}

pub(super) async fn reinstate(
    work: &mut Work,
    request: pb::ReinstateMemberRequest,
) -> Result<pb::ReinstateMemberResponse, Error> {
    let asked = Asked { member_id: request.member_id, reason: request.reason, etag: request.etag };
    let member = put(work, asked, State::Active).await?;
    Ok(pb::ReinstateMemberResponse { member })
}

struct Asked {
    member_id: String,
    reason: String,
    etag: String,
}

/// Puts a member into a state that it is not in.
async fn put(work: &mut Work, asked: Asked, state: State) -> Result<Option<pb::Member>, Error> {
    let Asked { member_id, reason, etag } = asked;
    let mut violations = Violations::default();
    let id = violations.take(MemberId::parse("member_id", &member_id));
    violations.take(storable("reason", &reason));
    violations.finish()?;
    let id = id.ok_or_else(|| Error::Invalid(Vec::new()))?;

    let (programme, actor) = (work.programme(), work.actor().to_owned());
    let locked = store::member::lock(work.conn(), programme, id).await?.ok_or(Error::MemberNotFound { member: Some(id) })?;
    check_living(&locked)?;
    let id = locked.id;
    if !page::etag_matches(&etag, locked.version) {
        return Err(Error::EtagMismatch { member: id, version: locked.version });
    }
    match (locked.state, state) {
        // What the sources deleted comes back with them: a caller's word stays.
        (State::Suspended, State::Suspended) if locked.suspension_cause == Some(SuspensionCause::SourceDeleted) => {}
        (State::Suspended, State::Suspended) => return Err(Error::MemberSuspended { member: id }),
        (State::Active, State::Active) => return Err(Error::MemberNotSuspended { member: id }),
        _ => {}
    }
    let (now, version) = (work.now().await?, locked.version + 1);
    let cause = (state == State::Suspended).then_some(SuspensionCause::Caller);
    store::member::set_states(work.conn(), programme, &[Turn { member: id, state, cause, version }], now).await?;
    let kind = if state == State::Suspended { ChangeKind::Suspended } else { ChangeKind::Reinstated };
    let fields = vec![Before::named(STATE, locked.state.name())];
    let change = Change { reason: Some(reason.clone()), ..Change::by_api(id, version, kind, fields) };
    store::history::insert_all(work.conn(), programme, &[change], &actor, now).await?;
    rank_members::show(work.conn(), programme, id, state == State::Active).await?;
    let member_id = id.to_string();
    match state {
        State::Suspended => {
            work.emit(id.0, &pb::MemberSuspended { member_id, version, cause: SuspensionCause::Caller.to_wire() }).await?
        }
        _ => work.emit(id.0, &pb::MemberReinstated { member_id, version }).await?,
    }
    work.audit(id.0, Some(reason));
    Ok(store::member::get(work.conn(), programme, id).await?.map(convert::member))
}
