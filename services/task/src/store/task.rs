//! Tasks.

use super::{broken, currency};
use crate::domain::{
    AssignmentId, TaskId,
    task::{Deadlines, Target, Task, TaskState},
};
use chrono::{DateTime, Utc};
use koc_chassis::{ids::ProgrammeId, money::Money};
use sqlx::PgConnection;
use uuid::Uuid;

struct TaskRow {
    task_id: Uuid,
    programme_id: Uuid,
    display_name: String,
    state: String,
    brief_id: Uuid,
    brief_revision: i32,
    tier_ids: Vec<String>,
    region_codes: Vec<String>,
    capacity: i32,
    filled: i32,
    reward_minor: i64,
    currency: String,
    envelope_id: Uuid,
    offer_deadline: DateTime<Utc>,
    delivery_deadline: DateTime<Utc>,
    review_days: i32,
    create_time: DateTime<Utc>,
}

impl TryFrom<TaskRow> for Task {
    type Error = sqlx::Error;

    fn try_from(row: TaskRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.task_id.into(),
            programme: row.programme_id.into(),
            display_name: row.display_name,
            state: TaskState::from_name(&row.state).ok_or_else(|| broken(format!("a task is {}", row.state)))?,
            brief: row.brief_id.into(),
            brief_revision: row.brief_revision,
            target: Target { tier_ids: row.tier_ids, region_codes: row.region_codes },
            capacity: row.capacity,
            filled: row.filled,
            reward: Money::new(row.reward_minor, currency(&row.currency)?),
            envelope: row.envelope_id.into(),
            deadlines: Deadlines { offer: row.offer_deadline, delivery: row.delivery_deadline, review_days: row.review_days },
            create_time: row.create_time,
        })
    }
}

pub async fn insert(conn: &mut PgConnection, task: &Task) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO task (task_id, programme_id, display_name, state, brief_id, brief_revision, tier_ids, region_codes, capacity,
             filled, reward_minor, currency, envelope_id, offer_deadline, delivery_deadline, review_days, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
        task.id.0,
        task.programme.0,
        task.display_name,
        task.state.name(),
        task.brief.0,
        task.brief_revision,
        &task.target.tier_ids,
        &task.target.region_codes,
        task.capacity,
        task.filled,
        task.reward.minor,
        task.reward.currency.code(),
        task.envelope.0,
        task.deadlines.offer,
        task.deadlines.delivery,
        task.deadlines.review_days,
        task.create_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, task: TaskId) -> Result<Option<Task>, sqlx::Error> {
    let row = sqlx::query_as!(
        TaskRow,
        "SELECT task_id, programme_id, display_name, state, brief_id, brief_revision, tier_ids, region_codes, capacity, filled,
             reward_minor, currency, envelope_id, offer_deadline, delivery_deadline, review_days, create_time
         FROM task
         WHERE task_id = $1 AND programme_id = $2",
        task.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Task::try_from).transpose()
}

/// As [`find`], with the task's lock.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, task: TaskId) -> Result<Option<Task>, sqlx::Error> {
    let row = sqlx::query_as!(
        TaskRow,
        "SELECT task_id, programme_id, display_name, state, brief_id, brief_revision, tier_ids, region_codes, capacity, filled,
             reward_minor, currency, envelope_id, offer_deadline, delivery_deadline, review_days, create_time
         FROM task
         WHERE task_id = $1 AND programme_id = $2
         FOR UPDATE",
        task.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Task::try_from).transpose()
}

/// Takes the lock of an assignment's task, for a change that may give its place back.
pub async fn lock_of(conn: &mut PgConnection, programme: ProgrammeId, assignment: AssignmentId) -> Result<(), sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT task_id
         FROM task
         WHERE task_id = (SELECT task_id FROM assignment WHERE assignment_id = $1 AND programme_id = $2)
         FOR UPDATE",
        assignment.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(())
}

/// Keeps a task's state and its number of filled places.
pub async fn update(conn: &mut PgConnection, task: &Task) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE task SET state = $2, filled = $3 WHERE task_id = $1", task.id.0, task.state.name(), task.filled)
        .execute(conn)
        .await?;
    Ok(())
}

/// Gives back the place that an assignment had taken.
pub async fn free_place(conn: &mut PgConnection, task: TaskId) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE task SET filled = filled - 1 WHERE task_id = $1", task.0).execute(conn).await?;
    Ok(())
}

/// Tasks after `after` by creation; at most `limit`.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Task>, sqlx::Error> {
    let rows = sqlx::query_as!(
        TaskRow,
        "SELECT task_id, programme_id, display_name, state, brief_id, brief_revision, tier_ids, region_codes, capacity, filled,
             reward_minor, currency, envelope_id, offer_deadline, delivery_deadline, review_days, create_time
         FROM task
         WHERE programme_id = $1 AND ($2::uuid IS NULL OR task_id > $2)
         ORDER BY task_id
         LIMIT $3",
        programme.0,
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Task::try_from).collect()
}
