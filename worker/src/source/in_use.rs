//! Whether somebody else writes to a disk.
//!
//! QEMU marks images by byte-range locks on open file descriptions (`block/file-posix.c`): byte 100+n is held while it uses permission n, byte 200+n
//! while it suffers nobody else to use permission n. Locks are only looked at, never taken: a VM can be started during a backup.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FileType, OFlags};

/// Bytes whose locks mean that the disk may change or must not be read, and what each means.
const LOCKS: [(i64, &str); 3] = [
    (101, "a QEMU process writes to it"),
    (103, "a QEMU process may change its size"),
    (200, "a QEMU process has it for itself"),
];

/// How it is known that somebody writes to this file or device, if anybody does.
///
/// # Errors
/// Those of the operating system; a file system without locks has nobody.
pub(crate) fn writer(file: &File) -> io::Result<Option<&'static str>> {
    for (byte, why) in LOCKS {
        if is_locked(file, byte)? {
            return Ok(Some(why));
        }
    }
    Ok(None)
}

fn is_locked(file: &File, byte: i64) -> io::Result<bool> {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => Ok(lock.l_type != libc::F_UNLCK as libc::c_short),
        Err(Errno::EINVAL | Errno::ENOLCK | Errno::ENOTSUP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether a block device is mounted or a part of another device. Files are not asked.
///
/// The claim is given up at once, so that nobody is kept from the device.
///
/// # Errors
/// Those of opening the device, other than that it is busy.
pub(crate) fn device_holder(path: &Path, kind: FileType) -> io::Result<Option<&'static str>> {
    if kind != FileType::BlockDevice {
        return Ok(None);
    }
    match File::options()
        .read(true)
        .custom_flags((OFlags::EXCL | OFlags::NONBLOCK).bits() as i32)
        .open(path)
    {
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            Ok(Some("it is mounted or part of another device"))
        }
        Err(error) => Err(error),
    }
}
