//! Quartiles over seeds of the losses of each epoch.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Result, ensure};

use crate::report::curves;
use crate::sweep::files::LossRow;
use crate::sweep::statistics::quartiles;

/// The most epochs of a line.
const EPOCHS: usize = 200;

/// Quartiles over seeds of the columns of `losses.csv`, by problem and optimizer; each epoch has its own.
pub(super) type Bands = HashMap<String, BandsOfProblem>;
pub(super) type BandsOfProblem = HashMap<String, Vec<Band>>;
pub(super) type Band = (usize, [Option<[f64; 3]>; 4]);

/// Reads `rows` rows for `epochs` epochs. About `most` of them are drawn, 200 at most, and the last.
pub(super) fn bands(file: &mut dyn std::io::Read, rows: usize, epochs: usize, most: usize) -> Result<Bands> {
    let mut read = 0;
    let stride = epochs.div_ceil(most.clamp(2, EPOCHS)).max(1);
    let is_drawn = |epoch: usize| (epoch - 1).is_multiple_of(stride) || epoch == epochs;
    let mut all = HashMap::<String, HashMap<String, BTreeMap<usize, [Vec<f64>; 4]>>>::new();
    for row in csv::Reader::from_reader(file).into_deserialize() {
        let row: LossRow = row?;
        read += 1;
        let (epoch, losses) = (row.epoch, row.losses());
        if epoch > 0 && is_drawn(epoch) {
            let columns =
                all.entry(row.problem).or_default().entry(row.optimizer).or_default().entry(epoch).or_default();
            for (column, values) in columns.iter_mut().enumerate() {
                values.push(curves::value(&losses, column));
            }
        }
    }
    ensure!(read == rows, "it has {read} rows, and the runs have {rows} epochs");
    // A diverged run has no later epochs: they count as worse than all others.
    let of_epoch = |(epoch, columns): (usize, [Vec<f64>; 4]), seeds: usize| {
        let band = |(column, mut values): (usize, Vec<f64>)| {
            let worst = if column < 2 { f64::INFINITY } else { f64::NEG_INFINITY };
            values.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = worst);
            values.resize(seeds.max(values.len()), worst);
            quartiles(&values)
        };
        let mut columns = columns.into_iter().enumerate().map(band);
        (epoch, [(); 4].map(|()| columns.next().flatten()))
    };
    let of_optimizer = |epochs: BTreeMap<usize, [Vec<f64>; 4]>| {
        let seeds = epochs.values().map(|columns| columns[0].len()).max().unwrap_or(0);
        epochs.into_iter().map(|epoch| of_epoch(epoch, seeds)).collect()
    };
    let of_problem = |optimizers: HashMap<String, BTreeMap<usize, [Vec<f64>; 4]>>| {
        optimizers.into_iter().map(|(name, epochs)| (name, of_optimizer(epochs))).collect()
    };
    Ok(all.into_iter().map(|(name, optimizers)| (name, of_problem(optimizers))).collect())
}
