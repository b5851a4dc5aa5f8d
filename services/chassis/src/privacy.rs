//! Persons whose data the registry destroys or gives out. What a service holds of who is erased goes in the transaction of the fact, and a job
//! tells the registry, which waits for it until a deadline; what it holds of who wants to know is collected by a job, and given to the
//! registry part by part.
//!
//! The registry's feed is read for this with a cursor of its own: a fact about a member that cannot be applied holds up the later ones of
//! that member, and an erasure must not wait for it.

use crate::{
    consumer::{Consumer, Effect, EffectError, Source, fact, programme_of},
    fault::reason_of,
    ids::{MemberId, ProgrammeId},
    job::{self, Job, JobError, JobHandler, NewJob},
    peer::PeerChannel,
    postgres::Db,
    server::Service,
};
use async_trait::async_trait;
use koc_proto::koc::{feed::v1::Change, registry::v1 as pb};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::PgConnection;
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

/// What the cursor is called.
const SOURCE: &str = "registry_privacy";
/// Jobs that tell the registry that a person's data is gone.
const ACKNOWLEDGE: &str = "acknowledge_erasure";

/// Jobs that give what is held of a person.
const PROVIDE: &str = "provide_member_export";
/// Of a document; the contract takes parts of up to 262,144 characters.
const PART_BYTES: usize = 200_000;

/// How many rows of each kind were destroyed.
pub type Erased = BTreeMap<String, i64>;

/// What a service holds of persons.
#[async_trait]
pub trait Persons: Send + Sync {
    /// Destroys what tells of a person, who is known under each of these ids. What the person had open is ended where the service can do so
    /// on its way. Ids, money and figures stay. It may come again, and finds nothing then.
    async fn erase(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Erased, EffectError>;

    /// All that is held of a person: an object with a list for each kind of thing.
    async fn export(&self, conn: &mut PgConnection, programme: ProgrammeId, members: &[MemberId]) -> Result<Value, sqlx::Error>;
}

/// A document as the parts in which it is given: not empty, and cut between characters.
pub fn parts(document: &Value) -> Vec<String> {
    let text = document.to_string();
    let mut parts = Vec::new();
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (part, left) = rest.split_at(rest.floor_char_boundary(PART_BYTES));
        parts.push(part.to_owned());
        rest = left;
    }
    parts
}

/// Lets a service follow what the registry tells of persons; `name` is under which the registry waits for it.
pub fn follow(
    service: &mut Service,
    name: &'static str,
    registry: PeerChannel,
    feed: Arc<dyn Source>,
    persons: Arc<dyn Persons>,
) {
    let db = service.db().clone();
    service.consume(Consumer::new(db.clone(), SOURCE, feed, Arc::new(Following { name, persons: persons.clone() })));
    service.run_jobs(PROVIDE, Arc::new(Provide { db: db.clone(), name, registry: registry.clone(), persons }));
    service.run_jobs(ACKNOWLEDGE, Arc::new(Acknowledge { db, name, registry }));
}

struct Following {
    name: &'static str,
    persons: Arc<dyn Persons>,
}

fn members(ids: &[String]) -> Result<Vec<MemberId>, crate::fault::Violation> {
    ids.iter().map(|id| MemberId::parse("member_ids", id)).collect()
}

impl Following {
    async fn start(
        &self,
        conn: &mut PgConnection,
        programme: ProgrammeId,
        kind: &'static str,
        subject: Uuid,
        state: Value,
    ) -> Result<(), EffectError> {
        let actor = format!("service:{}", self.name);
        job::start(conn, NewJob { kind, programme, subject, step: kind, state, actor: &actor, run_time: None }).await?;
        Ok(())
    }
}

#[async_trait]
impl Effect for Following {
    async fn apply(&self, conn: &mut PgConnection, change: &Change) -> Result<(), EffectError> {
        let programme = programme_of(change)?;
        if let Some(told) = fact::<pb::MemberErased>(change)? {
            let erasure = crate::ids::parse("erasure_id", &told.erasure_id)?;
            let erased = self.persons.erase(conn, programme, &members(&told.member_ids)?).await?;
            self.start(conn, programme, ACKNOWLEDGE, erasure, serde_json::json!({ "erased": erased })).await?;
        } else if let Some(told) = fact::<pb::MemberExportRequested>(change)? {
            let export = crate::ids::parse("export_id", &told.export_id)?;
            self.start(conn, programme, PROVIDE, export, serde_json::json!({ "member_ids": told.member_ids })).await?;
        }
        Ok(())
    }
}

