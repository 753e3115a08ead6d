//! No name that an app can choose leads out of the synced directory, with openat2 and without it.

#[path = "target_world/world.rs"]
mod world;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use devsync_agent::target::error::TargetError;
use devsync_agent::target::metadata::Kind;
use devsync_agent::target::root::SyncRoot;
use nix::errno::Errno;
use world::{As, World, fingerprint, with_and_without_openat2};

/// Every operation that changes something, on `path`.
fn try_everything(root: &SyncRoot, path: &[u8]) -> Result<(), TargetError> {
    let (parent, leaf) = root.parent(path)?;
    let mut temp = parent.create_temp()?;
    let _ = temp.write_all(b"EVIL");
    let _ = temp.rename_over(leaf);
    let _ = parent.write_in_place(leaf, &mut &b"EVIL"[..]);
    let _ = parent.chmod(leaf, 0o777);
    let _ = parent.chown(leaf, 7, 7);
    let _ = parent.set_mtime(leaf, (1, 0));
    let _ = parent.mkdir(b"evil", 0o777);
    let _ = parent.symlink(b"/", b"evil-link");
    let _ = parent.rename(leaf, &parent, b"evil-name");
    let _ = parent.unlink(leaf);
    let _ = parent.rmdir(leaf);
    Ok(())
}

#[test]
#[ignore = "needs: root"]
fn directories_that_are_links_out_are_no_way() {
    with_and_without_openat2(|_| {
        let own_file = tempfile::tempfile().expect("a file");
        let own_fd = std::os::fd::AsRawFd::as_raw_fd(&own_file);
        let world = World::start(As::Root, |root| {
            fs::write(root.join("etc/passwd"), "app").expect("write");
            let agent = std::process::id();
            for (name, to) in [
                ("slash", "/".to_owned()),
                ("up", "..".to_owned()),
                ("far-up", "../../../../../../..".to_owned()),
                ("init", "/proc/1/root".to_owned()),
                ("fd", format!("/proc/self/fd/{own_fd}")),
                ("fds", "/proc/self/fd".to_owned()),
                ("agent", format!("/proc/{agent}")),
                ("relative-agent", format!("../proc/{agent}")),
                ("abs", "/etc".to_owned()),
                ("loop", "loop".to_owned()),
            ] {
                symlink(to, root.join("app").join(name)).expect("symlink");
            }
            symlink("up", root.join("app/chain")).expect("symlink");
        });
        let outside = world.dir.path().join("outside");
        fs::create_dir(&outside).expect("mkdir");
        symlink(&outside, world.app("outside")).expect("symlink");
        symlink("../../outside", world.app("relative-outside")).expect("symlink");
        let (before, etc) = (fingerprint(&outside), fingerprint(&world.root().join("etc")));
        let sync = world.sync_root();
        let links = [
            "slash",
            "up",
            "far-up",
            "init",
            "fd",
            "fds",
            "agent",
            "relative-agent",
            "abs",
            "loop",
            "chain",
            "outside",
            "relative-outside",
        ];
        for link in links {
            // A way out is only looked for, since every operation starts from a parent: were there one, trying
            // it would change the machine.
            for leaf in ["mem", "passwd", "etc/passwd", "app/x", "0"] {
                let path = format!("{link}/{leaf}");
                let refused = sync.parent(path.as_bytes()).map(drop).expect_err(&path);
                assert!(
                    matches!(
                        refused,
                        TargetError::Escapes { .. }
                            | TargetError::SymlinkOnTheWay { .. }
                            | TargetError::Call { .. }
                    ),
                    "{path}: {refused:?}"
                );
            }
            assert!(sync.directory(link.as_bytes()).is_err(), "{link}");
        }
        for link in ["outside", "relative-outside"] {
            assert!(sync.mkdir_all(format!("{link}/new/dir").as_bytes(), 0o755).is_err(), "{link}");
            assert!(try_everything(&sync, format!("{link}/x").as_bytes()).is_err(), "{link}");
        }
        assert_eq!(fingerprint(&outside), before);
        assert_eq!(fingerprint(&world.root().join("etc")), etc);
    });
}

