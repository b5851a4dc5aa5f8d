//! What can go wrong, as a caller sees it. A service turns its errors into [`Fault`]s in one exhaustive match
//! (`api/error.rs`); this module turns faults into statuses with details.

use koc_proto::google::rpc;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use koc_proto::rules::Violation;

/// An error of a service that knows what a caller should be told.
pub trait ServiceError: std::error::Error + From<sqlx::Error> + Send + Sync + 'static {
    fn fault(&self) -> Fault;
    /// What the database said, when that is what went wrong.
    fn database(&self) -> Option<&sqlx::Error>;
}

/// An error as a caller sees it: a code, a stable reason, and figures. Holds no personal data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub code: Code,
    /// UPPER_SNAKE, stable, documented at the RPC.
    pub reason: String,
    pub message: String,
    /// Figures and ids, by name.
    pub metadata: Vec<(String, String)>,
    pub violations: Vec<Violation>,
    /// When a retry may help.
    pub retry_after: Option<Duration>,
    /// A refusal by a business rule: a retry of the same request gets it again.
    pub stored: bool,
}

/// How long a caller should wait before it tries again what failed for a passing reason.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

impl Fault {
    fn of(code: Code, reason: &str, message: impl Into<String>, stored: bool) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            metadata: Vec::new(),
            violations: Vec::new(),
            retry_after: None,
            stored,
        }
    }

    /// A business rule says no: FAILED_PRECONDITION, stored.
    pub fn refused(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::FailedPrecondition, reason, message, true)
    }

    /// There is one already: ALREADY_EXISTS, stored.
    pub fn exists(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::AlreadyExists, reason, message, true)
    }

    /// There is no such thing: NOT_FOUND. Not stored: it may come to be.
    pub fn not_found(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::NotFound, reason, message, false)
    }

    /// Somebody else changed it meanwhile: ABORTED. Read again, then try again with a new request id.
    pub fn conflict(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::Aborted, reason, message, false)
    }

    /// Fields break a rule: INVALID_ARGUMENT.
    pub fn invalid(violations: Vec<Violation>) -> Self {
        let message = match violations.as_slice() {
            [one] => format!("{}: {} ({})", one.field, one.description, one.rule),
            many => format!("{} fields break a rule; see the details", many.len()),
        };
        Self { violations, ..Self::of(Code::InvalidArgument, "FIELD_VIOLATIONS", message, false) }
    }

    /// The request cannot be read: INVALID_ARGUMENT.
    pub fn malformed(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::InvalidArgument, reason, message, false)
    }

    /// The message is longer than the service reads: OUT_OF_RANGE, as tonic says it.
    pub fn too_large(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::OutOfRange, reason, message, false)
    }

    /// The thing is there, and cannot be asked for in this way: UNIMPLEMENTED.
    pub fn unsupported(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::Unimplemented, reason, message, false)
    }

    /// For a passing reason: UNAVAILABLE with a time to wait.
    pub fn unavailable(reason: &str, message: impl Into<String>) -> Self {
        Self { retry_after: Some(RETRY_AFTER), ..Self::of(Code::Unavailable, reason, message, false) }
    }

    /// Too much at once: RESOURCE_EXHAUSTED with a time to wait.
    pub fn overloaded(reason: &str, message: impl Into<String>) -> Self {
        Self { retry_after: Some(RETRY_AFTER), ..Self::of(Code::ResourceExhausted, reason, message, false) }
    }

    pub fn deadline() -> Self {
        Self::of(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the deadline passed before the work was done", false)
    }

    /// Something that should not happen: INTERNAL. What it was goes to the log, not to the caller.
    pub fn internal() -> Self {
        Self::of(Code::Internal, "INTERNAL", "an internal error; the log has it under this trace", false)
    }

    pub fn unauthenticated(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::Unauthenticated, reason, message, false)
    }

    pub fn denied(reason: &str, message: impl Into<String>) -> Self {
        Self::of(Code::PermissionDenied, reason, message, false)
    }

    /// Adds a figure or id.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.metadata.push((name.to_owned(), value.to_string()));
        self
    }

    /// What the database said. A lost connection, a full pool, a lock or statement time-out pass; the rest is ours and INTERNAL.
    pub fn of_database(error: &sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::overloaded("DATABASE_BUSY", "all database connections are in use");
        }
        match database_code(error).as_deref() {
            Some("57014") => Self::deadline(),
            _ if is_transient(error) => Self::unavailable("DATABASE_UNAVAILABLE", "the database cannot be reached or was busy"),
            _ => Self::internal(),
        }
    }

    /// The status with its details; `domain` as in `registry.koc`.
    pub fn into_status(self, domain: &str) -> Status {
        let mut details = ErrorDetails::new();
        let metadata: std::collections::HashMap<String, String> = self.metadata.into_iter().collect();
        if self.code == Code::FailedPrecondition {
            let subject = metadata.get("limit_id").or_else(|| metadata.get("subject")).cloned().unwrap_or_default();
            details.add_precondition_failure_violation(self.reason.clone(), subject, self.message.clone());
        }
        if matches!(self.code, Code::NotFound | Code::AlreadyExists)
            && let (Some(kind), Some(name)) = (metadata.get("resource_type"), metadata.get("resource_id"))
        {
            details.set_resource_info(kind.clone(), name.clone(), "", self.message.clone());
        }
        details.set_error_info(self.reason, domain, metadata);
        for violation in self.violations {
            details.add_bad_request_violation(violation.field, format!("{} ({})", violation.description, violation.rule));
        }
        if let Some(wait) = self.retry_after {
            details.set_retry_info(Some(wait));
        }
        Status::with_error_details(self.code, self.message, details)
    }
}

