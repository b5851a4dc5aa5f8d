//! LedgerService.

use super::{Api, convert};
use crate::{
    error::Error,
    ids::{EnvelopeId, ReservationId},
    store,
};
use koc_chassis::{clock, fault::Violation, page};
use koc_proto::koc::budget::v1 as pb;
use tonic::{Request, Response, Status};

const LIST: &str = "ListLedgerEntries";

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
                let report = store::ledger::verify(&mut tx, call.programme).await?;
                Ok(pb::VerifyLedgerResponse {
                    valid: report.finding.is_none(),
                    entry_count: report.entry_count,
                    chained_count: report.chained_count,
                    bad_entry_id: crate::flow::fact::optional(report.finding.as_ref().and_then(|f| f.entry)),
                    finding: report.finding.map(|f| f.text).unwrap_or_default(),
                    chain_head: hex::encode(report.head),
                })
            })
            .await
    }
}

/// Where a page ends: the sequence in the envelope.
fn parse_key(key: &str) -> Result<i64, Violation> {
    key.parse().map_err(|_| Violation::new("page_token", "PAGE_TOKEN_INVALID", "must come from the page before"))
}