#[test]
#[ignore = "needs: root"]
fn a_sync_root_of_slash_stays_in_the_root_and_out_of_proc() {
    with_and_without_openat2(|variant| {
        let world = World::start(As::Root, |root| {
            fs::write(root.join("etc/hostname"), "the app's").expect("write");
            symlink("/etc", root.join("app/abs")).expect("symlink");
            symlink("../../../../../etc", root.join("app/up")).expect("symlink");
            symlink(format!("/proc/{}", std::process::id()), root.join("app/agent")).expect("symlink");
            symlink("/proc/1/root", root.join("app/init")).expect("symlink");
        });
        let all = world.target().sync_root(b"/").expect("sync root");
        for link in ["abs", "up"] {
            let path = format!("app/{link}/hostname");
            let found = all.parent(path.as_bytes());
            if variant == "openat2" {
                let (parent, leaf) = found.expect("a link within the root");
                let mut text = String::new();
                parent.open_read(leaf).expect("open").0.read_to_string(&mut text).expect("read");
                assert_eq!(text, "the app's");
            } else {
                assert!(matches!(found, Err(TargetError::SymlinkOnTheWay { .. })), "{found:?}");
            }
        }
        for path in [
            "app/agent/mem",
            "app/init/etc/passwd",
            "proc/self/mem",
            "proc/1/mem",
            "proc/1/root/etc/passwd",
            "proc/sysrq-trigger",
        ] {
            assert!(all.parent(path.as_bytes()).is_err(), "{path}");
        }
        let direct = all.parent(b"proc/self/mem").map(drop);
        assert!(
            matches!(
                direct,
                Err(TargetError::Forbidden { filesystem: "procfs", .. }
                    | TargetError::Call { .. }
                    | TargetError::SymlinkOnTheWay { .. })
            ),
            "{direct:?}"
        );
    });
}

#[test]
#[ignore = "needs: root"]
fn the_app_s_links_mean_what_they_mean_to_the_app() {
    with_and_without_openat2(|variant| {
        let world = World::start(As::Root, |root| {
            fs::create_dir_all(root.join("releases/42/sub")).expect("mkdir");
            symlink("/releases/42", root.join("current")).expect("symlink");
            symlink("sub", root.join("releases/42/inner")).expect("symlink");
            fs::write(root.join("releases/42/tool"), "ELF").expect("write");
        });
        let found = world.target().sync_root(b"/current");
        if variant != "openat2" {
            let error = found.expect_err("links are refused");
            assert!(error.hint().is_some_and(|h| h.contains("openat2")), "{error:?}");
            return;
        }
        let sync = found.expect("the release");
        let (parent, leaf) = sync.parent(b"inner/file").expect("a link that stays inside");
        parent.create_temp().expect("temp").rename_over(leaf).expect("rename");
        assert!(world.root().join("releases/42/sub/file").exists());
        let (mut file, _) = world.target().open_file(b"/current/tool").expect("open");
        let mut text = String::new();
        file.read_to_string(&mut text).expect("read");
        assert_eq!(text, "ELF");
    });
}

