//! The raw side: callers that do the same work with one SQL function each time, on a connection each.

use crate::load::{Caller, Measured, Order, drive};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Tables and functions of the raw side.
pub const SCHEMA: &str = include_str!("raw.sql");
/// As long as the service's hash of a request.
const HASH: [u8; 32] = [7; 32];

struct One {
    conn: PgConnection,
    accounts: std::sync::Arc<[Uuid]>,
    turn: usize,
}

impl Caller for One {
    async fn call(&mut self) -> anyhow::Result<bool> {
        self.turn += 1;
        let held: bool = sqlx::query_scalar("SELECT hold($1, $2, $3, $4)")
            .bind(Uuid::now_v7())
            .bind(HASH.as_slice())
            .bind(self.accounts[self.turn % self.accounts.len()])
            .bind(1_i64)
            .fetch_one(&mut self.conn)
            .await?;
        anyhow::ensure!(held, "the account is empty");
        Ok(true)
    }
}

pub async fn load(order: &Order, url: &str, accounts: &[Uuid]) -> anyhow::Result<Measured> {
    let mut callers = Vec::new();
    let accounts: std::sync::Arc<[Uuid]> = accounts.into();
    for nr in 0..order.callers {
        callers.push(One { conn: PgConnection::connect(url).await?, accounts: accounts.clone(), turn: nr * 7_919 });
    }
    Ok(drive(order, callers).await?.0)
}

struct Set {
    conn: PgConnection,
    account: Uuid,
    size: usize,
}

impl Caller for Set {
    async fn call(&mut self) -> anyhow::Result<bool> {
        let keys: Vec<Uuid> = (0..self.size).map(|_| Uuid::now_v7()).collect();
        let held: i64 = sqlx::query_scalar("SELECT hold_all($1, $2, $3, $4)")
            .bind(keys)
            .bind(vec![HASH.as_slice(); self.size])
            .bind(self.account)
            .bind(vec![1_i64; self.size])
            .fetch_one(&mut self.conn)
            .await?;
        anyhow::ensure!(usize::try_from(held) == Ok(self.size), "the account is empty");
        Ok(true)
    }
}

/// The figures are per reserve, not per set.
pub async fn load_batches(order: &Order, url: &str, account: Uuid, size: usize) -> anyhow::Result<Measured> {
    let mut callers = Vec::new();
    for _ in 0..order.callers {
        callers.push(Set { conn: PgConnection::connect(url).await?, account, size });
    }
    let measured = drive(order, callers).await?.0;
    Ok(Measured { per_second: measured.per_second * size as f64, ..measured })
}
