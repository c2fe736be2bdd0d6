//! `burstpool`: the operator's command line.

fn main() -> anyhow::Result<()> {
    burstpool::cli::run()
}
