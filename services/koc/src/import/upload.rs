//! `koc import members`: the rows of a file through the registry's stream, each accounted for.

use super::{MappedRow, Mapping, MemberFile, Motivation, Purpose, Reject, RejectFile, Row};
use crate::client::{self, PATIENCE, TokenArgs};
use anyhow::Context;
use clap::{Args, Subcommand};
use csv::StringRecord;
use koc_chassis::{clock, peer::PeerChannel};
use koc_proto::{
    google::rpc::Status as Wire,
    koc::registry::v1::{self as pb, sync_service_client::SyncServiceClient},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic_types::RpcStatusExt;

/// Rows in one batch: what the registry takes at once.
const BATCH: usize = 500;
/// Exit code when rows were rejected and all others went in.
const SOME_REJECTED: u8 = 3;

/// Bring data in from files.
#[derive(Subcommand)]
pub enum Import {
    /// Bring members in from a CRM's CSV export.
    ///
    /// Every row is accounted for: created, updated, unchanged, stale, merged, suppressed as of a person who was erased, or
    /// rejected with all that is wrong with it. Rejected rows go to a file that can be mended and imported with the same mapping. Importing a file again changes nothing. Exit code 0: all rows went
    /// in; 3: some were rejected; 1: the import broke off.
    Members(Members),
}

#[derive(Args)]
pub struct Members {
    /// The CSV export, in UTF-8.
    file: PathBuf,
    /// Which column is what (TOML); services/koc/sample/hubspot.toml is one.
    #[arg(long)]
    mapping: PathBuf,
    /// The programme to bring them into.
    #[arg(long, env = "KOC_PROGRAMME")]
    programme: String,
    /// Where rejected rows go; by default beside the file, with `.rejected.csv` added.
    #[arg(long)]
    rejects: Option<PathBuf>,
    /// Say what would happen and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Address of the registry.
    #[arg(long, env = "KOC_REGISTRY_URL", default_value = "http://127.0.0.1:7401")]
    registry_url: String,
    #[command(flatten)]
    token: TokenArgs,
}

/// How often something was found, by column and reason.
pub type Tally = BTreeMap<String, u64>;

/// How many rows became what.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub created: u64,
    pub updated: u64,
    pub unchanged: u64,
    pub stale: u64,
    /// Applied to the member that the row's own was merged into.
    pub merged: u64,
    /// Of a person who was erased: nothing was kept.
    pub suppressed: u64,
    pub rejected: u64,
    /// Why rows were rejected; a row may have several reasons.
    pub reasons: Tally,
    /// Values that were left out of rows that are otherwise fine.
    pub left_out: Tally,
}

impl Counts {
    pub fn rows(&self) -> u64 {
        self.created + self.updated + self.unchanged + self.stale + self.merged + self.suppressed + self.rejected
    }

    fn reject(&mut self, why: &[Reject]) {
        self.rejected += 1;
        for reject in why {
            *self.reasons.entry(format!("{} {}", reject.column, reject.reason).trim_start().to_owned()).or_default() += 1;
        }
    }
}

impl Import {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Members(command) => command.run().await,
        }
    }
}

impl Members {
    #[allow(clippy::print_stdout)]
    async fn run(self) -> anyhow::Result<ExitCode> {
        let text = std::fs::read_to_string(&self.mapping)
            .with_context(|| format!("cannot read the mapping {}", self.mapping.display()))?;
        let mapping = Mapping::parse(&text).with_context(|| self.mapping.display().to_string())?;
        let file = File::open(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let mut members = MemberFile::open(file, &mapping).with_context(|| self.file.display().to_string())?;
        let rejects = self.rejects.clone().unwrap_or_else(|| {
            let mut name = self.file.clone().into_os_string();
            name.push(".rejected.csv");
            name.into()
        });
        let mut rejects = RejectFile::new(rejects, members.header(), mapping.delimiter());
        let channel = client::channel(&self.registry_url, &self.token.token()?)?;
        let started = Instant::now();
        let mut uploader = Uploader::new(channel, self.programme.clone(), &mapping, self.dry_run);
        let counts = uploader.upload(&mut members, |line, cells, why| Ok(rejects.write(line, cells, why)?)).await?;

        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{} rows in {seconds:.1} s: {} created, {} updated, {} unchanged, {} stale, {} merged, {} suppressed, {} rejected{}",
            counts.rows(),
            counts.created,
            counts.updated,
            counts.unchanged,
            counts.stale,
            counts.merged,
            counts.suppressed,
            counts.rejected,
            if self.dry_run { " (dry run: nothing was changed)" } else { "" },
        );
        tell("values were left out of rows that are otherwise fine", &counts.left_out);
        tell("reasons to reject", &counts.reasons);
        if let Some((path, rows)) = rejects.finish()? {
            println!("{rows} rejected rows are in {}", path.display());
            return Ok(ExitCode::from(SOME_REJECTED));
        }
        Ok(ExitCode::SUCCESS)
    }
}

