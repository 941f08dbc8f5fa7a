//! Disks of every format are read as QEMU reads them, and refused when they may not be read.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(missing_docs, reason = "tests")]

mod disks;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::BytesMut;
use disks::{Holder, converted, eventually, folder, noise, processes, raw_disk, read_all, run, spec, text};
use rustix::fs::Advice;
use tresor_storage::Kind;
use tresor_worker::extent;
use tresor_worker::source::{self, DiskFormat, Extent, SourceError, SourceKind, SourceSpec, Steadiness};

const SIZE: usize = 24 << 20;

fn is_changed(steadiness: &Steadiness) -> bool {
    matches!(steadiness, Steadiness::Changed { .. })
}

#[tokio::test]
async fn a_raw_disk_of_odd_size_is_read_without_its_holes() {
    let folder = folder();
    let path = folder.path().join("web.img");
    let bytes = raw_disk(&path, SIZE + 777);
    let source = source::open(&spec(&path)).await.unwrap();
    assert_eq!(source.size(), SIZE as u64 + 777);
    assert_eq!(source.description().kind, SourceKind::File);
    assert_eq!(source.description().format, DiskFormat::Raw);
    let (read, count) = read_all(&*source).await;
    assert!(read == bytes);
    assert!(count < 2 << 20, "{count} bytes read of 1.4 MB that are there");
    let some = source.allocated(Extent::new(SIZE as u64 / 3 + 5, 10)).await.unwrap();
    assert_eq!(some, [Extent::new(SIZE as u64 / 3 + 5, 10)]);
    assert!(
        source
            .allocated(Extent::new(SIZE as u64 + 777, 10))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(source.finish().await.unwrap(), Steadiness::Steady);
}

#[tokio::test]
async fn a_range_outside_the_disk_is_refused() {
    let folder = folder();
    let path = folder.path().join("web.img");
    raw_disk(&path, SIZE);
    run(
        "qemu-img",
        &[
            "convert",
            "-O",
            "qcow2",
            text(&path),
            text(&path.with_extension("qcow2")),
        ],
    );
    for path in [path.clone(), path.with_extension("qcow2")] {
        let source = source::open(&spec(&path)).await.unwrap();
        for (offset, length) in [(SIZE as u64, 1), (SIZE as u64 - 1, 2), (u64::MAX, 1)] {
            let read = source.read(offset, BytesMut::zeroed(length)).await;
            assert!(matches!(read, Err(SourceError::Range { .. })));
        }
    }
}

fn cached_pages(path: &Path) -> usize {
    let pages = run("fincore", &["--noheadings", "--output", "PAGES", text(path)]);
    pages.trim().parse().unwrap()
}

#[tokio::test]
async fn reading_keeps_what_was_cached_and_caches_nothing_else() {
    let folder = folder();
    let path = folder.path().join("web.img");
    let bytes = noise(9, SIZE);
    let mut file = File::create(&path).unwrap();
    file.write_all(&bytes).unwrap();
    file.sync_all().unwrap();
    let half = SIZE / 2;
    let file = File::open(&path).unwrap();
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    if cached_pages(&path) > 0 {
        // A file system in memory: nothing can be dropped there.
        return;
    }
    rustix::fs::fadvise(&file, 0, None, Advice::Random).unwrap();
    file.read_exact_at(&mut vec![0; half], 0).unwrap();
    let before = cached_pages(&path);
    assert_eq!(before, half / 4096);
    let source = source::open(&spec(&path)).await.unwrap();
    // Several readers with large buffers, as a pipeline has.
    let reads = (0..SIZE as u64 / (3 << 20)).map(|i| source.read(i * (3 << 20), BytesMut::zeroed(3 << 20)));
    let read = futures::future::try_join_all(reads).await.unwrap().concat();
    assert!(read == bytes);
    let after = cached_pages(&path);
    assert!(after >= before, "{before} pages were cached, {after} are");
    assert!(after < before + before / 16, "{before} pages were cached, {after} are");
}

#[tokio::test]
async fn what_is_no_disk_is_refused_by_name() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    File::create(at("empty.img")).unwrap();
    run("mkfifo", &[text(&at("pipe"))]);
    fs::write(at("text.qcow2"), "no image").unwrap();
    fs::write(at("text.vhdx"), "no image").unwrap();
    fs::write(at("text.vhd"), "no image").unwrap();
    fs::write(at("text.vmdk"), "no image").unwrap();
    let open = async |name: &str| source::open(&spec(&at(name))).await.err().unwrap();
    assert!(matches!(open("nothing").await, SourceError::Missing { .. }));
    assert!(matches!(open("nothing.qcow2").await, SourceError::Missing { .. }));
    assert!(matches!(open("").await, SourceError::NotADisk { .. }));
    assert!(matches!(open("pipe").await, SourceError::NotADisk { .. }));
    assert!(matches!(open("empty.img").await, SourceError::Empty { .. }));
    for name in ["text.qcow2", "text.vhdx", "text.vhd", "text.vmdk"] {
        let error = open(name).await;
        assert!(matches!(error, SourceError::Malformed { .. }), "{name}: {error:?}");
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}

#[tokio::test]
async fn a_header_that_a_guest_wrote_into_a_raw_disk_is_data() {
    let folder = folder();
    let path = folder.path().join("web.img");
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&path), "1G"]);
    let bytes = fs::read(&path).unwrap();
    let source = source::open(&spec(&path)).await.unwrap();
    assert_eq!(source.size(), bytes.len() as u64);
    assert!(read_all(&*source).await.0 == bytes);
}

