//! Verifications that go on in the background: how they begin and end by a call, and as they go over the wire.

use crate::{
    domain::{
        ledger::GENESIS,
        verification::course::{Counts, Course, Verification, VerificationStage, VerificationState},
    },
    error::Error,
    flow::{
        fact::{self, optional},
        verify_ledger,
    },
    ids::VerificationId,
    store,
};
use koc_chassis::{clock, gate::Work, job};
use koc_proto::koc::budget::v1 as pb;

/// Names the list in its page tokens.
pub const LIST: &str = "ListLedgerVerifications";

pub async fn start(work: &mut Work) -> Result<Verification, Error> {
    let programme = work.programme();
    if let Some(running) = store::verification::running(work.conn(), programme).await? {
        return Err(Error::VerificationRunning(Some(running)));
    }
    // The time first: what was committed by then is in what is read after it.
    let start_time = work.now().await?;
    let extent = store::ledger::extent(work.conn(), programme).await?;
    let verification = Verification {
        id: VerificationId::new(),
        programme,
        state: VerificationState::Running,
        extent,
        counts: Counts::default(),
        head: GENESIS,
        requested_by: work.actor().to_owned(),
        start_time,
    };
    if !store::verification::insert(work.conn(), &verification).await? {
        let running = store::verification::running(work.conn(), programme).await?;
        return Err(Error::VerificationRunning(running));
    }
    let course = Course::new(extent.links);
    let job = job::NewJob {
        kind: verify_ledger::KIND,
        programme,
        subject: verification.id.0,
        step: course.step(),
        state: serde_json::to_value(&course).map_err(|e| sqlx::Error::Encode(Box::new(e)))?,
        actor: &verification.requested_by,
        run_time: None,
    };
    job::start(work.conn(), job).await?;
    work.audit(verification.id.0, None);
    Ok(verification)
}

pub async fn cancel(work: &mut Work, id: VerificationId, reason: String) -> Result<Verification, Error> {
    let programme = work.programme();
    let found = async |work: &mut Work| {
        store::verification::find(work.conn(), programme, id).await?.ok_or(Error::VerificationNotFound(id))
    };
    found(work).await?;
    let end_time = work.now().await?;
    let cancelled = store::verification::cancel(work.conn(), id, end_time).await?;
    let verification = found(work).await?;
    if !cancelled {
        return Err(Error::VerificationState { verification: id, is: verification.state.stage() });
    }
    job::cancel(work.conn(), id.0, verify_ledger::KIND).await?;
    work.audit(id.0, Some(reason));
    work.emit(id.0, &fact::ledger_verification_ended(id, VerificationStage::Cancelled)).await?;
    Ok(verification)
}

pub fn to_proto(verification: &Verification) -> pb::LedgerVerification {
    let Verification { extent, counts, state, .. } = verification;
    pb::LedgerVerification {
        verification_id: verification.id.to_string(),
        state: fact::verification_state(state.stage()).into(),
        requested_by: verification.requested_by.clone(),
        start_time: Some(clock::to_proto(verification.start_time)),
        end_time: state.end_time().map(clock::to_proto),
        entry_count: extent.entries,
        chained_count: extent.links,
        verified_link_count: counts.links,
        verified_entry_count: counts.entries,
        verified_reservation_count: counts.reservations,
        verified_limit_count: counts.limits,
        chain_head: hex::encode(verification.head),
        finding: state.finding().map(|finding| finding.text.clone()).unwrap_or_default(),
        bad_entry_id: optional(state.finding().and_then(|finding| finding.entry)),
    }
}
