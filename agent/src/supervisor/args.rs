//! devsync-run's command line, parsed by hand: a parser library would be larger than the supervisor.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use devsync_protocol::contract;

pub const HELP: &str = "\
Runs APP as a child, so that it can be restarted without ending the container.

Usage: devsync-run [OPTIONS] [--] APP [ARGS]...
       devsync-run install DIR
       devsync-run seed FROM TO

Options:
      --wait        Do not start APP before the devsync agent asks for it, which
                    it does when the first sync is in place
      --waited FILE With --wait: FILE is made at that start, and where it is
                    there already APP starts at once. It belongs into the volume
                    that APP's files are in
      --exec-copy DIR
                    If APP lies directly in `/`, start DIR/NAME in its place;
                    where that is missing, APP is copied there first
      --grace TIME  Between SIGTERM and SIGKILL at a restart: seconds, or with
                    a unit as in 500ms, 2.5s [default: 5s]
      --no-hold     After a crash start APP again by itself: after 0.5 s, twice
                    as long each time up to 8 s; a run of 10 s starts over
  -h, --help        Print this help
  -V, --version     Print the version

APP that exits with 0 ends devsync-run with 0. After a crash (another status, a
signal, or an APP that cannot be started) devsync-run stays (crash-hold), says
so in one line, and the next restart starts APP again. After SIGTERM or SIGINT
APP's own status is passed on: its exit code, or 128 + the signal. APP that
cannot be started is 127 when it is missing, else 126.

The devsync agent asks for a restart through an abstract socket, which answers
only root and the uid that devsync-run has. A restart ends APP's process group
with SIGTERM and, after the grace time, every descendant with SIGKILL. Signals
are forwarded to APP's process group. On a terminal APP is in the foreground
and writes to it directly; otherwise its last 64 KiB of output are kept.

`install` copies this program to DIR/devsync-run, in one step. `seed` copies the
directory FROM, with modes, times and links, to TO, which appears when it is
complete; if TO is there already, nothing is done. An APP that is called
`install` or `seed` goes behind `--`.
";

