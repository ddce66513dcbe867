//! Writing files that hold secrets: their owner's alone, never over another, durable.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::Path;

/// Writes a new file of mode 0600, durable together with its name when this returns. One that exists is an error.
///
/// # Errors
/// What the system says; then there is no such file, if it could be removed again.
pub fn write(path: &Path, content: &str) -> io::Result<()> {
    write_for(path, content, None)
}

/// As [`write`], and gives it to this user and, where that is allowed, to this group.
pub(crate) fn write_for(path: &Path, content: &str, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    let written = own(&file, owner)
        .and_then(|()| file.write_all(content.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder_of(path));
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

fn own(file: &File, owner: Option<(u32, u32)>) -> io::Result<()> {
    let Some((uid, gid)) = owner else {
        return Ok(());
    };
    let now = file.metadata()?;
    if now.uid() != uid {
        fchown(file, Some(uid), Some(gid))?;
    } else if now.gid() != gid {
        // Nobody but the owner may read it, so the group is not worth failing for.
        let _ = fchown(file, None, Some(gid));
    }
    Ok(())
}

/// Makes a new name, or the end of one, survive a power cut.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
