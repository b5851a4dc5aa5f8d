//! Submissions, what was handed in with them, and their reviews. Free text has columns of its own, so that it can be erased.

use super::broken;
use crate::domain::{
    AssignmentId, SubmissionId,
    submission::{Review, Stage, Submission, Submitted, Verdict},
};
use sqlx::PgConnection;
use std::collections::HashMap;
use uuid::Uuid;

/// Adds a submission with its deliverables.
pub async fn insert(conn: &mut PgConnection, assignment: AssignmentId, submission: &Submission) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO submission (submission_id, assignment_id, stage, submit_time)
         VALUES ($1, $2, $3, $4)",
        submission.id.0,
        assignment.0,
        submission.stage.name(),
        submission.submit_time,
    )
    .execute(&mut *conn)
    .await?;
    let handed_in = &submission.deliverables;
    let keys: Vec<String> = handed_in.iter().map(|d| d.key.clone()).collect();
    let platforms: Vec<Option<String>> = handed_in.iter().map(|d| d.platform.clone()).collect();
    let times: Vec<_> = handed_in.iter().map(|d| d.publish_time).collect();
    let urls: Vec<Option<String>> = handed_in.iter().map(|d| d.url.clone()).collect();
    let texts: Vec<Option<String>> = handed_in.iter().map(|d| d.text.clone()).collect();
    sqlx::query!(
        "INSERT INTO submitted_deliverable (submission_id, deliverable_key, place, platform, publish_time, url, body)
         SELECT $1, d.key, d.place, d.platform, d.publish_time, d.url, d.body
         FROM UNNEST($2::text[], $3::text[], $4::timestamptz[], $5::text[], $6::text[])
              WITH ORDINALITY AS d (key, platform, publish_time, url, body, place)",
        submission.id.0,
        &keys,
        &platforms as _,
        &times as _,
        &urls as _,
        &texts as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps the verdict on a submission, in place of an earlier one.
pub async fn upsert_review(conn: &mut PgConnection, submission: SubmissionId, review: &Review) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO review (submission_id, verdict, accepted_keys, remark, reviewer, review_time)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (submission_id) DO UPDATE
         SET verdict = excluded.verdict, accepted_keys = excluded.accepted_keys, remark = excluded.remark,
             reviewer = excluded.reviewer, review_time = excluded.review_time",
        submission.0,
        review.verdict.name(),
        &review.accepted_keys,
        review.comment,
        review.reviewer,
        review.review_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Whether free text is read: it is personal and may be large, so only who shows it asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreeText {
    Read,
    Left,
}

/// How many submissions an assignment has.
pub async fn count(conn: &mut PgConnection, assignment: AssignmentId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM submission WHERE assignment_id = $1"#, assignment.0)
        .fetch_one(conn)
        .await
}

/// An assignment's submissions, oldest first.
pub async fn list(
    conn: &mut PgConnection,
    assignment: AssignmentId,
    free_text: FreeText,
) -> Result<Vec<Submission>, sqlx::Error> {
    let with_text = free_text == FreeText::Read;
    let rows = sqlx::query!(
        r#"SELECT s.submission_id, s.stage, s.submit_time, r.verdict AS "verdict?", r.accepted_keys AS "accepted_keys?",
                CASE WHEN $2 THEN r.remark END AS remark, r.reviewer AS "reviewer?", r.review_time AS "review_time?"
         FROM submission AS s
         LEFT JOIN review AS r USING (submission_id)
         WHERE s.assignment_id = $1
         ORDER BY s.submit_time, s.submission_id"#,
        assignment.0,
        with_text,
    )
    .fetch_all(&mut *conn)
    .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut deliverables: HashMap<Uuid, Vec<Submitted>> = HashMap::new();
    let handed_in = sqlx::query!(
        "SELECT d.submission_id, d.deliverable_key, d.platform, d.publish_time,
                CASE WHEN $2 THEN d.url END AS url, CASE WHEN $2 THEN d.body END AS body
         FROM submitted_deliverable AS d
         JOIN submission AS s USING (submission_id)
         WHERE s.assignment_id = $1
         ORDER BY d.submission_id, d.place",
        assignment.0,
        with_text,
    )
    .fetch_all(conn)
    .await?;
    for d in handed_in {
        deliverables.entry(d.submission_id).or_default().push(Submitted {
            key: d.deliverable_key,
            platform: d.platform,
            url: d.url,
            publish_time: d.publish_time,
            text: d.body,
        });
    }
    rows.into_iter()
        .map(|row| {
            let stage = Stage::from_name(&row.stage).ok_or_else(|| broken(format!("a submission is at {}", row.stage)))?;
            let review = match (row.verdict, row.accepted_keys, row.reviewer, row.review_time) {
                (Some(verdict), Some(accepted_keys), Some(reviewer), Some(review_time)) => {
                    let known = Verdict::from_name(&verdict).ok_or_else(|| broken(format!("a verdict is {verdict}")))?;
                    Some(Review { verdict: known, accepted_keys, comment: row.remark, reviewer, review_time })
                }
                _ => None,
            };
            Ok(Submission {
                id: row.submission_id.into(),
                stage,
                deliverables: deliverables.remove(&row.submission_id).unwrap_or_default(),
                submit_time: row.submit_time,
                review,
            })
        })
        .collect()
}
