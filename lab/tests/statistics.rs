//! Every statistic of an experiment, against the numbers of the Python reference (`tests/fixtures/statistics/make.py`).

#[path = "../../tests/common/mod.rs"]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_optim_lab::sweep::runs::{Outcome, Phase, Run, Runs};
use candle_optim_lab::sweep::seeds::Seeds;
use candle_optim_lab::sweep::statistics::{Which, statistics};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Examples; each is a table of runs and what the reference makes of it.
const EXAMPLES: [&str; 11] = [
    "demo",
    "one_seed",
    "ties",
    "diverged",
    "problems",
    "many_seeds",
    "few_seeds",
    "keys",
    "unconfirmed",
    "hundred",
    "partly_confirmed",
];

fn fixtures() -> PathBuf {
    common::path("tests/fixtures/statistics")
}

fn runs(name: &str) -> Runs {
    let file = fs::File::open(fixtures().join(name).with_extension("csv")).unwrap();
    Runs::read(file).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// JSON whose maps are in order and whose numbers are the text of the file: `serde_json` reads some of them a bit off.
#[derive(Debug)]
enum Json {
    Map(Vec<(String, Json)>),
    List(Vec<Json>),
    Other(String),
}

/// Entries of a map, in order.
struct Entries(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Entries;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut entries = vec![];
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

impl Json {
    fn read(text: &str) -> Self {
        match text.trim_start().as_bytes()[0] {
            b'{' => {
                let Entries(entries) = serde_json::from_str(text).unwrap();
                Self::Map(entries.into_iter().map(|(key, value)| (key, Self::read(value.get()))).collect())
            }
            b'[' => {
                let values: Vec<Box<RawValue>> = serde_json::from_str(text).unwrap();
                Self::List(values.iter().map(|value| Self::read(value.get())).collect())
            }
            _ => Self::Other(text.trim().into()),
        }
    }

    fn get(&self, key: &str) -> &Self {
        let Self::Map(entries) = self else { panic!("no map: {self:?}") };
        &entries.iter().find(|(other, _)| other == key).unwrap().1
    }

    /// The number of numbers in it, if it is the same as `expected`; else what differs first.
    fn compare(&self, expected: &Self, path: &str) -> Result<usize, String> {
        let differ = || Err(format!("{path}: {self:?}, but the reference has {expected:?}"));
        match (self, expected) {
            (Self::Map(a), Self::Map(b)) => {
                let names = |entries: &[(String, Self)]| entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
                if names(a) != names(b) {
                    return Err(format!("{path}: keys {:?}, but the reference has {:?}", names(a), names(b)));
                }
                a.iter().zip(b).map(|((key, a), (_, b))| a.compare(b, &format!("{path}/{key}"))).sum()
            }
            (Self::List(a), Self::List(b)) if a.len() == b.len() => {
                a.iter().zip(b).enumerate().map(|(i, (a, b))| a.compare(b, &format!("{path}/{i}"))).sum()
            }
            (Self::Other(a), Self::Other(b)) => {
                let is_float = |text: &str| text.contains(['.', 'e']) && text.parse::<f64>().is_ok();
                match (a.parse::<f64>(), b.parse::<f64>()) {
                    (Ok(x), Ok(y)) if is_float(a) == is_float(b) => {
                        // The only number that a platform's own function computes is a logarithm.
                        let tolerance = if path.ends_with("/decades") { 1e-14 * y.abs() } else { 0. };
                        if x.to_bits() == y.to_bits() || (x - y).abs() <= tolerance { Ok(1) } else { differ() }
                    }
                    (Err(_), Err(_)) if a == b => Ok(0),
                    _ => differ(),
                }
            }
            _ => differ(),
        }
    }
}

#[test]
fn statistics_are_those_of_the_reference() {
    let mut compared = 0;
    for name in EXAMPLES {
        let expected = fs::read_to_string(fixtures().join(name).with_extension("json")).unwrap();
        let expected = Json::read(&expected);
        let Json::Other(seed) = expected.get("seed") else { panic!("{name}") };
        for (by, key) in [(Which::Final, "final"), (Which::Best, "best")] {
            let found = statistics(&runs(name), by, seed.parse().unwrap());
            let found = Json::read(&serde_json::to_string(&found).unwrap());
            compared +=
                found.compare(expected.get(key), &format!("{name}/{key}")).unwrap_or_else(|why| panic!("{why}"));
        }
    }
    assert!(compared > 3000, "{compared} numbers");
}

#[test]
fn every_fixture_is_an_example() {
    let files = fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap().path());
    let tables = files.filter(|path| path.extension().is_some_and(|extension| extension == "csv"));
    let names = tables.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    assert_eq!(names.collect::<BTreeSet<_>>(), EXAMPLES.map(String::from).into());
}

#[test]
fn another_number_is_found() {
    let expected = Json::read(r#"{"a": [1.5, 2, "inf"], "b": null}"#);
    let found = |text| Json::read(text).compare(&expected, "");
    assert_eq!(found(r#"{"a": [15e-1, 2, "inf"], "b": null}"#), Ok(2));
    for other in [
        r#"{"a": [1.5000000000000002, 2, "inf"], "b": null}"#,
        r#"{"a": [1.5, 2.0, "inf"], "b": null}"#,
        r#"{"a": [1.5, 2, "-inf"], "b": null}"#,
        r#"{"a": [1.5, 2, "inf"], "b": 0}"#,
        r#"{"a": [1.5, 2], "b": null}"#,
        r#"{"b": null, "a": [1.5, 2, "inf"]}"#,
        r#"{"a": [1.5, 2, "inf"]}"#,
    ] {
        assert!(found(other).is_err(), "{other}");
    }
}

#[test]
fn a_table_is_written_as_it_was_read() {
    let write = |runs: &Runs| {
        let mut bytes = vec![];
        runs.write(&mut bytes).unwrap();
        bytes
    };
    for name in EXAMPLES {
        let read = runs(name);
        let written = write(&read);
        assert!(!written.contains(&b'\r'), "{name}");
        let again = Runs::read(&written[..]).unwrap();
        assert_eq!(again, read, "{name}");
        assert!(write(&again) == written, "{name}");
    }
}

/// Tables that no whole experiment has; the reference stops at them.
#[test]
fn gaps_in_a_table_are_no_panic() {
    let whole = runs("problems");
    for (keep, what) in [
        (Box::new(|_: &Run| false) as Box<dyn Fn(&Run) -> bool>, "nothing"),
        (Box::new(|run| run.phase == Phase::Confirm), "no tuning"),
        (Box::new(|run| run.optimizer != "sgd" || run.phase == Phase::Confirm), "no tuning of one"),
        (Box::new(|run| run.trial != 2 || run.seed % 2 == 0), "seeds of one setting"),
        (Box::new(|run| run.optimizer != "adam" || run.seed % 2 == 0), "seeds of one optimizer"),
    ] {
        let rows = whole.rows.iter().filter(|run| keep(run)).cloned().collect();
        let found = statistics(&Runs { keys: whole.keys.clone(), rows }, Which::Final, 42);
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("NaN"), "{what}: {text}");
        for (name, problem) in &found.problems.0 {
            assert!(problem.stability.is_none(), "{what}: {name}");
        }
    }
    let mut unmeasured = whole.clone();
    unmeasured.rows.iter_mut().for_each(|run| run.outcome.test_loss = None);
    let found = statistics(&unmeasured, Which::Final, 42);
    let circles = found.problems.get("circles").unwrap();
    assert_eq!(circles.best.as_deref(), Some("adam"));
    assert_eq!(circles.differences.get("sgd").unwrap().equal, 6);
}

/// Runs of `optimizers` times `trials` settings on `seeds` tuning seeds.
fn large(optimizers: usize, trials: usize, seeds: usize) -> Runs {
    let mut rows = vec![];
    for optimizer in 0..optimizers {
        for trial in 0..trials {
            for (j, &seed) in Seeds::new(42, seeds, 0).tune.iter().enumerate() {
                let loss = ((optimizer * 7919 + trial * 104_729 + j * 1_299_709) % 1009) as f64 / 1500.;
                let outcome = Outcome {
                    diverged_at: None,
                    validation_loss: loss,
                    validation_best: loss,
                    best_epoch: None,
                    baseline_loss: 0.6,
                    test_loss: None,
                    test_accuracy: None,
                    epochs_to_target: None,
                    gradient_evaluations: 100,
                    evaluations_to_target: None,
                };
                let (problem, optimizer) = ("circles".into(), optimizer.to_string());
                let searched = vec![Some(format!("{:?}", 1e-4 * (trial + 1) as f64))];
                rows.push(Run { problem, optimizer, phase: Phase::Tune, trial, seed, searched, outcome });
            }
        }
    }
    Runs { keys: vec!["lr".into()], rows }
}

fn time(optimizers: usize, trials: usize, seeds: usize) -> Duration {
    let runs = large(optimizers, trials, seeds);
    let start = Instant::now();
    assert!(statistics(&runs, Which::Final, 42).problems.get("circles").unwrap().stability.is_some());
    start.elapsed()
}

/// `cargo test --release --workspace --test statistics -- --ignored --nocapture`
#[test]
#[ignore = "measures time, which says something of a release build on an idle machine only"]
fn large_experiments_take_seconds_at_most() {
    for (optimizers, trials, seeds, limit) in
        [(4, 25, 10, 0.03), (4, 25, 20, 0.05), (1, 2000, 10, 1.), (30, 2000, 20, 30.)]
    {
        let seconds = time(optimizers, trials, seeds).as_secs_f64();
        println!("{optimizers} x {trials} x {seeds}: {seconds:.4} s");
        assert!(seconds < limit, "{optimizers} x {trials} x {seeds}: {seconds} s");
    }
}
