//! `scp`, `sftp`, `rsync` and `sshfs`: large files, many files, every verb, a checkout and a build.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use devsync_tests::app::UID;

use crate::rig::{Rig, Root, run, said, until};

/// Bytes that nothing compresses.
fn random_file(path: &Path, mebibytes: u32) {
    run(Command::new("dd").args(["if=/dev/urandom", "bs=1M", &format!("count={mebibytes}")]).arg({
        let mut to = std::ffi::OsString::from("of=");
        to.push(path);
        to
    }));
}

/// Fifty small files in each of so many directories.
fn many_files(at: &Path, directories: u32) {
    for directory in 0..directories {
        let directory = at.join(format!("directory {directory}"));
        fs::create_dir_all(&directory).expect("made");
        for file in 0..50 {
            fs::write(directory.join(format!("file-{file}")), format!("{file}\n").repeat(file))
                .expect("written");
        }
    }
}

#[track_caller]
fn same(one: &Path, other: &Path) {
    run(Command::new("diff").arg("-r").arg(one).arg(other));
}

#[test]
#[ignore = "needs: root"]
fn a_large_file_there_and_back() {
    let rig = Rig::start(Root::Scratch);
    let big = rig.path("laptop/big");
    random_file(&big, 200);
    run(rig.tool("scp").args(["-q", "-p", "big", "pod:/srv/app/big"]));
    let there = rig.path("root/srv/app/big");
    same(&big, &there);
    assert_eq!(fs::metadata(&there).expect("metadata").uid(), UID);
    assert_eq!(
        fs::metadata(&there).expect("metadata").mtime(),
        fs::metadata(&big).expect("metadata").mtime()
    );
    let done = rig.sftp("get big back");
    assert!(done.status.success(), "{}", said(&done));
    same(&big, &rig.path("laptop/back"));
}

#[test]
#[ignore = "needs: root"]
fn many_small_files_there_and_back() {
    let rig = Rig::start(Root::Scratch);
    // Five thousand.
    many_files(&rig.path("laptop/many"), 100);
    run(rig.tool("scp").args(["-q", "-r", "many", "pod:many"]));
    same(&rig.path("laptop/many"), &rig.path("root/srv/app/many"));
    let done = rig.sftp("get -r many back");
    assert!(done.status.success(), "{}", said(&done));
    same(&rig.path("laptop/many"), &rig.path("laptop/back"));
}

#[test]
#[ignore = "needs: root"]
fn every_verb_of_sftp() {
    let rig = Rig::start(Root::Scratch);
    fs::write(rig.path("laptop/one"), "one").expect("written");
    let done = rig.sftp(
        "pwd\nput one\nput one two\nls -la\nls -l two\nchmod 640 two\nmkdir d\nput one d/three\nrename two d/two\n\
         rename one d/two\nln d/two hard\nln -s d/two soft\nls -l\nget soft got\n\
         cd d\nlls\npwd\ncd ..\ndf -h\nrm hard\nrm soft\nrm d/two\nrm d/three\nrmdir d\nls\n",
    );
    assert!(done.status.success(), "{}", said(&done));
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(out.contains("Remote working directory: /srv/app\n"), "{out}");
    assert!(out.contains("Remote working directory: /srv/app/d\n"), "{out}");
    assert!(out.contains("lrwxrwxrwx") && out.contains("-rw-r--r--"), "{out}");
    assert_eq!(fs::read_to_string(rig.path("laptop/got")).expect("got"), "one");
    assert_eq!(fs::read_dir(rig.path("root/srv/app")).expect("listed").count(), 0);

    let inside = rig.path("root/srv/app");
    let verbs = [
        ("put -p one kept", "kept"),
        ("put one \"a name\"", "a name"),
        ("put one umlaut-\u{fc}", "umlaut-\u{fc}"),
    ];
    for (verb, name) in verbs {
        let done = rig.sftp(verb);
        assert!(done.status.success(), "{verb}: {}", said(&done));
        assert_eq!(fs::read_to_string(inside.join(name)).expect("there"), "one");
    }
    assert!(!rig.sftp("rmdir kept").status.success());
    assert!(!rig.sftp("mkdir kept").status.success());
    assert!(said(&rig.sftp("get nothing")).contains("not found"));
    assert!(
        said(&rig.sftp("put one /nowhere/x")).contains("No such file"),
        "{:?}",
        rig.sftp("put one /nowhere/x")
    );
    let log = rig.log();
    assert!(log.contains("sftp begins") && log.contains("opened_to_write=1"), "{log}");
}