#[test]
#[ignore = "needs: root"]
fn a_leaf_that_is_a_link_is_never_followed() {
    with_and_without_openat2(|_| {
        let world = World::start(As::Root, |_| {});
        let victim = world.dir.path().join("victim");
        fs::write(&victim, "untouched").expect("write");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o640)).expect("chmod");
        let inside = world.app("inside");
        fs::write(&inside, "untouched").expect("write");
        let before = (
            fs::metadata(&victim).expect("stat").ctime_nsec(),
            fs::metadata(&inside).expect("stat").ctime_nsec(),
        );
        for to in [victim.as_path(), Path::new("inside"), Path::new("/app/inside"), Path::new("dangling")] {
            let link = world.app("link");
            let fresh = || {
                let _ = fs::remove_file(&link);
                symlink(to, &link).expect("symlink");
            };
            fresh();
            let (parent, leaf) = world.sync_root().parent(b"link").expect("parent");
            assert_eq!(parent.metadata(leaf).expect("lstat").kind, Kind::Symlink);
            assert_eq!(parent.read_link(leaf).expect("readlink"), to.as_os_str().as_bytes());
            let is_link = |r: Result<(), TargetError>| {
                matches!(r, Err(TargetError::WrongKind { kind: Kind::Symlink, .. }))
            };
            assert!(is_link(parent.open_read(leaf).map(drop)));
            assert!(is_link(parent.chmod(leaf, 0o777)));
            assert!(is_link(parent.write_in_place(leaf, &mut &b"EVIL"[..]).map(drop)));
            parent.set_mtime(leaf, (12345, 0)).expect("utimes of the link itself");
            assert_eq!(parent.metadata(leaf).expect("lstat").mtime, (12345, 0));
            parent.chown(leaf, 7, 8).expect("chown of the link itself");
            assert_eq!(parent.metadata(leaf).expect("lstat").uid, 7);
            assert_eq!(parent.mkdir(leaf, 0o755).expect_err("taken").errno(), Some(Errno::EEXIST));
            assert_eq!(parent.symlink(b"x", leaf).expect_err("taken").errno(), Some(Errno::EEXIST));
            let noreplace = parent.create_temp().expect("temp").rename_noreplace(leaf);
            assert_eq!(noreplace.expect_err("taken").errno(), Some(Errno::EEXIST));
            parent.create_temp().expect("temp").rename_over(leaf).expect("the link is replaced");
            assert_eq!(parent.metadata(leaf).expect("lstat").kind, Kind::File);
            fresh();
            parent.unlink(leaf).expect("the link is removed");
        }
        assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
        assert_eq!(fs::read_to_string(&inside).expect("read"), "untouched");
        let after = (
            fs::metadata(&victim).expect("stat").ctime_nsec(),
            fs::metadata(&inside).expect("stat").ctime_nsec(),
        );
        assert_eq!(after, before, "not even the change time moved");
        assert_eq!(fs::read_dir(world.app("")).expect("list").count(), 1, "no temp is left");
    });
}

