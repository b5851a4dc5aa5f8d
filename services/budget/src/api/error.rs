//! What a caller is told of each error.

use crate::{
    domain::{amendment::MAX_RELEASED, refusal::Refusal},
    error::{CoolingSubject, Error},
};
use koc_chassis::{
    fault::{Fault, ServiceError},
    gate,
    money::{Currency, Money},
    page,
};

impl ServiceError for Error {
    fn fault(&self) -> Fault {
        match self {
            Self::Database(error) => Fault::of_database(error),
            Self::Unserved(unserved) => unserved.fault(),
            Self::Shared(shared) => shared.0.fault(),
            Self::DoneBefore
            | Self::Imbalance(_)
            | Self::RegistryRefused(_)
            | Self::CurrencyUnknown(_)
            | Self::AdvisorFailed(_) => Fault::internal(),
            Self::AdviceStopped => Fault::deadline(),
            Self::Invalid(violations) => Fault::invalid(violations.clone()),
            Self::RequestIdReused => gate::reused(),
            Self::ProgrammeNotFound(id) => missing("PROGRAMME_NOT_FOUND", "programme", id),
            Self::PlanNotFound(id) => missing("PLAN_NOT_FOUND", "plan", id),
            Self::NoActivePlan(time) => {
                Fault::not_found("PLAN_NOT_FOUND", "no active plan holds that time").with("as_of", time.to_rfc3339())
            }
            Self::EnvelopeNotFound(id) => missing("ENVELOPE_NOT_FOUND", "envelope", id),
            Self::ReservationNotFound(id) => missing("RESERVATION_NOT_FOUND", "reservation", id),
            Self::EntryNotFound(id) => missing("ENTRY_NOT_FOUND", "ledger entry", id),
            Self::LedgerTooLarge { entries, most } => {
                let message = format!(
                    "the ledger has {entries} entries; one call verifies at most {most}: StartLedgerVerification verifies all of them"
                );
                Fault::refused("LEDGER_TOO_LARGE", message).with("entry_count", entries).with("max_entry_count", most)
            }
            Self::VerificationNotFound(id) => missing("VERIFICATION_NOT_FOUND", "verification", id),
            Self::VerificationRunning(running) => {
                let fault = Fault::refused("VERIFICATION_RUNNING", "the programme's ledger is being verified already");
                match running {
                    Some(id) => fault.with("subject", id),
                    None => fault,
                }
            }
            Self::VerificationState { verification, is } => {
                Fault::refused("VERIFICATION_STATE", format!("the verification is {}", is.as_str()))
                    .with("subject", verification)
                    .with("state", is.as_str())
            }
            Self::DrawNotFound(id) => missing("DRAW_NOT_FOUND", "reserve draw", id),
            Self::PlanState { plan, is, must_be } => {
                let message = format!("the plan is {}; it must be {}", is.as_str(), must_be.as_str());
                Fault::refused("PLAN_STATE", message).with("subject", plan).with("state", is.as_str())
            }
            Self::EtagMismatch(id) => {
                Fault::conflict("ETAG_MISMATCH", "the plan was changed meanwhile; read it again").with("subject", id)
            }
            Self::ApproverIsRequester => Fault::refused("APPROVER_IS_REQUESTER", "who asked may not decide; another person must"),
            Self::ApproverRepeated => Fault::refused("APPROVER_REPEATED", "you have approved it; another person must too"),
            Self::NotTheRequester => {
                Fault::refused("NOT_THE_REQUESTER", "only who proposed it takes it back; others may reject it")
            }
            Self::ApprovalExpired { plan, since } => {
                Fault::refused("APPROVAL_EXPIRED", "an approval has become too old; reopen the plan and have it approved again")
                    .with("subject", plan)
                    .with("since", since.to_rfc3339())
            }
            Self::AmendmentNotFound(id) => missing("AMENDMENT_NOT_FOUND", "amendment", id),
            Self::AmendmentState { amendment, is } => {
                Fault::refused("AMENDMENT_STATE", format!("the amendment is {}", is.as_str()))
                    .with("subject", amendment)
                    .with("state", is.as_str())
            }
            Self::AmendmentConflict { amendment, base, is } => {
                Fault::refused("AMENDMENT_CONFLICT", "the plan was changed since it was proposed; propose it anew")
                    .with("subject", amendment)
                    .with("base_etag", page::etag(*base))
                    .with("plan_etag", page::etag(*is))
            }
            Self::EnvelopeHasReservations(id) => {
                let message = "the envelope has held reservations: it cannot be split any more";
                Fault::refused("ENVELOPE_HAS_RESERVATIONS", message).with("subject", id)
            }
            Self::OpenReservations { plan, count } => {
                let message = match *count > MAX_RELEASED {
                    true => format!("more than {MAX_RELEASED} reservations hold something; release some first"),
                    false => format!("{count} reservations hold something"),
                };
                Fault::refused("OPEN_RESERVATIONS", message).with("subject", plan).with("count", count)
            }
            Self::GrantsOut { plan, count } => {
                let message = format!("{count} grants that it pays for are out or not settled");
                Fault::refused("GRANTS_OUT", message).with("subject", plan).with("count", count)
            }
            Self::GrantsOpen { resource, count } => {
                let message = format!("{count} grants of it are not at their end");
                Fault::refused("GRANTS_OPEN", message).with("subject", resource).with("count", count)
            }
            Self::CarryOverTargetMissing { plan, class } => {
                let message =
                    format!("the plan to carry over into has no envelope that takes what is left of {}", class.as_str());
                Fault::refused("CARRY_OVER_TARGET_MISSING", message).with("subject", plan).with("resource_class", class.as_str())
            }
            Self::ReserveShare(plan) => {
                let message = "the reserve's share in the plan to carry over into would not lie within its policy's bounds";
                Fault::refused("RESERVE_SHARE_OUT_OF_BOUNDS", message).with("subject", plan)
            }
            Self::Refused { refusal, currency } => refused(refusal, *currency),
            Self::PeriodOverlaps(period) => {
                let message = "the member has a limit for another period that overlaps this one";
                Fault::refused("PERIOD_OVERLAPS", message)
                    .with("period_start_time", period.start().to_rfc3339())
                    .with("period_end_time", period.end().to_rfc3339())
            }
            Self::ReserveMissing(id) => {
                Fault::refused("RESERVE_MISSING", "the plan has no strategic reserve").with("subject", id)
            }
            Self::DrawCoolingDown { subject, until } => {
                let (kind, id) = match subject {
                    CoolingSubject::Output(id) => ("output", id.to_string()),
                    CoolingSubject::Member(id) => ("member", id.to_string()),
                };
                let message = format!("the {kind} drew already; it may again from {}", until.to_rfc3339());
                Fault::refused("DRAW_COOLING_DOWN", message)
                    .with("subject", id)
                    .with("subject_type", kind)
                    .with("until", until.to_rfc3339())
            }
            Self::DrawTooLarge { plan, asked, most, currency } => {
                let text = |minor: i64| Money::new(minor, *currency).to_string();
                let message = format!("{} was asked; one draw may take {} of the reserve", text(*asked), text(*most));
                let fault = Fault::refused("DRAW_TOO_LARGE", message).with("limit_type", "RESERVE_SHARE").with("limit_id", plan);
                figures(fault, Some(*asked), *most, *currency)
            }
            Self::DrawIsTopUp { draw, first } => {
                Fault::refused("DRAW_IS_TOP_UP", "the draw adds to another, which is the one to name")
                    .with("subject", draw)
                    .with("first_draw", first)
            }
            Self::PolicyVersionNotFound { plan, version } => {
                Fault::not_found("POLICY_VERSION_NOT_FOUND", format!("the reserve policy has no version {version}"))
                    .with("resource_type", "reserve policy")
                    .with("resource_id", format!("{plan}/{version}"))
            }
            Self::DrawState { draw, is } => Fault::refused("DRAW_STATE", format!("the draw is {}", is.as_str()))
                .with("subject", draw)
                .with("state", is.as_str()),
            Self::ResourceNotFound(id) => missing("RESOURCE_NOT_FOUND", "resource", id),
            Self::EstimateNotFound(id) => missing("ESTIMATE_NOT_FOUND", "estimate", id),
            Self::ResourceChanged(id) => {
                Fault::conflict("ETAG_MISMATCH", "the resource was changed meanwhile; read it again").with("subject", id)
            }
            Self::ResourceRetired(id) => Fault::refused("RESOURCE_RETIRED", "the resource is out of use").with("subject", id),
            Self::ResourceKind { resource, is } => {
                Fault::refused("RESOURCE_KIND", format!("the resource is of the kind {}", is.as_str()))
                    .with("subject", resource)
                    .with("kind", is.as_str())
            }
            Self::ResourceNameTaken => Fault::exists("RESOURCE_NAME_TAKEN", "another resource of the programme has this name"),
            Self::RateTableNotFound(id) => missing("RATE_TABLE_NOT_FOUND", "rate table", id),
            Self::RateTableKind { table, is, must_be } => {
                let message = format!("the rate table is of the kind {}; it must be {}", is.as_str(), must_be.as_str());
                Fault::refused("RATE_TABLE_KIND", message).with("subject", table).with("kind", is.as_str())
            }
            Self::RateMissing { table, key, date } => {
                Fault::refused("RATE_MISSING", "no version of the rate table that counts on the day has a rate for the key")
                    .with("subject", table)
                    .with("key", key)
                    .with("date", date)
            }
            Self::GrantNotFound(id) => missing("GRANT_NOT_FOUND", "grant", id),
            Self::GrantState { grant, is } => Fault::refused("GRANT_STATE", format!("the grant is {}", is.as_str()))
                .with("subject", grant)
                .with("state", is.as_str()),
            Self::MemberNotFound(id) => missing("MEMBER_NOT_FOUND", "member", id),
            Self::NoEnvelopePays { resource, reason } => Fault::refused(reason, self.to_string()).with("subject", resource),
            Self::MemberSuspended(id) => suspended(*id),
            Self::ConsentWithdrawn { member, purpose } => Fault::refused("CONSENT_WITHDRAWN", self.to_string())
                .with("subject", member)
                .with("consent_purpose", purpose.name()),
            Self::EligibilityReasonRequired(mismatches) => {
                let names: Vec<&str> = mismatches.iter().map(|mismatch| mismatch.as_str()).collect();
                Fault::refused(
                    "ELIGIBILITY_REASON_REQUIRED",
                    "the member does not fit the resource; say why it is granted all the same",
                )
                .with("mismatches", names.join(","))
            }
            Self::AgreementRequired => {
                Fault::refused("NDA_REQUIRED", "an information privilege needs an agreement not to disclose: name it")
            }
            Self::TaxUndetermined(category) => {
                Fault::refused("TAX_UNDETERMINED", "no rule covers the day and the category, so nothing can be paid")
                    .with("category", category)
            }
            Self::StockExhausted { resource, asked, available } => {
                Fault::refused("STOCK_EXHAUSTED", format!("{asked} were asked; {available} are in stock"))
                    .with("subject", resource)
                    .with("asked", asked)
                    .with("available", available)
            }
            Self::StockTooLarge(id) => Fault::refused("STOCK_TOO_LARGE", "there would be too many in stock").with("subject", id),
            Self::UnitNotFound(id) => missing("UNIT_NOT_FOUND", "unit", id),
            Self::UnitNameTaken => Fault::exists("UNIT_NAME_TAKEN", "another unit of the resource has this name"),
            Self::BookingOverlaps { unit, start, end } => {
                Fault::refused("BOOKING_OVERLAPS", "the unit is booked on one of these days")
                    .with("subject", unit)
                    .with("start_date", start)
                    .with("end_date", end)
            }
            Self::RegistryUnavailable(_) => Fault::unavailable("REGISTRY_UNAVAILABLE", "the registry cannot be asked now"),
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

fn missing(reason: &str, kind: &str, id: &impl ToString) -> Fault {
    Fault::not_found(reason, format!("the {kind} does not exist")).with("resource_type", kind).with("resource_id", id.to_string())
}

fn suspended(member: crate::ids::MemberId) -> Fault {
    Fault::refused("MEMBER_SUSPENDED", "the member is suspended").with("subject", member)
}

/// The figures of a refusal for money.
fn figures(fault: Fault, asked: Option<i64>, available: i64, currency: Currency) -> Fault {
    let fault = fault
        .with("available", decimal(available, currency))
        .with("available_minor", available)
        .with("currency", currency.code());
    match asked {
        Some(asked) => fault.with("asked", decimal(asked, currency)).with("asked_minor", asked),
        None => fault,
    }
}

fn refused(refusal: &Refusal, currency: Currency) -> Fault {
    let figures = |fault: Fault, asked: Option<i64>, available: i64| figures(fault, asked, available, currency);
    let text = |minor: i64| Money::new(minor, currency).to_string();
    match refusal {
        Refusal::EnvelopeExhausted { envelope, asked, available, overrun_left } => {
            let mut message = format!("{} was asked; the envelope has {} available", text(*asked), text(*available));
            if *overrun_left > 0 {
                message.push_str(&format!(" and may overrun by {} more", text(*overrun_left)));
            }
            let fault = Fault::refused("ENVELOPE_EXHAUSTED", message)
                .with("limit_type", "ENVELOPE")
                .with("limit_id", envelope)
                .with("overrun_left", decimal(*overrun_left, currency))
                .with("overrun_left_minor", overrun_left);
            figures(fault, Some(*asked), *available)
        }
        Refusal::MemberLimitExhausted { member, period_start_time, asked, available } => {
            let message = format!("{} was asked; the member's limit leaves {}", text(*asked), text(*available));
            let id = format!("{member}/{}", period_start_time.to_rfc3339());
            let fault = Fault::refused("MEMBER_LIMIT_EXHAUSTED", message).with("limit_type", "MEMBER_LIMIT").with("limit_id", id);
            figures(fault, Some(*asked), *available)
        }
        Refusal::ReservationExhausted { reservation, asked, available } => {
            let message = match asked {
                Some(asked) => format!("{} was asked; the reservation has {}", text(*asked), text(*available)),
                None => "all was asked; the reservation has nothing".to_owned(),
            };
            let fault =
                Fault::refused("RESERVATION_EXHAUSTED", message).with("limit_type", "RESERVATION").with("limit_id", reservation);
            figures(fault, *asked, *available)
        }
        Refusal::EntryNotReversible { entry, kind } => {
            Fault::refused("ENTRY_NOT_REVERSIBLE", format!("the entry records {kind}; only COMMIT and SPEND can be reversed"))
                .with("subject", entry)
                .with("kind", kind)
        }
        Refusal::EntryReversed { entry } => {
            Fault::refused("ENTRY_REVERSED", "the entry was reversed before").with("subject", entry)
        }
        Refusal::ReserveNeedsDraw { envelope } => {
            Fault::refused("RESERVE_NEEDS_DRAW", "the strategic reserve is drawn on with RequestReserveDraw alone")
                .with("subject", envelope)
        }
        Refusal::EnvelopeHasChildren { envelope } => {
            Fault::refused("ENVELOPE_HAS_CHILDREN", "only envelopes without children hold reservations").with("subject", envelope)
        }
        Refusal::GrantOwnsReservation { reservation, grant, by } => {
            Fault::refused("GRANT_OWNS_RESERVATION", format!("the money is held for {grant} and moves with it: by {by}"))
                .with("subject", reservation)
                .with("owner", grant)
                .with("methods", by)
        }
        Refusal::MemberSuspended { member } => suspended(*member),
        Refusal::PlanState { plan, state } => Fault::refused("PLAN_STATE", format!("the plan is {state}; it must be ACTIVE"))
            .with("subject", plan)
            .with("state", state),
    }
}

/// An amount as decimal text without its currency, e.g. `1234.50`.
fn decimal(minor: i64, currency: Currency) -> String {
    let text = Money::new(minor, currency).to_string();
    text.split_once(' ').map_or(text.clone(), |(_, amount)| amount.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::EnvelopeId;

    #[test]
    fn a_refusal_for_money_names_the_limit_and_its_figures() {
        let envelope = EnvelopeId::new();
        let currency = Currency::from_code("CNY").expect("CNY is a currency");
        let refusal = Refusal::EnvelopeExhausted { envelope, asked: 123_450, available: 5, overrun_left: 70 };
        let fault = Error::Refused { refusal, currency }.fault();
        let figure = |name: &str| fault.metadata.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
        assert_eq!((figure("asked"), figure("available")), ("1234.50".to_owned(), "0.05".to_owned()));
        assert_eq!((figure("overrun_left"), figure("overrun_left_minor")), ("0.70".to_owned(), "70".to_owned()));
        assert_eq!((figure("asked_minor"), figure("currency")), ("123450".to_owned(), "CNY".to_owned()));
        assert_eq!((figure("limit_type"), figure("limit_id")), ("ENVELOPE".to_owned(), envelope.to_string()));
        assert!(fault.stored);
    }
}