#[test]
#[ignore = "needs: root"]
fn a_large_directory_is_listed_whole() {
    let rig = Rig::start(Root::Scratch);
    let directory = rig.path("root/srv/app/large");
    fs::create_dir(&directory).expect("made");
    for n in 0..20_000 {
        fs::File::create(directory.join(format!("{n}"))).expect("made");
    }
    let done = rig.sftp("ls -1 large");
    assert!(done.status.success(), "{}", said(&done));
    // The batch's own line comes first.
    assert_eq!(String::from_utf8_lossy(&done.stdout).lines().count(), 20_001);
}

/// `rsync -a` between the laptop's directory and the app's; what it says.
fn rsync(rig: &Rig, from: &str, to: &str) -> String {
    let mut rsync = Command::new("rsync");
    let shell = format!("ssh -F {}", rig.path("config").display());
    // Two changes within a second look alike to its quick check.
    rsync.args(["-a", "--ignore-times", "--no-owner", "--no-group", "--stats", "-e", &shell, from, to]);
    run(rsync.current_dir(rig.path("laptop")))
}

/// A tree to the app at `project` and back, and a change each way, of which only the difference travels.
fn rsync_both_ways(rig: &Rig, project: &Path) {
    let laptop = rig.path("laptop/tree");
    many_files(&laptop, 20);
    random_file(&laptop.join("big"), 20);
    rsync(rig, "tree/", "pod:tree/");
    same(&laptop, &project.join("tree"));
    fs::write(project.join("tree/directory 7/file-7"), "changed in the pod").expect("written");
    rsync(rig, "pod:tree/", "back/");
    same(&rig.path("laptop/back"), &project.join("tree"));
    // A megabyte in the middle of twenty.
    let change = |path: &Path, byte: u8| {
        let mut bytes = fs::read(path).expect("read");
        bytes[10 << 20..11 << 20].fill(byte);
        fs::write(path, &bytes).expect("written");
    };
    let literal = |said: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix("Literal data: ")).expect("stats");
        line.split(' ').next().expect("a number").replace(',', "").parse().expect("a number")
    };
    change(&laptop.join("big"), 7);
    let said = rsync(rig, "tree/big", "pod:tree/big");
    same(&laptop.join("big"), &project.join("tree/big"));
    assert!(literal(&said) < 2 << 20, "{said}");
    change(&project.join("tree/big"), 8);
    let said = rsync(rig, "pod:tree/big", "tree/big");
    same(&laptop.join("big"), &project.join("tree/big"));
    assert!(literal(&said) < 2 << 20, "{said}");
}

#[test]
#[ignore = "needs: root"]
fn rsync_both_ways_sends_the_difference() {
    let rig = Rig::start(Root::Debian);
    rsync_both_ways(&rig, &rig.path("project"));
}

