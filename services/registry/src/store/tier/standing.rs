//! What is kept of members' tiers beside the tiers themselves: readings, reviews, holds and risks.

use crate::domain::{
    consent::Consent,
    tier::{
        Candidate, Reading, Review, Standing,
        standing::{Hold, Level, MAX_READINGS},
        verdict::Risk,
    },
};
use crate::store::unknown;
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use std::collections::{BTreeMap, HashMap};
use uuid::Uuid;

/// Writes a reading in place of what was said of the same period, and that the member has a standing. The member is locked.
pub async fn put_reading(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    reading: &Reading,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "WITH standing AS (
             INSERT INTO tier_standing (programme_id, member_id)
             VALUES ($1, $2)
             ON CONFLICT DO NOTHING
         )
         INSERT INTO tier_reading (
             programme_id, member_id, as_of, level_mean, level_sd, told_probability, weight, output_count, decision_id
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT ON CONSTRAINT tier_reading_pkey DO UPDATE
         SET level_mean = excluded.level_mean, level_sd = excluded.level_sd, told_probability = excluded.told_probability,
             weight = excluded.weight, output_count = excluded.output_count, decision_id = excluded.decision_id",
        programme.0,
        member.0,
        reading.as_of,
        reading.level.map(|level| level.mean),
        reading.level.map(|level| level.sd),
        reading.told_probability,
        reading.weight,
        reading.output_count,
        reading.decision,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Members to be judged after one of them, in the order of their ids: with an open proposal, or without an output for long.
pub async fn due(conn: &mut PgConnection, programme: ProgrammeId, after: Uuid, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    let due = sqlx::query_scalar!(
        r#"SELECT due.member_id AS "member_id!"
           FROM (
               (SELECT member_id
                FROM tier_proposal
                WHERE programme_id = $1 AND member_id > $2 AND consume_time IS NULL
                ORDER BY member_id
                LIMIT $3)
               UNION
               (SELECT member_id
                FROM tier_standing
                WHERE programme_id = $1 AND member_id > $2 AND risk = 'DORMANT' AND risk_time <= koc_now()
                ORDER BY member_id
                LIMIT $3)
           ) AS due
           ORDER BY due.member_id
           LIMIT $3"#,
        programme.0,
        after,
        limit,
    );
    due.fetch_all(conn).await
}

/// Members with a standing after one of them, in the order of their ids.
pub async fn page(conn: &mut PgConnection, programme: ProgrammeId, after: Uuid, limit: i64) -> Result<Vec<Uuid>, sqlx::Error> {
    let members = sqlx::query_scalar!(
        "SELECT member_id
         FROM tier_standing
         WHERE programme_id = $1 AND member_id > $2
         ORDER BY member_id
         LIMIT $3",
        programme.0,
        after,
        limit,
    );
    members.fetch_all(conn).await
}

/// Locks those of these members that take part and are not merged, in the order of their ids.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, members: &[Uuid]) -> Result<Vec<Uuid>, sqlx::Error> {
    let locked = sqlx::query_scalar!(
        "SELECT member_id
         FROM member
         WHERE programme_id = $1 AND member_id = ANY ($2) AND state = 'ACTIVE' AND merged_into IS NULL
         ORDER BY member_id
         FOR NO KEY UPDATE",
        programme.0,
        members,
    );
    locked.fetch_all(conn).await
}

/// A member as it is judged, whether it takes part or not. It is not merged.
pub async fn candidate(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
) -> Result<Option<Candidate>, sqlx::Error> {
    Ok(find(conn, programme, &[member.0], true).await?.pop())
}

/// Those of these members that take part and are not merged, as they are judged, in the order of their ids.
pub async fn candidates(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
) -> Result<Vec<Candidate>, sqlx::Error> {
    find(conn, programme, members, false).await
}

