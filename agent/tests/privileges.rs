//! Agents and apps with the credentials that pods have: what works, and what is refused with which words.

#[path = "target_world/world.rs"]
mod world;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use devsync_agent::sys::xattr;
use devsync_agent::target::access::Hand;
use devsync_agent::target::error::TargetError;
use devsync_agent::target::find::Target;
use devsync_agent::target::identity::Identity;
use devsync_agent::target::report;
use devsync_agent::target::root::SyncRoot;
use devsync_protocol::target::{AccessClass, Verdict};
use world::{As, DEFAULT_CAPS, Inside, NO_CAPS, World, as_agent, target};

const SAME: [&str; 5] = ["--reuid=1000", "--regid=1000", "--clear-groups", NO_CAPS, "--inh-caps=-all"];
const ROOT_DEFAULT: [&str; 2] = [DEFAULT_CAPS, "--inh-caps=-all"];
const ROOT_NOTHING: [&str; 2] = [NO_CAPS, "--inh-caps=-all"];

fn sync_root(inside: &Inside) -> SyncRoot {
    target(inside.pid).sync_root(b"/app").expect("the sync root")
}

/// Puts `content` in place of `path`, keeping what a replaced file had.
fn put(sync: &SyncRoot, path: &[u8], content: &[u8]) -> Result<(), TargetError> {
    let (parent, leaf) = sync.parent(path)?;
    let old = parent.find(leaf)?;
    let mut temp = parent.create_temp()?;
    temp.write_all(content).expect("write");
    match old {
        Some(old) => assert!(temp.keep_attributes_of(leaf, &old)?.is_empty()),
        None => temp.set_mode(0o644)?,
    }
    temp.rename_over(leaf)
}

fn describe(pid: u32) -> devsync_protocol::target::TargetReport {
    report::describe(&Target { supervisor: None, app: pid, container: None }).expect("a report")
}

fn refusal(pid: u32) -> (String, String) {
    let error = Identity::open(pid).expect_err("no access");
    assert!(matches!(error, TargetError::NoAccess { .. }), "{error:?}");
    let report = describe(pid);
    assert_eq!(report.access, AccessClass::Refused);
    assert!(!report.root.is_permitted() && !report.ptrace.is_permitted() && !report.argv.is_empty());
    (error.to_string(), error.hint().expect("a hint"))
}

fn owner(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).expect("stat");
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

