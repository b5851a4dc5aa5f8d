//! Grants (资源授予): who may get what, and how it is fulfilled.

use super::{
    cost::{
        estimate::{Estimate, TaxStatus},
        usage::{Incident, Usage},
    },
    plan::ResourceClass,
    resource_kind::ResourceKind,
};
use crate::ids::{EnvelopeId, EstimateId, GrantId, MemberId, ProgrammeId, ReservationId, ResourceId, UnitId};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use koc_chassis::{
    fault::{Violation, Violations},
    members,
};
use rust_decimal::Decimal;

/// How the purpose of a grant's reservation begins.
pub const PURPOSE: &str = "grant/";
/// How long money is held for a grant that is not fulfilled, beyond the days that its unit is booked for.
pub const TIME_TO_LIVE: TimeDelta = TimeDelta::days(180);

text_enum! {
    /// Where a grant stands.
    Stage {
        PendingApproval = "PENDING_APPROVAL",
        Rejected = "REJECTED",
        Cancelled = "CANCELLED",
        Issued = "ISSUED",
        Shipped = "SHIPPED",
        Delivered = "DELIVERED",
        Booked = "BOOKED",
        HandedOver = "HANDED_OVER",
        Returned = "RETURNED",
        Settled = "SETTLED",
        Fulfilled = "FULFILLED",
    }
}

impl Stage {
    /// Whether something of it may still come or go.
    pub fn is_open(self) -> bool {
        match self {
            Self::PendingApproval | Self::Issued | Self::Shipped | Self::Booked | Self::HandedOver | Self::Returned => true,
            Self::Rejected | Self::Cancelled | Self::Delivered | Self::Settled | Self::Fulfilled => false,
        }
    }
}

text_enum! {
    /// In what a member does not fit a resource.
    Mismatch {
        TierClass = "TIER_CLASS",
        ValueType = "VALUE_TYPE",
    }
}

text_enum! {
    /// What a member is good at producing.
    ValueType {
        Social = "SOCIAL",
        Content = "CONTENT",
        Insight = "INSIGHT",
    }
}

/// What the registry knows of a member that matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The class of the member's tier.
    pub class: ResourceClass,
    /// The labels that it carries.
    pub value_types: Vec<ValueType>,
    /// Whether trust is above NEW.
    pub trusted: bool,
    /// Whom the id leads to, when it is that of a member that was merged.
    pub member: MemberId,
    /// Whether it takes part, and what it withdrew.
    pub standing: members::Standing,
}

impl Standing {
    /// In what the member does not fit. The strategic reserve is given by decision and not by tier.
    pub fn mismatches(&self, kind: ResourceKind, class: ResourceClass) -> Vec<Mismatch> {
        let mut found = Vec::new();
        if class != ResourceClass::StrategicReserve && self.class < class {
            found.push(Mismatch::TierClass);
        }
        let for_types = value_types(kind);
        if !for_types.is_empty() && !for_types.iter().any(|value| self.value_types.contains(value)) {
            found.push(Mismatch::ValueType);
        }
        found
    }
}

/// The value types that a kind is for; none for all.
fn value_types(kind: ResourceKind) -> &'static [ValueType] {
    match kind {
        ResourceKind::RegionalEvent => &[ValueType::Social],
        ResourceKind::ProductionCrew => &[ValueType::Content],
        ResourceKind::EarlyAccess => &[ValueType::Content, ValueType::Insight],
        ResourceKind::InformationPrivilege => &[ValueType::Insight],
        _ => &[],
    }
}

/// What is done with a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Approve,
    Reject,
    Cancel,
    Ship,
    ConfirmDelivery,
    HandOver,
    Return,
    Settle,
    Fulfil,
}

/// Why a grant does not move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GrantStandstill {
    State {
        is: Stage,
    },
    /// The step is for other kinds.
    Kind,
    ApproverIsRequester,
}

