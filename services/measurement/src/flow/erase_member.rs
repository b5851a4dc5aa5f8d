//! Erasing a person: what was said of decisions about it goes. Readings, values and decisions are figures by ids, and stay.

use crate::store;
use async_trait::async_trait;
use koc_chassis::{
    consumer::EffectError,
    ids::{MemberId, ProgrammeId},
    privacy::{self, Erased},
};
use serde_json::Value;
use sqlx::PgConnection;

/// What measurement holds of persons.
pub struct Persons;

#[async_trait]
impl privacy::Persons for Persons {
    async fn erase(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Erased, EffectError> {
        let (mut subjects, reasons) = store::person::destroy(conn, programme, members).await?;
        subjects.extend(members.iter().map(|member| member.0));
        let trail = privacy::erase_trail(conn, programme, &subjects).await?;
        Ok(Erased::from([("decision_progress".to_owned(), reasons), ("trail".to_owned(), trail)]))
    }

    async fn export(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Value, sqlx::Error> {
        store::person::export(conn, programme, members).await
    }
}
