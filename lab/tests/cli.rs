//! The program as a user runs it: files, messages and exit codes.

#[path = "../../tests/common/mod.rs"]
mod common;
mod folder;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{DType, Device};
use candle_optim_lab::data::{Circles, Dataset};
use candle_optim_lab::nn::Activation;
use candle_optim_lab::optimizer::parse;
use candle_optim_lab::train::{Settings, train};
use candle_optim_lab::twins::registry;
use common::path;
use folder::{Folder, PROGRAM};
use serde_json::Value;

impl Folder {
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), contents).unwrap();
    }

    /// The rows of a table, by column.
    fn rows(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        csv::Reader::from_path(self.path(name)).unwrap().deserialize().collect::<Result<_, _>>().unwrap()
    }

    /// All files and folders with their contents.
    fn snapshot(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        fn visit(folder: &Path, seen: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                seen.insert(path.clone(), fs::read(&path).ok());
                if path.is_dir() {
                    visit(&path, seen);
                }
            }
        }
        let mut seen = BTreeMap::new();
        visit(self.0.path(), &mut seen);
        seen
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn float(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column].parse().unwrap()
}

const CHAPTER: [&str; 7] = ["sgd", "sgd:momentum=0.9", "rmsprop", "adam", "adamw", "candle-sgd", "candle-adamw"];

#[test]
fn the_chapter_writes_everything() {
    let folder = Folder::new();
    let printed = folder.run("");
    assert_eq!(folder.names("."), ["outputs"]);
    let pictures = ["comparison", "minimize", "norms", "path", "predictions", "surface"];
    let pictures = pictures.iter().flat_map(|name| [format!("{name}.png"), format!("{name}.svg")]);
    let files = ["details.safetensors", "losses.csv", "minimize.csv", "report.html", "summary.json"];
    let mut files: Vec<String> = files.map(Into::into).into_iter().chain(pictures).collect();
    files.sort();
    assert_eq!(folder.names("outputs"), files);

    let header = "optimizer,seed,epoch,train_loss,test_loss,train_accuracy,test_accuracy\n";
    assert!(folder.read("outputs/losses.csv").starts_with(header));
    assert_eq!(folder.rows("outputs/losses.csv").len(), CHAPTER.len() * 100);
    assert!(folder.read("outputs/minimize.csv").starts_with("optimizer,step,x0,value\n"));

    let png = fs::read(folder.path("outputs/comparison.png")).unwrap();
    assert_eq!(png[..8], *b"\x89PNG\r\n\x1a\n");
    assert_eq!(u32::from_be_bytes(png[16..20].try_into().unwrap()), 1600);
    let svg = folder.read("outputs/comparison.svg");
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));

    let summary = folder.json("outputs/summary.json");
    for key in [
        "/train/versions/candle-optim",
        "/minimize/versions/candle-core",
        "/train/configuration",
        "/minimize/configuration",
    ] {
        assert!(summary.pointer(key).is_some(), "{key}");
    }
    assert_eq!(summary["train"]["configuration"]["epochs"], 100);
    assert_eq!(summary["train"]["configuration"]["hidden"], serde_json::json!([16, 16]));
    for (optimizer, expected) in summary["train"]["optimizers"].as_array().unwrap().iter().zip(CHAPTER) {
        assert_eq!(optimizer["optimizer"], expected);
        assert_eq!(optimizer["settings"]["lr"], 0.01);
        assert!(optimizer["final"]["test_loss"].is_f64() && optimizer["diverged_at_epoch"].is_null());
        assert!(printed.contains(expected) && svg.contains(expected), "{expected}");
    }
    for text in ["Train loss", "Test loss", "Epoch", "seed 42"] {
        assert!(svg.contains(text), "{text}");
    }
    let sgd_is_candles = summary["train"]["parity"].as_array().unwrap().iter().any(|pair| {
        pair["optimizer"] == "sgd"
            && pair["against"] == "candle-sgd"
            && pair["train_loss"] == 0.
            && pair["test_loss"] == 0.
    });
    assert!(sgd_is_candles);
}

