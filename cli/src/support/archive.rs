//! A tar archive of small files in memory: POSIX.1-1988 (ustar), section 10.1.1. Pure.

/// Size of a header, and what everything is rounded up to.
const BLOCK: usize = 512;
/// Longest name that a header has room for.
const NAME_MAX: usize = 100;

/// An archive.
pub(crate) struct Archive {
    folder: String,
    /// Of all files, seconds since 1970.
    made: i64,
    bytes: Vec<u8>,
}

impl Archive {
    /// An empty one; its files are in a folder of that name.
    pub(crate) fn new(folder: &str, made: i64) -> Self {
        Self {
            folder: folder.to_owned(),
            made,
            bytes: Vec::new(),
        }
    }

    /// Adds a file, readable by its owner alone. What of the name is no plain character becomes `_`, so that it cannot lead out of the folder.
    pub(crate) fn add(&mut self, name: &str, contents: &[u8]) {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() || "-_./".contains(c) {
                c
            } else {
                '_'
            }
        };
        let name: String = name.chars().map(plain).collect();
        let name = name.replace("..", "__");
        let path = format!("{}/{}", self.folder, name.trim_start_matches('/'));
        let path = &path[..path.len().min(NAME_MAX)];
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, "0000600");
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", contents.len()));
        put(136, &format!("{:011o}", self.made.max(0)));
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\u{0}00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\u{0} ").as_bytes());
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(contents);
        let end = self.bytes.len().next_multiple_of(BLOCK);
        self.bytes.resize(end, 0);
    }

    /// Its bytes, with the two empty blocks at their end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_what_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::new("bundle", 1_700_000_000);
        let long: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        archive.add("README.txt", b"read me");
        archive.add("logs/../../etc/passwd", b"");
        archive.add("logs/worker.log", &long);
        let path = folder.path().join("a.tar");
        std::fs::write(&path, archive.finish()).unwrap();
        let ran = std::process::Command::new("tar")
            .args(["-xf", path.to_str().unwrap()])
            .current_dir(folder.path())
            .status();
        assert!(ran.unwrap().success());
        let read = |name: &str| std::fs::read(folder.path().join("bundle").join(name)).unwrap();
        assert_eq!(read("README.txt"), b"read me");
        assert_eq!(read("logs/worker.log"), long);
        assert_eq!(read("logs/__/__/etc/passwd"), b"");
    }
}
