//! Making disks and looking at them with QEMU's own tools.

#![allow(dead_code, reason = "each test program uses a part")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tresor_worker::source::{DiskSource, Extent, SourceSpec};

/// A folder on a real file system.
pub(crate) fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs a program that must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Bytes that look random and are the same each time.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A sparse raw disk: noise, zeros and text. Gives its bytes too.
pub(crate) fn raw_disk(path: &Path, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    for (seed, (start, length)) in [
        (0, 70_000),
        (size / 3, 1 << 20),
        (size / 2 + 777, 5000),
        (size - 1234, 1234),
    ]
    .into_iter()
    .enumerate()
    {
        bytes[start..start + length].copy_from_slice(&noise(seed as u64 + 1, length));
    }
    let start = size / 4;
    bytes[start..start + 300_000].fill(b'x');
    let mut file = fs::File::create(path).unwrap();
    file.set_len(size as u64).unwrap();
    for (i, block) in bytes.chunks(4096).enumerate() {
        if block.iter().any(|b| *b != 0) {
            std::os::unix::fs::FileExt::write_all_at(&file, block, i as u64 * 4096).unwrap();
        }
    }
    file.flush().unwrap();
    file.sync_all().unwrap();
    bytes
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All bytes of a source, read by extents in pieces of an odd size; gives what was read as well.
pub(crate) async fn read_all(source: &dyn DiskSource) -> (Vec<u8>, u64) {
    let mut bytes = vec![0; source.size() as usize];
    let mut read = 0;
    for extent in source.allocated(Extent::new(0, u64::MAX)).await.unwrap() {
        let mut at = extent.offset;
        while at < extent.end() {
            let length = (extent.end() - at).min(1_000_003);
            let piece = source.read(at, BytesMut::zeroed(length as usize)).await.unwrap();
            bytes[at as usize..(at + length) as usize].copy_from_slice(&piece);
            at += length;
            read += length;
        }
    }
    (bytes, read)
}

pub(crate) fn spec(path: &Path) -> SourceSpec {
    SourceSpec::new(path)
}

/// What QEMU reads from an image.
pub(crate) fn converted(image: &Path, format: &str) -> Vec<u8> {
    let raw = image.with_extension("converted");
    run(
        "qemu-img",
        &["convert", "-f", format, "-O", "raw", text(image), text(&raw)],
    );
    let bytes = fs::read(&raw).unwrap();
    fs::remove_file(raw).unwrap();
    bytes
}

/// Processes of this program that have a word in their arguments.
pub(crate) fn processes(program: &str, word: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let line = String::from_utf8_lossy(&line).into_owned();
        let mut words = line.split('\0');
        if words.next().is_some_and(|first| first.ends_with(program)) && line.contains(word) {
            found.push(pid);
        }
    }
    found
}

/// Waits until something holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program that has an image open for writing, as a VM would.
pub(crate) struct Holder(Child);

impl Holder {
    pub(crate) fn of(image: &Path, format: &str) -> Self {
        let socket = PathBuf::from(format!("{}.sock", image.display()));
        let child = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!(
                "driver={format},node-name=disk,file.driver=file,file.filename={}",
                image.display()
            ))
            .arg("--nbd-server")
            .arg(format!("addr.type=unix,addr.path={}", socket.display()))
            .args(["--export", "type=nbd,id=e,node-name=disk,writable=on"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let holder = Self(child);
        eventually("the daemon takes the image", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
