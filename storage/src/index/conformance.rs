//! What every implementation of [`ChunkIndex`] must do, as checks to run against a fresh, empty one.
//!
//! Each check takes an index of its own and panics with what differs. Add a check here, and to `suite`, and all implementations are held to it.

use std::sync::Arc;

use super::{Answer, ChunkIndex, IndexSession};
use crate::ids::{ChunkId, ClusterId, Location, PackId, PartId, SessionId, Writer};

/// Makes one test of each check, for the index that the closure returns, beside what must outlive it.
#[cfg(test)]
macro_rules! suite {
    ($fresh:expr) => {
        $crate::index::conformance::suite!($fresh;
            unknown_ids_are_new_and_inserted_ones_known
            the_first_location_wins
            a_lost_entry_is_new_until_another_location_is_inserted
            marking_another_location_lost_does_nothing
            answers_come_in_the_order_asked_also_for_repeated_ids
            ten_thousand_ids_are_answered_at_once
            one_insert_takes_ids_twice_and_keeps_the_first
            damage_is_noted_once_and_listed
            readers_are_not_sent_to_lost_entries
            one_of_many_concurrent_inserts_wins_for_all
            a_session_of_another_cluster_is_refused
            empty_questions_have_empty_answers
        );
    };
    ($fresh:expr; $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                let (_kept, index) = ($fresh)().await;
                $crate::index::conformance::$check(std::sync::Arc::new(index)).await;
            }
        )*
    };
}
#[cfg(test)]
pub(crate) use suite;

/// A session of the cluster that all checks use.
pub fn session(number: u64, start_epoch: u64) -> IndexSession {
    IndexSession {
        cluster: ClusterId(0xc1),
        session: SessionId(number),
        start_epoch,
    }
}

/// The `n`-th id; neighbours are far apart, as hashes are.
pub fn id(n: u64) -> ChunkId {
    ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes())
}

/// A location in the `seq`-th pack of the `part`-th writer.
pub fn location(part: u64, seq: u32) -> Location {
    let writer = Writer {
        cluster: ClusterId(0xc1),
        session: SessionId(1),
        part: PartId(part),
    };
    Location {
        pack: PackId { writer, seq },
        frame_offset: 96 + seq,
        frame_length: 1000 + seq,
        place: seq % 128,
    }
}

async fn lookup(index: &dyn ChunkIndex, ids: &[ChunkId]) -> Vec<Answer> {
    index.lookup(session(1, 0), ids).await.expect("the index answers")
}

async fn insert(index: &dyn ChunkIndex, entries: &[(ChunkId, Location)]) {
    index
        .insert(session(1, 0), entries)
        .await
        .expect("the index takes entries");
}

async fn lose(index: &dyn ChunkIndex, entries: &[(ChunkId, Location)]) {
    index.mark_lost(entries).await.expect("the index takes marks");
}

async fn locate(index: &dyn ChunkIndex, ids: &[ChunkId]) -> Vec<Option<Location>> {
    index.locate(ids).await.expect("the index answers readers")
}

/// See the name.
pub async fn unknown_ids_are_new_and_inserted_ones_known(index: Arc<dyn ChunkIndex>) {
    assert_eq!(lookup(&*index, &[id(1), id(2)]).await, [Answer::New, Answer::New]);
    assert_eq!(
        lookup(&*index, &[id(1)]).await,
        [Answer::New],
        "asking alone must not make an id known"
    );
    insert(&*index, &[(id(1), location(1, 4))]).await;
    assert_eq!(
        lookup(&*index, &[id(1), id(2)]).await,
        [Answer::Known(location(1, 4)), Answer::New]
    );
    assert_eq!(locate(&*index, &[id(1), id(2)]).await, [Some(location(1, 4)), None]);
    assert!(index.count().await.expect("the index counts") >= 1);
}

/// See the name.
pub async fn the_first_location_wins(index: Arc<dyn ChunkIndex>) {
    insert(&*index, &[(id(1), location(1, 1))]).await;
    insert(&*index, &[(id(1), location(2, 2)), (id(2), location(2, 2))]).await;
    assert_eq!(
        lookup(&*index, &[id(1), id(2)]).await,
        [Answer::Known(location(1, 1)), Answer::Known(location(2, 2))]
    );
}