/// A refusal as it is stored with its request id.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredRefusal {
    code: i32,
    reason: String,
    message: String,
    metadata: Vec<(String, String)>,
}

impl From<&Fault> for StoredRefusal {
    fn from(fault: &Fault) -> Self {
        Self {
            code: fault.code as i32,
            reason: fault.reason.clone(),
            message: fault.message.clone(),
            metadata: fault.metadata.clone(),
        }
    }
}

impl From<StoredRefusal> for Fault {
    fn from(stored: StoredRefusal) -> Self {
        let code = Code::from_i32(stored.code);
        Self { metadata: stored.metadata, ..Self::of(code, &stored.reason, stored.message, true) }
    }
}

/// Collects violations of many fields, so that a caller sees all of them at once.
#[derive(Debug, Default)]
pub struct Violations(Vec<Violation>);

impl Violations {
    /// The value, or None with the violation kept.
    pub fn take<T>(&mut self, parsed: Result<T, Violation>) -> Option<T> {
        parsed.map_err(|violation| self.0.push(violation)).ok()
    }

    /// As [`Self::take`] for rules that report many at once.
    pub fn take_all<T>(&mut self, parsed: Result<T, Vec<Violation>>) -> Option<T> {
        parsed.map_err(|violations| self.0.extend(violations)).ok()
    }

    pub fn push(&mut self, violation: Violation) {
        self.0.push(violation);
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails with all that was collected.
    pub fn finish(self) -> Result<(), Vec<Violation>> {
        if self.0.is_empty() { Ok(()) } else { Err(self.0) }
    }
}

fn database_code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(|code| code.into_owned())
}

/// Whether the same statement may succeed when tried again as it is.
pub fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Protocol(_) => true,
        _ => database_code(error).is_some_and(|code| {
            // 08 connection, 40 rollback (serialisation, deadlock), 53 resources, 55P03 lock, 57 intervention.
            ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "55P03"
        }),
    }
}

/// Whether the connection broke or none was to be had: nothing that was asked for is at fault.
pub fn is_unreachable(error: &sqlx::Error) -> bool {
    match database_code(error) {
        // 08 connection, 53 resources, 57P an administrator's or the server's end.
        Some(code) => ["08", "53", "57P"].iter().any(|class| code.starts_with(class)),
        None => is_transient(error),
    }
}

/// Whether the transaction lost a race and should be run again at once.
pub fn is_race(error: &sqlx::Error) -> bool {
    database_code(error).is_some_and(|code| code == "40001" || code == "40P01")
}

/// What went wrong and what it came from, in one text for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The name of the constraint that a statement broke.
pub fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// A status as a message: what became of one of many. Its details carry it, where it has any.
pub fn to_rpc(status: &Status) -> rpc::Status {
    rpc::Status::decode(status.details()).ok().filter(|message| message.code != 0).unwrap_or_else(|| rpc::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// The reason in a status's ErrorInfo; empty when it has none.
pub fn reason_of(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}
