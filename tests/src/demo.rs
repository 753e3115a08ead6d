//! The demo: a program in namespaces of its own, changed while it runs. As a tour with explanations, or as a
//! check of three saves.

pub mod project;
pub mod tour;

use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::app::App;
use crate::attach::{Attach, Devsync};
use project::Project;

/// What is asked, and how often the question's answer is changed.
const PATH: &str = "/add/2/3";
const SAVES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the demo's parts are.
#[derive(Debug)]
pub struct Setup {
    pub devsync: Devsync,
    /// An empty directory for everything that the demo makes; its owner removes it.
    pub work: PathBuf,
    /// The directory with the demo's programs.
    pub sources: PathBuf,
}

/// Three saves without questions; prints the events of the attach, and fails unless each new answer was seen.
pub fn once(setup: &Setup, project: &Project) -> Result<()> {
    let app = project.start()?;
    let mut client = app.client();
    let arguments = project.attach(&app, &["-o", "json"]);
    let mut attach = Attach::start(project.devsync(setup, &arguments))?;
    for line in attach.first_sync()? {
        println!("{line}");
    }
    std::thread::scope(|scope| {
        // The client's thread lives in the program's network from its first question on.
        let check = scope.spawn(|| {
            for save in 0..=SAVES {
                if save > 0 {
                    project.change(save)?;
                }
                let begin = Instant::now();
                let wanted = Project::answer(save);
                let seen = client.wait_for(PATH, &wanted, begin + PATIENCE, || pass_on(&mut attach))?;
                eprintln!("demo: {wanted:?} after {} ms", seen.duration_since(begin).as_millis());
            }
            anyhow::Ok(())
        });
        check.join().map_err(|_| anyhow::anyhow!("the demo's thread panicked"))?
    })?;
    ensure!(app.alive(), "process {} has ended: it was not restarted in place", app.pid());
    while let Ok(line) = attach.events.try_recv() {
        println!("{line}");
    }
    let status = attach.stop()?;
    eprintln!(
        "demo: {SAVES} saves, {SAVES} new answers, still process {} · attach ended with {status}",
        app.pid()
    );
    Ok(())
}

/// Prints the next event, or returns after a moment without one.
fn pass_on(attach: &mut Attach) -> Result<()> {
    match attach.events.recv_timeout(Duration::from_millis(20)) {
        Ok(line) => println!("{line}"),
        Err(RecvTimeoutError::Timeout) => {}
        Err(RecvTimeoutError::Disconnected) => {
            anyhow::bail!("devsync attach has ended: {:?}", attach.ended()?);
        }
    }
    std::io::stdout().flush().context("write to standard output")
}

/// Says what the program answers now.
fn ask(app: &App) -> Result<String> {
    let mut client = app.client();
    std::thread::spawn(move || client.get(PATH))
        .join()
        .map_err(|_| anyhow::anyhow!("the client's thread panicked"))?
        .context("ask the program")
}