/// One handing-out of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub id: GrantId,
    pub programme: ProgrammeId,
    pub member: MemberId,
    pub resource: ResourceId,
    pub kind: ResourceKind,
    pub stage: Stage,
    pub usage: Usage,
    /// The day of a booked seat.
    pub session_date: Option<NaiveDate>,
    /// None for what costs nothing to issue.
    pub estimate: Option<EstimateId>,
    pub restated: Option<EstimateId>,
    pub envelope: Option<EnvelopeId>,
    pub reservation: Option<ReservationId>,
    /// What it cost above the estimate.
    pub extra_reservation: Option<ReservationId>,
    pub unit: Option<UnitId>,
    pub mismatches: Vec<Mismatch>,
    pub reason: String,
    pub eligibility_reason: String,
    pub shipping_reference: Option<String>,
    pub nda_reference: Option<String>,
    pub embargo_until_time: Option<DateTime<Utc>>,
    pub requested_by: String,
    pub decided_by: Option<String>,
    pub create_time: DateTime<Utc>,
    pub update_time: DateTime<Utc>,
}

impl Grant {
    /// Where a grant of a kind begins when nothing stands in its way.
    pub fn first_stage(kind: ResourceKind) -> Stage {
        if kind == ResourceKind::LoanVehicle { Stage::Booked } else { Stage::Issued }
    }

    /// Where a step by `actor` leads.
    pub fn after(&self, step: Step, actor: &str) -> Result<Stage, GrantStandstill> {
        let of_kind = match step {
            Step::Ship | Step::ConfirmDelivery => self.kind == ResourceKind::GiftKit,
            Step::HandOver | Step::Return | Step::Settle => self.kind == ResourceKind::LoanVehicle,
            Step::Fulfil => !matches!(self.kind, ResourceKind::GiftKit | ResourceKind::LoanVehicle),
            Step::Approve | Step::Reject | Step::Cancel => true,
        };
        if !of_kind {
            return Err(GrantStandstill::Kind);
        }
        let to = match (self.stage, step) {
            (Stage::PendingApproval, Step::Approve) => Self::first_stage(self.kind),
            (Stage::PendingApproval, Step::Reject) => Stage::Rejected,
            (Stage::PendingApproval | Stage::Issued | Stage::Booked, Step::Cancel) => Stage::Cancelled,
            (Stage::Issued, Step::Ship) => Stage::Shipped,
            (Stage::Shipped, Step::ConfirmDelivery) => Stage::Delivered,
            (Stage::Booked, Step::HandOver) => Stage::HandedOver,
            (Stage::HandedOver, Step::Return) => Stage::Returned,
            (Stage::Returned, Step::Settle) => Stage::Settled,
            (Stage::Issued, Step::Fulfil) => Stage::Fulfilled,
            (is, _) => return Err(GrantStandstill::State { is }),
        };
        if matches!(step, Step::Approve | Step::Reject) && actor == self.requested_by {
            return Err(GrantStandstill::ApproverIsRequester);
        }
        Ok(to)
    }

    /// What its reservation is for.
    pub fn purpose(&self) -> String {
        format!("{PURPOSE}{}", self.id)
    }

    /// The days for which its unit is booked.
    pub fn booked_days(&self) -> Option<(NaiveDate, NaiveDate)> {
        match self.session_date {
            Some(day) => Some((day, day.succ_opt()?)),
            None => self.usage.start_date.zip(self.usage.end_date),
        }
    }

    /// For how long its money is held from `now` on.
    pub fn time_to_live(&self, now: DateTime<Utc>) -> TimeDelta {
        let booked = self.booked_days().map(|(_, end)| end.signed_duration_since(now.date_naive()));
        TIME_TO_LIVE + booked.unwrap_or_default().max(TimeDelta::zero())
    }

    /// How many kits it takes from stock; 0 for other kinds.
    pub fn kits(&self) -> i64 {
        if self.kind == ResourceKind::GiftKit { self.usage.quantity.unwrap_or(1) } else { 0 }
    }

    /// How a car that came back was used.
    pub fn used(&self, end: NaiveDate, kilometres: Decimal, incidents: Vec<Incident>) -> Usage {
        Usage { end_date: Some(end), kilometres: Some(kilometres), incidents, ..self.usage.clone() }
    }
}