fn furnish(path: &Path, uid: u32, gid: u32, mode: u32) {
    if !path.exists() {
        fs::write(path, "old").expect("write");
    }
    chown(path, Some(uid), Some(gid)).expect("chown");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

#[test]
#[ignore = "needs: root"]
fn same_ids_without_capabilities_work() {
    let outer = || {
        World::start(As::User(1000, 1000), |root| {
            furnish(&root.join("app"), 1000, 1000, 0o755);
            furnish(&root.join("app/main.py"), 1000, 1000, 0o640);
        })
    };
    let world = as_agent("same_ids_without_capabilities_work", &SAME, outer, |inside| {
        let sync = sync_root(inside);
        assert_eq!(sync.identity().access().class(), AccessClass::SameIds);
        assert_eq!(sync.check_writable(b"a/b"), Ok(Hand::App));
        put(&sync, b"main.py", b"new").expect("replace");
        sync.mkdir_all(b"a/b", 0o755).expect("mkdir");
        put(&sync, b"a/b/new", b"new").expect("create");
        let report = describe(inside.pid);
        assert!(report.root.is_permitted());
        assert!(report.capabilities.is_empty() && report.agent.capabilities.is_empty());
        // The app's cwd is the root, which belongs to root.
        assert!(report.write.iter().any(|d| d.directory == b"/" && !d.verdict.is_permitted()), "{report:?}");
    });
    let Some(world) = world else { return };
    assert_eq!(owner(&world.app("main.py")), (1000, 1000, 0o640));
    assert_eq!(owner(&world.app("a/b/new")), (1000, 1000, 0o644));
    assert_eq!(fs::read_to_string(world.app("main.py")).expect("read"), "new");
}

#[test]
#[ignore = "needs: root"]
fn root_with_default_capabilities_writes_root_s_files_of_an_unprivileged_app() {
    let name = "root_with_default_capabilities_writes_root_s_files_of_an_unprivileged_app";
    let outer = || {
        World::start(As::User(65532, 65532), |root| {
            let app = root.join("app");
            for (file, uid, gid, mode) in
                [("server", 0, 0, 0o755), ("foreign", 12, 34, 0o640), ("setuid", 12, 34, 0o4755)]
            {
                furnish(&app.join(file), uid, gid, mode);
            }
            fs::create_dir(app.join("data")).expect("mkdir");
            furnish(&app.join("data"), 65532, 65532, 0o700);
            fs::create_dir(app.join("other")).expect("mkdir");
            furnish(&app.join("other"), 77, 88, 0o755);
            let done = Command::new("setcap").arg("cap_net_bind_service=ep").arg(app.join("server")).status();
            assert!(done.expect("setcap").success());
            let foreign = fs::File::options().write(true).open(app.join("foreign")).expect("open");
            xattr::set(&foreign, c"user.note", b"kept").expect("setxattr");
        })
    };
    let world = as_agent(name, &ROOT_DEFAULT, outer, |inside| {
        let sync = sync_root(inside);
        assert_eq!(sync.identity().access().class(), AccessClass::MatchedIds);
        assert_eq!(sync.check_writable(b""), Ok(Hand::Agent));
        assert_eq!(sync.check_writable(b"data"), Ok(Hand::App));
        for path in [&b"server"[..], b"foreign", b"setuid", b"fresh", b"data/fresh", b"other/fresh"] {
            put(&sync, path, b"new").unwrap_or_else(|e| panic!("{e}"));
        }
        sync.mkdir_all(b"made/deep", 0o750).expect("mkdir");
        sync.mkdir_all(b"other/made", 0o750).expect("mkdir");
        let other = sync.directory(b"other").expect("open");
        other.symlink(b"fresh", b"link").expect("symlink");
        other.chmod(b"fresh", 0o604).expect("chmod");
        other.rename(b"fresh", &other, b"renamed").expect("rename");
        let report = describe(inside.pid);
        assert!(
            report.root.is_permitted() && report.write.iter().all(|d| d.verdict.is_permitted()),
            "{report:?}"
        );
        // The thread has its own ids again after every operation.
        assert_eq!(devsync_agent::sys::ids::FsIds::current().uid, 0);
    });
    let Some(world) = world else { return };
    for (file, want) in [
        ("server", (0, 0, 0o755)),
        ("foreign", (12, 34, 0o640)),
        ("setuid", (12, 34, 0o4755)),
        ("fresh", (0, 0, 0o644)),
        ("data/fresh", (65532, 65532, 0o644)),
        ("other/renamed", (77, 88, 0o604)),
        ("other/made", (77, 88, 0o750)),
        ("made/deep", (0, 0, 0o750)),
    ] {
        assert_eq!(owner(&world.app(file)), want, "{file}");
    }
    assert_eq!(owner(&world.app("other/link")).0, 77);
    assert_eq!(fs::read_to_string(world.app("server")).expect("read"), "new");
    let foreign = fs::File::open(world.app("foreign")).expect("open");
    assert_eq!(xattr::get(&foreign, c"user.note"), Ok(b"kept".to_vec()));
    let caps = Command::new("getcap").arg(world.app("server")).output().expect("getcap");
    assert!(String::from_utf8_lossy(&caps.stdout).contains("cap_net_bind_service=ep"), "{caps:?}");
}

#[test]
#[ignore = "needs: root"]
fn the_same_uid_agent_before_root_s_files_is_refused_before_any_byte() {
    let name = "the_same_uid_agent_before_root_s_files_is_refused_before_any_byte";
    let outer = || World::start(As::User(1000, 1000), |root| furnish(&root.join("app/server"), 0, 0, 0o755));
    let world = as_agent(name, &SAME, outer, |inside| {
        let error = sync_root(inside).check_writable(b"src").expect_err("root's directory");
        let (text, hint) = (error.to_string(), error.hint().expect("a hint"));
        assert!(text.contains("\"/app\"") && text.contains("0:0") && text.contains("0755"), "{text}");
        for way in ["workspace volume", "root with the runtime's default capabilities", "memfd"] {
            assert!(hint.contains(way), "{hint}");
        }
        assert!(put(&sync_root(inside), b"server", b"new").is_err());
    });
    let Some(world) = world else { return };
    assert_eq!(fs::read_dir(world.app("")).expect("list").count(), 1, "nothing was left");
    assert_eq!(fs::read_to_string(world.app("server")).expect("read"), "old");
}

#[test]
#[ignore = "needs: root"]
fn root_without_capabilities_before_a_root_app_with_the_default_set_says_what_is_missing() {
    let name = "root_without_capabilities_before_a_root_app_with_the_default_set_says_what_is_missing";
    as_agent(
        name,
        &ROOT_NOTHING,
        || World::start(As::RootDefaultCaps, |_| {}),
        |inside| {
            let (text, hint) = refusal(inside.pid);
            assert!(
                text.contains("capabilities that the agent lacks: CHOWN, DAC_OVERRIDE, FOWNER"),
                "{text}"
            );
            assert!(hint.contains("SETFCAP") && hint.contains("drop: [ALL]"), "{hint}");
        },
    );
}

#[test]
#[ignore = "needs: root"]
fn root_reaches_a_root_app_with_no_more_capabilities() {
    let name = "root_reaches_a_root_app_with_no_more_capabilities";
    as_agent(
        name,
        &ROOT_NOTHING,
        || World::start(As::RootNoCaps, |_| {}),
        |inside| {
            let sync = sync_root(inside);
            assert_eq!(sync.identity().access().class(), AccessClass::SameIds);
            put(&sync, b"new", b"new").expect("create");
            assert!(describe(inside.pid).ptrace.is_permitted());
        },
    );
}

#[test]
#[ignore = "needs: root"]
fn root_without_setuid_before_another_user_s_app_names_the_ids() {
    let name = "root_without_setuid_before_another_user_s_app_names_the_ids";
    as_agent(
        name,
        &ROOT_NOTHING,
        || World::start(As::User(65532, 65532), |_| {}),
        |inside| {
            let (text, hint) = refusal(inside.pid);
            assert!(text.contains("SETUID") && text.contains("65532"), "{text}");
            assert!(hint.contains("runAsUser: 65532"), "{hint}");
        },
    );
}

#[test]
#[ignore = "needs: root"]
fn the_right_uid_with_the_wrong_gid_is_said() {
    let name = "the_right_uid_with_the_wrong_gid_is_said";
    as_agent(
        name,
        &SAME,
        || World::start(As::User(1000, 0), |_| {}),
        |inside| {
            let (text, hint) = refusal(inside.pid);
            assert!(text.contains("gid is 1000") && text.contains("app's is 0"), "{text}");
            assert!(hint.contains("runAsGroup: 0"), "{hint}");
        },
    );
}

#[test]
#[ignore = "needs: root"]
fn with_sys_ptrace_new_files_belong_to_the_app() {
    let world = World::start(As::User(65532, 65532), |root| furnish(&root.join("app"), 65532, 65532, 0o755));
    let sync = world.sync_root();
    assert_eq!(sync.identity().access().class(), AccessClass::Ptrace);
    put(&sync, b"new", b"new").expect("create");
    assert_eq!(owner(&world.app("new")), (65532, 65532, 0o644));
    assert_eq!(describe(world.pid()).ptrace, Verdict::Permitted);
}

#[test]
#[ignore = "needs: root"]
fn root_s_rights_are_not_lent_to_a_hard_link_of_the_app() {
    let world = World::start(As::User(65532, 65532), |root| {
        furnish(&root.join("app"), 65532, 65532, 0o755);
        furnish(&root.join("etc/shadow"), 0, 0, 0o600);
        fs::hard_link(root.join("etc/shadow"), root.join("app/link")).expect("link");
    });
    let parent = world.sync_root().directory(b"").expect("parent");
    let refused = |r: Result<(), TargetError>| matches!(r, Err(TargetError::HardLinked { .. }));
    assert!(refused(parent.chmod(b"link", 0o666)));
    assert!(refused(parent.chown(b"link", 65532, 65532)));
    assert!(refused(parent.write_in_place(b"link", &mut &b"x"[..]).map(drop)));
    assert_eq!(owner(&world.root().join("etc/shadow")), (0, 0, 0o600));
}

/// Looks from the app's side into the agent; each line that could be read is an output line. Nothing but the shell
/// itself is needed: a machine without a usable /dev/null, or that lets nobody fork, must not look like a shut agent.
const SPY: &str = "exec 2>&-; p=/proc/$1; \
                   for f in environ mem maps auxv stack syscall io; do true <$p/$f && echo $f; done; \
                   for d in fd map_files root cwd; do cd $p/$d && echo $d $(pwd -P); done; \
                   for l in exe fd/0; do [ -e $p/$l ] && echo $l; done; \
                   { read -r line <$p/environ || [ -n \"$line\" ]; } && echo read; \
                   for e in $p/root/* $p/fd/*; do [ -e \"$e\" ] && echo \"$e\"; done; true";

fn spy(pid: u32) -> String {
    let output = Command::new("sh").args(["-c", SPY, "sh", &pid.to_string()]).output().expect("sh");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs: root"]
fn an_app_with_the_agent_s_uid_cannot_look_into_the_agent() {
    let name = "an_app_with_the_agent_s_uid_cannot_look_into_the_agent";
    as_agent(
        name,
        &SAME,
        || World::start(As::User(1000, 1000), |_| {}),
        |inside| {
            let own = std::process::id();
            assert!(
                spy(own).contains("environ") && spy(own).contains("fd"),
                "without hardening it can: {}",
                spy(own)
            );
            devsync_agent::sys::dumpable::harden().expect("harden");
            assert_eq!(spy(own), "");
            // Its own work goes on: files are opened again through /proc/self/fd.
            let (mut file, _) = target(inside.pid).open_file(b"/usr/bin/cat").expect("open");
            let mut magic = [0; 4];
            std::io::Read::read_exact(&mut file, &mut magic).expect("read");
            assert_eq!(&magic, b"\x7fELF");
            let limits = fs::read_to_string("/proc/self/limits");
            // The limits file is shut too, for an agent without rights over itself: ask the kernel.
            drop(limits);
            let core =
                nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_CORE).expect("limit");
            assert_eq!(core, (0, 0));
        },
    );
}

#[test]
#[ignore = "needs: root"]
fn taking_an_app_s_ids_never_opens_the_agent_to_that_app() {
    let name = "taking_an_app_s_ids_never_opens_the_agent_to_that_app";
    let outer =
        || World::start(As::User(65532, 65532), |root| furnish(&root.join("app"), 65532, 65532, 0o755));
    as_agent(name, &ROOT_DEFAULT, outer, |inside| {
        devsync_agent::sys::dumpable::harden().expect("harden");
        let sync = sync_root(inside);
        let _ids = sync.enter().expect("ids");
        put(&sync, b"new", b"new").expect("create");
        let own = std::process::id().to_string();
        let output = Command::new("setpriv")
            .args(["--reuid=65532", "--regid=65532", "--clear-groups", "sh", "-c", SPY, "sh", &own])
            .output()
            .expect("setpriv");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    });
}

#[test]
#[ignore = "needs: root"]
fn an_unreadable_executable_is_shut_from_its_first_instruction() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let exe = dir.path().join("agent");
    fs::copy("/bin/cat", &exe).expect("copy");
    let seen = [0o755, 0o111].map(|mode| {
        furnish(&exe, 0, 0, mode);
        let mut child = Command::new("setpriv")
            .args(SAME)
            // setpriv itself still has capabilities at its execve, and with them the file is readable.
            .args(["sh", "-c", "exec \"$0\""])
            .arg(&exe)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("setpriv");
        child.stdin.as_mut().expect("stdin").write_all(b"up\n").expect("write");
        let mut out = std::io::BufReader::new(child.stdout.take().expect("stdout"));
        std::io::BufRead::read_line(&mut out, &mut String::new()).expect("read");
        let pid = child.id().to_string();
        let output = Command::new("setpriv").args(SAME).args(["sh", "-c", SPY, "sh", &pid]).output();
        drop(child.stdin.take());
        child.wait().expect("wait");
        String::from_utf8_lossy(&output.expect("setpriv").stdout).into_owned()
    });
    assert!(seen[0].contains("environ") && seen[0].contains("mem"), "{seen:?}");
    assert_eq!(seen[1], "");
}

#[test]
#[ignore = "needs: root"]
fn an_app_that_is_not_dumpable_is_said_to_be() {
    let name = "an_app_that_is_not_dumpable_is_said_to_be";
    let outer = || {
        // The app executes a file that it cannot read.
        World::start_with(
            As::User(1000, 1000),
            "cp /bin/cat $root/etc/cat; chmod 0111 $root/etc/cat; mount --bind $root/etc/cat $root/usr/bin/cat",
            |_| {},
        )
    };
    as_agent(name, &SAME, outer, |inside| {
        let (text, hint) = refusal(inside.pid);
        assert!(text.contains("not dumpable"), "{text}");
        assert!(hint.contains("SYS_PTRACE"), "{hint}");
    });
}
