//! The smallest machine that notices anything: counters by key, and a chain of all commands.

use std::collections::BTreeMap;

use super::subject::hash;
use super::{Subject, subject};
use crate::raft::{Applied, Machine};
use crate::seeded::Random;
use crate::store::{Row, RowChange};

const COUNTERS: u8 = 0;
const CHAIN: u8 = 1;

/// Counters by key. A command is a key and a number.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Register {
    counters: BTreeMap<u8, u64>,
    chain: u64,
}

/// Bytes that are no command or row of a [`Register`].
#[derive(Debug, thiserror::Error)]
#[error("that is not of a register")]
pub(crate) struct NotOurs;

impl Machine for Register {
    type Reply = u64;
    type Error = NotOurs;

    fn apply(&mut self, index: u64, entry: &[u8]) -> Result<Applied<u64>, NotOurs> {
        let [key, _number @ ..] = entry else {
            return Err(NotOurs);
        };
        if entry.len() != 9 {
            return Err(NotOurs);
        }
        let counter = self.counters.entry(*key).or_default();
        *counter += 1;
        // Sometimes a row goes, so that removals are exercised.
        let value = if counter.is_multiple_of(7) {
            self.counters.remove(key);
            None
        } else {
            Some(counter.to_le_bytes().to_vec())
        };
        let bytes = [&self.chain.to_le_bytes()[..], &index.to_le_bytes(), entry].concat();
        self.chain = subject::hash(&bytes);
        let row = |table, key: &[u8], value| RowChange {
            table,
            key: key.to_vec(),
            value,
        };
        Ok(Applied {
            reply: self.chain,
            rows: vec![
                row(COUNTERS, &[*key], value),
                row(CHAIN, b"", Some(self.chain.to_le_bytes().to_vec())),
            ],
        })
    }

    fn load(rows: &mut dyn Iterator<Item = Row>) -> Result<Self, NotOurs> {
        let mut register = Self::default();
        for row in rows {
            let value = u64::from_le_bytes(row.value.try_into().map_err(|_| NotOurs)?);
            match (row.table, &row.key[..]) {
                (COUNTERS, [key]) => drop(register.counters.insert(*key, value)),
                (CHAIN, []) => register.chain = value,
                _ => return Err(NotOurs),
            }
        }
        Ok(register)
    }
}

impl Subject for Register {
    fn command(random: &mut Random, number: u64) -> Vec<u8> {
        let key = random.below(20) as u8;
        [&[key][..], &number.to_le_bytes()].concat()
    }

    fn digest(&self) -> u64 {
        let counters: Vec<u8> = self
            .counters
            .iter()
            .flat_map(|(key, count)| [&[*key][..], &count.to_le_bytes()].concat())
            .collect();
        hash(&[&self.chain.to_le_bytes()[..], &counters].concat())
    }
}
