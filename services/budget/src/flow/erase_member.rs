//! Erasing a person: what was said of its grants, limits and draws goes, and where parcels went. The ledger holds ids and figures, and
//! stays whole.

use crate::store;
use async_trait::async_trait;
use koc_chassis::{
    consumer::EffectError,
    ids::{MemberId, ProgrammeId},
    privacy::{self, Erased},
};
use serde_json::Value;
use sqlx::PgConnection;

/// What the budget holds of persons.
pub struct Persons;

#[async_trait]
impl privacy::Persons for Persons {
    async fn erase(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Erased, EffectError> {
        let (mut subjects, mut erased) = store::person::destroy(conn, programme, members).await?;
        subjects.extend(members.iter().map(|member| member.0));
        erased.insert("trail".to_owned(), privacy::erase_trail(conn, programme, &subjects).await?);
        Ok(erased)
    }

    async fn export(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Value, sqlx::Error> {
        store::person::export(conn, programme, members).await
    }
}
