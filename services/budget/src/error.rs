//! What can go wrong here, as facts with their data.

use crate::{
    domain::{
        amendment::{AmendmentStage, AmendmentStandstill},
        approval::NotApproved,
        balances::Imbalance,
        barred::Barred,
        cost::{CostError, rate_table::TableKind},
        grant::{Grant, GrantStandstill, Mismatch, Stage as GrantStage},
        period::Period,
        plan::{ResourceClass, Stage, Standstill},
        refusal::Refusal,
        reserve_draw::{DrawStage, DrawStandstill},
        resource_kind::ResourceKind,
        verification::course::VerificationStage,
    },
    ids::{
        AmendmentId, EntryId, EnvelopeId, EstimateId, GrantId, MemberId, OutputId, PlanId, ProgrammeId, ReservationId,
        ReserveDrawId, ResourceId, UnitId, VerificationId,
    },
};
use chrono::{DateTime, NaiveDate, Utc};
use koc_chassis::{
    fault::Violation,
    lane::{Shared, Unserved},
    members::Purpose,
    money::Currency,
};

/// An error of the budget service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// Of the group that the call was part of.
    #[error(transparent)]
    Shared(#[from] Shared<Error>),
    #[error("the ledger knows an operation that the work has not done")]
    DoneBefore,
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
    #[error("the reservation has no entry {0}")]
    EntryNotFound(EntryId),
    #[error("the ledger has {entries} entries: too many for one call")]
    LedgerTooLarge { entries: i64, most: i64 },
    #[error("verification {0} does not exist")]
    VerificationNotFound(VerificationId),
    /// None: it ended just now.
    #[error("a verification is running already")]
    VerificationRunning(Option<VerificationId>),
    #[error("verification {verification} is {is:?}")]
    VerificationState { verification: VerificationId, is: VerificationStage },
    #[error("draw {0} does not exist")]
    DrawNotFound(ReserveDrawId),
    #[error("plan {plan} is {is:?}")]
    PlanState { plan: PlanId, is: Stage, must_be: Stage },
    #[error("plan {0} was changed meanwhile")]
    EtagMismatch(PlanId),
    #[error("who asked may not decide")]
    ApproverIsRequester,
    #[error("the same person twice is one person")]
    ApproverRepeated,
    #[error("only who asked takes it back")]
    NotTheRequester,
    #[error("an approval of plan {plan} was good until {since}")]
    ApprovalExpired { plan: PlanId, since: DateTime<Utc> },
    #[error("amendment {0} does not exist")]
    AmendmentNotFound(AmendmentId),
    #[error("amendment {amendment} is {is:?}")]
    AmendmentState { amendment: AmendmentId, is: AmendmentStage },
    #[error("amendment {amendment} was made upon version {base}; its plan has {is}")]
    AmendmentConflict { amendment: AmendmentId, base: i64, is: i64 },
    #[error("envelope {0} has held reservations")]
    EnvelopeHasReservations(EnvelopeId),
    /// How many, or more than [`crate::domain::amendment::MAX_RELEASED`].
    #[error("plan {plan} has {count} open reservations")]
    OpenReservations { plan: PlanId, count: usize },
    #[error("{count} grants that plan {plan} pays for are out")]
    GrantsOut { plan: PlanId, count: i64 },
    #[error("{count} grants of resource {resource} are open")]
    GrantsOpen { resource: ResourceId, count: i64 },
    #[error("plan {plan} has no envelope that takes {class:?}")]
    CarryOverTargetMissing { plan: PlanId, class: ResourceClass },
    #[error("the reserve of plan {0} would not be within its bounds")]
    ReserveShare(PlanId),
    /// Money did not move, by a rule; the figures are in the currency.
    #[error("refused: {refusal:?}")]
    Refused { refusal: Refusal, currency: Currency },
    #[error("the member has a limit from {} to {}", .0.start(), .0.end())]
    PeriodOverlaps(Period),
    #[error("plan {0} has no strategic reserve")]
    ReserveMissing(PlanId),
    #[error("{subject} drew already; again from {until}")]
    DrawCoolingDown { subject: CoolingSubject, until: DateTime<Utc> },
    #[error("a draw of {asked} is more than the {most} that one may take of the reserve of {plan}")]
    DrawTooLarge { plan: PlanId, asked: i64, most: i64, currency: Currency },
    #[error("draw {draw} adds to {first}")]
    DrawIsTopUp { draw: ReserveDrawId, first: ReserveDrawId },
    #[error("plan {plan} has no version {version} of its reserve policy")]
    PolicyVersionNotFound { plan: PlanId, version: i64 },
    #[error("draw {draw} is {is:?}")]
    DrawState { draw: ReserveDrawId, is: DrawStage },
    #[error("advice was not waited for")]
    AdviceStopped,
    #[error("the advisor failed")]
    AdvisorFailed(#[source] tokio::task::JoinError),
    #[error("resource {0} does not exist")]
    ResourceNotFound(ResourceId),
    #[error("estimate {0} does not exist")]
    EstimateNotFound(EstimateId),
    #[error("resource {0} was changed meanwhile")]
    ResourceChanged(ResourceId),
    #[error("resource {0} is retired")]
    ResourceRetired(ResourceId),
    #[error("resource {resource} is a {is:?}")]
    ResourceKind { resource: ResourceId, is: ResourceKind },
    /// No envelope of an active plan pays for it: by `reason` as a call would be told.
    #[error("no envelope of an active plan pays for resource {resource}")]
    NoEnvelopePays { resource: ResourceId, reason: &'static str },
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
    #[error("member {0} is suspended")]
    MemberSuspended(MemberId),
    #[error("the member withdrew its consent to {}", .purpose.name())]
    ConsentWithdrawn { member: MemberId, purpose: Purpose },
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

/// Who or what a cool-down is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoolingSubject {
    Output(OutputId),
    Member(MemberId),
}

impl std::fmt::Display for CoolingSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Output(id) => write!(f, "output {id}"),
            Self::Member(id) => write!(f, "member {id}"),
        }
    }
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

impl From<NotApproved> for Error {
    fn from(why: NotApproved) -> Self {
        match why {
            NotApproved::ApproverIsRequester => Self::ApproverIsRequester,
            NotApproved::ApproverRepeated => Self::ApproverRepeated,
        }
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
            Standstill::NotApproved(why) => why.into(),
            Standstill::ApprovalExpired { since } => Self::ApprovalExpired { plan, since },
        }
    }

    /// Why an amendment stands still.
    pub fn of_amendment(amendment: AmendmentId, standstill: AmendmentStandstill) -> Self {
        match standstill {
            AmendmentStandstill::State { is } => Self::AmendmentState { amendment, is },
            AmendmentStandstill::NotApproved(why) => why.into(),
            AmendmentStandstill::NotTheRequester => Self::NotTheRequester,
        }
    }

    /// Why a draw stands still.
    pub fn of_draw(draw: ReserveDrawId, standstill: DrawStandstill) -> Self {
        match standstill {
            DrawStandstill::State { is } => Self::DrawState { draw, is },
            DrawStandstill::ApproverIsRequester => Self::ApproverIsRequester,
            DrawStandstill::ApproverRepeated => Self::ApproverRepeated,
            DrawStandstill::IsTopUp { first } => Self::DrawIsTopUp { draw, first },
        }
    }

    /// Why nothing is handed out to a member.
    pub fn of_barred(member: MemberId, barred: Barred) -> Self {
        match barred {
            Barred::Suspended => Self::MemberSuspended(member),
            Barred::Withdrew(purpose) => Self::ConsentWithdrawn { member, purpose },
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
