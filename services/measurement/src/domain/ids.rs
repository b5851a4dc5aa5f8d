//! The ids that this service gives.

koc_chassis::typed_id! {
    /// An output: one accepted deliverable.
    OutputId,
    /// A spike that was found.
    SignalId,
    /// A reinvestment decision.
    DecisionId,
}
