//! Buffers used again. Fresh memory is cleared by the kernel, which costs as much as filling it, and memory that one thread takes and another
//! gives back piles up in the allocator: what flows at gigabytes a second flows through a few buffers of a fixed size instead.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Of every platform that matters here; where pages are larger it is still far enough from the start of one.
const PAGE: usize = 4096;

/// Bytes that start with a page of memory.
///
/// Allocators put large buffers some bytes behind the start of a page, and between such places and the page cache the kernel of an AMD Zen machine
/// copies five times slower (1.5 instead of 8 GB/s). Growing beyond its capacity keeps the bytes and may lose the place.
#[derive(Debug, Default)]
pub struct Aligned {
    memory: Vec<u8>,
    start: usize,
}

impl Aligned {
    /// Appends.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Cuts or fills with zeros to `length` bytes.
    pub fn resize(&mut self, length: usize) {
        self.memory.resize(self.start + length, 0);
    }

    /// Copies it out.
    pub fn to_vec(&self) -> Vec<u8> {
        self[..].to_vec()
    }
}

impl Deref for Aligned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }
}

/// What a [`Pool`] keeps.
pub trait Reused: Deref<Target = [u8]> + Default + Send {
    /// Makes an empty one with room for that many bytes.
    fn with_capacity(capacity: usize) -> Self;
    /// Empties it; false if its room is not what [`with_capacity`](Self::with_capacity) made, because it grew or was taken apart.
    fn reset(&mut self, capacity: usize) -> bool;
}

impl Reused for Vec<u8> {
    fn with_capacity(capacity: usize) -> Self {
        Self::with_capacity(capacity)
    }

    fn reset(&mut self, capacity: usize) -> bool {
        self.clear();
        self.capacity() == capacity
    }
}

impl Reused for Aligned {
    fn with_capacity(capacity: usize) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(capacity + PAGE);
        let start = memory.as_ptr().align_offset(PAGE).min(PAGE);
        memory.resize(start, 0);
        Self { memory, start }
    }

    fn reset(&mut self, capacity: usize) -> bool {
        self.memory.truncate(self.start);
        self.memory.capacity() == capacity + PAGE
    }
}

/// Idle buffers of one size. Taking never waits: who uses a pool bounds how many are out.
#[derive(Debug)]
pub struct Pool<B> {
    capacity: usize,
    idle_max: usize,
    idle: Mutex<Vec<B>>,
}

impl<B: Reused> Pool<B> {
    /// A pool of buffers with room for `capacity` bytes that keeps `idle_max` of them.
    pub fn new(capacity: usize, idle_max: usize) -> Arc<Self> {
        Arc::new(Self {
            capacity,
            idle_max,
            idle: Mutex::default(),
        })
    }

    /// An empty buffer with the pool's capacity.
    pub fn take(&self) -> B {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.unwrap_or_else(|| B::with_capacity(self.capacity))
    }

    /// Gives a buffer back, whatever it holds. One that grew is freed: the pool's memory stays what it was made for.
    pub fn give(&self, mut buffer: B) {
        let as_made = buffer.reset(self.capacity);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if as_made && idle.len() < self.idle_max {
            idle.push(buffer);
        }
    }

    /// The buffer's bytes, shared; it comes back when the last of them is dropped.
    pub fn share(self: &Arc<Self>, buffer: B) -> Bytes
    where
        B: 'static,
    {
        Bytes::from_owner(Shared {
            buffer,
            pool: Arc::clone(self),
        })
    }
}

struct Shared<B: Reused> {
    buffer: B,
    pool: Arc<Pool<B>>,
}

impl<B: Reused> AsRef<[u8]> for Shared<B> {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl<B: Reused> Drop for Shared<B> {
    fn drop(&mut self) {
        self.pool.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::{Aligned, PAGE, Pool, Reused};

    #[test]
    fn a_shared_buffer_comes_back_with_its_last_slice() {
        let pool = Pool::<Vec<u8>>::new(64, 2);
        let mut buffer = pool.take();
        buffer.extend_from_slice(b"pack");
        let place = buffer.as_ptr();
        let bytes = pool.share(buffer);
        let slice = bytes.slice(1..3);
        drop(bytes);
        let other = pool.take();
        assert_ne!(other.as_ptr(), place, "a slice of it is alive");
        drop(slice);
        let again = pool.take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (place, 0, 64));
    }

    #[test]
    fn grown_buffers_and_those_beyond_the_bound_are_freed() {
        let pool = Pool::<Vec<u8>>::new(64, 1);
        pool.give(Vec::with_capacity(65));
        pool.give(Vec::with_capacity(64));
        pool.give(Vec::with_capacity(64));
        assert_eq!(pool.idle.lock().unwrap().len(), 1);
        assert_eq!(pool.take().capacity(), 64);
    }

    #[test]
    fn aligned_buffers_start_with_a_page_each_time() {
        let pool = Pool::<Aligned>::new(100_000, 1);
        for round in 0..3 {
            let mut buffer = pool.take();
            assert!(buffer.is_empty());
            buffer.extend_from_slice(&[round; 100_000]);
            assert_eq!(buffer.as_ptr().align_offset(PAGE), 0);
            assert_eq!(buffer[99_999], round);
            pool.give(buffer);
            assert_eq!(pool.idle.lock().unwrap().len(), 1, "it did not grow");
        }
        let mut grown = pool.take();
        grown.resize(200_000);
        assert_eq!(grown.len(), 200_000);
        assert!(!grown.reset(100_000));
    }
}
