//! Erasures: what they destroy, and who has followed them.

use super::unknown;
use crate::domain::{
    consent::{Consent, Purpose},
    erasure::{Duty, Erased, Erasure, ErasureId, Ground},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Destroys what is held of members, which are locked; says how many rows of each table held something.
pub async fn destroy(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
    now: DateTime<Utc>,
) -> Result<Erased, sqlx::Error> {
    let gone = sqlx::query!(
        r#"WITH identities AS (
               DELETE FROM external_identity WHERE programme_id = $1 AND member_id = ANY ($2)
               RETURNING source_system, external_id
           ), seen AS (
               DELETE FROM sync_seen s
               USING identities i, sync_run r
               WHERE s.programme_id = $1 AND r.programme_id = $1 AND r.sync_run_id = s.sync_run_id
                 AND r.source_system = i.source_system AND s.external_id = i.external_id
               RETURNING 1
           ), befores AS (
               DELETE FROM member_change_value WHERE programme_id = $1 AND member_id = ANY ($2) RETURNING 1
           ), names AS (
               DELETE FROM member_search WHERE programme_id = $1 AND member_id = ANY ($2) RETURNING 1
           ), scores AS (
               DELETE FROM value_profile WHERE programme_id = $1 AND member_id = ANY ($2) RETURNING 1
           ), proposals AS (
               DELETE FROM tier_proposal WHERE programme_id = $1 AND member_id = ANY ($2) RETURNING 1
           ), readings AS (
               DELETE FROM tier_reading WHERE programme_id = $1 AND member_id = ANY ($2) RETURNING 1
           ), standings AS (
               DELETE FROM tier_standing WHERE programme_id = $1 AND member_id = ANY ($2) RETURNING 1
           ), trials AS (
               DELETE FROM tier_dry_run_member WHERE programme_id = $1 AND member_id = ANY ($2) RETURNING 1
           )
           SELECT (SELECT count(*) FROM identities) AS "identities!", (SELECT count(*) FROM befores) AS "befores!",
                  (SELECT count(*) FROM seen) AS "seen!",
                  (SELECT count(*) FROM names) AS "names!", (SELECT count(*) FROM scores) AS "scores!",
                  (SELECT count(*) FROM proposals) AS "proposals!", (SELECT count(*) FROM readings) AS "readings!",
                  (SELECT count(*) FROM standings) AS "standings!", (SELECT count(*) FROM trials) AS "trials!""#,
        programme.0,
        members,
    )
    .fetch_one(&mut *conn)
    .await?;
    // Silence would be taken as consent to take part.
    let nothing: Vec<Consent> = Purpose::ALL.iter().map(|purpose| Consent { purpose: *purpose, granted: false }).collect();
    let emptied = sqlx::query!(
        "UPDATE member
         SET display_name = '', email = '', phone = '', region_code = '', city = '', channels = '[]', vehicles = '[]',
             motivations = '[]', tags = '[]', consents = $4, provenance = '{}', trust_level = 'NEW', state = 'SUSPENDED',
             suspension_cause = 'CALLER', erase_time = $3, version = version + 1, update_time = $3
         WHERE programme_id = $1 AND member_id = ANY ($2)",
        programme.0,
        members,
        now,
        Json(&nothing) as Json<&Vec<Consent>>,
    )
    .execute(&mut *conn)
    .await?;
    let words = sqlx::query_scalar!(r#"SELECT erase_words($1, $2) AS "words!""#, programme.0, members).fetch_one(conn).await?;
    let counts = [
        ("external_identity", gone.identities),
        ("sync_seen", gone.seen),
        ("member_change_value", gone.befores),
        ("member_search", gone.names),
        ("value_profile", gone.scores),
        ("tier_proposal", gone.proposals),
        ("tier_reading", gone.readings),
        ("tier_standing", gone.standings),
        ("tier_dry_run_member", gone.trials),
        ("member", i64::try_from(emptied.rows_affected()).unwrap_or(i64::MAX)),
        ("trail", words),
    ];
    Ok(counts.into_iter().filter(|(_, rows)| *rows > 0).map(|(name, rows)| (name.to_owned(), rows)).collect())
}

/// Keeps an erasure with those who have to follow it.
pub async fn insert(conn: &mut PgConnection, programme: ProgrammeId, erasure: &Erasure) -> Result<(), sqlx::Error> {
    let members: Vec<Uuid> = erasure.members.iter().map(|member| member.0).collect();
    sqlx::query!(
        "INSERT INTO erasure (
             programme_id, erasure_id, member_id, member_ids, ground, erased, actor, erase_time, deadline_time, complete_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        programme.0,
        erasure.id.0,
        erasure.member.0,
        &members,
        erasure.ground.name(),
        Json(&erasure.erased) as Json<&Erased>,
        erasure.actor,
        erasure.erase_time,
        erasure.deadline,
        erasure.complete_time,
    )
    .execute(&mut *conn)
    .await?;
    let consumers: Vec<&str> = erasure.duties.iter().map(|duty| duty.consumer.as_str()).collect();
    sqlx::query!(
        "INSERT INTO erasure_duty (programme_id, erasure_id, consumer)
         SELECT $1, $2, c.consumer
         FROM UNNEST($3::text[]) AS c (consumer)",
        programme.0,
        erasure.id.0,
        &consumers as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The erasure of a member, by the id that the others led to.
pub async fn of_member(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
) -> Result<Option<ErasureId>, sqlx::Error> {
    let id = sqlx::query_scalar!(
        "SELECT erasure_id
         FROM erasure
         WHERE programme_id = $1 AND member_id = $2",
        programme.0,
        member.0,
    );
    Ok(id.fetch_optional(conn).await?.map(ErasureId))
}

/// Locks an erasure; false when there is none.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: ErasureId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT true AS "found!"
           FROM erasure
           WHERE programme_id = $1 AND erasure_id = $2
           FOR UPDATE"#,
        programme.0,
        id.0,
    );
    Ok(found.fetch_optional(conn).await?.is_some())
}

/// Keeps that a consumer has followed, unless it is known, and when it was the last, that all have. The erasure is locked. False when
/// nobody waits for it.
pub async fn acknowledge(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ErasureId,
    consumer: &str,
    erased: &Erased,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let known = sqlx::query!(
        "UPDATE erasure_duty
         SET acknowledge_time = COALESCE(acknowledge_time, $6), erased = COALESCE(erased, $4), actor = COALESCE(actor, $5)
         WHERE programme_id = $1 AND erasure_id = $2 AND consumer = $3",
        programme.0,
        id.0,
        consumer,
        Json(erased) as Json<&Erased>,
        actor,
        now,
    )
    .execute(&mut *conn)
    .await?;
    if known.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query!(
        "UPDATE erasure AS e
         SET complete_time = $3
         WHERE e.programme_id = $1 AND e.erasure_id = $2 AND e.complete_time IS NULL
           AND NOT EXISTS (
               SELECT FROM erasure_duty d
               WHERE d.programme_id = e.programme_id AND d.erasure_id = e.erasure_id AND d.acknowledge_time IS NULL
           )",
        programme.0,
        id.0,
        now,
    )
    .execute(conn)
    .await?;
    Ok(true)
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: ErasureId) -> Result<Option<Erasure>, sqlx::Error> {
    Ok(get_all(conn, programme, &[id.0]).await?.pop())
}

/// A place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub complete: bool,
    pub deadline: DateTime<Utc>,
    pub id: ErasureId,
}