async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
    suspended: bool,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let mut readings = readings(conn, programme, members).await?;
    let rows = sqlx::query!(
        r#"SELECT m.member_id, m.tier_id, m.tier_since, m.consents AS "consents: Json<Vec<Consent>>",
                  s.counted_to AS "counted_to?", s.review_since AS "review_since?", s.review_as_of AS "review_as_of?",
                  s.review_dormant AS "review_dormant?", s.held AS "held?", s.hold_end AS "hold_end?",
                  p.as_of AS "as_of?", p.promote_probability AS "told_probability?", p.output_count AS "output_count?",
                  p.decision_id AS "decision_id?"
           FROM member m
           LEFT JOIN tier_standing s ON s.programme_id = m.programme_id AND s.member_id = m.member_id
           LEFT JOIN tier_proposal p ON p.programme_id = m.programme_id AND p.member_id = m.member_id AND p.consume_time IS NULL
           WHERE m.programme_id = $1 AND m.member_id = ANY ($2) AND (m.state = 'ACTIVE' OR $3) AND m.merged_into IS NULL
           ORDER BY m.member_id"#,
        programme.0,
        members,
        suspended,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let dormant = row.review_dormant.unwrap_or_default();
            let review = row.review_since.zip(row.review_as_of).map(|(since, as_of)| Review { since, as_of, dormant });
            let hold = row.held.unwrap_or_default().then_some(Hold { end: row.hold_end });
            let mut readings = readings.remove(&row.member_id).unwrap_or_default();
            // A proposal that a service from before there were readings took in.
            if let (Some(as_of), Some(told_probability), Some(output_count), Some(decision)) =
                (row.as_of, row.told_probability, row.output_count, row.decision_id)
                && readings.first().is_none_or(|newest| newest.as_of < as_of)
            {
                let weight = f64::from(output_count);
                readings.insert(0, Reading { as_of, level: None, told_probability, weight, output_count, decision });
            }
            Candidate {
                member: MemberId(row.member_id),
                tier_id: row.tier_id,
                tier_since: row.tier_since,
                consents: row.consents.0,
                standing: Standing { counted_to: row.counted_to, review, hold },
                readings,
            }
        })
        .collect())
}

/// The last readings of members, newest first.
async fn readings(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
) -> Result<HashMap<Uuid, Vec<Reading>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT r.member_id, r.as_of, r.level_mean, r.level_sd, r.told_probability, r.weight, r.output_count, r.decision_id
           FROM UNNEST($2::uuid[]) AS wanted (member_id)
           CROSS JOIN LATERAL (
               SELECT *
               FROM tier_reading
               WHERE programme_id = $1 AND member_id = wanted.member_id
               ORDER BY as_of DESC
               LIMIT $3
           ) AS r
           ORDER BY r.member_id, r.as_of DESC"#,
        programme.0,
        members,
        MAX_READINGS as i64,
    )
    .fetch_all(conn)
    .await?;
    let mut found: HashMap<Uuid, Vec<Reading>> = HashMap::new();
    for row in rows {
        found.entry(row.member_id).or_default().push(Reading {
            as_of: row.as_of,
            level: row.level_mean.zip(row.level_sd).map(|(mean, sd)| Level { mean, sd }),
            told_probability: row.told_probability,
            weight: row.weight,
            output_count: row.output_count,
            decision: row.decision_id,
        });
    }
    Ok(found)
}

/// What is to be kept of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub member: MemberId,
    pub standing: Standing,
    pub risk: Option<(Risk, DateTime<Utc>)>,
}

