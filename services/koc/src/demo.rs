//! `koc demo`: the loop as a client of the suite plays it, by public calls alone, on the sample that the project ships. Every
//! request id follows from the programme and the step, so a demo that is broken off and run again goes on where it was, and a
//! second run gets the first one's answers.

mod digest;
mod effect;
mod money;
mod people;
mod sample;
mod stage;
mod work;

use crate::client::TokenArgs;
use clap::Args;
use koc_chassis::{context, telemetry};
use sample::Sample;
use stage::Stage;
use std::process::ExitCode;
use tracing::Instrument;

/// Play the whole loop on a sample, as a client would: two quarters, from a CRM export to decisions.
///
/// Members come in from a CRM export, money is planned by class, tasks are briefed, money is held, deliveries are accepted, their effect
/// is measured, and decisions with reasons come out and set the next quarter's limits. Runs on any suite whose four addresses
/// are given; can be run again on the same one.
#[derive(Args)]
pub struct Demo {
    /// Print the end state alone, without ids and times: the same for every run that ended right.
    #[arg(long)]
    digest: bool,
    /// Address of the registry.
    #[arg(long, env = "KOC_REGISTRY_URL", default_value = "http://127.0.0.1:7401")]
    registry_url: String,
    /// Address of the budget service.
    #[arg(long, env = "KOC_BUDGET_URL", default_value = "http://127.0.0.1:7402")]
    budget_url: String,
    /// Address of the task service.
    #[arg(long, env = "KOC_TASK_URL", default_value = "http://127.0.0.1:7403")]
    task_url: String,
    /// Address of the measurement service.
    #[arg(long, env = "KOC_MEASUREMENT_URL", default_value = "http://127.0.0.1:7404")]
    measurement_url: String,
    /// Address of an OTLP collector (gRPC); without it the demo's own spans are not sent.
    #[arg(long, env = "KOC_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    #[command(flatten)]
    token: TokenArgs,
}

/// The id of the demo's programme: the same at each run, so that a run can be continued.
pub fn programme_id() -> uuid::Uuid {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, b"koc demo")
}

impl Demo {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let telemetry = telemetry::init("koc-demo", "error,koc=info", self.otlp_endpoint.as_deref())?;
        let token = self.token.token()?;
        let urls = [&self.registry_url, &self.budget_url, &self.task_url, &self.measurement_url];
        let stage = Stage::open(Sample::shipped()?, programme_id(), urls, &token, !self.digest)?;
        let played = play(&stage).await;
        let ended = match played {
            Ok(right) if self.digest => {
                stage::tell(digest::of(&stage).await?.trim_end());
                Ok(right)
            }
            other => other,
        };
        tokio::task::spawn_blocking(|| telemetry.shutdown()).await?;
        Ok(if ended? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Plays both quarters; true when the decisions were those that the sample expects and the ledger verifies.
async fn play(stage: &Stage) -> anyhow::Result<bool> {
    stage.title("1. Who: a programme, and members from a CRM export");
    people::found(stage).await?;
    people::import(stage).await?;
    effect::set_rules(stage).await?;
    people::place(stage).await?;

    let mut right = true;
    let mut story = None;
    for (index, plan) in stage.sample.plans.iter().enumerate() {
        let n = index + 2;
        stage.title(&format!("{n}. {}: plan, brief, deliver, measure, decide", plan.quarter));
        money::plan(stage, plan).await?;
        // One trace follows the part of the cast whose post goes viral, from the offer to the decision.
        let span = tracing::info_span!("story", quarter = plan.quarter);
        story = span.in_scope(context::trace_id);
        let done = work::play(stage, plan, &span).await?;
        money::pay(stage, plan, &done).await?;
        effect::measure(stage, plan, &done).await?;
        right &= effect::decide(stage, index).instrument(span).await?;
        people::evaluate(stage, plan).await?;
    }

    stage.title("4. What it came to");
    right &= money::account(stage).await?;
    if let Some(trace) = story {
        stage::tell_trace(stage, &trace).await?;
    }
    stage.say(if right {
        "\nThe loop is closed: everything ended as the sample expects."
    } else {
        "\nSomething did not end as the sample expects; see above."
    });
    Ok(right)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_call_in_the_readme_names_the_demos_programme() {
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&super::programme_id().to_string()), "it is {}", super::programme_id());
    }
}
