//! The client against servers of our own, in memory: what is asked, what comes back, and how long it takes.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
use std::time::Instant;

use super::super::test_server::{self, Disk, chunk, option_reply, script, script_reply, serve};
use super::*;

fn some_bytes(length: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8)
        .collect();
    // Holes of odd lengths at odd places.
    for (start, end) in [(8_192, 40_000), (100_001, 131_072), (length - 5000, length - 7)] {
        if end <= length {
            bytes[start..end].fill(0);
        }
    }
    bytes
}

fn quick() -> NbdOptions {
    NbdOptions {
        timeout: Duration::from_millis(300),
        handshake_timeout: Duration::from_millis(300),
        ..NbdOptions::default()
    }
}

async fn client(disk: &Arc<Disk>, connections: usize) -> NbdClient {
    let streams = (0..connections).map(|_| serve(disk)).collect();
    NbdClient::over(streams, &NbdOptions::default()).await.unwrap()
}

#[tokio::test]
async fn what_is_read_is_what_the_server_has_at_any_offset_and_length() {
    let bytes = some_bytes(200_003);
    for (is_structured, knows_go, is_backwards, sizes) in [
        (true, true, false, None),
        (true, true, true, None),
        (false, true, false, None),
        (false, false, false, None),
        (true, true, false, Some((512, 16_384))),
        (true, true, true, Some((4096, 4096))),
    ] {
        let disk = Arc::new(Disk {
            is_structured,
            knows_go,
            is_backwards,
            sizes,
            ..Disk::new(bytes.clone())
        });
        let client = client(&disk, 3).await;
        assert_eq!(client.size(), 200_003);
        for (offset, length) in [
            (0, 200_003),
            (1, 1),
            (4095, 2),
            (8192, 31_808),
            (199_000, 1003),
            (77, 123_456),
        ] {
            let read = client.read(offset as u64, BytesMut::zeroed(length)).await.unwrap();
            assert_eq!(
                read,
                bytes[offset..offset + length],
                "{offset}+{length} {disk:?}",
                disk = disk.sizes
            );
        }
        assert!(client.read(200_000, BytesMut::zeroed(4)).await.is_err());
        assert!(client.read(u64::MAX, BytesMut::zeroed(4)).await.is_err());
    }
}

#[tokio::test]
async fn holes_are_told_and_need_not_be_read() {
    let mut bytes = vec![0; 8 << 20];
    bytes[1 << 20..(1 << 20) + 10].fill(1);
    bytes[5 << 20..6 << 20].fill(2);
    let disk = Arc::new(Disk {
        sizes: Some((4096, 1 << 20)),
        ..Disk::new(bytes.clone())
    });
    let client = client(&disk, 1).await;
    let data = client.allocated(Extent::new(0, u64::MAX)).await.unwrap();
    assert_eq!(data, [Extent::new(1 << 20, 4096), Extent::new(5 << 20, 1 << 20)]);
    let part = client
        .allocated(Extent::between((1 << 20) + 100, (5 << 20) + 7))
        .await
        .unwrap();
    assert_eq!(
        part,
        [
            Extent::between((1 << 20) + 100, (1 << 20) + 4096),
            Extent::new(5 << 20, 7)
        ]
    );
    for extent in &data {
        let read = client
            .read(extent.offset, BytesMut::zeroed(extent.length as usize))
            .await
            .unwrap();
        assert_eq!(read, bytes[extent.offset as usize..extent.end() as usize]);
    }
    assert_eq!(disk.reads.load(Ordering::SeqCst), 2);
    assert_eq!(disk.bytes_read.load(Ordering::SeqCst), 4096 + (1 << 20));
}

#[tokio::test]
async fn without_a_context_everything_may_hold_data() {
    let disk = Arc::new(Disk {
        is_structured: false,
        ..Disk::new(vec![0; 10_000])
    });
    let client = client(&disk, 1).await;
    assert!(!client.tells_allocation());
    assert_eq!(
        client.allocated(Extent::new(5, 100_000)).await.unwrap(),
        [Extent::between(5, 10_000)]
    );
}

#[tokio::test]
async fn what_is_written_zeroed_and_flushed_is_on_the_disk() {
    for flags in [1 | 4 | 8 | 32 | 64 | 256, 1 | 4] {
        let disk = Arc::new(Disk {
            flags,
            sizes: Some((1, 4096)),
            ..Disk::new(vec![9; 300_000])
        });
        let client = client(&disk, 2).await;
        let mut model = vec![9; 300_000];
        let data = some_bytes(150_001);
        let pieces = [&data[..7], &[], &data[7..70_000], &data[70_000..]]
            .map(Bytes::copy_from_slice)
            .to_vec();
        client.write(333, pieces).await.unwrap();
        model[333..150_334].copy_from_slice(&data);
        client.zero(Extent::between(1000, 200_000)).await.unwrap();
        model[1000..200_000].fill(0);
        client.flush().await.unwrap();
        client.disconnect().await;
        assert!(*disk.bytes.lock().unwrap() == model, "flags {flags:#x}");
        assert!(client.write(299_999, vec![Bytes::from_static(b"ab")]).await.is_err());
    }
}