/// Those of the chapter itself: its formulas on θ², PyTorch's losses in f64.
#[test]
fn the_chapters_end_values_are_met() {
    let folder = Folder::new();
    folder.run("minimize");
    for (optimizer, expected) in [
        ("sgd", 0.057646075230342354),
        ("momentum", -1.3533566908039512),
        ("rmsprop:alpha=0.9", 2.451835572498659),
        ("adam", 3.060338887144194),
    ] {
        let rows = folder.rows("outputs/minimize.csv");
        let row = rows.iter().find(|row| row["optimizer"] == optimizer && row["step"] == "20").unwrap();
        assert!((float(row, "x0") - expected).abs() <= 1e-14, "{optimizer}: {row:?}");
        assert_eq!(float(row, "value"), float(row, "x0").powi(2));
    }

    folder.run("train --dtype f64");
    let rows = folder.rows("outputs/losses.csv");
    for (optimizer, train_loss, test_loss) in [
        ("sgd", 0.6944378370930208, 0.6951757743509841),
        ("sgd:momentum=0.9", 0.6901176084693031, 0.6914016538112213),
        ("rmsprop", 0.18471527287434586, 0.16559466376462917),
        ("adam", 0.020839454558117063, 0.02037965952261322),
    ] {
        let curve: Vec<_> = rows.iter().filter(|row| row["optimizer"] == optimizer).collect();
        let close = |row: usize, column: &str, e: f64| (float(curve[row], column) - e).abs() <= 1e-12;
        assert!(close(0, "train_loss", 0.6975017952389507), "{optimizer}: {:?}", curve[0]);
        assert!(
            close(99, "train_loss", train_loss) && close(99, "test_loss", test_loss),
            "{optimizer}: {:?}",
            curve[99]
        );
    }
}

#[test]
fn tables_hold_what_the_library_computes_to_the_bit() {
    let folder = Folder::new();
    folder.run("train --epochs 5 --seed 3 --samples 200 --hidden 8 --batch-size 50 --no-report --out results");
    assert_eq!(folder.names("results"), ["comparison.png", "comparison.svg", "losses.csv", "summary.json"]);
    let mut rows = folder.rows("results/losses.csv").into_iter();
    let circles = Circles { samples: 200, ..Circles::default() };
    let dataset = Dataset::circles(&circles, 0.3, 3).unwrap();
    let settings = Settings {
        epochs: 5,
        batch_size: 50,
        seed: 3,
        hidden: vec![8],
        activation: Activation::Relu,
        dtype: DType::F32,
        stochastic_rounding: false,
        device: Device::Cpu,
    };
    for optimizer in CHAPTER {
        let run = train(&dataset, &parse(optimizer).unwrap().or_lr(0.01), &settings, ()).unwrap();
        for (i, epoch) in run.epochs.iter().enumerate() {
            let row = rows.next().unwrap();
            assert_eq!((row["optimizer"].as_str(), row["seed"].as_str()), (optimizer, "3"));
            assert_eq!(row["epoch"], (i + 1).to_string());
            let read = ["train_loss", "test_loss", "train_accuracy", "test_accuracy"].map(|column| float(&row, column));
            let [train_accuracy, test_accuracy] = [epoch.train_accuracy, epoch.test_accuracy].map(Option::unwrap);
            let computed = [epoch.train_loss, epoch.test_loss, train_accuracy, test_accuracy];
            assert_eq!(read.map(f64::to_bits), computed.map(f64::to_bits), "{row:?}");
        }
    }
    assert!(rows.next().is_none());
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    for arguments in [
        "--epochs 20",
        "--epochs 5 --batch-size 64 --dtype f64",
        "--epochs 5 --dtype bf16",
        // Large enough for matrix products to use threads.
        "--epochs 3 --hidden 256,256 --samples 3000",
    ] {
        let losses = |threads: &str, seed: u32| {
            let folder = Folder::new();
            let mut command = folder.command(&format!("train {arguments} --seed {seed} --quiet"));
            let output = command.env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
            folder.read("outputs/losses.csv")
        };
        let first = losses("1", 5);
        for threads in ["1", "2", "4"] {
            assert!(losses(threads, 5) == first, "{arguments}: other losses on {threads} threads");
        }
        assert!(losses("2", 6) != first, "{arguments}: the seed changes nothing");
    }
}

#[test]
fn a_diverging_run_is_a_result() {
    let folder = Folder::new();
    for optimizer in ["lbfgs:lr=1e30", "sam:base=sgd,base_lr=1e30", "muon:lr=1e30"] {
        assert!(
            folder.run(&format!("train --epochs 5 --optimizer {optimizer}")).contains("diverged at epoch"),
            "{optimizer}"
        );
    }
    let printed = folder.run("train --optimizer sgd:lr=1e30 --optimizer adam --epochs 7");
    assert!(printed.contains("diverged at epoch"), "{printed}");
    assert!(folder.read("outputs/comparison.svg").contains("diverged at epoch"));
    let rows = folder.rows("outputs/losses.csv");
    assert_eq!(rows.len(), 14);
    assert!(!float(&rows[6], "train_loss").is_finite());
    let diverged = folder.json("outputs/summary.json")["train"]["optimizers"][0]["diverged_at_epoch"].as_u64().unwrap();
    assert!(printed.contains(&format!("diverged at epoch {diverged})")), "{printed}");
    let is_finite = |row: &BTreeMap<_, _>| float(row, "train_loss").is_finite() && float(row, "test_loss").is_finite();
    assert_eq!(rows.iter().position(|row| !is_finite(row)), Some(diverged as usize - 1));
}

