//! Value profiles.

use crate::domain::value::{Score, ValueProfile};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};

/// A member's profile; None before the first measurement.
pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, member: MemberId) -> Result<Option<ValueProfile>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT scores AS "scores: Json<Vec<Score>>", as_of, past_return, value_model_version
           FROM value_profile
           WHERE programme_id = $1 AND member_id = $2"#,
        programme.0,
        member.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| ValueProfile {
        scores: row.scores.0,
        as_of: row.as_of,
        past_return: row.past_return,
        value_model_version: row.value_model_version,
    }))
}

/// Writes a member's profile in place of the last one. The member is locked.
pub async fn put(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    member: MemberId,
    profile: &ValueProfile,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO value_profile (programme_id, member_id, scores, as_of, past_return, value_model_version, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT ON CONSTRAINT value_profile_pkey DO UPDATE
         SET scores = excluded.scores, as_of = excluded.as_of, past_return = excluded.past_return,
             value_model_version = excluded.value_model_version, update_time = excluded.update_time",
        programme.0,
        member.0,
        Json(&profile.scores) as Json<&Vec<Score>>,
        profile.as_of,
        profile.past_return,
        profile.value_model_version,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
