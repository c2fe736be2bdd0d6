//! `burstpool`: the operator's command line.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match burstpool::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // In a line, for people: a backtrace would bury it. Nothing is to be done if nobody listens.
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
