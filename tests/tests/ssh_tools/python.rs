//! paramiko and asyncssh, from PyPI: the same core as OpenSSH's client.

use std::path::PathBuf;
use std::process::Command;

use crate::rig::{Rig, Root, run};

/// Made by `scripts/test`.
fn python() -> PathBuf {
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