/// Most of these steps are less than half a unit of a weight's last place.
#[test]
fn a_bf16_network_learns_with_stochastic_rounding_where_it_stood_still() {
    let folder = Folder::new();
    let mut loss = |options: &str| {
        folder.run(&format!("train --optimizer adam:lr=0.0003 --epochs 1500 {options}"));
        float(folder.rows("outputs/losses.csv").last().unwrap(), "test_loss")
    };
    let [f32, nearest, stochastic] = ["", "--dtype bf16", "--dtype bf16 --stochastic-rounding"].map(&mut loss);
    assert!(nearest > 0.6 && f32 < 0.2 && stochastic < 1.2 * f32, "{f32} {nearest} {stochastic}");
    assert_eq!(folder.json("outputs/summary.json")["train"]["configuration"]["stochastic_rounding"], true);
}

#[test]
fn every_function_is_minimized_from_any_start() {
    let folder = Folder::new();
    for (arguments, columns) in [
        ("square --start 1,-2,3", 3),
        ("ravine --start -1e-3,2.5", 2),
        ("rosenbrock", 2),
        ("rosenbrock --start 1,2,3,4", 4),
        ("himmelblau", 2),
        ("beale", 2),
        ("booth", 2),
        ("rastrigin", 2),
        ("sphere --start 4,1,2", 3),
        ("quadratic --start 1,2", 2),
        ("saddle", 2),
        ("ackley", 2),
    ] {
        folder.run(&format!("minimize --steps 4 --optimizer adam --function {arguments}"));
        assert_eq!(folder.names("outputs").contains(&"path.svg".into()), columns < 3, "{arguments}");
        let rows = folder.rows("outputs/minimize.csv");
        assert_eq!(rows.len(), 5, "{arguments}");
        assert_eq!(rows[0].keys().filter(|key| key.starts_with('x')).count(), columns, "{arguments}");
        assert_eq!(rows.iter().map(|row| row["step"].as_str()).collect::<Vec<_>>(), ["0", "1", "2", "3", "4"]);
    }
    folder.run("minimize --steps 4 --no-report");
    assert_eq!(folder.names("outputs"), ["minimize.csv", "summary.json"]);
}

/// Methods of whole tensors, methods that compute the loss again, and wrappers, besides the chapter's.
const OTHERS: [&str; 6] = [
    "lbfgs:line_search_fn=strong_wolfe",
    "muon",
    "schedulefreesgd",
    "prodigy",
    "lookahead:base=adam,base_lr=0.01",
    "sam:base=sgd",
];

fn options(specs: &[&str]) -> String {
    specs.iter().map(|spec| format!(" --optimizer {spec}")).collect()
}

#[test]
fn every_kind_of_optimizer_learns_the_same_twice() {
    let folder = Folder::new();
    for (arguments, learns) in [
        ("--epochs 30", true),
        // L-BFGS takes the curvature from differences between batches.
        ("--epochs 3 --batch-size 100 --dtype f64", false),
    ] {
        let command = format!("train {arguments}{}", options(&OTHERS));
        let printed = folder.run(&command);
        let losses = folder.read("outputs/losses.csv");
        let rows = folder.rows("outputs/losses.csv");
        for optimizer in OTHERS {
            let curve: Vec<_> = rows.iter().filter(|row| row["optimizer"] == optimizer).collect();
            let falls = |column: &str| float(curve[curve.len() - 1], column) < float(curve[0], column);
            assert!(!learns || falls("train_loss") && falls("test_loss"), "{optimizer} with {arguments}: {curve:?}");
        }
        let moves = "muon moves 0.weight, 2.weight, 4.weight; adamw at its defaults moves 0.bias, 2.bias, 4.bias";
        assert_eq!(
            printed.lines().filter(|line| line.contains(" moves ")).collect::<Vec<_>>(),
            [format!("muon: {moves}")]
        );
        let notes = |optimizer: &Value| (optimizer["optimizer"] == "muon") == (optimizer["note"] == moves);
        assert!(folder.json("outputs/summary.json")["train"]["optimizers"].as_array().unwrap().iter().all(notes));
        folder.run(&command);
        assert!(folder.read("outputs/losses.csv") == losses, "{arguments}: other losses");
    }
}