#[tokio::test]
async fn a_disk_that_a_vm_writes_to_is_refused_unless_allowed() {
    let folder = folder();
    let raw = folder.path().join("web.img");
    let bytes = raw_disk(&raw, SIZE);
    let qcow2 = folder.path().join("web.qcow2");
    run("qemu-img", &["convert", "-O", "qcow2", text(&raw), text(&qcow2)]);
    for (path, format) in [(&raw, "raw"), (&qcow2, "qcow2")] {
        let holder = Holder::of(path, format);
        let error = source::open(&spec(path)).await.err().unwrap();
        assert!(matches!(error, SourceError::InUse { .. }), "{error:?}");
        assert_eq!(error.kind(), Kind::Fenced);
        assert!(error.hint().unwrap().contains("--allow-live"));

        let live = SourceSpec {
            allow_live: true,
            ..spec(path)
        };
        let source = source::open(&live).await.unwrap();
        assert!(read_all(&*source).await.0 == bytes);
        assert!(is_changed(&source.finish().await.unwrap()));
        drop(holder);
    }
}

#[tokio::test]
async fn a_vm_can_be_started_while_its_disk_is_read_and_that_is_told() {
    let folder = folder();
    let raw = folder.path().join("web.img");
    raw_disk(&raw, SIZE);
    let qcow2 = folder.path().join("web.qcow2");
    run("qemu-img", &["convert", "-O", "qcow2", text(&raw), text(&qcow2)]);
    for (path, format) in [(&raw, "raw"), (&qcow2, "qcow2")] {
        let source = source::open(&spec(path)).await.unwrap();
        source.read(0, BytesMut::zeroed(4096)).await.unwrap();
        let _holder = Holder::of(path, format);
        assert!(is_changed(&source.finish().await.unwrap()));
    }
}

