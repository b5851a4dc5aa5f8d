//! Facts: what a service tells the others, written in the transaction of the change they tell of.

use crate::{context, ids::ProgrammeId};
use koc_proto::rules::Rules;
use sqlx::PgConnection;
use uuid::Uuid;

/// A fact to be published.
#[derive(Debug, Clone)]
pub struct NewFact {
    programme: ProgrammeId,
    subject: Uuid,
    type_name: &'static str,
    payload: Vec<u8>,
}

impl NewFact {
    /// A fact about `subject`: changes of one subject arrive in order.
    pub fn new<F: Rules + prost::Message>(programme: ProgrammeId, subject: Uuid, fact: &F) -> Self {
        Self { programme, subject, type_name: F::NAME, payload: fact.encode_to_vec() }
    }
}

/// Writes facts, in order, as one row: what is told at once costs the transaction of the change hardly more than one fact. They are
/// published once this transaction is committed and the sequencer has seen them: after the commit call
/// [`crate::postgres::Db::wake`].
pub async fn append(conn: &mut PgConnection, facts: &[NewFact]) -> Result<(), sqlx::Error> {
    if facts.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = facts.iter().map(|_| Uuid::now_v7()).collect();
    let programmes: Vec<Uuid> = facts.iter().map(|f| f.programme.0).collect();
    let subjects: Vec<Uuid> = facts.iter().map(|f| f.subject).collect();
    let types: Vec<&str> = facts.iter().map(|f| f.type_name).collect();
    let payloads: Vec<&[u8]> = facts.iter().map(|f| f.payload.as_slice()).collect();
    sqlx::query(
        "INSERT INTO outbox (fact_ids, programme_ids, subject_ids, type_names, payloads, traceparent, record_time)
         VALUES ($1, $2, $3, $4, $5, $6, koc_now())",
    )
    .bind(ids)
    .bind(programmes)
    .bind(subjects)
    .bind(types)
    .bind(payloads)
    .bind(context::traceparent())
    .execute(conn)
    .await?;
    Ok(())
}
