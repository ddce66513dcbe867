//! `pg_service.conf` (PostgreSQL's manual, "The Connection Service File"; `parseServiceFile` in
//! src/interfaces/libpq/fe-connect.c): an ini file whose sections hold connection options.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::conninfo::ConnInfoError;

/// Where to look for a service, in libpq's order.
#[derive(Debug)]
pub(crate) struct ServiceFiles {
    /// `PGSERVICEFILE` or `~/.pg_service.conf`.
    pub personal: Option<PathBuf>,
    /// `pg_service.conf` in `PGSYSCONFDIR` or the places where distributions keep it.
    pub system: Vec<PathBuf>,
}

impl ServiceFiles {
    /// The options of a service as `name`, `value`, in the file's order.
    pub fn find(&self, service: &str) -> Result<Vec<(String, String)>, ConnInfoError> {
        let mut looked_in = Vec::new();
        for path in self.personal.iter().chain(&self.system) {
            looked_in.push(path.clone());
            let text = match fs::read(path) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let what = error.to_string();
                    return Err(ConnInfoError::ServiceFile {
                        path: path.clone(),
                        line: 0,
                        what,
                    });
                }
            };
            if let Some(options) = section(&text, service, path)? {
                return Ok(options);
            }
        }
        Err(ConnInfoError::ServiceNotFound {
            service: service.to_owned(),
            looked_in,
        })
    }
}

fn section(
    text: &str,
    service: &str,
    path: &Path,
) -> Result<Option<Vec<(String, String)>>, ConnInfoError> {
    let mut found: Option<Vec<(String, String)>> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if name.strip_suffix(']') == Some(service) {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(options) = &mut found else { continue };
        let problem = |what: &str| ConnInfoError::ServiceFile {
            path: path.to_owned(),
            line: index + 1,
            what: what.to_owned(),
        };
        let (name, value) = line.split_once('=').ok_or_else(|| problem("no \"=\""))?;
        let name = name.trim();
        if name == "service" || name == "servicefile" {
            return Err(problem("a service cannot refer to another"));
        }
        if name == "ldap" || name.starts_with("ldap:") {
            return Err(problem("looking up services in LDAP is not supported"));
        }
        options.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(found)
}
