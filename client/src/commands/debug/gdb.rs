//! `--stacks` and `--core`: the gdb that is here, once, over the same way as any other debugger.

use std::path::Path;
use std::process::ExitCode;

use tokio::process::Command;

use crate::cli::DebugArgs;
use crate::error::CommandError;

/// Runs gdb on ourselves with `--stdio`, whose words are ours without what gdb is for.
pub(super) async fn run(args: &DebugArgs, symbols: Option<&Path>) -> Result<ExitCode, CommandError> {
    let own = std::env::current_exe()
        .map_err(|error| CommandError::new("where devsync itself lies cannot be found").cause(error))?;
    let mut line = format!("target remote | {}", quoted(&own.to_string_lossy()));
    for word in to_stdio(std::env::args().skip(1)) {
        line.push(' ');
        line.push_str(&quoted(&word));
    }
    let mut gdb = Command::new("gdb");
    // Nothing that comes from the pod may run here.
    gdb.args([
        "-batch",
        "-nx",
        "-iex",
        "set auto-load off",
        "-iex",
        "set sysroot",
        "-iex",
        "set debuginfod enabled off",
    ]);
    gdb.args(symbols).args(["-ex", "set confirm off", "-ex", &line]);
    match &args.core {
        Some(file) => gdb.args(["-ex", &format!("generate-core-file {}", file.display())]),
        None => gdb.args(["-ex", "thread apply all backtrace"]),
    };
    let status = gdb.args(["-ex", "detach"]).stdin(std::process::Stdio::null()).status().await;
    let status = status.map_err(|error| {
        CommandError::new("gdb cannot be started").cause(error).hint("install gdb on this machine")
    })?;
    let is_written = args.core.as_ref().is_none_or(|file| file.is_file());
    match status.success() && is_written {
        true => Ok(ExitCode::SUCCESS),
        false => Err(CommandError::new("gdb did not do it").cause(status.to_string())),
    }
}

/// The same command line, as the other end of gdb's pipe.
fn to_stdio(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--core" | "--symbols" => drop(words.next()),
            "--stacks" => {}
            word if word.starts_with("--core=") || word.starts_with("--symbols=") => {}
            _ => kept.push(word),
        }
    }
    kept.push("--stdio".to_owned());
    kept
}

/// For the shell that gdb starts.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipe_has_the_same_target() {
        let words = ["debug", "deploy/demo", "--stacks", "-n", "shop", "--symbols", "a b", "--core=x"];
        let kept = to_stdio(words.into_iter().map(str::to_owned));
        assert_eq!(kept, ["debug", "deploy/demo", "-n", "shop", "--stdio"]);
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
