//! Signals, and what came of their draws.

use crate::domain::ids::{OutputId, SignalId};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::PgConnection;
use uuid::Uuid;

/// A spike that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Signal {
    pub id: SignalId,
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub output: OutputId,
    pub metric: i16,
    /// Strong enough for money; else for people to look at.
    pub money: bool,
    pub score: f64,
    pub ratio: f64,
    pub window_count: f64,
    pub expected_count: f64,
    pub window_hours: f64,
    pub observed_at: DateTime<Utc>,
    pub draw: Draw,
    pub draw_reason: String,
    pub currency: String,
}

/// How far the draw of a signal is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Draw {
    /// None is opened.
    None,
    Pending,
    Requested {
        draw: Uuid,
        amount_minor: i64,
    },
    /// The budget refused.
    Refused {
        amount_minor: i64,
    },
}

impl Draw {
    fn columns(&self) -> (&'static str, Option<Uuid>, Option<i64>) {
        match *self {
            Self::None => ("NONE", None, None),
            Self::Pending => ("PENDING", None, None),
            Self::Requested { draw, amount_minor } => ("REQUESTED", Some(draw), Some(amount_minor)),
            Self::Refused { amount_minor } => ("REFUSED", None, Some(amount_minor)),
        }
    }
}

struct SignalRow {
    signal_id: Uuid,
    programme_id: Uuid,
    member_id: Uuid,
    output_id: Uuid,
    metric: i16,
    level: String,
    score: f64,
    ratio: f64,
    window_count: f64,
    expected_count: f64,
    window_hours: f64,
    observe_time: DateTime<Utc>,
    draw_state: String,
    reserve_draw_id: Option<Uuid>,
    draw_amount_minor: Option<i64>,
    draw_reason: String,
    currency_code: String,
}

impl From<SignalRow> for Signal {
    fn from(row: SignalRow) -> Self {
        let amount_minor = row.draw_amount_minor.unwrap_or(0);
        let draw = match (row.draw_state.as_str(), row.reserve_draw_id) {
            (_, Some(draw)) => Draw::Requested { draw, amount_minor },
            ("PENDING", None) => Draw::Pending,
            ("REFUSED", None) => Draw::Refused { amount_minor },
            (_, None) => Draw::None,
        };
        Self {
            id: SignalId(row.signal_id),
            programme: ProgrammeId(row.programme_id),
            member: MemberId(row.member_id),
            output: OutputId(row.output_id),
            metric: row.metric,
            money: row.level == "MONEY",
            score: row.score,
            ratio: row.ratio,
            window_count: row.window_count,
            expected_count: row.expected_count,
            window_hours: row.window_hours,
            observed_at: row.observe_time,
            draw,
            draw_reason: row.draw_reason,
            currency: row.currency_code,
        }
    }
}

pub async fn insert(conn: &mut PgConnection, signal: &Signal) -> Result<(), sqlx::Error> {
    let (state, draw, amount_minor) = signal.draw.columns();
    sqlx::query!(
        "INSERT INTO signal
             (signal_id, programme_id, member_id, output_id, metric, level, score, ratio, window_count, expected_count,
              window_hours, observe_time, draw_state, reserve_draw_id, draw_amount_minor, draw_reason, currency_code, create_time)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, koc_now())",
        signal.id.0,
        signal.programme.0,
        signal.member.0,
        signal.output.0,
        signal.metric,
        if signal.money { "MONEY" } else { "NOTIFY" },
        signal.score,
        signal.ratio,
        signal.window_count,
        signal.expected_count,
        signal.window_hours,
        signal.observed_at,
        state,
        draw,
        amount_minor,
        signal.draw_reason,
        signal.currency,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Locks a signal until the transaction ends.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: SignalId) -> Result<Option<Signal>, sqlx::Error> {
    let locked = sqlx::query_scalar!(
        "SELECT signal_id FROM signal WHERE programme_id = $1 AND signal_id = $2 FOR UPDATE",
        programme.0,
        id.0,
    )
    .fetch_optional(&mut *conn)
    .await?;
    if locked.is_some() { find(conn, programme, id).await } else { Ok(None) }
}

pub async fn find(conn: &mut PgConnection, programme: ProgrammeId, id: SignalId) -> Result<Option<Signal>, sqlx::Error> {
    let before = Uuid::from_u128(id.0.as_u128().saturating_sub(1));
    let found = list(conn, programme, None, Some(before), 1).await?;
    Ok(found.into_iter().find(|signal| signal.id == id))
}

/// Signals after an id, in order of creation.
pub async fn list(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    output: Option<OutputId>,
    after: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Signal>, sqlx::Error> {
    let rows = sqlx::query_as!(
        SignalRow,
        "SELECT signal_id, programme_id, member_id, output_id, metric, level, score, ratio, window_count, expected_count,
                window_hours, observe_time, draw_state, reserve_draw_id, draw_amount_minor, draw_reason, currency_code
         FROM signal
         WHERE programme_id = $1
           AND ($2::uuid IS NULL OR signal_id > $2)
           AND ($3::uuid IS NULL OR output_id = $3)
         ORDER BY signal_id
         LIMIT $4",
        programme.0,
        after,
        output.map(|output| output.0),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Signal::from).collect())
}

/// Writes how far a signal's draw is. The signal is locked.
pub async fn put_draw(conn: &mut PgConnection, id: SignalId, draw: &Draw, reason: &str) -> Result<(), sqlx::Error> {
    let (state, draw, amount_minor) = draw.columns();
    sqlx::query!(
        "UPDATE signal
         SET draw_state = $2, reserve_draw_id = $3, draw_amount_minor = $4, draw_reason = $5
         WHERE signal_id = $1",
        id.0,
        state,
        draw,
        amount_minor,
        reason,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What draws for an output have asked for, those apart that the budget refused or dropped.
pub async fn asked_minor(conn: &mut PgConnection, output: OutputId) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(sum(s.draw_amount_minor), 0)::bigint AS "asked!"
           FROM signal AS s
           WHERE s.output_id = $1 AND s.draw_state = 'REQUESTED'
             AND NOT EXISTS (SELECT FROM reserve_draw AS d WHERE d.reserve_draw_id = s.reserve_draw_id AND d.dropped)"#,
        output.0,
    )
    .fetch_one(conn)
    .await
}
