//! The hash chain beside the ledger. It grows as entries get their place in the feed: outside the hot path, in one order, by one
//! writer at a time, from the first entry on.

use crate::{
    ids::{EntryId, ProgrammeId},
    store::ledger::{self, Link},
};
use async_trait::async_trait;
use koc_chassis::sequencer::{OnSequenced, Sequenced};
use koc_proto::{koc::budget::v1 as pb, rules::Rules};
use prost::Message;
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Chains each entry to the one before it in its programme.
pub struct Chain;

#[async_trait]
impl OnSequenced for Chain {
    async fn on_sequenced(&self, conn: &mut PgConnection, facts: &[Sequenced]) -> Result<(), sqlx::Error> {
        let ids = facts
            .iter()
            .filter(|fact| fact.type_name == pb::LedgerPosted::NAME)
            .map(|fact| {
                let posted = pb::LedgerPosted::decode(fact.payload.as_slice()).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
                Uuid::try_parse(&posted.entry_id).map(EntryId).map_err(|e| sqlx::Error::Decode(Box::new(e)))
            })
            .collect::<Result<Vec<_>, _>>()?;
        if ids.is_empty() {
            return Ok(());
        }
        let entries = ledger::by_ids(conn, &ids).await?;
        let mut heads: HashMap<ProgrammeId, (i64, [u8; 32])> = HashMap::new();
        let mut links = Vec::with_capacity(ids.len());
        for id in ids {
            // The fact and its entry were committed together.
            let entry = entries.get(&id).ok_or(sqlx::Error::RowNotFound)?;
            let (position, previous) = match heads.get(&entry.programme) {
                Some(head) => *head,
                None => ledger::chain_head(conn, entry.programme).await?,
            };
            let link = Link { programme: entry.programme, position: position + 1, entry: id, hash: entry.link(&previous) };
            heads.insert(entry.programme, (link.position, link.hash));
            links.push(link);
        }
        ledger::append_links(conn, &links).await
    }
}
