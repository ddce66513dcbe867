//! Where programs may lie.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where distributions keep each version's programs.
pub(super) const USUAL: [&str; 13] = [
    "/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
    "/usr/pgsql-*/bin",                   // PGDG on Red Hat and its kin
    "/usr/lib/postgresql*/bin",           // openSUSE
    "/usr/libexec/postgresql*",           // Alpine
    "/usr/lib64/postgresql-*/bin",        // Gentoo
    "/opt/pgsql-*/bin",                   // Arch, old versions
    "/usr/local/pgsql/bin",               // from source
    "/usr/local/lib/postgresql/bin",      // the containers' Alpine flavour
    "/opt/homebrew/opt/postgresql@*/bin", // Homebrew
    "/opt/homebrew/opt/libpq/bin",
    "/usr/local/opt/postgresql@*/bin", // Homebrew on Intel
    "/usr/local/opt/libpq/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// All folders that exist, each once, in the order of the patterns and then of `PATH`.
pub(super) fn folders(patterns: &[String], path: Option<&OsStr>) -> Vec<PathBuf> {
    let from_path = path
        .map(|path| std::env::split_paths(path).collect::<Vec<_>>())
        .unwrap_or_default();
    let mut seen = Vec::new();
    let mut folders = Vec::new();
    for folder in patterns
        .iter()
        .flat_map(|pattern| expand(pattern))
        .chain(from_path)
    {
        // Only absolute ones: a program in the current folder is nobody's choice.
        let Ok(real) = folder.canonicalize() else {
            continue;
        };
        if folder.is_absolute() && real.is_dir() && !seen.contains(&real) {
            seen.push(real);
            folders.push(folder);
        }
    }
    folders
}

fn expand(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = found
            .iter()
            .flat_map(|folder| children(folder, part))
            .collect();
    }
    found
}

fn children(folder: &Path, part: &str) -> Vec<PathBuf> {
    let Some((before, after)) = part.split_once('*') else {
        return vec![folder.join(part)];
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let fits = |name: &str| {
        name.len() >= before.len() + after.len()
            && name.starts_with(before)
            && name.ends_with(after)
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| fits(name))
        .collect();
    names.sort();
    names.iter().map(|name| folder.join(name)).collect()
}

/// Whether this is a program that can be trusted to be of one version. Debian's `/usr/bin/pg_dump` is
/// a wrapper that picks a version by rules and variables of its own.
pub(super) fn is_program(path: &Path) -> bool {
    let Ok(real) = path.canonicalize() else {
        return false;
    };
    let wrapper = real.file_name().is_some_and(|name| name == "pg_wrapper");
    let runnable = fs::metadata(&real)
        .is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0);
    runnable && !wrapper
}
