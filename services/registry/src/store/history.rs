//! Who changed what of members.

use super::unknown;
use crate::domain::history::{Change, ChangeKind, Kept, KeptField};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use std::collections::HashSet;
use uuid::Uuid;

/// The name under which the reason of a change stands among its values.
const REASON: &str = "reason";

/// Keeps changes of members that are locked.
pub async fn insert_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    changes: &[Change],
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let members: Vec<Uuid> = changes.iter().map(|change| change.member.0).collect();
    let versions: Vec<i64> = changes.iter().map(|change| change.version).collect();
    let kinds: Vec<&str> = changes.iter().map(|change| change.kind.name()).collect();
    let sources: Vec<&str> = changes.iter().map(|change| change.source.as_str()).collect();
    let paths = |change: &Change| change.fields.iter().map(|field| field.path.as_str()).collect::<Vec<_>>().join(",");
    // An array of arrays must be a rectangle in Postgres, so the paths of each come as one text.
    let fields: Vec<String> = changes.iter().map(paths).collect();
    let others: Vec<Option<Uuid>> = changes.iter().map(|change| change.other.map(|other| other.0)).collect();
    sqlx::query!(
        "INSERT INTO member_change (
             programme_id, member_id, version, kind, source_system, fields, other_member_id, actor, change_time
         )
         SELECT $1, c.member_id, c.version, c.kind, c.source_system, string_to_array(c.fields, ','), c.other_member_id, $8, $9
         FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::uuid[])
              AS c (member_id, version, kind, source_system, fields, other_member_id)",
        programme.0,
        &members,
        &versions,
        &kinds as &[&str],
        &sources as &[&str],
        &fields,
        &others as &[Option<Uuid>],
        actor,
        now,
    )
    .execute(&mut *conn)
    .await?;

    let mut values: Vec<(Uuid, i64, &str, Value)> = Vec::new();
    for change in changes {
        let (member, version) = (change.member.0, change.version);
        let before =
            change.fields.iter().filter_map(|field| Some((member, version, field.path.as_str(), field.content.clone()?)));
        values.extend(before);
        values.extend(change.reason.as_deref().map(|reason| (member, version, REASON, Value::from(reason))));
    }
    if values.is_empty() {
        return Ok(());
    }
    let members: Vec<Uuid> = values.iter().map(|(member, ..)| *member).collect();
    let versions: Vec<i64> = values.iter().map(|(_, version, ..)| *version).collect();
    let fields: Vec<&str> = values.iter().map(|(_, _, field, _)| *field).collect();
    let contents: Vec<Json<&Value>> = values.iter().map(|(.., content)| Json(content)).collect();
    sqlx::query!(
        "INSERT INTO member_change_value (programme_id, member_id, version, field, content)
         SELECT $1, v.*
         FROM UNNEST($2::uuid[], $3::bigint[], $4::text[], $5::jsonb[]) AS v",
        programme.0,
        &members,
        &versions,
        &fields as &[&str],
        &contents as &[Json<&Value>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A member's changes before one of its versions, newest first.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    before: i64,
    limit: i64,
) -> Result<Vec<Kept>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT c.version, c.kind, c.source_system, c.other_member_id, c.actor, c.change_time,
                  (SELECT r.content
                   FROM member_change_value r
                   WHERE r.programme_id = $1 AND r.member_id = $2 AND r.field = $5 AND r.version = c.version
                  ) AS "reason?: Json<Value>",
                  f.path AS "path?", v.content AS "content?: Json<Value>", n.content AS "next?: Json<Value>"
           FROM (
               SELECT version, kind, source_system, fields, other_member_id, actor, change_time
               FROM member_change
               WHERE programme_id = $1 AND member_id = $2 AND version < $3
               ORDER BY version DESC
               LIMIT $4
           ) AS c
           LEFT JOIN LATERAL UNNEST(c.fields) WITH ORDINALITY AS f (path, nr) ON true
           LEFT JOIN member_change_value v
                ON v.programme_id = $1 AND v.member_id = $2 AND v.field = f.path AND v.version = c.version
           LEFT JOIN LATERAL (
               SELECT l.content
               FROM member_change_value l
               WHERE l.programme_id = $1 AND l.member_id = $2 AND l.field = f.path AND l.version > c.version
               ORDER BY l.version
               LIMIT 1
           ) AS n ON true
           ORDER BY c.version DESC, f.nr"#,
        programme.0,
        member.0,
        before,
        limit,
        REASON,
    )
    .fetch_all(conn)
    .await?;
    let mut kept: Vec<Kept> = Vec::new();
    for row in rows {
        if kept.last().is_none_or(|last| last.version != row.version) {
            kept.push(Kept {
                version: row.version,
                kind: ChangeKind::from_name(&row.kind).ok_or_else(|| unknown("member_change.kind"))?,
                source: row.source_system,
                fields: Vec::new(),
                other: row.other_member_id.map(MemberId),
                reason: row.reason.and_then(|reason| reason.0.as_str().map(str::to_owned)),
                actor: row.actor,
                time: row.change_time,
            });
        }
        if let (Some(last), Some(path)) = (kept.last_mut(), row.path) {
            last.fields.push(KeptField { path, before: row.content.map(|json| json.0), next: row.next.map(|json| json.0) });
        }
    }
    Ok(kept)
}

/// What of a member changed after one of its versions: paths of fields.
pub async fn changed_since(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    version: i64,
) -> Result<HashSet<String>, sqlx::Error> {
    let paths = sqlx::query_scalar!(
        "SELECT DISTINCT field
         FROM member_change_value
         WHERE programme_id = $1 AND member_id = $2 AND version > $3",
        programme.0,
        member.0,
        version,
    );
    Ok(paths.fetch_all(conn).await?.into_iter().collect())
}

/// The addresses and numbers that members had before, as (address, number) of which one is empty.
pub async fn contacts(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT DISTINCT CASE WHEN field = 'profile.email' THEN content #>> '{}' ELSE '' END AS "email!",
                  CASE WHEN field = 'profile.phone' THEN content #>> '{}' ELSE '' END AS "phone!"
           FROM member_change_value
           WHERE programme_id = $1 AND member_id = ANY ($2) AND field IN ('profile.email', 'profile.phone')"#,
        programme.0,
        members,
    );
    Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (row.email, row.phone)).collect())
}
