//! Manual pages, completions, the configuration reference. A test of the `lifeboat` crate holds the
//! committed files against what these would write.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use lifeboat::reference;

type Done = Result<(), Box<dyn Error>>;

/// `docs/man/*.1`
pub fn man() -> Done {
    let pages = reference::man_pages().map_err(|failure| failure.fact)?;
    write_all(&docs().join("man"), &pages)
}

/// `docs/completions/*`
pub fn completions() -> Done {
    write_all(&docs().join("completions"), &reference::completions())
}

/// `docs/configuration.md`
pub fn config_reference() -> Done {
    let page = (
        "configuration.md".to_owned(),
        reference::configuration().into_bytes(),
    );
    write_all(&docs(), &[page])
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn write_all(folder: &Path, documents: &[reference::Document]) -> Done {
    fs::create_dir_all(folder)?;
    for (name, content) in documents {
        fs::write(folder.join(name), content)?;
        crate::say(&format!("wrote {}", folder.join(name).display()));
    }
    Ok(())
}
