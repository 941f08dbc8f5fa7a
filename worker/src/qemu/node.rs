//! An image as QEMU's block layer is told of it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::source::DiskFormat;

/// An image file with the images below it.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// The file or device; absolute.
    pub(crate) path: PathBuf,
    pub(crate) format: DiskFormat,
    pub(crate) is_device: bool,
    /// The image below. Without one QEMU is told that there is none.
    pub(crate) backing: Option<Box<Node>>,
}

impl Node {
    /// One image alone.
    pub(crate) fn file(path: &Path, format: DiskFormat) -> Self {
        Self {
            path: path.to_owned(),
            format,
            is_device: false,
            backing: None,
        }
    }

    /// As a pseudo file name, `json:{…}`. None if a path is not UTF-8, which JSON cannot say.
    pub(crate) fn pseudo_name(&self, read_only: bool) -> Option<String> {
        let mut value = self.value(read_only)?;
        value["read-only"] = json!(read_only);
        if read_only {
            // Takes no lock against writers: a VM can be started while we read, and we look for writers ourselves.
            value["force-share"] = json!(true);
        } else {
            value["discard"] = json!("unmap");
        }
        Some(format!("json:{value}"))
    }

    fn value(&self, read_only: bool) -> Option<Value> {
        let driver = if self.is_device { "host_device" } else { "file" };
        let mut value = json!({
            "driver": self.format.qemu_name(),
            "file": { "driver": driver, "filename": self.path.to_str()? },
        });
        match &self.backing {
            Some(backing) => {
                let mut below = backing.value(true)?;
                below["read-only"] = json!(true);
                value["backing"] = below;
            }
            None if matches!(self.format, DiskFormat::Qcow2 | DiskFormat::Vmdk) => value["backing"] = Value::Null,
            None => {}
        }
        if !read_only {
            value["file"]["discard"] = json!("unmap");
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn odd_file_names_stay_file_names() {
        for name in ["/a/b,c=d.qcow2", "/a/nbd:x.qcow2", "/a/-f.qcow2", "/a/\"}.qcow2"] {
            let text = Node::file(Path::new(name), DiskFormat::Qcow2)
                .pseudo_name(true)
                .unwrap();
            let value: Value = serde_json::from_str(text.strip_prefix("json:").unwrap()).unwrap();
            assert_eq!(value["file"]["filename"], name);
            assert_eq!(value["backing"], Value::Null);
            assert_eq!(value["force-share"], true);
        }
    }
}