/// See the name.
pub async fn a_lost_entry_is_new_until_another_location_is_inserted(index: Arc<dyn ChunkIndex>) {
    insert(&*index, &[(id(1), location(1, 1))]).await;
    lose(&*index, &[(id(1), location(1, 1))]).await;
    assert_eq!(lookup(&*index, &[id(1)]).await, [Answer::New]);
    insert(&*index, &[(id(1), location(1, 1))]).await;
    assert_eq!(
        lookup(&*index, &[id(1)]).await,
        [Answer::New],
        "a repeated insert must not bring back what is lost"
    );
    insert(&*index, &[(id(1), location(1, 2))]).await;
    assert_eq!(lookup(&*index, &[id(1)]).await, [Answer::Known(location(1, 2))]);
    insert(&*index, &[(id(1), location(1, 3))]).await;
    assert_eq!(
        lookup(&*index, &[id(1)]).await,
        [Answer::Known(location(1, 2))],
        "the replacement is good and stays"
    );
}

/// See the name.
pub async fn marking_another_location_lost_does_nothing(index: Arc<dyn ChunkIndex>) {
    insert(&*index, &[(id(1), location(1, 1))]).await;
    let near = Location {
        place: location(1, 1).place + 1,
        ..location(1, 1)
    };
    lose(
        &*index,
        &[
            (id(1), location(1, 2)),
            (id(1), location(2, 1)),
            (id(1), near),
            (id(2), location(1, 1)),
        ],
    )
    .await;
    assert_eq!(
        lookup(&*index, &[id(1), id(2)]).await,
        [Answer::Known(location(1, 1)), Answer::New]
    );
}

/// See the name.
pub async fn answers_come_in_the_order_asked_also_for_repeated_ids(index: Arc<dyn ChunkIndex>) {
    let entries: Vec<_> = (0..50).map(|n| (id(n), location(n % 3, n as u32))).collect();
    insert(&*index, &entries).await;
    // Down, up again, and each third id unknown.
    let asked: Vec<u64> = (0..50).rev().chain(0..50).flat_map(|n| [n, n, 1000 + n]).collect();
    let ids: Vec<ChunkId> = asked.iter().map(|n| id(*n)).collect();
    let expected = |n: &u64| (*n < 50).then(|| location(n % 3, *n as u32));
    let expected: Vec<_> = asked.iter().map(expected).collect();
    assert_eq!(locate(&*index, &ids).await, expected);
    let answers: Vec<_> = expected
        .into_iter()
        .map(|found| found.map_or(Answer::New, Answer::Known))
        .collect();
    assert_eq!(lookup(&*index, &ids).await, answers);
    // The same while each answer is touched.
    assert_eq!(
        index.lookup(session(2, 7), &ids).await.expect("the index answers"),
        answers
    );
}

/// See the name.
pub async fn ten_thousand_ids_are_answered_at_once(index: Arc<dyn ChunkIndex>) {
    let entries: Vec<_> = (0..10_000)
        .filter(|n| n % 2 == 0)
        .map(|n| (id(n), location(n % 7, n as u32)))
        .collect();
    insert(&*index, &entries).await;
    let ids: Vec<ChunkId> = (0..10_000).map(id).collect();
    let answers = lookup(&*index, &ids).await;
    assert_eq!(answers.len(), ids.len());
    for (n, answer) in (0..).zip(answers) {
        let expected = if n % 2 == 0 {
            Answer::Known(location(n % 7, n as u32))
        } else {
            Answer::New
        };
        assert_eq!(answer, expected, "id {n}");
    }
}

/// See the name.
pub async fn one_insert_takes_ids_twice_and_keeps_the_first(index: Arc<dyn ChunkIndex>) {
    insert(
        &*index,
        &[
            (id(1), location(1, 1)),
            (id(2), location(1, 2)),
            (id(1), location(1, 3)),
        ],
    )
    .await;
    assert_eq!(
        locate(&*index, &[id(1), id(2)]).await,
        [Some(location(1, 1)), Some(location(1, 2))]
    );
    lose(&*index, &[(id(1), location(1, 1))]).await;
    insert(
        &*index,
        &[
            (id(1), location(1, 1)),
            (id(1), location(1, 4)),
            (id(1), location(1, 5)),
        ],
    )
    .await;
    assert_eq!(locate(&*index, &[id(1)]).await, [Some(location(1, 4))]);
}

