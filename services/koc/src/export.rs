//! `koc export`: what is held of a person, for the person.

use crate::{
    client::{self, TokenArgs, describe},
    token::write_private,
};
use anyhow::Context;
use clap::{Args, Subcommand};
use koc_chassis::peer::PeerChannel;
use koc_proto::koc::registry::v1::{self as pb, export_service_client::ExportServiceClient};
use serde_json::{Map, Value};
use std::{path::PathBuf, process::ExitCode, time::Duration};
use tokio::time::Instant;
use uuid::Uuid;

/// How often it is looked whether all have answered.
const PAUSE: Duration = Duration::from_millis(200);
/// Exit code when somebody has not answered in time and all others have.
const SOME_MISSING: u8 = 3;

/// Give out what the suite holds.
#[derive(Subcommand)]
pub enum Export {
    /// Collect all that is held of a member into one JSON file that only its owner can read.
    ///
    /// The file has an object for each service, with a list for each kind of thing, and names the services that have not answered. Needs a
    /// token with the scope `registry.pii`. Exit code 0: all have answered; 3: some have not in time; 1: it failed.
    Member(Member),
}

#[derive(Args)]
pub struct Member {
    /// The member's id.
    member: Uuid,
    /// The programme that the member belongs to.
    #[arg(long, env = "KOC_PROGRAMME")]
    programme: Uuid,
    /// Where it goes; must not exist. By default member-ID.json.
    #[arg(long)]
    output: Option<PathBuf>,
    /// How many seconds are waited for the services.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
    /// Address of the registry.
    #[arg(long, env = "KOC_REGISTRY_URL", default_value = "http://127.0.0.1:7401")]
    registry_url: String,
    #[command(flatten)]
    token: TokenArgs,
}

impl Export {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Member(command) => command.run().await,
        }
    }
}

impl Member {
    #[allow(clippy::print_stdout)]
    async fn run(self) -> anyhow::Result<ExitCode> {
        let output = self.output.clone().unwrap_or_else(|| format!("member-{}.json", self.member).into());
        anyhow::ensure!(!output.exists(), "{} exists already", output.display());
        let mut client = ExportServiceClient::new(client::channel(&self.registry_url, &self.token.token()?)?);
        let request = pb::RequestMemberExportRequest {
            programme_id: self.programme.to_string(),
            request_id: Uuid::now_v7().to_string(),
            member_id: self.member.to_string(),
        };
        let begun = client.request_member_export(request).await.map_err(|status| anyhow::anyhow!(describe(&status)))?;
        let export_id = begun.into_inner().export.context("an answer without its export")?.export_id;
        let export = self.answered(&mut client, &export_id).await?;

        let mut document = Map::new();
        let mut missing = Vec::new();
        for holder in &export.holders {
            match holder.part_count {
                0 => missing.push(holder.holder.clone()),
                parts => {
                    _ = document.insert(holder.holder.clone(), self.read(&mut client, &export_id, &holder.holder, parts).await?)
                }
            }
        }
        document.insert("missing".to_owned(), Value::from(missing.clone()));
        write_private(&output, &serde_json::to_string_pretty(&document)?, true)?;
        println!("{}", output.display());
        if missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        println!("not answered in time: {}", missing.join(", "));
        Ok(ExitCode::from(SOME_MISSING))
    }

    /// The export once all have answered, or the time is over.
    async fn answered(&self, client: &mut ExportServiceClient<PeerChannel>, export_id: &str) -> anyhow::Result<pb::MemberExport> {
        let give_up = Instant::now() + Duration::from_secs(self.wait);
        loop {
            let request =
                pb::GetMemberExportRequest { programme_id: self.programme.to_string(), export_id: export_id.to_owned() };
            match client.get_member_export(request).await {
                Ok(answer) => {
                    let export = answer.into_inner().export.context("an answer without its export")?;
                    if export.complete || Instant::now() >= give_up {
                        return Ok(export);
                    }
                }
                Err(status) if client::passes(&status) && Instant::now() < give_up => {}
                Err(status) => anyhow::bail!(describe(&status)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A holder's document.
    async fn read(
        &self,
        client: &mut ExportServiceClient<PeerChannel>,
        export_id: &str,
        holder: &str,
        parts: i32,
    ) -> anyhow::Result<Value> {
        let mut text = String::new();
        for part in 1..=parts {
            let request = pb::GetMemberExportPartRequest {
                programme_id: self.programme.to_string(),
                export_id: export_id.to_owned(),
                holder: holder.to_owned(),
                part,
            };
            let answer = client.get_member_export_part(request).await;
            text.push_str(&answer.map_err(|status| anyhow::anyhow!(describe(&status)))?.into_inner().content);
        }
        serde_json::from_str(&text).with_context(|| format!("what {holder} gave is no JSON"))
    }
}
