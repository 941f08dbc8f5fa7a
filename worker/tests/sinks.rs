//! Disks of every format are written as QEMU reads them, appear only when complete, and leave nothing when they are not.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(missing_docs, reason = "tests")]

mod disks;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use disks::{Holder, converted, eventually, folder, noise, processes, run, text};
use tresor_storage::Kind;
use tresor_worker::sink::{self, DiskSink, Extent, SinkError, SinkSpec};

const SIZE: usize = 24 << 20;

/// Pieces of a disk, out of order, of which some overlap the next step's zeros.
fn pieces(size: usize) -> Vec<(usize, usize)> {
    vec![
        (size / 2 / 512 * 512, 3 << 20),
        (0, 512),
        (8 << 20, 1 << 20),
        (1 << 20, 65_536),
        (size - size % 512 - 1024, 1024 + size % 512),
    ]
}

/// Writes a disk side by side and gives what must be in it.
async fn fill(sink: &Arc<dyn DiskSink>, seed: u64) -> Vec<u8> {
    let size = sink.size() as usize;
    let mut model = vec![0; size];
    let mut writes = Vec::new();
    for (i, (start, length)) in pieces(size).into_iter().enumerate() {
        let data = Bytes::from(noise(seed + i as u64, length));
        model[start..start + length].copy_from_slice(&data);
        // Cut unevenly, as chunks are.
        let cut = length / 3;
        let parts = vec![data.slice(..cut), Bytes::new(), data.slice(cut..)];
        let sink = Arc::clone(sink);
        writes.push(tokio::spawn(async move { sink.write(start as u64, parts).await }));
    }
    for write in writes {
        write.await.unwrap().unwrap();
    }
    for hole in [
        Extent::new((8 << 20) + 4096, 500_000),
        Extent::new(1 << 20, 512),
        Extent::new(5 << 20, 1 << 20),
    ] {
        sink.zero(hole).await.unwrap();
        model[hole.offset as usize..hole.end() as usize].fill(0);
    }
    model
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_format_holds_what_was_written_and_can_be_changed_in_place() {
    for (extension, qemu, size) in [
        ("img", "raw", SIZE + 777),
        ("qcow2", "qcow2", SIZE),
        ("qcow2", "qcow2", SIZE + 777),
        ("vhdx", "vhdx", SIZE),
        ("vhdx", "vhdx", SIZE + 512),
        ("vhd", "vpc", SIZE + 512),
        ("vmdk", "vmdk", SIZE + 512),
    ] {
        let folder = folder();
        let path = folder.path().join(format!("web.{extension}"));
        let spec = SinkSpec::new(&path, size as u64);
        let sink = sink::create(&spec).await.unwrap();
        assert!(sink.is_zeroed());
        assert!(!path.exists(), "{extension}: visible before it is complete");
        let mut model = fill(&sink, 1).await;
        let read = sink.read(1 << 20, BytesMut::zeroed(100_000)).await.unwrap();
        assert!(read == model[1 << 20..(1 << 20) + 100_000]);
        sink.finish().await.unwrap();
        assert_eq!(names(folder.path()), [format!("web.{extension}")]);
        assert!(matches!(sink.finish().await, Err(SinkError::Finished { .. })));
        assert!(matches!(
            sink.write(0, vec![Bytes::from_static(&[0; 512])]).await,
            Err(SinkError::Finished { .. })
        ));

        let check = |model: &[u8]| {
            let plain = folder.path().join("model");
            let mut padded = model.to_vec();
            padded.resize(
                if qemu == "raw" {
                    size
                } else {
                    size.next_multiple_of(512)
                },
                0,
            );
            fs::write(&plain, &padded).unwrap();
            run(
                "qemu-img",
                &["compare", "-f", "raw", "-F", qemu, text(&plain), text(&path)],
            );
            if qemu == "raw" {
                assert!(fs::read(&path).unwrap() == model);
            } else {
                assert!(converted(&path, qemu) == padded, "{extension}");
            }
            if matches!(qemu, "qcow2" | "vhdx" | "vmdk") {
                run("qemu-img", &["check", "-f", qemu, text(&path)]);
            }
            fs::remove_file(plain).unwrap();
        };
        check(&model);
        assert!(
            fs::metadata(&path).unwrap().blocks() * 512 < 17 << 20,
            "{extension}: holes take space"
        );
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let sink = sink::open_in_place(&spec).await.unwrap();
        assert!(!sink.is_zeroed());
        let read = sink.read(8 << 20, BytesMut::zeroed(1 << 20)).await.unwrap();
        assert!(read == model[8 << 20..9 << 20], "{extension}");
        sink.write(3 << 20, vec![Bytes::from(noise(77, 70_656))]).await.unwrap();
        model[3 << 20..(3 << 20) + 70_656].copy_from_slice(&noise(77, 70_656));
        sink.zero(Extent::new((12 << 20) + 512, 1 << 20)).await.unwrap();
        model[(12 << 20) + 512..(13 << 20) + 512].fill(0);
        sink.finish().await.unwrap();
        check(&model);
        drop(sink);
        eventually("the servers end", || {
            processes("qemu-nbd", text(folder.path())).is_empty()
        });

        let other = SinkSpec::new(&path, size as u64 + (1 << 20));
        assert!(
            matches!(sink::open_in_place(&other).await, Err(SinkError::Size { .. })),
            "{extension}"
        );
    }
}

#[tokio::test]
async fn a_sink_that_is_dropped_leaves_nothing() {
    for extension in ["img", "qcow2", "vhdx", "vhd", "vmdk"] {
        let folder = folder();
        let path = folder.path().join(format!("web.{extension}"));
        let sink = sink::create(&SinkSpec::new(&path, SIZE as u64)).await.unwrap();
        fill(&sink, 1).await;
        assert_eq!(names(folder.path()).len(), 1);
        drop(sink);
        assert!(names(folder.path()).is_empty());
        eventually("the server ends", || {
            processes("qemu-nbd", text(folder.path())).is_empty()
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_is_given_up_writes_nothing_more_and_leaves_no_new_file() {
    for extension in ["raw", "qcow2"] {
        let folder = folder();
        let path = folder.path().join(format!("disk.{extension}"));
        let spec = SinkSpec::new(&path, SIZE as u64);
        let sink = sink::create(&spec).await.unwrap();
        let late = Arc::clone(&sink);
        sink.write(0, vec![Bytes::from(noise(1, 4096))]).await.unwrap();
        sink.abandon().await;
        sink.abandon().await;
        assert_eq!(names(folder.path()), [""; 0], "{extension}");
        let data = vec![Bytes::from(noise(2, 4096))];
        let refused = late.write(4096, data.clone()).await;
        assert!(matches!(refused, Err(SinkError::Finished { .. })), "{refused:?}");
        assert!(matches!(late.finish().await, Err(SinkError::Finished { .. })));

        // In place: what was written stays, and nothing follows it.
        let model = fill(&sink::create(&spec).await.unwrap(), 3).await;
        assert_eq!(names(folder.path()), [""; 0], "it was dropped: {extension}");
        let sink = sink::create(&spec).await.unwrap();
        fill(&sink, 3).await;
        sink.finish().await.unwrap();
        let sink = sink::open_in_place(&spec).await.unwrap();
        sink.abandon().await;
        assert!(sink.write(0, data).await.is_err());
        drop(sink);
        let after = sink::open_in_place(&spec).await.unwrap();
        let there = after.read(0, BytesMut::zeroed(SIZE)).await.unwrap();
        assert!(there == model[..], "{extension}");
    }
}

#[tokio::test]
async fn what_is_there_is_replaced_only_if_asked_and_only_by_a_whole_disk() {
    let folder = folder();
    for name in ["web.img", "web.qcow2"] {
        let path = folder.path().join(name);
        fs::write(&path, "precious").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let spec = SinkSpec::new(&path, SIZE as u64);
        let error = sink::create(&spec).await.err().unwrap();
        assert!(matches!(error, SinkError::Exists { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("--overwrite"));
        let spec = SinkSpec {
            overwrite: true,
            ..spec
        };
        drop(sink::create(&spec).await.unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        let sink = sink::create(&spec).await.unwrap();
        sink.finish().await.unwrap();
        assert!(fs::metadata(&path).unwrap().len() > 100_000);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    }
}

#[tokio::test]
async fn a_target_that_appears_meanwhile_is_kept() {
    let folder = folder();
    let path = folder.path().join("web.img");
    let sink = sink::create(&SinkSpec::new(&path, SIZE as u64)).await.unwrap();
    fs::write(&path, "precious").unwrap();
    assert!(matches!(sink.finish().await, Err(SinkError::Exists { .. })));
    drop(sink);
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(names(folder.path()), ["web.img"]);
}

#[tokio::test]
async fn what_a_killed_restore_left_goes_and_what_another_one_works_on_stays() {
    let folder = folder();
    let path = folder.path().join("web.img");
    let abandoned = ".web.img.tresor-0123456789abcdef";
    let foreign = [".web.img.tresor-notes", ".web.img2.tresor-0123456789abcdef"];
    for name in foreign.iter().chain([&abandoned]) {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    let first = sink::create(&SinkSpec::new(&path, SIZE as u64)).await.unwrap();
    assert!(!folder.path().join(abandoned).exists());
    let second = sink::create(&SinkSpec::new(&path, SIZE as u64)).await.unwrap();
    assert_eq!(names(folder.path()).len(), 4);
    first.finish().await.unwrap();
    assert!(matches!(second.finish().await, Err(SinkError::Exists { .. })));
    for name in foreign {
        assert!(folder.path().join(name).exists());
    }
}

#[tokio::test]
async fn a_disk_that_a_vm_uses_is_not_written_to() {
    let folder = folder();
    for (name, format) in [("web.img", "raw"), ("web.qcow2", "qcow2")] {
        let path = folder.path().join(name);
        run("qemu-img", &["create", "-q", "-f", format, text(&path), "24M"]);
        let _holder = Holder::of(&path, format);
        let spec = SinkSpec {
            overwrite: true,
            ..SinkSpec::new(&path, SIZE as u64)
        };
        for error in [
            sink::create(&spec).await.err().unwrap(),
            sink::open_in_place(&spec).await.err().unwrap(),
        ] {
            assert!(matches!(error, SinkError::InUse { .. }), "{error:?}");
            assert_eq!(error.kind(), Kind::Fenced);
        }
    }
}

#[tokio::test]
async fn targets_that_cannot_be_are_refused_by_name() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let create = async |name: &str, size| sink::create(&SinkSpec::new(at(name), size)).await.err().unwrap();
    assert!(matches!(
        create("nowhere/web.img", 4096).await,
        SinkError::Missing { .. }
    ));
    assert!(matches!(
        create("nowhere/web.qcow2", 4096).await,
        SinkError::Missing { .. }
    ));
    assert!(matches!(
        create("web.vhd", (2040 << 30) + 512).await,
        SinkError::Unsupported { .. }
    ));
    fs::create_dir(at("folder.img")).unwrap();
    let spec = SinkSpec {
        overwrite: true,
        ..SinkSpec::new(at("folder.img"), 4096)
    };
    assert!(matches!(sink::create(&spec).await, Err(SinkError::NotADisk { .. })));
    for name in ["nothing.img", "nothing.vmdk"] {
        let opened = sink::open_in_place(&SinkSpec::new(at(name), 4096)).await;
        assert!(matches!(opened, Err(SinkError::Missing { .. })));
    }
    let sink = sink::create(&SinkSpec::new(at("web.img"), 4096)).await.unwrap();
    for (offset, length) in [(4096, 512), (3584, 1024), (u64::MAX, 512)] {
        let wrote = sink.write(offset, vec![Bytes::from(vec![0; length])]).await;
        assert!(matches!(wrote, Err(SinkError::Range { .. })));
    }
    assert_eq!(
        names(folder.path()).len(),
        2,
        "only the folder and the file being written"
    );
}

#[tokio::test]
async fn no_space_left_is_told_as_that() {
    let folder = folder();
    let mount = folder.path().join("small");
    fs::create_dir(&mount).unwrap();
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "tresor", text(&mount)])
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        // Only root may mount.
        return;
    }
    let mut kinds = Vec::new();
    for name in ["web.img", "web.qcow2"] {
        let sink = sink::create(&SinkSpec::new(mount.join(name), SIZE as u64))
            .await
            .unwrap();
        for i in 0..3 {
            if let Err(error) = sink
                .write(i * (4 << 20), vec![Bytes::from(noise(i + 1, 4 << 20))])
                .await
            {
                kinds.push(error.kind());
                break;
            }
        }
        drop(sink);
        eventually("the server ends", || processes("qemu-nbd", text(&mount)).is_empty());
    }
    let left = names(&mount);
    run("umount", &[text(&mount)]);
    assert_eq!(kinds, [Kind::Full, Kind::Full]);
    assert!(left.is_empty(), "{left:?}");
}

/// A loop device over a file, given back when dropped.
struct Loop(String);

impl Loop {
    /// None where there are no loop devices, or not for us.
    fn over(path: &Path) -> Option<Self> {
        let output = std::process::Command::new("losetup")
            .args(["--find", "--show", text(path)])
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| Self(String::from_utf8(output.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0]);
    }
}

#[tokio::test]
async fn a_block_device_is_written_and_read() {
    use tresor_worker::source::{self, SourceKind, SourceSpec, Steadiness};
    let folder = folder();
    let file = folder.path().join("device");
    fs::write(&file, noise(5, SIZE + 4096)).unwrap();
    let Some(device) = Loop::over(&file) else { return };
    let path = Path::new(&device.0);
    let spec = SinkSpec::new(path, SIZE as u64);
    assert!(matches!(sink::create(&spec).await, Err(SinkError::Exists { .. })));
    let too_large = SinkSpec {
        overwrite: true,
        ..SinkSpec::new(path, SIZE as u64 + 8192)
    };
    assert!(matches!(sink::create(&too_large).await, Err(SinkError::Size { .. })));
    let image = SinkSpec {
        overwrite: true,
        format: Some(source::DiskFormat::Qcow2),
        ..spec.clone()
    };
    assert!(matches!(sink::create(&image).await, Err(SinkError::Unsupported { .. })));

    let sink = sink::create(&SinkSpec {
        overwrite: true,
        ..spec
    })
    .await
    .unwrap();
    assert!(!sink.is_zeroed());
    sink.zero(Extent::new(0, SIZE as u64)).await.unwrap();
    let model = fill(&sink, 1).await;
    sink.finish().await.unwrap();
    drop(sink);

    let source = source::open(&SourceSpec::new(path)).await.unwrap();
    assert_eq!(source.description().kind, SourceKind::BlockDevice);
    assert_eq!(source.size(), SIZE as u64 + 4096);
    assert_eq!(source.allocated(Extent::new(0, 5)).await.unwrap(), [Extent::new(0, 5)]);
    let read = source.read(0, BytesMut::zeroed(SIZE)).await.unwrap();
    assert!(read == model);
    assert_eq!(source.finish().await.unwrap(), Steadiness::Steady);
    run(
        "dd",
        &[
            "if=/dev/zero",
            &format!("of={}", device.0),
            "bs=4096",
            "count=1",
            "conv=fsync",
            "status=none",
        ],
    );
    assert!(matches!(source.finish().await.unwrap(), Steadiness::Changed { .. }));
}
