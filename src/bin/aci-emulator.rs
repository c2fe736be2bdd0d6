//! `aci-emulator`: emulates Azure Resource Manager and Container Instances on localhost.

use std::process::ExitCode;

fn main() -> ExitCode {
    burstpool::emulator::cli::main()
}
