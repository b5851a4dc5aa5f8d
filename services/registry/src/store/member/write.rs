//! Writing members.

use super::Locked;
use crate::domain::{
    consent::Consent,
    member::{State, SuspensionCause},
    profile::{Channel, Motivation, Vehicle},
    sync::{Provenance, Record},
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Members as columns, for statements that write many at once.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<Uuid>,
    display_names: Vec<&'a str>,
    emails: Vec<&'a str>,
    phones: Vec<&'a str>,
    region_codes: Vec<&'a str>,
    cities: Vec<&'a str>,
    channels: Vec<Json<&'a [Channel]>>,
    vehicles: Vec<Json<&'a [Vehicle]>>,
    motivations: Vec<Json<&'a [Motivation]>>,
    tags: Vec<Json<&'a [String]>>,
    consents: Vec<Json<&'a [Consent]>>,
    provenances: Vec<Json<&'a Provenance>>,
    trust_levels: Vec<&'static str>,
    versions: Vec<i64>,
}

impl<'a> Columns<'a> {
    fn of(members: &'a [Locked]) -> Self {
        let mut columns = Self::default();
        for Locked { id, record: Record { profile, provenance }, trust_level, version, .. } in members {
            columns.ids.push(id.0);
            columns.display_names.push(&profile.display_name);
            columns.emails.push(&profile.email);
            columns.phones.push(&profile.phone);
            columns.region_codes.push(&profile.region_code);
            columns.cities.push(&profile.city);
            columns.channels.push(Json(&profile.channels));
            columns.vehicles.push(Json(&profile.vehicles));
            columns.motivations.push(Json(&profile.motivations));
            columns.tags.push(Json(&profile.tags));
            columns.consents.push(Json(&profile.consents));
            columns.provenances.push(Json(provenance));
            columns.trust_levels.push(trust_level.name());
            columns.versions.push(*version);
        }
        columns
    }
}

/// Writes new members into a tier.
pub async fn insert_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    tier_id: &str,
    members: &[Locked],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if members.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(members);
    sqlx::query!(
        "INSERT INTO member (
             programme_id, member_id, display_name, email, phone, region_code, city, channels, vehicles, motivations, tags,
             consents, provenance, trust_level, version, tier_id, tier_since, create_time, update_time
         )
         SELECT $1, n.*, $16, $17, $17, $17
         FROM UNNEST(
             $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::jsonb[], $10::jsonb[],
             $11::jsonb[], $12::jsonb[], $13::jsonb[], $14::text[], $15::bigint[]
         ) AS n",
        programme.0,
        &columns.ids,
        &columns.display_names as &[&str],
        &columns.emails as &[&str],
        &columns.phones as &[&str],
        &columns.region_codes as &[&str],
        &columns.cities as &[&str],
        &columns.channels as &[Json<&[Channel]>],
        &columns.vehicles as &[Json<&[Vehicle]>],
        &columns.motivations as &[Json<&[Motivation]>],
        &columns.tags as &[Json<&[String]>],
        &columns.consents as &[Json<&[Consent]>],
        &columns.provenances as &[Json<&Provenance>],
        &columns.trust_levels as &[&str],
        &columns.versions,
        tier_id,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes what was locked back. `update_time` moves with the version.
pub async fn update_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Locked],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if members.is_empty() {
        return Ok(());
    }
    let columns = Columns::of(members);
    sqlx::query!(
        "UPDATE member AS m
         SET display_name = n.display_name, email = n.email, phone = n.phone, region_code = n.region_code, city = n.city,
             channels = n.channels, vehicles = n.vehicles, motivations = n.motivations, tags = n.tags, consents = n.consents,
             provenance = n.provenance, trust_level = n.trust_level, version = n.version,
             update_time = CASE WHEN n.version > m.version THEN $16 ELSE m.update_time END
         FROM UNNEST(
             $2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::jsonb[], $10::jsonb[],
             $11::jsonb[], $12::jsonb[], $13::jsonb[], $14::text[], $15::bigint[]
         ) AS n (
             member_id, display_name, email, phone, region_code, city, channels, vehicles, motivations, tags, consents,
             provenance, trust_level, version
         )
         WHERE m.programme_id = $1 AND m.member_id = n.member_id",
        programme.0,
        &columns.ids,
        &columns.display_names as &[&str],
        &columns.emails as &[&str],
        &columns.phones as &[&str],
        &columns.region_codes as &[&str],
        &columns.cities as &[&str],
        &columns.channels as &[Json<&[Channel]>],
        &columns.vehicles as &[Json<&[Vehicle]>],
        &columns.motivations as &[Json<&[Motivation]>],
        &columns.tags as &[Json<&[String]>],
        &columns.consents as &[Json<&[Consent]>],
        &columns.provenances as &[Json<&Provenance>],
        &columns.trust_levels as &[&str],
        &columns.versions,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A member that is locked and changes its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub member: MemberId,
    pub state: State,
    /// Of a suspension.
    pub cause: Option<SuspensionCause>,
    /// The member's, after it.
    pub version: i64,
}

/// Puts members that are locked into states.
pub async fn set_states(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    turns: &[Turn],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    if turns.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = turns.iter().map(|turn| turn.member.0).collect();
    let states: Vec<&str> = turns.iter().map(|turn| turn.state.name()).collect();
    let causes: Vec<Option<&str>> = turns.iter().map(|turn| turn.cause.map(SuspensionCause::name)).collect();
    let versions: Vec<i64> = turns.iter().map(|turn| turn.version).collect();
    sqlx::query!(
        "UPDATE member AS m
         SET state = t.state, suspension_cause = t.cause, version = t.version, update_time = $6
         FROM UNNEST($2::uuid[], $3::text[], $4::text[], $5::bigint[]) AS t (member_id, state, cause, version)
         WHERE m.programme_id = $1 AND m.member_id = t.member_id",
        programme.0,
        &ids,
        &states as &[&str],
        &causes as &[Option<&str>],
        &versions,
        now,
    )
    .execute(conn)
    .await?;
    Ok(())
}
