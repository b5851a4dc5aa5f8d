//! The service's ids.

pub use koc_chassis::ids::{MemberId, ProgrammeId};

koc_chassis::typed_id! {
    /// A period's money.
    PlanId,
    /// A proposal to change a plan.
    AmendmentId,
    /// A part of a plan's money.
    EnvelopeId,
    /// Money held for one purpose.
    ReservationId,
    /// One movement in the ledger.
    EntryId,
    /// What caused a movement, or was refused.
    OperationId,
    /// A verification of a programme's ledger.
    VerificationId,
    /// A request on the strategic reserve.
    ReserveDrawId,
    /// A thing in the catalogue.
    ResourceId,
    /// One handing-out of a resource.
    GrantId,
    /// An estimate that is kept.
    EstimateId,
    /// One car, crew or seat.
    UnitId,
    /// A member's rise to a tier with a gift.
    PromotionId,
    /// One movement of a stock.
    MovementId,
    /// A cost without cash.
    MemoEntryId,
    /// An output that a draw pushes: measurement's id.
    OutputId,
    /// The decision that a limit comes from: measurement's id.
    DecisionId,
}
