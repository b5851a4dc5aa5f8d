//! Assignments.

use super::{broken, currency};
use crate::domain::{
    AssignmentId, TaskId,
    assignment::{Assignment, Closing, Settlement, State, Unfunded},
    task::Deadlines,
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    ids::{MemberId, ProgrammeId},
    members,
    money::{Currency, Money},
};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

struct AssignmentRow {
    assignment_id: Uuid,
    programme_id: Uuid,
    task_id: Uuid,
    member_id: Uuid,
    tier_id: String,
    brief_id: Uuid,
    brief_revision: i32,
    reward_minor: i64,
    currency: String,
    offer_deadline: DateTime<Utc>,
    delivery_deadline: DateTime<Utc>,
    review_days: i32,
    state: String,
    settlement: String,
    reservation_id: Option<Uuid>,
    unfunded: Option<Json<Unfunded>>,
    submission_id: Option<Uuid>,
    accepted_keys: Option<Vec<String>>,
    earned_minor: Option<i64>,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
}

impl AssignmentRow {
    fn closing(&self) -> Option<Closing> {
        match (self.settlement.as_str(), self.reservation_id) {
            ("NONE", None) => Some(Closing::Unheld),
            ("SETTLING", None) => Some(Closing::Awaiting),
            ("SETTLING", Some(hold)) => Some(Closing::Settling(hold.into())),
            ("SETTLED", Some(hold)) => Some(Closing::Settled(hold.into())),
            _ => None,
        }
    }

    /// None when the columns do not fit together.
    fn state(&self, currency: Currency) -> Option<State> {
        let hold = || self.reservation_id.map(Into::into);
        Some(match self.state.as_str() {
            "OFFERED" => State::Offered,
            "RESERVING" => State::Reserving,
            "IN_PROGRESS" => State::InProgress { hold: hold()? },
            "SUBMITTED" => {
                State::Submitted { hold: hold()?, submission: self.submission_id?.into(), approved: self.accepted_keys.clone() }
            }
            "CHANGES_REQUESTED" => State::ChangesRequested { hold: hold()? },
            "COMPLETED" => State::Completed {
                submission: self.submission_id?.into(),
                accepted: self.accepted_keys.clone()?,
                earned: Money::new(self.earned_minor?, currency),
                settled: self.settlement == "SETTLED",
                hold: hold()?,
            },
            "UNFUNDED" => State::Unfunded(self.unfunded.clone()?.0),
            "DECLINED" => State::Declined(self.closing()?),
            "REJECTED" => State::Rejected(self.closing()?),
            "EXPIRED" => State::Expired(self.closing()?),
            _ => return None,
        })
    }
}

impl TryFrom<AssignmentRow> for Assignment {
    type Error = sqlx::Error;

    fn try_from(row: AssignmentRow) -> Result<Self, sqlx::Error> {
        let currency = currency(&row.currency)?;
        let state = row.state(currency);
        let state =
            state.ok_or_else(|| broken(format!("assignment {} is {}/{}", row.assignment_id, row.state, row.settlement)))?;
        Ok(Self {
            id: row.assignment_id.into(),
            programme: row.programme_id.into(),
            task: row.task_id.into(),
            member: row.member_id.into(),
            tier_id: row.tier_id,
            brief: row.brief_id.into(),
            brief_revision: row.brief_revision,
            reward: Money::new(row.reward_minor, currency),
            deadlines: Deadlines { offer: row.offer_deadline, delivery: row.delivery_deadline, review_days: row.review_days },
            state,
            create_time: row.create_time,
            update_time: row.update_time,
        })
    }
}

fn settlement_name(settlement: Settlement) -> &'static str {
    match settlement {
        Settlement::None => "NONE",
        Settlement::Held => "HELD",
        Settlement::Settling => "SETTLING",
        Settlement::Settled => "SETTLED",
    }
}

