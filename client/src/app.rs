//! The app as the client sees it: what the agent's report says about what is running and how.

use devsync_protocol::path::{PodPath, display};
use devsync_protocol::target::{TargetReport, Verdict};

/// What runs in the pod.
#[derive(Debug, Clone)]
pub struct App {
    pub pid: u32,
    /// The executable's path in the app's root; `None` where the agent could not see it.
    pub exe: Option<PodPath>,
    pub argv: Vec<String>,
    /// The working directory in the app's root; `None` where the agent could not see it.
    pub cwd: Option<PodPath>,
    /// As `uname -m` says it.
    pub machine: String,
    pub uid: u32,
    pub gid: u32,
}

/// What kind of program an app is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Runtime {
    /// A program that an interpreter reads: python, node, …
    Interpreted(&'static str),
    /// `java -jar`; the jar's path as the app was given it.
    Jar(String),
    /// Anything else: an executable of its own.
    Native,
}

/// Interpreters by the beginning of their executable's name.
const INTERPRETERS: [(&str, &str); 18] = [
    ("python", "Python"),
    ("pypy", "Python"),
    ("node", "Node"),
    ("deno", "Deno"),
    ("bun", "Bun"),
    ("ruby", "Ruby"),
    ("perl", "Perl"),
    ("php", "PHP"),
    ("lua", "Lua"),
    ("beam.smp", "Erlang"),
    ("rscript", "R"),
    ("julia", "Julia"),
    ("bash", "shell"),
    ("dash", "shell"),
    ("busybox", "shell"),
    ("sh", "shell"),
    ("dotnet", ".NET"),
    ("java", "Java"),
];

impl App {
    pub fn new(report: &TargetReport) -> Self {
        let lossy = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        Self {
            pid: report.pid,
            exe: PodPath::new(report.exe.clone()).ok(),
            argv: report.argv.iter().map(lossy).collect(),
            cwd: PodPath::new(report.cwd.clone()).ok(),
            machine: report.machine.clone(),
            uid: report.uid,
            gid: report.gid,
        }
    }

    /// The executable's last name.
    pub fn exe_name(&self) -> String {
        let name = self.exe.as_ref().and_then(PodPath::split).map(|(_, name)| name.as_bytes().to_vec());
        name.map(|n| String::from_utf8_lossy(&n).into_owned()).unwrap_or_default()
    }

    /// What a person calls the app: its program or script, not its interpreter.
    pub fn name(&self) -> String {
        let base = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
        let name = match self.runtime() {
            Runtime::Jar(jar) => base(&jar),
            Runtime::Interpreted(_) => self.script().map_or_else(|| self.exe_name(), |s| base(&s)),
            Runtime::Native => self.exe_name(),
        };
        let name = if name.is_empty() { format!("process {}", self.pid) } else { name };
        display(name.as_bytes())
    }

    /// The script or module that the interpreter was given.
    pub fn script(&self) -> Option<String> {
        let mut words = self.argv.iter().skip(1);
        while let Some(word) = words.next() {
            match word.as_str() {
                "-m" => return words.next().cloned(),
                "-c" | "-e" => return None,
                word if word.starts_with('-') => {}
                word => return Some(word.to_owned()),
            }
        }
        None
    }

    pub fn runtime(&self) -> Runtime {
        let exe = self.exe_name().to_ascii_lowercase();
        if exe == "java" {
            let jar = self.argv.iter().position(|word| word == "-jar").and_then(|at| self.argv.get(at + 1));
            return jar.map_or(Runtime::Interpreted("Java"), |jar| Runtime::Jar(jar.clone()));
        }
        let known = INTERPRETERS.iter().find(|(name, _)| is_version_of(&exe, name));
        known.map_or(Runtime::Native, |(_, language)| Runtime::Interpreted(language))
    }

    /// The words of its command line by which the app says that it reloads itself.
    pub fn reloads_itself(&self) -> Option<&'static str> {
        let has = |word: &str| self.argv.iter().any(|arg| arg == word);
        let named = |name: &str| {
            self.argv.iter().take(3).any(|arg| arg.rsplit('/').next().is_some_and(|base| base == name))
        };
        let table = [
            (has("--reload"), "--reload"),
            (named("manage.py") && has("runserver") && !has("--noreload"), "runserver"),
            (named("flask") && has("run") && has("--debug"), "flask --debug"),
            (has("--watch"), "--watch"),
            (has("--hot"), "--hot"),
            (named("nodemon") || named("nodemon.js"), "nodemon"),
            (named("watchmedo"), "watchmedo"),
            (named("watchexec"), "watchexec"),
            (named("cargo-watch"), "cargo-watch"),
            (named("air") && self.exe_name() == "air", "air"),
        ];
        table.iter().find(|(does, _)| *does).map(|(_, word)| *word)
    }
}