#[test]
#[ignore = "needs: root"]
fn fifos_sockets_and_devices_are_refused_without_opening_them() {
    with_and_without_openat2(|_| {
        let world = World::start(As::Root, |root| {
            let app = root.join("app");
            nix::unistd::mkfifo(&app.join("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("mkfifo");
            std::os::unix::net::UnixListener::bind(app.join("socket")).expect("bind");
            // Opening the kernel's message device would show in its reader; opening a tty waits for a carrier.
            let tty = nix::sys::stat::makedev(4, 64);
            let kind = nix::sys::stat::SFlag::S_IFCHR;
            nix::sys::stat::mknod(&app.join("device"), kind, nix::sys::stat::Mode::S_IRWXU, tty)
                .expect("mknod");
        });
        let parent = world.sync_root().directory(b"").expect("parent");
        for (name, kind) in [("fifo", Kind::Fifo), ("socket", Kind::Socket), ("device", Kind::Device)] {
            let refused = |r: Result<(), TargetError>| matches!(r, Err(TargetError::WrongKind { kind: k, .. }) if k == kind);
            assert!(refused(parent.open_read(name.as_bytes()).map(drop)), "{name}");
            assert!(refused(parent.open_in_place(name.as_bytes()).map(drop)), "{name}");
            assert!(refused(parent.chmod(name.as_bytes(), 0o777)), "{name}");
        }
        let mut kinds: Vec<_> = parent.read_dir(10).expect("list").into_iter().map(|e| e.kind).collect();
        kinds.sort_by_key(|k| format!("{k:?}"));
        assert_eq!(kinds, [Some(Kind::Device), Some(Kind::Fifo), Some(Kind::Socket)]);
        assert!(matches!(parent.read_dir(2), Err(TargetError::TooMany { limit: 2, .. })));
    });
}

#[test]
#[ignore = "needs: root"]
fn file_systems_of_switches_are_refused_as_directory_and_as_leaf() {
    with_and_without_openat2(|_| {
        let mounts = "mount -t sysfs sysfs $root/app/sys; mount -t devpts devpts $root/app/pts; \
                      mount -t proc proc $root/app/proc; mount -t debugfs debugfs $root/app/debug; \
                      mount -t bpf bpf $root/app/bpf; mount --bind /proc/self/comm $root/app/leaf; \
                      mount -t cgroup2 cgroup2 $root/app/cgroup 2>/dev/null || mount --bind /sys/fs/cgroup/cpu $root/app/cgroup";
        let names = ["sys", "pts", "proc", "debug", "bpf", "cgroup"];
        let world = World::start_with(As::Root, mounts, |root| {
            names.iter().for_each(|name| fs::create_dir(root.join("app").join(name)).expect("mkdir"));
            fs::write(root.join("app/leaf"), "").expect("write");
        });
        let sync = world.sync_root();
        for name in names {
            let path = format!("{name}/x");
            let refused = sync.parent(path.as_bytes());
            assert!(matches!(refused, Err(TargetError::Forbidden { .. })), "{name}: {refused:?}");
            assert!(
                world
                    .target()
                    .sync_root(format!("/app/{name}").as_bytes())
                    .and_then(|s| s.directory(b""))
                    .is_err()
            );
        }
        let parent = sync.directory(b"").expect("parent");
        let forbidden = |r: Result<(), TargetError>| {
            matches!(r, Err(TargetError::Forbidden { filesystem: "procfs", .. }))
        };
        assert!(forbidden(parent.open_read(b"leaf").map(drop)));
        assert!(forbidden(parent.write_in_place(b"leaf", &mut &b"x"[..]).map(drop)));
        assert!(forbidden(parent.chmod(b"leaf", 0o777)));
        assert!(forbidden(parent.chown(b"leaf", 1, 1)));
    });
}

#[test]
#[ignore = "needs: root"]
fn what_is_mounted_in_the_app_stays_mounted_and_is_written_in_place() {
    let mounts = "mount --bind $root/etc/source $root/app/config; mount -t tmpfs tmpfs $root/app/volume";
    let world = World::start_with(As::Root, mounts, |root| {
        fs::create_dir(root.join("app/volume")).expect("mkdir");
        fs::write(root.join("etc/source"), "a long old text").expect("write");
        fs::write(root.join("app/config"), "").expect("write");
    });
    let parent = world.sync_root().directory(b"").expect("parent");
    let mut temp = parent.create_temp().expect("temp");
    temp.write_all(b"new").expect("write");
    let busy = |r: Result<(), TargetError>| r.expect_err("busy").errno() == Some(Errno::EBUSY);
    assert!(busy(temp.rename_over(b"config")));
    assert!(parent.find(temp.name()).expect("stat").is_some(), "an error leaves the temp to be used");
    drop(temp);
    assert!(busy(parent.unlink(b"config")) && busy(parent.rename(b"config", &parent, b"x")));
    assert!(busy(parent.rmdir(b"volume")) && busy(parent.rename(b"volume", &parent, b"x")));
    let inode = parent.metadata(b"config").expect("stat").inode;
    assert_eq!(parent.write_in_place(b"config", &mut &b"new"[..]).expect("in place"), 3);
    assert_eq!(fs::read_to_string(world.root().join("etc/source")).expect("read"), "new");
    assert_eq!(parent.metadata(b"config").expect("stat").inode, inode);
    assert_eq!(fs::read_dir(world.app("")).expect("list").count(), 2, "the temp is gone");
    let mounts = fs::read_to_string(format!("/proc/{}/mounts", world.pid())).expect("mounts");
    assert!(mounts.contains("/app/config ") && mounts.contains("/app/volume "), "{mounts}");
}

#[test]
#[ignore = "needs: root"]
fn odd_names_arrive_byte_for_byte_and_are_escaped_in_messages() {
    with_and_without_openat2(|_| {
        let world = World::start(As::Root, |_| {});
        let sync = world.sync_root();
        let longest = [b'x'; 255];
        for name in
            [&b"new\nline"[..], b"\x1b[2J", b"\xff\xfe", b" ", b"...", b"-rf", b"a\\b", b"\"", &longest]
        {
            let path = [b"d/", name].concat();
            sync.mkdir_all(b"d", 0o755).expect("mkdir");
            let (parent, leaf) = sync.parent(&path).expect("parent");
            parent.create_temp().expect("temp").rename_over(leaf).expect("rename");
            let names: Vec<_> = parent.read_dir(10).expect("list").into_iter().map(|e| e.name).collect();
            assert_eq!(names, [name]);
            let message = parent.mkdir(leaf, 0o755).expect_err("taken").to_string();
            assert!(!message.chars().any(char::is_control), "{message:?}");
            parent.unlink(leaf).expect("unlink");
        }
        let long = b"abcd/".repeat(1000);
        let error = sync.parent(&long[..4999]).expect_err("too long").to_string();
        assert!(error.contains("4095") && error.len() < 600, "{error}");
        let error = sync.parent(&[b'y'; 256]).expect_err("too long").to_string();
        assert!(error.contains("255"), "{error}");
        for bad in [&b"/etc/passwd"[..], b"../x", b"a/../../x", b"a//b", b"a/./b", b"", b"a\0b", b"a/"] {
            assert!(matches!(sync.parent(bad), Err(TargetError::BadPath { .. })), "{bad:?}");
            assert!(sync.mkdir_all(bad, 0o755).is_err(), "{bad:?}");
        }
        let parent = sync.directory(b"").expect("parent");
        for bad in [&b"."[..], b"..", b"", b"a/b", b"/", b"a\0"] {
            assert!(parent.unlink(bad).is_err() && parent.rename(bad, &parent, b"ok").is_err(), "{bad:?}");
            assert!(
                parent.rename(b"ok", &parent, bad).is_err() && parent.symlink(b"x", bad).is_err(),
                "{bad:?}"
            );
        }
    });
}

#[test]
#[ignore = "needs: root"]
fn modes_are_exact_whatever_the_umask_says() {
    let world = World::start(As::Root, |_| {});
    let sync = world.sync_root();
    sync.mkdir_all(b"a/b/c", 0o777).expect("mkdir");
    sync.mkdir_all(b"a/b/c/d", 0o1775).expect("mkdir");
    let (parent, leaf) = sync.parent(b"a/b/c").expect("parent");
    assert_eq!(parent.metadata(leaf).expect("stat").mode, 0o777);
    let mut temp = parent.create_temp().expect("temp");
    assert_eq!(parent.metadata(temp.name()).expect("stat").mode, 0o600);
    temp.set_mode(0o4755).expect("chmod");
    temp.set_mtime((-1, 5)).expect("utimes");
    temp.rename_over(b"tool").expect("rename");
    let found = parent.metadata(b"tool").expect("stat");
    assert_eq!((found.mode, found.mtime), (0o4755, (-1, 5)));
    parent.chmod(b"tool", 0o640).expect("chmod");
    assert_eq!(parent.metadata(b"tool").expect("stat").mode, 0o640);
}

#[test]
#[ignore = "needs: root"]
fn a_read_only_file_system_is_named_before_any_byte() {
    let mounts = "mount --bind $root/app $root/app; mount -o remount,bind,ro $root/app";
    let world = World::start_with(As::Root, mounts, |_| {});
    let error = world.sync_root().check_writable(b"not/yet").expect_err("read-only");
    assert!(matches!(error, TargetError::NotWritable { .. }), "{error:?}");
    assert!(error.to_string().contains("\"/app\"") && error.to_string().contains("read-only"), "{error}");
    assert!(error.hint().is_some_and(|h| h.contains("volume")));
}
