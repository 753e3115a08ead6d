//! `devsync-run seed` and `install` with real directories.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::stat::Mode;
use tempfile::TempDir;

use crate::harness::{BINARY, wait_for};

struct Places {
    dir: TempDir,
}

impl Places {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        // Another user works in it too.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::create_dir(dir.path().join("image")).unwrap();
        Self { dir }
    }

    fn image(&self, name: &str) -> PathBuf {
        self.dir.path().join("image").join(name)
    }

    fn to(&self, name: &str) -> PathBuf {
        self.dir.path().join("files").join(name)
    }

    fn words(&self) -> [PathBuf; 2] {
        [self.dir.path().join("image"), self.dir.path().join("files")]
    }

    fn seed(&self) -> Output {
        Command::new(BINARY).arg("seed").args(self.words()).output().unwrap()
    }

    fn seed_as(&self, user: &str) -> Output {
        // The program itself lies where another user does not get to.
        let program = self.dir.path().join("devsync-run");
        fs::copy(BINARY, &program).unwrap();
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        command.arg(program).arg("seed").args(self.words()).output().unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn write(path: &Path, text: &str, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Path, mode, time, and content or link of everything below a directory.
fn tree(dir: &Path) -> BTreeMap<PathBuf, (u32, i64, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(dir).unwrap().to_owned();
            found.insert(name, (metadata.mode(), metadata.mtime(), metadata.mtime_nsec(), content));
        }
    }
    found
}

#[test]
fn modes_times_and_links_are_those_of_the_image() {
    let places = Places::new();
    write(&places.image("run"), "#!/bin/sh", 0o755);
    write(&places.image("a/b/secret"), "s", 0o600);
    write(&places.image("a/empty"), "", 0o444);
    symlink("b/secret", places.image("a/link")).unwrap();
    symlink("/nowhere/at/all", places.image("dangling")).unwrap();
    fs::hard_link(places.image("run"), places.image("twin")).unwrap();
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_600_000_000_123);
    for name in ["run", "a/b"] {
        fs::File::open(places.image(name)).unwrap().set_modified(old).unwrap();
    }
    let output = places.seed();
    assert!(output.status.success(), "{}", said(&output));
    let [image, files] = places.words();
    assert_eq!(tree(&files), tree(&image));
    assert_eq!(
        fs::metadata(&files).unwrap().modified().unwrap(),
        fs::metadata(&image).unwrap().modified().unwrap()
    );
    assert!(said(&output).contains("8 entries"), "{}", said(&output));
    let left: Vec<_> = fs::read_dir(places.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn special_files_are_left_out_and_named() {
    let places = Places::new();
    write(&places.image("app"), "x", 0o755);
    nix::unistd::mkfifo(&places.image("pipe\n1"), Mode::S_IRWXU).unwrap();
    let output = places.seed();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("left out: ") && said(&output).contains("pipe\\n1"), "{}", said(&output));
    assert!(places.to("app").exists() && !places.to("pipe\n1").exists());
}

#[test]
fn what_was_synced_since_is_not_copied_over() {
    let places = Places::new();
    write(&places.image("app.py"), "image", 0o644);
    assert!(places.seed().status.success());
    fs::write(places.to("app.py"), "synced").unwrap();
    let again = places.seed();
    assert!(again.status.success() && said(&again).contains("is there already"), "{}", said(&again));
    assert_eq!(fs::read_to_string(places.to("app.py")).unwrap(), "synced");
}

#[test]
fn one_that_was_killed_is_gone_on_with() {
    let places = Places::new();
    for n in 0..2000 {
        write(&places.image(&format!("d{}/{n}", n % 40)), &"text\n".repeat(n % 700), 0o640);
    }
    let [image, files] = places.words();
    let part = places.dir.path().join("files.part");
    for entries in [1, 9, 25] {
        let mut child =
            Command::new(BINARY).arg("seed").args(places.words()).stderr(Stdio::null()).spawn().unwrap();
        wait_for("a part of it", || {
            let count = fs::read_dir(&part).map_or(0, Iterator::count);
            (count >= entries || child.try_wait().unwrap().is_some()).then_some(())
        });
        child.kill().unwrap();
        child.wait().unwrap();
        if files.exists() {
            break;
        }
    }
    assert!(places.seed().status.success());
    assert_eq!(tree(&files), tree(&image));
    assert!(!part.exists());
}

#[test]
fn a_directory_that_the_image_does_not_have_begins_empty() {
    let places = Places::new();
    fs::remove_dir(places.dir.path().join("image")).unwrap();
    let output = places.seed();
    assert!(output.status.success() && said(&output).contains("is not in the image"), "{}", said(&output));
    assert_eq!(fs::read_dir(places.to("")).unwrap().count(), 0);
}

#[test]
fn places_that_cannot_be_meant_are_refused() {
    let places = Places::new();
    write(&places.dir.path().join("file"), "", 0o644);
    let path = |name: &str| places.dir.path().join(name);
    for (from, to, why) in [
        (PathBuf::from("/"), path("x"), "a whole root is not copied"),
        (path("file"), path("x"), "it is no directory"),
        (path("image"), path("file"), "it is no directory"),
        (path("image"), path("image/x"), "TO lies in it"),
        (path("image"), PathBuf::from("/proc"), "it is a mount point"),
        (path("image"), path("no/such/dir"), "No such file"),
        (path("image"), PathBuf::from("/proc/x"), "cannot make the directory /proc/x.part"),
    ] {
        let output = Command::new(BINARY).arg("seed").args([&from, &to]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(why) && said(&output).contains("\nhint: "), "{}", said(&output));
    }
    let usage = Command::new(BINARY).args(["seed", "/only"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2), "{}", said(&usage));
}

