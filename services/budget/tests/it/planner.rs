//! Short ways to plan: trees, amendments, closings. Amounts are in fen.

use crate::world::*;
use koc_proto::koc::budget::v1 as pb;
use koc_tests::service::TestChannel;
use std::collections::HashMap;
use tonic::Status;

pub type Amendments = pb::amendment_service_client::AmendmentServiceClient<TestChannel>;

/// A plan's envelopes by their names.
pub struct Tree {
    pub plan: String,
    ids: HashMap<String, String>,
}

impl Tree {
    pub fn of(plan: &pb::Plan) -> Self {
        let ids = plan.envelopes.iter().map(|e| (e.display_name.clone(), e.envelope_id.clone())).collect();
        Self { plan: plan.plan_id.clone(), ids }
    }

    #[track_caller]
    pub fn id(&self, name: &str) -> String {
        self.ids.get(name).cloned().unwrap_or_else(|| panic!("there is no envelope {name}"))
    }
}

/// A part of another envelope, for a region or a kind.
pub fn child(name: &str, parent: &str, region: &str, kind: pb::ResourceKind, allocated: i64) -> pb::NewEnvelope {
    pb::NewEnvelope {
        parent_display_name: parent.into(),
        region: region.into(),
        resource_kind: kind.into(),
        ..new_envelope(pb::ResourceClass::Unspecified, name, allocated)
    }
}

/// A class of 1,000 split by region and, in one, by kind; each keeps something that its children do not have. And a reserve of 100.
pub fn branches() -> Vec<pb::NewEnvelope> {
    use pb::ResourceKind::{GiftKit, Travel, Unspecified};
    vec![
        new_envelope(pb::ResourceClass::Incentive, "core", 1_000),
        child("sh", "core", "CN-SH", Unspecified, 600),
        child("bj", "core", "CN-BJ", Unspecified, 300),
        child("sh kits", "sh", "", GiftKit, 250),
        child("sh travel", "sh", "", Travel, 300),
        new_envelope(pb::ResourceClass::StrategicReserve, "reserve", 100),
    ]
}

/// What lines say: name, before, after.
pub fn told(amendment: &pb::Amendment) -> Vec<(&str, i64, i64)> {
    let line = |l: &pb::AmendmentLine| (minor(l.before.as_ref()), minor(l.after.as_ref()));
    amendment.lines.iter().map(|l| (l.display_name.as_str(), line(l).0, line(l).1)).collect()
}

impl World {
    pub fn amendments(&self, actor: &str) -> Amendments {
        Amendments::new(self.budget.channel_of(actor))
    }

    pub fn tree_request(&self) -> pb::CreatePlanRequest {
        pb::CreatePlanRequest { display_name: "a tree".into(), envelopes: branches(), ..self.plan_request() }
    }

    /// An active plan.
    pub async fn active(&self, request: pb::CreatePlanRequest) -> Tree {
        let plan = self.create_plan(request).await.expect("a plan");
        self.activate(&plan.plan_id).await;
        Tree::of(&plan)
    }

    pub async fn plan_of(&self, plan_id: &str) -> pb::Plan {
        let request = pb::GetPlanRequest { programme_id: self.programme.clone(), plan_id: plan_id.to_owned() };
        self.plans("anyone").get_plan(request).await.expect("there").into_inner().plan.expect("a plan")
    }

    pub async fn reserve_in(&self, envelope_id: &str, amount: i64) -> Result<pb::Reservation, Status> {
        let envelope_id = envelope_id.to_owned();
        self.reserve_with(pb::ReserveRequest { envelope_id, ..self.reserve_request(amount) }).await
    }

