//! Dumps that other tools made: whole ones pass, broken ones are named for what they are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod archive_support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use archive_support::{fixture, run, sample, tool};
use lifeboat_pg::archive::{ArchiveError, Content};
use lifeboat_pg::dump_file::{DumpDefect, DumpFile, DumpFormat, InspectError, inspect};
use lifeboat_testkit::TestServer;

fn look(path: &Path) -> DumpFile {
    inspect(path, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

fn complete(path: &Path) -> DumpFile {
    let dump = look(path);
    if let Some(defect) = &dump.defect {
        panic!("{}: {defect}", path.display());
    }
    dump
}

fn defect(path: &Path) -> DumpDefect {
    look(path)
        .defect
        .unwrap_or_else(|| panic!("{} passes", path.display()))
}

fn gzip(path: &Path) -> PathBuf {
    let target = PathBuf::from(format!("{}.gz", path.display()));
    let mut out =
        flate2::write::GzEncoder::new(File::create(&target).unwrap(), flate2::Compression::fast());
    out.write_all(&fs::read(path).unwrap()).unwrap();
    out.finish().unwrap();
    target
}

fn zstd(path: &Path) -> PathBuf {
    let target = PathBuf::from(format!("{}.zst", path.display()));
    fs::write(
        &target,
        zstd::encode_all(File::open(path).unwrap(), 1).unwrap(),
    )
    .unwrap();
    target
}

fn lz4(path: &Path) -> PathBuf {
    let target = PathBuf::from(format!("{}.lz4", path.display()));
    let mut out = lz4_flex::frame::FrameEncoder::new(File::create(&target).unwrap());
    out.write_all(&fs::read(path).unwrap()).unwrap();
    out.finish().unwrap();
    target
}

/// A copy of a file without its last bytes.
fn cut(path: &Path, keep: usize) -> PathBuf {
    let target = path.with_file_name(format!("cut-{keep}"));
    fs::write(&target, &fs::read(path).unwrap()[..keep]).unwrap();
    target
}

#[test]
fn every_format_of_a_real_database_is_complete_and_told_apart() {
    let server = TestServer::shared();
    let database = sample(server);
    let folder = tempfile::tempdir().unwrap();
    let dump = |arguments: &[&str], name: &str| {
        let path = folder.path().join(name);
        run(tool(server, "pg_dump", database.name())
            .args(arguments)
            .arg("-f")
            .arg(&path));
        path
    };
    let cases = [
        (dump(&["-Fc"], "custom.dump"), DumpFormat::Custom),
        (dump(&["-Fc", "-Z0"], "custom0.dump"), DumpFormat::Custom),
        (dump(&["-Ft"], "sample.tar"), DumpFormat::Tar),
        (dump(&["-Fd"], "folder"), DumpFormat::Directory),
        (dump(&["-Fd", "-Z0"], "folder0"), DumpFormat::Directory),
        (
            dump(&["--create", "--verbose"], "plain.sql"),
            DumpFormat::Plain,
        ),
        (dump(&["-Z5"], "plain.sql.gz"), DumpFormat::Plain),
    ];
    let told = Command::new(tool(server, "pg_dump", database.name()).get_program())
        .arg("--version")
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    for (path, format) in &cases {
        let found = complete(path);
        assert_eq!(found.format, Some(*format), "{}", path.display());
        assert_eq!(found.tables, 12, "{}", path.display());
        assert_eq!(found.large_objects, 4, "{}", path.display());
        assert!(found.size_bytes > 0 && found.data_bytes > 0);
        let version = format!("{}.", server.major());
        assert!(found.server_version.unwrap().starts_with(&version));
        // Of a later major, where the server came without tools of its own.
        let version = found.pg_dump_version.unwrap();
        let number = version.split(' ').next().unwrap();
        assert!(
            told.split_whitespace().any(|word| word == number),
            "{version}"
        );
        if *format != DumpFormat::Plain || found.compressed_with.is_none() {
            assert_eq!(found.database.as_deref(), Some(database.name()));
            assert!(found.created.is_some());
        }
        if *format != DumpFormat::Plain {
            assert_eq!(found.data_bytes, 13742, "{}", path.display());
        }
    }

    for (path, _) in cases.iter().filter(|(path, _)| path.is_file()) {
        let plain = complete(path);
        if plain.compressed_with.is_none() {
            for (packed, name) in [
                (gzip(path), "gzip"),
                (zstd(path), "zstd"),
                (lz4(path), "lz4"),
            ] {
                let found = complete(&packed);
                assert_eq!(found.compressed_with, Some(name));
                assert_eq!(found.data_bytes, plain.data_bytes);
                let length = fs::metadata(&packed).unwrap().len();
                for keep in [length / 2, length - 1] {
                    let half = cut(&packed, usize::try_from(keep).unwrap());
                    assert!(
                        !look(&half).is_complete(),
                        "{} cut to {keep}",
                        packed.display()
                    );
                }
            }
        }
        // Cut anywhere, no format passes.
        let length = usize::try_from(fs::metadata(path).unwrap().len()).unwrap();
        // After a plain dump's end marker come lines that say nothing, and a tar file's padding.
        let needed = match plain.format {
            Some(DumpFormat::Plain) if plain.compressed_with.is_none() => length - 100,
            Some(DumpFormat::Tar) => length - 1024,
            _ => length - 1,
        };
        for keep in (0..needed).step_by(611).chain([needed]) {
            assert!(
                !look(&cut(path, keep)).is_complete(),
                "{} cut to {keep}",
                path.display()
            );
        }
    }
}

#[test]
fn a_cluster_dump_is_complete() {
    let server = TestServer::shared();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("all.sql");
    run(tool(server, "pg_dumpall", "postgres")
        .args(["--globals-only", "-f"])
        .arg(&path));
    assert_eq!(complete(&path).format, Some(DumpFormat::PlainCluster));
}

#[test]
fn a_folder_with_a_hole_names_the_file() {
    let server = TestServer::shared();
    let database = sample(server);
    let folder = tempfile::tempdir().unwrap();
    for level in ["-Z0", "-Z5"] {
        let path = folder.path().join(format!("dump{level}"));
        run(tool(server, "pg_dump", database.name())
            .args(["-Fd", level, "-f"])
            .arg(&path));
        complete(&path);
        let files: Vec<PathBuf> = fs::read_dir(&path)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        for file in &files {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let away = folder.path().join("away");
            fs::rename(file, &away).unwrap();
            match defect(&path) {
                DumpDefect::NoToc => assert_eq!(name, "toc.dat"),
                DumpDefect::MissingFile { name: told } => {
                    assert!(name.starts_with(&told), "{told}")
                }
                other => panic!("{name}: {other}"),
            }
            let bytes = fs::read(&away).unwrap();
            // A large object has no end of its own.
            let may_be_cut = level == "-Z0" && name.starts_with("blob");
            if !may_be_cut {
                fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
                match defect(&path) {
                    DumpDefect::DamagedFile { name: told, .. } => assert!(name.starts_with(&told)),
                    other => panic!("{name}: {other}"),
                }
            }
            fs::rename(&away, file).unwrap();
        }
        complete(&path);
    }
}

#[test]
fn what_is_no_dump_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path
    };
    assert!(matches!(defect(&file("empty", b"")), DumpDefect::Empty));
    assert!(matches!(defect(&file("empty.gz", &[])), DumpDefect::Empty));

    let message = b"\npg_dump: error: server version: 16.1; pg_dump version: 15.4\n".as_slice();
    match defect(&file("message", message)) {
        DumpDefect::NotADump {
            found: Content::OtherText,
            first_line: Some(line),
        } => {
            assert_eq!(
                line,
                "pg_dump: error: server version: 16.1; pg_dump version: 15.4"
            );
        }
        other => panic!("{other}"),
    }
    match defect(&file("noise", &[0, 1, 2, 3])) {
        DumpDefect::NotADump {
            found: Content::Unknown,
            first_line: None,
        } => {}
        other => panic!("{other}"),
    }

    // 812 bytes: what a dump that failed at once leaves behind.
    let heading = "--\n-- PostgreSQL database dump\n--\n\nSET statement_timeout = 0;\n";
    let short = format!("{heading}{}", " ".repeat(812 - heading.len()));
    assert!(matches!(
        defect(&file("short.sql", short.as_bytes())),
        DumpDefect::NoEndMarker
    ));
    let archive = fixture("pg15-z6");
    match defect(&file("short.dump", &archive[..812])) {
        DumpDefect::Archive(ArchiveError::Truncated { offset: 812, .. }) => {}
        other => panic!("{other}"),
    }

    let rows = format!("{heading}COPY public.\"T (x)\" (a) FROM stdin;\n1\n2\n");
    match defect(&file("rows.sql", rows.as_bytes())) {
        DumpDefect::InsideRows { table } => assert_eq!(table, "public.\"T"),
        other => panic!("{other}"),
    }
    let end = "\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
    let whole = format!("{rows}{end}");
    assert_eq!(complete(&file("whole.sql", whole.as_bytes())).tables, 1);
    let windows = whole.replace('\n', "\r\n");
    assert_eq!(complete(&file("windows.sql", windows.as_bytes())).tables, 1);
    let restricted = format!("{whole}\\unrestrict aGVsbG8\n\n");
    complete(&file("restricted.sql", restricted.as_bytes()));
    let twice = format!("{whole}SELECT 1;\n");
    assert!(matches!(
        defect(&file("twice.sql", twice.as_bytes())),
        DumpDefect::AfterEndMarker
    ));
    let fake = format!("{rows}--\n-- PostgreSQL database dump complete\n--\n");
    assert!(matches!(
        defect(&file("fake.sql", fake.as_bytes())),
        DumpDefect::InsideRows { .. }
    ));

    assert!(matches!(defect(folder.path()), DumpDefect::NoToc));
    let missing = inspect(
        &folder.path().join("nothing"),
        &AtomicBool::new(false),
        &mut |_| {},
    );
    assert!(matches!(missing, Err(InspectError::Open { .. })));
}

