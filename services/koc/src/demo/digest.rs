//! The end state in lines, without ids and times: the same for every run that ended right.

use super::{
    effect, money,
    stage::{ADMIN, ANALYST, EDITOR, FINANCE, Stage, must},
};
use koc_proto::koc::{budget::v1 as budget, measurement::v1 as measurement, registry::v1 as registry, task::v1 as task};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Collects all pages of a list.
macro_rules! all {
    ($actor:expr, $client:expr, $method:ident, $items:ident, $request:expr) => {{
        let mut items = Vec::new();
        let mut page_token = String::new();
        loop {
            let mut request = $request;
            (request.page_size, request.page_token) = (500, page_token);
            let page = must!($actor, $client, $method, request)?;
            items.extend(page.$items);
            if page.next_page_token.is_empty() {
                break items;
            }
            page_token = page.next_page_token;
        }
    }};
}

pub async fn of(stage: &Stage) -> anyhow::Result<String> {
    let programme_id = stage.programme_id();
    let mut names = HashMap::new();
    let mut lines = members(stage, &mut names).await?;

    for plan in money::list(stage).await? {
        let (programme_id, plan_id) = (programme_id.clone(), plan.plan_id.clone());
        let request = budget::GetPlanSummaryRequest { programme_id, plan_id, as_of_time: None };
        for envelope in must!(FINANCE, stage.plans(), get_plan_summary, request)?.envelopes {
            let b = envelope.balances.unwrap_or_default();
            let amounts = [b.allocated, b.reserved, b.committed, b.spent, b.available].map(|m| stage.money(m.as_ref()));
            lines.push(format!("envelope {} {}", envelope.display_name, amounts.join(" ")));
        }
    }
    let request = budget::VerifyLedgerRequest { programme_id: programme_id.clone() };
    let ledger = must!(FINANCE, stage.ledger(), verify_ledger, request)?;
    lines.push(format!("ledger valid {} entries {}", ledger.valid, ledger.entry_count));
    let request = budget::ListReserveDrawsRequest { programme_id: programme_id.clone(), ..Default::default() };
    for draw in all!(FINANCE, stage.draws(), list_reserve_draws, reserve_draws, request.clone()) {
        let amount = stage.money(draw.amount.as_ref());
        lines.push(format!("draw {} {} {amount}", draw.kind().as_str_name(), draw.state().as_str_name()));
    }
    let request = budget::ListMemberLimitsRequest { programme_id: programme_id.clone(), ..Default::default() };
    for limit in all!(FINANCE, stage.limits(), list_member_limits, member_limits, request.clone()) {
        let amounts = [&limit.limit, &limit.used].map(|m| stage.money(m.as_ref()));
        lines.push(format!("limit {} {}", name(&names, &limit.member_id), amounts.join(" ")));
    }

    let request = task::ListAssignmentsRequest { programme_id: programme_id.clone(), ..Default::default() };
    let mut assignments = HashMap::new();
    for a in all!(EDITOR, stage.assignments(), list_assignments, assignments, request.clone()) {
        let mut keys = a.accepted_deliverable_keys.clone();
        keys.sort_unstable();
        let (state, settled) = (a.state().as_str_name(), a.settlement_state().as_str_name());
        let refused = a.unfunded.as_ref().map_or(String::new(), |u| {
            format!(" {} asked {} available {}", u.reason, stage.money(u.asked.as_ref()), stage.money(u.available.as_ref()))
        });
        let who = name(&names, &a.member_id);
        let earned = stage.money(a.earned.as_ref());
        lines.push(format!("assignment {who} {state} {settled} {} {earned}{refused}", keys.join("+")));
        assignments.insert(a.assignment_id, who);
    }

    let request = measurement::ListOutputsRequest { programme_id: programme_id.clone(), ..Default::default() };
    let mut outputs = HashMap::new();
    for output in all!(ANALYST, stage.outputs(), list_outputs, outputs, request.clone()) {
        let mut totals: Vec<String> = output
            .totals
            .iter()
            .map(|t| format!("{}{}={}", t.metric().as_str_name(), if t.paid { "(paid)" } else { "" }, t.value))
            .collect();
        totals.sort_unstable();
        let key = format!("{} {} {}", name(&names, &output.member_id), output.deliverable_key, output.deliverable_kind);
        let cost = stage.money(output.cost.as_ref().and_then(|c| c.marginal.as_ref()));
        lines.push(format!("output {key} cost {cost} {}", totals.join(" ")));
        outputs.insert(output.output_id, key);
    }
    for signal in effect::signals(stage).await? {
        let (level, draw) = (signal.level().as_str_name(), signal.draw_state().as_str_name());
        let amount = stage.money(signal.draw_amount.as_ref());
        let metric = signal.metric().as_str_name();
        lines.push(format!("signal {} {metric} {level} {:.3} {draw} {amount}", name(&outputs, &signal.output_id), signal.score));
    }
    let request = measurement::ListDecisionsRequest { programme_id, ..Default::default() };
    for d in all!(ANALYST, stage.decisions(), list_decisions, decisions, request.clone()) {
        let amounts = [&d.value, &d.cost, &d.next_limit].map(|m| stage.money(m.as_ref()));
        lines.push(format!(
            "decision {} {} {} {} outputs {} {}",
            name(&names, &d.member_id),
            d.action().as_str_name(),
            d.state().as_str_name(),
            d.rule_id,
            d.output_count,
            amounts.join(" ")
        ));
    }

    lines.sort_unstable();
    let text = lines.join("\n");
    Ok(format!("{text}\nsha256 {}\n", hex::encode(Sha256::digest(&text))))
}

/// Members as one line for all, since a digest names nobody, and one per tier; `names` gets the cast's external ids.
async fn members(stage: &Stage, names: &mut HashMap<String, String>) -> anyhow::Result<Vec<String>> {
    let request = registry::ListTiersRequest { programme_id: stage.programme_id() };
    let tiers = must!(ADMIN, stage.tiers(), list_tiers, request)?.tiers;
    let mut lines: Vec<String> = tiers.iter().map(|t| format!("tier {} {} members", t.tier_id, t.member_count)).collect();
    let request = registry::ListMembersRequest { programme_id: stage.programme_id(), ..Default::default() };
    let mut contents = Vec::new();
    for member in all!(ADMIN, stage.members(), list_members, members, request.clone()) {
        let identities: Vec<&str> = member.external_identities.iter().map(|i| i.external_id.as_str()).collect();
        names.insert(member.member_id.clone(), identities.join("+"));
        contents.push(format!("{} {} {:?}", identities.join("+"), member.tier_id, member.profile));
    }
    contents.sort_unstable();
    lines.push(format!("members {} sha256 {}", contents.len(), hex::encode(Sha256::digest(contents.join("\n")))));
    Ok(lines)
}

fn name(names: &HashMap<String, String>, id: &str) -> String {
    names.get(id).cloned().unwrap_or_else(|| "unknown".to_owned())
}
