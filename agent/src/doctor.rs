//! `devsync-agent doctor`: what the agent may do with the app here, first predicted, then tried, with what mends it.
//! It changes nothing: a write is tried with a file that has no name.

mod app;
mod editors;
mod machine;

use std::io::{self, Write};

use devsync_protocol::finding::Finding;

use crate::target::find::{self, Query};

#[derive(Debug, clap::Args)]
pub struct DoctorArgs {
    /// Which process is the app: pid/N, container/ID or mnt/INODE; by default the only other container here.
    #[arg(long, value_name = "TARGET", default_value = "auto")]
    pub target: Query,
}

/// Prints the findings; problems are findings too, and no failure.
pub fn run(args: &DoctorArgs) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for finding in look(&args.target) {
        writeln!(out, "{finding}")?;
    }
    out.flush()
}

fn look(query: &Query) -> Vec<Finding> {
    let mut found = machine::look();
    match find::find(query) {
        Ok(target) => found.extend(app::look(&target)),
        Err(error) => {
            let fix = error.hint().unwrap_or_default();
            found.push(Finding::problem("app", error.to_string(), fix));
        }
    }
    found
}
