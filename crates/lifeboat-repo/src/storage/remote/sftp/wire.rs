//! The packets of SFTP, version 3 (draft-ietf-secsh-filexfer-02), and OpenSSH's extensions to it (its file
//! PROTOCOL): the version that every server speaks.

use crate::storage::StorageErrorKind;
use crate::storage::remote::attempt::{Failed, MOST_OF_A_LINE, printable};

pub(super) const VERSION: u32 = 3;

/// The largest packet that is believed; servers keep theirs below 256 KiB.
pub(super) const LARGEST_PACKET_BYTES: usize = 1 << 20;

/// What one read or write carries. Every server has to take 32 KiB.
pub(super) const PIECE_BYTES: usize = 32 << 10;

pub(super) const FSYNC: &str = "fsync@openssh.com";
pub(super) const STATVFS: &str = "statvfs@openssh.com";

const INIT: u8 = 1;
const VERSION_REPLY: u8 = 2;
const STATUS: u8 = 101;
const HANDLE: u8 = 102;
const DATA: u8 = 103;
const NAME: u8 = 104;
const ATTRIBUTES: u8 = 105;
const EXTENDED_REPLY: u8 = 201;

/// How a file is opened: `SSH_FXF_…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    Read,
    /// Makes a new file, 0600.
    New,
}

/// A request, of which the number is put in when it is sent.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    code: u8,
    body: Vec<u8>,
}

impl Packet {
    fn new(code: u8) -> Self {
        Self {
            code,
            body: Vec::new(),
        }
    }

    fn text(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        // Paths and pieces: far below 4 GiB.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by its callers")]
        self.body
            .extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.body.extend_from_slice(bytes);
        self
    }

    fn number(mut self, number: u32) -> Self {
        self.body.extend_from_slice(&number.to_be_bytes());
        self
    }

    fn offset(mut self, offset: u64) -> Self {
        self.body.extend_from_slice(&offset.to_be_bytes());
        self
    }

    /// Attributes that say only the permissions.
    fn mode(self, mode: u32) -> Self {
        self.number(4).number(mode)
    }

    pub(super) fn open(path: &str, how: Open) -> Self {
        let packet = Self::new(3).text(path);
        match how {
            Open::Read => packet.number(0x01).number(0),
            Open::New => packet.number(0x02 | 0x08 | 0x20).mode(0o600),
        }
    }

    pub(super) fn close(handle: &[u8]) -> Self {
        Self::new(4).text(handle)
    }

    pub(super) fn read(handle: &[u8], offset: u64, length: usize) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "at most PIECE_BYTES")]
        Self::new(5)
            .text(handle)
            .offset(offset)
            .number(length as u32)
    }

    pub(super) fn write(handle: &[u8], offset: u64, piece: &[u8]) -> Self {
        Self::new(6).text(handle).offset(offset).text(piece)
    }

    pub(super) fn handle_status(handle: &[u8]) -> Self {
        Self::new(8).text(handle)
    }

    pub(super) fn open_folder(path: &str) -> Self {
        Self::new(11).text(path)
    }

    pub(super) fn read_folder(handle: &[u8]) -> Self {
        Self::new(12).text(handle)
    }

    pub(super) fn remove(path: &str) -> Self {
        Self::new(13).text(path)
    }

    pub(super) fn make_folder(path: &str) -> Self {
        Self::new(14).text(path).mode(0o700)
    }

    pub(super) fn status(path: &str) -> Self {
        Self::new(17).text(path)
    }

    /// Renames. In version 3 that never replaces: OpenSSH's server links and unlinks.
    pub(super) fn rename(from: &str, to: &str) -> Self {
        Self::new(18).text(from).text(to)
    }

    pub(super) fn fsync(handle: &[u8]) -> Self {
        Self::new(200).text(FSYNC).text(handle)
    }

    pub(super) fn free_space(path: &str) -> Self {
        Self::new(200).text(STATVFS).text(path)
    }

    /// Appends the packet as it goes over the wire.
    pub(super) fn send(&self, id: u32, out: &mut Vec<u8>) {
        #[expect(clippy::cast_possible_truncation, reason = "a piece and a path")]
        out.extend_from_slice(&(self.body.len() as u32 + 5).to_be_bytes());
        out.push(self.code);
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&self.body);
    }
}

