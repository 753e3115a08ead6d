//! OpenSSH's extensions of SFTP version 3 (its PROTOCOL file, section 4).

use nix::sys::statvfs::{FsFlags, Statvfs};
use tokio_util::bytes::Bytes;

use super::attributes::Wanted;
use super::handles::MOST;
use super::paths;
use super::requests::{Server, name};
use super::status::{self, Refused};
use super::wire::{self, Fields, LONGEST_BLOCK, LONGEST_PACKET, Packet};
use crate::target::parent::Parent;

const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

pub(super) fn version() -> Bytes {
    let hello = Packet::new(wire::VERSION).u32(3);
    let told = EXTENSIONS.iter();
    told.fold(hello, |hello, (name, version)| hello.string(name.as_bytes()).string(version.as_bytes()))
        .finish()
}

pub(super) fn request(server: &mut Server, id: u32, fields: &mut Fields<'_>) -> Result<Bytes, Refused> {
    match fields.string()? {
        b"posix-rename@openssh.com" => server.rename(fields, Parent::rename)?,
        b"hardlink@openssh.com" => server.rename(fields, Parent::hard_link)?,
        b"lsetstat@openssh.com" => {
            let path = server.plain(fields.string()?);
            let entry = server.files.entry(&path)?;
            server.set(&entry, &Wanted::read(fields)?)?;
        }
        b"fsync@openssh.com" => server.handles.file(fields.string()?)?.file.sync_all()?,
        b"statvfs@openssh.com" => {
            let path = server.plain(fields.string()?);
            return Ok(file_system(id, &server.files.followed(&path)?.file_system()?));
        }
        b"fstatvfs@openssh.com" => {
            let found = server.handles.file(fields.string()?)?.entry.file_system()?;
            return Ok(file_system(id, &found));
        }
        b"limits@openssh.com" => {
            let block = u64::from(LONGEST_BLOCK);
            let packet = Packet::answer(wire::EXTENDED_REPLY, id).u64(LONGEST_PACKET as u64);
            return Ok(packet.u64(block).u64(block).u64(MOST as u64).finish());
        }
        b"expand-path@openssh.com" => {
            let home = Refused::Failure("only ~ and ~/ are known here: the app's working directory");
            let path = paths::expanded(fields.string()?).ok_or(home)?;
            return Ok(name(id, &paths::absolute(&server.plain(path))));
        }
        _ => return Err(Refused::Unsupported),
    }
    Ok(status::ok(id))
}

fn file_system(id: u32, found: &Statvfs) -> Bytes {
    const READ_ONLY: u64 = 1;
    const NO_SET_ID: u64 = 2;
    let mut flags = 0;
    for (flag, value) in [(FsFlags::ST_RDONLY, READ_ONLY), (FsFlags::ST_NOSUID, NO_SET_ID)] {
        if found.flags().contains(flag) {
            flags |= value;
        }
    }
    let packet = Packet::answer(wire::EXTENDED_REPLY, id);
    // Their widths differ between architectures.
    #[allow(clippy::useless_conversion)]
    let numbers = [
        found.block_size().into(),
        found.fragment_size().into(),
        found.blocks().into(),
        found.blocks_free().into(),
        found.blocks_available().into(),
        found.files().into(),
        found.files_free().into(),
        found.files_available().into(),
        found.filesystem_id().into(),
        flags,
        found.name_max().into(),
    ];
    numbers.into_iter().fold(packet, Packet::u64).finish()
}
