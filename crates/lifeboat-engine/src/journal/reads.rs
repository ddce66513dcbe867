//! Which packs were read whole, where, and when.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};

use super::{Journal, JournalError, count, time, whole};

/// A pack that was read to its end and found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRead {
    /// The pack's ID.
    pub pack: [u8; 32],
    /// Its size in bytes then.
    pub size_bytes: u64,
    /// When its file was stored, as the storage said then.
    pub modified: Option<Timestamp>,
    /// When it was read.
    pub at: Timestamp,
}

impl Journal {
    /// The last time each pack of a repository was read. A copy of a repository has its ID and lies elsewhere, on
    /// another disk: so what was read counts for one `location`.
    pub fn packs_read(
        &self,
        repository: &str,
        location: &str,
    ) -> Result<HashMap<[u8; 32], PackRead>, JournalError> {
        let connection = self.connection();
        let Some(place) = find(&connection, repository, location)? else {
            return Ok(HashMap::new());
        };
        let mut query = connection.prepare(
            "SELECT pack, size_bytes, modified_ms, read_ms FROM pack_read WHERE place = ?1",
        )?;
        let rows = query.query_map([place], |row| {
            Ok(PackRead {
                pack: row.get(0)?,
                size_bytes: count(row.get(1)?),
                modified: row.get::<_, Option<i64>>(2)?.map(time).transpose()?,
                at: time(row.get(3)?)?,
            })
        })?;
        rows.map(|row| {
            row.map(|read| (read.pack, read))
                .map_err(JournalError::from)
        })
        .collect()
    }

    /// Notes that packs were read.
    pub fn record_packs_read(
        &self,
        repository: &str,
        location: &str,
        reads: &[PackRead],
    ) -> Result<(), JournalError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        transaction.execute(
            "INSERT INTO place (repository, location) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![repository, location],
        )?;
        if let Some(place) = find(&transaction, repository, location)? {
            let mut insert = transaction.prepare(
                "INSERT OR REPLACE INTO pack_read (place, pack, size_bytes, modified_ms, read_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for read in reads {
                insert.execute(params![
                    place,
                    read.pack,
                    whole(read.size_bytes),
                    read.modified.map(Timestamp::as_millisecond),
                    read.at.as_millisecond(),
                ])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Forgets packs: they are gone, or turned out to be damaged.
    pub fn forget_packs_read(
        &self,
        repository: &str,
        location: &str,
        packs: &[[u8; 32]],
    ) -> Result<(), JournalError> {
        let mut connection = self.connection();
        let transaction = connection.transaction()?;
        if let Some(place) = find(&transaction, repository, location)? {
            let mut delete =
                transaction.prepare("DELETE FROM pack_read WHERE place = ?1 AND pack = ?2")?;
            for pack in packs {
                delete.execute(params![place, pack])?;
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

fn find(
    connection: &Connection,
    repository: &str,
    location: &str,
) -> Result<Option<i64>, JournalError> {
    let place = connection
        .query_row(
            "SELECT id FROM place WHERE repository = ?1 AND location = ?2",
            params![repository, location],
            |row| row.get(0),
        )
        .optional()?;
    Ok(place)
}
