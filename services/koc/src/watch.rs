//! `koc watch members`: what happens to a programme's members, a line of JSON for each event.

use crate::client::{self, PATIENCE, TokenArgs};
use anyhow::Context;
use clap::{Args, Subcommand};
use koc_chassis::{fault::reason_of, transcode};
use koc_proto::koc::registry::v1::{self as pb, member_feed_service_client::MemberFeedServiceClient};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::time::Instant;
use tonic::Status;

/// The first pause before a stream that broke is opened again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Follow what happens.
#[derive(Subcommand)]
pub enum Watch {
    /// Follow what happens to members: a line of JSON for each event, with the member as it is by now.
    ///
    /// With a file for the position each line is printed at least once, whatever breaks: the position is written after the lines that
    /// it covers. An event that comes twice has the same `eventId`. Personal fields come masked without the scope `registry.pii`.
    Members(Members),
}

#[derive(Args)]
pub struct Members {
    /// The programme whose members to follow.
    #[arg(long, env = "KOC_PROGRAMME")]
    programme: String,
    /// Go on from the position in this file, and keep it there.
    #[arg(long)]
    position_file: Option<PathBuf>,
    /// Where there is no position yet, begin with all members as they are; without it with the oldest change that is kept.
    #[arg(long)]
    snapshot: bool,
    /// Only events of this kind, e.g. `created` or `tier-changed`; once for each.
    #[arg(long = "kind", value_parser = kind)]
    kinds: Vec<pb::MemberEventKind>,
    /// End when all that there is was printed, instead of waiting for more.
    #[arg(long)]
    once: bool,
    /// Address of the registry.
    #[arg(long, env = "KOC_REGISTRY_URL", default_value = "http://127.0.0.1:7401")]
    registry_url: String,
    #[command(flatten)]
    token: TokenArgs,
}

fn kind(text: &str) -> Result<pb::MemberEventKind, String> {
    let name = format!("MEMBER_EVENT_KIND_{}", text.replace('-', "_").to_ascii_uppercase());
    let kind = pb::MemberEventKind::from_str_name(&name);
    let asked = |kind: &pb::MemberEventKind| !matches!(kind, pb::MemberEventKind::Unspecified | pb::MemberEventKind::Snapshot);
    kind.filter(asked).ok_or_else(|| "no kind of event; e.g. created, updated, merged, tier-changed, erased".to_owned())
}

/// How a stream ended.
enum End {
    /// All was printed.
    Done,
    Broken(Status),
}

impl Watch {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Members(command) => command.run().await,
        }
    }
}

impl Members {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut position = self.position_file.as_deref().map_or(Ok(String::new()), read_position)?;
        let mut client = MemberFeedServiceClient::new(client::channel(&self.registry_url, &self.token.token()?)?);
        let (mut pause, mut give_up) = (FIRST_PAUSE, Instant::now() + PATIENCE);
        loop {
            let before = position.clone();
            let status = match self.stream(&mut client, &mut position).await? {
                End::Done => return Ok(ExitCode::SUCCESS),
                End::Broken(status) => status,
            };
            if position != before {
                (pause, give_up) = (FIRST_PAUSE, Instant::now() + PATIENCE);
            }
            if !client::passes(&status) || Instant::now() >= give_up {
                anyhow::bail!("{}{}", client::describe(&status), self.way_back(&status));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Prints what one stream brings; fails when it cannot be printed or the position cannot be kept.
    async fn stream(
        &self,
        client: &mut MemberFeedServiceClient<koc_chassis::peer::PeerChannel>,
        position: &mut String,
    ) -> anyhow::Result<End> {
        let request = pb::WatchMembersRequest {
            programme_id: self.programme.clone(),
            position: position.clone(),
            snapshot: self.snapshot && position.is_empty(),
            kinds: self.kinds.iter().map(|kind| *kind as i32).collect(),
            heartbeat_seconds: 0,
        };
        let mut stream = match client.watch_members(request).await {
            Ok(response) => response.into_inner(),
            Err(status) => return Ok(End::Broken(status)),
        };
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(End::Broken(Status::unavailable("the stream ended"))),
                Err(status) => return Ok(End::Broken(status)),
            };
            if !print(&message.events)? {
                return Ok(End::Done);
            }
            *position = message.position;
            if let Some(file) = &self.position_file {
                write_position(file, position)?;
            }
            if self.once && !message.in_snapshot && message.sequence >= message.head_sequence {
                return Ok(End::Done);
            }
        }
    }

    fn way_back(&self, status: &Status) -> String {
        match (reason_of(status).as_str(), &self.position_file) {
            ("POSITION_DROPPED" | "EPOCH_CHANGED", Some(file)) => {
                format!("\nto begin again, remove {} and call with --snapshot", file.display())
            }
            ("POSITION_DROPPED", None) => "\nto begin with what there is, call with --snapshot".to_owned(),
            _ => String::new(),
        }
    }
}

/// Prints events; false when nobody reads them any more.
fn print(events: &[pb::MemberEvent]) -> anyhow::Result<bool> {
    let mut lines = Vec::new();
    for event in events {
        serde_json::to_writer(&mut lines, &transcode::canonical(event).context("an event cannot be written as JSON")?)?;
        lines.push(b'\n');
    }
    let mut out = io::stdout().lock();
    match out.write_all(&lines).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("the events cannot be printed"),
    }
}

/// The position in a file; empty where there is none yet.
fn read_position(file: &Path) -> anyhow::Result<String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Keeps a position whole: a kill in the middle leaves the one before.
fn write_position(file: &Path, position: &str) -> anyhow::Result<()> {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = std::fs::write(&new, format!("{position}\n")).and_then(|()| std::fs::rename(&new, file));
    written.with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_people_write_them() {
        assert_eq!(kind("created"), Ok(pb::MemberEventKind::Created));
        assert_eq!(kind("tier-changed"), Ok(pb::MemberEventKind::TierChanged));
        assert_eq!(kind("TIER_CHANGED"), Ok(pb::MemberEventKind::TierChanged));
        for wrong in ["", "unspecified", "snapshot", "born"] {
            assert!(kind(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_position_is_kept_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("position");
        assert_eq!(read_position(&file).expect("none yet"), "");
        for position in ["first", "second"] {
            write_position(&file, position).expect("written");
            assert_eq!(read_position(&file).expect("read"), position);
        }
    }
}
