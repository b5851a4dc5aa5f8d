//! How callers see the registry's errors.

use crate::{
    domain::{member_import, merge, points::Refusal, sync_run, tier},
    error::Error,
};
use koc_chassis::{
    fault::{Fault, ServiceError},
    page,
};

impl ServiceError for Error {
    fn fault(&self) -> Fault {
        let text = self.to_string();
        match self {
            Self::ProgrammeExists { programme } => {
                Fault::exists("PROGRAMME_EXISTS", text).with("resource_type", "programme").with("resource_id", programme)
            }
            Self::ProgrammeNotFound { programme } => {
                Fault::not_found("PROGRAMME_NOT_FOUND", text).with("resource_type", "programme").with("resource_id", programme)
            }
            Self::MemberNotFound { member: Some(member) } => {
                Fault::not_found("MEMBER_NOT_FOUND", text).with("resource_type", "member").with("resource_id", member)
            }
            Self::MemberNotFound { member: None } => Fault::not_found("MEMBER_NOT_FOUND", text),
            Self::ExternalIdentityTaken { index, source_system, holder } => Fault::exists("EXTERNAL_IDENTITY_TAKEN", text)
                .with("resource_type", "member")
                .with("resource_id", holder)
                .with("source_system", source_system)
                .with("field", format!("external_identities[{index}]")),
            Self::EtagMismatch { member, version } => {
                Fault::conflict("ETAG_MISMATCH", text).with("member_id", member).with("etag", page::etag(*version))
            }
            Self::FieldOwnerEtagMismatch { field, version } => {
                Fault::conflict("ETAG_MISMATCH", text).with("field", field).with("etag", page::etag(*version))
            }
            Self::MergeRefused(refusal) => not_merged(refusal, text),
            Self::ImportRefused(refusal) => not_imported(refusal, text),
            Self::SyncRefused(refusal) => not_synced(refusal, text),
            Self::MemberSuspended { member } => Fault::refused("MEMBER_SUSPENDED", text).with("subject", member),
            Self::MemberNotSuspended { member } => Fault::refused("MEMBER_NOT_SUSPENDED", text).with("subject", member),
            Self::MemberErased { member, erasure } => {
                let fault = Fault::refused("MEMBER_ERASED", text).with("subject", member);
                erasure.iter().fold(fault, |fault, erasure| fault.with("erasure_id", erasure))
            }
            Self::MemberSuppressed { field } => Fault::refused("MEMBER_SUPPRESSED", text).with("field", field),
            // Not stored: the operator may give the key and the caller try again.
            Self::SuppressionKeyMissing { key_id } => {
                let fault = Fault { stored: false, ..Fault::refused("SUPPRESSION_KEY_MISSING", text) };
                key_id.iter().fold(fault, |fault, key_id| fault.with("key_id", key_id))
            }
            Self::SuppressionNotFound => Fault::not_found("SUPPRESSION_NOT_FOUND", text),
            Self::ErasureNotFound { erasure } => {
                Fault::not_found("ERASURE_NOT_FOUND", text).with("resource_type", "erasure").with("resource_id", erasure)
            }
            Self::ExportNotFound { export } => {
                Fault::not_found("EXPORT_NOT_FOUND", text).with("resource_type", "export").with("resource_id", export)
            }
            Self::ExportPartNotFound { holder, part } => {
                Fault::not_found("EXPORT_PART_NOT_FOUND", text).with("holder", holder).with("part", part)
            }
            Self::HolderUnknown { holder } => {
                Fault::not_found("HOLDER_UNKNOWN", text).with("resource_type", "holder").with("resource_id", holder)
            }
            Self::ExportPartMissing { holder, last } => {
                Fault::refused("EXPORT_PART_MISSING", text).with("subject", holder).with("last", last)
            }
            Self::ConsumerUnknown { consumer } => {
                Fault::not_found("CONSUMER_UNKNOWN", text).with("resource_type", "consumer").with("resource_id", consumer)
            }
            Self::ConsentWithdrawn { member, purpose } => {
                Fault::refused("CONSENT_WITHDRAWN", text).with("subject", member).with("purpose", purpose.name())
            }
            Self::TierNotFound { tier_id } => {
                Fault::not_found("TIER_NOT_FOUND", text).with("resource_type", "tier").with("resource_id", tier_id)
            }
            Self::TierNotHeld { member } => Fault::refused("TIER_NOT_HELD", text).with("subject", member),
            Self::TierPolicyNotFound => Fault::not_found("TIER_POLICY_NOT_FOUND", text),
            Self::DraftRefused(refusal) => not_changed(refusal, text),
            Self::DryRunRefused(tier::dry_run::Refusal::NotFound { run }) => {
                Fault::not_found("TIER_DRY_RUN_NOT_FOUND", text).with("resource_type", "tier dry run").with("resource_id", run)
            }
            // Others end by themselves: the same request is good then.
            Self::DryRunRefused(tier::dry_run::Refusal::TooMany) => {
                Fault { stored: false, ..Fault::refused("TIER_DRY_RUN_LIMIT", text) }
            }
            Self::EntryNotFound { entry } => {
                Fault::not_found("ENTRY_NOT_FOUND", text).with("resource_type", "points entry").with("resource_id", entry)
            }
            Self::PointsRefused(refusal) => refused(refusal, text),
            Self::MonthNotKept { first_kept } => {
                Fault::refused("MONTH_NOT_KEPT", text).with("first_kept_month", first_kept.name())
            }
            Self::NotRanked { member } => Fault::refused("NOT_RANKED", text).with("subject", member),
            Self::BadgeExists { badge_id } => {
                Fault::exists("BADGE_EXISTS", text).with("resource_type", "badge").with("resource_id", badge_id)
            }
            Self::BadgeLimit { limit } => Fault::refused("BADGE_LIMIT", text).with("limit", limit),
            Self::BadgeNotFound { badge_id } => {
                Fault::not_found("BADGE_NOT_FOUND", text).with("resource_type", "badge").with("resource_id", badge_id)
            }
            Self::BadgeEtagMismatch { badge_id, version } => {
                Fault::conflict("ETAG_MISMATCH", text).with("badge_id", badge_id).with("etag", page::etag(i64::from(*version)))
            }
            Self::BadgeRetired { badge_id } => Fault::refused("BADGE_RETIRED", text).with("subject", badge_id),
            Self::BadgeHeld { member, badge_id } => {
                Fault::exists("BADGE_HELD", text).with("member_id", member).with("badge_id", badge_id)
            }
            Self::AwardNotFound { award } => {
                Fault::not_found("AWARD_NOT_FOUND", text).with("resource_type", "badge award").with("resource_id", award)
            }
            Self::AwardRevoked { award } => Fault::refused("AWARD_REVOKED", text).with("subject", award),
            Self::PositionDropped => Fault::refused("POSITION_DROPPED", text),
            Self::EpochChanged => Fault::refused("EPOCH_CHANGED", text),
            Self::Feed(fault) => fault.clone(),
            Self::WebhookNotFound { webhook } => {
                Fault::not_found("WEBHOOK_NOT_FOUND", text).with("resource_type", "webhook").with("resource_id", webhook)
            }
            Self::WebhookPositionDropped { webhook } => Fault::refused("POSITION_DROPPED", text).with("webhook_id", webhook),
            Self::WebhookLimit { limit } => Fault::refused("WEBHOOK_LIMIT", text).with("limit", limit),
            Self::WebhookEtagMismatch { webhook, version } => {
                Fault::conflict("ETAG_MISMATCH", text).with("webhook_id", webhook).with("etag", page::etag(*version))
            }
            Self::WebhookPersonal => Fault::denied("WEBHOOK_PERSONAL", text).with("scope", super::PERSONAL_SCOPE),
            // Whoever runs the service may give it one: the same request is good then.
            Self::WebhooksOff => Fault { stored: false, ..Fault::refused("WEBHOOKS_OFF", text) },
            Self::DeliveryNotFound { webhook, position } => {
                Fault::not_found("DELIVERY_NOT_FOUND", text).with("webhook_id", webhook).with("sequence", position)
            }
            Self::Invalid(violations) => Fault::invalid(violations.clone()),
            Self::Draining => Fault::unavailable("DRAINING", text),
            Self::Unserved(unserved) => unserved.fault(),
            Self::Shared(shared) => shared.0.fault(),
            Self::Database(error) => Fault::of_database(error),
        }
    }

    fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            Self::Shared(shared) => shared.0.database(),
            _ => None,
        }
    }
}

fn refused(refusal: &Refusal, text: String) -> Fault {
    match refusal {
        Refusal::Insufficient { member, asked, balance } => {
            Fault::refused("INSUFFICIENT_POINTS", text).with("subject", member).with("asked", asked).with("balance", balance)
        }
        Refusal::SourceUsed { entry, amount } => Fault::exists("SOURCE_USED", text)
            .with("resource_type", "points entry")
            .with("resource_id", entry)
            .with("amount", amount),
        Refusal::NotReversible { entry, kind } => {
            Fault::refused("ENTRY_NOT_REVERSIBLE", text).with("subject", entry).with("kind", kind.name())
        }
        Refusal::ExceedsEntry { entry, asked, amount } => {
            Fault::refused("REVERSAL_EXCEEDS_ENTRY", text).with("subject", entry).with("asked", asked).with("amount", amount)
        }
        Refusal::Reversed { reversal, amount } => {
            Fault::refused("ENTRY_REVERSED", text).with("subject", reversal).with("amount", amount)
        }
    }
}

fn not_changed(refusal: &tier::policy::Refusal, text: String) -> Fault {
    use tier::policy::Refusal;
    match refusal {
        Refusal::NotFound { draft } => Fault::not_found("TIER_POLICY_DRAFT_NOT_FOUND", text)
            .with("resource_type", "tier policy draft")
            .with("resource_id", draft),
        Refusal::Closed { draft } => Fault::refused("TIER_POLICY_DRAFT_CLOSED", text).with("subject", draft),
        Refusal::Changed { draft, revision } => {
            Fault::conflict("ETAG_MISMATCH", text).with("draft_id", draft).with("etag", page::etag(*revision))
        }
        Refusal::ApproverIsRequester => Fault::refused("APPROVER_IS_REQUESTER", text),
        Refusal::TooMany => Fault::refused("TIER_POLICY_DRAFT_LIMIT", text),
    }
}

