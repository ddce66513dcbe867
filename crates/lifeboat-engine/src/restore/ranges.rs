//! Which worker loads what: a table's file cut into byte ranges, handed out so that workers meet as late as
//! possible.
//!
//! Two sessions that load the same table extend the same file and mix its rows, which costs lock waits and the
//! physical order that the source had. So a free worker first takes the table with the fewest workers on
//! it, among those the one with the most bytes left: big tables start first, and ranges of one table are
//! shared only once there are fewer tables than workers.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A piece of one table's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// The table, by its place in the list given to [`RangeQueue::new`].
    pub table: usize,
    /// The bytes. Rows belong to the range in which they begin.
    pub bytes: Range<u64>,
}

#[derive(Debug)]
struct Table {
    pending: VecDeque<Range<u64>>,
    pending_bytes: u64,
    workers: usize,
}

/// The pieces that are still to be loaded.
#[derive(Debug)]
pub(crate) struct RangeQueue {
    tables: Mutex<Vec<Table>>,
}

impl RangeQueue {
    /// Cuts tables of these sizes into ranges of `range_bytes`.
    pub(crate) fn new(sizes: &[u64], range_bytes: u64) -> Self {
        let range_bytes = range_bytes.max(1);
        let tables = sizes
            .iter()
            .map(|&size| {
                let count = size.div_ceil(range_bytes).max(1);
                let pending = (0..count)
                    .map(|n| n * range_bytes..(n + 1).saturating_mul(range_bytes).min(size))
                    .collect();
                Table {
                    pending,
                    pending_bytes: size,
                    workers: 0,
                }
            })
            .collect();
        Self {
            tables: Mutex::new(tables),
        }
    }

    /// How many pieces are still to be handed out.
    pub(crate) fn len(&self) -> usize {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        tables.iter().map(|table| table.pending.len()).sum()
    }

    /// The next piece, and a worker counted on its table until [`done`](Self::done).
    pub(crate) fn take(&self) -> Option<Piece> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let (table, chosen) = tables
            .iter_mut()
            .enumerate()
            .filter(|(_, table)| !table.pending.is_empty())
            .min_by_key(|(_, table)| (table.workers, std::cmp::Reverse(table.pending_bytes)))?;
        let bytes = chosen.pending.pop_front()?;
        chosen.pending_bytes -= bytes.end - bytes.start;
        chosen.workers += 1;
        Some(Piece { table, bytes })
    }

    /// Says that a piece was loaded; true when it was the last of its table.
    pub(crate) fn done(&self, piece: &Piece) -> bool {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(table) = tables.get_mut(piece.table) else {
            return false;
        };
        table.workers = table.workers.saturating_sub(1);
        table.workers == 0 && table.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_handed_out_once_and_in_order() {
        let queue = RangeQueue::new(&[10, 0, 25], 10);
        assert_eq!(queue.len(), 5);
        let mut seen = vec![Vec::new(); 3];
        while let Some(piece) = queue.take() {
            seen[piece.table].push(piece.bytes.clone());
            queue.done(&piece);
        }
        assert_eq!(seen[0], vec![0..10]);
        assert_eq!(seen[1], vec![0..0]);
        assert_eq!(seen[2], vec![0..10, 10..20, 20..25]);
    }

    #[test]
    fn workers_share_a_table_only_when_no_other_is_left() {
        let queue = RangeQueue::new(&[30, 40], 10);
        let first = queue.take();
        let second = queue.take();
        assert_eq!(first.map(|piece| piece.table), Some(1));
        assert_eq!(second.map(|piece| piece.table), Some(0));
    }
}
