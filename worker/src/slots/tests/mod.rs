//! Many workers, one vault: each story on real databases and the real pipeline, over a network and a log that do what the story says.

mod fleet;
mod store;

use std::sync::atomic::Ordering;

use fleet::{CLUSTER, Fleet};
use tresor_storage::ids::Location;
use tresor_storage::ids::{ChunkId, PackId, PartId, SessionId, Writer};
use tresor_storage::index::{Answer, ChunkIndex as _, IndexSession};

use super::peer::{PeerError, SlotPeer as _};
use super::wire::{Asked, Changed};
use crate::backup::Shares as _;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_first_backups_of_clones_on_four_workers_store_little_more_than_one() {
    let fleet = Fleet::new(4).await;
    let disk = fleet.disk("clone.img", 96, 1);
    let once = Fleet::new(1).await;
    let alone = once.back_up(1, &disk, None).await.unwrap();

    let backups = (0..8).map(|n| fleet.back_up(1 + n % 4, &disk, None));
    let outcomes: Vec<_> = futures::future::join_all(backups)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let stored: u64 = outcomes.iter().map(|outcome| outcome.counts.bytes_stored).sum();
    let ratio = stored as f64 / alone.counts.bytes_stored as f64;
    assert!(ratio <= 1.02, "{ratio:.4} of one backup");
    assert_eq!(fleet.log.points(), 8);
    for outcome in &outcomes {
        fleet.check(outcome, &disk).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_worker_stored_every_other_finds() {
    let fleet = Fleet::new(3).await;
    let disk = fleet.disk("a.img", 24, 1);
    fleet.back_up(1, &disk, None).await.unwrap();
    let again = fleet.back_up(2, &disk, None).await.unwrap();
    assert_eq!(again.counts.chunks_new, 0);
    assert_eq!(again.counts.bytes_new, 0);
    fleet.check(&again, &disk).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_that_is_cut_off_costs_duplicates_and_no_backup() {
    let fleet = Fleet::new(3).await;
    let disk = fleet.disk("a.img", 24, 1);
    let first = fleet.back_up(1, &disk, None).await.unwrap();
    fleet.cut(3);
    let other = fleet.back_up(2, &disk, None);
    // What goes to the owner that is away is sent again beside the backup; its slots go to others meanwhile.
    let (second, ()) = tokio::join!(other, async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        fleet.deal(&[1, 2]);
        fleet.tell(1);
        fleet.tell(2);
    });
    let second = second.unwrap();
    let third = first.counts.chunks_new / 3;
    assert!(
        second.counts.chunks_new <= third + third / 2,
        "about a third is stored twice: {}",
        second.counts.chunks_new
    );
    fleet.check(&second, &disk).await;
    fleet.whole().await;
    let third = fleet.back_up(2, &disk, None).await.unwrap();
    assert_eq!(third.counts.chunks_new, 0, "the new owners know all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_before_a_commit_are_asked_again_and_the_same_point_counts() {
    let mut fleet = Fleet::new(2).await;
    let disk = fleet.disk("a.img", 24, 1);
    fleet.back_up(1, &disk, None).await.unwrap();
    fleet.start(3);
    fleet.publish();
    let clone = {
        let fleet = &fleet;
        let (log, disk) = (fleet.log.clone(), disk.clone());
        let (moved, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let telling = async {
            // The log moves the slots right before the commit; workers hear of it a moment later.
            while log.refused() == 0 && wait.try_recv().is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            fleet.publish();
        };
        let dealing = {
            let deal = fleet.dealer(vec![1, 2, 3]);
            Box::new(move || {
                deal();
                let _ = moved.send(());
            })
        };
        let backup = fleet.back_up_and(1, &disk, None, Some(dealing));
        let (backup, ()) = tokio::join!(backup, telling);
        backup.unwrap()
    };
    assert!(fleet.log.refused() >= 1, "the log refused what rested on former owners");
    assert_eq!(fleet.log.points(), 2);
    fleet.check(&clone, &disk).await;
    fleet.whole().await;
    // ◆ The new owner knows every id of the point.
    let again = fleet.back_up(3, &disk, None).await.unwrap();
    assert_eq!(again.counts.chunks_new, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_answers_only_under_the_grant_that_is_named() {
    let fleet = Fleet::new(1).await;
    let disk = fleet.disk("a.img", 8, 1);
    fleet.back_up(1, &disk, None).await.unwrap();
    let member = &fleet.members[&1];
    let session = IndexSession {
        cluster: CLUSTER,
        session: SessionId(1000),
        start_epoch: 0,
    };
    let id = ChunkId([9; 32]);
    let ask = |epoch| {
        member
            .owner
            .lookup(fleet.vault.id, session, vec![Asked { id, epoch }], 0)
    };
    assert_eq!(ask(1).await.unwrap(), [Some(Answer::New)]);
    assert_eq!(ask(2).await.unwrap(), [None]);
    fleet.regrant(1, true);
    fleet.publish();
    // The same worker, the same process: the former grant is over all the same.
    let held = async {
        while ask(1).await.unwrap() != [None] {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), held)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_was_over_when_the_map_was_read_is_refused() {
    let fleet = Fleet::new(1).await;
    let disk = fleet.disk("a.img", 8, 1);
    let first = fleet.back_up(1, &disk, None).await.unwrap();
    fleet.regrant(1, true);
    fleet.publish();
    fleet.whole().await;
    let over = first.manifest.writer.session;
    let session = IndexSession {
        cluster: CLUSTER,
        session: over,
        start_epoch: 0,
    };
    let pack = PackId {
        writer: first.manifest.writer,
        seq: 99,
    };
    let at = Location {
        pack,
        frame_offset: 0,
        frame_length: 1,
        place: 0,
    };
    let owner = &fleet.members[&1].owner;
    let asked = Asked {
        id: ChunkId([9; 32]),
        epoch: 3,
    };
    let wait = async {
        loop {
            match owner.insert(fleet.vault.id, session, vec![(asked, at)], 0).await {
                Err(PeerError::Fenced { .. }) => return,
                _ => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), wait)
        .await
        .unwrap();
    assert!(matches!(
        owner.lookup(fleet.vault.id, session, vec![asked], 0).await,
        Err(PeerError::Fenced { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_inserts_only_what_lies_in_its_own_packs() {
    let fleet = Fleet::new(1).await;
    let session = IndexSession {
        cluster: CLUSTER,
        session: SessionId(1000),
        start_epoch: 0,
    };
    let at = |session| Location {
        pack: PackId {
            writer: Writer {
                cluster: CLUSTER,
                session: SessionId(session),
                part: PartId(1),
            },
            seq: 0,
        },
        frame_offset: 0,
        frame_length: 1,
        place: 0,
    };
    let asked = Asked {
        id: ChunkId([9; 32]),
        epoch: 1,
    };
    let owner = &fleet.members[&1].owner;
    let other = owner.insert(fleet.vault.id, session, vec![(asked, at(999))], 0).await;
    assert!(matches!(other, Err(PeerError::Refused { .. })), "{other:?}");
    let own = owner.insert(fleet.vault.id, session, vec![(asked, at(1000))], 0).await;
    assert_eq!(own.unwrap(), [Changed::Taken]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_started_again_keeps_its_entries_and_reads_nothing() {
    let mut fleet = Fleet::new(2).await;
    let disk = fleet.disk("a.img", 24, 1);
    fleet.back_up(1, &disk, None).await.unwrap();
    let life = fleet.life(2);
    fleet.stop(2).await;
    fleet.start(2);
    assert_eq!(fleet.kept_life(2), Some(life), "it says who it was");
    let before = fleet.store.reads();
    fleet.regrant(2, true);
    fleet.publish();
    fleet.whole().await;
    assert_eq!(fleet.store.reads(), before);
    let again = fleet.back_up(1, &disk, None).await.unwrap();
    assert_eq!(again.counts.chunks_new, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_database_is_made_anew_from_the_store() {
    let mut fleet = Fleet::new(2).await;
    let disk = fleet.disk("a.img", 24, 1);
    fleet.stop(2).await;
    let copy = tempfile::tempdir().unwrap();
    fleet.copy_out(2, copy.path());
    fleet.start(2);
    fleet.regrant(2, true);
    fleet.publish();
    fleet.whole().await;
    fleet.back_up(1, &disk, None).await.unwrap();
    fleet.stop(2).await;
    // The databases of before the backup, with what the worker says of itself now.
    fleet.copy_in(2, copy.path());
    fleet.start(2);
    fleet.regrant(2, true);
    fleet.publish();
    fleet.whole().await;
    let again = fleet.back_up(1, &disk, None).await.unwrap();
    assert_eq!(
        again.counts.chunks_new, 0,
        "what the copy lacked was found in the store"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_come_back_to_a_worker_after_another_had_them_start_afresh() {
    let fleet = Fleet::new(2).await;
    let disk = fleet.disk("a.img", 16, 1);
    let other = fleet.disk("b.img", 16, 2);
    fleet.back_up(1, &disk, None).await.unwrap();
    fleet.deal(&[1]);
    fleet.publish();
    fleet.whole().await;
    fleet.back_up(1, &other, None).await.unwrap();
    fleet.deal(&[1, 2]);
    fleet.publish();
    fleet.whole().await;
    let again = fleet.back_up(2, &other, None).await.unwrap();
    assert_eq!(again.counts.chunks_new, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wave_of_grants_lists_the_packs_once() {
    let fleet = Fleet::new(4).await;
    let disk = fleet.disk("a.img", 24, 1);
    fleet.back_up(1, &disk, None).await.unwrap();
    fleet.cut(4);
    let before = fleet.store.pack_lists();
    fleet.deal(&[1, 2, 3]);
    fleet.publish();
    fleet.whole().await;
    assert_eq!(
        fleet.store.pack_lists() - before,
        1,
        "one owner lists, the others ask it"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_known_to_every_session_wherever_it_was_noted() {
    let fleet = Fleet::new(3).await;
    let pack = PackId {
        writer: Writer {
            cluster: CLUSTER,
            session: SessionId(1),
            part: PartId(1),
        },
        seq: 4,
    };
    fleet.cut(3);
    fleet.routed(1).add_damage(pack, Some(96)).await.unwrap();
    fleet.mend(3);
    for worker in 1..=3 {
        assert_eq!(fleet.routed(worker).damage().await.unwrap(), [(pack, Some(96))]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_of_a_backup_go_in_few_messages() {
    let fleet = Fleet::new(2).await;
    let disk = fleet.disk("a.img", 64, 1);
    let before = fleet.net.calls.load(Ordering::Relaxed);
    let first = fleet.back_up(1, &disk, None).await.unwrap();
    let calls = fleet.net.calls.load(Ordering::Relaxed) - before;
    // Sixteen segments ask for half of their ids elsewhere; each pack tells once.
    assert!(
        calls <= 16 + 2 * 3 + 4,
        "{calls} calls for {} lookups",
        first.counts.lookups
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_is_claimed_later_loses_nothing_that_comes_while_it_is_opened() {
    let fleet = Fleet::without_vault(3);
    let disk = fleet.disk("a.img", 24, 1);
    while fleet.members[&3].owner.version().await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    fleet.claim();
    // At once: what is not open anywhere takes nothing, and what is sent is sent again until it is.
    let first = fleet.back_up(1, &disk, None).await.unwrap();
    assert!(first.counts.chunks_new > 0);
    fleet.whole().await;
    let again = fleet.back_up(2, &disk, None).await.unwrap();
    assert_eq!(again.counts.chunks_new, 0);
    fleet.check(&again, &disk).await;
}

#[tokio::test]
async fn with_nobody_to_ask_nothing_moved() {
    let fleet = Fleet::new(1).await;
    let routed = fleet.routed(1);
    assert!(routed.moved().is_empty());
    let index_use = routed.index_use().unwrap();
    assert!(index_use.slots.is_empty() && index_use.missing.is_empty());
}
