//! What can go wrong here, as facts with their data.

use crate::{
    domain::{
        balances::Imbalance,
        cost::{CostError, model::ResourceKind, rate_table::TableKind},
        grant::{Grant, GrantStandstill, Mismatch, Stage as GrantStage},
        period::Period,
        plan::{Stage, Standstill},
        refusal::Refusal,
        reserve_draw::{DrawStage, DrawStandstill},
    },
    ids::{EnvelopeId, GrantId, MemberId, OutputId, PlanId, ProgrammeId, ReservationId, ReserveDrawId, ResourceId, UnitId},
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
    #[error("grant {0} does not exist")]
    GrantNotFound(GrantId),
    #[error("grant {grant} is {is:?}")]
    GrantState { grant: GrantId, is: GrantStage },
    #[error("member {0} does not exist")]
    MemberNotFound(MemberId),
    #[error("member {0} does not take part any more")]
    ConsentWithdrawn(MemberId),
    #[error("the member does not fit: {0:?}")]
    EligibilityReasonRequired(Vec<Mismatch>),
    #[error("what is told needs an agreement not to disclose it")]
    AgreementRequired,
    #[error("the tax of category {0} is not known")]
    TaxUndetermined(String),
    #[error("{asked} were asked, {available} are in stock")]
    StockExhausted { resource: ResourceId, asked: i64, available: i64 },
    #[error("there would be too many of resource {0}")]
    StockTooLarge(ResourceId),
    #[error("unit {0} does not exist")]
    UnitNotFound(UnitId),
    #[error("another unit of the resource has this name")]
    UnitNameTaken,
    #[error("unit {unit} is booked between {start} and {end}")]
    BookingOverlaps { unit: UnitId, start: NaiveDate, end: NaiveDate },
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

    /// Why a grant stands still.
    pub fn of_grant(grant: &Grant, standstill: GrantStandstill) -> Self {
        match standstill {
            GrantStandstill::State { is } => Self::GrantState { grant: grant.id, is },
            GrantStandstill::Kind => Self::ResourceKind { resource: grant.resource, is: grant.kind },
            GrantStandstill::ApproverIsRequester => Self::ApproverIsRequester,
        }
    }
}