#[test]
fn averages_are_evaluated_and_do_not_disturb_the_training() {
    let folder = Folder::new();
    let specs = ["adam:lr=0.01", "ema:base=adam,base_lr=0.01,decay=0", "ema:base=adam,base_lr=0.01,decay=0.9"];
    folder.run(&format!("train --epochs 10{}", options(&specs)));
    let rows = folder.rows("outputs/losses.csv");
    let [adam, copy, average]: [Vec<_>; 3] =
        specs.map(|spec| rows.iter().filter(|row| row["optimizer"] == spec).collect());
    for ((adam, copy), average) in adam.iter().zip(copy).zip(average) {
        for other in [copy, average] {
            assert_eq!(adam["train_loss"], other["train_loss"]);
        }
        assert_eq!(adam["test_loss"], copy["test_loss"]);
        assert_ne!(adam["test_loss"], average["test_loss"]);
    }

    folder.run("minimize --steps 5 --optimizer ema:base=sgd,base_lr=0.1,decay=0.75");
    let (mut x, mut average) = (5., 5.);
    for row in folder.rows("outputs/minimize.csv") {
        assert!((float(&row, "x0") - average).abs() <= 1e-14, "{row:?}");
        assert_eq!(float(&row, "value"), float(&row, "x0").powi(2));
        x *= 0.8;
        average = 0.75 * average + 0.25 * x;
    }
}

#[test]
fn the_learning_rate_is_the_specs_then_the_options_then_the_chapters_or_the_optimizers() {
    let folder = Folder::new();
    let specs = [
        "sgd:momentum=0.5",
        "rmsprop:alpha=0.9",
        "candle-adamw",
        "adam:lr=0.2",
        "lion",
        "lion:lr=0.2",
        "lookahead:base=adam",
    ];
    let rates = |arguments: &str| -> Vec<f64> {
        folder.run(&format!("train --epochs 1{arguments}{}", options(&specs)));
        let summary = folder.json("outputs/summary.json");
        let optimizers = summary["train"]["optimizers"].as_array().unwrap().iter();
        let lr = |settings: &Value| settings["lr"].as_f64().or(settings["base_lr"].as_f64()).unwrap();
        optimizers.map(|optimizer| lr(&optimizer["settings"])).collect()
    };
    assert_eq!(rates(""), [0.01, 0.01, 0.01, 0.2, 1e-4, 0.2, 1e-3]);
    assert_eq!(rates(" --lr 0.5"), [0.5, 0.5, 0.5, 0.2, 0.5, 0.2, 1e-3]);

    let first = |arguments: &str| -> f64 {
        folder.run(&format!("minimize --steps 1 --optimizer {arguments}"));
        float(&folder.rows("outputs/minimize.csv")[1], "x0")
    };
    for (arguments, x) in [
        ("sgd", 4.),
        ("candle-sgd", 4.),
        ("candle-sgd:maximize=true", 6.),
        ("sgd --lr 0.2", 3.),
        ("sgd:lr=0.3 --lr 0.2", 2.),
        ("lion", 4.9999),
        ("lion --lr 0.5", 4.5),
        ("lookahead:base=sgd", 4.99),
        ("lookahead:base=sgd --lr 0.5", 4.99),
    ] {
        assert!((first(arguments) - x).abs() <= 1e-15 * 8., "{arguments}: {} instead of {x}", first(arguments));
    }
}

#[test]
fn the_summary_has_the_keys_of_a_spec() {
    let folder = Folder::new();
    folder.run(&format!(
        "train --epochs 1{}",
        options(&["sam:base=sgd,base_nesterov=true,base_momentum=0.9", OTHERS[0]])
    ));
    let summary = folder.json("outputs/summary.json");
    let settings = |i: usize| summary["train"]["optimizers"][i]["settings"].clone();
    let sam = serde_json::json!({
        "rho": 0.05, "adaptive": false, "maximize": false, "base": "sgd", "base_lr": 0.001, "base_momentum": 0.9,
        "base_dampening": 0.0, "base_nesterov": true, "base_weight_decay": 0.0,
    });
    assert_eq!(settings(0), sam);
    assert_eq!(settings(1)["line_search_fn"], "strong_wolfe");
    assert_eq!(settings(1)["max_eval"], "none");
}

