//! A program in a container through pods/exec: in the container's own cgroup, with its environment and its user.

use futures_util::SinkExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess, TerminalSize};
use tokio::sync::mpsc;

use super::Cluster;
use super::target::PodTarget;
use crate::error::{CommandError, Kind};
use crate::program::{Control, End, Program, Wish};
use crate::terminal::Size;

/// What a stream holds before who writes it has to wait.
const BUFFER: usize = 64 * 1024;

/// Starts `wish` in `container` of the pod.
pub async fn exec(
    cluster: &Cluster,
    target: &PodTarget,
    container: &str,
    wish: &Wish,
) -> Result<Program, CommandError> {
    let doing = format!("{} cannot be run in container {container} of {target}", wish.words.join(" "));
    let tty = wish.terminal.is_some();
    let params = AttachParams {
        container: Some(container.to_owned()),
        stdin: wish.stdin || tty,
        stdout: true,
        // A terminal joins both, and the server refuses to keep them apart then.
        stderr: !tty,
        tty,
        max_stdin_buf_size: Some(BUFFER),
        max_stdout_buf_size: Some(BUFFER),
        max_stderr_buf_size: Some(BUFFER),
    };
    let pods = cluster.pods();
    let mut process = cluster.ask(&doing, pods.exec(&target.pod, wish.words.iter(), &params)).await?;
    let (control, controls) = mpsc::channel(4);
    let sizes = process.terminal_size();
    if let (Some(size), Some(mut sizes)) = (wish.terminal, sizes) {
        let _ = sizes.send(terminal_size(size)).await;
        tokio::spawn(steer(controls, sizes));
    }
    let lost = || CommandError::new(doing.clone()).kind(Kind::Cluster).cause("it came without its streams");
    let stdin = process.stdin();
    let stdout = process.stdout().ok_or_else(lost)?;
    let stderr = process.stderr();
    Ok(Program {
        stdin: stdin.map(|s| Box::new(s) as _),
        stdout: Box::new(stdout),
        stderr: stderr.map(|s| Box::new(s) as _),
        control,
        end: Box::pin(ending(process, doing)),
    })
}

/// Whether the API server can close a program's input without ending the whole: since 1.30 (v5.channel.k8s.io).
pub async fn closes_input(cluster: &Cluster) -> Result<bool, CommandError> {
    Ok(cluster.version("the API server's version cannot be read").await? >= (1, 30))
}

fn terminal_size(size: Size) -> TerminalSize {
    TerminalSize { width: size.columns, height: size.rows }
}

/// Passes on what is told beside the input; ends with the program. An interrupt of a program with a terminal has come
/// as a byte of its input already.
async fn steer(
    mut controls: mpsc::Receiver<Control>,
    mut sizes: impl futures_util::Sink<TerminalSize> + Unpin,
) {
    while let Some(control) = controls.recv().await {
        let Control::Resize(size) = control else { continue };
        if sizes.send(terminal_size(size)).await.is_err() {
            return;
        }
    }
}

async fn ending(mut process: AttachedProcess, doing: String) -> Result<End, CommandError> {
    let status = match process.take_status() {
        Some(status) => status.await,
        None => None,
    };
    let Some(status) = status else {
        return Err(CommandError::new(format!("{doing} to its end"))
            .kind(Kind::Cluster)
            .cause("the connection ended before the program did")
            .hint("what was started may still run in the container"));
    };
    read_end(&status).map_err(|cause| CommandError::new(doing).kind(Kind::Cluster).cause(cause))
}

/// The API server's last word on a program.
fn read_end(status: &Status) -> Result<End, String> {
    if status.status.as_deref() == Some("Success") {
        return Ok(End::Exit(0));
    }
    let message = status.message.clone().unwrap_or_default();
    let causes = status.details.as_ref().and_then(|details| details.causes.as_deref()).unwrap_or_default();
    let code = causes.iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
    let code = code.and_then(|cause| cause.message.as_deref()?.parse::<i32>().ok());
    match code {
        // What the runtime gives for a program that it could not start; a program of that exit code says nothing here.
        Some(code) => Ok(End::Exit(u8::try_from(code.rem_euclid(256)).unwrap_or(u8::MAX))),
        None if is_missing(&message) => Ok(End::Missing(runtime_words(&message))),
        None => Err(message),
    }
}

/// runc's and crun's words for a program that is not there, or may not be executed.
fn is_missing(message: &str) -> bool {
    ["executable file not found", "no such file or directory", "permission denied"]
        .iter()
        .any(|words| message.contains(words))
}

/// The last part of `…: OCI runtime exec failed: exec failed: …: exec: "x": executable file not found in $PATH: unknown`.
fn runtime_words(message: &str) -> String {
    let words =
        message.rfind("exec: \"").and_then(|at| message.get(at + "exec: ".len()..)).unwrap_or(message);
    words.trim_end_matches(": unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn end(status: serde_json::Value) -> Result<End, String> {
        read_end(&serde_json::from_value(status).expect("a status"))
    }

    #[test]
    fn the_end_is_read_from_the_server_s_last_word() {
        assert_eq!(end(json!({"status": "Success"})), Ok(End::Exit(0)));
        let failed = |code: &str| {
            let causes = json!([{"reason": "ExitCode", "message": code}]);
            json!({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}, "message": "m"})
        };
        assert_eq!(end(failed("137")), Ok(End::Exit(137)));
        assert_eq!(end(failed("x")), Err("m".to_owned()));
        let words = "error executing command in container: OCI runtime exec failed: exec failed: unable to start \
                     container process: exec: \"nope\": executable file not found in $PATH: unknown";
        let missing = "\"nope\": executable file not found in $PATH".to_owned();
        assert_eq!(end(json!({"status": "Failure", "message": words})), Ok(End::Missing(missing)));
        assert_eq!(end(json!({"status": "Failure", "message": "gone"})), Err("gone".to_owned()));
    }
}
