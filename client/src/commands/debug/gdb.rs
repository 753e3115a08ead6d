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
    let core = args.core.as_deref().map(reserve).transpose()?;
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
    let is_written = core.as_deref().is_none_or(|file| file.metadata().is_ok_and(|core| core.len() > 0));
    if status.success() && is_written {
        if let Some(core) = core {
            // Kept from here on.
            core.keep().map_err(|error| CommandError::new("the core file cannot be kept").cause(error))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    Err(CommandError::new("gdb did not do it").cause(status.to_string()))
}

/// The core's file, empty, before anything is stopped: it holds what the app holds, so it is its owner's alone.
fn reserve(path: &Path) -> Result<tempfile::TempPath, CommandError> {
    let mut options = std::fs::File::options();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let made = options.write(true).create_new(true).open(path);
    made.and_then(|_| tempfile::TempPath::try_from_path(path)).map_err(|error| {
        CommandError::usage(format!("--core {} cannot be written", path.display()))
            .cause(error)
            .hint("name a file that is not there yet, in a directory that is")
    })
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
