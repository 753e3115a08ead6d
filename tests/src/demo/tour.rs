//! The demo for a person at a terminal: explains each step, waits for Enter, and shows the answers.

use std::io::{self, BufRead, Write};
use std::process::Stdio;

use anyhow::{Context, Result};

use super::project::Project;
use super::{PATH, Setup, ask};

/// Leads through attach and any number of saves; ends at `q` or at the end of input.
pub fn run(setup: &Setup, project: &Project) -> Result<()> {
    let app = project.start()?;
    println!("\nA program runs in namespaces of its own: process {}, uid {}.", app.pid(), crate::app::UID);
    println!("  GET {PATH}  →  {}", ask(&app)?);
    println!("Its source is in {}.", project.laptop.display());
    let arguments = project.attach(&app, &[]);
    println!("\nThe next step is, from that directory:\n  devsync {}", quoted(&arguments));
    if !enter("Press Enter to attach. ")? {
        return Ok(());
    }
    let mut command = project.devsync(setup, &arguments);
    let mut attach = command.stdout(Stdio::inherit()).spawn().context("start devsync attach")?;
    println!("\nNow change {} in an editor and save it.", project.source.display());
    let mut save = 0;
    while enter("Enter: the demo changes a line for you · q: end\n")? {
        println!("  GET {PATH}  →  {}", ask(&app)?);
        save += 1;
        project.change(save)?;
        if !enter("Saved. When devsync has said what it did: Enter to ask again. ")? {
            break;
        }
        println!("  GET {PATH}  →  {}   (still process {})\n", ask(&app)?, app.pid());
    }
    attach.kill().context("end devsync attach")?;
    attach.wait()?;
    Ok(())
}

fn enter(prompt: &str) -> Result<bool> {
    print!("{prompt}");
    io::stdout().flush()?;
    let mut line = String::new();
    Ok(io::stdin().lock().read_line(&mut line)? > 0 && line.trim() != "q")
}

fn quoted(arguments: &[String]) -> String {
    let words =
        arguments.iter().map(|word| if word.contains(' ') { format!("'{word}'") } else { word.clone() });
    words.collect::<Vec<_>>().join(" ")
}
