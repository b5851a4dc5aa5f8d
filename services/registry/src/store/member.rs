//! Members.

mod list;
mod write;

pub use list::{list, statement};
pub use write::{Turn, insert_all, set_states, update_all};

use super::unknown;
use crate::domain::{
    consent::Consent,
    member::{ExternalIdentity, Member, State, SuspensionCause, TrustLevel},
    profile::{Channel, Motivation, Profile, Vehicle},
    sync::{Provenance, Record},
    value::Score,
};
use chrono::{DateTime, Utc};
use koc_chassis::ids::{MemberId, ProgrammeId};
use serde::Deserialize;
use sqlx::{PgConnection, types::Json};
use std::collections::HashMap;
use uuid::Uuid;

/// An identity with whether its source system still has the person.
#[derive(Deserialize)]
struct Identity {
    #[serde(flatten)]
    identity: ExternalIdentity,
    deleted: bool,
}

struct MemberRow {
    member_id: Uuid,
    display_name: String,
    email: String,
    phone: String,
    region_code: String,
    city: String,
    channels: Json<Vec<Channel>>,
    vehicles: Json<Vec<Vehicle>>,
    motivations: Json<Vec<Motivation>>,
    tags: Json<Vec<String>>,
    consents: Json<Vec<Consent>>,
    state: String,
    suspension_cause: Option<String>,
    trust_level: String,
    tier_id: String,
    tier_since: DateTime<Utc>,
    version: i64,
    merged_into: Option<Uuid>,
    create_time: DateTime<Utc>,
    update_time: DateTime<Utc>,
    external_identities: Json<Vec<Identity>>,
    scores: Option<Json<Vec<Score>>>,
}

impl MemberRow {
    fn into_member(self, programme: ProgrammeId) -> Result<Member, sqlx::Error> {
        let (deleted, live): (Vec<Identity>, Vec<Identity>) = self.external_identities.0.into_iter().partition(|i| i.deleted);
        Ok(Member {
            id: MemberId(self.member_id),
            programme,
            profile: Profile {
                display_name: self.display_name,
                email: self.email,
                phone: self.phone,
                region_code: self.region_code,
                city: self.city,
                channels: self.channels.0,
                vehicles: self.vehicles.0,
                motivations: self.motivations.0,
                tags: self.tags.0,
                consents: self.consents.0,
            },
            external_identities: live.into_iter().map(|i| i.identity).collect(),
            deleted_identities: deleted.into_iter().map(|i| i.identity).collect(),
            state: State::from_name(&self.state).ok_or_else(|| unknown("member.state"))?,
            suspension_cause: cause(self.suspension_cause)?,
            trust_level: TrustLevel::from_name(&self.trust_level).ok_or_else(|| unknown("member.trust_level"))?,
            tier_id: self.tier_id,
            tier_since: self.tier_since,
            scores: self.scores.map(|scores| scores.0).unwrap_or_default(),
            version: self.version,
            create_time: self.create_time,
            update_time: self.update_time,
        })
    }
}

fn cause(name: Option<String>) -> Result<Option<SuspensionCause>, sqlx::Error> {
    name.map(|name| SuspensionCause::from_name(&name).ok_or_else(|| unknown("member.suspension_cause"))).transpose()
}

/// The members that these ids lead to, by id; ids without a member are left out.
pub async fn get_all(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: &[Uuid],
) -> Result<HashMap<MemberId, Member>, sqlx::Error> {
    let mut found = HashMap::with_capacity(ids.len());
    let mut merged = Vec::new();
    for row in rows(conn, programme, ids).await? {
        match row.merged_into {
            None => _ = found.insert(MemberId(row.member_id), row.into_member(programme)?),
            Some(winner) => merged.push((MemberId(row.member_id), winner)),
        }
    }
    // Few are merged: the others need no second look.
    if !merged.is_empty() {
        let winners: Vec<Uuid> = merged.iter().map(|(_, winner)| *winner).collect();
        let mut members = HashMap::new();
        for row in rows(conn, programme, &winners).await? {
            members.insert(row.member_id, row.into_member(programme)?);
        }
        found.extend(merged.into_iter().filter_map(|(id, winner)| Some((id, members.get(&winner)?.clone()))));
    }
    Ok(found)
}

/// What stands under an id itself, wherever it leads.
pub async fn get_own(conn: &mut PgConnection, programme: ProgrammeId, id: MemberId) -> Result<Option<Member>, sqlx::Error> {
    rows(conn, programme, &[id.0]).await?.pop().map(|row| row.into_member(programme)).transpose()
}

/// As [`get_own`], of many, each with the member that it is merged into.
pub async fn get_all_own(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    ids: &[Uuid],
) -> Result<HashMap<MemberId, (Member, Option<MemberId>)>, sqlx::Error> {
    let own = |row: MemberRow| {
        let (id, winner) = (MemberId(row.member_id), row.merged_into.map(MemberId));
        Ok((id, (row.into_member(programme)?, winner)))
    };
    rows(conn, programme, ids).await?.into_iter().map(own).collect()
}