    /// A change of what envelopes hold, by the planner.
    pub fn amendment_request(&self, plan_id: &str, totals: &[(String, i64)]) -> pb::ProposeAmendmentRequest {
        let change = |(id, total): &(String, i64)| pb::EnvelopeChange {
            envelope_id: id.clone(),
            allocated: Some(fen(*total)),
            overrun_limit: None,
        };
        pb::ProposeAmendmentRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            plan_id: plan_id.to_owned(),
            etag: String::new(),
            changes: totals.iter().map(change).collect(),
            new_envelopes: Vec::new(),
            reason: "the launch goes better in Beijing".into(),
        }
    }

    pub async fn propose_with(&self, request: pb::ProposeAmendmentRequest) -> Result<pb::Amendment, Status> {
        Ok(self.amendments("planner").propose_amendment(request).await?.into_inner().amendment.unwrap_or_default())
    }

    pub async fn propose(&self, plan_id: &str, totals: &[(String, i64)]) -> Result<pb::Amendment, Status> {
        self.propose_with(self.amendment_request(plan_id, totals)).await
    }

    pub async fn transfer(&self, plan_id: &str, from: &str, to: &str, amount: i64) -> Result<pb::Amendment, Status> {
        let request = pb::TransferBetweenEnvelopesRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            plan_id: plan_id.to_owned(),
            etag: String::new(),
            from_envelope_id: from.to_owned(),
            to_envelope_id: to.to_owned(),
            amount: Some(fen(amount)),
            reason: "more travel than kits".into(),
        };
        Ok(self.amendments("planner").transfer_between_envelopes(request).await?.into_inner().amendment.unwrap_or_default())
    }

    pub async fn close(&self, plan_id: &str, open: pb::OpenReservations, carry_over: &str) -> Result<pb::Amendment, Status> {
        let request = pb::ClosePlanRequest {
            programme_id: self.programme.clone(),
            request_id: id(),
            plan_id: plan_id.to_owned(),
            etag: String::new(),
            open_reservations: open.into(),
            carry_over_plan_id: carry_over.to_owned(),
            reason: "the year is over".into(),
        };
        Ok(self.amendments("planner").close_plan(request).await?.into_inner().amendment.unwrap_or_default())
    }

    pub fn approval(&self, amendment_id: &str) -> pb::ApproveAmendmentRequest {
        let (programme_id, amendment_id) = (self.programme.clone(), amendment_id.to_owned());
        pb::ApproveAmendmentRequest { programme_id, request_id: id(), amendment_id, reason: "agreed".into() }
    }

    pub async fn approve_amendment(&self, actor: &str, amendment_id: &str) -> Result<pb::Amendment, Status> {
        let request = self.approval(amendment_id);
        Ok(self.amendments(actor).approve_amendment(request).await?.into_inner().amendment.unwrap_or_default())
    }

    pub async fn amendment(&self, amendment_id: &str) -> Result<pb::Amendment, Status> {
        let request = pb::GetAmendmentRequest { programme_id: self.programme.clone(), amendment_id: amendment_id.to_owned() };
        Ok(self.amendments("anyone").get_amendment(request).await?.into_inner().amendment.unwrap_or_default())
    }

    pub async fn summary_with(&self, request: pb::GetPlanSummaryRequest) -> Result<pb::GetPlanSummaryResponse, Status> {
        Ok(self.plans("anyone").get_plan_summary(request).await?.into_inner())
    }

    /// A plan's summary, whose sums hold at every level.
    pub async fn sums(&self, plan_id: &str) -> pb::GetPlanSummaryResponse {
        let summary = self.summary_with(self.summary_request(plan_id)).await.expect("a summary");
        check_sums(&summary);
        summary
    }
}

/// An envelope's balances in a summary: reserved, committed, spent, available.
#[track_caller]
pub fn balances_of(summary: &pb::GetPlanSummaryResponse, name: &str) -> [i64; 4] {
    let found = summary.envelopes.iter().find(|e| e.display_name == name).expect("the envelope is there");
    standing(found.balances.as_ref().expect("it has balances"))
}

fn amounts(balances: Option<&pb::Balances>) -> [i64; 5] {
    let b = balances.expect("balances");
    [&b.allocated, &b.reserved, &b.committed, &b.spent, &b.available].map(|m| minor(m.as_ref()))
}

/// No envelope holds less than its children, only those without have anything in use of their own, and classes and total are the sums.
#[track_caller]
pub fn check_sums(summary: &pb::GetPlanSummaryResponse) {
    let add = |sum: [i64; 5], envelope: &&pb::Envelope| {
        let own = amounts(envelope.balances.as_ref());
        std::array::from_fn::<i64, 5, _>(|i| sum[i] + own[i])
    };
    for envelope in &summary.envelopes {
        let children: Vec<_> = summary.envelopes.iter().filter(|e| e.parent_envelope_id == envelope.envelope_id).collect();
        if children.is_empty() {
            continue;
        }
        let (own, sum) = (amounts(envelope.balances.as_ref()), children.iter().fold([0; 5], add));
        assert!(own[0] >= sum[0] && own[4] >= sum[4], "{} holds less than its children", envelope.display_name);
        assert_eq!(own[1..4], sum[1..4], "{}: only leaves hold reservations", envelope.display_name);
    }
    let roots: Vec<_> = summary.envelopes.iter().filter(|e| e.parent_envelope_id.is_empty()).collect();
    assert_eq!(amounts(summary.total.as_ref()), roots.iter().fold([0; 5], add));
    for class in &summary.classes {
        let own: Vec<_> = roots.iter().copied().filter(|e| e.resource_class == class.resource_class).collect();
        assert_eq!(amounts(class.balances.as_ref()), own.iter().fold([0; 5], add));
    }
}
