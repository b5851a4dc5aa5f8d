//! What the service is about, and its rules: pure, with time as an argument.

pub mod assignment;
pub mod brief;
pub mod submission;
pub mod task;

koc_chassis::typed_id! {
    /// A brief (规格说明).
    BriefId,
    /// A brief put to work.
    TaskId,
    /// One member's part in a task.
    AssignmentId,
    /// Work handed in.
    SubmissionId,
    /// An envelope of the budget service.
    EnvelopeId,
    /// A hold on money in the budget service.
    ReservationId,
}