/// Those that somebody has not followed first, then by their deadlines; after a place.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    open_only: bool,
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT complete_time IS NOT NULL AS "complete!", deadline_time, erasure_id
           FROM erasure
           WHERE programme_id = $1 AND (complete_time IS NOT NULL) <= $2
             AND ((complete_time IS NOT NULL), deadline_time, erasure_id) > ($3, $4, $5)
           ORDER BY complete_time IS NOT NULL, deadline_time, erasure_id
           LIMIT $6"#,
        programme.0,
        !open_only,
        after.is_some_and(|place| place.complete),
        after.map_or(DateTime::UNIX_EPOCH, |place| place.deadline),
        after.map_or(Uuid::nil(), |place| place.id.0),
        limit,
    );
    let rows = rows.fetch_all(conn).await?;
    Ok(rows
        .into_iter()
        .map(|row| Place { complete: row.complete, deadline: row.deadline_time, id: ErasureId(row.erasure_id) })
        .collect())
}

/// Erasures with their duties, in the order of `ids`.
pub async fn get_all(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<Vec<Erasure>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT e.erasure_id, e.member_id, e.member_ids, e.ground, e.erased AS "erased: Json<Erased>", e.actor, e.erase_time,
                  e.deadline_time, e.complete_time,
                  d.consumer AS "consumer?", d.acknowledge_time AS "acknowledge_time?", d.erased AS "destroyed?: Json<Erased>"
           FROM UNNEST($2::uuid[]) WITH ORDINALITY AS i (erasure_id, nr)
           JOIN erasure e ON e.programme_id = $1 AND e.erasure_id = i.erasure_id
           LEFT JOIN erasure_duty d ON d.programme_id = e.programme_id AND d.erasure_id = e.erasure_id
           ORDER BY i.nr, d.acknowledge_time IS NOT NULL, d.consumer"#,
        programme.0,
        ids,
    )
    .fetch_all(conn)
    .await?;
    let mut erasures: Vec<Erasure> = Vec::new();
    for row in rows {
        if erasures.last().is_none_or(|last| last.id.0 != row.erasure_id) {
            erasures.push(Erasure {
                id: ErasureId(row.erasure_id),
                member: MemberId(row.member_id),
                members: row.member_ids.into_iter().map(MemberId).collect(),
                ground: Ground::from_name(&row.ground).ok_or_else(|| unknown("erasure.ground"))?,
                erased: row.erased.0,
                actor: row.actor,
                erase_time: row.erase_time,
                deadline: row.deadline_time,
                complete_time: row.complete_time,
                duties: Vec::new(),
            });
        }
        if let (Some(last), Some(consumer)) = (erasures.last_mut(), row.consumer) {
            let done = row.acknowledge_time.map(|time| (time, row.destroyed.map(|erased| erased.0).unwrap_or_default()));
            last.duties.push(Duty { consumer, done });
        }
    }
    Ok(erasures)
}

/// Whom all programmes wait for after the deadline, with how many erasures each has not followed, and the oldest of them.
pub async fn overdue(conn: &mut PgConnection) -> Result<Vec<(String, i64, DateTime<Utc>)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT d.consumer, count(*) AS "count!", min(e.deadline_time) AS "oldest!"
           FROM erasure e
           JOIN erasure_duty d ON d.programme_id = e.programme_id AND d.erasure_id = e.erasure_id AND d.acknowledge_time IS NULL
           WHERE e.complete_time IS NULL AND e.deadline_time < koc_now()
           GROUP BY d.consumer
           ORDER BY d.consumer"#
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.consumer, row.count, row.oldest)).collect())
}