/// Each is looked up for itself, as identities are.
async fn rows(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<Vec<MemberRow>, sqlx::Error> {
    let rows = sqlx::query_as!(
        MemberRow,
        r#"SELECT m.member_id, m.display_name, m.email, m.phone, m.region_code, m.city,
                  m.channels AS "channels: Json<Vec<Channel>>",
                  m.vehicles AS "vehicles: Json<Vec<Vehicle>>",
                  m.motivations AS "motivations: Json<Vec<Motivation>>",
                  m.tags AS "tags: Json<Vec<String>>",
                  m.consents AS "consents: Json<Vec<Consent>>",
                  CASE WHEN m.erase_time IS NULL THEN m.state ELSE 'ERASED' END AS "state!", m.suspension_cause,
                  m.trust_level, m.tier_id, m.tier_since, m.version, m.merged_into, m.create_time, m.update_time,
                  COALESCE((
                      SELECT jsonb_agg(jsonb_build_object('source_system', i.source_system, 'external_id', i.external_id,
                                                          'deleted', i.deleted)
                                       ORDER BY i.source_system, i.external_id)
                      FROM external_identity i
                      WHERE i.programme_id = m.programme_id AND i.member_id = m.member_id
                  ), '[]') AS "external_identities!: Json<Vec<Identity>>",
                  v.scores AS "scores?: Json<Vec<Score>>"
           FROM UNNEST($2::uuid[]) AS k (member_id)
           CROSS JOIN LATERAL (SELECT * FROM member WHERE programme_id = $1 AND member_id = k.member_id LIMIT 1) AS m
           LEFT JOIN value_profile v ON v.programme_id = m.programme_id AND v.member_id = m.member_id"#,
        programme.0,
        ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows)
}

pub async fn get(conn: &mut PgConnection, programme: ProgrammeId, id: MemberId) -> Result<Option<Member>, sqlx::Error> {
    Ok(get_all(conn, programme, &[id.0]).await?.remove(&id))
}

pub async fn exists(conn: &mut PgConnection, programme: ProgrammeId, id: MemberId) -> Result<bool, sqlx::Error> {
    let exists = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM member WHERE programme_id = $1 AND member_id = $2) AS "exists!""#,
        programme.0,
        id.0,
    );
    exists.fetch_one(conn).await
}

/// Ids in order of creation, after one of them.
pub async fn list_ids(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT member_id
         FROM member
         WHERE programme_id = $1 AND member_id > $2
         ORDER BY member_id
         LIMIT $3",
        programme.0,
        after,
        limit,
    );
    ids.fetch_all(conn).await
}

/// What of a member is read to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locked {
    pub id: MemberId,
    pub record: Record,
    pub state: State,
    /// Of a suspended member.
    pub suspension_cause: Option<SuspensionCause>,
    pub trust_level: TrustLevel,
    pub version: i64,
    pub merged_into: Option<MemberId>,
}

/// Locks members, in the order of their ids, each looked up for itself, as identities are; ids without a member are left out.
pub async fn lock_all(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<Vec<Locked>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"SELECT m.member_id, m.display_name, m.email, m.phone, m.region_code, m.city,
                  m.channels AS "channels: Json<Vec<Channel>>",
                  m.vehicles AS "vehicles: Json<Vec<Vehicle>>",
                  m.motivations AS "motivations: Json<Vec<Motivation>>",
                  m.tags AS "tags: Json<Vec<String>>",
                  m.consents AS "consents: Json<Vec<Consent>>",
                  m.provenance AS "provenance: Json<Provenance>",
                  CASE WHEN m.erase_time IS NULL THEN m.state ELSE 'ERASED' END AS "state!", m.suspension_cause, m.trust_level,
                  m.version, m.merged_into
           FROM (SELECT DISTINCT u.id FROM UNNEST($2::uuid[]) AS u (id) ORDER BY u.id) AS k
           CROSS JOIN LATERAL (
               SELECT * FROM member WHERE programme_id = $1 AND member_id = k.id LIMIT 1 FOR NO KEY UPDATE
           ) AS m"#,
        programme.0,
        ids,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Locked {
                id: MemberId(row.member_id),
                record: Record {
                    profile: Profile {
                        display_name: row.display_name,
                        email: row.email,
                        phone: row.phone,
                        region_code: row.region_code,
                        city: row.city,
                        channels: row.channels.0,
                        vehicles: row.vehicles.0,
                        motivations: row.motivations.0,
                        tags: row.tags.0,
                        consents: row.consents.0,
                    },
                    provenance: row.provenance.0,
                },
                state: State::from_name(&row.state).ok_or_else(|| unknown("member.state"))?,
                suspension_cause: cause(row.suspension_cause)?,
                trust_level: TrustLevel::from_name(&row.trust_level).ok_or_else(|| unknown("member.trust_level"))?,
                version: row.version,
                merged_into: row.merged_into.map(MemberId),
            })
        })
        .collect()
}

/// Locks the member that an id leads to.
pub async fn lock(conn: &mut PgConnection, programme: ProgrammeId, id: MemberId) -> Result<Option<Locked>, sqlx::Error> {
    loop {
        let Some(end) = super::merge::resolve(conn, programme, id).await? else { return Ok(None) };
        let found = lock_all(conn, programme, &[end.0]).await?.pop();
        // Unless a merge, or its undoing, came while this waited.
        if super::merge::resolve(conn, programme, id).await? == Some(end) {
            return Ok(found);
        }
    }
}

/// Those of these members that are suspended, or erased. Who asks under the lock of their accounts knows it until it ends.
pub async fn suspended(conn: &mut PgConnection, programme: ProgrammeId, ids: &[Uuid]) -> Result<Vec<MemberId>, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "SELECT member_id
         FROM member
         WHERE programme_id = $1 AND member_id = ANY ($2) AND state = 'SUSPENDED'",
        programme.0,
        ids,
    );
    Ok(ids.fetch_all(conn).await?.into_iter().map(MemberId).collect())
}
