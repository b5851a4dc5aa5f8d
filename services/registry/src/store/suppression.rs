//! By what erased persons would be known.

use crate::domain::{erasure::ErasureId, suppression::Digest};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Class of the advisory locks on what is kept of erased persons, by a hash of the programme. The database is shared with other services, so
/// their classes differ.
const ERASED_LOCK: i32 = 0x6b65_7273;

/// Lets nobody be erased until the transaction ends: who keeps something of a person that is locked by no member's row looks after this
/// whether it is suppressed.
pub async fn hold(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1, hashtext($2::uuid::text))")
        .bind(ERASED_LOCK)
        .bind(programme.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// Waits for all who [`hold`] it, and keeps others from it until the transaction ends.
pub async fn hold_alone(conn: &mut PgConnection, programme: ProgrammeId) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2::uuid::text))")
        .bind(ERASED_LOCK)
        .bind(programme.0)
        .execute(conn)
        .await?;
    Ok(())
}

/// What was found.
pub struct Found {
    /// Those that are suppressed, with the erasures that each is from.
    pub suppressed: HashMap<Digest, Vec<ErasureId>>,
    /// A key that was used and is not among those given: what was kept with it cannot be found.
    pub missing_key: Option<String>,
}

/// Looks hashes up that were made with these keys, all that there are.
pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    key_ids: &[&str],
    digests: &[Digest],
) -> Result<Found, sqlx::Error> {
    let keys: Vec<&str> = digests.iter().map(|digest| digest.key_id.as_str()).collect();
    let bytes: Vec<&[u8]> = digests.iter().map(|digest| digest.bytes.as_slice()).collect();
    let rows = sqlx::query!(
        r#"SELECT s.key_id AS "key_id!", s.digest AS "digest?", s.erasure_id AS "erasure_id?"
           FROM UNNEST($2::text[], $3::bytea[]) AS d (key_id, digest)
           JOIN suppression s ON s.programme_id = $1 AND s.key_id = d.key_id AND s.digest = d.digest
           UNION ALL
           SELECT k.key_id, NULL, NULL
           FROM suppression_key k
           WHERE k.key_id <> ALL ($4::text[])"#,
        programme.0,
        &keys as &[&str],
        &bytes as &[&[u8]],
        key_ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let mut found = Found { suppressed: HashMap::new(), missing_key: None };
    for row in rows {
        match (row.digest, row.erasure_id) {
            (Some(bytes), Some(erasure)) => {
                found.suppressed.entry(Digest { key_id: row.key_id, bytes }).or_default().push(ErasureId(erasure));
            }
            _ => found.missing_key = Some(row.key_id),
        }
    }
    Ok(found)
}

/// Keeps the hashes of an erased person, and that their keys are used.
pub async fn put_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    erasure: ErasureId,
    digests: &[Digest],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let keys: Vec<&str> = digests.iter().map(|digest| digest.key_id.as_str()).collect();
    let bytes: Vec<&[u8]> = digests.iter().map(|digest| digest.bytes.as_slice()).collect();
    sqlx::query!(
        "INSERT INTO suppression_key (key_id, create_time)
         SELECT DISTINCT k.key_id, $2::timestamptz
         FROM UNNEST($1::text[]) AS k (key_id)
         ON CONFLICT DO NOTHING",
        &keys as &[&str],
        now,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "INSERT INTO suppression (programme_id, key_id, digest, erasure_id, create_time)
         SELECT $1, d.key_id, d.digest, $4, $5
         FROM UNNEST($2::text[], $3::bytea[]) AS d (key_id, digest)
         ORDER BY d.key_id, d.digest
         ON CONFLICT DO NOTHING",
        programme.0,
        &keys as &[&str],
        &bytes as &[&[u8]],
        erasure.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets persons in again, all that was suppressed with each, and keeps on what consent; says how much it was.
pub async fn lift(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    erasures: &[Uuid],
    consent_reference: &str,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<i64, sqlx::Error> {
    let lifted = sqlx::query_scalar!(
        r#"WITH gone AS (
               DELETE FROM suppression
               WHERE programme_id = $1 AND erasure_id = ANY ($2)
               RETURNING erasure_id
           ), kept AS (
               INSERT INTO suppression_lift (programme_id, erasure_id, lift_time, consent_reference, lifted_count, actor)
               SELECT $1, g.erasure_id, $5, $3, count(*), $4
               FROM gone g
               GROUP BY g.erasure_id
           )
           SELECT count(*) AS "count!"
           FROM gone"#,
        programme.0,
        erasures,
        consent_reference,
        actor,
        now,
    );
    lifted.fetch_one(conn).await
}
