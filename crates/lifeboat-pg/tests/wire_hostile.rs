//! Servers that lie, stall or vanish, played by a few bytes on a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod wire_support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lifeboat_pg::{ConnectOptions, Connection, CopyOutError, PgError};
use wire_support::info;

/// A listener on a port that the system chose, and a thread that serves one client by `script`.
fn serve(script: impl FnOnce(&mut TcpStream) + Send + 'static) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        script(&mut client);
    });
    (port, server)
}

fn connect(port: u16, more: &str) -> Result<Connection, PgError> {
    let text = format!("host=127.0.0.1 port={port} user=u password=s3cret sslmode=disable {more}");
    Connection::connect(&info(&text), &ConnectOptions::default())
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// Reads a startup packet (no type byte) or a message with one.
fn read_packet(client: &mut TcpStream, typed: bool) -> Vec<u8> {
    let mut head = vec![0; if typed { 5 } else { 4 }];
    if client.read_exact(&mut head).is_err() {
        return Vec::new();
    }
    let length = u32::from_be_bytes(head[head.len() - 4..].try_into().unwrap()) as usize;
    let mut body = vec![0; length - 4];
    client.read_exact(&mut body).unwrap();
    body
}

/// Lets the client in without asking anything.
fn welcome(client: &mut TcpStream) {
    read_packet(client, false);
    client.write_all(&message(b'R', &[0, 0, 0, 0])).unwrap();
    client
        .write_all(&message(b'S', b"server_version\x0015.18\0"))
        .unwrap();
    client
        .write_all(&message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]))
        .unwrap();
    client.write_all(&message(b'Z', b"I")).unwrap();
}

#[test]
fn a_connection_cut_in_the_middle_of_a_copy_is_never_a_short_table() {
    // After a whole row, and within one.
    for tail in [&b""[..], b"d\0\0\0\x64half a row"] {
        let (port, server) = serve(move |client| {
            welcome(client);
            read_packet(client, true);
            client.write_all(&message(b'H', &[0, 0, 0])).unwrap();
            client.write_all(&message(b'd', b"1\n")).unwrap();
            client.write_all(tail).unwrap();
        });
        let mut connection = connect(port, "").unwrap();
        let mut rows = 0;
        let result = connection.copy_out("COPY t TO STDOUT", |_| {
            rows += 1;
            Ok::<(), ()>(())
        });
        assert!(
            matches!(result, Err(CopyOutError::Pg(PgError::Lost(_)))),
            "{result:?}"
        );
        assert_eq!(rows, 1);
        server.join().unwrap();
    }
}

#[test]
fn a_copy_without_its_row_count_is_not_complete() {
    let (port, server) = serve(|client| {
        welcome(client);
        read_packet(client, true);
        client.write_all(&message(b'H', &[0, 0, 0])).unwrap();
        client.write_all(&message(b'Z', b"I")).unwrap();
    });
    let result = connect(port, "")
        .unwrap()
        .copy_out("COPY t TO STDOUT", |_| Ok::<(), ()>(()));
    assert!(
        matches!(result, Err(CopyOutError::Pg(PgError::Protocol(_)))),
        "{result:?}"
    );
    server.join().unwrap();
}

#[test]
fn nonsense_is_refused_and_claims_of_length_cost_nothing() {
    let table: [&[u8]; 6] = [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"R\0\0\0\x03",
        b"R\xff\xff\xff\xff",
        b"E\x7f\xff\xff\xff",
        b"Z\0\0\0\x05I",
        b"R\0\0\0\x08\0\0\0\x0c",
    ];
    for bytes in table {
        let (port, server) = serve(move |client| {
            read_packet(client, false);
            client.write_all(bytes).unwrap();
        });
        let error = connect(port, "").unwrap_err();
        assert!(
            matches!(error, PgError::Protocol(_)),
            "{bytes:?}: {error:?}"
        );
        server.join().unwrap();
    }
    // Rows and descriptions that do not add up.
    let description = message(
        b'T',
        b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0",
    );
    let bodies: [&[u8]; 5] = [
        b"",
        b"\0\x02",
        b"\0\x01\0\0\0\x09abc",
        b"\0\x01\xff\xff\xff\xfe",
        b"\0\x01\0",
    ];
    for body in bodies {
        let row = message(b'D', body);
        let description = description.clone();
        let (port, server) = serve(move |client| {
            welcome(client);
            read_packet(client, true);
            client.write_all(&description).unwrap();
            client.write_all(&row).unwrap();
        });
        let error = connect(port, "").unwrap().query("SELECT a").unwrap_err();
        assert!(matches!(error, PgError::Protocol(_)), "{body:?}: {error:?}");
        server.join().unwrap();
    }
}

