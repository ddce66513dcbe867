//! Tables of contents: from a running pg_dump, into a directory that stock pg_restore takes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod archive_support;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::Stdio;

use archive_support::{listing, plain_dump, run, sample, tool};
use lifeboat_pg::archive::{Archive, ArchiveFormat, DataRef, Section};
use lifeboat_testkit::TestServer;

/// The table of contents of a database, taken from a pipe as backups do it.
fn toc_from_pipe(server: &TestServer, database: &str) -> Archive {
    let mut pg_dump = tool(server, "pg_dump", database)
        .args(["-Fc", "-Z0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let archive = Archive::read_toc(&mut BufReader::new(pg_dump.stdout.take().unwrap()));
    pg_dump.kill().unwrap();
    pg_dump.wait().unwrap();
    archive.unwrap()
}

/// Writes `archive` as a directory dump whose data is taken from pg_dump's own.
fn write_directory(archive: &Archive, stock: &Path, folder: &Path) {
    fs::create_dir(folder).unwrap();
    archive
        .write_directory_toc(&mut File::create(folder.join("toc.dat")).unwrap())
        .unwrap();
    let stock_archive = Archive::read_toc(&mut BufReader::new(
        File::open(stock.join("toc.dat")).unwrap(),
    ))
    .unwrap();
    for entry in archive.data_entries() {
        let twin = stock_archive
            .data_entries()
            .find(|twin| twin.tag == entry.tag && twin.namespace == entry.namespace)
            .unwrap();
        let target = folder.join(archive.data_file(entry).unwrap());
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(stock.join(stock_archive.data_file(twin).unwrap()), target).unwrap();
    }
    for file in fs::read_dir(stock).unwrap().map(Result::unwrap) {
        if file.file_name().to_str().unwrap().starts_with("blob_") {
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
    }
}

#[test]
fn a_toc_from_a_pipe_becomes_a_directory_that_pg_restore_lists_and_restores() {
    let server = TestServer::shared();
    let database = sample(server);
    let folder = tempfile::tempdir().unwrap();
    let stock = folder.path().join("stock");
    run(tool(server, "pg_dump", database.name())
        .args(["-Fd", "-Z0", "-f"])
        .arg(&stock));

    let archive = toc_from_pipe(server, database.name());
    let ours = folder.path().join("ours");
    write_directory(&archive, &stock, &ours);
    assert_eq!(listing(server, &ours), listing(server, &stock));

    for jobs in ["1", "2"] {
        let restored = server.database("restored");
        run(tool(server, "pg_restore", restored.name())
            .args(["-Fd", "-e", "-j", jobs, "-d", restored.name()])
            .arg(&ours));
        assert_eq!(plain_dump(&restored), plain_dump(&database));
    }
}

#[test]
fn the_facts_of_a_sample_are_read() {
    let server = TestServer::shared();
    let database = sample(server);
    let archive = toc_from_pipe(server, database.name());

    assert_eq!(archive.header.format, ArchiveFormat::Custom);
    assert_eq!(archive.header.database.as_ref().unwrap(), database.name());
    assert_eq!(archive.header.server_major(), Some(server.major()));
    // In the matrix of majors an older server is dumped by a newer pg_dump.
    assert!(archive.header.pg_dump_major() >= Some(server.major()));
    assert!(archive.header.created.to_civil().is_some());

    let copies: Vec<String> = archive
        .entries
        .iter()
        .filter_map(|entry| entry.copy_columns().unwrap())
        .map(|target| target.copy_to())
        .collect();
    for copy in [
        "COPY app.users (id, mail, mood, ticket) TO STDOUT",
        "COPY \"Odd.Schema\".\"Täble \"\" with, (everything) %_*?\" \
         (\"a \"\"b\"\", c\", \"größe\", \"select\") TO STDOUT",
        "COPY public.bare TO STDOUT",
    ] {
        assert!(
            copies.iter().any(|have| have == copy),
            "{copy} in {copies:#?}"
        );
    }
    for entry in archive
        .entries
        .iter()
        .filter(|entry| entry.is("TABLE DATA"))
    {
        assert_eq!(entry.section, Section::Data);
        assert_eq!(entry.data, DataRef::Unplaced);
        assert!(entry.had_dumper);
    }
}
