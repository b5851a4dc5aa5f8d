//! What can go wrong here, as facts with their data.

use crate::{
    domain::{
        balances::Imbalance,
        cost::{CostError, model::ResourceKind, rate_table::TableKind},
        period::Period,
        plan::{Stage, Standstill},
        refusal::Refusal,
        reserve_draw::{DrawStage, DrawStandstill},
    },
    ids::{EnvelopeId, OutputId, PlanId, ProgrammeId, ReservationId, ReserveDrawId, ResourceId},
};
use chrono::{DateTime, NaiveDate, Utc};
use koc_chassis::{fault::Violation, money::Currency};

/// An error of the budget service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("the ledger does not add up")]
    Imbalance(#[from] Imbalance),
    #[error("fields break a rule")]
    Invalid(Vec<Violation>),
    #[error("the request id was used with another request")]
    RequestIdReused,
    #[error("programme {0} does not exist")]
    ProgrammeNotFound(ProgrammeId),
    #[error("plan {0} does not exist")]
    PlanNotFound(PlanId),
    #[error("no active plan holds {0}")]
    NoActivePlan(DateTime<Utc>),
    #[error("envelope {0} does not exist")]
    EnvelopeNotFound(EnvelopeId),
    #[error("reservation {0} does not exist")]
    ReservationNotFound(ReservationId),
    #[error("draw {0} does not exist")]
    DrawNotFound(ReserveDrawId),
    #[error("plan {plan} is {is:?}")]
    PlanState { plan: PlanId, is: Stage, must_be: Stage },
    #[error("plan {0} was changed meanwhile")]
    EtagMismatch(PlanId),
    #[error("who asked may not decide")]
    ApproverIsRequester,
    /// Money did not move, by a rule; the figures are in the currency.
    #[error("refused: {refusal:?}")]
    Refused { refusal: Refusal, currency: Currency },
    #[error("the member has a limit from {} to {}", .0.start(), .0.end())]
    PeriodOverlaps(Period),
    #[error("plan {0} has no strategic reserve")]
    ReserveMissing(PlanId),
    #[error("output {output} drew within a day; again from {until}")]
    DrawCoolingDown { output: OutputId, until: DateTime<Utc> },
    #[error("draw {draw} is {is:?}")]
    DrawState { draw: ReserveDrawId, is: DrawStage },
    #[error("resource {0} does not exist")]
    ResourceNotFound(ResourceId),
    #[error("resource {0} was changed meanwhile")]
    ResourceChanged(ResourceId),
    #[error("resource {0} is retired")]
    ResourceRetired(ResourceId),
    #[error("resource {resource} is a {is:?}")]
    ResourceKind { resource: ResourceId, is: ResourceKind },
    #[error("another resource has this name")]
    ResourceNameTaken,
    #[error("rate table {0} does not exist")]
    RateTableNotFound(String),
    #[error("rate table {table} is read as {is:?}")]
    RateTableKind { table: String, is: TableKind, must_be: TableKind },
    #[error("rate table {table} has no rate for {key:?} on {date}")]
    RateMissing { table: String, key: String, date: NaiveDate },
    #[error("the registry cannot be asked now")]
    RegistryUnavailable(#[source] tonic::Status),
    #[error("the registry refused")]
    RegistryRefused(#[source] tonic::Status),
    #[error("the registry names a currency that is not known: {0}")]
    CurrencyUnknown(String),
}

impl From<Vec<Violation>> for Error {
    fn from(violations: Vec<Violation>) -> Self {
        Self::Invalid(violations)
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Invalid(vec![violation])
    }
}

impl From<CostError> for Error {
    fn from(error: CostError) -> Self {
        match error {
            CostError::Invalid(violations) => Self::Invalid(violations),
            CostError::RateMissing { table, key, date } => Self::RateMissing { table, key, date },
            CostError::TableKind { table, is, must_be } => Self::RateTableKind { table, is, must_be },
        }
    }
}

impl Error {
    /// Why a plan stands still.
    pub fn of_plan(plan: PlanId, standstill: Standstill) -> Self {
        match standstill {
            Standstill::State { is, must_be } => Self::PlanState { plan, is, must_be },
            Standstill::ApproverIsRequester => Self::ApproverIsRequester,
        }
    }

    /// Why a draw stands still.
    pub fn of_draw(draw: ReserveDrawId, standstill: DrawStandstill) -> Self {
        match standstill {
            DrawStandstill::State { is } => Self::DrawState { draw, is },
            DrawStandstill::ApproverIsRequester => Self::ApproverIsRequester,
        }
    }
}
