//! Whether an editor's server can run in the app's root: VS Code Remote and JetBrains Gateway bring their own program,
//! and take its loader, libraries and a shell from the image. Files are looked at, nothing is run.

use std::io::{Read, Take};
use std::os::fd::AsFd;

use devsync_protocol::finding::Finding;
use devsync_protocol::path::display;

use crate::shell::{PATH, SHELLS, passwd};
use crate::sys::mountpoint;
use crate::sys::proc::Status;
use crate::target::access::Hand;
use crate::target::error::TargetError;
use crate::target::identity::Identity;
use crate::target::root::TargetRoot;

/// Of glibc, for VS Code 1.86 and later (its page "Remote Development with Linux").
const GLIBC: u32 = 28;
/// Where images have their libraries.
const LIBRARIES: [&str; 6] =
    ["/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/usr/lib", "/lib"];
const MUSL: [&str; 2] = ["/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-aarch64.so.1"];
/// More than a libc has.
const LONGEST: u64 = 16 * 1024 * 1024;
/// The least that the agent's container, which such a server counts to, should have.
const MEMORY: u64 = 1 << 30;
/// The agent's own, by either version of cgroups.
const LIMITS: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
/// The capability that a program in another root is started with.
const SYS_CHROOT: u8 = 18;
/// Directories of a PATH that are looked at.
const DIRECTORIES: usize = 32;

const INSTEAD: &str = "; devsync attach, shell and debug --write, sftp and sshfs need none of it";

/// Images are full of links.
const UNSEEN: &str = "what VS Code Remote and JetBrains Gateway need cannot be looked for: without openat2 no link in the \
                      app's root is followed";

/// What an image has of it.
#[derive(Debug, Default)]
struct Image {
    shell: Option<String>,
    has_tar: bool,
    /// The minor version of the newest symbols in libc.so.6.
    glibc: Option<u32>,
    has_musl: bool,
    has_cpp: bool,
    home: String,
    /// Why the app's user cannot write in its home.
    home_is_shut: Option<String>,
    /// Of the agent's container, in bytes.
    memory: Option<u64>,
    /// The agent cannot start a program there.
    is_closed: bool,
}

/// `agent`: its own status.
pub(super) fn look(app: &Identity, root: &TargetRoot, agent: &Status) -> Finding {
    let on_the_way = |file: &&[u8]| matches!(root.open_file(file), Err(TargetError::SymlinkOnTheWay { .. }));
    if SHELLS.iter().any(on_the_way) {
        return Finding::ok("editors", UNSEEN);
    }
    let environment = app.access().inspect(|| app.proc().environ()).unwrap_or_default();
    let variable = |name: &[u8]| environment.iter().find_map(|entry| entry.strip_prefix(name));
    let text = read(root, "/etc/passwd").unwrap_or_default();
    let user = passwd::line(&text, app.access().app().uid);
    // As a shell there gets it: the app's own, the user's, the working directory.
    let cwd = || app.access().inspect(|| app.proc().cwd()).unwrap_or_else(|_| b"/".to_vec());
    let own = variable(b"HOME=").or(user.as_ref().map(|user| user.home));
    let home = own.map_or_else(cwd, <[u8]>::to_vec);
    let shells = user.and_then(|user| user.shell).into_iter().chain(SHELLS);
    let path = variable(b"PATH=").unwrap_or(PATH).split(|b| *b == b':').take(DIRECTORIES);
    let libraries = |name: &str| LIBRARIES.map(|directory| format!("{directory}/{name}"));
    Finding::ok(
        "editors",
        judge(&Image {
            shell: shells.into_iter().find(|shell| executes(root, shell)).map(display),
            has_tar: path.into_iter().any(|directory| executes(root, &[directory, b"/tar"].concat())),
            glibc: libraries("libc.so.6").iter().find_map(|file| newest(&read(root, file)?)),
            has_musl: MUSL.iter().any(|file| root.open_file(file.as_bytes()).is_ok()),
            has_cpp: libraries("libstdc++.so.6").iter().any(|file| root.open_file(file.as_bytes()).is_ok()),
            home_is_shut: shut(root, &home),
            home: display(&home),
            is_closed: !mountpoint::is_own_root(root.as_fd()) && !agent.cap_effective.has(SYS_CHROOT),
            memory: LIMITS.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()),
        }),
    )
}

fn executes(root: &TargetRoot, file: &[u8]) -> bool {
    root.open_file(file).is_ok_and(|(_, metadata)| metadata.mode & 0o111 != 0)
}

fn read(root: &TargetRoot, file: &str) -> Option<Vec<u8>> {
    let (file, _) = root.open_file(file.as_bytes()).ok()?;
    let mut bytes = Vec::new();
    Take::read_to_end(&mut file.take(LONGEST), &mut bytes).ok()?;
    Some(bytes)
}

