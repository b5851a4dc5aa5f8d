//! Badges that are given by their conditions, in the transaction of what met them.

use crate::{
    domain::badge::{Award, AwardId, AwardOrigin, Badge, Evidence, Holder, due},
    error::Error,
    store,
};
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    ids::{MemberId, ProgrammeId},
    outbox::{self, NewFact},
};
use koc_proto::koc::registry::v1 as pb;
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Gives members what they are due of these badges. Their accounts are locked.
pub async fn award(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
    badges: &[Badge],
    actor: &str,
    now: DateTime<Utc>,
) -> Result<Vec<Award>, Error> {
    let awards: Vec<Award> = find(conn, programme, members, badges)
        .await?
        .into_iter()
        .map(|(member, badge, evidence)| Award {
            id: AwardId::new(),
            member,
            badge_id: badge.id.clone(),
            badge_version: badge.version,
            origin: AwardOrigin::Rule(evidence),
            actor: actor.to_owned(),
            award_time: now,
            revoke_time: None,
        })
        .collect();
    keep(conn, programme, &awards).await?;
    Ok(awards)
}

/// As [`award`], of all badges, for members whose accounts are not locked yet: first looks who is due something, and locks those alone.
pub async fn look_and_award(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
    actor: &str,
) -> Result<Vec<Award>, Error> {
    let badges = by_rule(conn, programme).await?;
    let due: BTreeSet<Uuid> = find(conn, programme, members, &badges).await?.iter().map(|(member, ..)| member.0).collect();
    if due.is_empty() {
        return Ok(Vec::new());
    }
    let due: Vec<Uuid> = due.into_iter().collect();
    store::points::lock_all(conn, programme, &due).await?;
    let now = clock::now(conn).await?;
    award(conn, programme, &due, &badges, actor, now).await
}

/// After a change of members that conditions look at, other than their points: their accounts are locked first, so that of two changes
/// that meet a condition together the later one sees both.
pub async fn award_changed(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
    actor: &str,
    now: DateTime<Utc>,
) -> Result<(), Error> {
    if members.is_empty() {
        return Ok(());
    }
    let badges = by_rule(conn, programme).await?;
    if !badges.is_empty() {
        store::points::lock_all(conn, programme, members).await?;
        award(conn, programme, members, &badges, actor, now).await?;
    }
    Ok(())
}

/// The badges that are given by their conditions.
pub async fn by_rule(conn: &mut PgConnection, programme: ProgrammeId) -> Result<Vec<Badge>, Error> {
    let mut badges = store::badge::list(conn, programme, "", None).await?;
    badges.retain(Badge::is_by_rule);
    Ok(badges)
}

/// Who is due which badge.
pub async fn find<'b>(
    conn: &mut PgConnection,
    programme: ProgrammeId,
    members: &[Uuid],
    badges: &'b [Badge],
) -> Result<Vec<(MemberId, &'b Badge, Evidence)>, Error> {
    if badges.is_empty() || members.is_empty() {
        return Ok(Vec::new());
    }
    let ranks: BTreeMap<String, i32> =
        store::tier::list(conn, programme).await?.into_iter().map(|tier| (tier.id, tier.rank)).collect();
    let holders: Vec<Holder> = store::badge::holders(conn, programme, members).await?;
    let mut found = Vec::new();
    for holder in &holders {
        let due = due(holder, badges, &ranks);
        found.extend(due.into_iter().map(|(badge, evidence)| (holder.member, badge, evidence)));
    }
    Ok(found)
}

/// Writes awards, and publishes them.
pub async fn keep(conn: &mut PgConnection, programme: ProgrammeId, awards: &[Award]) -> Result<(), Error> {
    if awards.is_empty() {
        return Ok(());
    }
    store::badge::insert_awards(conn, programme, awards).await?;
    let fact = |award: &Award| {
        let fact = pb::BadgeAwarded {
            member_id: award.member.to_string(),
            award_id: award.id.to_string(),
            badge_id: award.badge_id.clone(),
            badge_version: award.badge_version,
            by_rule: matches!(award.origin, AwardOrigin::Rule(_)),
        };
        NewFact::new(programme, award.member.0, &fact)
    };
    let facts: Vec<NewFact> = awards.iter().map(fact).collect();
    outbox::append(conn, &facts).await?;
    Ok(())
}
