//! What tells of a person.

use crate::domain::AssignmentId;
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    privacy::Erased,
};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// The assignments of a person, in the order in which their locks are taken.
pub async fn assignments(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[MemberId],
) -> Result<Vec<AssignmentId>, sqlx::Error> {
    let members: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let ids = sqlx::query_scalar!(
        "SELECT assignment_id
         FROM assignment
         WHERE programme_id = $1 AND member_id = ANY ($2)
         ORDER BY task_id, assignment_id",
        programme.0,
        &members,
    );
    Ok(ids.fetch_all(conn).await?.into_iter().map(AssignmentId).collect())
}

/// Destroys what was handed in with assignments, and what was said of it; says of how many rows.
pub async fn destroy(conn: &mut PgConnection, assignments: &[AssignmentId]) -> Result<Erased, sqlx::Error> {
    let ids: Vec<Uuid> = assignments.iter().map(|id| id.0).collect();
    let handed_in = sqlx::query!(
        "UPDATE submitted_deliverable AS d
         SET url = NULL, body = NULL
         FROM submission AS s
         WHERE s.assignment_id = ANY ($1) AND d.submission_id = s.submission_id AND (d.url IS NOT NULL OR d.body IS NOT NULL)",
        &ids,
    );
    let handed_in = handed_in.execute(&mut *conn).await?.rows_affected();
    let remarks = sqlx::query!(
        "UPDATE review AS r
         SET remark = NULL
         FROM submission AS s
         WHERE s.assignment_id = ANY ($1) AND r.submission_id = s.submission_id AND r.remark IS NOT NULL",
        &ids,
    );
    let remarks = remarks.execute(conn).await?.rows_affected();
    let counts = [("submitted_deliverable", handed_in), ("review", remarks)];
    Ok(counts.into_iter().map(|(name, rows)| (name.to_owned(), i64::try_from(rows).unwrap_or(i64::MAX))).collect())
}

/// All work of a person: assignments, what was handed in, and how it was judged.
pub async fn export(conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Value, sqlx::Error> {
    let members: Vec<Uuid> = members.iter().map(|member| member.0).collect();
    let held = sqlx::query_scalar!(
        r#"SELECT jsonb_build_object(
               'assignment', (SELECT jsonb_agg(to_jsonb(t)) FROM assignment t WHERE t.programme_id = $1 AND t.member_id = ANY ($2)),
               'submission', (SELECT jsonb_agg(to_jsonb(t))
                   FROM submission t JOIN assignment p ON p.assignment_id = t.assignment_id
                   WHERE p.programme_id = $1 AND p.member_id = ANY ($2)),
               'submitted_deliverable', (SELECT jsonb_agg(to_jsonb(t))
                   FROM submitted_deliverable t JOIN submission s USING (submission_id) JOIN assignment a USING (assignment_id)
                   WHERE a.programme_id = $1 AND a.member_id = ANY ($2)),
               'review', (SELECT jsonb_agg(to_jsonb(t))
                   FROM review t JOIN submission s USING (submission_id) JOIN assignment a USING (assignment_id)
                   WHERE a.programme_id = $1 AND a.member_id = ANY ($2))
           ) AS "held!: Json<Value>""#,
        programme.0,
        &members,
    );
    Ok(held.fetch_one(conn).await?.0)
}
