//! `koc`: the one binary of the suite. Each service runs as a process of its own; the other commands are clients, or set things up.

mod client;
mod demo;
mod dev;
mod export;
mod import;
mod migrate;
mod serve;
mod token;
mod watch;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Calls make many small allocations that end on other threads, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs a brand's programme for its key opinion consumers (KOC): who they are, what money goes where, what they are asked to do,
/// and what it was worth.
#[derive(Parser)]
#[command(name = "koc", version, propagate_version = true, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve one of the four services until SIGTERM or Ctrl-C.
    #[command(subcommand)]
    Serve(Box<serve::Serve>),
    /// Bring the schema of one service, or of all, to the newest version.
    Migrate(migrate::Migrate),
    /// Make a key that signs tokens, or a token.
    Token(token::Token),
    /// Bring data in from files.
    #[command(subcommand)]
    Import(import::Import),
    /// Follow what happens, as lines of JSON.
    #[command(subcommand)]
    Watch(watch::Watch),
    /// Give out what the suite holds.
    #[command(subcommand)]
    Export(export::Export),
    /// Play the whole loop on a sample, as a client would: two quarters, from a CRM export to decisions.
    Demo(demo::Demo),
    /// Run everything on this machine, with nothing else needed: Postgres, the four services, the demo.
    Dev(dev::Dev),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(command) => on_all_cores(command.run()),
        Command::Migrate(command) => on_all_cores(command.run()),
        Command::Token(command) => command.run(),
        Command::Import(command) => on_all_cores(command.run()),
        Command::Watch(command) => on_all_cores(command.run()),
        Command::Export(command) => on_all_cores(command.run()),
        Command::Demo(command) => on_all_cores(command.run()),
        // Its children end with the thread that started them, so that is the main one.
        Command::Dev(command) => command.run(),
    };
    done.unwrap_or_else(|error| {
        complain(&error);
        ExitCode::FAILURE
    })
}

fn on_all_cores(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

#[allow(clippy::print_stderr)]
fn complain(error: &anyhow::Error) {
    eprintln!("koc: {error:#}");
}
