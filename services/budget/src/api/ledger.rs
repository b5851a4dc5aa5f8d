//! LedgerService.

mod verification;

use super::{Api, convert};
use crate::{
    domain::verification::course::Extent,
    error::Error,
    flow::{fact::optional, verify_ledger},
    ids::{EnvelopeId, ReservationId, VerificationId},
    store,
};
use koc_chassis::{clock, fault::Violation, page};
use koc_proto::koc::budget::v1 as pb;
use tonic::{Request, Response, Status};

const LIST: &str = "ListLedgerEntries";
/// Entries that one call verifies, at most: on a slow machine too it ends before the default deadline does.
const MAX_ENTRIES_AT_ONCE: i64 = 150_000;

#[tonic::async_trait]
impl pb::ledger_service_server::LedgerService for Api {
    async fn list_ledger_entries(
        &self,
        request: Request<pb::ListLedgerEntriesRequest>,
    ) -> Result<Response<pb::ListLedgerEntriesResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListLedgerEntriesRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.envelope_id.as_str(), request.reservation_id.as_str()];
                let after = page::key(LIST, &filters, &request.page_token)?.as_deref().map(parse_key).transpose()?;
                let envelope = EnvelopeId::parse("envelope_id", &request.envelope_id)?;
                let reservation = ReservationId::parse_optional("reservation_id", &request.reservation_id)?;
                let size = page::size(request.page_size);
                let currency = self.currencies.known(call.programme).await?.ok_or(Error::EnvelopeNotFound(envelope))?;
                let mut conn = self.gate.db().read().await?;
                if !store::envelope::exists(&mut conn, call.programme, envelope).await? {
                    return Err(Error::EnvelopeNotFound(envelope));
                }
                let after = after.unwrap_or(0);
                let mut entries = match reservation {
                    None => store::ledger::list(&mut conn, envelope, after, size + 1).await?,
                    Some(id) => store::ledger::list_of_reservation(&mut conn, envelope, id, after, size + 1).await?,
                };
                let next_page_token =
                    page::cut(&mut entries, size, |e| page::token(LIST, &filters, &e.envelope_sequence.to_string()));
                let entries = entries.iter().map(|entry| convert::ledger_entry(entry, currency)).collect();
                Ok(pb::ListLedgerEntriesResponse { entries, next_page_token })
            })
            .await
    }

    async fn get_envelope_balances(
        &self,
        request: Request<pb::GetEnvelopeBalancesRequest>,
    ) -> Result<Response<pb::GetEnvelopeBalancesResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetEnvelopeBalancesRequest| {
                let envelope = EnvelopeId::parse("envelope_id", &request.envelope_id)?;
                let currency = self.currencies.known(call.programme).await?.ok_or(Error::EnvelopeNotFound(envelope))?;
                let mut tx = self.gate.db().snapshot().await?;
                if !store::envelope::exists(&mut tx, call.programme, envelope).await? {
                    return Err(Error::EnvelopeNotFound(envelope));
                }
                let time = convert::as_of(request.as_of_time.as_ref(), clock::now(&mut tx).await?)?;
                let found = store::ledger::balances_at(&mut tx, &[envelope], time).await?;
                Ok(pb::GetEnvelopeBalancesResponse {
                    balances: found.get(&envelope).map(|balances| convert::balances(balances, currency)),
                    as_of_time: Some(clock::to_proto(time)),
                })
            })
            .await
    }

    async fn verify_ledger(
        &self,
        request: Request<pb::VerifyLedgerRequest>,
    ) -> Result<Response<pb::VerifyLedgerResponse>, Status> {
        self.gate
            .read(request, async |call, _: pb::VerifyLedgerRequest| {
                let mut tx = self.gate.db().snapshot().await?;
                let Extent { entries, .. } = store::ledger::extent(&mut tx, call.programme).await?;
                if entries > MAX_ENTRIES_AT_ONCE {
                    return Err(Error::LedgerTooLarge { entries, most: MAX_ENTRIES_AT_ONCE });
                }
                let report = verify_ledger::at_once(&mut tx, call.programme).await?;
                Ok(pb::VerifyLedgerResponse {
                    valid: report.finding.is_none(),
                    entry_count: report.course.counts.entries,
                    chained_count: report.course.counts.links,
                    bad_entry_id: optional(report.finding.as_ref().and_then(|f| f.entry)),
                    chain_head: hex::encode(report.course.head()),
                    finding: report.finding.map(|f| f.text).unwrap_or_default(),
                })
            })
            .await
    }

    async fn start_ledger_verification(
        &self,
        request: Request<pb::StartLedgerVerificationRequest>,
    ) -> Result<Response<pb::StartLedgerVerificationResponse>, Status> {
        self.gate
            .mutate(request, |work, _| {
                Box::pin(async move {
                    let verification = Some(verification::to_proto(&verification::start(work).await?));
                    Ok(pb::StartLedgerVerificationResponse { verification })
                })
            })
            .await
            .map(Into::into)
    }

    async fn get_ledger_verification(
        &self,
        request: Request<pb::GetLedgerVerificationRequest>,
    ) -> Result<Response<pb::GetLedgerVerificationResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::GetLedgerVerificationRequest| {
                let id = VerificationId::parse("verification_id", &request.verification_id)?;
                let mut conn = self.gate.db().read().await?;
                let found = store::verification::find(&mut conn, call.programme, id).await?;
                let verification = Some(verification::to_proto(&found.ok_or(Error::VerificationNotFound(id))?));
                Ok(pb::GetLedgerVerificationResponse { verification })
            })
            .await
    }

    async fn list_ledger_verifications(
        &self,
        request: Request<pb::ListLedgerVerificationsRequest>,
    ) -> Result<Response<pb::ListLedgerVerificationsResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListLedgerVerificationsRequest| {
                let programme = call.programme.to_string();
                let before = page::after_id(verification::LIST, &[&programme], &request.page_token)?;
                let size = page::size(request.page_size);
                let mut conn = self.gate.db().read().await?;
                let mut found = store::verification::list(&mut conn, call.programme, before, size + 1).await?;
                let next_page_token =
                    page::cut(&mut found, size, |v| page::token(verification::LIST, &[&programme], &v.id.to_string()));
                let verifications = found.iter().map(verification::to_proto).collect();
                Ok(pb::ListLedgerVerificationsResponse { verifications, next_page_token })
            })
            .await
    }

    async fn cancel_ledger_verification(
        &self,
        request: Request<pb::CancelLedgerVerificationRequest>,
    ) -> Result<Response<pb::CancelLedgerVerificationResponse>, Status> {
        self.gate
            .mutate(request, |work, request| {
                Box::pin(async move {
                    let id = VerificationId::parse("verification_id", &request.verification_id)?;
                    let verification = Some(verification::to_proto(&verification::cancel(work, id, request.reason).await?));
                    Ok(pb::CancelLedgerVerificationResponse { verification })
                })
            })
            .await
            .map(Into::into)
    }
}

/// Where a page ends: the sequence in the envelope.
fn parse_key(key: &str) -> Result<i64, Violation> {
    key.parse().map_err(|_| Violation::new("page_token", "PAGE_TOKEN_INVALID", "must come from the page before"))
}
