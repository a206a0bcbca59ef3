//! `candle-optim bench` with the allocator of the system, which a Candle program has unless it chooses another. Candle's own
//! optimizers allocate each tensor anew, and the system's allocator returns the pages of large ones each time.
//!
//! `cargo bench --bench step -- [options of candle-optim bench]`

use candle_optim_lab::{cli::Cli, run};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    // Cargo adds an option of its own.
    let given = std::env::args().skip(1).filter(|arg| arg != "--bench");
    run(Cli::parse_from(["step", "bench"].map(String::from).into_iter().chain(given)))
}
