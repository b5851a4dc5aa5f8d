//! What tells of a person.

use koc_chassis::ids::{MemberId, ProgrammeId};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Destroys why decisions about a person were approved. Gives the decisions, outputs and signals of the person, and how many reasons there
/// were.
pub async fn destroy(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[MemberId],
) -> Result<(Vec<Uuid>, i64), sqlx::Error> {
    let members: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let reasons = sqlx::query!(
        "UPDATE decision_progress AS p
         SET approve_reason = NULL
         FROM decision AS d
         WHERE d.programme_id = $1 AND d.member_id = ANY ($2) AND p.decision_id = d.decision_id AND p.approve_reason IS NOT NULL",
        programme.0,
        &members,
    );
    let reasons = reasons.execute(&mut *conn).await?.rows_affected();
    let things = sqlx::query_scalar!(
        r#"SELECT decision_id AS "id!" FROM decision WHERE programme_id = $1 AND member_id = ANY ($2)
           UNION ALL
           SELECT output_id FROM output WHERE programme_id = $1 AND member_id = ANY ($2)
           UNION ALL
           SELECT signal_id FROM signal WHERE programme_id = $1 AND member_id = ANY ($2)"#,
        programme.0,
        &members,
    );
    Ok((things.fetch_all(conn).await?, i64::try_from(reasons).unwrap_or(i64::MAX)))
}

/// What was measured of a person: outputs with their totals, signals, decisions. Single readings are many; the totals say what they came to.
pub async fn export(conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Value, sqlx::Error> {
    let members: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let held = sqlx::query_scalar!(
        r#"SELECT jsonb_build_object(
               'output', (SELECT jsonb_agg(to_jsonb(t)) FROM output t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'output_target', (SELECT jsonb_agg(to_jsonb(t))
                   FROM output_target t JOIN output p ON p.output_id = t.output_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2)),
               'metric_total', (SELECT jsonb_agg(to_jsonb(t))
                   FROM metric_total t JOIN output p ON p.output_id = t.output_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2)),
               'signal', (SELECT jsonb_agg(to_jsonb(t)) FROM signal t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'decision', (SELECT jsonb_agg(to_jsonb(t)) FROM decision t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'decision_progress', (SELECT jsonb_agg(to_jsonb(t))
                   FROM decision_progress t JOIN decision p ON p.decision_id = t.decision_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2))
           ) AS "held!: Json<Value>""#,
        programme.0,
        &members,
    );
    Ok(held.fetch_one(conn).await?.0)
}
