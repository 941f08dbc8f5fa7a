//! What every store must do, as one suite: for tests, of every implementation and every wrapper of the port.
//!
//! It panics at the first thing that is wrong, as tests do. It works below a folder of its own with a random name, so it can be run against a
//! real bucket, and removes what it made when it succeeds.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};

use super::{Backend, BackendError};
use crate::ids::hex;

/// Large enough for several parts of anything that cuts bodies, and for any buffer.
const LARGE: usize = 40 << 20;

/// Runs the whole suite.
///
/// # Panics
/// When the store does not keep to the port.
pub async fn run(backend: Arc<dyn Backend>) {
    let suite = Suite::new(backend);
    suite.creates_and_reads().await;
    suite.never_replaces().await;
    suite.keeps_pieces_in_order().await;
    suite.reads_ranges_exactly().await;
    suite.refuses_objects_that_are_too_large().await;
    suite.lists_below_a_prefix().await;
    suite.tells_what_is_missing().await;
    suite.refuses_names_that_are_none().await;
    suite.lets_one_of_many_creators_win().await;
    suite.serves_many_readers().await;
    suite.keeps_large_objects().await;
    suite.cleans_up().await;
}

struct Suite {
    backend: Arc<dyn Backend>,
    folder: String,
}

/// Bytes that differ at every place and between two seeds.
fn pattern(seed: u8, length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
    bytes.into()
}

