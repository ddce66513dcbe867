//! Planner statistics, gathered by several sessions at once.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use lifeboat_pg::wire::Connection;

use super::plan::RestorePlan;
use super::sessions::{lock, run_threads};
use super::{RestoreError, RestoreRequest};

/// What a bare `ANALYZE` would visit, the longest work first. Partitions are left out: analyzing the table at
/// their root visits them. The catalogs are in, since the restore filled them too.
const TABLES: &str = "\
    SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) AS name \
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'm', 'p') AND c.relpersistence <> 't' AND NOT c.relispartition \
     ORDER BY c.relkind = 'p' DESC, pg_catalog.pg_relation_size(c.oid) DESC";

/// `pg_restore` leaves no statistics, and the first hour after a disaster is no time for bad plans.
pub(super) fn analyze(plan: &RestorePlan, request: &RestoreRequest) -> Result<(), RestoreError> {
    let options = request.connect_options();
    let connect = || Connection::connect(&plan.target.conninfo, &options);
    let rows = connect()?.query(TABLES)?;
    let tables = rows.iter().map(|row| row.value("name").map(str::to_owned));
    let tables: Vec<String> = tables.collect::<Result<_, _>>()?;
    let queue = Mutex::new(tables.iter());
    run_threads(request, tables.len(), |stop| {
        let mut connection = connect()?;
        while !stop.load(Ordering::Acquire) {
            let Some(table) = lock(&queue).next() else {
                break;
            };
            connection.execute(&format!("ANALYZE {table}"))?;
        }
        Ok(())
    })
}