/// Whether to issue one costs nothing: what was made once is there already.
pub fn costs_nothing_to_issue(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::DigitalAsset | ResourceKind::HonourSystem)
}

/// What a grant is to take from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sources {
    pub envelope: Option<EnvelopeId>,
    pub unit: Option<UnitId>,
    pub session_date: Option<NaiveDate>,
}

/// Checks that a grant says where its cash and its unit come from, and nothing that its kind does not have; all at once.
pub fn check_sources(kind: ResourceKind, cash: i64, sources: &Sources) -> Result<(), Vec<Violation>> {
    let mut violations = Violations::default();
    let mut broken = |field: &str, rule: &str, shape: &str| violations.push(Violation::new(field, rule, shape));
    // What a car costs is known when it is back.
    match (cash > 0 || kind == ResourceKind::LoanVehicle, sources.envelope) {
        (true, None) => broken("envelope_id", "ENVELOPE_REQUIRED", "must name what pays: the grant costs cash, or may"),
        (false, Some(_)) => broken("envelope_id", "ENVELOPE_NOT_TAKEN", "must be empty: the grant costs no cash"),
        _ => {}
    }
    let seats = matches!(kind, ResourceKind::EarlyAccess | ResourceKind::InformationPrivilege);
    let booked = seats || matches!(kind, ResourceKind::LoanVehicle | ResourceKind::ProductionCrew);
    match sources.unit {
        None if kind == ResourceKind::LoanVehicle => broken("unit_id", "UNIT_REQUIRED", "must name the car"),
        Some(_) if !booked => broken("unit_id", "UNIT_NOT_TAKEN", "must be empty: nothing of this kind is booked"),
        _ => {}
    }
    if sources.session_date.is_some() != (seats && sources.unit.is_some()) {
        broken("session_date", "SESSION_DATE_NOT_TAKEN", "must be set exactly when a seat is booked");
    }
    violations.finish()
}

