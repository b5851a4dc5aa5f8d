//! Trials of drafts.

use crate::domain::tier::{
    Candidate, Outcome, Reading, Rooms, Rules, Verdict,
    dry_run::{Count, DryRun, DryRunId},
    policy::DraftId,
};
use crate::store::{tier::Move, unknown};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use std::time::Duration;
use uuid::Uuid;

/// How many trials are at work. The programme is locked.
pub async fn running(conn: &mut PgConnection, programme: ProgrammeId) -> Result<i64, sqlx::Error> {
    let running = sqlx::query_scalar!(
        r#"SELECT count(*) AS "running!"
           FROM tier_dry_run
           WHERE programme_id = $1 AND end_time IS NULL"#,
        programme.0,
    );
    running.fetch_one(conn).await
}

pub async fn insert(conn: &mut PgConnection, programme: ProgrammeId, run: &DryRun) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO tier_dry_run (
             programme_id, dry_run_id, draft_id, rules, as_of, judged, outcomes, rooms, after_member_id, actor, create_time
         )
         VALUES ($1, $2, $3, $4, $5, 0, '[]', $6, $7, $8, $5)",
        programme.0,
        run.id.0,
        run.draft.0,
        Json(&run.rules) as _,
        run.as_of,
        Json(&run.rooms) as _,
        Uuid::nil(),
        run.actor,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A trial, and after which member it goes on.
pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: DryRunId) -> Result<Option<(DryRun, Uuid)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT draft_id, rules AS "rules: Json<Rules>", as_of, judged, outcomes AS "outcomes: Json<Vec<Count>>",
                  rooms AS "rooms: Json<Rooms>", after_member_id, actor, end_time
           FROM tier_dry_run
           WHERE programme_id = $1 AND dry_run_id = $2"#,
        programme.0,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let run = DryRun {
            id,
            draft: DraftId(row.draft_id),
            rules: row.rules.0,
            as_of: row.as_of,
            judged: row.judged,
            counts: row.outcomes.0,
            rooms: row.rooms.0,
            actor: row.actor,
            end_time: row.end_time,
        };
        (run, row.after_member_id)
    }))
}

/// Writes how far a trial came. Its job is held.
pub async fn update(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    run: &DryRun,
    after: Uuid,
    ended: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE tier_dry_run
         SET judged = $3, outcomes = $4, rooms = $5, after_member_id = $6, end_time = CASE WHEN $7 THEN koc_now() END
         WHERE programme_id = $1 AND dry_run_id = $2",
        programme.0,
        run.id.0,
        run.judged,
        Json(&run.counts) as _,
        Json(&run.rooms) as _,
        after,
        ended,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps members of a trial with their reasons.
pub async fn insert_members(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    run: DryRunId,
    kept: &[(&Candidate, Verdict)],
) -> Result<(), sqlx::Error> {
    if kept.is_empty() {
        return Ok(());
    }
    let members: Vec<Uuid> = kept.iter().map(|(candidate, _)| candidate.member.0).collect();
    let outcomes: Vec<&str> = kept.iter().map(|(_, verdict)| verdict.outcome.name()).collect();
    let from: Vec<&str> = kept.iter().map(|(candidate, _)| candidate.tier_id.as_str()).collect();
    let to: Vec<&str> = kept.iter().map(|(_, verdict)| verdict.to_tier_id.as_str()).collect();
    let reasons: Vec<&str> = kept.iter().map(|(_, verdict)| verdict.reason.as_str()).collect();
    let readings: Vec<Json<&[Reading]>> = kept.iter().map(|(candidate, _)| Json(candidate.readings.as_slice())).collect();
    sqlx::query!(
        "INSERT INTO tier_dry_run_member (
             programme_id, dry_run_id, member_id, outcome, from_tier_id, to_tier_id, reason, readings
         )
         SELECT $1, $2, n.*
         FROM UNNEST($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[]) AS n",
        programme.0,
        run.0,
        &members,
        &outcomes as &[&str],
        &from as &[&str],
        &to as &[&str],
        &reasons as &[&str],
        &readings as &[Json<&[Reading]>],
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Members that a trial kept, after one of them; as moves by the version 0 at the time of the trial.
pub async fn members(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    run: &DryRun,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Move>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT member_id, outcome, from_tier_id, to_tier_id, reason, readings AS "readings: Json<Vec<Reading>>"
           FROM tier_dry_run_member
           WHERE programme_id = $1 AND dry_run_id = $2 AND member_id > $3
           ORDER BY member_id
           LIMIT $4"#,
        programme.0,
        run.id.0,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Move {
                member: MemberId(row.member_id),
                from_tier_id: row.from_tier_id,
                to_tier_id: row.to_tier_id,
                outcome: Outcome::from_name(&row.outcome).ok_or_else(|| unknown("tier_dry_run_member.outcome"))?,
                reason: row.reason,
                policy_version: 0,
                readings: row.readings.0,
                actor: String::new(),
                time: run.as_of,
            })
        })
        .collect()
}

/// Removes trials that are older than `keep`, some at a time; says how many.
pub async fn purge(conn: &mut PgConnection, keep: Duration) -> Result<u64, sqlx::Error> {
    let purged = sqlx::query!(
        "DELETE FROM tier_dry_run
         WHERE (programme_id, dry_run_id) IN (
             SELECT programme_id, dry_run_id
             FROM tier_dry_run
             WHERE create_time < koc_now() - make_interval(secs => $1) AND end_time IS NOT NULL
             ORDER BY create_time
             LIMIT 20
         )",
        keep.as_secs_f64(),
    );
    Ok(purged.execute(conn).await?.rows_affected())
}
