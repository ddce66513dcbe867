//! A disk that is full soon.

use std::fs;

use super::processes::wait_for;
use super::{Run, Sandbox};

/// A small disk, mounted where nobody else sees it: in a mount namespace of its own, held open by a shell.
#[derive(Debug)]
pub struct SmallDisk {
    shell: std::process::Child,
}

impl SmallDisk {
    /// Mounts it as the sandbox's repository; from now on every command of the sandbox sees it.
    pub fn mount(sandbox: &mut Sandbox, size: &str) -> SmallDisk {
        fs::create_dir(sandbox.repository()).unwrap();
        // As root no user namespace: in one, root has no power over the folders of the server's user.
        let is_root = rustix::process::geteuid().is_root();
        let script = format!(
            "mount -t tmpfs -o size={size} tmpfs {0} && touch {0}.mounted && exec cat",
            sandbox.repository().display()
        );
        let mut command = sandbox.tool("unshare");
        command
            .arg(if is_root { "-m" } else { "-rm" })
            .args(["sh", "-c", &script]);
        command.stdin(std::process::Stdio::piped());
        let shell = command.spawn().unwrap();
        let flag = sandbox.root().join("repository.mounted");
        wait_for("the small disk", || flag.exists());
        let mut prefix = vec!["nsenter".to_owned(), "-m".to_owned()];
        if !is_root {
            prefix.extend(["-U".to_owned(), "--preserve-credentials".to_owned()]);
        }
        prefix.extend([
            format!("--wd={}", sandbox.work_dir().display()),
            "-t".to_owned(),
            shell.id().to_string(),
        ]);
        sandbox.prefix = prefix.into_iter().map(Into::into).collect();
        SmallDisk { shell }
    }

    /// Gives it another size.
    pub fn grow(&self, sandbox: &Sandbox, size: &str) {
        self.remount(sandbox, &format!("size={size}"));
    }

    /// Mounts it with other options.
    pub fn remount(&self, sandbox: &Sandbox, options: &str) {
        let mut command = sandbox.tool(&sandbox.prefix[0]);
        command
            .args(&sandbox.prefix[1..])
            .args(["mount", "-o"])
            .arg(format!("remount,{options}"));
        assert!(
            command
                .arg(sandbox.repository())
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Sandbox {
    /// Runs any program where the small disk is seen.
    pub fn inside(&self, words: &[&str]) -> Run {
        let mut all = self.prefix.clone();
        all.extend(words.iter().map(Into::into));
        let mut command = self.tool(&all[0]);
        command.args(&all[1..]);
        self.finish(command)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