#[test]
fn names_that_lead_out_of_a_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let archive =
        lifeboat_pg::archive::Archive::read_toc(&mut fixture("pg18-z0").as_slice()).unwrap();
    for name in ["../secret", "/etc/passwd", "a/../../b", "."] {
        let mut hostile = archive.clone();
        for entry in hostile.entries.iter_mut().filter(|entry| entry.has_data()) {
            entry.data = lifeboat_pg::archive::DataRef::File(name.into());
        }
        hostile
            .write_directory_toc(&mut File::create(folder.path().join("toc.dat")).unwrap())
            .unwrap();
        match defect(folder.path()) {
            DumpDefect::DamagedFile { name: told, .. } => assert_eq!(told, name),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn an_interrupt_stops_the_reading() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sample.dump");
    fs::write(&path, fixture("pg18-z0")).unwrap();
    let interrupt = AtomicBool::new(true);
    let stopped = inspect(&path, &interrupt, &mut |_| {});
    assert!(matches!(stopped, Err(InspectError::Interrupted)));

    let mut read = 0;
    inspect(&path, &AtomicBool::new(false), &mut |bytes| read = bytes).unwrap();
    assert_eq!(read, fs::metadata(&path).unwrap().len());
}

#[test]
fn a_dump_made_by_a_shell_pipe_is_complete() {
    let server = TestServer::shared();
    let database = sample(server);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.dump");
    let script = format!(
        "'{}' -Fc > '{}'",
        server.bin_dir().join("pg_dump").display(),
        path.display()
    );
    run(Command::new("sh")
        .args(["-c", &script])
        .envs(server.tool_env(database.name())));
    assert_eq!(complete(&path).tables, 12);
}

#[test]
fn folders_with_every_compression_are_complete() {
    let server = TestServer::shared();
    let database = sample(server);
    let folder = tempfile::tempdir().unwrap();
    let stock = folder.path().join("stock");
    run(tool(server, "pg_dump", database.name())
        .args(["-Fd", "-Z0", "-f"])
        .arg(&stock));
    for (pack, suffix) in [
        (gzip as fn(&Path) -> PathBuf, "gz"),
        (lz4, "lz4"),
        (zstd, "zst"),
    ] {
        let target = folder.path().join(suffix);
        fs::create_dir(&target).unwrap();
        for file in fs::read_dir(&stock)
            .unwrap()
            .map(|file| file.unwrap().path())
        {
            let copy = target.join(file.file_name().unwrap());
            fs::copy(&file, &copy).unwrap();
            let packed = pack(&copy);
            fs::remove_file(&copy).unwrap();
            // As pg_dump has it with LZ4 and zstd, for large objects without content.
            if suffix != "gz" && fs::metadata(&file).unwrap().len() == 0 {
                fs::write(packed, b"").unwrap();
            }
        }
        assert_eq!(complete(&target).data_bytes, 13742, "{suffix}");
    }
}