/// The first packet, the only one without a number.
pub(super) fn hello(out: &mut Vec<u8>) {
    out.extend_from_slice(&5_u32.to_be_bytes());
    out.push(INIT);
    out.extend_from_slice(&VERSION.to_be_bytes());
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) mode: Option<u32>,
    /// Seconds since 1970.
    pub(super) modified: Option<u32>,
}

impl Attributes {
    /// The `S_IFMT` bits, where the server tells them.
    fn is_type(self, wanted: u32) -> Option<bool> {
        self.mode.map(|mode| mode & 0o170_000 == wanted)
    }

    pub(super) fn is_file(self) -> bool {
        self.is_type(0o100_000).unwrap_or(true)
    }

    pub(super) fn is_folder(self) -> bool {
        self.is_type(0o040_000).unwrap_or(true)
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// `SSH_FX_…`, and what the server says to it.
    Status(u32, String),
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<(String, Attributes)>),
    Attributes(Attributes),
    Extended(Vec<u8>),
}

/// `SSH_FX_…`
pub(super) mod code {
    pub(in super::super) const OK: u32 = 0;
    pub(in super::super) const EOF: u32 = 1;
    pub(in super::super) const NO_SUCH_FILE: u32 = 2;
    pub(in super::super) const PERMISSION_DENIED: u32 = 3;
}

impl Reply {
    /// The failure that an unexpected answer is.
    pub(super) fn failed(self) -> Failed {
        let Self::Status(status, message) = self else {
            return Failed::for_good(
                StorageErrorKind::Other,
                "the SFTP server answered something else than it was asked",
            );
        };
        let message = printable(&message, MOST_OF_A_LINE);
        match status {
            code::NO_SUCH_FILE => Failed::not_found(),
            code::PERMISSION_DENIED => Failed::for_good(
                StorageErrorKind::PermissionDenied,
                format!("the SFTP server says: {message}"),
            ),
            // NO_CONNECTION and CONNECTION_LOST
            6 | 7 => Failed::for_now(
                StorageErrorKind::Unreachable,
                format!("the SFTP server says: {message}"),
            ),
            status => Failed::for_good(
                StorageErrorKind::Other,
                format!("the SFTP server says: {message} ({status})"),
            ),
        }
    }

    pub(super) fn ok(self) -> Result<(), Failed> {
        match self {
            Self::Status(code::OK, _) => Ok(()),
            other => Err(other.failed()),
        }
    }

    pub(super) fn handle(self) -> Result<Vec<u8>, Failed> {
        match self {
            Self::Handle(handle) => Ok(handle),
            other => Err(other.failed()),
        }
    }

    pub(super) fn attributes(self) -> Result<Attributes, Failed> {
        match self {
            Self::Attributes(attributes) => Ok(attributes),
            other => Err(other.failed()),
        }
    }
}

/// What a packet says: its number and the answer; or the version, which has no number, and the extensions.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received {
    Version(u32, Vec<String>),
    Reply(u32, Reply),
}