#[test]
fn a_spec_is_shown_as_it_was_given() {
    let folder = Folder::new();
    let given = [" adam : lr = 0.1 , amsgrad = true", "adam:lr=0.1,amsgrad=true", "adam:lr=1e-1,amsgrad=true,eps=1e-8"];
    let mut command = folder.command("train --epochs 3");
    command.args(given.iter().flat_map(|spec| ["--optimizer", spec]));
    let output = command.output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let rows = folder.rows("outputs/losses.csv");
    assert_eq!(rows.iter().step_by(3).map(|row| row["optimizer"].as_str()).collect::<Vec<_>>(), given);
    let losses =
        |rows: &[BTreeMap<String, String>]| rows.iter().map(|row| row["test_loss"].clone()).collect::<Vec<_>>();
    assert!(losses(&rows[..3]) == losses(&rows[3..6]) && losses(&rows[..3]) == losses(&rows[6..]));
    let summary = folder.json("outputs/summary.json");
    for (optimizer, given) in summary["train"]["optimizers"].as_array().unwrap().iter().zip(given) {
        assert_eq!(optimizer["optimizer"], given);
    }
}

#[test]
fn candles_optimizers_climb_as_ours_do() {
    let folder = Folder::new();
    folder
        .run(&format!("train --epochs 5{}", options(&["sgd:maximize=true", "candle-sgd:maximize=true", "candle-sgd"])));
    let rows = folder.rows("outputs/losses.csv");
    assert!(float(&rows[9], "train_loss") > float(&rows[5], "train_loss"));
    let parity = &folder.json("outputs/summary.json")["train"]["parity"];
    let pair = &parity[0];
    assert_eq!(parity.as_array().unwrap().len(), 1, "{parity}");
    assert_eq!(
        (pair["optimizer"].as_str(), pair["against"].as_str()),
        (Some("sgd:maximize=true"), Some("candle-sgd:maximize=true"))
    );
    assert_eq!((pair["train_loss"].as_f64(), pair["test_loss"].as_f64()), (Some(0.), Some(0.)));
}

#[test]
fn lbfgs_finds_a_minimum() {
    let folder = Folder::new();
    folder.run("minimize --function booth --steps 3 --optimizer lbfgs --optimizer lbfgs:line_search_fn=strong_wolfe");
    for row in folder.rows("outputs/minimize.csv").iter().filter(|row| row["step"] == "3") {
        assert!(float(row, "value") < 1e-10, "{row:?}");
        assert!((float(row, "x0") - 1.).abs() < 1e-5 && (float(row, "x1") - 3.).abs() < 1e-5, "{row:?}");
    }
}

#[test]
fn bench_counts_the_bytes_of_every_kind_of_state() {
    let folder = Folder::new();
    let specs = ["sgd", "adam", "muon", "ema:base=momentum", "candle-sgd", "candle-adamw"];
    for (arguments, expected) in [
        ("f32", [0., 8., 4., 8., 0., 8.]),
        ("bf16", [0., 8., 4., 8., 0., 4.]),
        // A copy of weights is never rounded, and Candle's state has the type of the parameters.
        ("f32 --state-dtype bf16", [0., 4., 2., 6., 0., 8.]),
    ] {
        let printed =
            folder.run(&format!("bench --json --parameters 60 --tensors 2 --dtype {arguments}{}", options(&specs)));
        let report: Value = serde_json::from_str(&printed).unwrap();
        for ((measured, spec), bytes) in report["optimizers"].as_array().unwrap().iter().zip(specs).zip(expected) {
            assert_eq!(measured["optimizer"], spec);
            assert_eq!(measured["state_bytes_per_parameter"].as_f64(), Some(bytes), "{spec}, {arguments}");
            assert!(measured["microseconds"].as_f64().unwrap() > 0., "{spec}");
        }
    }
}

#[test]
fn tables_are_read_however_they_are_written() {
    let folder = Folder::new();
    let plain: String = (0..20).map(|i| format!("{},{}.5,{}\n", i, i * i, ["no", "yes"][i % 2])).collect();
    let plain = format!("a,b,target\n{plain}");
    let losses = |contents: &str| {
        folder.write("table.csv", contents);
        folder.run("train --data table.csv --epochs 3");
        folder.read("outputs/losses.csv")
    };
    let expected = losses(&plain);
    for (what, contents) in [
        ("byte order mark", format!("\u{feff}{plain}")),
        ("Windows line ends", plain.replace('\n', "\r\n")),
        ("spaces", plain.replace(',', " , ")),
        ("quotes", plain.replace("yes", "\"yes\"")),
        ("no last line end", plain.trim_end().to_owned()),
        ("empty lines at the end", format!("{plain}\n\n")),
        ("numbers as classes", plain.replace("no", "0").replace("yes", "1")),
    ] {
        assert!(losses(&contents) == expected, "{what}");
    }
    for (file, target, classes) in
        [("data/breast_cancer.csv", "diagnosis", 2), ("tests/fixtures/iris.csv", "species", 3)]
    {
        let mut command = folder.command(&format!("train --target {target} --epochs 3 --data"));
        assert!(command.arg(path(file)).output().unwrap().status.success());
        let summary = folder.json("outputs/summary.json");
        assert_eq!(summary["train"]["configuration"]["classes"].as_array().unwrap().len(), classes);
    }
}

