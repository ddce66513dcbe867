//! A disk whose power is cut: an ext4 in a file, which forgets on command whatever was not synced.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Sandbox;

/// What the disk still does when the power goes (`EXT4_IOC_SHUTDOWN`'s flags).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its journal is written, unsynced data is not: names survive, contents may not.
    JournalWritten = 1,
    /// Nothing more is written.
    AtOnce = 2,
}

/// A disk that holds a sandbox's repository.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
}

/// Whether this user may mount one: root, on a machine with loop devices.
pub fn can_cut_power() -> bool {
    rustix::process::geteuid().is_root() && fs::exists("/dev/loop-control").unwrap_or(false)
}

impl Disk {
    /// A new disk, mounted where the sandbox's repository will be.
    pub fn new(sandbox: &Sandbox) -> Disk {
        let disk = Disk {
            image: sandbox.root().join("disk.ext4"),
            mount_point: sandbox.repository(),
        };
        fs::create_dir(&disk.mount_point).unwrap();
        let file = fs::File::create(&disk.image).unwrap();
        file.set_len(192 << 20).unwrap();
        done(
            Command::new("mkfs.ext4")
                .args(["-q", "-F"])
                .arg(&disk.image),
        );
        disk.mount();
        disk
    }

    fn mount(&self) {
        let (image, at) = (&self.image, &self.mount_point);
        done(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(image)
                .arg(at),
        );
    }

    fn unmount(&self) {
        done(Command::new("umount").arg(&self.mount_point));
    }

    /// Keeps what is on the disk, to come back to it.
    pub fn keep(&self) -> PathBuf {
        self.unmount();
        let kept = self.image.with_extension("kept");
        self.copy(&self.image, &kept);
        self.mount();
        kept
    }

    /// Goes back to what was kept.
    pub fn go_back(&self, kept: &PathBuf) {
        self.unmount();
        self.copy(kept, &self.image.clone());
        self.mount();
    }

    fn copy(&self, from: &PathBuf, to: &PathBuf) {
        done(Command::new("cp").arg("--sparse=always").arg(from).arg(to));
    }

    /// Cuts the power, and brings it back.
    pub fn cut(&self, how: Cut) {
        // perl is part of every Debian; an ioctl from here would be the only unsafe line of the project.
        let script = "open(my $f, '<', $ARGV[0]) or die $!; \
                      ioctl($f, 0x8004587d, pack('L', $ARGV[1])) or die $!";
        let flags: OsString = (how as u32).to_string().into();
        done(
            Command::new("perl")
                .args(["-e", script])
                .arg(&self.mount_point)
                .arg(flags),
        );
        self.unmount();
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(&self.mount_point)
            .stderr(Stdio::null())
            .status();
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {words}");
}
