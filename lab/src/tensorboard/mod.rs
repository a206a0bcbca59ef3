//! Curves and hyperparameters for TensorBoard: a folder for each run, in the folder `tensorboard` of the results.

mod events;

use std::fs;
use std::path::Path;

use anyhow::Result;
use candle_optim::Spec;
use candle_optim::hyper::Value;

use crate::folder::Folder;
use crate::train::Epoch;
use events::{Events, Hyperparameter};

/// The folder of all runs.
const ALL: &str = "tensorboard";
/// The file of a run. TensorBoard requires this prefix; usually the number is a time, and the suffix a machine.
const FILE: &str = "events.out.tfevents.0.candle-optim";
/// Names of curves: TensorBoard shows curves with the same word before the slash side by side.
const TAGS: [&str; 4] = ["loss/train", "loss/test", "accuracy/train", "accuracy/test"];
/// The most letters of a run's name in a folder's name.
const LONGEST: usize = 60;

/// A run for TensorBoard.
pub struct Run {
    /// The name that distinguishes it from the others.
    pub name: String,
    /// Its optimizer with all hyperparameters.
    pub spec: Spec,
    /// Its seed.
    pub seed: u32,
    /// All epochs, from the first.
    pub epochs: Vec<Epoch>,
}

/// Writes runs into a folder of results, replacing those of an earlier command.
///
/// # Errors
/// An error of the system. Files that have been written before are complete.
pub fn write(results: &Path, runs: &[Run]) -> Result<()> {
    let all = results.join(ALL);
    remove(&all);
    for (number, run) in runs.iter().enumerate() {
        let folder = Folder::open(&all.join(folder_name(number + 1, &run.name)), &[FILE])?;
        folder.stage(FILE, &|out| Ok(run.write(out)?))?.0.persist()?;
    }
    Ok(())
}

/// Removes the files of earlier runs, and folders that are then empty.
fn remove(all: &Path) {
    for folder in fs::read_dir(all).into_iter().flatten().flatten() {
        let _ = fs::remove_file(folder.path().join(FILE));
        let _ = fs::remove_dir(folder.path());
    }
}

/// A name that every file system accepts, unique for each number.
fn folder_name(number: usize, name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || ".=_".contains(c) { c } else { '-' };
    let name: String = name.chars().take(LONGEST).map(plain).collect();
    // Windows removes a dot from the end.
    format!("{number:02}-{}", name.trim_end_matches('.'))
}

impl Run {
    fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let mut events = Events::new(out)?;
        let resolved = self.spec.resolved();
        let value = |value: &Value| match *value {
            Value::Number(x) => Hyperparameter::Number(x),
            Value::Flag(x) => Hyperparameter::Flag(x),
            Value::Word(x) => Hyperparameter::Text(x),
        };
        let seed = self.seed.to_string();
        let texts = [("optimizer", Hyperparameter::Text(self.spec.text())), ("seed", Hyperparameter::Text(&seed))];
        let numbers = resolved.iter().map(|(key, x)| (key.as_str(), value(x)));
        events.session(texts.into_iter().chain(numbers))?;
        for (epoch, step) in self.epochs.iter().zip(1..) {
            let Epoch { train_loss, test_loss, train_accuracy, test_accuracy } = *epoch;
            let values = [Some(train_loss), Some(test_loss), train_accuracy, test_accuracy];
            for (tag, value) in TAGS.iter().zip(values).filter_map(|(tag, value)| Some((tag, value?))) {
                events.scalar(tag, step, value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_plain_names() {
        let names = ["adam", "sgd:lr=0.1,momentum=0.9", "../..", "a/b\\c\u{202e}", "con.", &"x".repeat(10_000)];
        let folders: Vec<String> = names.iter().zip(1..).map(|(name, number)| folder_name(number, name)).collect();
        assert_eq!(folders[..5], ["01-adam", "02-sgd-lr=0.1-momentum=0.9", "03-..-", "04-a-b-c-", "05-con"]);
        assert_eq!(folders[5].len(), 63);
    }
}