#[tokio::test]
async fn a_read_only_export_is_not_written_to() {
    let disk = Arc::new(Disk {
        flags: 3,
        ..Disk::new(vec![1; 4096])
    });
    let client = client(&disk, 1).await;
    let wrote = client.write(0, vec![Bytes::from_static(b"x")]).await;
    assert!(matches!(wrote, Err(NbdError::Unsupported { .. })));
    assert!(client.zero(Extent::new(0, 1)).await.is_err());
    assert_eq!(disk.bytes.lock().unwrap()[0], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_requests_in_flight_hide_latency_eight_fold() {
    const READS: u64 = 96;
    let mut took = Vec::new();
    for in_flight in [1, 16] {
        let disk = Arc::new(Disk {
            latency: Duration::from_millis(5),
            ..Disk::new(some_bytes(1 << 20))
        });
        let options = NbdOptions {
            in_flight,
            ..NbdOptions::default()
        };
        let client = NbdClient::over(vec![serve(&disk)], &options).await.unwrap();
        let start = Instant::now();
        try_join_all((0..READS).map(|i| client.read(i * 4096, BytesMut::zeroed(4096))))
            .await
            .unwrap();
        took.push(start.elapsed());
        // Counted, which no busy machine can spoil.
        assert_eq!(disk.in_flight_max.load(Ordering::SeqCst), in_flight);
    }
    assert!(
        took[0] >= took[1] * 8,
        "one in flight {:?}, sixteen {:?}",
        took[0],
        took[1]
    );
}

#[tokio::test]
async fn a_dropped_request_harms_no_other() {
    let disk = Arc::new(Disk {
        latency: Duration::from_millis(20),
        ..Disk::new(some_bytes(200_000))
    });
    let options = NbdOptions {
        in_flight: 2,
        ..NbdOptions::default()
    };
    let client = NbdClient::over(vec![serve(&disk)], &options).await.unwrap();
    for _ in 0..8 {
        let read = client.read(0, BytesMut::zeroed(100_000));
        assert!(tokio::time::timeout(Duration::from_millis(3), read).await.is_err());
    }
    let read = client.read(50_000, BytesMut::zeroed(100_000)).await.unwrap();
    assert_eq!(read, disk.bytes.lock().unwrap()[50_000..150_000]);
}

#[tokio::test]
async fn a_dead_connection_fails_all_that_waits_and_all_to_come() {
    let client = NbdClient::over(vec![script_reply(Vec::new(), 4)], &quick())
        .await
        .unwrap();
    let reads = (0..10).map(|i| client.read(i * 4096, BytesMut::zeroed(4096)));
    for read in futures::future::join_all(reads).await {
        assert!(matches!(read, Err(NbdError::Disconnected { .. })), "{read:?}");
    }
    assert!(matches!(
        client.read(0, BytesMut::zeroed(1)).await,
        Err(NbdError::Disconnected { .. })
    ));
}

#[tokio::test]
async fn a_silent_server_is_given_up_in_every_state() {
    let full = test_server::handshake(1 << 20, 1);
    for cut in [0, 5, 18, 30, full.len() - 1] {
        let answer = NbdClient::over(vec![script(full[..cut].to_vec())], &quick()).await;
        assert!(matches!(answer, Err(NbdError::TimedOut { .. })), "{cut}: {answer:?}");
    }
    let client = NbdClient::over(vec![script(full)], &quick()).await.unwrap();
    assert!(matches!(
        client.read(0, BytesMut::zeroed(4096)).await,
        Err(NbdError::TimedOut { .. })
    ));
    // Its connection is gone; nobody waits again.
    let start = Instant::now();
    assert!(client.read(0, BytesMut::zeroed(4096)).await.is_err());
    assert!(start.elapsed() < Duration::from_millis(200));
}

#[tokio::test]
async fn a_hostile_handshake_gives_a_named_error() {
    let greeting = b"NBDMAGICIHAVEOPT\0\x03".to_vec();
    let with = |parts: &[Vec<u8>]| [&greeting[..], &parts.concat()].concat();
    let structured = option_reply(8, 1, &[]);
    let contexts = option_reply(10, 1, &[]);
    let mut endless = vec![structured.clone(), contexts.clone()];
    endless.extend((0..1000).map(|_| option_reply(7, 3, &[0, 9])));
    let mut long = with(&[]);
    long.extend(option_reply(8, 1, &[]));
    let at = long.len() - 4;
    long[at..].copy_from_slice(&u32::MAX.to_be_bytes());
    for (name, bytes) in [
        ("another service", b"220 mail.example.org ESMTP ready\r\n".to_vec()),
        ("a reply to nothing asked", with(&[option_reply(99, 1, &[])])),
        ("an endless payload", long),
        (
            "no size",
            with(&[structured.clone(), contexts.clone(), option_reply(7, 1, &[])]),
        ),
        ("endless information", with(&endless)),
        ("a wild size", test_server::handshake(u64::MAX, 1)),
    ] {
        let answer = NbdClient::over(vec![script(bytes)], &quick()).await;
        assert!(matches!(answer, Err(NbdError::Protocol { .. })), "{name}: {answer:?}");
    }
    let refusal = with(&[structured, contexts, option_reply(7, 0x8000_0006, b"no \x1b[31msuch\n")]);
    match NbdClient::over(vec![script(refusal)], &quick()).await {
        Err(NbdError::Refused { why, .. }) => assert_eq!(why, "no such export: no [31msuch"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_hostile_reply_gives_a_named_error() {
    let data = |offset: u64, length: usize| [&offset.to_be_bytes()[..], &vec![7; length]].concat();
    let hole = |offset: u64, length: u32| [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
    let tiny: Vec<u8> = (0..4096).flat_map(|i| chunk(0, 1, 1, &data(i, 1))).collect();
    let mut lies = chunk(0, 1, 1, &data(0, 16));
    lies[16..20].copy_from_slice(&(20_u32 << 20).to_be_bytes());
    for (name, reply) in [
        ("garbage", vec![0xaa; 64]),
        ("an unknown cookie", chunk(1, 0, 99, &[])),
        ("nothing at all", chunk(1, 0, 1, &[])),
        ("too little", chunk(1, 1, 1, &data(0, 4095))),
        ("too much", chunk(1, 1, 1, &data(0, 4097))),
        ("before the range", chunk(1, 1, 1, &data(u64::MAX, 16))),
        ("behind the range", chunk(1, 2, 1, &hole(4096, 1))),
        ("an empty hole", chunk(0, 2, 1, &hole(0, 0))),
        (
            "twice",
            [chunk(0, 2, 1, &hole(0, 16)), chunk(0, 2, 1, &hole(8, 16))].concat(),
        ),
        ("in tiny pieces", tiny),
        ("a wild length", lies),
        ("a status", chunk(1, 5, 1, &[0; 12])),
        ("an error that is none", chunk(1, 0x8001, 1, &[0; 6])),
        (
            "an error with a long text",
            chunk(1, 0x8001, 1, &[0, 0, 0, 5, 0xff, 0xff]),
        ),
        (
            "a simple reply",
            [
                &0x6744_6698_u32.to_be_bytes()[..],
                &[0; 4],
                &1_u64.to_be_bytes(),
                &[7; 4096],
            ]
            .concat(),
        ),
    ] {
        let client = NbdClient::over(vec![script_reply(reply, 1)], &quick()).await.unwrap();
        let read = client.read(0, BytesMut::zeroed(4096)).await;
        assert!(matches!(read, Err(NbdError::Protocol { .. })), "{name}: {read:?}");
    }
}

#[tokio::test]
async fn a_hostile_status_gives_a_named_error() {
    let extent = |length: u32| [length.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    let context = |id: u32| id.to_be_bytes().to_vec();
    for (name, payload) in [
        ("another context", [context(8), extent(1 << 20)].concat()),
        ("an empty extent", [context(7), extent(0)].concat()),
        ("more than asked", [context(7), extent(1 << 20), extent(1)].concat()),
    ] {
        let client = NbdClient::over(vec![script_reply(chunk(1, 5, 1, &payload), 1)], &quick())
            .await
            .unwrap();
        let told = client.allocated(Extent::new(0, 1 << 20)).await;
        assert!(matches!(told, Err(NbdError::Protocol { .. })), "{name}: {told:?}");
    }
    // An extent may reach beyond what was asked, even beyond the disk; it is cut.
    let reply = chunk(1, 5, 1, &[context(7), extent(u32::MAX)].concat());
    let client = NbdClient::over(vec![script_reply(reply, 1)], &quick()).await.unwrap();
    assert_eq!(
        client.allocated(Extent::new(0, 1 << 20)).await.unwrap(),
        [Extent::new(0, 1 << 20)]
    );
}

#[tokio::test]
async fn an_error_of_the_server_fails_its_request_only() {
    let failed = chunk(1, 0x8001, 1, &[0, 0, 0, 28, 0, 2, b'n', b'o']);
    let fine = chunk(1, 1, 2, &[&0_u64.to_be_bytes()[..], &[7; 16]].concat());
    let stream = script_reply([failed, fine].concat(), 2);
    let client = NbdClient::over(vec![stream], &quick()).await.unwrap();
    let (first, second) = tokio::join!(
        client.read(0, BytesMut::zeroed(16)),
        client.read(0, BytesMut::zeroed(16))
    );
    let error = first.unwrap_err();
    assert!(matches!(
        error,
        NbdError::Failed {
            errno: NbdErrno::NoSpace,
            ..
        }
    ));
    assert_eq!(error.kind(), tresor_storage::Kind::Full);
    assert_eq!(second.unwrap(), [7; 16][..]);
}
