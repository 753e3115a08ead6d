//! File systems whose files are switches of the kernel or of processes: never entered, never touched.

use std::os::fd::AsFd;

use nix::sys::statfs::{self as fs, FsType, fstatfs};

use super::super::error::TargetError;

/// The rest of `include/uapi/linux/magic.h` that nix does not name.
const CONFIGFS: FsType = FsType(0x6265_6570);
const EFIVARFS: FsType = FsType(0xde5e_81e4);
const PSTOREFS: FsType = FsType(0x6165_676c);
const BINFMTFS: FsType = FsType(0x4249_4e4d);
const FUSECTL: FsType = FsType(0x6573_5543);
const MQUEUE: FsType = FsType(0x1980_0202);

const FORBIDDEN: [(FsType, &str); 18] = [
    (fs::PROC_SUPER_MAGIC, "procfs"),
    (fs::SYSFS_MAGIC, "sysfs"),
    (fs::CGROUP_SUPER_MAGIC, "cgroupfs"),
    (fs::CGROUP2_SUPER_MAGIC, "cgroup2"),
    (fs::DEVPTS_SUPER_MAGIC, "devpts"),
    (fs::DEBUGFS_MAGIC, "debugfs"),
    (fs::TRACEFS_MAGIC, "tracefs"),
    (fs::SECURITYFS_MAGIC, "securityfs"),
    (fs::BPF_FS_MAGIC, "bpf"),
    (fs::NSFS_MAGIC, "nsfs"),
    (fs::SELINUX_MAGIC, "selinuxfs"),
    (fs::SMACK_MAGIC, "smackfs"),
    (CONFIGFS, "configfs"),
    (EFIVARFS, "efivarfs"),
    (PSTOREFS, "pstore"),
    (BINFMTFS, "binfmt_misc"),
    (FUSECTL, "fusectl"),
    (MQUEUE, "mqueue"),
];

/// Refuses what lies on one of them; `name` is for the message.
pub(in super::super) fn check(
    fd: impl AsFd,
    operation: &'static str,
    name: &[u8],
) -> Result<(), TargetError> {
    let found = fstatfs(fd).map_err(|errno| TargetError::Call { operation, path: name.into(), errno })?;
    match FORBIDDEN.iter().find(|(magic, _)| *magic == found.filesystem_type()) {
        Some((_, filesystem)) => Err(TargetError::Forbidden { operation, path: name.into(), filesystem }),
        None => Ok(()),
    }
}