/// Whether an estimate leaves the tax open, so that nothing may be paid by it.
pub fn tax_is_open(estimate: &Estimate) -> bool {
    estimate.tax.status == TaxStatus::Undetermined
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEPS: [Step; 9] = [
        Step::Approve,
        Step::Reject,
        Step::Cancel,
        Step::Ship,
        Step::ConfirmDelivery,
        Step::HandOver,
        Step::Return,
        Step::Settle,
        Step::Fulfil,
    ];

    fn grant(kind: ResourceKind, stage: Stage) -> Grant {
        let now = DateTime::from_timestamp(1_767_225_600, 0).expect("in range");
        let usage = Usage {
            date: now.date_naive(),
            quantity: None,
            region_code: None,
            start_date: None,
            end_date: None,
            kilometres: None,
            incidents: Vec::new(),
            guests: None,
            active_users: None,
            months: None,
            media_spend: None,
            tax_category: None,
        };
        Grant {
            id: GrantId::new(),
            programme: ProgrammeId::new(),
            member: MemberId::new(),
            resource: ResourceId::new(),
            kind,
            stage,
            usage,
            session_date: None,
            estimate: None,
            restated: None,
            envelope: None,
            reservation: None,
            extra_reservation: None,
            unit: None,
            mismatches: Vec::new(),
            reason: "a launch".into(),
            eligibility_reason: String::new(),
            shipping_reference: None,
            nda_reference: None,
            embargo_until_time: None,
            requested_by: "wei".into(),
            decided_by: None,
            create_time: now,
            update_time: now,
        }
    }

    fn walk(kind: ResourceKind, steps: &[Step]) -> Vec<Stage> {
        let mut grant = grant(kind, Grant::first_stage(kind));
        steps
            .iter()
            .map(|step| {
                grant.stage = grant.after(*step, "wei").expect("it moves");
                grant.stage
            })
            .collect()
    }

    #[test]
    fn each_kind_has_its_own_fulfilment() {
        let kit = walk(ResourceKind::GiftKit, &[Step::Ship, Step::ConfirmDelivery]);
        assert_eq!(kit, [Stage::Shipped, Stage::Delivered]);
        let car = walk(ResourceKind::LoanVehicle, &[Step::HandOver, Step::Return, Step::Settle]);
        assert_eq!(car, [Stage::HandedOver, Stage::Returned, Stage::Settled]);
        assert_eq!(walk(ResourceKind::PaidBoost, &[Step::Fulfil]), [Stage::Fulfilled]);
        let of = |kind, step| grant(kind, Grant::first_stage(kind)).after(step, "wei");
        assert_eq!(of(ResourceKind::GiftKit, Step::Fulfil), Err(GrantStandstill::Kind));
        assert_eq!(of(ResourceKind::Stipend, Step::Ship), Err(GrantStandstill::Kind));
        assert_eq!(of(ResourceKind::LoanVehicle, Step::Settle), Err(GrantStandstill::State { is: Stage::Booked }));
    }

    #[test]
    fn what_waits_is_decided_by_another_person() {
        let waiting = grant(ResourceKind::LoanVehicle, Stage::PendingApproval);
        assert_eq!(waiting.after(Step::Approve, "wei"), Err(GrantStandstill::ApproverIsRequester));
        assert_eq!(waiting.after(Step::Approve, "li"), Ok(Stage::Booked));
        assert_eq!(waiting.after(Step::Reject, "li"), Ok(Stage::Rejected));
        assert_eq!(waiting.after(Step::HandOver, "li"), Err(GrantStandstill::State { is: Stage::PendingApproval }));
    }

    #[test]
    fn a_member_fits_by_class_and_by_value_type() {
        let member = |class, value_types: &[ValueType]| Standing {
            class,
            value_types: value_types.to_vec(),
            trusted: true,
            member: MemberId::new(),
            standing: members::Standing::default(),
        };
        let core = member(ResourceClass::Incentive, &[ValueType::Social]);
        assert_eq!(core.mismatches(ResourceKind::RegionalEvent, ResourceClass::Incentive), []);
        assert_eq!(core.mismatches(ResourceKind::GiftKit, ResourceClass::Inclusive), []);
        assert_eq!(core.mismatches(ResourceKind::GiftKit, ResourceClass::Exclusive), [Mismatch::TierClass]);
        let both = core.mismatches(ResourceKind::ProductionCrew, ResourceClass::Exclusive);
        assert_eq!(both, [Mismatch::TierClass, Mismatch::ValueType]);
        assert_eq!(core.mismatches(ResourceKind::PaidBoost, ResourceClass::StrategicReserve), []);
        let insight = member(ResourceClass::Exclusive, &[ValueType::Insight]);
        assert_eq!(insight.mismatches(ResourceKind::InformationPrivilege, ResourceClass::Exclusive), []);
        assert_eq!(insight.mismatches(ResourceKind::EarlyAccess, ResourceClass::Exclusive), []);
        assert_eq!(insight.mismatches(ResourceKind::RegionalEvent, ResourceClass::Exclusive), [Mismatch::ValueType]);
    }

    proptest! {
        #[test]
        fn no_steps_lead_out_of_an_end_and_nothing_leaves_the_house_twice(
            kind in 0..ResourceKind::ALL.len(), steps in prop::collection::vec(0..STEPS.len(), 0..40),
        ) {
            let mut grant = grant(ResourceKind::ALL[kind], Stage::PendingApproval);
            let mut seen = vec![grant.stage];
            for step in steps {
                let before = grant.stage;
                if let Ok(stage) = grant.after(STEPS[step], "li") {
                    let ends = [Stage::Rejected, Stage::Cancelled, Stage::Delivered, Stage::Settled, Stage::Fulfilled];
                    prop_assert!(!ends.contains(&before));
                    prop_assert!(!seen.contains(&stage), "{:?} twice", stage);
                    grant.stage = stage;
                    seen.push(stage);
                }
            }
        }
    }
}