/// Checks that a run failed with one line that says all `parts`, and without a panic.
fn assert_error(what: &str, output: &Output, code: i32, parts: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    assert!(output.stdout.is_empty(), "{what}: {output:?}");
    assert!(stderr.starts_with("error: ") && stderr.ends_with('\n') && stderr.lines().count() == 1, "{what}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{what}: '{part}' is not in: {stderr}");
    }
}

#[test]
fn every_mistake_is_one_line_that_helps_and_changes_nothing() {
    const USAGE: i32 = 2;
    const FAILED: i32 = 1;
    let cases: &[(&str, i32, &[&str])] = &[
        ("trian", USAGE, &["'trian'", "'train'"]),
        ("train extra", USAGE, &["'extra'"]),
        ("train --epoch 3", USAGE, &["'--epoch'", "'--epochs'"]),
        ("train --epochs", USAGE, &["--epochs"]),
        ("train --epochs -3", USAGE, &["'-3'", "--epochs", "whole number from 1"]),
        ("train --epochs 0", USAGE, &["'0'", "--epochs", "whole number from 1"]),
        ("train --epochs 1e3", USAGE, &["'1e3'", "--epochs", "whole number from 1"]),
        ("train --epochs 3 --epochs 4", USAGE, &["--epochs", "multiple times"]),
        ("train --batch-size -1", USAGE, &["'-1'", "--batch-size"]),
        ("train --samples 3", USAGE, &["'3'", "--samples", "from 4"]),
        ("train --test-size 1.5", USAGE, &["'1.5'", "--test-size", "between 0 and 1"]),
        ("train --test-size 0", USAGE, &["'0'", "--test-size", "between 0 and 1"]),
        ("train --samples 10 --test-size 0.01", FAILED, &["test_size", "0.01"]),
        ("train --lr nan", USAGE, &["'nan'", "--lr", "finite"]),
        ("train --lr inf", USAGE, &["'inf'", "--lr", "finite"]),
        ("train --lr -0.1", USAGE, &["'-0.1'", "--lr", "at least 0"]),
        ("train --noise -1", USAGE, &["'-1'", "--noise", "at least 0"]),
        ("train --factor 1", USAGE, &["'1'", "--factor", "not including, 1"]),
        ("train --seed -1", USAGE, &["'-1'", "--seed", "4294967295"]),
        ("train --seed 4294967296", USAGE, &["'4294967296'", "--seed", "4294967295"]),
        ("train --hidden 0", USAGE, &["'0'", "--hidden", "from 1"]),
        ("train --hidden 16,,16", USAGE, &["''", "--hidden", "from 1"]),
        ("train --dtype f23", USAGE, &["'f23'", "--dtype", "f32", "bf16"]),
        ("train --device gpu", USAGE, &["'gpu'", "--device", "cuda"]),
        ("train --device cuda:x", USAGE, &["'cuda:x'", "--device", "cuda:N"]),
        ("kernel", USAGE, &["SPEC"]),
        ("kernel adm", USAGE, &["'adm'", "did you mean 'adam'"]),
        ("kernel candle-sgd", FAILED, &["candle-sgd", "no kernel", "Candle's own operations"]),
        ("kernel muon", FAILED, &["muon", "no kernel", "Candle's own operations"]),
        ("kernel adam --state-dtype f16", USAGE, &["'f16'", "--state-dtype", "allowed: f32, bf16"]),
        ("bench --optimizer adam --state-dtype f64", USAGE, &["'f64'", "--state-dtype", "allowed: f32, bf16"]),
        ("bench --optimizer lbfgs", FAILED, &["'lbfgs'", "computes the loss again", "allowed: optimizers that"]),
        ("bench --optimizer sam:base=adam", FAILED, &["'sam:base=adam'", "computes the loss again"]),
        ("bench --parameters 2 --tensors 3", FAILED, &["--parameters is 2", "--tensors, 3"]),
        ("train --optimizer adm", USAGE, &["'adm'", "did you mean 'adam'", "nadam"]),
        ("train --stochastic-rounding", FAILED, &["--stochastic-rounding", "f32", "allowed: bf16, f16"]),
        ("train --stochastic-rounding --dtype f16", FAILED, &["'candle-sgd'", "--stochastic-rounding"]),
        ("train --optimizer zzz", USAGE, &["'zzz'", "allowed: sgd, ", ", .."]),
        ("train --optimizer candle-sdg", USAGE, &["'candle-sdg'", "did you mean 'candle-sgd'"]),
        ("train --optimizer candle-sgd:x=1", USAGE, &["unknown key of candle-sgd 'x'", "allowed: lr, maximize"]),
        ("train --optimizer candle-adamw:beta1=1", USAGE, &["candle-adamw: beta1 = 1", "a number in 0.0..1.0"]),
        ("train --optimizer ema:base=adm", USAGE, &["'adm'", "did you mean 'adam'"]),
        (
            "train --optimizer ema:base=candle-sgd",
            FAILED,
            &["'ema:base=candle-sgd'", "Candle's own, which steps alone"],
        ),
        ("train --optimizer ema:base=ema", FAILED, &["'ema:base=ema'", "ema: two algorithms"]),
        ("train --optimizer adam:beta=0.9", USAGE, &["'beta'", "did you mean 'beta", "weight_decay"]),
        ("train --optimizer adam:lr=0.1,lr=0.2", USAGE, &["'lr=0.2' is given twice"]),
        ("train --optimizer adam:lr", USAGE, &["'lr'", "KEY=VALUE"]),
        ("train --optimizer adam:beta2=1", USAGE, &["adam: beta2 = 1", "a number in 0.0..1.0"]),
        ("train --optimizer adam:lr=nan", USAGE, &["adam: lr = NaN", "a number in 0.0.."]),
        ("train --optimizer adam:lr=fast", USAGE, &["'lr=fast'", "a number in 0.0.."]),
        ("train --optimizer adam:maximize=1", USAGE, &["'maximize=1'", "true or false"]),
        ("train --optimizer lbfgs:line_search_fn=wolfe", USAGE, &["'line_search_fn=wolfe'", "strong_wolfe"]),
        ("train --optimizer sgd:nesterov=true", USAGE, &["nesterov needs momentum"]),
        ("train --optimizer adam --optimizer adam", FAILED, &["'adam'", "twice"]),
        ("minimize --function squire", USAGE, &["'squire'", "did you mean 'square'", "rosenbrock"]),
        ("minimize --function ravine --start 1", FAILED, &["--start has 1", "ravine takes 2"]),
        ("minimize --function beale --start 1,2,3", FAILED, &["--start has 3", "beale takes 2"]),
        ("minimize --start 1,nan", USAGE, &["'nan'", "--start", "finite"]),
        ("minimize --optimizer muon", FAILED, &["'muon'", "'x' is not for muon", "1 dimensions, and a matrix has 2"]),
        ("minimize --optimizer sam:base=muon", FAILED, &["'sam:base=muon'", "'x' is not for muon"]),
        ("minimize --steps 0", USAGE, &["'0'", "--steps", "from 1"]),
        ("train --target y", USAGE, &["--data"]),
        ("train --data good.csv --samples 100", USAGE, &["--data", "--samples", "cannot be used"]),
        ("train --data good.csv --target traget", FAILED, &["good.csv", "'traget'", "did you mean 'target'", "a, b"]),
        ("train --data missing.csv", FAILED, &["missing.csv", "No such file"]),
        ("train --data outputs", FAILED, &["'outputs'"]),
        ("train --data empty.csv", FAILED, &["empty.csv", "empty"]),
        ("train --data header.csv", FAILED, &["header.csv", "no rows"]),
        ("train --data binary.csv", FAILED, &["binary.csv", "not text"]),
        ("train --data ragged.csv", FAILED, &["ragged.csv", "line 3", "2 cells", "3 columns"]),
        ("train --data one_column.csv", FAILED, &["one_column.csv", "single column 'target'"]),
        ("train --data one_class.csv", FAILED, &["one_class.csv", "single class 'x'"]),
        ("train --data one_row.csv", FAILED, &["one_row.csv", "class 'y' once"]),
        ("train --data few.csv", FAILED, &["too few samples", "test_size 0.3", "6 rows"]),
        ("train --data word.csv", FAILED, &["word.csv", "line 3", "column 'b'", "'word'", "finite number"]),
        ("train --data nan.csv", FAILED, &["nan.csv", "line 2", "column 'a'", "'NaN'", "finite number"]),
        ("train --data blank.csv", FAILED, &["blank.csv", "line 4", "column 'a'", "''"]),
        ("train --data no_class.csv", FAILED, &["no_class.csv", "line 2", "class is missing"]),
        ("train --data twice.csv", FAILED, &["twice.csv", "column 'a' stands twice"]),
        ("train --data no_header.csv", FAILED, &["no_header.csv", "line 1", "name the columns"]),
        ("train --out good.csv", FAILED, &["--out 'good.csv' is a file"]),
        ("train --out good.csv/below", FAILED, &["good.csv/below"]),
        ("train --out taken", FAILED, &["losses.csv' is a folder"]),
        ("--out good.csv", FAILED, &["--out 'good.csv' is a file"]),
        ("--out a --out b", USAGE, &["--out", "multiple times"]),
        ("minimize --out good.csv", FAILED, &["--out 'good.csv' is a file"]),
        #[cfg(target_os = "linux")]
        ("train --out /proc/results", FAILED, &["'/proc/results'"]), // not even root may write there
        #[cfg(not(feature = "cuda"))]
        ("train --device cuda", FAILED, &["--device cuda", "built without", "cargo build --release --features cuda"]),
        #[cfg(not(feature = "metal"))]
        ("train --device metal", FAILED, &["--device metal", "cargo build --release --features metal"]),
    ];

    let folder = Folder::new();
    for (name, contents) in [
        ("good.csv", "a,b,target\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n"),
        ("empty.csv", ""),
        ("header.csv", "a,b,target\n"),
        ("binary.csv", "a,b\0,target\n"),
        ("ragged.csv", "a,b,target\n1,2,x\n3,y\n"),
        ("one_column.csv", "target\nx\ny\n"),
        ("one_class.csv", "a,b,target\n1,2,x\n3,4,x\n"),
        ("one_row.csv", "a,b,target\n1,2,x\n3,4,x\n5,6,y\n"),
        ("few.csv", "a,b,target\n1,2,x\n3,4,x\n5,6,y\n7,8,y\n9,8,z\n7,6,z\n"),
        ("word.csv", "a,b,target\n1,2,x\n3,word,y\n"),
        ("nan.csv", "a,b,target\nNaN,2,x\n3,4,y\n"),
        ("blank.csv", "a,b,target\n1,2,x\n3,4,y\n,6,x\n7,8,y\n"),
        ("no_class.csv", "a,b,target\n1,2,\n3,4,y\n"),
        ("twice.csv", "a,a,target\n1,2,x\n3,4,y\n"),
        ("no_header.csv", "1,2,3\n3,4,5\n"),
        ("taken/losses.csv/file", ""),
        ("outputs/losses.csv", "earlier losses"),
        ("outputs/minimize.csv", "earlier points"),
    ] {
        folder.write(name, contents);
    }
    let before = folder.snapshot();
    for (arguments, code, parts) in cases {
        assert_error(arguments, &folder.command(arguments).output().unwrap(), *code, parts);
        assert!(folder.snapshot() == before, "{arguments}: files have changed");
    }
}

