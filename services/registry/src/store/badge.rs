//! Badges, and who was given them.

use super::unknown;
use crate::domain::{
    badge::{Award, AwardId, AwardOrigin, Badge, Condition, Evidence, Holder, MERGE_SOURCE},
    consent::{Consent, Purpose, withdrawn},
    value::Score,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

struct BadgeRow {
    badge_id: String,
    version: i32,
    display_name: String,
    description: String,
    conditions: Json<Vec<Condition>>,
    repeatable: bool,
    retired: bool,
    create_time: DateTime<Utc>,
}

impl From<BadgeRow> for Badge {
    fn from(row: BadgeRow) -> Self {
        Self {
            id: row.badge_id,
            version: row.version,
            display_name: row.display_name,
            description: row.description,
            conditions: row.conditions.0,
            repeatable: row.repeatable,
            retired: row.retired,
            version_time: row.create_time,
        }
    }
}

/// Badges as they are now, by id, after one of them.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    after: &str,
    limit: Option<i64>,
) -> Result<Vec<Badge>, sqlx::Error> {
    let rows = sqlx::query_as!(
        BadgeRow,
        r#"SELECT DISTINCT ON (badge_id) badge_id, version, display_name, description,
                  conditions AS "conditions: Json<Vec<Condition>>", repeatable, retired, create_time
           FROM badge_version
           WHERE programme_id = $1 AND badge_id > $2
           ORDER BY badge_id, version DESC
           LIMIT $3"#,
        programme.0,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Into::into).collect())
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, badge_id: &str) -> Result<Option<Badge>, sqlx::Error> {
    let row = sqlx::query_as!(
        BadgeRow,
        r#"SELECT badge_id, version, display_name, description, conditions AS "conditions: Json<Vec<Condition>>", repeatable,
                  retired, create_time
           FROM badge_version
           WHERE programme_id = $1 AND badge_id = $2
           ORDER BY version DESC
           LIMIT 1"#,
        programme.0,
        badge_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Into::into))
}

