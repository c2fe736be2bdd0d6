//! `burstpool`: the operator's command line. Out: exit code 0, or 1 with the error on standard error.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match burstpool::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line without a backtrace. A failed write to standard error is ignored: there is no other place to
            // report it.
            let _ = writeln!(std::io::stderr(), "Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
