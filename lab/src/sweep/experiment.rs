//! An experiment: the problems, the optimizers, and how they are tuned. One TOML file has all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_optim::Spec;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::space::{Range, Sampler, Search, Settings};
use super::statistics::Which;
use crate::optimizer::parse;
use crate::shown::shown;

/// The version of the format.
const FORMAT: u32 = 1;

/// An experiment. Its text, including all defaults, is the same on every machine.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    format: u32,
    /// The seed of everything that is random.
    pub seed: u32,
    /// The problems, one or more.
    pub problem: Vec<Problem>,
    /// How networks are trained.
    pub training: Training,
    /// How the rows are divided.
    pub split: Split,
    /// How each optimizer is tuned.
    pub tuning: Tuning,
    /// The optimizers, one or more.
    pub optimizer: Vec<Optimizer>,
}

/// How a network is trained.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// Passes over the training rows, or steps on a function.
    pub epochs: usize,
    /// Rows in a batch; 0 takes all at once.
    pub batch_size: usize,
    /// The share of the baseline that the validation loss is to reach: the target.
    pub target: f64,
}

/// Shares of the rows.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Share of all rows, for testing.
    pub test: f64,
    /// Share of the other rows, for validation.
    pub validation: f64,
}

/// How each optimizer is tuned: all with the same budget on the same seeds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    /// The number of settings of an optimizer.
    pub trials: usize,
    /// Seeds on which each setting is trained.
    pub seeds: usize,
    /// How settings are chosen.
    pub sampler: Sampler,
    /// Which validation loss counts.
    pub score: Which,
    /// Seeds on which the best setting of each optimizer is trained again.
    pub confirm_seeds: usize,
}

/// An optimizer with its search.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Optimizer {
    /// The optimizer, without the keys that are searched.
    #[serde(with = "as_text")]
    pub spec: Spec,
    /// Its name in files and pictures; the spec if it is empty.
    #[serde(default)]
    pub label: String,
    /// The searched keys; without it, the learning rate around its default.
    pub search: Option<Search>,
}

/// A spec as its text.
mod as_text {
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::{Serialize, Serializer};

    use super::{Spec, parse};

    pub fn serialize<S: Serializer>(spec: &Spec, serializer: S) -> Result<S::Ok, S::Error> {
        spec.text().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spec, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Optimizer {
    /// Reads `SPEC[@KEY=RANGE,...]`.
    ///
    /// # Errors
    /// An unknown optimizer, or a range that cannot be read.
    pub fn read(text: &str) -> Result<Self> {
        let (spec, ranges) = text.split_once('@').map_or((text, None), |(spec, ranges)| (spec, Some(ranges)));
        let range = |pair: &str| {
            let (key, range) = pair
                .split_once('=')
                .with_context(|| format!("cannot read '@{}'; allowed: KEY=RANGE, as in @lr=1e-4..1", shown(pair)))?;
            anyhow::Ok((key.trim().to_owned(), range.parse::<Range>()?))
        };
        let search =
            ranges.map(|ranges| ranges.split(',').map(range).collect::<Result<_>>().map(Search)).transpose()?;
        Ok(Self { spec: parse(spec)?, label: String::new(), search })
    }
}

impl Experiment {
    /// An experiment from parts, which may omit values that have defaults.
    ///
    /// # Errors
    /// Values that are not allowed or contradict each other.
    pub fn new(
        seed: u32,
        problem: Vec<Problem>,
        training: Training,
        split: Split,
        tuning: Tuning,
        optimizer: Vec<Optimizer>,
    ) -> Result<Self> {
        Self { format: FORMAT, seed, problem, training, split, tuning, optimizer }.resolved()
    }

    /// Reads a file.
    ///
    /// # Errors
    /// A missing file, unknown, missing or repeated keys, or values that are not allowed. The message names the line of
    /// a key.
    pub fn open(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let text = fs::read(path).context("cannot read it")?;
            let text = String::from_utf8(text).map_err(|_| anyhow!("it is not text in UTF-8"))?;
            // Some editors begin a file with a byte order mark.
            let text = text.trim_start_matches('\u{feff}');
            let at = |error: toml::de::Error| {
                let at = error.span().unwrap_or_default();
                let before = text.get(..at.start).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                match error.message() {
                    "duplicate key" => anyhow!("line {line}: the key '{}' stands twice", shown(&text[at])),
                    message => anyhow!("line {line}: {}", explained(message)),
                }
            };
            let experiment: Self = toml::from_str(text).map_err(at)?;
            for (number, problem) in experiment.problem.iter().enumerate() {
                if let Some(key) = problem.missing_key()? {
                    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| line.trim() == "[[problem]]");
                    let line = lines.nth(number).map_or(1, |(line, _)| line);
                    bail!("line {line}: the key '{key}' is missing");
                }
            }
            experiment.resolved()
        };
        read().with_context(|| format!("the experiment '{}'", path.display()))
    }

