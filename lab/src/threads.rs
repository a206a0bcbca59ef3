//! The threads that share the work: as many as are asked for, or as many as the machine allows.
//!
//! rayon has a pool, and Candle has another one. Both panic if a thread does not start, and both read their number of
//! threads from the environment, which a program without `unsafe` can set only for another program. So this program
//! tests the number first, and restarts itself with fewer threads if necessary.

use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, available_parallelism, scope};

use anyhow::{Context, Result, bail, ensure};
use candle_core::utils::{barrier_pool, get_num_threads};

use super::memory;

const RAYON: &str = "RAYON_NUM_THREADS";
const CANDLE: &str = "CANDLE_NUM_THREADS";

/// More threads per processor make nothing faster, and each takes address space.
const MOST_PER_PROCESSOR: usize = 4;

/// Starts the threads of both pools. A value that is not a number from 1 counts as not set, as in rayon and Candle.
///
/// # Errors
/// The machine allows too few, and the program cannot be restarted.
pub fn start() -> Result<()> {
    let asked = |name: &str| std::env::var(name).ok()?.parse().ok().filter(|&threads: &usize| threads > 0);
    let processors = available_parallelism().map_or(1, usize::from);
    let rayon = asked(RAYON).unwrap_or(processors);
    let candle = asked(CANDLE).unwrap_or_else(get_num_threads);

    ensure!(memory::spare().is_some(), "this process is not allowed to have the memory that the program itself needs");

    let most = rayon.max(candle).min(MOST_PER_PROCESSOR * processors);
    let at_most = |most: usize| (rayon.min(most), candle.min(most));
    let startable = startable(to_start(at_most(most)));
    let fits = (1..=most).rev().find(|&most| to_start(at_most(most)) <= startable).unwrap_or(1);
    if at_most(fits) != (rayon, candle) {
        let Err(error) = restart(at_most(fits));
        bail!("{RAYON}: this machine starts fewer than {rayon} threads; allowed: 1 to {fits} ({error:#})");
    }
    let mut pool = rayon::ThreadPoolBuilder::new().num_threads(rayon);
    if rayon == 1 {
        pool = pool.use_current_thread();
    }
    pool.build_global().context("cannot start a thread")?;
    barrier_pool();
    Ok(())
}

/// How many threads must start besides this one for these numbers of rayon and Candle: Candle counts this thread, and
/// rayon uses it if it needs only one.
fn to_start((rayon, candle): (usize, usize)) -> usize {
    if rayon == 1 { candle - 1 } else { rayon + candle - 1 }
}

/// How many threads, `most` at most, the machine allows at once with memory to work with.
fn startable(most: usize) -> usize {
    let _left_for_the_work = memory::spare();
    let gate = Mutex::new(());
    scope(|scope| {
        let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = || {
            let memory = memory::spare();
            drop(gate.lock());
            memory.is_some()
        };
        // A thread that starts without memory for its own start ends the program.
        let start = |_| memory::spare().and_then(|_| Builder::new().spawn_scoped(scope, wait).ok());
        let threads: Vec<_> = (0..most).map_while(start).collect();
        drop(closed);
        let started = threads.into_iter().map(|thread| thread.join().unwrap_or(false)).filter(|&works| works).count();
        // The last threads took memory that the work needs.
        if started < most { started / 2 } else { started }
    })
}

/// Replaces this program by itself with other numbers of threads.
#[cfg(unix)]
fn restart((rayon, candle): (usize, usize)) -> Result<std::convert::Infallible> {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(RAYON, rayon.to_string()).env(CANDLE, candle.to_string());
    Err(command.exec().into())
}

#[cfg(not(unix))]
fn restart(_: (usize, usize)) -> Result<std::convert::Infallible> {
    bail!("the program cannot start itself again here")
}
