//! Memory: the amount that work will need, and the amount that is available.

use anyhow::{Result, ensure};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Address space for allocations that are not counted, by the program or by a thread: mimalloc takes pieces of this
/// size.
const SPARE: usize = 1 << 25;

/// Reserves address space without using it, so that others leave as much; none if a limit forbids it.
pub fn spare() -> Option<Vec<u8>> {
    reserved(SPARE)
}

fn reserved(bytes: usize) -> Option<Vec<u8>> {
    let mut memory = vec![];
    memory.try_reserve_exact(bytes).ok()?;
    Some(memory)
}

/// Bytes that work needs at least, by the options that ask for them. Floats do not overflow.
#[derive(Debug, Default)]
pub struct Needs(Vec<(String, f64)>);

impl Needs {
    /// Adds `bytes` for an `option` of the command line.
    pub fn of(mut self, option: impl Into<String>, bytes: f64) -> Self {
        self.0.push((option.into(), bytes));
        self
    }

    /// Checks before the work that there is enough memory. An allocation that fails later ends the program.
    ///
    /// # Errors
    /// There is not enough. The message names the option that needs most.
    pub fn check(&self) -> Result<()> {
        self.check_against(available())
    }

    fn check_against(&self, available: f64) -> Result<()> {
        let needed: f64 = self.0.iter().map(|(_, bytes)| bytes).sum();
        let Some((option, _)) = self.0.iter().max_by(|a, b| a.1.total_cmp(&b.1)) else { return Ok(()) };
        let what = format!("{option}: this needs {} of memory", size(needed));
        ensure!(needed <= available, "{what}, and {} are available", size(available));
        // Only an attempt shows the limit of `ulimit -v`.
        let reserved = reserved((needed as usize).saturating_add(SPARE));
        ensure!(reserved.is_some(), "{what}, and this process is not allowed to have as much");
        Ok(())
    }
}

/// Bytes that are available without taking them from another program; infinite if the system does not say.
fn available() -> f64 {
    let memory = MemoryRefreshKind::everything();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(memory));
    if system.total_memory() == 0 {
        return f64::INFINITY;
    }
    let mut free = system.available_memory();
    if let Some(group) = system.cgroup_limits() {
        // The group's `free_memory` counts cached files as used.
        free = free.min(group.total_memory.saturating_sub(group.rss));
    }
    free as f64 + system.free_swap() as f64
}

/// Bytes as text, to two digits or more.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    let power = (((bytes.max(1e3).log10() / 3.) as usize).max(1) - 1).min(UNITS.len() - 1);
    let amount = bytes / 1e3f64.powi(power as i32 + 1);
    let decimals = usize::from(amount < 9.95);
    if amount < 1e6 {
        format!("{amount:.decimals$} {}", UNITS[power])
    } else {
        format!("{amount:.0e} {}", UNITS[power])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_beyond_what_there_is_are_refused_by_the_option_that_needs_most() {
        let needs = Needs::default().of("--epochs 7", 1e9).of("--hidden 9", 2e9);
        assert!(needs.check_against(3e9).is_ok() && needs.check_against(f64::INFINITY).is_ok());
        let error = needs.check_against(2.9e9).unwrap_err().to_string();
        assert_eq!(error, "--hidden 9: this needs 3.0 GB of memory, and 2.9 GB are available");
        assert!(Needs::default().check_against(0.).is_ok());
        for endless in [1e19, f64::MAX, f64::INFINITY] {
            assert!(Needs::default().of("--steps 9", endless).check_against(f64::INFINITY).is_err(), "{endless}");
        }
        assert!(available() > 1e6);
    }

    #[test]
    fn sizes_have_two_digits_or_more() {
        let sizes = [0., 1500., 9.96e6, 21.4e9, 280e9, 3.2e12, 4e18, 1e30, f64::INFINITY];
        let shown = ["0.0 kB", "1.5 kB", "10 MB", "21 GB", "280 GB", "3.2 TB", "4.0 EB", "1e12 EB", "inf EB"];
        assert_eq!(sizes.map(size), shown);
    }
}
