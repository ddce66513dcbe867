//! COPY in both directions. `copy_out` is the hottest loop of the product: see its comments before
//! touching it.

use std::time::Duration;

use bytes::BufMut as _;
use postgres_protocol::message::{backend, frontend};

use super::connection::{Connection, rows_in_tag, unexpected};
use super::error::{CopyOutError, PgError};
use super::input::peek_frame;

/// Small writes are gathered into CopyData messages of this size.
const GATHER_BYTES: usize = 64 * 1024;

/// How much is sent between two looks for an error: a load that failed at its first row must not
/// push the whole table through the wire.
const LOOK_EVERY_BYTES: usize = 1024 * 1024;

impl Connection {
    /// Runs a `COPY … TO STDOUT` and hands each row's bytes to `sink`, newline included, in order.
    /// Returns the row count that the server states at the end.
    ///
    /// The slices point into the read buffer: nothing is copied or allocated per row.
    ///
    /// # Errors
    /// [`CopyOutError::Pg`] as for any statement, [`CopyOutError::Sink`] when `sink` fails, which
    /// cancels the statement and closes the connection.
    pub fn copy_out<E>(
        &mut self,
        sql: &str,
        mut sink: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<u64, CopyOutError<E>> {
        self.send_query(sql)?;
        let mut rows = None;
        let mut copying = false;
        let mut pace = Pace::default();
        loop {
            // All rows that are whole in the buffer, in one go: framing is the only work per row, and
            // the interrupt flag is looked at once per fill.
            let pending = self.channel.input.pending();
            let mut at = 0;
            let mut sunk = Ok(());
            let more = loop {
                let rest = &pending[at..];
                match peek_frame(rest) {
                    Ok(Some((backend::COPY_DATA_TAG, total))) if total <= rest.len() && copying => {
                        sunk = sink(&rest[5..total]);
                        at += total;
                        if sunk.is_err() {
                            break More::Fill;
                        }
                    }
                    Ok(Some((_, total))) if total <= rest.len() => break More::Other,
                    Ok(_) => break More::Fill,
                    Err(error) => break More::Bad(error),
                }
            };
            self.channel.input.consume(at);
            if let Err(error) = sunk {
                self.closed = true;
                // If the server cannot be told, the closed socket tells it.
                let _ = self.cancel_handle().cancel();
                return Err(CopyOutError::Sink(error));
            }
            match more {
                More::Fill => pace.fill(self)?,
                More::Bad(error) => return Err(self.fail(error).into()),
                More::Other => {
                    let frame = self.next_frame_or_data()?;
                    let Some(frame) = frame else { continue };
                    match frame.tag {
                        backend::COPY_OUT_RESPONSE_TAG => copying = true,
                        backend::COPY_DONE_TAG => copying = false,
                        backend::COMMAND_COMPLETE_TAG => {
                            rows = Some(rows_in_tag(self.channel.body(&frame)));
                        }
                        backend::READY_FOR_QUERY_TAG => {
                            self.ready(&frame);
                            let missing = || PgError::protocol("a COPY that never completed");
                            return rows.ok_or_else(missing).map_err(CopyOutError::Pg);
                        }
                        backend::ERROR_RESPONSE_TAG => {
                            return Err(self.server_error(&frame).into());
                        }
                        tag => return Err(self.fail(unexpected(tag)).into()),
                    }
                }
            }
        }
    }

    /// The buffered message that is not a row, or `None` if it was one that may come at any time.
    fn next_frame_or_data(&mut self) -> Result<Option<super::input::Frame>, PgError> {
        let frame = self.guard(|channel| channel.next_frame())?;
        Ok(if self.aside(&frame) {
            None
        } else {
            Some(frame)
        })
    }

    /// Starts a `COPY … FROM STDIN`. The rows are then given to [`CopyIn::write`].
    ///
    /// # Errors
    /// The server's, when it refuses the statement.
    pub fn copy_in(&mut self, sql: &str) -> Result<CopyIn<'_>, PgError> {
        self.send_query(sql)?;
        let frame = self.next_frame()?;
        match frame.tag {
            backend::COPY_IN_RESPONSE_TAG => {}
            backend::ERROR_RESPONSE_TAG => return Err(self.server_error(&frame)),
            tag => return Err(self.fail(unexpected(tag))),
        }
        self.channel.output.clear();
        Ok(CopyIn {
            connection: self,
            since_look: 0,
            ended: false,
        })
    }
}

