//! Who: the programme, its members, their tiers.

use super::{
    sample::{MAPPING, MEMBERS, Plan},
    stage::{ADMIN, ANALYST, Stage, must},
};
use crate::import::{Mapping, MemberFile, RunPlan, Uploader};
use anyhow::Context;
use chrono::TimeDelta;
use koc_chassis::clock;
use koc_proto::koc::registry::v1 as pb;
use std::io::Cursor;

/// What the run is called that brings the export in.
const RUN: &str = "demo";

/// Creates the programme.
pub async fn found(stage: &Stage) -> anyhow::Result<()> {
    let programme = &stage.sample.programme;
    let request = pb::CreateProgrammeRequest {
        programme_id: stage.programme_id(),
        request_id: stage.request_id("programme"),
        display_name: programme.name.clone(),
        currency_code: programme.currency.clone(),
        time_zone: programme.time_zone.name().to_owned(),
    };
    must!(ADMIN, stage.programmes(), create_programme, request)?;
    stage.say(&format!("  {} in {}, {}", programme.name, programme.currency, programme.time_zone));
    Ok(())
}

/// Brings the CRM export in.
pub async fn import(stage: &Stage) -> anyhow::Result<()> {
    let mapping = Mapping::parse(MAPPING)?;
    let mut file = MemberFile::open(Cursor::new(MEMBERS), &mapping)?;
    let plan = RunPlan {
        name: RUN.into(),
        chosen: true,
        mode: pb::SyncMode::Incremental,
        as_of: None,
        max_delete_percent: None,
        dry_run: false,
    };
    let mut uploader = Uploader::new(stage.registry_channel(), stage.programme_id(), &mapping, plan);
    let upload = uploader.upload(&mut file, &mut ()).await?;
    stage.say(&format!(
        "  {} rows of a CRM export: {} created, {} updated, {} unchanged, {} stale, {} rejected",
        upload.rows,
        upload.count(pb::SyncOutcome::Created),
        upload.count(pb::SyncOutcome::Updated),
        upload.count(pb::SyncOutcome::Unchanged),
        upload.count(pb::SyncOutcome::Stale),
        upload.rejected()
    ));
    for (reason, n) in upload.reasons {
        stage.say(&format!("    {n} × {reason}"));
    }
    Ok(())
}

/// The id of a part of the cast.
pub async fn member_id(stage: &Stage, external_id: &str) -> anyhow::Result<String> {
    let request = pb::LookupMemberRequest {
        programme_id: stage.programme_id(),
        external_identity: Some(pb::ExternalIdentity {
            source_system: stage.sample.programme.source_system.clone(),
            external_id: external_id.to_owned(),
        }),
    };
    let member = must!(ADMIN, stage.members(), lookup_member, request)?.member;
    Ok(member.context("an answer without its member")?.member_id)
}

/// Puts the cast into the tiers that last year's results earned them: a proposal each, then the policy's own evaluation, one
/// tier at a time.
pub async fn place(stage: &Stage) -> anyhow::Result<()> {
    let begin = stage.sample.period(&stage.sample.plans[0])?.0;
    // A proposal stands until one of a later time takes its place.
    let rounds = [(begin - TimeDelta::days(1), &["CORE", "APEX"][..]), (begin, &["APEX"])];
    for (round, (as_of, tiers)) in rounds.into_iter().enumerate() {
        for part in stage.sample.cast.iter().filter(|part| tiers.contains(&part.tier.as_str())) {
            let step = format!("place {round} {}", part.external_id);
            let request = pb::ProposeTierRequest {
                programme_id: stage.programme_id(),
                request_id: stage.request_id(&step),
                member_id: member_id(stage, &part.external_id).await?,
                proposal: Some(pb::TierProposal {
                    promote_probability: 0.95,
                    output_count: 12,
                    as_of: Some(clock::to_proto(as_of)),
                    decision_id: stage.request_id(&format!("{step} decision")),
                    reason: "results of the year before, from the spreadsheet they were kept in".to_owned(),
                    ..Default::default()
                }),
            };
            must!(ANALYST, stage.tiers(), propose_tier, request)?;
        }
        run_evaluation(stage, &format!("place {round}")).await?;
    }
    Ok(())
}

/// Lets the policy judge what measurement proposed.
pub async fn evaluate(stage: &Stage, plan: &Plan) -> anyhow::Result<()> {
    run_evaluation(stage, &plan.quarter).await
}

async fn run_evaluation(stage: &Stage, step: &str) -> anyhow::Result<()> {
    let (mut promoted, mut stayed, mut warned, mut after_member_id) = (Vec::new(), Vec::new(), Vec::new(), String::new());
    loop {
        let request = pb::EvaluateTiersRequest {
            programme_id: stage.programme_id(),
            request_id: stage.request_id(&format!("evaluate {step} {after_member_id}")),
            validate_only: false,
            after_member_id,
        };
        let moves = must!(ADMIN, stage.tiers(), evaluate_tiers, request)?;
        promoted.extend(moves.promoted);
        stayed.extend(moves.stayed);
        warned.extend(moves.reviewed);
        if moves.next_after_member_id.is_empty() {
            break;
        }
        after_member_id = moves.next_after_member_id;
    }
    stage.say(&format!("  Tiers: {} promoted, {} stay, {} come under review", promoted.len(), stayed.len(), warned.len()));
    if let Some(first) = promoted.first() {
        stage.say(&format!("    e.g. {} → {}: {}", first.from_tier_id, first.to_tier_id, first.reason));
    }
    if let Some(first) = stayed.first() {
        stage.say(&format!("    e.g. {} stays: {}", first.from_tier_id, first.reason));
    }
    if let Some(first) = warned.first() {
        stage.say(&format!("    e.g. {} is under review: {}", first.from_tier_id, first.reason));
    }
    Ok(())
}
