//! Programmes, and the versions of their value model and decision policy.

use crate::domain::{
    decision::{Action, DecisionPolicy},
    policy::ProgrammePolicy,
    value::ValueModel,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::ProgrammeId;
use sqlx::PgConnection;

/// Who made the first versions of a programme, and why.
const FIRST_ACTOR: &str = "measurement";
const FIRST_REASON: &str = "the programme's first version";

/// A programme's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programme {
    pub currency: String,
    pub value_model_version: i32,
    pub decision_policy_version: i32,
}

/// What a new version is recorded with.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    pub actor: &'a str,
    pub reason: &'a str,
    pub time: DateTime<Utc>,
}

/// Opens a programme with version 1 of model and policy, unless it is open.
pub async fn open(conn: &mut PgConnection, id: ProgrammeId, currency: &str, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let opened = sqlx::query!(
        "INSERT INTO programme (programme_id, currency_code, value_model_version, decision_policy_version, create_time)
         VALUES ($1, $2, 1, 1, $3)
         ON CONFLICT ON CONSTRAINT programme_pkey DO NOTHING",
        id.0,
        currency,
        now,
    )
    .execute(&mut *conn)
    .await?;
    if opened.rows_affected() == 1 {
        let record = Record { actor: FIRST_ACTOR, reason: FIRST_REASON, time: now };
        insert_model(conn, id, 1, &ValueModel::standard(currency), record).await?;
        insert_policy(conn, id, 1, &ProgrammePolicy::initial(), record).await?;
    }
    Ok(())
}

pub async fn find(conn: &mut PgConnection, id: ProgrammeId) -> Result<Option<Programme>, sqlx::Error> {
    sqlx::query_as!(
        Programme,
        "SELECT currency_code AS currency, value_model_version, decision_policy_version
         FROM programme
         WHERE programme_id = $1",
        id.0,
    )
    .fetch_optional(conn)
    .await
}

/// As [`find`], with the row locked until the transaction ends.
pub async fn lock(conn: &mut PgConnection, id: ProgrammeId) -> Result<Option<Programme>, sqlx::Error> {
    sqlx::query_as!(
        Programme,
        "SELECT currency_code AS currency, value_model_version, decision_policy_version
         FROM programme
         WHERE programme_id = $1
         FOR UPDATE",
        id.0,
    )
    .fetch_optional(conn)
    .await
}

/// Adds a version of the value model and makes it the active one. The programme is locked.
pub async fn add_model(
    conn: &mut PgConnection,
    id: ProgrammeId,
    version: i32,
    model: &ValueModel,
    record: Record<'_>,
) -> Result<(), sqlx::Error> {
    insert_model(conn, id, version, model, record).await?;
    sqlx::query!("UPDATE programme SET value_model_version = $2 WHERE programme_id = $1", id.0, version).execute(conn).await?;
    Ok(())
}

async fn insert_model(
    conn: &mut PgConnection,
    id: ProgrammeId,
    version: i32,
    model: &ValueModel,
    record: Record<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO value_model (programme_id, version, parameters, actor, reason, create_time)
         VALUES ($1, $2, $3::text::json, $4, $5, $6)",
        id.0,
        version,
        serde_json::to_string(model).map_err(super::unreadable)?,
        record.actor,
        record.reason,
        record.time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The active value model; None for a programme that is not known here.
pub async fn active_model(conn: &mut PgConnection, id: ProgrammeId) -> Result<Option<ValueModel>, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT m.parameters::text AS "parameters!"
           FROM programme AS p
           JOIN value_model AS m ON m.programme_id = p.programme_id AND m.version = p.value_model_version
           WHERE p.programme_id = $1"#,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    found.map(|text| serde_json::from_str(&text).map_err(super::unreadable)).transpose()
}

/// Adds a version of the decision policy and makes it the active one. The programme is locked.
pub async fn add_policy(
    conn: &mut PgConnection,
    id: ProgrammeId,
    version: i32,
    policy: &ProgrammePolicy,
    record: Record<'_>,
) -> Result<(), sqlx::Error> {
    insert_policy(conn, id, version, policy, record).await?;
    sqlx::query!("UPDATE programme SET decision_policy_version = $2 WHERE programme_id = $1", id.0, version)
        .execute(conn)
        .await?;
    Ok(())
}

async fn insert_policy(
    conn: &mut PgConnection,
    id: ProgrammeId,
    version: i32,
    policy: &ProgrammePolicy,
    record: Record<'_>,
) -> Result<(), sqlx::Error> {
    let automatic: Vec<String> = policy.automatic.iter().map(|action| action.name().to_owned()).collect();
    sqlx::query!(
        "INSERT INTO decision_policy
             (programme_id, version, parameters, automatic_actions, max_draw_per_output_minor, actor, reason, create_time)
         VALUES ($1, $2, $3::text::json, $4, $5, $6, $7, $8)",
        id.0,
        version,
        serde_json::to_string(&policy.thresholds).map_err(super::unreadable)?,
        &automatic,
        policy.max_draw_per_output_minor,
        record.actor,
        record.reason,
        record.time,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The active decision policy; None for a programme that is not known here.
pub async fn active_policy(conn: &mut PgConnection, id: ProgrammeId) -> Result<Option<ProgrammePolicy>, sqlx::Error> {
    let found = sqlx::query!(
        r#"SELECT d.parameters::text AS "parameters!", d.automatic_actions, d.max_draw_per_output_minor
           FROM programme AS p
           JOIN decision_policy AS d ON d.programme_id = p.programme_id AND d.version = p.decision_policy_version
           WHERE p.programme_id = $1"#,
        id.0,
    )
    .fetch_optional(conn)
    .await?;
    let Some(row) = found else { return Ok(None) };
    let thresholds: DecisionPolicy = serde_json::from_str(&row.parameters).map_err(super::unreadable)?;
    let automatic = row.automatic_actions.iter().map(|name| action(name)).collect::<Result<_, _>>()?;
    Ok(Some(ProgrammePolicy { thresholds, automatic, max_draw_per_output_minor: row.max_draw_per_output_minor }))
}

fn action(name: &str) -> Result<Action, sqlx::Error> {
    Action::ALL
        .into_iter()
        .find(|action| action.name() == name)
        .ok_or_else(|| sqlx::Error::Decode(format!("{name} is no action").into()))
}