/// What to supervise, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The program and its arguments, never empty.
    pub argv: Vec<OsString>,
    pub grace: Duration,
    pub hold: bool,
    /// The first start waits for a request.
    pub wait: bool,
    /// Made at that start; where it is, nothing is waited for.
    pub waited: Option<PathBuf>,
    /// Where the copy of a program that lies in `/` is started from.
    pub exec_copy: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run(Config),
    /// Copy this program into a directory.
    Install(PathBuf),
    /// Copy a directory for a volume.
    Seed {
        from: PathBuf,
        to: PathBuf,
    },
    Help,
    Version,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UsageError {
    #[error("no APP given")]
    NoApp,
    #[error("unknown option '{0}'")]
    UnknownOption(String),
    #[error("option '{0}' needs a value")]
    NoValue(&'static str),
    #[error("devsync-run {0}, and nothing more")]
    Words(&'static str),
    #[error("--exec-copy needs an absolute directory other than `/`, not '{0}'")]
    CopyDir(String),
    #[error("'{0}' is not a time: seconds, or with a unit as in 500ms or 5s, at most one hour")]
    BadTime(String),
}

/// Parses what follows the program's own name. Options end at `--` or at APP, whatever APP's arguments look like.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut args = args.into_iter().peekable();
    match args.peek().and_then(|first| first.to_str()) {
        Some(contract::RUN_INSTALL) => return install(args.skip(1)),
        Some(contract::RUN_SEED) => return seed(args.skip(1)),
        _ => {}
    }
    let grace = Duration::from_secs(5);
    let mut config =
        Config { argv: Vec::new(), grace, hold: true, wait: false, waited: None, exec_copy: None };
    while let Some(arg) = args.next() {
        let text = arg.to_str().unwrap_or_default();
        let (name, value) =
            text.split_once('=').map_or((text, None), |(name, value)| (name, Some(OsString::from(value))));
        let mut value = |option| value.clone().or_else(|| args.next()).ok_or(UsageError::NoValue(option));
        match name {
            "--" if text == "--" => break,
            "-h" | "--help" if text == name => return Ok(Command::Help),
            "-V" | "--version" if text == name => return Ok(Command::Version),
            "--no-hold" if text == name => config.hold = false,
            contract::RUN_WAIT if text == name => config.wait = true,
            contract::RUN_WAITED => {
                config.waited = Some(value(contract::RUN_WAITED)?.into());
            }
            "--grace" => config.grace = parse_time(&value("--grace")?.to_string_lossy())?,
            contract::RUN_EXEC_COPY => {
                config.exec_copy = Some(copy_dir(value(contract::RUN_EXEC_COPY)?.into())?)
            }
            _ if arg.as_encoded_bytes().starts_with(b"-") => {
                return Err(UsageError::UnknownOption(arg.to_string_lossy().into_owned()));
            }
            _ => {
                config.argv.push(arg);
                break;
            }
        }
    }
    config.argv.extend(args);
    if config.argv.is_empty() { Err(UsageError::NoApp) } else { Ok(Command::Run(config)) }
}

fn copy_dir(dir: PathBuf) -> Result<PathBuf, UsageError> {
    if dir.is_absolute() && dir.parent().is_some() {
        return Ok(dir);
    }
    Err(UsageError::CopyDir(dir.to_string_lossy().into_owned()))
}

fn install(mut words: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    match (words.next(), words.next()) {
        (Some(dir), None) if !dir.is_empty() => Ok(Command::Install(dir.into())),
        _ => Err(UsageError::Words("install takes a directory")),
    }
}

fn seed(mut words: impl Iterator<Item = OsString>) -> Result<Command, UsageError> {
    match (words.next(), words.next(), words.next()) {
        (Some(from), Some(to), None) if !from.is_empty() && !to.is_empty() => {
            Ok(Command::Seed { from: from.into(), to: to.into() })
        }
        _ => Err(UsageError::Words("seed takes two directories, FROM and TO")),
    }
}

fn parse_time(text: &str) -> Result<Duration, UsageError> {
    let bad = || UsageError::BadTime(text.to_owned());
    let (number, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 0.001),
        (None, Some(number)) => (number, 1.0),
        (None, None) => (text, 1.0),
    };
    let seconds = number.parse::<f64>().map_err(|_| bad())? * unit;
    if (0.0..=3600.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(bad()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Command, UsageError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    fn config(line: &str) -> Config {
        match words(line) {
            Ok(Command::Run(config)) => config,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_of_the_app_stay_the_apps() {
        assert_eq!(config("--no-hold -- app --help --").argv, ["app", "--help", "--"]);
        assert_eq!(config("app --grace 3").argv, ["app", "--grace", "3"]);
        assert_eq!(config("-- -h").argv, ["-h"]);
        assert!(!config("--no-hold app").hold);
        assert!(config("app --no-hold").hold);
    }

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(config("--grace 250ms x").grace, Duration::from_millis(250));
        assert_eq!(config("--grace=2.5s x").grace, Duration::from_millis(2500));
        assert_eq!(config("--grace 0 x").grace, Duration::ZERO);
        for bad in ["-1", "NaN", "inf", "", "5m", "1e9"] {
            assert_eq!(words(&format!("--grace={bad} x")), Err(UsageError::BadTime(bad.to_owned())));
        }
    }

    #[test]
    fn install_and_seed_are_commands_and_behind_dashes_an_app() {
        assert_eq!(words("install /x"), Ok(Command::Install("/x".into())));
        assert_eq!(words("seed /a /b"), Ok(Command::Seed { from: "/a".into(), to: "/b".into() }));
        assert_eq!(config("-- install /x").argv, ["install", "/x"]);
        for bad in ["install", "install a b", "seed a", "seed a b c"] {
            assert!(matches!(words(bad), Err(UsageError::Words(_))), "{bad}");
        }
    }

    #[test]
    fn waiting_and_the_copys_directory_are_options() {
        let all = config("--wait --exec-copy /volume --grace=1 -- /adder --wait");
        assert_eq!((all.wait, all.exec_copy.as_deref()), (true, Some(std::path::Path::new("/volume"))));
        assert_eq!(all.argv, ["/adder", "--wait"]);
        assert_eq!(config("--exec-copy=/volume /adder").exec_copy, Some("/volume".into()));
        for bad in ["/", "work", "", "//"] {
            assert_eq!(words(&format!("--exec-copy={bad} x")), Err(UsageError::CopyDir(bad.to_owned())));
        }
        assert_eq!(config("--wait --waited /volume/waited /adder").waited, Some("/volume/waited".into()));
        assert_eq!(words("--wait=1 x"), Err(UsageError::UnknownOption("--wait=1".into())));
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        assert_eq!(words(""), Err(UsageError::NoApp));
        assert_eq!(words("--"), Err(UsageError::NoApp));
        assert_eq!(words("--grace"), Err(UsageError::NoValue("--grace")));
        assert_eq!(words("--hold x"), Err(UsageError::UnknownOption("--hold".into())));
    }
}
