//! From an admitted call to its effect. A read is checked and run. A mutation is checked, recognised when it is a retry, run in
//! one transaction with its facts, its audit entry and the record of its answer, and run again when it lost a race.

use crate::{
    auth::Caller,
    clock, context,
    fault::{Fault, ServiceError, StoredRefusal, chain, is_race},
    ids::ProgrammeId,
    outbox::{self, NewFact},
    postgres::Db,
};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use koc_proto::rules::Rules;
use sha2::{Digest, Sha256};
use sqlx::{PgConnection, Postgres, Transaction};
use std::{marker::PhantomData, sync::Arc, time::Duration};
use tonic::{Request, Response, Status};
use uuid::Uuid;

/// Says in an answer that it was given before.
pub const REPLAYED_HEADER: &str = "koc-replayed";
/// How often a mutation that lost a race is run.
const MAX_ATTEMPTS: u32 = 5;

/// A call that was let in: who calls, and for which programme.
#[derive(Debug, Clone)]
pub struct Call {
    pub programme: ProgrammeId,
    pub caller: Arc<Caller>,
}

/// An answer, and whether it was given before.
#[derive(Debug)]
pub struct Outcome<T> {
    pub message: T,
    pub replayed: bool,
}

impl<T> From<Outcome<T>> for Response<T> {
    fn from(outcome: Outcome<T>) -> Self {
        let mut response = Response::new(outcome.message);
        if outcome.replayed {
            response.metadata_mut().insert(REPLAYED_HEADER, tonic::metadata::MetadataValue::from_static("true"));
        }
        response
    }
}

/// A mutation at work: its transaction, and what will be committed with it.
pub struct Work {
    tx: Transaction<'static, Postgres>,
    pub call: Call,
    subject: Option<Uuid>,
    reason: Option<String>,
    dry: bool,
}

impl Work {
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    pub fn programme(&self) -> ProgrammeId {
        self.call.programme
    }

    pub fn actor(&self) -> &str {
        &self.call.caller.actor
    }

    /// The time now. Read it after the locks are taken.
    pub async fn now(&mut self) -> Result<DateTime<Utc>, sqlx::Error> {
        clock::now(&mut self.tx).await
    }

    /// Publishes a fact with this change. Call it after the subject's row is locked: that keeps the order per subject.
    pub async fn emit<F: Rules + prost::Message>(&mut self, subject: Uuid, fact: &F) -> Result<(), sqlx::Error> {
        outbox::append(&mut self.tx, &[NewFact::new(self.call.programme, subject, fact)]).await
    }

    /// Says in the audit entry what was acted on, and why.
    pub fn audit(&mut self, subject: Uuid, reason: Option<String>) {
        self.subject = Some(subject);
        self.reason = reason;
    }

    /// The answer is given and nothing is kept: for `validate_only`. Call it first: from then on a refusal is not kept either, so
    /// that the request id is free for the real call.
    pub fn dry_run(&mut self) {
        self.dry = true;
    }
}

/// Where calls of one service pass.
pub struct Gate<E> {
    db: Db,
    domain: &'static str,
    errors: PhantomData<fn() -> E>,
}

impl<E> Clone for Gate<E> {
    fn clone(&self) -> Self {
        Self { db: self.db.clone(), domain: self.domain, errors: PhantomData }
    }
}

enum Recorded {
    Answer(Vec<u8>),
    Refusal(Fault),
}

