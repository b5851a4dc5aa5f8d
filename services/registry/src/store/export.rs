//! Exports: what is held of a person, part by part.

use crate::domain::export::{Export, ExportId, Holder};
use koc_chassis::ids::{MemberId, ProgrammeId};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// What the registry holds of a person by its ids, by kind.
pub async fn collect(conn: &mut PgConnection, programme: ProgrammeId, members: &[Uuid]) -> Result<Value, sqlx::Error> {
    let held = sqlx::query_scalar!(
        r#"SELECT jsonb_build_object(
               'member', (SELECT jsonb_agg(to_jsonb(t)) FROM member t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'external_identity',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM external_identity t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'member_change',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM member_change t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'member_change_value',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM member_change_value t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'member_merge',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM member_merge t
                    WHERE programme_id = $1 AND (winner_id = ANY ($2) OR loser_id = ANY ($2))),
               'value_profile',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM value_profile t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'tier_proposal',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM tier_proposal t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'tier_reading',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM tier_reading t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'tier_standing',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM tier_standing t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'tier_dry_run_member',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM tier_dry_run_member t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'tier_move', (SELECT jsonb_agg(to_jsonb(t)) FROM tier_move t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'points_account',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM points_account t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'points_entry',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM points_entry t WHERE programme_id = $1 AND member_id = ANY ($2)),
               'badge_award',
                   (SELECT jsonb_agg(to_jsonb(t) || jsonb_build_object('revocation', to_jsonb(r)))
                    FROM badge_award t
                    LEFT JOIN badge_revocation r ON r.programme_id = t.programme_id AND r.award_id = t.award_id
                    WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'sync_seen',
                   (SELECT jsonb_agg(to_jsonb(t))
                    FROM external_identity i
                    JOIN sync_run r ON r.programme_id = $1 AND r.source_system = i.source_system AND r.mode = 'FULL'
                    JOIN sync_seen t ON t.programme_id = $1 AND t.sync_run_id = r.sync_run_id AND t.external_id = i.external_id
                    WHERE i.programme_id = $1 AND i.member_id = ANY ($2)),
               'webhook_delivery',
                   (SELECT jsonb_agg(to_jsonb(t))
                    FROM webhook w
                    JOIN webhook_delivery t ON t.webhook_id = w.webhook_id
                    WHERE w.programme_id = $1 AND t.member_id = ANY ($2)),
               'audit_entry',
                   (SELECT jsonb_agg(to_jsonb(t)) FROM audit_entry t WHERE programme_id = $1 AND subject_id = ANY ($2))
           ) AS "held!: Json<Value>""#,
        programme.0,
        members,
    );
    Ok(held.fetch_one(conn).await?.0)
}

/// Keeps an export with those who hold something.
pub async fn insert(conn: &mut PgConnection, programme: ProgrammeId, export: &Export) -> Result<(), sqlx::Error> {
    let members: Vec<Uuid> = export.members.iter().map(|member| member.0).collect();
    sqlx::query!(
        "INSERT INTO member_export (
             programme_id, export_id, member_id, member_ids, actor, request_time, deadline_time, expire_time
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        programme.0,
        export.id.0,
        export.member.0,
        &members,
        export.actor,
        export.request_time,
        export.deadline,
        export.expire_time,
    )
    .execute(&mut *conn)
    .await?;
    let holders: Vec<&str> = export.holders.iter().map(|holder| holder.name.as_str()).collect();
    sqlx::query!(
        "INSERT INTO member_export_holder (programme_id, export_id, holder, part_count)
         SELECT $1, $2, h.holder, 0
         FROM UNNEST($3::text[]) AS h (holder)",
        programme.0,
        export.id.0,
        &holders as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: ExportId) -> Result<Option<Export>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT e.member_id, e.member_ids, e.actor, e.request_time, e.deadline_time, e.expire_time, h.holder, h.part_count
         FROM member_export e
         JOIN member_export_holder h ON h.programme_id = e.programme_id AND h.export_id = e.export_id
         WHERE e.programme_id = $1 AND e.export_id = $2 AND e.expire_time > koc_now()
         ORDER BY h.holder",
        programme.0,
        id.0,
    )
    .fetch_all(conn)
    .await?;
    let mut export: Option<Export> = None;
    for row in rows {
        let export = export.get_or_insert_with(|| Export {
            id,
            member: MemberId(row.member_id),
            members: row.member_ids.iter().copied().map(MemberId).collect(),
            actor: row.actor.clone(),
            request_time: row.request_time,
            deadline: row.deadline_time,
            expire_time: row.expire_time,
            holders: Vec::new(),
        });
        export.holders.push(Holder { name: row.holder, parts: row.part_count });
    }
    Ok(export)
}

/// Locks a holder's document; false when nobody waits for it.
pub async fn lock_holder(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ExportId,
    holder: &str,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT true AS "found!"
           FROM member_export_holder
           WHERE programme_id = $1 AND export_id = $2 AND holder = $3
           FOR UPDATE"#,
        programme.0,
        id.0,
        holder,
    );
    Ok(found.fetch_optional(conn).await?.is_some())
}

/// Keeps a part, in place of one that was there. The document is locked.
pub async fn put_part(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ExportId,
    holder: &str,
    part: i32,
    content: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO member_export_part (programme_id, export_id, holder, part, content)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (programme_id, export_id, holder, part) DO UPDATE
         SET content = excluded.content",
        programme.0,
        id.0,
        holder,
        part,
        content,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes a document whole that ends with this part; false when one before it is missing. It is locked.
pub async fn complete(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ExportId,
    holder: &str,
    last: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "DELETE FROM member_export_part
         WHERE programme_id = $1 AND export_id = $2 AND holder = $3 AND part > $4",
        programme.0,
        id.0,
        holder,
        last,
    )
    .execute(&mut *conn)
    .await?;
    let whole = sqlx::query!(
        "UPDATE member_export_holder
         SET part_count = $4
         WHERE programme_id = $1 AND export_id = $2 AND holder = $3
           AND $4 = (SELECT count(*)::integer FROM member_export_part WHERE programme_id = $1 AND export_id = $2 AND holder = $3)",
        programme.0,
        id.0,
        holder,
        last,
    );
    Ok(whole.execute(conn).await?.rows_affected() == 1)
}

/// A part of a document that is whole.
pub async fn part(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    id: ExportId,
    holder: &str,
    part: i32,
) -> Result<Option<String>, sqlx::Error> {
    let content = sqlx::query_scalar!(
        "SELECT p.content
         FROM member_export_part p
         JOIN member_export_holder h ON h.programme_id = p.programme_id AND h.export_id = p.export_id AND h.holder = p.holder
         WHERE p.programme_id = $1 AND p.export_id = $2 AND p.holder = $3 AND p.part = $4 AND p.part <= h.part_count",
        programme.0,
        id.0,
        holder,
        part,
    );
    content.fetch_optional(conn).await
}

/// Deletes exports that are too old; says how many.
pub async fn delete_old(conn: &mut PgConnection) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!("DELETE FROM member_export WHERE expire_time <= koc_now()").execute(conn).await?;
    Ok(deleted.rows_affected())
}

/// Deletes the exports of a person; says how many.
pub async fn delete_of(conn: &mut PgConnection, programme: ProgrammeId, members: &[Uuid]) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "DELETE FROM member_export
         WHERE programme_id = $1 AND member_ids && $2",
        programme.0,
        members,
    );
    Ok(deleted.execute(conn).await?.rows_affected())
}