/// Reads a packet without its length. `None` when it is none.
pub(super) fn parse(packet: &[u8]) -> Option<Received> {
    let mut rest = Rest(packet);
    let kind = rest.byte()?;
    if kind == VERSION_REPLY {
        let version = rest.number()?;
        let mut extensions = Vec::new();
        while let Some(name) = rest.text() {
            let _value = rest.text()?;
            extensions.push(String::from_utf8_lossy(name).into_owned());
        }
        return Some(Received::Version(version, extensions));
    }
    let id = rest.number()?;
    let reply = match kind {
        STATUS => {
            let status = rest.number()?;
            // Servers of version 2 end here.
            let message = rest.text().unwrap_or_default();
            Reply::Status(status, String::from_utf8_lossy(message).into_owned())
        }
        HANDLE => Reply::Handle(rest.text()?.to_vec()),
        DATA => Reply::Data(rest.text()?.to_vec()),
        NAME => {
            let count = rest.number()?;
            let mut names = Vec::new();
            for _ in 0..count {
                let name = String::from_utf8_lossy(rest.text()?).into_owned();
                let _as_ls_would_print_it = rest.text()?;
                names.push((name, rest.attributes()?));
            }
            Reply::Names(names)
        }
        ATTRIBUTES => Reply::Attributes(rest.attributes()?),
        EXTENDED_REPLY => Reply::Extended(rest.0.to_vec()),
        _ => return None,
    };
    Some(Received::Reply(id, reply))
}

/// The free bytes of a `statvfs@openssh.com` reply: those that an ordinary user may use.
pub(super) fn free_bytes(reply: &[u8]) -> Option<u64> {
    let mut rest = Rest(reply);
    let _block_size = rest.offset()?;
    let fragment_size = rest.offset()?;
    let _blocks = rest.offset()?;
    let _free = rest.offset()?;
    rest.offset()?.checked_mul(fragment_size)
}

struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn offset(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length as usize)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let flags = self.number()?;
        let mut attributes = Attributes::default();
        if flags & 1 != 0 {
            attributes.size = Some(self.offset()?);
        }
        if flags & 2 != 0 {
            self.take(8)?;
        }
        if flags & 4 != 0 {
            attributes.mode = Some(self.number()?);
        }
        if flags & 8 != 0 {
            self.take(4)?;
            attributes.modified = Some(self.number()?);
        }
        if flags & 0x8000_0000 != 0 {
            for _ in 0..self.number()? {
                self.text()?;
                self.text()?;
            }
        }
        Some(attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_have_the_drafts_form() {
        let mut out = Vec::new();
        hello(&mut out);
        assert_eq!(out, [0, 0, 0, 5, 1, 0, 0, 0, 3]);
        out.clear();
        Packet::read(b"h", 256, 7).send(9, &mut out);
        let expected = [
            &[0, 0, 0, 22, 5, 0, 0, 0, 9, 0, 0, 0, 1, b'h'][..],
            &[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 7],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn replies_are_read_and_nonsense_is_none() {
        let version = b"\x02\0\0\0\x03\0\0\0\x11fsync@openssh.com\0\0\0\x011";
        let expected = Received::Version(3, vec![FSYNC.to_owned()]);
        assert_eq!(parse(version), Some(expected));
        let status = b"\x65\0\0\0\x07\0\0\0\x02\0\0\0\x02no\0\0\0\0";
        let expected = Received::Reply(7, Reply::Status(2, "no".to_owned()));
        assert_eq!(parse(status), Some(expected));
        let attributes =
            b"\x69\0\0\0\x01\0\0\0\x0d\0\0\0\0\0\0\x01\0\0\0\x81\xa4\0\0\0\x01\0\0\0\x02";
        let Some(Received::Reply(1, Reply::Attributes(found))) = parse(attributes) else {
            panic!("attributes");
        };
        assert_eq!((found.size, found.modified), (Some(256), Some(2)));
        assert!(found.is_file() && !found.is_folder());

        // Cut anywhere: no answer, no panic, and no memory for what is not there.
        for cut in 0..attributes.len() {
            assert_eq!(parse(&attributes[..cut]), None, "{cut}");
        }
        assert_eq!(parse(b"\x68\0\0\0\x01\xff\xff\xff\xff"), None);
        assert_eq!(parse(b"\x99\0\0\0\x01"), None);
    }

    #[test]
    fn what_a_server_says_stays_on_one_line() {
        let failed = Reply::Status(4, "evil\n\x1b[31mwords".to_owned()).failed();
        assert_eq!(failed.cause, "the SFTP server says: evil  [31mwords (4)");
    }
}