#[tokio::test]
async fn a_disk_that_changes_while_it_is_read_is_told() {
    let folder = folder();
    type Change = fn(&Path);
    let changes: [(&str, Change); 5] = [
        ("written", |path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .write_all_at(b"x", 5)
                .unwrap();
        }),
        ("grown", |path| {
            File::options()
                .append(true)
                .open(path)
                .unwrap()
                .write_all(b"x")
                .unwrap();
        }),
        ("replaced", |path| {
            fs::copy(path, path.with_extension("new")).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }),
        ("removed", |path| fs::remove_file(path).unwrap()),
        ("cut", |path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(100_000)
                .unwrap();
        }),
    ];
    for (name, change) in changes {
        let path = folder.path().join(format!("{name}.img"));
        raw_disk(&path, SIZE);
        let source = source::open(&spec(&path)).await.unwrap();
        source.read(0, BytesMut::zeroed(4096)).await.unwrap();
        // Times of files may be as coarse as the kernel's tick.
        std::thread::sleep(Duration::from_millis(20));
        change(&path);
        let steadiness = source.finish().await.unwrap();
        assert!(is_changed(&steadiness), "{name}: {steadiness:?}");
        if name == "cut" {
            let read = source.read(50_000, BytesMut::zeroed(100_000)).await;
            assert!(matches!(read, Err(SourceError::Shrunk { at: 100_000, .. })), "{read:?}");
        }
    }
}

#[tokio::test]
async fn every_format_reads_as_qemu_reads_it() {
    let folder = folder();
    let raw = folder.path().join("base.img");
    let bytes = raw_disk(&raw, SIZE);
    for (name, format, options) in [
        ("a.qcow2", "qcow2", "compat=1.1"),
        ("small.qcow2", "qcow2", "cluster_size=4k"),
        ("old.qcow2", "qcow2", "compat=0.10"),
        ("l2.qcow2", "qcow2", "extended_l2=on"),
        ("a.vhdx", "vhdx", "subformat=dynamic,block_size=1M"),
        ("fixed.vhdx", "vhdx", "subformat=fixed"),
        ("a.vhd", "vpc", "force_size=on"),
        ("fixed.vpc", "vpc", "force_size=on,subformat=fixed"),
        ("a.vmdk", "vmdk", "subformat=monolithicSparse"),
        ("stream.vmdk", "vmdk", "subformat=streamOptimized"),
        ("split.vmdk", "vmdk", "subformat=twoGbMaxExtentSparse"),
        ("flat.vmdk", "vmdk", "subformat=monolithicFlat"),
        ("odd, name: -=%.qcow2", "qcow2", "compat=1.1"),
    ] {
        let image = folder.path().join(name);
        run(
            "qemu-img",
            &[
                "convert",
                "-f",
                "raw",
                "-O",
                format,
                "-o",
                options,
                text(&raw),
                text(&image),
            ],
        );
        let source = source::open(&spec(&image)).await.unwrap();
        let (read, count) = read_all(&*source).await;
        assert!(read[..SIZE] == bytes && read[SIZE..].iter().all(|b| *b == 0), "{name}");
        let is_sparse = !name.starts_with("fixed") && !name.starts_with("flat");
        assert!(!is_sparse || count < 12 << 20, "{name}: {count} bytes read");
        assert_eq!(source.finish().await.unwrap(), Steadiness::Steady, "{name}");
    }
}

#[tokio::test]
async fn chains_and_compressed_clusters_read_as_qemu_reads_them() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    raw_disk(&at("base.img"), SIZE);
    run(
        "qemu-img",
        &[
            "convert",
            "-c",
            "-O",
            "qcow2",
            text(&at("base.img")),
            text(&at("middle.qcow2")),
        ],
    );
    let child = |name: &str, base: &str| {
        run(
            "qemu-img",
            &[
                "create",
                "-q",
                "-f",
                "qcow2",
                "-b",
                base,
                "-F",
                "qcow2",
                text(&at(name)),
                "32M",
            ],
        );
    };
    child("second.qcow2", "middle.qcow2");
    for command in [
        "write -P 7 1000k 300k",
        "write -z 8M 1M",
        "write -P 9 31M 1M",
        "discard 512k 64k",
    ] {
        run("qemu-io", &["-f", "qcow2", "-c", command, text(&at("second.qcow2"))]);
    }
    child("top.qcow2", "second.qcow2");
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 3 12345k 5k", text(&at("top.qcow2"))],
    );
    let source = source::open(&spec(&at("top.qcow2"))).await.unwrap();
    assert_eq!(source.size(), 32 << 20);
    let data = source.allocated(Extent::new(0, u64::MAX)).await.unwrap();
    assert!(extent::is_normal(&data));
    assert!(read_all(&*source).await.0 == converted(&at("top.qcow2"), "qcow2"));
    assert_eq!(source.finish().await.unwrap(), Steadiness::Steady);
    // A change of any image below counts.
    std::thread::sleep(Duration::from_millis(20));
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 1 0 4k", text(&at("middle.qcow2"))],
    );
    assert!(is_changed(&source.finish().await.unwrap()));
}

