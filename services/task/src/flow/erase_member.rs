//! Erasing a person: what was handed in and said of it goes; what is open ends. Work that was accepted is paid.

use super::{CLOCK_ACTOR, keep, lock_to_end};
use crate::{
    domain::assignment::{Assignment, State},
    store,
};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use koc_chassis::{
    clock,
    consumer::EffectError,
    ids::{MemberId, ProgrammeId},
    privacy::{self, Erased},
};
use serde_json::Value;
use sqlx::PgConnection;

/// What the task service holds of persons.
pub struct Persons;

#[async_trait]
impl privacy::Persons for Persons {
    async fn erase(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Erased, EffectError> {
        let assignments = store::person::assignments(conn, programme, members).await?;
        for id in &assignments {
            let Some(assignment) = lock_to_end(conn, programme, *id).await? else { continue };
            let now = clock::now(conn).await?;
            let before = assignment.state.clone();
            if let Some(ended) = end(conn, assignment, now).await? {
                keep(conn, &before, &ended, CLOCK_ACTOR).await?;
            }
        }
        let mut erased = store::person::destroy(conn, &assignments).await?;
        let subjects: Vec<_> = assignments.iter().map(|id| id.0).chain(members.iter().map(|member| member.0)).collect();
        erased.insert("trail".to_owned(), privacy::erase_trail(conn, programme, &subjects).await?);
        Ok(erased)
    }

    async fn export(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Value, sqlx::Error> {
        store::person::export(conn, programme, members).await
    }
}

/// The end of an assignment that is open: accepted work is completed, so that it is paid, all else is given up. None when it has ended.
async fn end(conn: &mut PgConnection, assignment: Assignment, now: DateTime<Utc>) -> Result<Option<Assignment>, EffectError> {
    let ended = match &assignment.state {
        State::Submitted { approved: Some(_), .. } => {
            let content = store::brief::published(conn, assignment.brief, assignment.brief_revision).await?;
            let content = content.ok_or_else(|| EffectError::Park("the brief of an assignment is gone".to_owned()))?;
            assignment.complete(&content.package, now)
        }
        // As for who is suspended, which is told besides.
        State::Offered => return Ok(assignment.withdraw_offer(now)),
        _ => assignment.decline(now),
    };
    // What cannot be declined has ended before.
    Ok(ended.ok())
}