impl<E: ServiceError> Gate<E> {
    /// `domain` as in the errors, e.g. `registry.koc`.
    pub fn new(db: Db, domain: &'static str) -> Self {
        Self { db, domain, errors: PhantomData }
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Checks that the caller may enter the programme that the message names.
    pub fn admit<R: Rules>(&self, request: Request<R>) -> Result<(Call, R), Status> {
        let caller = self.caller(&request)?;
        let message = request.into_inner();
        let call = self.enter(caller, &message)?;
        Ok((call, message))
    }

    /// Who calls. For streams, whose messages are checked one by one with [`Self::enter`].
    pub fn caller<R>(&self, request: &Request<R>) -> Result<Arc<Caller>, Status> {
        let caller = request.extensions().get::<Arc<Caller>>().cloned();
        caller.ok_or_else(|| Fault::unauthenticated("TOKEN_MISSING", "the call came past the door").into_status(self.domain))
    }

    /// Checks that `caller` may enter the programme that `message` names.
    pub fn enter<R: Rules>(&self, caller: Arc<Caller>, message: &R) -> Result<Call, Status> {
        let programme = message.programme_id().and_then(|id| Uuid::try_parse(id).ok());
        match programme {
            Some(id) if caller.may_enter(id) => Ok(Call { programme: ProgrammeId(id), caller }),
            _ => Err(Fault::denied("PROGRAMME_DENIED", "the token is not for this programme").into_status(self.domain)),
        }
    }

    /// As [`Self::admit`] for messages whose programme may be empty, which means all and needs a token for all.
    pub fn admit_feed<R: Rules>(&self, request: Request<R>) -> Result<(Option<ProgrammeId>, R), Status> {
        if request.get_ref().programme_id().is_some_and(|id| !id.is_empty()) {
            let (call, message) = self.admit(request)?;
            return Ok((Some(call.programme), message));
        }
        if !self.caller(&request)?.may_enter_all() {
            let fault = Fault::denied("PROGRAMME_DENIED", "changes of all programmes need a token for all");
            return Err(fault.into_status(self.domain));
        }
        Ok((None, request.into_inner()))
    }

    /// Runs a read.
    pub async fn read<R, T, F>(&self, request: Request<R>, work: impl FnOnce(Call, R) -> F) -> Result<Response<T>, Status>
    where
        R: Rules,
        F: Future<Output = Result<T, E>>,
    {
        let (call, message) = self.admit(request)?;
        work(call, message).await.map(Response::new).map_err(|error| self.status(&error))
    }

    /// Runs a mutation. `work` may run several times; only what it did in its transaction the last time counts.
    pub async fn mutate<R, T>(
        &self,
        request: Request<R>,
        work: impl for<'w> Fn(&'w mut Work, R) -> BoxFuture<'w, Result<T, E>> + Send + Sync,
    ) -> Result<Outcome<T>, Status>
    where
        R: Rules + prost::Message + Clone,
        T: Rules + prost::Message + Default,
    {
        self.mutate_after(request, async |_: &Call, _: &R| Ok(()), |w, r, ()| work(w, r)).await
    }

