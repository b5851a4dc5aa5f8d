//! `koc import members`: the rows of a file through the registry's stream, each accounted for.

use super::{Mapping, MemberFile, Reject, RejectFile, RunPlan, Uploader, progress::Progress, uploader};
use crate::client::{self, TokenArgs};
use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use csv::StringRecord;
use koc_chassis::clock;
use koc_proto::koc::registry::v1 as pb;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Seek},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};
use tokio::time::Instant;
use uploader::{Listener, Tally, Upload};

/// Exit code when rows were rejected and all others went in.
const SOME_REJECTED: u8 = 3;
/// Exit code when a full import waits for a person's word.
const HELD: u8 = 4;
/// How long the end of a full import is waited for, and how often it is looked at.
const SWEEP_PATIENCE: Duration = Duration::from_secs(60 * 60);
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

/// Bring data in from files.
#[derive(Subcommand)]
pub enum Import {
    /// Bring members in from a CRM's CSV export.
    ///
    /// Every row is accounted for: created, updated, unchanged, stale, merged, deleted, suppressed as of a person who was erased, or rejected
    /// with all that is wrong with it. Rejected rows go to a file that can be mended and imported with the same mapping. Importing a file
    /// again changes nothing; an import that was killed goes on where it was when it is started again. Exit code 0: all rows went in; 3: some
    /// were rejected; 4: a full import waits for a person's word; 1: the import broke off.
    Members(Members),
}

/// What the rows of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// What changed: says nothing of persons that the file lacks.
    Incremental,
    /// All that the CRM has: persons of it that the file lacks are deleted.
    Full,
}

#[derive(Args)]
pub struct Members {
    /// The CSV export, in UTF-8.
    file: PathBuf,
    /// Which column is what (TOML); services/koc/sample has one for HubSpot and one for Salesforce.
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
    /// What the rows are.
    #[arg(long, value_enum, default_value = "incremental")]
    mode: Mode,
    /// When the export was made (RFC 3339), for `--mode full`: whom the CRM changed later is not deleted. By default when the file was last
    /// written.
    #[arg(long)]
    as_of: Option<DateTime<Utc>>,
    /// For `--mode full`: the largest share of the CRM's members that is deleted without a person's word, in percent.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..=20))]
    max_delete_percent: Option<i32>,
    /// What the run is called at the registry; by default it follows from file, mapping and settings.
    #[arg(long)]
    run_name: Option<String>,
    /// Address of the registry.
    #[arg(long, env = "KOC_REGISTRY_URL", default_value = "http://127.0.0.1:7401")]
    registry_url: String,
    #[command(flatten)]
    token: TokenArgs,
}

impl Import {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Members(command) => command.run().await,
        }
    }
}

/// Writes rejected rows to their file, and shows how far the import is.
struct Witness {
    rejects: RejectFile,
    progress: Progress,
}

impl Listener for Witness {
    fn rejected(&mut self, line: u64, cells: &StringRecord, why: &[Reject]) -> anyhow::Result<()> {
        Ok(self.rejects.write(line, cells, why)?)
    }

    fn at(&mut self, rows: u64, bytes: u64) {
        self.progress.at(rows, bytes);
    }
}