#[tokio::test]
async fn an_image_may_not_name_files_as_it_likes() {
    let folder = folder();
    let inside = folder.path().join("vm");
    fs::create_dir(&inside).unwrap();
    let secret = folder.path().join("secret.img");
    raw_disk(&secret, SIZE);
    let image = |name: &str, backing: &str, format: Option<&str>| {
        let path = inside.join(name);
        run("qemu-img", &["create", "-q", "-f", "qcow2", text(&path), "24M"]);
        let mut arguments = vec!["rebase", "-q", "-u", "-f", "qcow2", "-b", backing];
        arguments.extend(format.map(|f| ["-F", f]).into_iter().flatten());
        arguments.push(text(&path));
        match format {
            Some(_) => {
                run("qemu-img", &arguments);
            }
            // QEMU no longer writes such images: blank the extension that names the format.
            None => {
                run("qemu-img", &[&arguments[..7], &["-F", "raw", text(&path)]].concat());
                let mut bytes = fs::read(&path).unwrap();
                let place = bytes
                    .windows(4)
                    .position(|w| w == 0xe279_2aca_u32.to_be_bytes())
                    .unwrap();
                bytes[place..place + 4].copy_from_slice(&0x1234_5678_u32.to_be_bytes());
                fs::write(&path, bytes).unwrap();
            }
        }
        path
    };
    let open = async |path: &Path, allow_backing| {
        source::open(&SourceSpec {
            allow_backing,
            ..spec(path)
        })
        .await
        .map(|source| source.size())
    };

    let outside = image("outside.qcow2", "../secret.img", Some("raw"));
    let error = open(&outside, false).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Reference { permissible: true, .. }),
        "{error:?}"
    );
    assert!(error.hint().unwrap().contains("--allow-backing"));
    assert_eq!(open(&outside, true).await.unwrap(), SIZE as u64);

    // A link inside the folder leads outside as well.
    std::os::unix::fs::symlink(&secret, inside.join("link.img")).unwrap();
    let linked = image("linked.qcow2", "link.img", Some("raw"));
    assert!(matches!(open(&linked, false).await, Err(SourceError::Reference { .. })));

    let refused = [
        image("guessed.qcow2", "../secret.img", None),
        image("remote.qcow2", "nbd://127.0.0.1:1/x", Some("raw")),
        image("json.qcow2", r#"json:{"driver":"null-co"}"#, Some("raw")),
        image("odd.qcow2", "../secret.img", Some("qed")),
        image("circle.qcow2", "circle.qcow2", Some("qcow2")),
    ];
    for path in refused {
        let error = open(&path, true).await.unwrap_err();
        assert!(
            matches!(error, SourceError::Reference { permissible: false, .. }),
            "{}: {error:?}",
            path.display()
        );
        assert_eq!(error.kind(), Kind::Invalid);
    }
    let gone = image("gone.qcow2", "nothing.img", Some("raw"));
    assert!(matches!(open(&gone, true).await, Err(SourceError::Missing { .. })));

    let split = inside.join("split.vmdk");
    let options = ["-o", "subformat=twoGbMaxExtentSparse"];
    run(
        "qemu-img",
        &[&["create", "-q", "-f", "vmdk"], &options[..], &[text(&split), "24M"]].concat(),
    );
    fs::rename(inside.join("split-s001.vmdk"), folder.path().join("part.vmdk")).unwrap();
    let descriptor = fs::read_to_string(&split)
        .unwrap()
        .replace("split-s001.vmdk", "../part.vmdk");
    fs::write(&split, descriptor).unwrap();
    assert!(matches!(
        open(&split, false).await,
        Err(SourceError::Reference { permissible: true, .. })
    ));
    assert_eq!(open(&split, true).await.unwrap(), SIZE as u64);
}