    /// Runs a mutation that first asks others: `prepare` runs outside the transaction, and not at all for a retry.
    pub async fn mutate_after<R, P, T, F>(
        &self,
        request: Request<R>,
        prepare: F,
        work: impl for<'w> Fn(&'w mut Work, R, P) -> BoxFuture<'w, Result<T, E>> + Send + Sync,
    ) -> Result<Outcome<T>, Status>
    where
        R: Rules + prost::Message + Clone,
        P: Clone + Send,
        T: Rules + prost::Message + Default,
        F: AsyncFnOnce(&Call, &R) -> Result<P, E>,
    {
        let (call, message) = self.admit(request)?;
        let key = RequestKey::of(&call, &message).map_err(|fault| fault.into_status(self.domain))?;
        if let Some(recorded) = self.recorded(&key).await? {
            return self.replay(recorded);
        }
        let prepared = match prepare(&call, &message).await {
            Ok(prepared) => prepared,
            Err(error) => return self.refuse(&call, &key, &error).await,
        };
        let mut attempt = 1;
        loop {
            match self.run(&call, &key, &message, prepared.clone(), &work).await {
                Ok(Some(message)) => return Ok(Outcome { message, replayed: false }),
                // Somebody else committed the same request first.
                Ok(None) => match self.recorded(&key).await? {
                    Some(recorded) => return self.replay(recorded),
                    None => return Err(self.internal("a request record vanished")),
                },
                Err(Failure::Database(error)) if is_race(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
                Err(Failure::Database(error)) => return Err(self.status(&E::from(error))),
                Err(Failure::Service(error) | Failure::Dry(error))
                    if error.database().is_some_and(is_race) && attempt < MAX_ATTEMPTS =>
                {
                    attempt += 1
                }
                Err(Failure::Service(error)) => return self.refuse(&call, &key, &error).await,
                Err(Failure::Dry(error)) => return Err(self.status(&error)),
            }
        }
    }

    async fn run<R: Clone, P, T: Rules + prost::Message + Default>(
        &self,
        call: &Call,
        key: &RequestKey,
        message: &R,
        prepared: P,
        work: &(impl for<'w> Fn(&'w mut Work, R, P) -> BoxFuture<'w, Result<T, E>> + Send + Sync),
    ) -> Result<Option<T>, Failure<E>> {
        let tx = self.db.begin().await?;
        let mut at_work = Work { tx, call: call.clone(), subject: None, reason: None, dry: false };
        let answer = match work(&mut at_work, message.clone(), prepared).await {
            Ok(answer) => answer,
            Err(error) => {
                at_work.tx.rollback().await?;
                return Err(if at_work.dry { Failure::Dry(error) } else { Failure::Service(error) });
            }
        };
        if at_work.dry {
            at_work.tx.rollback().await?;
            return Ok(Some(answer));
        }
        let mut stripped = T::decode(answer.encode_to_vec().as_slice()).map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        stripped.strip_personal();
        let recorded: Option<bool> = sqlx::query_scalar(
            "WITH record AS (
                 INSERT INTO request_record (programme_id, method, request_id, request_hash, answer, actor, create_time)
                 VALUES ($1, $2, $3, $4, $5, $6, koc_now())
                 ON CONFLICT DO NOTHING
                 RETURNING create_time
             ), audit AS (
                 INSERT INTO audit_entry (programme_id, method, request_id, actor, client, subject_id, reason, trace_id, create_time)
                 SELECT $1, $2, $3, $6, $7, $8, $9, $10, create_time FROM record
             )
             SELECT true FROM record",
        )
        .bind(key.programme)
        .bind(key.method)
        .bind(key.request_id)
        .bind(&key.hash)
        .bind(stripped.encode_to_vec())
        .bind(&call.caller.actor)
        .bind(&call.caller.client)
        .bind(at_work.subject)
        .bind(&at_work.reason)
        .bind(context::trace_id())
        .fetch_optional(&mut *at_work.tx)
        .await?;
        if recorded.is_none() {
            at_work.tx.rollback().await?;
            return Ok(None);
        }
        at_work.tx.commit().await?;
        self.db.wake();
        Ok(Some(answer))
    }

    /// A failed mutation: a business refusal is stored, unless the same request was answered meanwhile.
    async fn refuse<T: Rules + prost::Message + Default>(
        &self,
        call: &Call,
        key: &RequestKey,
        error: &E,
    ) -> Result<Outcome<T>, Status> {
        let fault = error.fault();
        if !fault.stored {
            // The same request may have succeeded in another place while this one ran.
            if let Ok(Some(recorded @ Recorded::Answer(_))) = self.recorded(key).await {
                return self.replay(recorded);
            }
            return Err(self.status(error));
        }
        let refusal = serde_json::to_value(StoredRefusal::from(&fault)).map_err(|e| self.internal(&e.to_string()))?;
        sqlx::query(
            "INSERT INTO request_record (programme_id, method, request_id, request_hash, refusal, actor, create_time)
             VALUES ($1, $2, $3, $4, $5, $6, koc_now())
             ON CONFLICT DO NOTHING",
        )
        .bind(key.programme)
        .bind(key.method)
        .bind(key.request_id)
        .bind(&key.hash)
        .bind(refusal)
        .bind(&call.caller.actor)
        .execute(self.db.pool())
        .await
        .map_err(|error| self.status(&E::from(error)))?;
        match self.recorded(key).await? {
            Some(recorded) => self.replay(recorded),
            None => Err(fault.into_status(self.domain)),
        }
    }

    async fn recorded(&self, key: &RequestKey) -> Result<Option<Recorded>, Status> {
        type Row = (Vec<u8>, Option<Vec<u8>>, Option<serde_json::Value>);
        let row: Option<Row> = sqlx::query_as(
            "SELECT request_hash, answer, refusal FROM request_record
             WHERE programme_id = $1 AND method = $2 AND request_id = $3",
        )
        .bind(key.programme)
        .bind(key.method)
        .bind(key.request_id)
        .fetch_optional(self.db.pool())
        .await
        .map_err(|error| self.status(&E::from(error)))?;
        match row {
            None => Ok(None),
            Some((hash, _, _)) if hash != key.hash => Err(reused().into_status(self.domain)),
            Some((_, Some(answer), _)) => Ok(Some(Recorded::Answer(answer))),
            Some((_, None, refusal)) => {
                let stored: StoredRefusal =
                    serde_json::from_value(refusal.unwrap_or_default()).map_err(|e| self.internal(&e.to_string()))?;
                Ok(Some(Recorded::Refusal(stored.into())))
            }
        }
    }

    fn replay<T: prost::Message + Default>(&self, recorded: Recorded) -> Result<Outcome<T>, Status> {
        match recorded {
            Recorded::Answer(bytes) => T::decode(bytes.as_slice())
                .map(|message| Outcome { message, replayed: true })
                .map_err(|e| self.internal(&e.to_string())),
            Recorded::Refusal(fault) => Err(fault.into_status(self.domain)),
        }
    }

    /// The status of an error; what is INTERNAL is logged here, once.
    pub fn status(&self, error: &E) -> Status {
        let fault = error.fault();
        if fault.code == tonic::Code::Internal {
            tracing::error!(error = chain(error), "a call failed");
        }
        fault.into_status(self.domain)
    }

    fn internal(&self, what: &str) -> Status {
        tracing::error!(error = what, "a call failed");
        Fault::internal().into_status(self.domain)
    }
}