impl Suite {
    fn new(backend: Arc<dyn Backend>) -> Self {
        let mut id = [0; 8];
        getrandom::fill(&mut id).expect("a machine for tests has randomness");
        Self {
            backend,
            folder: format!("conformance/{}/", hex(&id)),
        }
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.folder)
    }

    async fn put(&self, name: &str, bytes: &Bytes) {
        self.backend
            .create(&self.name(name), std::slice::from_ref(bytes))
            .await
            .expect("a new object is created");
    }

    async fn get(&self, name: &str) -> Bytes {
        self.backend
            .read(&self.name(name), usize::MAX)
            .await
            .expect("an object is read")
    }

    async fn list(&self, prefix: &str) -> BTreeSet<(String, u64)> {
        let listed: Vec<_> = self
            .backend
            .list(prefix)
            .try_collect()
            .await
            .expect("a folder is listed");
        let set: BTreeSet<_> = listed.iter().map(|item| (item.name.clone(), item.length)).collect();
        assert_eq!(set.len(), listed.len(), "an object is listed once");
        set
    }

    async fn creates_and_reads(&self) {
        let bytes = pattern(1, 1000);
        self.put("basic/a", &bytes).await;
        assert_eq!(self.get("basic/a").await, bytes);
        assert_eq!(
            self.backend.length(&self.name("basic/a")).await.expect("it is there"),
            1000
        );

        self.put("basic/empty", &Bytes::new()).await;
        assert_eq!(self.get("basic/empty").await, Bytes::new());
        assert_eq!(
            self.backend
                .length(&self.name("basic/empty"))
                .await
                .expect("it is there"),
            0
        );
        let range = self.backend.read_range(&self.name("basic/empty"), 0..0).await;
        assert_eq!(range.expect("an empty range of an empty object"), Bytes::new());

        for name in [
            "basic/with-dash",
            "basic/with.dot",
            "basic/.hidden",
            "basic/..two",
            "basic/-",
            "basic/UPPER",
            "basic/upper",
            "basic/a.b-c/d",
        ] {
            let bytes = pattern(2, name.len());
            self.put(name, &bytes).await;
            assert_eq!(self.get(name).await, bytes, "{name}");
        }
        let long = format!("basic/{}", "n".repeat(200));
        self.put(&long, &bytes).await;
        assert_eq!(self.get(&long).await, bytes);
    }

    async fn never_replaces(&self) {
        let (first, second) = (pattern(3, 100), pattern(4, 100));
        self.put("once", &first).await;
        // Not the same bytes again: a wrapper that asks again after an unclear failure takes those for its own.
        for bytes in [&second, &Bytes::new()] {
            let error = self
                .backend
                .create(&self.name("once"), std::slice::from_ref(bytes))
                .await
                .expect_err("the name is taken");
            assert!(
                matches!(&error, BackendError::Exists { name } if *name == self.name("once")),
                "{error:?}"
            );
        }
        assert_eq!(self.get("once").await, first, "the first object stays");
    }

    async fn keeps_pieces_in_order(&self) {
        let none: [Bytes; 0] = [];
        self.backend
            .create(&self.name("pieces/none"), &none)
            .await
            .expect("no pieces are an empty object");
        assert_eq!(self.get("pieces/none").await, Bytes::new());

        let one = pattern(5, 10_000);
        let mut pieces = vec![Bytes::new()];
        let mut at = 0;
        for i in 0.. {
            let end = (at + i % 37).min(one.len());
            pieces.push(one.slice(at..end));
            at = end;
            if at == one.len() {
                break;
            }
        }
        pieces.push(Bytes::new());
        assert!(pieces.len() > 500);
        self.backend
            .create(&self.name("pieces/many"), &pieces)
            .await
            .expect("many pieces are one object");
        assert_eq!(self.get("pieces/many").await, one);
    }

    async fn reads_ranges_exactly(&self) {
        let bytes = pattern(6, 5000);
        self.put("ranges", &bytes).await;
        let name = self.name("ranges");
        for range in [0..1, 0..5000, 1..4999, 4999..5000, 2500..2501, 0..0, 17..17, 5000..5000] {
            let read = self
                .backend
                .read_range(&name, range.clone())
                .await
                .unwrap_or_else(|error| panic!("{range:?}: {error:?}"));
            assert_eq!(read, bytes[range.start as usize..range.end as usize], "{range:?}");
        }
        for range in [
            0..5001,
            4999..5001,
            5000..5001,
            6000..6001,
            6000..6000,
            0..u64::MAX >> 16,
        ] {
            match self.backend.read_range(&name, range.clone()).await {
                Err(BackendError::Range { name: told, end }) => assert_eq!((told, end), (name.clone(), range.end)),
                other => panic!("{range:?} is beyond the object: {other:?}"),
            }
        }
        let empty = self.name("ranges-empty");
        self.put("ranges-empty", &Bytes::new()).await;
        assert!(matches!(
            self.backend.read_range(&empty, 0..1).await,
            Err(BackendError::Range { .. })
        ));
        #[expect(clippy::reversed_empty_ranges, reason = "what a broken caller asks")]
        let reversed = self.backend.read_range(&name, 10..5).await;
        assert!(reversed.is_err(), "a range that ends before it begins");
    }

    async fn refuses_objects_that_are_too_large(&self) {
        self.put("bounded", &pattern(7, 5000)).await;
        let name = self.name("bounded");
        for max in [0, 1, 4999] {
            match self.backend.read(&name, max).await {
                Err(BackendError::TooLarge { length, max: told, .. }) => assert_eq!((length, told), (5000, max as u64)),
                other => panic!("{max}: {other:?}"),
            }
        }
        for max in [5000, 5001] {
            assert_eq!(self.backend.read(&name, max).await.expect("it fits").len(), 5000);
        }
    }

    async fn lists_below_a_prefix(&self) {
        let folder = self.name("list/");
        assert_eq!(
            self.list(&folder).await,
            BTreeSet::new(),
            "an absent folder lists nothing"
        );
        let mut expected = BTreeSet::new();
        for (i, name) in ["list/a", "list/b/c", "list/b/d/e/f", "list/b-c", "list/bb/x"]
            .iter()
            .enumerate()
        {
            self.put(name, &pattern(8, i)).await;
            expected.insert((self.name(name), i as u64));
            assert_eq!(
                self.list(&folder).await,
                expected,
                "an object is listed as soon as it is there"
            );
        }
        let below_b = expected
            .iter()
            .filter(|(name, _)| name.starts_with(&self.name("list/b/")))
            .cloned()
            .collect();
        assert_eq!(
            self.list(&self.name("list/b/")).await,
            below_b,
            "only what is below the folder, not what begins like it"
        );

        self.backend
            .delete(&self.name("list/b/c"))
            .await
            .expect("an object is deleted");
        expected.remove(&(self.name("list/b/c"), 1));
        assert_eq!(self.list(&folder).await, expected, "a deleted object is not listed");
        let mut listed = self.backend.list("no-slash-at-the-end");
        assert!(listed.next().await.expect("an answer").is_err());
    }

    async fn tells_what_is_missing(&self) {
        let name = self.name("missing/a");
        let missing = |error: BackendError| {
            assert!(
                matches!(&error, BackendError::NotFound { name: told } if *told == name),
                "{error:?}"
            );
        };
        missing(self.backend.read(&name, 10).await.expect_err("missing"));
        missing(self.backend.read_range(&name, 0..1).await.expect_err("missing"));
        missing(self.backend.read_range(&name, 0..0).await.expect_err("missing"));
        missing(self.backend.length(&name).await.expect_err("missing"));
        self.backend
            .delete(&name)
            .await
            .expect("what is not there is deleted already");

        self.put("missing/a", &pattern(9, 10)).await;
        self.backend.delete(&name).await.expect("an object is deleted");
        missing(self.backend.read(&name, 10).await.expect_err("deleted"));
        self.backend.delete(&name).await.expect("twice too");
        // A folder is no object.
        self.put("missing/b/c", &pattern(9, 10)).await;
        let folder = self.name("missing/b");
        assert!(matches!(
            self.backend.read(&folder, 10).await,
            Err(BackendError::NotFound { .. })
        ));
        assert!(matches!(
            self.backend.length(&folder).await,
            Err(BackendError::NotFound { .. })
        ));
    }

    async fn refuses_names_that_are_none(&self) {
        for bad in ["", "/", "..", "a/../../b", "a//b", "a b", "a#1", "a\n", "a/"] {
            let refused = |result: Result<(), BackendError>| {
                assert!(
                    matches!(result, Err(BackendError::Refused { .. })),
                    "{bad:?} was taken: {result:?}"
                );
            };
            refused(self.backend.create(bad, &[]).await);
            refused(self.backend.read(bad, 1).await.map(drop));
            refused(self.backend.read_range(bad, 0..1).await.map(drop));
            refused(self.backend.length(bad).await.map(drop));
            refused(self.backend.delete(bad).await);
        }
    }

    async fn lets_one_of_many_creators_win(&self) {
        let name = self.name("raced/object");
        let tasks = (0..8).map(|i| {
            let (backend, name) = (self.backend.clone(), name.clone());
            let bytes = pattern(10 + i, 100_000);
            tokio::spawn(async move { (backend.create(&name, std::slice::from_ref(&bytes)).await, bytes) })
        });
        let mut winners = Vec::new();
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            match task.expect("no panic") {
                (Ok(()), bytes) => winners.push(bytes),
                (Err(BackendError::Exists { .. }), _) => {}
                (Err(error), _) => panic!("{error:?}"),
            }
        }
        assert_eq!(winners.len(), 1, "exactly one creator wins");
        assert_eq!(self.get("raced/object").await, winners[0]);
    }

    async fn serves_many_readers(&self) {
        let bytes = pattern(20, 4 << 20);
        self.put("shared", &bytes).await;
        let name = self.name("shared");
        let reads = (0..64_u64).map(|i| {
            let range = i * 65536..(i + 1) * 65536;
            let (backend, name) = (self.backend.clone(), name.clone());
            async move { (backend.read_range(&name, range.clone()).await, range) }
        });
        for (read, range) in join_all(reads).await {
            assert_eq!(
                read.expect("a range is read"),
                bytes[range.start as usize..range.end as usize]
            );
        }
    }

    async fn keeps_large_objects(&self) {
        let bytes = pattern(21, LARGE);
        let pieces: Vec<_> = (0..LARGE)
            .step_by(1 << 20)
            .map(|at| bytes.slice(at..at + (1 << 20)))
            .collect();
        let name = self.name("large");
        self.backend
            .create(&name, &pieces)
            .await
            .expect("a large object is created");
        assert_eq!(self.backend.length(&name).await.expect("it is there"), LARGE as u64);
        let last = LARGE as u64 - 64;
        assert_eq!(
            self.backend
                .read_range(&name, last..LARGE as u64)
                .await
                .expect("its end"),
            bytes[last as usize..]
        );
        let middle = 8 << 20;
        assert_eq!(
            self.backend.read_range(&name, middle..2 * middle).await.expect("8 MiB"),
            bytes[middle as usize..2 * middle as usize]
        );
        assert!(matches!(
            self.backend.read(&name, LARGE - 1).await,
            Err(BackendError::TooLarge { .. })
        ));
        assert!(
            self.get("large").await == bytes,
            "a large object comes back as it was put"
        );
    }

    async fn cleans_up(&self) {
        for (name, _) in self.list(&self.folder).await {
            self.backend.delete(&name).await.expect("an object is deleted");
        }
        assert_eq!(self.list(&self.folder).await, BTreeSet::new());
    }
}
