//! Memo entries: costs without cash.

use super::corrupt;
use crate::{
    domain::stock::{MemoAccount, MemoEntry},
    ids::{EstimateId, GrantId, MemoEntryId, ProgrammeId},
};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

struct MemoRow {
    memo_entry_id: Uuid,
    grant_id: Uuid,
    estimate_id: Uuid,
    ordinal: i32,
    item: String,
    credit_account: String,
    debit_account: String,
    amount: i64,
    actor: String,
    create_time: DateTime<Utc>,
}

fn account(text: &str) -> Result<MemoAccount, sqlx::Error> {
    MemoAccount::parse(text).ok_or_else(|| corrupt("memo_entry.account"))
}

impl TryFrom<MemoRow> for MemoEntry {
    type Error = sqlx::Error;

    fn try_from(row: MemoRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: MemoEntryId(row.memo_entry_id),
            grant: GrantId(row.grant_id),
            estimate: EstimateId(row.estimate_id),
            ordinal: row.ordinal,
            item: row.item,
            credit: account(&row.credit_account)?,
            debit: account(&row.debit_account)?,
            amount: row.amount,
            actor: row.actor,
            create_time: row.create_time,
        })
    }
}

/// Posts entries; an item of an estimate is posted once.
pub async fn post(conn: &mut PgConnection, programme: ProgrammeId, entries: &[MemoEntry]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO memo_entry (programme_id, memo_entry_id, grant_id, estimate_id, ordinal, item, credit_account, debit_account, amount,
                                 actor, create_time)
         SELECT $1, e.*
         FROM UNNEST($2::uuid[], $3::uuid[], $4::uuid[], $5::integer[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[],
                     $11::timestamptz[]) AS e",
        programme.0,
        &entries.iter().map(|e| e.id.0).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.grant.0).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.estimate.0).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.ordinal).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.item.clone()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.credit.as_str().to_owned()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.debit.as_str().to_owned()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.amount).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.actor.clone()).collect::<Vec<_>>(),
        &entries.iter().map(|e| e.create_time).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Entries of a programme by id, after one; only a grant's.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    grant: Option<GrantId>,
    after: Option<Uuid>,
    size: i64,
) -> Result<Vec<MemoEntry>, sqlx::Error> {
    let rows = sqlx::query_as!(
        MemoRow,
        "SELECT memo_entry_id, grant_id, estimate_id, ordinal, item, credit_account, debit_account, amount, actor, create_time
         FROM memo_entry
         WHERE programme_id = $1
           AND ($2::uuid IS NULL OR grant_id = $2)
           AND ($3::uuid IS NULL OR memo_entry_id > $3)
         ORDER BY memo_entry_id
         LIMIT $4",
        programme.0,
        grant.map(|grant| grant.0),
        after,
        size,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(MemoEntry::try_from).collect()
}

/// Debits less credits of each account that was used, over all entries of a programme or of a grant: of the programme as they are kept,
/// of the grant as its few entries give them.
pub async fn balances(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    grant: Option<GrantId>,
) -> Result<Vec<(MemoAccount, i64)>, sqlx::Error> {
    let balances: Vec<(String, i64)> = match grant {
        None => sqlx::query!(
            r#"SELECT account, sum(balance)::bigint AS "balance!"
               FROM memo_balance
               WHERE programme_id = $1
               GROUP BY account
               ORDER BY account"#,
            programme.0,
        )
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(|row| (row.account, row.balance))
        .collect(),
        Some(grant) => sqlx::query!(
            r#"SELECT side.account AS "account!", sum(side.amount)::bigint AS "balance!"
               FROM memo_entry AS m
               CROSS JOIN LATERAL (VALUES (m.debit_account, m.amount), (m.credit_account, -m.amount)) AS side (account, amount)
               WHERE m.programme_id = $1 AND m.grant_id = $2
               GROUP BY side.account
               ORDER BY side.account"#,
            programme.0,
            grant.0,
        )
        .fetch_all(conn)
        .await?
        .into_iter()
        .map(|row| (row.account, row.balance))
        .collect(),
    };
    balances.into_iter().map(|(text, balance)| Ok((account(&text)?, balance))).collect()
}