/// Tells the registry.
struct Acknowledge {
    db: Db,
    name: &'static str,
    registry: PeerChannel,
}

#[async_trait]
impl JobHandler for Acknowledge {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let erased: Erased = serde_json::from_value(job.state.get("erased").cloned().unwrap_or_default())
            .map_err(|error| JobError::Broken(error.to_string()))?;
        let request = pb::AcknowledgeErasureRequest {
            programme_id: job.programme_id.to_string(),
            request_id: job.request_id(ACKNOWLEDGE),
            erasure_id: job.subject_id.to_string(),
            consumer: self.name.to_owned(),
            erased: erased.into_iter().map(|(name, rows)| pb::ErasedCount { name, rows }).collect(),
        };
        let mut client = pb::erasure_service_client::ErasureServiceClient::new(self.registry.clone());
        match client.acknowledge_erasure(request).await {
            Ok(_) => {}
            // The registry was told to wait for others alone, or has lost what it asked for: there is nobody to tell.
            Err(status) if ["CONSUMER_UNKNOWN", "ERASURE_NOT_FOUND"].contains(&reason_of(&status).as_str()) => {
                tracing::warn!(erasure = %job.subject_id, reason = reason_of(&status), "nobody waits for this erasure");
            }
            Err(status) => return Err(status.into()),
        }
        let mut tx = self.db.begin().await?;
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Gives what is held of a person.
struct Provide {
    db: Db,
    name: &'static str,
    registry: PeerChannel,
    persons: Arc<dyn Persons>,
}

#[async_trait]
impl JobHandler for Provide {
    async fn run(&self, job: &Job) -> Result<(), JobError> {
        let ids: Vec<String> = serde_json::from_value(job.state.get("member_ids").cloned().unwrap_or_default())
            .map_err(|error| JobError::Broken(error.to_string()))?;
        let members = members(&ids).map_err(|violation| JobError::Broken(violation.description))?;
        let mut tx = self.db.snapshot().await?;
        let parts = parts(&self.persons.export(&mut tx, job.programme(), &members).await?);
        drop(tx);
        let mut client = pb::export_service_client::ExportServiceClient::new(self.registry.clone());
        for (part, content) in (1..).zip(&parts) {
            // What is held may be more at the next try: another content is another command, and takes the place of the one before.
            let command = format!("{part}/{}/{}", parts.len(), hex::encode(Sha256::digest(content)));
            let request = pb::ProvideMemberExportRequest {
                programme_id: job.programme_id.to_string(),
                request_id: job.request_id(&command),
                export_id: job.subject_id.to_string(),
                holder: self.name.to_owned(),
                part,
                last: usize::try_from(part).is_ok_and(|part| part == parts.len()),
                content: content.clone(),
            };
            match client.provide_member_export(request).await {
                Ok(_) => {}
                Err(status) if ["EXPORT_NOT_FOUND", "HOLDER_UNKNOWN"].contains(&reason_of(&status).as_str()) => {
                    tracing::warn!(export = %job.subject_id, reason = reason_of(&status), "nobody waits for this export");
                    break;
                }
                Err(status) => return Err(status.into()),
            }
        }
        let mut tx = self.db.begin().await?;
        job.finish(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Takes the words about things out of the trail, which were done to these subjects; says of how many rows.
pub async fn erase_trail(conn: &mut PgConnection, programme: ProgrammeId, subjects: &[Uuid]) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT erase_trail($1, $2)").bind(programme.0).bind(subjects).fetch_one(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_document_make_it_up_again_and_none_is_too_long() {
        for (document, count) in [(serde_json::json!({}), 1), (serde_json::json!({ "text": "山".repeat(PART_BYTES) }), 4)] {
            let parts = parts(&document);
            assert_eq!(parts.len(), count);
            assert!(parts.iter().all(|part| !part.is_empty() && part.len() <= PART_BYTES));
            assert_eq!(serde_json::from_str::<Value>(&parts.concat()).expect("a document"), document);
        }
    }
}
