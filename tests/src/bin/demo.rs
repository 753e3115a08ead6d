//! The demo's program; `scripts/demo` prepares and starts it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use devsync_tests::attach::Devsync;
use devsync_tests::demo::project::{Language, Project};
use devsync_tests::demo::{Setup, once, tour};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Arguments: the directory of the programs, an empty directory to work in, the demo's sources; then options.
fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut directory = || {
        arguments.next().map(PathBuf::from).context("usage: demo PROGRAMS WORK SOURCES [--once] [--python]")
    };
    let programs = directory()?;
    let work = directory()?;
    let devsync = Devsync::new(programs, work.join("home"))?;
    let setup = Setup { devsync, work, sources: directory()? };
    let (mut language, mut without_questions) = (Language::Rust, false);
    for option in arguments {
        match option.to_str() {
            Some("--once") => without_questions = true,
            Some("--python") => language = Language::Python,
            _ => bail!("unknown option {option:?}"),
        }
    }
    let project = Project::prepare(&setup, language)?;
    if without_questions { once(&setup, &project) } else { tour::run(&setup, &project) }
}