/// Adds an offer.
pub async fn insert(conn: &mut PgConnection, assignment: &Assignment) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO assignment (assignment_id, programme_id, task_id, member_id, tier_id, brief_id, brief_revision, reward_minor,
             currency, offer_deadline, delivery_deadline, review_days, state, settlement, create_time, update_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
        assignment.id.0,
        assignment.programme.0,
        assignment.task.0,
        assignment.member.0,
        assignment.tier_id,
        assignment.brief.0,
        assignment.brief_revision,
        assignment.reward.minor,
        assignment.reward.currency.code(),
        assignment.deadlines.offer,
        assignment.deadlines.delivery,
        assignment.deadlines.review_days,
        assignment.state.name(),
        settlement_name(assignment.state.settlement()),
        assignment.create_time,
        assignment.update_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps an assignment's state; the caller holds its lock.
pub async fn update(conn: &mut PgConnection, assignment: &Assignment) -> Result<(), sqlx::Error> {
    let (submission, accepted, earned) = match &assignment.state {
        State::Submitted { submission, approved, .. } => (Some(submission.0), approved.as_deref(), None),
        State::Completed { submission, accepted, earned, .. } => {
            (Some(submission.0), Some(accepted.as_slice()), Some(earned.minor))
        }
        _ => (None, None, None),
    };
    let unfunded = match &assignment.state {
        State::Unfunded(unfunded) => Some(Json(unfunded)),
        _ => None,
    };
    sqlx::query!(
        "UPDATE assignment
         SET state = $2, settlement = $3, reservation_id = $4, unfunded = $5, submission_id = $6, accepted_keys = $7,
             earned_minor = $8, update_time = $9
         WHERE assignment_id = $1",
        assignment.id.0,
        assignment.state.name(),
        settlement_name(assignment.state.settlement()),
        assignment.state.hold().map(|hold| hold.0),
        unfunded as _,
        submission,
        accepted,
        earned,
        assignment.update_time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    assignment: AssignmentId,
) -> Result<Option<Assignment>, sqlx::Error> {
    let row = sqlx::query_as!(
        AssignmentRow,
        r#"SELECT assignment_id, programme_id, task_id, member_id, tier_id, brief_id, brief_revision, reward_minor, currency,
             offer_deadline, delivery_deadline, review_days, state, settlement, reservation_id,
             unfunded AS "unfunded: Json<Unfunded>", submission_id, accepted_keys, earned_minor, create_time, update_time
         FROM assignment
         WHERE assignment_id = $1 AND programme_id = $2"#,
        assignment.0,
        programme.0,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Assignment::try_from).transpose()
}

/// As [`find`], with the assignment's lock. Where the change may give the task's place back, take the task's lock before.
pub async fn lock(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    assignment: AssignmentId,
) -> Result<Option<Assignment>, sqlx::Error> {
    sqlx::query_scalar!(
        "SELECT assignment_id
         FROM assignment
         WHERE assignment_id = $1 AND programme_id = $2
         FOR UPDATE",
        assignment.0,
        programme.0,
    )
    .fetch_optional(&mut *conn)
    .await?;
    find(conn, programme, assignment).await
}

/// The open and completed assignments of a person, by any of its ids, in a task, with their states; the oldest first.
pub async fn open_of(
    conn: &mut PgConnection,
    task: TaskId,
    person: &[MemberId],
) -> Result<Vec<(AssignmentId, String)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT assignment_id, state
         FROM assignment
         WHERE task_id = $1 AND member_id = ANY ($2) AND state NOT IN ('UNFUNDED', 'DECLINED', 'REJECTED', 'EXPIRED')
         ORDER BY assignment_id",
        task.0,
        &ids(person),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (AssignmentId(row.assignment_id), row.state)).collect())
}

/// A person's offers that nobody has answered, by task.
pub async fn offers_of(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    person: &[MemberId],
) -> Result<Vec<AssignmentId>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT assignment_id
         FROM assignment
         WHERE programme_id = $1 AND member_id = ANY ($2) AND state = 'OFFERED'
         ORDER BY task_id, assignment_id",
        programme.0,
        &ids(person),
    );
    Ok(found.fetch_all(conn).await?.into_iter().map(AssignmentId).collect())
}

/// Of a person's offers those in tasks in which another of its ids has more: something that is taken, or the older offer.
pub async fn offers_twice(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    person: &[MemberId],
) -> Result<Vec<AssignmentId>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT a.assignment_id
         FROM assignment AS a
         WHERE a.programme_id = $1 AND a.member_id = ANY ($2) AND a.state = 'OFFERED'
           AND EXISTS (SELECT FROM assignment AS o
                       WHERE o.task_id = a.task_id AND o.member_id = ANY ($2) AND o.member_id <> a.member_id
                         AND o.state NOT IN ('UNFUNDED', 'DECLINED', 'REJECTED', 'EXPIRED')
                         AND (o.state <> 'OFFERED' OR o.assignment_id < a.assignment_id))
         ORDER BY a.task_id, a.assignment_id",
        programme.0,
        &ids(person),
    );
    Ok(found.fetch_all(conn).await?.into_iter().map(AssignmentId).collect())
}

fn ids(members: &[MemberId]) -> Vec<Uuid> {
    members.iter().map(|member| member.0).collect()
}

/// Which assignments a list shows.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    pub task: Option<TaskId>,
    /// By any of its ids.
    pub member: Option<MemberId>,
    /// Those after this one by creation.
    pub after: Option<Uuid>,
}

/// Assignments by creation; at most `limit`.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    filter: Filter,
    limit: i64,
) -> Result<Vec<Assignment>, sqlx::Error> {
    let person = match filter.member {
        Some(member) => Some(ids(&members::group(conn, programme, member).await?)),
        None => None,
    };
    let rows = sqlx::query_as!(
        AssignmentRow,
        r#"SELECT assignment_id, programme_id, task_id, member_id, tier_id, brief_id, brief_revision, reward_minor, currency,
             offer_deadline, delivery_deadline, review_days, state, settlement, reservation_id,
             unfunded AS "unfunded: Json<Unfunded>", submission_id, accepted_keys, earned_minor, create_time, update_time
         FROM assignment
         WHERE programme_id = $1
           AND ($2::uuid IS NULL OR task_id = $2)
           AND ($3::uuid[] IS NULL OR member_id = ANY ($3))
           AND ($4::uuid IS NULL OR assignment_id > $4)
         ORDER BY assignment_id
         LIMIT $5"#,
        programme.0,
        filter.task.map(|task| task.0),
        person.as_deref(),
        filter.after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Assignment::try_from).collect()
}
