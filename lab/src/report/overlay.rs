//! The curves of another run or another framework, drawn over ours.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::curves::{self, COLUMNS, Curve};
use super::figure::short;
use crate::folder;
use crate::shown::{shown, shown_path};

/// The curves of another `losses.csv`.
pub struct Overlay {
    /// The file's name.
    pub name: String,
    curves: Vec<Curve>,
}

impl Overlay {
    /// Reads a file.
    ///
    /// # Errors
    /// The file is not a `losses.csv`.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || curves::read(folder::open(path)?, 0, true);
        let curves = read().with_context(|| format!("--overlay '{}'", shown_path(path)))?;
        Ok(Self { name: shown(&path.file_name().unwrap_or_default().to_string_lossy()), curves })
    }

    /// Checks that it has curves of these optimizers, over this many epochs.
    ///
    /// # Errors
    /// It has other epochs, or no curve of these optimizers.
    pub fn check<'a>(&self, optimizers: impl Iterator<Item = &'a str> + Clone, epochs: usize) -> Result<()> {
        let known = |curve: &&Curve| optimizers.clone().any(|name| name == curve.optimizer);
        let mut matched = self.curves.iter().filter(known).peekable();
        let names = || optimizers.clone().map(shown).take(8).collect::<Vec<_>>().join(", ");
        ensure!(
            matched.peek().is_some(),
            "--overlay '{}' has no curve of the optimizers of this run; allowed: {}",
            self.name,
            names()
        );
        for curve in matched {
            ensure!(
                curve.count == epochs,
                "--overlay '{}' has {} epochs of {}; allowed: {epochs}, as this run has",
                self.name,
                curve.count,
                shown(&curve.optimizer)
            );
        }
        Ok(())
    }

    /// Its curves that match ours, each with the index of ours.
    pub fn matched<'a>(&'a self, ours: &'a [Curve]) -> impl Iterator<Item = (usize, &'a Curve)> {
        let of =
            |(at, own): (usize, &Curve)| Some((at, self.curves.iter().find(|curve| curve.optimizer == own.optimizer)?));
        ours.iter().enumerate().filter_map(of)
    }

    /// The largest differences from ours, in words.
    ///
    /// # Errors
    /// See [`Overlay::check`].
    pub fn distance(&self, ours: &[Curve]) -> Result<String> {
        self.check(ours.iter().map(|curve| curve.optimizer.as_str()), ours.first().map_or(0, |curve| curve.count))?;
        let mut said = vec![];
        for (at, theirs) in self.matched(ours) {
            let own = &ours[at];
            let mut largest = (0., 0, 0);
            for ((epoch, a), (_, b)) in own.epochs.iter().zip(&theirs.epochs) {
                for column in 0..2 {
                    let distance = crate::parity::difference(curves::value(a, column), curves::value(b, column));
                    if distance > largest.0 {
                        largest = (distance, epoch + 1, column);
                    }
                }
            }
            let name = shown(&own.optimizer);
            said.push(match largest {
                (0., ..) => format!("{name}: equal bits"),
                (distance, epoch, column) => {
                    format!("{name}: {} at epoch {epoch} ({})", short(distance), COLUMNS[column].replace('_', " "))
                }
            });
        }
        Ok(format!("Largest distance from it: {}.", said.join("; ")))
    }
}