    /// The same experiment with all defaults.
    fn resolved(mut self) -> Result<Self> {
        let Self { format, problem, training, split, tuning, optimizer, .. } = &mut self;
        let check = |key: &str, value: f64, allowed: std::ops::RangeInclusive<f64>| {
            let (from, to) = (allowed.start(), allowed.end());
            ensure!(allowed.contains(&value), "{key} = {value} is not allowed: it must be from {from} to {to}");
            Ok(())
        };
        check("format", f64::from(*format), f64::from(FORMAT)..=f64::from(FORMAT))?;
        check("training.epochs", training.epochs as f64, 1.0..=1e7)?;
        check("training.batch_size", training.batch_size as f64, 0.0..=1e9)?;
        check("tuning.trials", tuning.trials as f64, 1.0..=1e6)?;
        check("tuning.seeds", tuning.seeds as f64, 1.0..=1e6)?;
        check("tuning.confirm_seeds", tuning.confirm_seeds as f64, 1.0..=1e6)?;
        for (key, value) in
            [("training.target", training.target), ("split.test", split.test), ("split.validation", split.validation)]
        {
            let allowed = "it must lie between 0 and 1, both excluded";
            ensure!(0. < value && value < 1., "{key} = {value} is not allowed: {allowed}");
        }
        ensure!(!problem.is_empty(), "no problem; allowed: one [[problem]] or more");
        ensure!(!optimizer.is_empty(), "no optimizer; allowed: one [[optimizer]] or more");
        for problem in problem.iter_mut() {
            problem.resolve()?;
        }
        for optimizer in optimizer.iter_mut() {
            if optimizer.label.is_empty() {
                optimizer.label = optimizer.spec.text().into();
            }
            optimizer.search.get_or_insert_with(|| Search::of_learning_rate(&optimizer.spec));
        }
        check_distinct("problems", problem.iter().map(Problem::label))?;
        check_distinct("optimizers", optimizer.iter().map(|optimizer| optimizer.label.as_str()))?;
        Ok(self)
    }

    /// The settings of each optimizer.
    ///
    /// # Errors
    /// See [`Search::settings`].
    pub fn settings(&self) -> Result<Vec<Settings>> {
        let Tuning { trials, sampler, .. } = self.tuning;
        let of = |optimizer: &Optimizer| {
            let search = optimizer.search.clone().unwrap_or_default();
            let settings = search.settings(&optimizer.spec, trials, sampler, self.seed);
            settings.with_context(|| format!("optimizer '{}'", shown(&optimizer.label)))
        };
        self.optimizer.iter().map(of).collect()
    }

    /// The text of its file.
    ///
    /// # Errors
    /// None is known.
    pub fn text(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }

    /// The keys whose values differ from those of `other`, with both values.
    ///
    /// # Errors
    /// None is known.
    pub fn differences(&self, other: &Self) -> Result<Vec<String>> {
        let leaves = |experiment: &Self| -> Result<BTreeMap<String, String>> {
            let mut leaves = BTreeMap::new();
            collect(&toml::Value::try_from(experiment)?, String::new(), &mut leaves);
            Ok(leaves)
        };
        let (ours, theirs) = (leaves(self)?, leaves(other)?);
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        let value = |of: &BTreeMap<String, String>, key: &String| of.get(key).map_or("not set".into(), |x| shown(x));
        let differing = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
        Ok(differing.map(|key| format!("{key} ({} there, {} here)", value(&theirs, key), value(&ours, key))).collect())
    }

    /// All searched keys, in order of first use.
    pub fn keys(&self) -> Vec<String> {
        let searches = self.optimizer.iter().filter_map(|optimizer| optimizer.search.as_ref());
        let mut keys: Vec<String> = vec![];
        for (key, _) in searches.flat_map(|search| &search.0) {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        keys
    }
}

fn check_distinct<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut seen = BTreeSet::new();
    for name in names {
        ensure!(seen.insert(name), "two {what} are named '{}'; allowed: names that differ, by 'label'", shown(name));
    }
    Ok(())
}

/// The values of a table, by path. Nested tables are flattened.
fn collect(value: &toml::Value, path: String, leaves: &mut BTreeMap<String, String>) {
    match value {
        toml::Value::Table(table) => {
            let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
            table.iter().for_each(|(key, value)| collect(value, below(key), leaves));
        }
        toml::Value::Array(array) if array.iter().any(toml::Value::is_table) => {
            array.iter().enumerate().for_each(|(i, value)| collect(value, format!("{path}[{i}]"), leaves));
        }
        _ => drop(leaves.insert(path, value.to_string())),
    }
}

/// Reads a word of the command line as a value of an experiment.
///
/// # Errors
/// An unknown word.
pub fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let word = StrDeserializer::<serde::de::value::Error>::new(text);
    T::deserialize(word).map_err(|error| explained(&error.to_string()))
}

/// A message of serde in the wording of the other messages.
fn explained(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = |what: &str| match quoted.split_first() {
        Some((given, allowed)) => crate::unknown(what, given, allowed.iter().copied()).to_string(),
        None => message.into(),
    };
    match message.split_once(" field `").or(message.split_once(" variant `")) {
        Some(("unknown", _)) if message.starts_with("unknown field") => unknown("key"),
        Some(("unknown", _)) => unknown("word"),
        Some(("missing", _)) => format!("the key '{}' is missing", quoted.concat()),
        _ => {
            let text = message.lines().collect::<Vec<_>>().join(" ");
            // Rust's names of number types.
            text.replace("expected usize", "allowed: a whole number from 0")
                .replace("expected f64", "allowed: a number")
        }
    }
}