/// True for `python`, `python3` and `python3.13`, not for `pythonista`.
fn is_version_of(exe: &str, name: &str) -> bool {
    exe.strip_prefix(name)
        .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-' | '_')))
        || (name == "php" && matches!(exe, "php-fpm" | "php-cgi"))
}

/// The report's lines for a person: who it is, and what is not permitted and why.
pub fn describe(report: &TargetReport) -> Vec<String> {
    let argv: Vec<String> = report.argv.iter().map(|word| display(word)).collect();
    let mut lines = vec![format!(
        "pid {} · {} · {} · uid {}:{} · cwd {}",
        report.pid,
        display(&report.exe),
        display(argv.join(" ").as_bytes()),
        report.uid,
        report.gid,
        display(&report.cwd),
    )];
    let refused = |what: &str, verdict: &Verdict| match verdict {
        Verdict::Permitted => None,
        Verdict::Refused(refusal) => Some(format!("{what}: {} (hint: {})", refusal.cause, refusal.hint)),
    };
    lines.extend(refused("restart in place is not permitted", &report.ptrace));
    let writes = report.write.iter();
    lines.extend(
        writes.filter_map(|w| refused(&format!("{} cannot be written", display(&w.directory)), &w.verdict)),
    );
    lines
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn app(exe: &str, argv: &[&str], cwd: &str) -> App {
        App {
            pid: 7,
            exe: PodPath::new(exe).ok(),
            argv: argv.iter().map(|a| (*a).to_owned()).collect(),
            cwd: PodPath::new(cwd).ok(),
            machine: "x86_64".to_owned(),
            uid: 65532,
            gid: 65532,
        }
    }

    #[test]
    fn an_app_is_known_by_its_executable() {
        let runtime = |exe: &str, argv: &[&str]| app(exe, argv, "/srv").runtime();
        assert_eq!(runtime("/usr/bin/python3.13", &["python3"]), Runtime::Interpreted("Python"));
        assert_eq!(runtime("/usr/bin/node", &["node", "x.js"]), Runtime::Interpreted("Node"));
        assert_eq!(runtime("/bin/php-fpm", &["php-fpm"]), Runtime::Interpreted("PHP"));
        assert_eq!(runtime("/server", &["/server"]), Runtime::Native);
        assert_eq!(runtime("/usr/bin/shinyd", &["shinyd"]), Runtime::Native);
        let jar = runtime("/opt/jdk/bin/java", &["java", "-Xmx1g", "-jar", "/app/x.jar", "-jar"]);
        assert_eq!(jar, Runtime::Jar("/app/x.jar".to_owned()));
    }

    #[test]
    fn an_app_is_called_by_its_script() {
        let name = |exe: &str, argv: &[&str]| app(exe, argv, "/").name();
        assert_eq!(name("/usr/bin/python3", &["python3", "-u", "/srv/demo.py"]), "demo.py");
        assert_eq!(name("/usr/bin/python3", &["python3", "-m", "http.server"]), "http.server");
        assert_eq!(name("/usr/bin/python3", &["python3", "/usr/bin/gunicorn", "app"]), "gunicorn");
        assert_eq!(name("/demo", &["demo"]), "demo");
        assert_eq!(name("", &[]), "process 7");
    }

    #[test]
    fn an_app_that_reloads_itself_says_so() {
        let reload = |argv: &[&str]| app("/usr/bin/python3", argv, "/").reloads_itself();
        assert_eq!(reload(&["python3", "/usr/bin/gunicorn", "--reload", "app"]), Some("--reload"));
        assert_eq!(reload(&["python3", "manage.py", "runserver"]), Some("runserver"));
        assert_eq!(reload(&["python3", "manage.py", "runserver", "--noreload"]), None);
        assert_eq!(reload(&["python3", "app.py"]), None);
    }
}