#[allow(clippy::print_stdout)]
fn tell(what: &str, tally: &Tally) {
    if !tally.is_empty() {
        println!("{} {what}:", tally.values().sum::<u64>());
    }
    for (found, n) in tally {
        println!("  {n} × {found}");
    }
}

/// Sends rows in batches over a stream, and over a new one when it breaks: rows are their own key, so a batch sent twice counts
/// once.
pub struct Uploader<'m> {
    client: SyncServiceClient<PeerChannel>,
    programme: String,
    mapping: &'m Mapping,
    dry_run: bool,
    stream: Option<Open>,
}

struct Open {
    sender: mpsc::Sender<pb::SyncMembersRequest>,
    answers: tonic::Streaming<pb::SyncMembersResponse>,
    /// Number of the last batch that was sent.
    sent: i64,
}

struct Pending {
    line: u64,
    cells: StringRecord,
    row: pb::MemberRow,
}

impl<'m> Uploader<'m> {
    pub fn new(channel: PeerChannel, programme: String, mapping: &'m Mapping, dry_run: bool) -> Self {
        Self { client: SyncServiceClient::new(channel), programme, mapping, dry_run, stream: None }
    }

    /// Sends all rows of a file. `rejected` gets each rejected row with its line, its cells and all reasons.
    pub async fn upload<R: Read + Seek>(
        &mut self,
        file: &mut MemberFile<'_, R>,
        mut rejected: impl FnMut(u64, &StringRecord, &[Reject]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Counts> {
        let mut counts = Counts::default();
        let mut batch: Vec<Pending> = Vec::with_capacity(BATCH);
        for row in file {
            let Row { line, cells, outcome } = row?;
            match outcome {
                Ok(mapped) => {
                    for warning in &mapped.warnings {
                        *counts.left_out.entry(format!("{}: {}", warning.column, warning.reason)).or_default() += 1;
                    }
                    batch.push(Pending { line, cells, row: to_row(mapped) });
                }
                Err(why) => {
                    counts.reject(&why);
                    rejected(line, &cells, &why)?;
                }
            }
            if batch.len() == BATCH {
                self.settle(&mut batch, &mut counts, &mut rejected).await?;
            }
        }
        self.settle(&mut batch, &mut counts, &mut rejected).await?;
        Ok(counts)
    }

    async fn settle(
        &mut self,
        batch: &mut Vec<Pending>,
        counts: &mut Counts,
        rejected: &mut impl FnMut(u64, &StringRecord, &[Reject]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let rows: Vec<pb::MemberRow> = batch.iter().map(|p| p.row.clone()).collect();
        let results = self.send(rows).await?;
        anyhow::ensure!(results.len() == batch.len(), "the registry answered {} of {} rows", results.len(), batch.len());
        for (pending, result) in batch.drain(..).zip(results) {
            match result.outcome() {
                pb::SyncOutcome::Created => counts.created += 1,
                pb::SyncOutcome::Updated => counts.updated += 1,
                pb::SyncOutcome::Unchanged => counts.unchanged += 1,
                pb::SyncOutcome::Stale => counts.stale += 1,
                pb::SyncOutcome::Merged => counts.merged += 1,
                pb::SyncOutcome::Suppressed => counts.suppressed += 1,
                pb::SyncOutcome::Rejected => {
                    let why = reasons(pending.line, result.status.as_ref(), self.mapping);
                    counts.reject(&why);
                    rejected(pending.line, &pending.cells, &why)?;
                }
                pb::SyncOutcome::Unspecified => anyhow::bail!("the registry gave line {} no outcome", pending.line),
            }
        }
        Ok(())
    }

    async fn send(&mut self, rows: Vec<pb::MemberRow>) -> anyhow::Result<Vec<pb::MemberRowResult>> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.try_send(rows.clone()).await {
                Ok(results) => return Ok(results),
                Err(status) if client::passes(&status) && Instant::now() < give_up => {
                    self.stream = None;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(status) => anyhow::bail!("the registry refused a batch: {}", client::describe(&status)),
            }
        }
    }

    async fn try_send(&mut self, rows: Vec<pb::MemberRow>) -> Result<Vec<pb::MemberRowResult>, Status> {
        let lost = || Status::unavailable("the stream ended");
        let mut open = match self.stream.take() {
            Some(open) => open,
            None => {
                let (sender, receiver) = mpsc::channel(1);
                let answers = self.client.sync_members(ReceiverStream::new(receiver)).await?.into_inner();
                Open { sender, answers, sent: 0 }
            }
        };
        open.sent += 1;
        let request = pb::SyncMembersRequest {
            programme_id: self.programme.clone(),
            source_system: self.mapping.source_system().to_owned(),
            batch_number: open.sent,
            rows,
            validate_only: self.dry_run,
        };
        // When the server has ended the stream, its reason is in the answers.
        let sent = open.sender.send(request).await;
        let answer = open.answers.message().await?.ok_or_else(lost)?;
        sent.map_err(|_| lost())?;
        if answer.committed_through != open.sent {
            return Err(Status::data_loss(format!("batch {} was answered as {}", open.sent, answer.committed_through)));
        }
        self.stream = Some(open);
        Ok(answer.results)
    }
}

fn to_row(mapped: MappedRow) -> pb::MemberRow {
    pb::MemberRow {
        external_id: mapped.external_id,
        source_time: Some(clock::to_proto(mapped.source_time)),
        profile: Some(pb::MemberProfile {
            display_name: mapped.display_name.unwrap_or_default(),
            email: mapped.email.unwrap_or_default(),
            phone: mapped.phone.unwrap_or_default(),
            region_code: mapped.region.unwrap_or_default(),
            city: mapped.city.unwrap_or_default(),
            channels: mapped
                .channels
                .into_iter()
                .map(|c| pb::Channel { platform: c.platform, handle: c.handle, followers: c.followers })
                .collect(),
            vehicles: mapped
                .vehicles
                .into_iter()
                .map(|v| pb::Vehicle { model: v.model.unwrap_or_default(), vin: v.vin.unwrap_or_default() })
                .collect(),
            motivations: mapped.motivations.into_iter().map(|m| motivation(m).into()).collect(),
            tags: mapped.tags,
            consents: mapped
                .consents
                .into_iter()
                .map(|c| pb::Consent { purpose: purpose(c.purpose).into(), granted: c.granted })
                .collect(),
        }),
        clear_fields: Vec::new(),
    }
}

fn motivation(motivation: Motivation) -> pb::Motivation {
    match motivation {
        Motivation::Helping => pb::Motivation::Helping,
        Motivation::Mastery => pb::Motivation::Mastery,
        Motivation::Gathering => pb::Motivation::Gathering,
        Motivation::Recognition => pb::Motivation::Recognition,
        Motivation::Reward => pb::Motivation::Reward,
    }
}

fn purpose(purpose: Purpose) -> pb::ConsentPurpose {
    match purpose {
        Purpose::Participation => pb::ConsentPurpose::Participation,
        Purpose::Profiling => pb::ConsentPurpose::Profiling,
        Purpose::ContentUse => pb::ConsentPurpose::ContentUse,
        Purpose::Contact => pb::ConsentPurpose::Contact,
    }
}

/// What the registry said against a row, in the shape of the file's own rejects.
fn reasons(line: u64, status: Option<&Wire>, mapping: &Mapping) -> Vec<Reject> {
    let Some(status) = status else { return Vec::new() };
    let whole = tonic_types::Status { code: status.code, message: status.message.clone(), details: status.details.clone() };
    let details = whole.get_error_details();
    let violations = details.bad_request().map(|b| b.field_violations.as_slice()).unwrap_or_default();
    let reject = |column: &str, reason: &str| Reject {
        line,
        column: column.to_owned(),
        reason: reason.to_owned(),
        value_shape: String::new(),
    };
    if violations.is_empty() {
        return vec![reject("", &status.message)];
    }
    violations.iter().map(|v| reject(mapping.column_of(&v.field).unwrap_or(&v.field), &v.description)).collect()
}