/// Writes a version of a badge. The programme is locked.
pub async fn insert(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    badge: &Badge,
    reason: &str,
    actor: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO badge_version (
             programme_id, badge_id, version, display_name, description, conditions, repeatable, retired, reason, actor,
             create_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        programme.0,
        badge.id,
        badge.version,
        badge.display_name,
        badge.description,
        Json(&badge.conditions) as Json<&Vec<Condition>>,
        badge.repeatable,
        badge.retired,
        reason,
        actor,
        badge.version_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What conditions look at, of the members among these ids.
pub async fn holders(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<Vec<Holder>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT m.member_id, m.tier_id, m.consents AS "consents: Json<Vec<Consent>>", COALESCE(a.lifetime_points, 0) AS "lifetime_points!",
                  v.scores AS "scores?: Json<Vec<Score>>"
           FROM member m
           LEFT JOIN points_account a ON a.programme_id = m.programme_id AND a.member_id = m.member_id
           LEFT JOIN value_profile v ON v.programme_id = m.programme_id AND v.member_id = m.member_id
           WHERE m.programme_id = $1 AND m.member_id = ANY ($2)
           ORDER BY m.member_id"#,
        programme.0,
        ids,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut holders: BTreeMap<Uuid, Holder> = BTreeMap::new();
    for row in rows {
        // Without consent to profiling nothing is read from a profile.
        let scores =
            row.scores.filter(|_| !withdrawn(&row.consents, Purpose::Profiling)).map(|scores| scores.0).unwrap_or_default();
        let holder = Holder {
            member: MemberId(row.member_id),
            lifetime_points: row.lifetime_points,
            tier_id: row.tier_id,
            value_types: scores.into_iter().filter(|score| score.labelled).map(|score| score.value_type).collect(),
            held: BTreeMap::new(),
            given: BTreeSet::new(),
            given_by_rule: BTreeSet::new(),
        };
        holders.insert(row.member_id, holder);
    }
    let rows = sqlx::query!(
        r#"SELECT a.member_id, a.badge_id, bool_or(a.source IS NULL OR starts_with(a.source, $3)) AS "by_rule!",
                  (count(*) - count(r.award_id))::integer AS "held!"
           FROM badge_award a
           LEFT JOIN badge_revocation r ON r.programme_id = a.programme_id AND r.award_id = a.award_id
           WHERE a.programme_id = $1 AND a.member_id = ANY ($2)
             -- What came by a merge and went with it was never the member's own: it can be earned.
             AND NOT (r.award_id IS NOT NULL AND COALESCE(starts_with(a.source, $3), false))
           GROUP BY a.member_id, a.badge_id"#,
        programme.0,
        ids,
        MERGE_SOURCE,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let Some(holder) = holders.get_mut(&row.member_id) else { continue };
        if row.by_rule {
            holder.given_by_rule.insert(row.badge_id.clone());
        }
        holder.held.insert(row.badge_id.clone(), row.held);
        holder.given.insert(row.badge_id);
    }
    Ok(holders.into_values().collect())
}

/// Writes awards. The members' accounts are locked.
pub async fn insert_awards(conn: &mut PgConnection, programme: ProgrammeId, awards: &[Award]) -> Result<(), sqlx::Error> {
    let mut evidence: Vec<Option<Json<&Evidence>>> = Vec::with_capacity(awards.len());
    let mut sources: Vec<Option<&str>> = Vec::with_capacity(awards.len());
    for award in awards {
        let (found, source) = match &award.origin {
            AwardOrigin::Rule(found) => (Some(Json(found)), None),
            AwardOrigin::Hand(source) => (None, Some(source.as_str())),
        };
        evidence.push(found);
        sources.push(source);
    }
    let ids: Vec<Uuid> = awards.iter().map(|award| award.id.0).collect();
    let members: Vec<Uuid> = awards.iter().map(|award| award.member.0).collect();
    let badges: Vec<&str> = awards.iter().map(|award| award.badge_id.as_str()).collect();
    let versions: Vec<i32> = awards.iter().map(|award| award.badge_version).collect();
    let actors: Vec<&str> = awards.iter().map(|award| award.actor.as_str()).collect();
    let times: Vec<DateTime<Utc>> = awards.iter().map(|award| award.award_time).collect();
    sqlx::query!(
        "INSERT INTO badge_award (
             programme_id, award_id, member_id, badge_id, badge_version, evidence, source, actor, award_time
         )
         SELECT $1, n.*
         FROM UNNEST(
             $2::uuid[], $3::uuid[], $4::text[], $5::integer[], $6::jsonb[], $7::text[], $8::text[], $9::timestamptz[]
         ) AS n",
        programme.0,
        &ids,
        &members,
        &badges as &[&str],
        &versions,
        &evidence as &[Option<Json<&Evidence>>],
        &sources as &[Option<&str>],
        &actors as &[&str],
        &times,
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct AwardRow {
    award_id: Uuid,
    member_id: Uuid,
    badge_id: String,
    badge_version: i32,
    evidence: Option<Json<Evidence>>,
    source: Option<String>,
    actor: String,
    award_time: DateTime<Utc>,
    revoke_time: Option<DateTime<Utc>>,
}

impl AwardRow {
    fn into_award(self) -> Result<Award, sqlx::Error> {
        let origin = match (self.evidence, self.source) {
            (Some(evidence), None) => AwardOrigin::Rule(evidence.0),
            (None, Some(source)) => AwardOrigin::Hand(source),
            _ => return Err(unknown("badge_award.source")),
        };
        Ok(Award {
            id: AwardId(self.award_id),
            member: MemberId(self.member_id),
            badge_id: self.badge_id,
            badge_version: self.badge_version,
            origin,
            actor: self.actor,
            award_time: self.award_time,
            revoke_time: self.revoke_time,
        })
    }
}

pub async fn award(conn: &mut PgConnection, programme: ProgrammeId, id: AwardId) -> Result<Option<Award>, sqlx::Error> {
    let row = sqlx::query_as!(
        AwardRow,
        r#"SELECT a.award_id, a.member_id, a.badge_id, a.badge_version, a.evidence AS "evidence?: Json<Evidence>", a.source,
                  a.actor, a.award_time, r.revoke_time AS "revoke_time?"
           FROM badge_award a
           LEFT JOIN badge_revocation r ON r.programme_id = a.programme_id AND r.award_id = a.award_id
           WHERE a.programme_id = $1 AND a.award_id = $2"#,
        programme.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(AwardRow::into_award).transpose()
}

/// The award of a badge that a member was given by hand from a source.
pub async fn award_of_source(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    badge_id: &str,
    source: &str,
) -> Result<Option<Award>, sqlx::Error> {
    let row = sqlx::query_as!(
        AwardRow,
        r#"SELECT a.award_id, a.member_id, a.badge_id, a.badge_version, a.evidence AS "evidence?: Json<Evidence>", a.source,
                  a.actor, a.award_time, r.revoke_time AS "revoke_time?"
           FROM badge_award a
           LEFT JOIN badge_revocation r ON r.programme_id = a.programme_id AND r.award_id = a.award_id
           WHERE a.programme_id = $1 AND a.member_id = $2 AND a.badge_id = $3 AND a.source = $4"#,
        programme.0,
        member.0,
        badge_id,
        source,
    )
    .fetch_optional(conn)
    .await?;
    row.map(AwardRow::into_award).transpose()
}

/// A member's awards before one of them, newest first.
pub async fn list_awards(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Award>, sqlx::Error> {
    let rows = sqlx::query_as!(
        AwardRow,
        r#"SELECT a.award_id, a.member_id, a.badge_id, a.badge_version, a.evidence AS "evidence?: Json<Evidence>", a.source,
                  a.actor, a.award_time, r.revoke_time AS "revoke_time?"
           FROM badge_award a
           LEFT JOIN badge_revocation r ON r.programme_id = a.programme_id AND r.award_id = a.award_id
           WHERE a.programme_id = $1 AND a.member_id = $2 AND a.award_id < $3
           ORDER BY a.award_id DESC
           LIMIT $4"#,
        programme.0,
        member.0,
        before,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(AwardRow::into_award).collect()
}

/// All that a member was given, by whatever it still holds.
pub async fn all_awards(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<Vec<Award>, sqlx::Error> {
    list_awards(conn, programme, member, Uuid::max(), i64::MAX).await
}

/// What a member was given and nobody has taken back.
pub async fn standing_awards(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
) -> Result<Vec<Award>, sqlx::Error> {
    let mut awards = all_awards(conn, programme, member).await?;
    awards.retain(|award| award.revoke_time.is_none());
    Ok(awards)
}

/// Takes an award back. The member's account is locked, and the award stands.
pub async fn revoke(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: AwardId,
    reason: &str,
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO badge_revocation (programme_id, award_id, reason, actor, revoke_time)
         VALUES ($1, $2, $3, $4, $5)",
        programme.0,
        id.0,
        reason,
        actor,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