#[tokio::test]
async fn a_chain_without_end_is_refused() {
    let folder = folder();
    let at = |i: usize| folder.path().join(format!("{i}.qcow2"));
    run("qemu-img", &["create", "-q", "-f", "qcow2", text(&at(0)), "1M"]);
    for i in 1..=64 {
        fs::copy(at(0), at(i)).unwrap();
        let below = format!("{}.qcow2", i - 1);
        run(
            "qemu-img",
            &[
                "rebase",
                "-q",
                "-u",
                "-f",
                "qcow2",
                "-b",
                &below,
                "-F",
                "qcow2",
                text(&at(i)),
            ],
        );
    }
    assert!(source::open(&spec(&at(63))).await.is_ok());
    assert!(matches!(
        source::open(&spec(&at(64))).await,
        Err(SourceError::Reference { .. })
    ));
}

fn image(folder: &Path) -> std::path::PathBuf {
    let raw = folder.join("web.img");
    raw_disk(&raw, SIZE);
    let image = folder.join("web.qcow2");
    run("qemu-img", &["convert", "-O", "qcow2", text(&raw), text(&image)]);
    image
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_in_the_middle_gives_a_named_error() {
    let folder = folder();
    let image = image(folder.path());
    let source = source::open(&spec(&image)).await.unwrap();
    let servers = processes("qemu-nbd", text(&image));
    assert_eq!(servers.len(), 1);
    source.read(0, BytesMut::zeroed(4096)).await.unwrap();
    let reader = std::sync::Arc::clone(&source);
    let reading = tokio::spawn(async move {
        loop {
            if let Err(error) = reader.read(0, BytesMut::zeroed(4 << 20)).await {
                return error;
            }
        }
    });
    run("kill", &["-KILL", &servers[0].to_string()]);
    let error = tokio::time::timeout(Duration::from_secs(10), reading)
        .await
        .unwrap()
        .unwrap();
    let chain = format!("{error}: {}", std::error::Error::source(&error).unwrap());
    assert!(
        chain.contains("qemu-nbd failed") && chain.contains("SIGKILL"),
        "{chain}"
    );
}

#[tokio::test]
async fn no_server_stays_when_its_source_is_dropped() {
    let folder = folder();
    let image = image(folder.path());
    let source = source::open(&spec(&image)).await.unwrap();
    assert_eq!(processes("qemu-nbd", text(&image)).len(), 1);
    drop(source);
    eventually("the server ends", || processes("qemu-nbd", text(&image)).is_empty());
    // Nor when opening fails half-way: the image's tables are damaged.
    File::options()
        .write(true)
        .open(&image)
        .unwrap()
        .write_all_at(&[0xff; 8], 40)
        .unwrap();
    let error = source::open(&spec(&image)).await.err().unwrap();
    assert!(matches!(error, SourceError::Qemu { .. }), "{error:?}");
    eventually("the server ends", || processes("qemu-nbd", text(&image)).is_empty());
}

const HOLD: &str = "TRESOR_TEST_HOLD_IMAGE";

/// Run by the next test in a process of its own.
#[tokio::test]
#[ignore = "holds a source until it is killed"]
async fn hold_a_source() {
    let Some(path) = std::env::var_os(HOLD) else { return };
    let _source = source::open(&spec(Path::new(&path))).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
}

#[test]
fn no_server_outlives_a_killed_process() {
    let folder = folder();
    let image = image(folder.path());
    // At different moments: before the server runs, before it agrees with us, and long after.
    for pause in [0, 5, 10, 15, 20, 30, 50, 400] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "hold_a_source", "--ignored", "--nocapture"])
            .env(HOLD, &image)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if pause == 400 {
            eventually("the server starts", || !processes("qemu-nbd", text(&image)).is_empty());
        }
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        child.wait().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        eventually("the server ends", || processes("", text(&image)).is_empty());
    }
}
