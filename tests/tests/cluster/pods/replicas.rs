//! Every replica of a workload, also one that came later, has what the laptop has.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use devsync_tests::cluster::manifests::{self, Agent};
use devsync_tests::cluster::namespace::{Namespace, name};
use devsync_tests::cluster::project::Project;
use devsync_tests::demo::project::Language;

use super::{in_namespace, save_arrives, stop};

/// Fifty edits in an order that only the seed knows: files written, overwritten, moved and deleted.
fn edit_at_random(dir: &Path, mut seed: u64) -> Result<()> {
    let mut next = |below: u64| {
        // xorshift64: any sequence does, as long as it is the same again after a failure.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    fs::create_dir_all(dir)?;
    for edit in 0..50 {
        let file = dir.join(format!("{}.txt", next(8)));
        match next(5) {
            0 if file.exists() => fs::remove_file(&file)?,
            1 if file.exists() => fs::rename(&file, dir.join(format!("{}.txt", next(8))))?,
            _ => fs::write(&file, format!("edit {edit}\n").repeat(usize::try_from(next(3000))?))?,
        }
    }
    Ok(())
}

/// A digest over the names and contents below /app in a pod, by the pod's own Python.
fn digest(namespace: &Namespace, pod: &str) -> Result<String> {
    const PROGRAM: &str = "import hashlib, pathlib
d = hashlib.sha256()
for p in sorted(pathlib.Path('/app').rglob('*')):
    if p.is_file() and '__pycache__' not in p.parts: d.update(f'{p}\\0'.encode() + p.read_bytes() + b'\\0')
print(d.hexdigest())";
    namespace.kubectl.run(&["exec", pod, "--container", "app", "--", "python3", "-c", PROGRAM])
}

fn names(namespace: &Namespace) -> Result<Vec<String>> {
    namespace.pods("demo")?.iter().map(name).collect()
}

fn all_equal(namespace: &Namespace) -> Result<()> {
    let digests: Vec<_> =
        names(namespace)?.iter().map(|pod| digest(namespace, pod)).collect::<Result<_>>()?;
    ensure!(digests.len() == 3 && digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    Ok(())
}

#[test]
#[ignore = "needs: cluster"]
fn three_replicas_and_one_that_came_later_are_equal() -> Result<()> {
    in_namespace(|namespace| {
        namespace.deploy(&manifests::demo(manifests::PYTHON, 3, Agent::Baseline).to_string(), "demo")?;
        let project = Project::copy(Language::Python, namespace.path("adder"))?;
        let mut attach = namespace.attach(&project, &["attach", "deploy/demo", "--all-pods"])?;
        for _ in 0..3 {
            attach.event("synced")?;
        }
        edit_at_random(&project.dir.join("data"), 0x5eed_0001)?;
        save_arrives(namespace, &project, &names(namespace)?, " (one)")?;
        namespace.run(&project, &["verify"])?.code(0)?;
        all_equal(namespace)?;
        let gone = names(namespace)?.pop().context("a pod")?;
        namespace.kubectl.run(&["delete", "pod", &gone, "--wait=false"])?;
        edit_at_random(&project.dir.join("data"), 0x5eed_0002)?;
        namespace.rolled_out("demo")?;
        save_arrives(namespace, &project, &names(namespace)?, " (two)")?;
        namespace.until("verify without a difference", || {
            Ok(namespace.run(&project, &["verify"]).ok().filter(|said| said.code == Some(0)))
        })?;
        all_equal(namespace)?;
        stop(attach)
    })
}
