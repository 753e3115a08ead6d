//! What debugpy needs to attach to a Python program: its interpreter, a free port, and what is there already. Data only.

use devsync_protocol::debug::Debuggee;
use devsync_protocol::process::Process;

/// What debugpy's users are used to, and how many after it are tried.
const PORT: u16 = 5678;
const PORTS: u16 = 100;
/// Run by the app's interpreter; two lines are its answer.
pub const PROBE: &str = "import importlib.util, shutil, sys\n\
    print('debugpy', importlib.util.find_spec('debugpy') is not None)\n\
    print('attaches', hasattr(sys, 'remote_exec') or shutil.which('gdb') is not None)";

/// The interpreter as the app was started with it: of a virtual environment only that name finds the packages.
pub fn interpreter(app: &Debuggee, processes: &[Process]) -> String {
    let own = processes.iter().find(|process| process.pid == app.pid);
    let first = own.and_then(|own| own.argv.first()).filter(|first| is_python(first));
    first.unwrap_or(&app.exe).clone()
}

fn is_python(word: &str) -> bool {
    let name = word.rsplit('/').next().unwrap_or_default();
    name.starts_with("python") || name.starts_with("pypy")
}

/// The port of the adapter that debugpy has started for the app, where it has.
pub fn adapter(app: &Debuggee, processes: &[Process]) -> Option<u16> {
    let own = processes.iter().find(|process| process.pid == app.pid)?;
    let is_beside = |process: &&Process| {
        process.container == own.container
            && process.mount_namespace == own.mount_namespace
            && (process.uid, &process.exe) == (own.uid, &own.exe)
            && process.age_ms <= own.age_ms
    };
    let mut found = processes.iter().filter(is_beside).filter_map(|process| {
        let mut words = process.argv.iter();
        words.find(|word| word.ends_with("debugpy/adapter"))?;
        words.find(|word| *word == "--port")?;
        let port = words.next()?.parse().ok()?;
        // Before it listens it is of no use.
        process.ports.contains(&port).then_some(port)
    });
    // Of several the youngest: an older one may be of a program that has ended.
    found.next_back()
}

/// A port on which nobody beside the app listens.
pub fn free_port(processes: &[Process]) -> Option<u16> {
    let taken = |port: &u16| processes.iter().any(|process| process.ports.contains(port));
    (PORT..PORT + PORTS).find(|port| !taken(port))
}

/// What the probe found missing, and what helps.
pub fn lacks(answer: &[String]) -> Option<(&'static str, &'static str)> {
    let is = |line: &str| answer.iter().any(|said| said.trim() == line);
    match () {
        () if !is("debugpy True") => Some((
            "debugpy is not there for the app's interpreter",
            "pip install debugpy in the development image, or: devsync exec TARGET -- PYTHON -m pip install debugpy",
        )),
        () if !is("attaches True") => Some((
            "debugpy attaches to a running program with gdb (before Python 3.14), and there is none",
            "apt-get install gdb in the development image, or start the app with: python -m debugpy --listen \
             127.0.0.1:5678 …",
        )),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, argv: &[&str], ports: &[u16]) -> Process {
        let argv = argv.iter().map(|word| (*word).to_owned()).collect();
        let exe = "/usr/bin/python3.11".to_owned();
        Process { pid, argv, ports: ports.to_vec(), exe, age_ms: 100 - u64::from(pid), ..Process::default() }
    }

    fn app(pid: u32) -> Debuggee {
        Debuggee { pid, exe: "/usr/bin/python3.11".to_owned(), ..Debuggee::default() }
    }

    #[test]
    fn the_interpreter_of_a_virtual_environment_is_used() {
        let all = [process(7, &["/venv/bin/python", "app.py"], &[]), process(8, &["gunicorn: master"], &[])];
        assert_eq!(interpreter(&app(7), &all), "/venv/bin/python");
        assert_eq!(interpreter(&app(8), &all), "/usr/bin/python3.11");
    }

    #[test]
    fn an_adapter_that_listens_is_used_again() {
        let words =
            ["python", "/x/debugpy/adapter", "--for-server", "1", "--host", "127.0.0.1", "--port", "5679"];
        let all = [process(7, &["python"], &[8080, 5678]), process(9, &words, &[5679, 40_000])];
        assert_eq!(adapter(&app(7), &all), Some(5679));
        assert_eq!(free_port(&all), Some(5680));
        let starting = [process(7, &["python"], &[]), process(9, &words, &[])];
        assert_eq!(adapter(&app(7), &starting), None);
        let another = Process { container: Some("other".to_owned()), ..process(9, &words, &[5679]) };
        assert_eq!(adapter(&app(7), &[process(7, &["python"], &[]), another]), None);
    }

    #[test]
    fn what_is_missing_is_told() {
        let said = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert!(
            lacks(&said(&["debugpy False", "attaches True"])).is_some_and(|(_, hint)| hint.contains("pip"))
        );
        assert!(
            lacks(&said(&["debugpy True", "attaches False"])).is_some_and(|(_, hint)| hint.contains("gdb"))
        );
        assert_eq!(lacks(&said(&["debugpy True", "attaches True"])), None);
    }
}
