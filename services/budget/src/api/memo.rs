//! MemoService.

use super::{Api, convert::money};
use crate::{
    domain::stock::{MemoAccount, MemoEntry},
    ids::GrantId,
    store,
};
use koc_chassis::{clock, money::Currency, page};
use koc_proto::koc::budget::v1 as pb;
use tonic::{Request, Response, Status};

const LIST: &str = "ListMemoEntries";

#[tonic::async_trait]
impl pb::memo_service_server::MemoService for Api {
    async fn list_memo_entries(
        &self,
        request: Request<pb::ListMemoEntriesRequest>,
    ) -> Result<Response<pb::ListMemoEntriesResponse>, Status> {
        self.gate
            .read(request, async |call, request: pb::ListMemoEntriesRequest| {
                let programme = call.programme.to_string();
                let filters = [programme.as_str(), request.grant_id.as_str()];
                let after = page::after_id(LIST, &filters, &request.page_token)?;
                let grant = GrantId::parse_optional("grant_id", &request.grant_id)?;
                let size = page::size(request.page_size);
                let Some(currency) = self.currencies.known(call.programme).await? else { return Ok(Default::default()) };
                let mut tx = self.gate.db().snapshot().await?;
                let mut entries = store::memo::list(&mut tx, call.programme, grant, after, size + 1).await?;
                let next_page_token = page::cut(&mut entries, size, |e| page::token(LIST, &filters, &e.id.to_string()));
                let balances = store::memo::balances(&mut tx, call.programme, grant).await?;
                let balance = |(of, minor): (MemoAccount, i64)| pb::MemoBalance {
                    account: account(of).into(),
                    balance: money(minor, currency),
                };
                Ok(pb::ListMemoEntriesResponse {
                    entries: entries.iter().map(|entry| to_proto(entry, currency)).collect(),
                    next_page_token,
                    balances: balances.into_iter().map(balance).collect(),
                })
            })
            .await
    }
}

fn account(account: MemoAccount) -> pb::MemoAccount {
    match account {
        MemoAccount::Grants => pb::MemoAccount::Grants,
        MemoAccount::Consumption => pb::MemoAccount::Consumption,
        MemoAccount::Opportunity => pb::MemoAccount::Opportunity,
    }
}

fn to_proto(entry: &MemoEntry, currency: Currency) -> pb::MemoEntry {
    pb::MemoEntry {
        memo_entry_id: entry.id.to_string(),
        grant_id: entry.grant.to_string(),
        estimate_id: entry.estimate.to_string(),
        item: entry.item.clone(),
        credit_account: account(entry.credit).into(),
        debit_account: account(entry.debit).into(),
        amount: money(entry.amount, currency),
        actor: entry.actor.clone(),
        create_time: Some(clock::to_proto(entry.create_time)),
    }
}
