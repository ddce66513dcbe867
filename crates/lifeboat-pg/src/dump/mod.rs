//! Taking a logical dump: one snapshot, stock pg_dump for the table of contents, our own parallel COPY for
//! the rows.
//!
//! The room owns the way from a connection string to bytes of data files, in units that several workers
//! share out. It refuses to know where the bytes go. Invariants: every table is locked before the snapshot
//! is taken; everything is read in that one snapshot; a unit is either whole or an error; and a dump whose
//! leader did not live to the end is not one.

mod entry;
mod error;
mod globals;
mod large_objects;
mod leader;
mod plan;
mod session;
pub(crate) mod settings;
mod tables;
mod toc;
pub(crate) mod worker;

pub use entry::{DumpEntry, EntryKind};
pub use error::{CopyFailure, DumpError, LockHolder};
pub use globals::Globals;
pub(crate) use large_objects::read as read_large_objects;
pub use large_objects::row as large_object_row;
pub use leader::SnapshotInfo;
pub use plan::{DumpUnit, RowRange, UnitWork, copy_to_sql};
pub use session::{DumpOptions, DumpSession};
pub use tables::{TableFacts, TableKind, TableName, Tables};
pub use worker::{DumpWorker, UnitResult};