fn not_merged(refusal: &merge::Refusal, text: String) -> Fault {
    use merge::Refusal;
    match refusal {
        Refusal::Merged { member, into } => {
            Fault::refused("MEMBER_MERGED", text).with("subject", member).with("winner_member_id", into)
        }
        Refusal::Suspended { member } => Fault::refused("MEMBER_SUSPENDED", text).with("subject", member),
        Refusal::Erased { member } => Fault::refused("MEMBER_ERASED", text).with("subject", member),
        Refusal::TooMany { winner, count } => Fault::refused("MERGE_LIMIT", text).with("subject", winner).with("count", count),
        Refusal::NotMerged { member } => Fault::refused("MEMBER_NOT_MERGED", text).with("subject", member),
        Refusal::NotLast { member, first } => {
            Fault::refused("MERGE_NOT_LAST", text).with("subject", member).with("unmerge_first_member_id", first)
        }
    }
}

fn not_synced(refusal: &sync_run::Refusal, text: String) -> Fault {
    use sync_run::Refusal;
    match refusal {
        Refusal::NotFound { run } => {
            Fault::not_found("RUN_NOT_FOUND", text).with("resource_type", "sync run").with("resource_id", run)
        }
        Refusal::Differs { run, setting } => Fault::refused("RUN_DIFFERS", text).with("subject", run).with("setting", setting),
        Refusal::Closed { run, state } => Fault::refused("RUN_CLOSED", text).with("subject", run).with("state", state.name()),
        Refusal::Gap { run, got, next } => {
            Fault::refused("BATCH_GAP", text).with("subject", run).with("batch_number", got).with("next_batch_number", next)
        }
        Refusal::BatchDiffers { run, batch } => {
            Fault::refused("BATCH_DIFFERS", text).with("subject", run).with("batch_number", batch)
        }
        Refusal::BatchForgotten { run, batch } => {
            Fault::refused("BATCH_FORGOTTEN", text).with("subject", run).with("batch_number", batch)
        }
        // Until the import is over: the same is good then.
        Refusal::OfImport { run, import } => {
            Fault { stored: false, ..Fault::refused("RUN_OF_IMPORT", text) }.with("subject", run).with("import_id", import)
        }
        Refusal::NotHeld { run, state } => Fault::refused("RUN_NOT_HELD", text).with("subject", run).with("state", state.name()),
        Refusal::ApproverIsRequester => Fault::refused("APPROVER_IS_REQUESTER", text),
    }
}

fn not_imported(refusal: &member_import::Refusal, text: String) -> Fault {
    use member_import::Refusal;
    match refusal {
        Refusal::NotFound { import } => {
            Fault::not_found("IMPORT_NOT_FOUND", text).with("resource_type", "member import").with("resource_id", import)
        }
        Refusal::Exists { import } => {
            Fault::exists("IMPORT_EXISTS", text).with("resource_type", "member import").with("resource_id", import)
        }
        Refusal::RunBegun { run } => Fault::refused("RUN_BEGUN", text).with("subject", run),
        Refusal::State { import, state } => {
            Fault::refused("IMPORT_STATE", text).with("subject", import).with("state", state.name())
        }
        Refusal::ChunkGap { import, got, next } => {
            Fault::refused("CHUNK_GAP", text).with("subject", import).with("offset", got).with("next_offset", next)
        }
        Refusal::ChunkDiffers { import, offset } => {
            Fault::refused("CHUNK_DIFFERS", text).with("subject", import).with("offset", offset)
        }
        Refusal::TooLarge { import } => Fault::refused("IMPORT_TOO_LARGE", text).with("subject", import),
        // More may come: the same request may succeed later.
        Refusal::Incomplete { import, received, total } => Fault { stored: false, ..Fault::refused("IMPORT_INCOMPLETE", text) }
            .with("subject", import)
            .with("received_bytes", received)
            .with("total_bytes", total),
    }
}
