//! devsync-run's command line, parsed by hand: a parser library would be larger than the supervisor.

use std::ffi::OsString;
use std::time::Duration;

pub const HELP: &str = "\
Runs APP as a child, so that it can be restarted without ending the container.

Usage: devsync-run [OPTIONS] [--] APP [ARGS]...

Options:
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
";

/// What to supervise, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The program and its arguments, never empty.
    pub argv: Vec<OsString>,
    pub grace: Duration,
    pub hold: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    Run(Config),
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
    #[error("'{0}' is not a time: seconds, or with a unit as in 500ms or 5s, at most one hour")]
    BadTime(String),
}

/// Parses what follows the program's own name. Options end at `--` or at APP, whatever APP's arguments look like.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut args = args.into_iter();
    let mut config = Config { argv: Vec::new(), grace: Duration::from_secs(5), hold: true };
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--") => break,
            Some("-h" | "--help") => return Ok(Command::Help),
            Some("-V" | "--version") => return Ok(Command::Version),
            Some("--no-hold") => config.hold = false,
            Some("--grace") => {
                let value = args.next().ok_or(UsageError::NoValue("--grace"))?;
                config.grace = parse_time(&value.to_string_lossy())?;
            }
            Some(text) if text.starts_with("--grace=") => {
                config.grace = parse_time(&text["--grace=".len()..])?
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
    fn wrong_lines_are_usage_errors() {
        assert_eq!(words(""), Err(UsageError::NoApp));
        assert_eq!(words("--"), Err(UsageError::NoApp));
        assert_eq!(words("--grace"), Err(UsageError::NoValue("--grace")));
        assert_eq!(words("--hold x"), Err(UsageError::UnknownOption("--hold".into())));
    }
}