/// Lets data gather in the socket when we are faster than the server.
///
/// The server sends 8 KiB at a time, and a reader that waits is woken for each of them: measured on a
/// table of 1 GB, that is 1.05 s of system time where reading in larger pieces takes 0.4 s. A short pause
/// costs nothing, since the server goes on filling the socket's buffer (208 KiB on Linux). Once the reader
/// is the slower one, reads are large by themselves and the pause goes away.
#[derive(Default)]
struct Pace {
    received: usize,
    pause: Duration,
}

impl Pace {
    /// A read below this found the socket nearly empty.
    const SMALL_BYTES: usize = 24 * 1024;
    /// What a pause should let gather: well below the socket's buffer, or the server would wait.
    const WANTED_BYTES: usize = 112 * 1024;
    /// Tables shorter than this never pause: there are thousands of them, and each waits alone.
    const SETTLED_BYTES: usize = 1024 * 1024;
    const FIRST: Duration = Duration::from_micros(300);
    const SHORTEST: Duration = Duration::from_micros(100);
    const LONGEST: Duration = Duration::from_millis(1);

    fn fill(&mut self, connection: &mut Connection) -> Result<(), PgError> {
        if !self.pause.is_zero() {
            std::thread::sleep(self.pause);
        }
        let got = connection.guard(super::channel::Channel::fill)?;
        self.received = self.received.saturating_add(got);
        if self.received > Self::SETTLED_BYTES {
            self.pause = Pace::next(self.pause, got);
        }
        Ok(())
    }

    /// The next pause, from the last one and what was read after it.
    fn next(last: Duration, got: usize) -> Duration {
        if last.is_zero() {
            return if got < Self::SMALL_BYTES {
                Self::FIRST
            } else {
                Duration::ZERO
            };
        }
        let micros = last.as_micros() as usize * Self::WANTED_BYTES / got.max(1);
        let scaled = Duration::from_micros(micros as u64);
        if scaled < Self::SHORTEST {
            Duration::ZERO
        } else {
            scaled.min(Self::LONGEST)
        }
    }
}

enum More {
    Fill,
    Other,
    Bad(PgError),
}

/// A running `COPY … FROM STDIN`.
///
/// Dropping it without [`CopyIn::finish`] makes the server discard what was sent, so that half a
/// table is never taken for a whole one.
#[derive(Debug)]
pub struct CopyIn<'a> {
    connection: &'a mut Connection,
    since_look: usize,
    ended: bool,
}

