//! Making images.

use std::path::Path;
use std::time::Duration;

use super::{QemuError, tool};
use crate::source::DiskFormat;

const CREATE_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes an empty image, as it grows with what is written. `path` is absolute; a file there is replaced.
///
/// # Errors
/// `NotInstalled`, `Start`, `TimedOut`; `Failed` with what QEMU says.
pub(crate) async fn create(path: &Path, format: DiskFormat, size: u64) -> Result<(), QemuError> {
    // Absolute paths only: QEMU reads `a:b` as a protocol and its address, but not `/a:b`.
    if !path.is_absolute() || path.to_str().is_none() {
        return Err(QemuError::Name);
    }
    let options = match format {
        // Otherwise the size is rounded up to what old BIOS geometry can say.
        DiskFormat::Vhd => "subformat=dynamic,force_size=on",
        DiskFormat::Vhdx => "subformat=dynamic",
        DiskFormat::Vmdk => "subformat=monolithicSparse",
        DiskFormat::Qcow2 => "compat=1.1",
        DiskFormat::Raw => "preallocation=off",
    };
    let size = size.to_string();
    let words = ["create", "-q", "-f", format.qemu_name(), "-o", options, "--"];
    let arguments = words
        .iter()
        .map(std::ffi::OsStr::new)
        .chain([path.as_os_str(), size.as_ref()]);
    tool::run("qemu-img", arguments, CREATE_TIMEOUT).await
}