enum Failure<E> {
    Database(sqlx::Error),
    Service(E),
    /// As `Service`, of a dry run: nothing of it is kept.
    Dry(E),
}

impl<E> From<sqlx::Error> for Failure<E> {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The same request id with another body: refused, and never stored in place of the first.
pub fn reused() -> Fault {
    let violation =
        crate::fault::Violation::new("request_id", "REQUEST_ID_REUSED", "was used with another request; make a new one");
    Fault { reason: "REQUEST_ID_REUSED".into(), ..Fault::invalid(vec![violation]) }
}

/// What makes two mutations the same.
#[derive(Debug, Clone)]
pub struct RequestKey {
    pub programme: Uuid,
    pub method: &'static str,
    pub request_id: Uuid,
    /// SHA-256 of the encoded request.
    pub hash: Vec<u8>,
}

impl RequestKey {
    pub fn of<R: Rules + prost::Message>(call: &Call, message: &R) -> Result<Self, Fault> {
        let text = message.request_id().unwrap_or_default();
        let request_id = crate::ids::parse("request_id", text).map_err(|v| Fault::invalid(vec![v]))?;
        let hash = Sha256::digest(message.encode_to_vec()).to_vec();
        Ok(Self { programme: call.programme.0, method: R::NAME, request_id, hash })
    }
}

/// Removes records of answers that are older than `keep`, some at a time. Records of money are kept for good: its service does
/// not call this.
pub async fn purge_records(db: &Db, keep: Duration) -> Result<u64, sqlx::Error> {
    const BATCH: i64 = 5_000;
    let purged = sqlx::query(
        "DELETE FROM request_record WHERE ctid = ANY (ARRAY(
             SELECT ctid FROM request_record WHERE create_time < koc_now() - $1 * interval '1 second' LIMIT $2))",
    )
    .bind(keep.as_secs_f64())
    .bind(BATCH)
    .execute(db.pool())
    .await?;
    Ok(purged.rows_affected())
}