/// An editor's server has the app's ids and nothing of the agent's.
fn shut(root: &TargetRoot, home: &[u8]) -> Option<String> {
    match root.sync_root(home).and_then(|home| home.check_writable(b"")) {
        Ok(Hand::App) => None,
        Ok(Hand::Agent) => Some("only root may write there".to_owned()),
        Err(error) if error.is_not_found() => Some("it does not exist".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// The newest version of symbols that a libc defines, which is what the loader compares.
fn newest(libc: &[u8]) -> Option<u32> {
    const NAME: &[u8] = b"GLIBC_2.";
    let versions = libc.windows(NAME.len() + 2).filter_map(|part| {
        let digits = part.strip_prefix(NAME)?;
        let text: String = digits.iter().map_while(|b| b.is_ascii_digit().then(|| char::from(*b))).collect();
        text.parse().ok()
    });
    versions.max()
}

fn judge(image: &Image) -> String {
    let lacks: Vec<String> = [
        image.is_closed.then(|| "the agent lacks SYS_CHROOT to start a program in the app's root".to_owned()),
        image.shell.is_none().then(|| "the image has no shell".to_owned()),
        match image.glibc {
            None if image.has_musl => Some("the image has musl in the place of glibc".to_owned()),
            None => Some("the image has no glibc".to_owned()),
            Some(minor) if minor < GLIBC => {
                Some(format!("the image's glibc is 2.{minor}, older than 2.{GLIBC}"))
            }
            Some(_) => None,
        },
        (image.glibc.is_some() && !image.has_cpp).then(|| "the image has no libstdc++.so.6".to_owned()),
        (!image.has_tar).then(|| "the image has no tar".to_owned()),
        image.home_is_shut.as_ref().map(|why| format!("the home {} cannot be written: {why}", image.home)),
        image.memory.filter(|limit| *limit < MEMORY).map(|limit| {
            let limit = limit >> 20;
            format!(
                "it would count to the agent's container, which may have {limit} MiB (devsync.dev/resources)"
            )
        }),
    ]
    .into_iter()
    .flatten()
    .collect();
    let Some(shell) = image.shell.as_ref().filter(|_| lacks.is_empty()) else {
        return format!(
            "VS Code Remote and JetBrains Gateway cannot have their server here: {}{INSTEAD}",
            lacks.join("; ")
        );
    };
    format!(
        "VS Code Remote and JetBrains Gateway find what they need: {shell}, tar, glibc 2.{} with libstdc++, and {} can \
         be written",
        image.glibc.unwrap_or_default(),
        image.home
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_image_lacks_for_an_editor_is_named() {
        let debian = || Image {
            shell: Some("/bin/sh".to_owned()),
            has_tar: true,
            glibc: Some(36),
            has_cpp: true,
            home: "/root".to_owned(),
            ..Image::default()
        };
        assert!(
            judge(&debian()).contains("find what they need: /bin/sh, tar, glibc 2.36"),
            "{}",
            judge(&debian())
        );
        let old = judge(&Image { glibc: Some(27), ..debian() });
        assert!(old.contains("here: the image's glibc is 2.27, older than 2.28; devsync"), "{old}");
        let alpine = judge(&Image { glibc: None, has_musl: true, has_cpp: false, ..debian() });
        assert!(alpine.contains("here: the image has musl in the place of glibc; devsync"), "{alpine}");
        let scratch = judge(&Image { home: "/".to_owned(), ..Image::default() });
        assert!(
            scratch.contains("the image has no shell; the image has no glibc; the image has no tar; devsync"),
            "{scratch}"
        );
        let shut = judge(&Image { home_is_shut: Some("it does not exist".to_owned()), ..debian() });
        let small = judge(&Image { memory: Some(128 << 20), ..debian() });
        assert!(small.contains("the agent's container, which may have 128 MiB"), "{small}");
        let closed = judge(&Image { is_closed: true, ..debian() });
        assert!(closed.contains("here: the agent lacks SYS_CHROOT"), "{closed}");
        assert!(shut.contains("the home /root cannot be written: it does not exist;"), "{shut}");
    }

    #[test]
    fn the_newest_symbols_say_the_version() {
        assert_eq!(newest(b"GLIBC_2.2.5\0GLIBC_2.36\0GLIBC_2.4\0GLIBC_PRIVATE\0"), Some(36));
        assert_eq!(newest(b"GLIBC_2.x\0 GLIBC_2"), None);
        let own = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6", "/lib64/libc.so.6"];
        let libc = own.iter().find_map(|file| std::fs::read(file).ok());
        assert!(libc.is_none_or(|libc| newest(&libc).is_some_and(|minor| minor >= 17)));
    }
}