#[test]
#[ignore = "needs: root"]
fn rsync_of_the_toolbox_serves_an_app_that_has_none() {
    // `scripts/test` has it made beforehand; then this says where it is.
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("scripts");
    let toolbox = run(&mut Command::new(scripts.join("toolbox")));
    let program = Path::new(toolbox.trim_end()).join("toolbox/rsync");
    let prepare = |at: &Path| assert!(fs::copy(program, at.join("toolbox/rsync")).expect("copied") > 0);
    let rig = Rig::with(Root::Scratch, prepare, &[]);
    let before = run(Command::new("find").arg(rig.path("root")));
    rsync_both_ways(&rig, &rig.path("root/srv/app"));
    let tree = rig.path("root/srv/app/tree");
    assert_eq!(fs::metadata(tree.join("big")).expect("metadata").uid(), UID);
    // It is in the app's root: an absolute path, and a link, are what they are there.
    std::os::unix::fs::symlink("/srv/app/tree", rig.path("root/tmp/link")).expect("linked");
    rsync(&rig, "pod:/tmp/link/big", "from-the-link");
    same(&rig.path("laptop/from-the-link"), &tree.join("big"));
    fs::remove_file(rig.path("root/tmp/link")).expect("removed");
    fs::remove_dir_all(tree).expect("removed");
    assert_eq!(run(Command::new("find").arg(rig.path("root"))), before, "something was left");
}

#[test]
#[ignore = "needs: root"]
fn a_mount_holds_a_checkout_and_a_build() {
    let rig = Rig::start(Root::Scratch);
    let at = rig.path("mounted");
    fs::create_dir(&at).expect("made");
    let mut sshfs = Command::new("sshfs");
    sshfs.arg("-f").arg("-F").arg(rig.path("config")).arg("pod:").arg(&at);
    let mut sshfs = sshfs.spawn().expect("sshfs");
    let mounted =
        || fs::read_to_string("/proc/mounts").is_ok_and(|all| all.contains(at.to_str().expect("text")));
    until("it is mounted", mounted);
    let source = rig.path("laptop/source");
    let git = |arguments: &[&str], directory: &Path| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=a", "-c", "user.email=a@b", "-c", "safe.directory=*"]).args(arguments);
        run(git.current_dir(directory))
    };
    fs::create_dir(&source).expect("made");
    git(&["init", "-q"], &source);
    fs::write(source.join("main.c"), "int answer(void); int main(void) { return answer(); }\n")
        .expect("written");
    fs::write(source.join("answer.c"), "int answer(void) { return 42; }\n").expect("written");
    fs::write(source.join("Makefile"), "main: main.o answer.o\n\tcc -o main main.o answer.o\n")
        .expect("written");
    git(&["add", "."], &source);
    git(&["commit", "-qm", "one"], &source);
    git(&["clone", "-q", source.to_str().expect("text"), "clone"], &at);
    let clone = at.join("clone");
    assert_eq!(git(&["status", "--porcelain"], &clone), "");
    run(Command::new("make").arg("-s").current_dir(&clone));
    let built = Command::new(rig.path("root/srv/app/clone/main")).status().expect("executed");
    assert_eq!(built.code(), Some(42));
    let mode = fs::metadata(clone.join("main")).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o111, 0o111);
    run(Command::new("umount").arg(&at));
    sshfs.wait().expect("ended");
}

#[test]
#[ignore = "needs: root"]
fn a_file_that_the_app_may_not_write_keeps_its_owner() {
    // The agent has root's rights: what the app may not write, it may, and the owner stays.
    let rig = Rig::start(Root::Scratch);
    fs::write(rig.path("root/etc/config"), "old").expect("written");
    fs::write(rig.path("laptop/config"), "new").expect("written");
    let done = rig.sftp("put config /etc/config");
    assert!(done.status.success(), "{}", said(&done));
    let there = rig.path("root/etc/config");
    assert_eq!(fs::read_to_string(&there).expect("read"), "new");
    assert_eq!(fs::metadata(&there).expect("metadata").uid(), 0);
    // But not through a second name, which the app may have made.
    fs::hard_link(&there, rig.path("root/srv/app/name")).expect("linked");
    let refused = rig.sftp("put config name");
    assert!(said(&refused).contains("ermission denied"), "{}", said(&refused));
}
