//! `summary.json`: what was run, with what, and what came out.

use anyhow::Result;
use candle_optim::Spec;
use candle_optim::hyper;
use serde_json::{Map, Value, json};

use super::cli::{MinimizeArgs, TrainArgs};
use super::data::Dataset;
use super::minimize::Path;
use super::parity::Pair;
use super::train::Run;

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

/// The section of a training. JSON has no NaN or infinity: they are null.
pub fn training(args: &TrainArgs, dataset: &Dataset, specs: &[Spec], runs: &[Run], parity: &[Pair]) -> Result<Value> {
    let optimizers: Vec<Value> = specs
        .iter()
        .zip(runs)
        .map(|(spec, run)| {
            Ok(json!({
                "optimizer": run.optimizer,
                "settings": settings(spec),
                "note": run.note,
                "final": serde_json::to_value(run.epochs.last())?,
                "diverged_at_epoch": run.diverged_at(),
                "seconds": run.time.as_secs_f64(),
                "microseconds_per_epoch": run.time.as_secs_f64() * 1e6 / run.epochs.len() as f64,
            }))
        })
        .collect::<Result<_>>()?;
    let data = match &args.data {
        Some(file) => json!({ "file": file, "target": args.target }),
        None => json!({ "circles": { "samples": args.samples, "noise": args.noise, "factor": args.factor } }),
    };
    Ok(json!({
        "configuration": {
            "data": data,
            "features": dataset.features,
            "classes": dataset.classes,
            "train_rows": dataset.train.y.len(),
            "test_rows": dataset.test.y.len(),
            "test_size": args.test_size,
            "hidden": args.hidden,
            "epochs": args.epochs,
            "batch_size": args.batch_size,
            "seed": args.seed,
            "lr": args.lr,
            "dtype": args.dtype.0.as_str(),
            "device": format!("{:?}", args.device).to_lowercase(),
        },
        "optimizers": optimizers,
        "parity": parity,
    }))
}

/// The section of a minimization.
pub fn minimization(args: &MinimizeArgs, start: &[f64], specs: &[Spec], paths: &[Path]) -> Value {
    let optimizers: Vec<Value> = specs
        .iter()
        .zip(paths)
        .map(|(spec, path)| {
            let (x, value) = path.points.last().cloned().unwrap_or_default();
            json!({ "optimizer": path.optimizer, "settings": settings(spec), "x": x, "value": value })
        })
        .collect();
    json!({
        "configuration": { "function": args.function.name, "start": start, "steps": args.steps, "lr": args.lr },
        "optimizers": optimizers,
    })
}
