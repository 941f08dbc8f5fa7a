//! Formats of disk images, by name and never by content: a guest can write any header into its own raw disk.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// How the bytes of an image lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// The bytes of the disk as they are.
    Raw,
    /// QEMU's.
    Qcow2,
    /// The older one of Hyper-V (`vpc` for QEMU).
    Vhd,
    /// That of Hyper-V.
    Vhdx,
    /// That of VMware.
    Vmdk,
}

impl DiskFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Raw, Self::Qcow2, Self::Vhd, Self::Vhdx, Self::Vmdk];

    /// By extension: `.qcow2 .vhdx .vhd .vpc .vmdk`, in any case; everything else is raw.
    pub fn of_path(path: &Path) -> Self {
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default()
            .to_ascii_lowercase();
        match extension.as_str() {
            "qcow2" => Self::Qcow2,
            "vhd" | "vpc" => Self::Vhd,
            "vhdx" => Self::Vhdx,
            "vmdk" => Self::Vmdk,
            _ => Self::Raw,
        }
    }

    /// Its name, which is also the extension of its files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
        }
    }

    /// What QEMU calls it.
    pub const fn qemu_name(self) -> &'static str {
        match self {
            Self::Vhd => "vpc",
            other => other.name(),
        }
    }
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no disk format: raw, qcow2, vhd, vhdx or vmdk")]
pub struct UnknownFormat {
    /// The word.
    pub word: String,
}

impl FromStr for DiskFormat {
    type Err = UnknownFormat;

    fn from_str(word: &str) -> Result<Self, UnknownFormat> {
        match word.to_ascii_lowercase().as_str() {
            "raw" | "img" => Ok(Self::Raw),
            "qcow2" => Ok(Self::Qcow2),
            "vhd" | "vpc" => Ok(Self::Vhd),
            "vhdx" => Ok(Self::Vhdx),
            "vmdk" => Ok(Self::Vmdk),
            _ => Err(UnknownFormat { word: word.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn the_extension_decides_and_everything_else_is_raw() {
        for (path, format) in [
            ("/a/web.qcow2", DiskFormat::Qcow2),
            ("/a/web.QCOW2", DiskFormat::Qcow2),
            ("web.vhd", DiskFormat::Vhd),
            ("web.vpc", DiskFormat::Vhd),
            ("web.vhdx", DiskFormat::Vhdx),
            ("web.vmdk", DiskFormat::Vmdk),
            ("web.img", DiskFormat::Raw),
            ("/dev/vg/web", DiskFormat::Raw),
            ("qcow2", DiskFormat::Raw),
            ("web.qcow2.bak", DiskFormat::Raw),
        ] {
            assert_eq!(DiskFormat::of_path(Path::new(path)), format, "{path}");
        }
    }

    #[test]
    fn every_name_reads_back_as_its_format() {
        for format in DiskFormat::ALL {
            assert_eq!(format.name().parse::<DiskFormat>().unwrap(), format);
            assert_eq!(format.qemu_name().parse::<DiskFormat>().unwrap(), format);
        }
        assert!("qcow".parse::<DiskFormat>().is_err());
    }
}