#[test]
#[ignore = "needs: root"]
fn the_copy_belongs_to_who_makes_it_and_is_writable_for_him() {
    let places = Places::new();
    write(&places.image("bazel/app"), "x", 0o555);
    fs::set_permissions(places.image("bazel"), fs::Permissions::from_mode(0o555)).unwrap();
    let output = places.seed_as("65532");
    assert!(output.status.success(), "{}", said(&output));
    let (dir, app) = (places.to("bazel").metadata().unwrap(), places.to("bazel/app").metadata().unwrap());
    assert_eq!((dir.uid(), dir.gid(), app.uid(), app.gid()), (65532, 65532, 65532, 65532));
    assert_eq!((dir.mode() & 0o7777, app.mode() & 0o7777), (0o755, 0o555));
}

#[test]
#[ignore = "needs: root"]
fn root_keeps_the_owners_for_apps_that_give_up_being_root() {
    let places = Places::new();
    write(&places.image("uploads/x"), "x", 0o4755);
    std::os::unix::fs::chown(places.image("uploads"), Some(33), Some(33)).unwrap();
    assert!(places.seed().status.success());
    assert_eq!(places.to("uploads").metadata().unwrap().uid(), 33);
    assert_eq!(places.to("uploads/x").metadata().unwrap().mode() & 0o7777, 0o755);
}

#[test]
#[ignore = "needs: root"]
fn what_cannot_be_read_is_named_and_nothing_is_in_place() {
    let places = Places::new();
    write(&places.image("ok"), "x", 0o644);
    write(&places.image("a/key.pem"), "secret", 0o600);
    write(&places.image("shut/inner"), "x", 0o644);
    fs::set_permissions(places.image("shut"), fs::Permissions::from_mode(0o700)).unwrap();
    let output = places.seed_as("65532");
    assert_eq!(output.status.code(), Some(1));
    let said = said(&output);
    assert!(said.contains("as user 65532") && said.contains("a/key.pem") && said.contains("/shut"), "{said}");
    assert!(said.contains("hint: ") && !places.to("").exists());
    // Once they can be, it goes on.
    fs::set_permissions(places.image("shut"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(places.image("a/key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(places.seed_as("65532").status.success());
    assert_eq!(fs::read_to_string(places.to("a/key.pem")).unwrap(), "secret");
}

#[test]
#[ignore = "needs: root"]
fn what_is_mounted_in_the_image_and_a_full_volume() {
    let places = Places::new();
    for name in ["data", "big"] {
        fs::create_dir(places.image(name)).unwrap();
    }
    write(&places.image("big/file"), &"x".repeat(3 << 20), 0o644);
    let volume = places.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let script = "mount -t tmpfs none $1/data && echo mine > $1/data/x && mount -t tmpfs -o size=$3 none $2 \
                  && \"$0\" seed $1 $2/files; code=$?; ls -R $2; exit $code";
    let run = |size: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", script, BINARY]);
        command.arg(places.image("")).arg(&volume).arg(size).output().unwrap()
    };
    let fits = run("9m");
    assert!(fits.status.success(), "{}", said(&fits));
    assert!(
        said(&fits).contains("mounted from elsewhere") && said(&fits).contains("/data"),
        "{}",
        said(&fits)
    );
    let listed = String::from_utf8_lossy(&fits.stdout).into_owned();
    assert!(listed.contains("files/data:") && !listed.contains("\nx\n"), "{listed}");
    let full = run("1m");
    assert_eq!(full.status.code(), Some(1));
    assert!(said(&full).contains("big/file") && said(&full).contains("sizeLimit"), "{}", said(&full));
    assert!(!String::from_utf8_lossy(&full.stdout).contains("files:"));
}

#[test]
fn it_installs_itself_in_one_step_also_over_one_that_runs() {
    let dir = TempDir::new().unwrap();
    let bin = dir.path().join("bin");
    let install = |program: &Path| {
        let output = Command::new(program).arg("install").arg(&bin).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };
    install(Path::new(BINARY));
    let copy = bin.join("devsync-run");
    assert_eq!(fs::read(&copy).unwrap(), fs::read(BINARY).unwrap());
    assert_eq!(
        (copy.metadata().unwrap().mode() & 0o7777, bin.metadata().unwrap().mode() & 0o7777),
        (0o755, 0o755)
    );
    let mut running = Command::new(&copy).args(["--", "sleep", "1000"]).spawn().unwrap();
    fs::write(bin.join("devsync-run.devsync-part"), "left by one that was killed").unwrap();
    install(&copy);
    assert_eq!(fs::read_dir(&bin).unwrap().count(), 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(running.id() as i32), nix::sys::signal::SIGTERM)
        .unwrap();
    running.wait().unwrap();
    let nowhere = Command::new(BINARY).args(["install", "/proc/nowhere"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(said(&nowhere).contains("cannot make the directory /proc/nowhere"), "{}", said(&nowhere));
}
