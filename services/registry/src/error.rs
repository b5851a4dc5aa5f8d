//! What can go wrong in the registry. `api/error.rs` says how a caller sees it.

use crate::domain::{
    badge::AwardId,
    consent::Purpose,
    erasure::ErasureId,
    export::ExportId,
    leaderboard::Month,
    member_import, merge,
    points::{self, EntryId},
    sync_run,
    tier::{dry_run, policy},
    webhook::WebhookId,
};
use koc_chassis::{
    fault::{Fault, Violation},
    ids::{MemberId, ProgrammeId},
    lane::{Shared, Unserved},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the programme {programme} exists already")]
    ProgrammeExists { programme: ProgrammeId },
    #[error("there is no programme {programme}")]
    ProgrammeNotFound { programme: ProgrammeId },
    /// `member` is None when it was looked for by an external identity.
    #[error("there is no such member")]
    MemberNotFound { member: Option<MemberId> },
    /// Position of the identity in the request, and whose it is.
    #[error("external identity {index} of the request belongs to the member {holder}")]
    ExternalIdentityTaken { index: usize, source_system: String, holder: MemberId },
    #[error("the member {member} was changed meanwhile: it is at version {version}")]
    EtagMismatch { member: MemberId, version: i64 },
    #[error("the owner of {field} was changed meanwhile: it is at version {version}")]
    FieldOwnerEtagMismatch { field: &'static str, version: i64 },
    #[error(transparent)]
    MergeRefused(#[from] merge::Refusal),
    #[error(transparent)]
    ImportRefused(#[from] member_import::Refusal),
    #[error(transparent)]
    SyncRefused(#[from] sync_run::Refusal),
    #[error("the member {member} is suspended")]
    MemberSuspended { member: MemberId },
    #[error("the member {member} is not suspended")]
    MemberNotSuspended { member: MemberId },
    #[error("the member {member} was erased")]
    MemberErased { member: MemberId, erasure: Option<ErasureId> },
    /// The path of what tells so in the request.
    #[error("the person was erased: {field} is suppressed")]
    MemberSuppressed { field: String },
    /// None when there is no key at all.
    #[error("the service lacks the key that erased persons are known by")]
    SuppressionKeyMissing { key_id: Option<String> },
    #[error("nothing is suppressed by what was given")]
    SuppressionNotFound,
    #[error("there is no such erasure")]
    ErasureNotFound { erasure: ErasureId },
    #[error("there is no such export, or none any more")]
    ExportNotFound { export: ExportId },
    #[error("there is no part {part} of a whole document of {holder}")]
    ExportPartNotFound { holder: String, part: i32 },
    #[error("nobody waits for {holder} to give a document")]
    HolderUnknown { holder: String },
    #[error("a part before the last, {last}, of the document of {holder} is missing")]
    ExportPartMissing { holder: String, last: i32 },
    #[error("nobody waits for {consumer} to follow this erasure")]
    ConsumerUnknown { consumer: String },
    #[error("the member {member} withdrew consent to {}", purpose.name())]
    ConsentWithdrawn { member: MemberId, purpose: Purpose },
    #[error("the programme has no tier {tier_id}")]
    TierNotFound { tier_id: String },
    #[error("nobody holds the member {member} in its tier")]
    TierNotHeld { member: MemberId },
    #[error("no tier policy was in force then")]
    TierPolicyNotFound,
    #[error(transparent)]
    DraftRefused(#[from] policy::Refusal),
    #[error(transparent)]
    DryRunRefused(#[from] dry_run::Refusal),
    #[error("there is no such entry of points")]
    EntryNotFound { entry: EntryId },
    #[error(transparent)]
    PointsRefused(#[from] points::Refusal),
    #[error("the boards of months before {} are not kept", first_kept.name())]
    MonthNotKept { first_kept: Month },
    #[error("the member {member} is not ranked on this board")]
    NotRanked { member: MemberId },
    #[error("the badge {badge_id} exists already")]
    BadgeExists { badge_id: String },
    #[error("the programme has {limit} badges, and no more are kept")]
    BadgeLimit { limit: usize },
    #[error("there is no badge {badge_id}")]
    BadgeNotFound { badge_id: String },
    #[error("the badge {badge_id} was changed meanwhile: it is at version {version}")]
    BadgeEtagMismatch { badge_id: String, version: i32 },
    #[error("the badge {badge_id} is no longer given")]
    BadgeRetired { badge_id: String },
    #[error("the member {member} holds the badge {badge_id} already")]
    BadgeHeld { member: MemberId, badge_id: String },
    #[error("there is no such award")]
    AwardNotFound { award: AwardId },
    #[error("the award was revoked before")]
    AwardRevoked { award: AwardId },
    #[error("what comes after this position is not kept any more: begin again with a snapshot")]
    PositionDropped,
    #[error("the feed was begun anew or restored since this position was given: begin again with a snapshot")]
    EpochChanged,
    #[error("the feed: {}", .0.message)]
    Feed(Fault),
    #[error("there is no webhook {webhook}")]
    WebhookNotFound { webhook: WebhookId },
    #[error(
        "what the webhook {webhook} was to get next is not kept any more: replay it from a position, or from the oldest that is kept"
    )]
    WebhookPositionDropped { webhook: WebhookId },
    #[error("the programme has {limit} webhooks, and no more are kept")]
    WebhookLimit { limit: usize },
    #[error("the webhook {webhook} was changed meanwhile: it is at version {version}")]
    WebhookEtagMismatch { webhook: WebhookId, version: i64 },
    #[error("whole columns are sent for those alone who may see them: the scope registry.pii is missing")]
    WebhookPersonal,
    #[error("the service was given no key for the secrets of webhooks")]
    WebhooksOff,
    #[error("there is no delivery of the event {position} to the webhook {webhook}")]
    DeliveryNotFound { webhook: WebhookId, position: i64 },
    #[error("{} fields break a rule", .0.len())]
    Invalid(Vec<Violation>),
    #[error("the service is going away")]
    Draining,
    #[error(transparent)]
    Unserved(#[from] Unserved),
    /// Of the group that the call was part of.
    #[error(transparent)]
    Shared(#[from] Shared<Error>),
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
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

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        match fault.reason.as_str() {
            "POSITION_DROPPED" => Self::PositionDropped,
            // A position that this feed gave cannot be ahead of it.
            "POSITION_AHEAD" => Self::EpochChanged,
            _ => Self::Feed(fault),
        }
    }
}