impl CopyIn<'_> {
    /// Sends rows, or any part of them: the server does not care where the pieces end.
    ///
    /// # Errors
    /// Also the server's, for rows sent earlier: about once per MiB. The COPY has then ended.
    pub fn write(&mut self, data: &[u8]) -> Result<(), PgError> {
        if self.ended {
            return Err(PgError::Closed);
        }
        self.since_look += data.len();
        if data.len() >= GATHER_BYTES {
            self.send_gathered()?;
            // Cut well below the protocol's limit of 1 GB for a message.
            for piece in data.chunks(LOOK_EVERY_BYTES) {
                self.send_piece(piece)?;
            }
        } else {
            let output = &mut self.connection.channel.output;
            if output.is_empty() {
                // The length follows when the message is complete.
                output.put_slice(&[b'd', 0, 0, 0, 0]);
            }
            output.put_slice(data);
            if output.len() >= GATHER_BYTES {
                self.send_gathered()?;
            }
        }
        if self.since_look >= LOOK_EVERY_BYTES {
            self.since_look = 0;
            self.look()?;
        }
        Ok(())
    }

    fn send_piece(&mut self, piece: &[u8]) -> Result<(), PgError> {
        let length = u32::try_from(piece.len() + 4)
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        let head = [b'd', length[0], length[1], length[2], length[3]];
        let sent = self.connection.guard(|channel| {
            channel.send(&head)?;
            channel.send(piece)
        });
        self.after(sent)
    }

    fn send_gathered(&mut self) -> Result<(), PgError> {
        let output = &mut self.connection.channel.output;
        if output.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(output.len() - 1)
            .unwrap_or(u32::MAX)
            .to_be_bytes();
        output[1..5].copy_from_slice(&length);
        let sent = self.connection.guard(super::channel::Channel::flush);
        self.after(sent)
    }

    fn after(&mut self, sent: Result<(), PgError>) -> Result<(), PgError> {
        if sent.is_err() {
            self.ended = true;
        }
        sent
    }

    /// Reads what the server may have said meanwhile, without waiting for it to speak.
    fn look(&mut self) -> Result<(), PgError> {
        if let Err(stop) = self.connection.channel.watch.check() {
            self.ended = true;
            return Err(self.connection.fail(super::channel::stopped(stop)));
        }
        while !self.connection.channel.input.pending().is_empty()
            || self.connection.channel.stream.socket().readable_now()
        {
            match self.connection.guard(super::channel::Channel::next_frame) {
                Ok(frame) if self.connection.aside(&frame) => {}
                Ok(frame) if frame.tag == backend::ERROR_RESPONSE_TAG => {
                    self.ended = true;
                    // What was gathered is dropped; the server drops what it already has.
                    self.connection.channel.output.clear();
                    return Err(self.connection.server_error(&frame));
                }
                Ok(frame) => {
                    self.ended = true;
                    return Err(self.connection.fail(unexpected(frame.tag)));
                }
                Err(error) => {
                    self.ended = true;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Ends the rows and waits for the server to have taken them all: only then are they stored.
    /// Returns its row count.
    ///
    /// # Errors
    /// The server's, such as a constraint that a row violates.
    pub fn finish(mut self) -> Result<u64, PgError> {
        if self.ended {
            return Err(PgError::Closed);
        }
        self.send_gathered()?;
        self.ended = true;
        frontend::copy_done(&mut self.connection.channel.output);
        self.connection.guard(super::channel::Channel::flush)?;
        let mut rows = 0;
        loop {
            let frame = self.connection.next_frame()?;
            match frame.tag {
                backend::COMMAND_COMPLETE_TAG => {
                    rows = rows_in_tag(self.connection.channel.body(&frame));
                }
                backend::READY_FOR_QUERY_TAG => {
                    self.connection.ready(&frame);
                    return Ok(rows);
                }
                backend::ERROR_RESPONSE_TAG => return Err(self.connection.server_error(&frame)),
                tag => return Err(self.connection.fail(unexpected(tag))),
            }
        }
    }

    /// Gives up: the server forgets what was sent. `reason` shows up in its log.
    ///
    /// # Errors
    /// Only when the connection itself fails; that the server reports the COPY as failed is what was
    /// asked for.
    pub fn abort(mut self, reason: &str) -> Result<(), PgError> {
        if self.ended {
            return Ok(());
        }
        self.stop(reason)
    }

    fn stop(&mut self, reason: &str) -> Result<(), PgError> {
        self.ended = true;
        let output = &mut self.connection.channel.output;
        output.clear();
        let reason = reason.replace('\0', " ");
        frontend::copy_fail(&reason, output)
            .map_err(|_| PgError::protocol("a reason that cannot be sent"))?;
        self.connection.guard(super::channel::Channel::flush)?;
        self.connection.drain()
    }
}

impl Drop for CopyIn<'_> {
    fn drop(&mut self) {
        if !self.ended && !self.connection.closed {
            let _ = self.stop("the rows did not come to their end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pace;
    use std::time::Duration;

    #[test]
    fn the_pause_follows_what_gathers_and_goes_when_we_are_the_slower_one() {
        let micros = Duration::from_micros;
        let table = [
            // last, got, next
            (0, 8 * 1024, 300),
            (0, 100 * 1024, 0),
            (300, 112 * 1024, 300),
            (300, 56 * 1024, 600),
            (600, 8 * 1024, 1000),
            (300, 256 * 1024, 131),
            (131, 256 * 1024, 0),
            (1000, 0, 1000),
        ];
        for (last, got, next) in table {
            assert_eq!(
                Pace::next(micros(last), got),
                micros(next),
                "{last} µs, {got} bytes"
            );
        }
    }
}