impl Members {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let text = std::fs::read_to_string(&self.mapping)
            .with_context(|| format!("cannot read the mapping {}", self.mapping.display()))?;
        let mapping = Mapping::parse(&text).with_context(|| self.mapping.display().to_string())?;
        let mut file = File::open(&self.file).with_context(|| format!("cannot read {}", self.file.display()))?;
        let plan = self.plan(&mut file, &text)?;
        let bytes = file.metadata()?.len();
        let mut members = MemberFile::open(file, &mapping).with_context(|| self.file.display().to_string())?;
        let rejects = self.rejects.clone().unwrap_or_else(|| {
            let mut name = self.file.clone().into_os_string();
            name.push(".rejected.csv");
            name.into()
        });
        let rejects = RejectFile::new(rejects, members.header(), mapping.delimiter());
        let channel = client::channel(&self.registry_url, &self.token.token()?)?;
        let started = Instant::now();
        let mut uploader = Uploader::new(channel, self.programme.clone(), &mapping, plan);
        let mut witness = Witness { rejects, progress: Progress::new(bytes) };
        let upload = uploader.upload(&mut members, &mut witness).await;
        witness.progress.end();
        let mut upload = upload?;
        // Whatever becomes of that, what was brought in is told of, and what was rejected is kept.
        let swept = match self.mode {
            Mode::Full => swept(&uploader).await.map(|run| upload.run = run),
            Mode::Incremental => Ok(()),
        };
        report(&upload, started.elapsed(), self.dry_run);
        if let Some((path, rows)) = witness.rejects.finish()? {
            say(&format!("{rows} rejected rows are in {}", path.display()));
        }
        swept?;
        Ok(match upload.run.state() {
            pb::SyncRunState::Held => ExitCode::from(HELD),
            _ if upload.rejected() > 0 => ExitCode::from(SOME_REJECTED),
            _ => ExitCode::SUCCESS,
        })
    }

    /// What the run is opened with. Reads the file once, and leaves it at its beginning.
    fn plan(&self, file: &mut File, mapping: &str) -> anyhow::Result<RunPlan> {
        let as_of = match (self.mode, self.as_of) {
            (_, Some(as_of)) => Some(as_of),
            (Mode::Full, None) => Some(DateTime::<Utc>::from(file.metadata()?.modified()?)),
            (Mode::Incremental, None) => None,
        };
        let mut hash = Sha256::new();
        io::copy(file, &mut hash)?;
        file.rewind()?;
        let settings = format!("{mapping}\0{:?}\0{as_of:?}\0{:?}\0{}", self.mode, self.max_delete_percent, self.dry_run);
        hash.update(settings);
        Ok(RunPlan {
            name: self.run_name.clone().unwrap_or_else(|| format!("file-{}", hex::encode(&hash.finalize()[..16]))),
            chosen: self.run_name.is_some(),
            mode: match self.mode {
                Mode::Incremental => pb::SyncMode::Incremental,
                Mode::Full => pb::SyncMode::Full,
            },
            as_of: as_of.map(clock::to_proto),
            max_delete_percent: self.max_delete_percent,
            dry_run: self.dry_run,
        })
    }
}

/// The run once it has deleted whom it did not see, or waits for a person's word.
async fn swept(uploader: &Uploader<'_>) -> anyhow::Result<pb::SyncRun> {
    let give_up = Instant::now() + SWEEP_PATIENCE;
    loop {
        let run = uploader.look().await?;
        if matches!(run.state(), pb::SyncRunState::Ended | pb::SyncRunState::Held | pb::SyncRunState::Lapsed) {
            return Ok(run);
        }
        anyhow::ensure!(Instant::now() < give_up, "the run {} still deletes; GetSyncRun tells of it", run.sync_run_id);
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
}

fn report(upload: &Upload, took: Duration, dry_run: bool) {
    use pb::SyncOutcome as Outcome;
    let Upload { run, .. } = upload;
    if upload.resumed_behind > 0 {
        say(&format!("went on behind batch {}, which an earlier import had committed", upload.resumed_behind));
    }
    say(&format!(
        "{} rows in {:.1} s: {} created, {} updated, {} unchanged, {} stale, {} merged, {} deleted, {} suppressed, {} rejected{}",
        upload.rows,
        took.as_secs_f64(),
        upload.count(Outcome::Created),
        upload.count(Outcome::Updated),
        upload.count(Outcome::Unchanged),
        upload.count(Outcome::Stale),
        upload.count(Outcome::Merged),
        upload.count(Outcome::Deleted),
        upload.count(Outcome::Suppressed),
        upload.rejected(),
        if dry_run { " (dry run: nothing was changed)" } else { "" },
    ));
    if run.mode() == pb::SyncMode::Full {
        let (unseen, source) = (run.unseen_identities, run.source_identities);
        say(&format!("{unseen} of the {source} persons of {} are not in the file", run.source_system));
        match run.state() {
            pb::SyncRunState::Checking | pb::SyncRunState::Sweeping => {
                say(&format!("the run {} goes on at the registry; GetSyncRun tells of it", run.sync_run_id));
            }
            pb::SyncRunState::Held => say(&format!(
                "that is more than {} %, or an id could not be read: nobody was deleted. Another person may confirm the run {} by ConfirmSweep",
                run.max_delete_percent, run.sync_run_id
            )),
            _ => say(&format!("{} were deleted", run.swept_identities)),
        }
    }
    tell("values were left out of rows that are otherwise fine", &upload.left_out);
    tell("values were left alone, as the field belongs to another system", &upload.ignored);
    tell("reasons to reject", &upload.reasons);
    if !upload.untold.is_empty() {
        say(&format!("rows that the earlier import had rejected are not in the file of rejected rows: {}", upload.untold));
    }
}

fn tell(what: &str, tally: &Tally) {
    if !tally.is_empty() {
        say(&format!("{} {what}:", tally.values().sum::<u64>()));
    }
    for (found, n) in tally {
        say(&format!("  {n} × {found}"));
    }
}

#[allow(clippy::print_stdout)]
fn say(line: &str) {
    println!("{line}");
}
