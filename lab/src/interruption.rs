//! Signals that end the program, held back while it must not end.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context, Result};
#[cfg(unix)]
use signal_hook::consts::{SIGHUP, SIGQUIT};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level::emulate_default_handler};

/// The signals by which people end a program.
#[cfg(unix)]
const SIGNALS: [i32; 4] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [SIGINT, SIGTERM];

/// Whether the caller has set a signal to be ignored, as `nohup` does. Without `unsafe`, only Linux can tell.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.unwrap_or(0) >> (signal - 1) & 1 == 1
}

/// Holds [`SIGNALS`] back until this is dropped. A signal that is ignored is still ignored.
///
/// Before it exists, while the program computes, signals have their default effect.
pub struct Interruption {
    pending: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Interruption {
    /// Holds signals back from now on.
    ///
    /// # Errors
    /// An error of the system.
    pub fn deferred() -> Result<Self> {
        let this = Self { pending: Arc::default(), over: Arc::default() };
        for signal in SIGNALS.into_iter().filter(|&signal| !is_ignored(signal)) {
            let register = || {
                flag::register_usize(signal, this.pending.clone(), signal as usize)?;
                flag::register_conditional_default(signal, this.over.clone())
            };
            register().context("cannot wait for signals")?;
        }
        Ok(this)
    }

    /// Whether a signal is pending.
    pub fn is_pending(&self) -> bool {
        self.pending.load(Ordering::SeqCst) != 0
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        match self.pending.load(Ordering::SeqCst) {
            0 => {}
            // Ends the program, as the signal would have.
            signal => drop(emulate_default_handler(signal as i32)),
        }
    }
}
