//! How a plan stands: what each envelope holds, the sums, and the pace.

use super::{Api, convert};
use crate::{
    domain::{
        balances::Balances,
        envelope::{Envelope, with_children},
        pace::Pace,
        plan::{ResourceClass, amount_per_member},
    },
    error::Error,
    store,
};
use koc_chassis::{clock, gate::Call};
use koc_proto::koc::budget::v1 as pb;

pub async fn summary(api: &Api, call: &Call, request: &pb::GetPlanSummaryRequest) -> Result<pb::GetPlanSummaryResponse, Error> {
    let (id, currency) = api.plan_currency(call.programme, &request.plan_id).await?;
    let mut tx = api.gate.db().snapshot().await?;
    let plan = store::plan::find(&mut tx, call.programme, id).await?.ok_or(Error::PlanNotFound(id))?;
    let envelopes = store::envelope::list(&mut tx, id).await?;
    let time = convert::as_of(request.as_of_time.as_ref(), clock::now(&mut tx).await?)?;
    let stage = plan.state.stage();
    // What each holds itself, and what the members of each class have in use: from the rows now, from the ledger then.
    let (own, members): (Vec<Balances>, _) = match request.as_of_time {
        None => (envelopes.iter().map(|e| e.shown(stage)).collect(), store::envelope::members(&mut tx, id).await?),
        Some(_) => {
            let ids: Vec<_> = envelopes.iter().map(|e| e.id).collect();
            let found = store::ledger::balances_at(&mut tx, &ids, time).await?;
            let own = ids.iter().map(|id| found.get(id).copied().unwrap_or_default()).collect();
            (own, store::ledger::members_at(&mut tx, id, time).await?)
        }
    };
    let then: Vec<Envelope> =
        envelopes.into_iter().zip(&own).map(|(envelope, own)| Envelope { balances: *own, ..envelope }).collect();

    let pace = |balances: &Balances| stage.is_funded().then(|| Pace::at(time, &plan.period, balances));
    // A plan's amounts can be added up: that is checked whenever they change.
    let sum = |class: Option<ResourceClass>| {
        let own = then.iter().filter(|e| class.is_none_or(|class| e.place.class == class)).map(|e| &e.balances);
        Balances::sum(own).unwrap_or_default()
    };
    let class_summary = |class: ResourceClass| {
        let balances = sum(Some(class));
        let (member_count, in_use) = members.get(&class).copied().unwrap_or_default();
        pb::ClassSummary {
            resource_class: convert::class_to_proto(class).into(),
            balances: Some(convert::balances(&balances, currency)),
            member_count,
            amount_per_member: amount_per_member(in_use, member_count).and_then(|minor| convert::money(minor, currency)),
            pace: pace(&balances).map(|pace| convert::pace(pace, currency)),
        }
    };
    let held = |class: &&ResourceClass| then.iter().any(|e| e.place.class == **class);
    let sums = with_children(&then, |envelope| envelope.balances);
    let total = sum(None);
    Ok(pb::GetPlanSummaryResponse {
        envelopes: then.iter().zip(&sums).map(|(e, sum)| convert::envelope(e, sum, pace(sum), currency)).collect(),
        classes: ResourceClass::ALL.iter().filter(held).map(|class| class_summary(*class)).collect(),
        total: Some(convert::balances(&total, currency)),
        pace: pace(&total).map(|pace| convert::pace(pace, currency)),
        as_of_time: Some(clock::to_proto(time)),
    })
}
