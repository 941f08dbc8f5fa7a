//! Questions of many segments to one owner, gathered into few: one that cannot go at once goes with all that came meanwhile.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tresor_storage::index::Answer;
use tresor_storage::limits::INDEX_BATCH;

use super::wire::{Asked, EPOCHS_MAX};

/// Batches of one owner on their way at once: while one is answered the next one is read there.
const IN_FLIGHT: usize = 4;
/// Questions that wait; who asks more waits with them.
const WAITING: usize = 64;

type Answers = Vec<Option<Answer>>;

struct Question {
    asked: Vec<Asked>,
    answer: oneshot::Sender<Answers>,
}

/// Asks one owner. Its task ends when it is dropped.
#[derive(Clone)]
pub(super) struct Batcher {
    questions: mpsc::Sender<Question>,
}

impl Batcher {
    /// Gathers for `ask`, which answers as many ids as it is asked for, whatever happens.
    pub(super) fn new<F, R>(ask: F) -> Self
    where
        F: Fn(Vec<Asked>) -> R + Send + Sync + 'static,
        R: Future<Output = Answers> + Send + 'static,
    {
        let (questions, waiting) = mpsc::channel(WAITING);
        tokio::spawn(run(waiting, Arc::new(ask)));
        Self { questions }
    }

    /// Answers for ids, in order.
    pub(super) async fn ask(&self, asked: Vec<Asked>) -> Answers {
        let count = asked.len();
        let (answer, answered) = oneshot::channel();
        let question = Question { asked, answer };
        if self.questions.send(question).await.is_err() {
            return vec![None; count];
        }
        // The task ends without an answer only with the runtime.
        answered.await.unwrap_or_else(|_| vec![None; count])
    }
}

async fn run<F, R>(mut waiting: mpsc::Receiver<Question>, ask: Arc<F>)
where
    F: Fn(Vec<Asked>) -> R + Send + Sync + 'static,
    R: Future<Output = Answers> + Send + 'static,
{
    let flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut next = waiting.recv().await;
    while let Some(first) = next.take() {
        let permit = Arc::clone(&flight).acquire_owned().await.expect("never closed");
        let mut batch = vec![first];
        let mut count = batch[0].asked.len();
        // What came while no permit was free.
        while let Ok(question) = waiting.try_recv() {
            if count + question.asked.len() > INDEX_BATCH || !fits(&batch, &question) {
                next = Some(question);
                break;
            }
            count += question.asked.len();
            batch.push(question);
        }
        let ask = Arc::clone(&ask);
        tokio::spawn(async move {
            let asked = batch
                .iter()
                .flat_map(|question| question.asked.iter().copied())
                .collect();
            let mut answers = ask(asked).await.into_iter();
            for Question { asked, answer } in batch {
                // Who asked may have been stopped.
                let _ = answer.send(answers.by_ref().take(asked.len()).collect());
            }
            drop(permit);
        });
        if next.is_none() {
            next = waiting.recv().await;
        }
    }
}

/// Whether one message can name the grants of all.
fn fits(batch: &[Question], question: &Question) -> bool {
    let all = batch.iter().chain([question]).flat_map(|question| &question.asked);
    let mut epochs: Vec<u64> = all.map(|asked| asked.epoch).collect();
    epochs.sort_unstable();
    epochs.dedup();
    epochs.len() <= EPOCHS_MAX
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Notify;
    use tresor_storage::ids::ChunkId;

    use super::*;

    fn asked(n: u32, epoch: u64) -> Asked {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_le_bytes());
        Asked { id: ChunkId(id), epoch }
    }

    /// An owner that answers `New` for even ids once it is let, and counts what it was asked.
    fn slow() -> (Batcher, Arc<Mutex<Vec<usize>>>, Arc<Notify>) {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let go = Arc::new(Notify::new());
        let (seen, wait) = (Arc::clone(&sizes), Arc::clone(&go));
        let batcher = Batcher::new(move |asked: Vec<Asked>| {
            seen.lock().expect("not poisoned").push(asked.len());
            let wait = Arc::clone(&wait);
            async move {
                wait.notified().await;
                asked
                    .iter()
                    .map(|asked| asked.id.0[0].is_multiple_of(2).then_some(Answer::New))
                    .collect()
            }
        });
        (batcher, sizes, go)
    }

    #[tokio::test]
    async fn what_comes_while_owners_are_busy_goes_in_one_question() {
        let (batcher, sizes, go) = slow();
        let asks: Vec<_> = (0..20_u32)
            .map(|n| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.ask(vec![asked(n, 1), asked(n + 1, 1)]).await })
            })
            .collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        for _ in 0..IN_FLIGHT + 1 {
            go.notify_one();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        }
        for (n, ask) in asks.into_iter().enumerate() {
            let answers = ask.await.expect("no panic");
            let even = |n: usize| n.is_multiple_of(2).then_some(Answer::New);
            assert_eq!(answers, [even(n), even(n + 1)], "each gets its own answers, in order");
        }
        let sizes = sizes.lock().expect("not poisoned").clone();
        assert!(sizes.len() <= IN_FLIGHT + 1, "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 40);
    }

    #[tokio::test]
    async fn a_batch_has_at_most_so_many_ids_and_names_at_most_so_many_grants() {
        let (batcher, sizes, go) = slow();
        let many =
            |from: u32, count: u32, epoch: fn(u32) -> u64| (from..from + count).map(|n| asked(n, epoch(n))).collect();
        let questions: Vec<Vec<Asked>> = vec![
            many(0, 1, |_| 1),
            many(0, 1, |_| 1),
            many(0, 1, |_| 1),
            many(0, 1, |_| 1),
            many(0, 300, |_| 1),
            many(0, 300, |_| 1),
            many(0, 200, u64::from),
            many(200, 100, u64::from),
        ];
        let asks: Vec<_> = questions
            .into_iter()
            .map(|question| {
                let batcher = batcher.clone();
                tokio::spawn(async move { batcher.ask(question).await })
            })
            .collect();
        for _ in 0..30 {
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            go.notify_one();
        }
        for ask in asks {
            ask.await.expect("no panic");
        }
        let sizes = sizes.lock().expect("not poisoned").clone();
        assert!(sizes.iter().all(|size| *size <= INDEX_BATCH), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 904);
    }
}
