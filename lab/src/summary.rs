//! `summary.json`: commands, configurations, versions and results.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_optim::Spec;
use candle_optim::hyper;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::cli::{MinimizeArgs, TrainArgs};
use super::data::{Dataset, Shape};
use super::folder::{self, Entry};
use super::minimize;
use super::parity::Pair;
use super::train::Run;

/// The section of a training.
pub const TRAIN: &str = "train";
/// The section of a minimization.
pub const MINIMIZE: &str = "minimize";
const VERSIONS: &str = "versions";

/// The sections of a summary, one for each run. They are stored as text, so that sections of other runs do not change.
#[derive(Debug, Default)]
pub struct Summary(BTreeMap<String, Box<RawValue>>);

/// The parts of a section that are read.
#[derive(Deserialize)]
struct Section {
    #[serde(default)]
    versions: Option<Value>,
    #[serde(default)]
    files: Vec<Entry>,
}

impl Summary {
    /// The summary at `path`, empty if there is none.
    ///
    /// # Errors
    /// A file that this program did not write.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let mut text = vec![];
        match folder::open(path).and_then(|mut file| file.read_to_end(&mut text)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) if error.kind() == ErrorKind::InvalidInput => {
                bail!("'{shown}' is not a file; allowed: a folder without it, by --out")
            }
            read => read.with_context(|| format!("cannot read '{shown}'"))?,
        };
        let summary = serde_json::from_slice(&text).map(Self);
        match summary {
            Ok(summary) if summary.is_ours() => Ok(summary),
            _ => bail!("'{shown}' is not a summary of this program; allowed: a folder without it, by --out"),
        }
    }

    /// Earlier versions of the program wrote their version at the top level.
    fn is_ours(&self) -> bool {
        let versioned = |section: Section| section.versions.is_some_and(|versions| versions.is_object());
        self.0.keys().all(|key| [TRAIN, MINIMIZE, VERSIONS].contains(&key.as_str()))
            && (self.0.contains_key(VERSIONS) || self.0.values().all(|section| parse(section).is_some_and(versioned)))
    }

    /// Removes the sections that do not name their files, or whose files are not all there by `is_there`.
    pub fn keep(&mut self, is_there: impl Fn(&Entry) -> bool) {
        let whole = |section: Section| !section.files.is_empty() && section.files.iter().all(&is_there);
        self.0.retain(|_, section| parse(section).is_some_and(whole));
    }

    /// The names of the sections.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().filter(|key| *key != VERSIONS).cloned().collect()
    }

    /// Whether it has no sections.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes a section.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Adds a section.
    pub fn insert(&mut self, name: &str, section: &Map<String, Value>) -> Result<()> {
        let text = serde_json::to_string_pretty(section)?.replace('\n', "\n  ");
        self.0.insert(name.into(), RawValue::from_string(text)?);
        Ok(())
    }

    /// The text of the file.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.0)? + "\n")
    }
}

fn parse(section: &RawValue) -> Option<Section> {
    serde_json::from_str(section.get()).ok()
}

/// Versions of this program and of what its numbers depend on.
pub fn versions() -> Value {
    let lock = include_str!("../../Cargo.lock");
    let version = |package: &str| {
        let entry = lock.split("[[package]]").find(|entry| entry.contains(&format!("name = \"{package}\"\n")))?;
        entry.lines().find_map(|line| line.strip_prefix("version = \""))?.strip_suffix('"')
    };
    json!({
        "candle-optim": env!("CARGO_PKG_VERSION"),
        "candle-core": version("candle-core"),
        "candle-nn": version("candle-nn"),
    })
}

fn settings(spec: &Spec) -> Map<String, Value> {
    let value = |value| match value {
        hyper::Value::Number(x) => json!(x),
        hyper::Value::Flag(x) => json!(x),
        hyper::Value::Word(x) => json!(x),
    };
    let maximize = ("maximize".into(), json!(spec.method().maximizes()));
    spec.resolved().into_iter().map(|(key, x)| (key, value(x))).chain([maximize]).collect()
}

/// The contents of the section of a training. JSON has no NaN or infinity: they are null.
pub fn training(
    title: &str,
    args: &TrainArgs,
    dataset: &Dataset,
    specs: &[Spec],
    runs: &[Run],
    parity: &[Pair],
) -> Map<String, Value> {
    let optimizers: Vec<Value> = specs
        .iter()
        .zip(runs)
        .map(|(spec, run)| {
            json!({
                "optimizer": run.optimizer,
                "settings": settings(spec),
                "note": run.note,
                "final": run.epochs.last(),
                "diverged_at_epoch": run.diverged_at(),
                "seconds": run.time.as_secs_f64(),
                "microseconds_per_epoch": run.time.as_secs_f64() * 1e6 / run.epochs.len() as f64,
            })
        })
        .collect();
    let data = match &args.data {
        // JSON is text, but a file name need not be.
        Some(file) => json!({
            "file": file.display().to_string(),
            "target": args.target,
            "task_type": args.task_type.name(),
            "columns": dataset.columns,
            "notes": dataset.notes,
        }),
        None => points(args),
    };
    section(
        json!({
            "data": data,
            "features": dataset.features,
            "classes": dataset.classes,
            "train_rows": dataset.train.y.len(),
            "test_rows": dataset.test.y.len(),
            "test_size": args.test_size,
            "hidden": args.hidden,
            "activation": args.activation.name(),
            "epochs": args.epochs,
            "batch_size": args.batch_size,
            "seed": args.seed,
            "lr": args.lr,
            "dtype": args.dtype.0.as_str(),
            "stochastic_rounding": args.stochastic_rounding,
            "device": format!("{:?}", args.device).to_lowercase(),
        }),
        [("title", json!(title)), ("optimizers", json!(optimizers)), ("parity", json!(parity))],
    )
}

fn points(args: &TrainArgs) -> Value {
    let Ok(points) = args.points() else { return Value::Null };
    let mut keys = Map::new();
    keys.insert("samples".into(), json!(points.samples));
    keys.insert("noise".into(), json!(points.noise));
    match points.shape {
        Shape::Circles(factor) => drop(keys.insert("factor".into(), json!(factor))),
        Shape::Blobs(centers) => drop(keys.insert("centers".into(), json!(centers))),
        Shape::Moons | Shape::Spirals => {}
    }
    json!({ points.name(): keys })
}

/// The contents of the section of a minimization.
pub fn minimization(
    args: &MinimizeArgs,
    start: &[f64],
    specs: &[Spec],
    paths: &[minimize::Path],
) -> Map<String, Value> {
    let optimizers: Vec<Value> = specs
        .iter()
        .zip(paths)
        .map(|(spec, path)| {
            let (x, value) = path.points.last().cloned().unwrap_or_default();
            json!({ "optimizer": path.optimizer, "settings": settings(spec), "x": x, "value": value })
        })
        .collect();
    let configuration = json!({ "function": args.function.name, "start": start, "steps": args.steps, "lr": args.lr });
    section(configuration, [("optimizers", json!(optimizers))])
}

fn section<const N: usize>(configuration: Value, more: [(&str, Value); N]) -> Map<String, Value> {
    let all = [(VERSIONS, versions()), ("configuration", configuration)].into_iter().chain(more);
    all.map(|(key, value)| (key.to_owned(), value)).collect()
}
