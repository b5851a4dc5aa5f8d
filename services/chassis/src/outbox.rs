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

/// Writes facts, in order. They are published once this transaction is committed and the sequencer has seen them: after the commit
/// call [`crate::postgres::Db::wake`].
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
        "INSERT INTO fact (fact_id, programme_id, subject_id, type_name, payload, traceparent, record_time)
         SELECT f.id, f.programme, f.subject, f.type, f.payload, $6, koc_now()
         FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::bytea[])
              WITH ORDINALITY AS f (id, programme, subject, type, payload, nr)
         ORDER BY f.nr",
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
