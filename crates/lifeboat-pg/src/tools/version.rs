//! What a program says its version is.

use std::fmt;
use std::io::Read as _;
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::error::ToolError;
use super::{Tool, command};

/// A container engine may take seconds to start a command; a program that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// More than any version line; what comes after is nobody's business.
const MAX_ANSWER_BYTES: u64 = 4096;

/// A program's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolVersion {
    /// 15 of 15.18.
    pub major: u32,
    /// 18 of 15.18; 0 for betas and the like.
    pub minor: u32,
    /// As written: `15.18`, `18beta1`.
    pub text: String,
}

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl ToolVersion {
    /// Reads `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    pub(super) fn parse(line: &str) -> Option<ToolVersion> {
        let (_, after) = line.split_once("(PostgreSQL) ")?;
        let text = after.split_whitespace().next()?;
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (major, rest) = text.split_at(digits);
        let minor = rest.strip_prefix('.').and_then(|minor| minor.parse().ok());
        Some(ToolVersion {
            major: major.parse().ok()?,
            minor: minor.unwrap_or(0),
            text: text.to_owned(),
        })
    }
}

pub(super) fn ask(words: &[String], tool: Tool) -> Result<ToolVersion, ToolError> {
    let failed = |reason: String| ToolError::Failed {
        command: format!("{} --version", words.join(" ")),
        reason,
    };
    let mut child = command(words)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let (answer, complaint) = listen(&mut child, &failed)?;
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if !status.success() {
        let complaint = complaint.lines().find(|line| !line.trim().is_empty());
        return Err(failed(
            complaint.map_or_else(|| status.to_string(), |line| line.trim().to_owned()),
        ));
    }
    let line = answer.lines().next().unwrap_or_default();
    ToolVersion::parse(line)
        .filter(|_| line.starts_with(tool.name()))
        .ok_or_else(|| failed(format!("it answered {line:?}")))
}

/// Both outputs to their end, or to the end of our patience.
fn listen(
    child: &mut Child,
    failed: &dyn Fn(String) -> ToolError,
) -> Result<(String, String), ToolError> {
    let (sender, receiver) = mpsc::channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        let read = |stream: Option<&mut dyn std::io::Read>| {
            let mut bytes = Vec::new();
            if let Some(stream) = stream {
                let _ = stream.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes);
            }
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (mut stdout, mut stderr) = (stdout, stderr);
        let answer = read(
            stdout
                .as_mut()
                .map(|stream| stream as &mut dyn std::io::Read),
        );
        let complaint = read(
            stderr
                .as_mut()
                .map(|stream| stream as &mut dyn std::io::Read),
        );
        let _ = sender.send((answer, complaint));
    });
    receiver.recv_timeout(PATIENCE).map_err(|_| {
        let _ = child.kill();
        let _ = child.wait();
        failed(format!("no answer within {} s", PATIENCE.as_secs()))
    })
}
