//! A command that runs to its end where the app lives, its output line by line: as `devsync exec` finds and starts it,
//! without a terminal or an input.

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::sync::mpsc;

use crate::cluster;
use crate::connect::{Route, pod_of};
use crate::error::CommandError;
use crate::program::{End, Program, Wish};
use crate::way;

/// Longer lines are told in parts, in bytes.
const LINE: u64 = 8 * 1024;
/// Lines that [`ask`] keeps.
const KEPT: usize = 200;

/// Runs it and gives its end.
pub async fn run(route: Route, words: Vec<String>, lines: mpsc::Sender<String>) -> Result<End, CommandError> {
    let wish = Wish { words, stdin: false, terminal: None };
    if route.target.is_in_cluster() {
        let (cluster, pod) = pod_of(&route).await?;
        let program = cluster::exec(&cluster, &pod, &pod.container, &wish).await?;
        match carry(program, &lines).await? {
            End::Missing(_) if pod.has_agent => {}
            end => return Ok(end),
        }
    }
    let (program, way) = way::program(&route, &wish).await?;
    let end = carry(program, &lines).await;
    drop(way);
    end
}

async fn carry(program: Program, lines: &mpsc::Sender<String>) -> Result<End, CommandError> {
    let Program { stdin, stdout, stderr, control, end } = program;
    drop(stdin);
    let err = async {
        if let Some(stderr) = stderr {
            pass_on(stderr, lines).await;
        }
    };
    let (end, (), ()) = tokio::join!(end, pass_on(stdout, lines), err);
    drop(control);
    end
}

async fn pass_on(stream: impl AsyncRead + Unpin, lines: &mpsc::Sender<String>) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!((&mut stream).take(LINE).read_until(b'\n', &mut line).await, Ok(len) if len > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if lines.send(text).await.is_err() {
            return;
        }
    }
}

/// Runs it and gives its end and what it said.
pub async fn ask(route: &Route, words: Vec<String>) -> Result<(End, Vec<String>), CommandError> {
    let (to, mut lines) = mpsc::channel(KEPT);
    let kept = async {
        let mut kept = Vec::new();
        while let Some(line) = lines.recv().await {
            if kept.len() < KEPT {
                kept.push(line);
            }
        }
        kept
    };
    let (end, kept) = tokio::join!(run(route.clone(), words, to), kept);
    Ok((end?, kept))
}
