//! paramiko and asyncssh, from PyPI: the same core as OpenSSH's client; and what ssh-audit says.

use std::path::PathBuf;
use std::process::Command;

use crate::rig::{Rig, Root, output, run};

/// With the clients of `scripts/ssh-clients`.
pub(crate) fn python() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let python = cache.expect("HOME").join("devsync/ssh-clients/bin/python");
    assert!(python.exists(), "{} is missing (hint: scripts/ssh-clients)", python.display());
    python
}

fn core(client: &str) {
    let rig = Rig::start(Root::Debian);
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/ssh_tools").join(client);
    let said = run(Command::new("timeout")
        .arg("100")
        .arg(python())
        .arg(script)
        .arg(rig.port.to_string())
        .arg(rig.path("id"))
        .arg(rig.path("known"))
        .arg(rig.path("project")));
    assert!(said.ends_with("all done\n"), "{said}");
}

#[test]
#[ignore = "needs: root"]
fn paramiko_speaks_to_it() {
    core("core_paramiko.py");
}

#[test]
#[ignore = "needs: root"]
fn asyncssh_speaks_to_it() {
    core("core_asyncssh.py");
}

/// A key exchange that is post-quantum is preferred (ML-KEM), and OpenSSH has it since 9.9. Older clients, Debian 12's
/// 9.2 among them, share only this with the agent, and would not get in without it.
const FOR_OLDER_CLIENTS: [&str; 2] = ["curve25519-sha256", "curve25519-sha256@libssh.org"];

/// What ssh-audit would have a person read; its "info" is none of that.
fn complaints(report: &serde_json::Value) -> Vec<String> {
    let mut all = Vec::new();
    for kind in ["kex", "key", "enc", "mac"] {
        let algorithms = report[kind].as_array().unwrap_or_else(|| panic!("no {kind}: {report}"));
        assert!(!algorithms.is_empty(), "no {kind}: {report}");
        for algorithm in algorithms {
            for level in ["fail", "warn"] {
                let notes = algorithm["notes"][level].as_array().into_iter().flatten();
                let name = algorithm["algorithm"].as_str().unwrap_or_default();
                let known = |note: &&serde_json::Value| {
                    FOR_OLDER_CLIENTS.contains(&name)
                        && *note == "does not provide protection against post-quantum attacks"
                };
                all.extend(notes.filter(|note| !known(note)).map(|note| format!("{level} {name}: {note}")));
            }
        }
    }
    all
}

#[test]
#[ignore = "needs: root"]
fn ssh_audit_marks_no_algorithm() {
    let rig = Rig::start(Root::Debian);
    let mut audit = Command::new("timeout");
    audit.arg("100").arg(python()).args([
        "-m",
        "ssh_audit.ssh_audit",
        "--json",
        "--skip-rate-test",
        "--port",
    ]);
    // Its exit status is not 0 where it has something to say, so the report is what counts.
    let said = output(audit.arg(rig.port.to_string()).arg("127.0.0.1"));
    let report: serde_json::Value =
        serde_json::from_slice(&said.stdout).unwrap_or_else(|_| panic!("{said:?}"));
    assert_eq!(complaints(&report), [] as [String; 0], "{report:#}");
    let cves = report["cves"].as_array().into_iter().flatten().collect::<Vec<_>>();
    assert!(cves.is_empty(), "{cves:?}");
}