/// Writes standings. The members are locked.
pub async fn put(conn: &mut PgConnection, programme: ProgrammeId, kept: &[Kept]) -> Result<(), sqlx::Error> {
    if kept.is_empty() {
        return Ok(());
    }
    let members: Vec<Uuid> = kept.iter().map(|k| k.member.0).collect();
    let counted: Vec<Option<DateTime<Utc>>> = kept.iter().map(|k| k.standing.counted_to).collect();
    let since: Vec<Option<DateTime<Utc>>> = kept.iter().map(|k| k.standing.review.map(|review| review.since)).collect();
    let as_of: Vec<Option<DateTime<Utc>>> = kept.iter().map(|k| k.standing.review.map(|review| review.as_of)).collect();
    let dormant: Vec<bool> = kept.iter().map(|k| k.standing.review.is_some_and(|review| review.dormant)).collect();
    let held: Vec<bool> = kept.iter().map(|k| k.standing.hold.is_some()).collect();
    let hold_end: Vec<Option<DateTime<Utc>>> = kept.iter().map(|k| k.standing.hold.and_then(|hold| hold.end)).collect();
    let risks: Vec<Option<&str>> = kept.iter().map(|k| k.risk.map(|(risk, _)| risk.name())).collect();
    let risk_times: Vec<Option<DateTime<Utc>>> = kept.iter().map(|k| k.risk.map(|(_, time)| time)).collect();
    sqlx::query!(
        "INSERT INTO tier_standing (
             programme_id, member_id, counted_to, review_since, review_as_of, review_dormant, held, hold_end, risk, risk_time
         )
         SELECT $1, n.*
         FROM UNNEST(
             $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[], $6::boolean[], $7::boolean[], $8::timestamptz[],
             $9::text[], $10::timestamptz[]
         ) AS n
         ON CONFLICT ON CONSTRAINT tier_standing_pkey DO UPDATE
         SET counted_to = excluded.counted_to, review_since = excluded.review_since, review_as_of = excluded.review_as_of,
             review_dormant = excluded.review_dormant, held = excluded.held, hold_end = excluded.hold_end, risk = excluded.risk,
             risk_time = excluded.risk_time",
        programme.0,
        &members,
        &counted as &[Option<DateTime<Utc>>],
        &since as &[Option<DateTime<Utc>>],
        &as_of as &[Option<DateTime<Utc>>],
        &dormant,
        &held,
        &hold_end as &[Option<DateTime<Utc>>],
        &risks as &[Option<&str>],
        &risk_times as &[Option<DateTime<Utc>>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Members of tiers, counted up to a limit: of the tiers that are named with one.
pub async fn count_up_to(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    limits: &[(&str, i64)],
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let (tiers, limits): (Vec<&str>, Vec<i64>) = limits.iter().copied().unzip();
    let rows = sqlx::query!(
        r#"SELECT asked.tier_id AS "tier_id!", counted.members AS "members!"
           FROM UNNEST($2::text[], $3::bigint[]) AS asked (tier_id, most)
           CROSS JOIN LATERAL (
               SELECT count(*) AS members
               FROM (
                   SELECT member_id
                   FROM member
                   WHERE programme_id = $1 AND tier_id = asked.tier_id AND merged_into IS NULL
                   ORDER BY member_id
                   LIMIT asked.most
               ) AS found
           ) AS counted"#,
        programme.0,
        &tiers as &[&str],
        &limits,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.tier_id, row.members)).collect())
}

/// A member at risk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtRisk {
    pub member: MemberId,
    pub risk: Risk,
    pub time: DateTime<Utc>,
}

/// Members whose tier is at risk until a time, after a place, by the time of the risk.
pub async fn at_risk(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    until: DateTime<Utc>,
    after: (DateTime<Utc>, Uuid),
    limit: i64,
) -> Result<Vec<AtRisk>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT member_id, risk AS "risk!", risk_time AS "risk_time!"
           FROM tier_standing
           WHERE programme_id = $1 AND risk IS NOT NULL AND risk_time <= $2 AND (risk_time, member_id) > ($3, $4)
           ORDER BY risk_time, member_id
           LIMIT $5"#,
        programme.0,
        until,
        after.0,
        after.1,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            let risk = Risk::from_name(&row.risk).ok_or_else(|| unknown("tier_standing.risk"))?;
            Ok(AtRisk { member: MemberId(row.member_id), risk, time: row.risk_time })
        })
        .collect()
}
