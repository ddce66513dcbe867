//! What `copy_out` costs the client: rows, bytes, wall and CPU time of one COPY.
//!
//! `cargo run --release -p lifeboat-pg --example copy_out_cost -- URL 'COPY t TO STDOUT'`
//!
//! With a third argument `raw`, the socket is only read and nothing is framed: the floor below which no
//! client can go.
#![allow(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::error::Error;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use lifeboat_pg::{ConnInfo, ConnectOptions, Connection};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, sql, rest @ ..] = arguments.as_slice() else {
        return Err("URL and SQL, please".into());
    };
    let info = ConnInfo::parse(url, &|name: &str| std::env::var(name).ok())?;
    let started = Instant::now();
    let before = cpu_seconds();
    let (rows, bytes) = if rest.first().is_some_and(|word| word == "raw") {
        (0, raw(&info, sql)?)
    } else {
        let mut connection = Connection::connect(&info, &ConnectOptions::default())?;
        let mut bytes = 0_u64;
        let rows = connection.copy_out(sql, |row| {
            bytes += row.len() as u64;
            Ok::<(), std::convert::Infallible>(())
        })?;
        (rows, bytes)
    };
    let cpu = cpu_seconds();
    println!(
        "{rows} rows, {bytes} bytes, {:.2} s, user {:.2} s, system {:.2} s",
        started.elapsed().as_secs_f64(),
        cpu.0 - before.0,
        cpu.1 - before.1
    );
    Ok(())
}

/// Just enough of the protocol for a trusting server's Unix socket.
fn raw(info: &ConnInfo, sql: &str) -> Result<u64, Box<dyn Error>> {
    let path = info.hosts()[0]
        .socket_path()
        .ok_or("raw needs a Unix socket")?;
    let mut socket = UnixStream::connect(path)?;
    let parameters = format!("user\0{}\0database\0{}\0\0", info.user(), info.database());
    let mut message = u32::try_from(parameters.len() + 8)?.to_be_bytes().to_vec();
    message.extend_from_slice(&[0, 3, 0, 0]);
    message.extend_from_slice(parameters.as_bytes());
    socket.write_all(&message)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = socket.read(&mut buffer)?;
        if length == 0 || buffer[..length].ends_with(b"Z\0\0\0\x05I") {
            break;
        }
    }
    socket.write_all(b"Q")?;
    socket.write_all(&u32::try_from(sql.len() + 5)?.to_be_bytes())?;
    socket.write_all(sql.as_bytes())?;
    socket.write_all(&[0])?;
    let mut bytes = 0;
    loop {
        let length = socket.read(&mut buffer)?;
        bytes += length as u64;
        if length == 0 || buffer[..length].ends_with(b"Z\0\0\0\x05I") {
            return Ok(bytes);
        }
    }
}

/// User and system time of this process so far, from `/proc/self/stat` in ticks of 10 ms.
fn cpu_seconds() -> (f64, f64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|field| field.parse().ok().or(Some(0.0)))
        .collect();
    let at = |index: usize| fields.get(index).copied().unwrap_or_default() / 100.0;
    (at(11), at(12))
}