/// See the name.
pub async fn damage_is_noted_once_and_listed(index: Arc<dyn ChunkIndex>) {
    assert_eq!(index.damage().await.expect("the index lists damage"), []);
    let (one, two) = (
        location(1, 1).pack,
        PackId {
            seq: u32::MAX,
            ..location(u64::MAX, 1).pack
        },
    );
    for (pack, offset) in [
        (one, Some(96)),
        (two, None),
        (one, Some(96)),
        (one, None),
        (two, Some(u32::MAX)),
    ] {
        index.add_damage(pack, offset).await.expect("the index notes damage");
    }
    let mut damage = index.damage().await.expect("the index lists damage");
    damage.sort_unstable();
    assert_eq!(
        damage,
        [(one, None), (one, Some(96)), (two, None), (two, Some(u32::MAX))]
    );
}

/// See the name.
pub async fn readers_are_not_sent_to_lost_entries(index: Arc<dyn ChunkIndex>) {
    insert(&*index, &[(id(1), location(1, 1)), (id(2), location(1, 2))]).await;
    lose(&*index, &[(id(1), location(1, 1))]).await;
    assert_eq!(locate(&*index, &[id(1), id(2)]).await, [None, Some(location(1, 2))]);
}

/// See the name.
pub async fn one_of_many_concurrent_inserts_wins_for_all(index: Arc<dyn ChunkIndex>) {
    const TASKS: u64 = 16;
    const IDS: u64 = 40;
    let ids: Vec<ChunkId> = (0..IDS).map(id).collect();
    let insert_then_look = |task: u64| {
        let (index, ids) = (index.clone(), ids.clone());
        async move {
            let entries: Vec<_> = ids.iter().map(|id| (*id, location(task, task as u32))).collect();
            // Touches run beside inserts, so that neither undoes the other.
            let session = session(task, task);
            index.lookup(session, &ids).await.expect("the index answers");
            index.insert(session, &entries).await.expect("the index takes entries");
            index.lookup(session, &ids).await.expect("the index answers")
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|task| tokio::spawn(insert_then_look(task))).collect();
    let settled = {
        let mut seen = Vec::new();
        for task in tasks {
            seen.push(task.await.expect("no task panics"));
        }
        let last = lookup(&*index, &ids).await;
        assert!(last.iter().all(|answer| matches!(answer, Answer::Known(_))));
        for answers in &seen {
            assert_eq!(*answers, last, "two sessions were told different places");
        }
        last
    };
    insert(&*index, &[(id(0), location(99, 99))]).await;
    assert_eq!(lookup(&*index, &ids).await, settled);
}

/// See the name.
pub async fn a_session_of_another_cluster_is_refused(index: Arc<dyn ChunkIndex>) {
    insert(&*index, &[(id(1), location(1, 1))]).await;
    let stranger = IndexSession {
        cluster: ClusterId(0xdead),
        ..session(1, 0)
    };
    let refused = index.lookup(stranger, &[id(1)]).await;
    assert!(matches!(refused, Err(super::IndexError::Foreign { .. })), "{refused:?}");
    let refused = index.insert(stranger, &[(id(2), location(1, 1))]).await;
    assert!(matches!(refused, Err(super::IndexError::Foreign { .. })), "{refused:?}");
    assert_eq!(locate(&*index, &[id(2)]).await, [None]);
}

/// See the name.
pub async fn empty_questions_have_empty_answers(index: Arc<dyn ChunkIndex>) {
    assert_eq!(lookup(&*index, &[]).await, []);
    assert_eq!(locate(&*index, &[]).await, []);
    insert(&*index, &[]).await;
    lose(&*index, &[]).await;
    assert_eq!(index.count().await.expect("the index counts"), 0);
}
