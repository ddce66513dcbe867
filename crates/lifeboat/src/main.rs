//! The `lifeboat` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lifeboat::run(std::env::args_os())
}