#[test]
fn an_impostor_does_not_get_away_with_skipping_the_proof() {
    // Starts SCRAM and then simply says yes.
    let (port, server) = serve(|client| {
        read_packet(client, false);
        client
            .write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
            .unwrap();
        read_packet(client, true);
        client.write_all(&message(b'R', &[0, 0, 0, 0])).unwrap();
    });
    assert!(matches!(
        connect(port, "").unwrap_err(),
        PgError::Protocol(_)
    ));
    server.join().unwrap();
    // Asks for the password in the clear where that was ruled out.
    let (port, server) = serve(|client| {
        read_packet(client, false);
        client.write_all(&message(b'R', &[0, 0, 0, 3])).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(!rest.windows(6).any(|window| window == b"s3cret"));
    });
    let error = connect(port, "require_auth=scram-sha-256").unwrap_err();
    assert!(matches!(error, PgError::Auth { .. }), "{error}");
    server.join().unwrap();
    // Another nonce than ours.
    let (port, server) = serve(|client| {
        read_packet(client, false);
        client
            .write_all(&message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0"))
            .unwrap();
        read_packet(client, true);
        client
            .write_all(&message(b'R', b"\0\0\0\x0br=stolen,s=c2FsdA==,i=4096"))
            .unwrap();
    });
    assert!(matches!(
        connect(port, "").unwrap_err(),
        PgError::Auth { .. }
    ));
    server.join().unwrap();
    // Plain bytes behind the promise of TLS.
    let (port, server) = serve(|client| {
        read_packet(client, false);
        client.write_all(b"S").unwrap();
        client.write_all(&message(b'R', &[0, 0, 0, 0])).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    });
    let text = format!("host=127.0.0.1 port={port} user=u sslmode=require");
    let error = Connection::connect(&info(&text), &ConnectOptions::default()).unwrap_err();
    assert!(matches!(error, PgError::Tls { .. }), "{error}");
    server.join().unwrap();
}

#[test]
fn a_server_that_never_answers_runs_into_the_timeout_or_the_interrupt() {
    for sslmode in ["disable", "require"] {
        let (port, server) = serve(|client| {
            let _ = client.read_to_end(&mut Vec::new());
        });
        let text = format!("host=127.0.0.1 port={port} user=u sslmode={sslmode}");
        let options = ConnectOptions {
            connect_timeout: Some(Duration::from_millis(300)),
            ..ConnectOptions::default()
        };
        let error = Connection::connect(&info(&text), &options).unwrap_err();
        assert!(
            matches!(&error, PgError::Timeout { host, .. } if host.contains("127.0.0.1")),
            "{error}"
        );
        server.join().unwrap();

        let (port, server) = serve(|client| {
            let _ = client.read_to_end(&mut Vec::new());
        });
        let interrupt = Arc::new(AtomicBool::new(false));
        let options = ConnectOptions {
            interrupt: interrupt.clone(),
            ..ConnectOptions::default()
        };
        let text = format!("host=127.0.0.1 port={port} user=u sslmode={sslmode}");
        let client = thread::spawn(move || Connection::connect(&info(&text), &options).map(|_| ()));
        interrupt.store(true, Ordering::Relaxed);
        let started = Instant::now();
        assert!(matches!(client.join().unwrap(), Err(PgError::Interrupted)));
        assert!(started.elapsed() < Duration::from_secs(5));
        // An interrupt before the connection was made leaves the listener waiting.
        let _ = TcpStream::connect(("127.0.0.1", port));
        server.join().unwrap();
    }
}

#[test]
fn a_fatal_error_during_a_load_is_told_in_the_servers_words() {
    let (port, server) = serve(|client| {
        welcome(client);
        read_packet(client, true);
        client.write_all(&message(b'G', &[0, 0, 0])).unwrap();
        let words = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0";
        client.write_all(&message(b'E', words)).unwrap();
    });
    let mut connection = connect(port, "").unwrap();
    let mut copy = connection.copy_in("COPY t FROM STDIN").unwrap();
    let block = vec![b'x'; 300_000];
    let error = loop {
        if let Err(error) = copy.write(&block) {
            break error;
        }
    };
    // The reset that follows may overtake the words; silence about a failure may not.
    assert!(
        matches!(&error, PgError::Lost(_)) || error.sqlstate() == Some("57P01"),
        "{error:?}"
    );
    drop(copy);
    assert!(matches!(connection.query("SELECT 1"), Err(PgError::Closed)));
    server.join().unwrap();
}
