//! What tells of a person. Where a constraint wants words, they are replaced by [`ERASED`].

use crate::ids::{MemberId, ProgrammeId};
use koc_chassis::privacy::Erased;
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Stands where words must stand.
const ERASED: &str = "erased";

/// Destroys what was said of a person's grants, limits and draws. Gives the grants and draws, and how many rows of each kind told something.
pub async fn destroy(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[MemberId],
) -> Result<(Vec<Uuid>, Erased), sqlx::Error> {
    let members: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let grants = sqlx::query!(
        r#"WITH had AS (
               SELECT grant_id, reason || coalesce(nda_reference, '') <> ''
                          OR eligibility_reason NOT IN ('', $3) OR coalesce(shipping_reference, $3) <> $3 AS words
               FROM resource_grant
               WHERE programme_id = $1 AND member_id = ANY ($2)
               ORDER BY grant_id
               FOR UPDATE
           )
           UPDATE resource_grant AS g
           SET reason = '', eligibility_reason = CASE WHEN eligibility_reason = '' THEN '' ELSE $3 END,
               shipping_reference = CASE WHEN shipping_reference IS NOT NULL THEN $3 END, nda_reference = NULL
           FROM had AS h
           WHERE g.grant_id = h.grant_id
           RETURNING g.grant_id, h.words AS "words!""#,
        programme.0,
        &members,
        ERASED,
    )
    .fetch_all(&mut *conn)
    .await?;
    let limits = sqlx::query!(
        "UPDATE member_limit
         SET reason = ''
         WHERE programme_id = $1 AND member_id = ANY ($2) AND reason <> ''",
        programme.0,
        &members,
    );
    let limits = limits.execute(&mut *conn).await?.rows_affected();
    let draws = sqlx::query!(
        r#"WITH had AS (
               SELECT reserve_draw_id, coalesce(decision_reason, '') <> '' OR evidence <> figures_alone(evidence) AS words
               FROM reserve_draw
               WHERE programme_id = $1 AND member_id = ANY ($2)
               ORDER BY reserve_draw_id
               FOR UPDATE
           )
           UPDATE reserve_draw AS d
           SET decision_reason = CASE WHEN decision_reason IS NOT NULL THEN '' END, evidence = figures_alone(evidence)
           FROM had AS h
           WHERE d.reserve_draw_id = h.reserve_draw_id
           RETURNING d.reserve_draw_id, h.words AS "words!""#,
        programme.0,
        &members,
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<Uuid> = draws.iter().map(|draw| draw.reserve_draw_id).collect();
    let words = sqlx::query_scalar!(r#"SELECT erase_draw_words($1) AS "words!""#, &ids).fetch_one(conn).await?;

    let counts = [
        ("resource_grant", grants.iter().filter(|grant| grant.words).count() as i64),
        ("member_limit", i64::try_from(limits).unwrap_or(i64::MAX)),
        ("reserve_draw", draws.iter().filter(|draw| draw.words).count() as i64 + words),
    ];
    let subjects = grants.iter().map(|grant| grant.grant_id).chain(ids).collect();
    Ok((subjects, counts.into_iter().map(|(name, rows)| (name.to_owned(), rows)).collect()))
}

/// All that a person was given or that was held for it: grants, limits, holds with their entries, draws.
pub async fn export(conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Value, sqlx::Error> {
    let members: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let held = sqlx::query_scalar!(
        r#"SELECT jsonb_build_object(
               'resource_grant', (SELECT jsonb_agg(to_jsonb(t)) FROM resource_grant t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'booking', (SELECT jsonb_agg(to_jsonb(t))
                   FROM booking t JOIN resource_grant p ON p.grant_id = t.grant_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2)),
               'memo_entry', (SELECT jsonb_agg(to_jsonb(t))
                   FROM memo_entry t JOIN resource_grant p ON p.grant_id = t.grant_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2)),
               'member_limit', (SELECT jsonb_agg(to_jsonb(t)) FROM member_limit t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'reservation', (SELECT jsonb_agg(to_jsonb(t)) FROM reservation t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'ledger_entry', (SELECT jsonb_agg(to_jsonb(t))
                   FROM ledger_entry t JOIN reservation p ON p.reservation_id = t.reservation_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2)),
               'reserve_draw', (SELECT jsonb_agg(to_jsonb(t)) FROM reserve_draw t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'reserve_draw_approval', (SELECT jsonb_agg(to_jsonb(t))
                   FROM reserve_draw_approval t JOIN reserve_draw p ON p.reserve_draw_id = t.reserve_draw_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2)),
               'reserve_draw_outcome', (SELECT jsonb_agg(to_jsonb(t))
                   FROM reserve_draw_outcome t JOIN reserve_draw p ON p.reserve_draw_id = t.reserve_draw_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2))
           ) AS "held!: Json<Value>""#,
        programme.0,
        &members,
    );
    Ok(held.fetch_one(conn).await?.0)
}