/// A limit on the size of files stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_earlier_results_alone() {
    let folder = Folder::new();
    folder.run("train --epochs 2");
    folder.run("minimize");
    let before = folder.snapshot();
    for arguments in ["", "train", "minimize --steps 1000"] {
        // The signal that comes with the limit would end the program before it could see the error.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"trap '' XFSZ; ulimit -f 8; exec "$@""#, "sh", PROGRAM]);
        let output = shell.args(arguments.split_whitespace()).current_dir(folder.0.path()).output().unwrap();
        assert_error(arguments, &output, 1, &["cannot write 'outputs/", "earlier results are unchanged"]);
        assert!(folder.snapshot() == before, "'{arguments}': files have changed");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    for arguments in ["list", "--help", "train --help", "train --epochs 1", "minimize"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = folder.command(arguments).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments}: {output:?}");
    }
}

#[test]
fn list_and_help_tell_of_everything() {
    let folder = Folder::new();
    let list = folder.run("list");
    let table = folder.run("list --markdown");
    for algorithm in registry().unwrap().all() {
        let name = algorithm.name();
        let section = list.split("\n\n").find(|section| section.lines().next() == Some(name)).unwrap();
        let row = table.lines().rfind(|row| row.starts_with(&format!("| `{name}` |"))).unwrap();
        for field in algorithm.fields() {
            assert!(section.contains(&format!("\n    {} ", field.key)), "{name}: {}", field.key);
            assert!(row.contains(&format!("`{field}`")), "{name}: {field}");
        }
        assert_eq!(section.contains("\n    base "), algorithm.runs().is_some(), "{name}");
    }
    assert!(folder.run("kernel adam --dtype bf16").contains("next_exp_avg_sq"));
    let help = folder.run("train --help");
    for option in "optimizer lr epochs batch-size seed samples noise factor test-size hidden dtype device data target \
                   out quiet"
        .split_whitespace()
    {
        assert!(help.contains(&format!("--{option}")), "--{option}");
    }
    assert_eq!(folder.run("--version").trim_end(), concat!("candle-optim ", env!("CARGO_PKG_VERSION")));
    assert!(folder.names(".").is_empty());
}
