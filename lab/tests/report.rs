//! The report: it is made of the files of a folder alone, holds what they hold, and runs nothing that a name says. What a reader
//! does with it in a browser is in `lab/tests/browser`.

mod folder;

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor};
use candle_nn::Module;
use candle_optim::nn::bce_with_logits;
use candle_optim_lab::data::{Circles, Dataset};
use candle_optim_lab::model::Network;
use candle_optim_lab::nn::Activation;
use candle_optim_lab::optimizer::parse;
use candle_optim_lab::train::{Epoch, Observer, Settings, train};
use folder::{Folder, assert_error};
use safetensors::SafeTensors;
use serde_json::Value;

impl Folder {
    /// What the page's script reads.
    fn data(&self, report: &str) -> Value {
        let page = self.read(report);
        let begin = page.find("<script id=\"data\" type=\"application/json\">").unwrap();
        let begin = begin + page[begin..].find('>').unwrap() + 1;
        let end = begin + page[begin..].find("</script>").unwrap();
        serde_json::from_str(&page[begin..end]).unwrap()
    }

    /// All files of a folder.
    fn all(&self, name: &str) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path(name)).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.path().is_file());
        files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }

    /// Fails, and leaves the folder as it was.
    fn refuses(&self, arguments: &str, folder: &str, words: &[&str]) {
        let before = self.all(folder);
        let line = assert_error(arguments, &self.command(arguments).output().unwrap(), 1);
        assert!(words.iter().all(|word| line.contains(word)), "{arguments}: {line}");
        assert!(self.all(folder) == before, "{arguments}: files have changed");
    }
}

fn ids(data: &Value) -> Vec<String> {
    let sections = data["sections"].as_array().unwrap().iter();
    let figures = sections.flat_map(|section| section["figures"].as_array().unwrap());
    figures.map(|figure| figure["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn it_is_drawn_again_to_the_byte() {
    let folder = Folder::new();
    folder.run("--quiet --out all");
    assert_eq!(ids(&folder.data("all/report.html")), ["curves", "predictions", "surface", "norms", "values", "path"]);
    folder.run("minimize --function rosenbrock --steps 50 --quiet --out path");
    assert_eq!(ids(&folder.data("path/report.html")), ["values", "path"]);
    folder.run("sweep --trials 3 --seeds 2 --confirm-seeds 6 --epochs 8 --samples 100 --quiet --out sweep");
    assert_eq!(
        ids(&folder.data("sweep/report.html")),
        ["curves", "rates", "budget", "differences", "cost", "predictions", "surface", "norms"]
    );
    for name in ["all", "path", "sweep"] {
        let files = folder.all(name);
        assert!(files["report.html"].len() < 2_000_000, "{name}");
        assert!(folder.run(&format!("report {name}")).contains("report.html"));
        assert!(folder.all(name) == files, "{name}");
        // Without the page and its pictures, it makes them.
        let drawn = |file: &&String| file.ends_with("g") && !file.starts_with("comparison") || *file == "report.html";
        files.keys().filter(drawn).for_each(|file| fs::remove_file(folder.path(format!("{name}/{file}"))).unwrap());
        assert!(folder.run(&format!("report {name} --quiet")).is_empty());
        assert!(folder.all(name) == files, "{name}");
    }
}

#[test]
fn it_holds_every_number_of_the_losses() {
    let folder = Folder::new();
    folder.run("train --epochs 30 --optimizer adam --optimizer sgd:lr=1e30 --quiet");
    let data = folder.data("outputs/report.html");
    let curves = &data["sections"][0]["figures"][0];
    let mut rows = csv::Reader::from_path(folder.path("outputs/losses.csv")).unwrap();
    let rows: Vec<BTreeMap<String, String>> = rows.deserialize().collect::<Result<_, _>>().unwrap();
    for (panel, column) in ["train_loss", "test_loss", "train_accuracy", "test_accuracy"].iter().enumerate() {
        for (number, optimizer) in ["adam", "sgd:lr=1e30"].iter().enumerate() {
            let series = &curves["panels"][panel]["series"][number];
            let values = rows.iter().filter(|row| row["optimizer"] == *optimizer);
            let values: Vec<f64> =
                values.map_while(|row| row[*column].parse().ok().filter(|x: &f64| x.is_finite())).collect();
            let drawn: Vec<f64> =
                series["points"].as_array().unwrap().iter().map(|point| point[1].as_f64().unwrap()).collect();
            assert_eq!(drawn.len(), values.len(), "{column} of {optimizer}");
            assert!(drawn.iter().zip(&values).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{column} of {optimizer}");
        }
    }
    // A test loss that never was a number has no place for the mark.
    let marks = &curves["panels"][0]["series"][1]["marks"];
    assert_eq!(marks[0]["text"], "diverged at epoch 1");
    let page = folder.read("outputs/report.html");
    assert!(
        page.contains("adam has the lowest test loss after 30 epochs")
            && page.contains("sgd:lr=1e30 (diverged at epoch 1)")
    );
    assert!(page.contains("candle-optim train --optimizer adam --optimizer sgd:lr=1e30 --epochs 30"));
}

/// Norms of a training by plain loops, and predictions by Candle.
#[derive(Default)]
struct Plain {
    start: Vec<f64>,
    previous: Vec<f64>,
    norms: Vec<[f64; 4]>,
    predictions: Vec<Vec<u8>>,
    inputs: Option<Tensor>,
    frames: Vec<usize>,
    /// The training rows with their targets, in one batch.
    rows: Option<(Tensor, Tensor)>,
    /// The gradient of the next step.
    gradient: f64,
}

impl Plain {
    fn look(&mut self, network: &Network) -> Result<()> {
        if self.frames.contains(&self.norms.len()) {
            let logits = network.forward(self.inputs.as_ref().unwrap())?.flatten_all()?.to_vec1::<f64>()?;
            let byte = |logit: &f64| {
                let p = 1. / (1. + (-logit).exp());
                let confidence = ((p.max(1. - p) - 0.5) / 0.5 * 15.).round() as u8;
                u8::from(*logit > 0.) * 16 + confidence
            };
            self.predictions.push(logits.iter().map(byte).collect());
        }
        let (x, y) = self.rows.as_ref().unwrap();
        let grads = bce_with_logits(&network.forward(x)?, y)?.backward()?;
        let mut sum = 0.;
        for (_, var) in network.named_vars() {
            let grad = grads.get(&var).unwrap().flatten_all()?.to_vec1::<f64>()?;
            sum += grad.iter().map(|x| x * x).sum::<f64>();
        }
        self.gradient = sum.sqrt();
        Ok(())
    }
}

impl Observer for &mut Plain {
    fn started(&mut self, network: &Network) -> Result<()> {
        self.start = weights(network);
        self.previous = self.start.clone();
        self.look(network)
    }

    fn epoch(&mut self, network: &Network, _: &Epoch, _: Option<&GradStore>) -> Result<()> {
        let now = weights(network);
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>().sqrt();
        let zero = vec![0.; now.len()];
        self.norms.push([
            self.gradient,
            distance(&now, &self.previous),
            distance(&self.previous, &zero),
            distance(&now, &self.start),
        ]);
        self.previous = now;
        self.look(network)
    }
}

fn weights(network: &Network) -> Vec<f64> {
    let vars = network.named_vars().into_iter();
    vars.flat_map(|(_, var)| var.flatten_all().unwrap().to_vec1::<f64>().unwrap()).collect()
}

#[test]
fn details_are_what_plain_loops_compute() {
    let folder = Folder::new();
    folder.run("train --epochs 20 --seed 7 --dtype f64 --optimizer adam:lr=0.01 --optimizer sam:base_lr=0.05 --quiet");
    let bytes = fs::read(folder.path("outputs/details.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let text: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()["details"]).unwrap();
    let problem = &text["problems"][0];
    let numbers = |name: &str| -> Vec<f64> {
        let (chunks, _) = file.tensor(name).unwrap().data().as_chunks::<8>();
        chunks.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
    };

    let cells = problem["view"]["cells"].as_u64().unwrap() as usize;
    let end = |axis: usize, side: usize| problem["view"]["range"][axis][side].as_f64().unwrap();
    let at =
        |axis: usize, cell: usize| end(axis, 0) + (end(axis, 1) - end(axis, 0)) * (cell as f64 + 0.5) / cells as f64;
    let inputs: Vec<f64> = (0..cells * cells).flat_map(|i| [at(0, i % cells), at(1, i / cells)]).collect();
    let frames: Vec<usize> = serde_json::from_value(problem["frames"].clone()).unwrap();
    assert_eq!((frames[0], frames[frames.len() - 1]), (0, 20));

    let dataset = Dataset::circles(&Circles::default(), 0.3, 7).unwrap();
    let settings = Settings {
        epochs: 20,
        batch_size: 0,
        seed: 7,
        hidden: vec![16, 16],
        activation: Activation::Relu,
        dtype: DType::F64,
        stochastic_rounding: false,
        device: Device::Cpu,
    };
    let x = Tensor::from_slice(&dataset.train.x, (dataset.train.y.len(), 2), &Device::Cpu).unwrap();
    let y: Vec<f64> = dataset.train.y.classes().iter().map(|class| *class as f64).collect();
    let y = Tensor::from_slice(&y, (y.len(), 1), &Device::Cpu).unwrap();
    for (number, spec) in ["adam:lr=0.01", "sam:base_lr=0.05"].iter().enumerate() {
        let mut plain = Plain {
            inputs: Some(Tensor::from_slice(&inputs, (cells * cells, 2), &Device::Cpu).unwrap()),
            frames: frames.clone(),
            rows: Some((x.clone(), y.clone())),
            ..Plain::default()
        };
        train(&dataset, &parse(spec).unwrap(), &settings, &mut plain).unwrap();
        let recorded = numbers(&format!("0.{number}.norms"));
        for (epoch, expected) in plain.norms.iter().enumerate() {
            for (norm, expected) in expected.iter().enumerate() {
                let found = recorded[norm * 20 + epoch];
                let tolerance = 1e-10 * expected.abs().max(1e-3);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{spec}, norm {norm} of epoch {epoch}: {found} {expected}"
                );
            }
        }
        let predictions = file.tensor(&format!("0.{number}.predictions")).unwrap();
        let expected = plain.predictions.concat();
        assert_eq!(predictions.data().len(), expected.len());
        // f32 may round to the next level.
        let near = |(a, b): (&u8, &u8)| a / 16 == b / 16 && a.abs_diff(*b) <= 1;
        assert!(predictions.data().iter().zip(&expected).all(near), "{spec}");
        // A path begins at the initial weights, and what lies in the plane is no longer than the way.
        let path = numbers(&format!("0.{number}.path"));
        assert_eq!(path[..2], [0., 0.]);
        let share = problem["optimizers"][number]["in_plane"].as_f64().unwrap();
        let [.., x, y] = path[..] else { panic!() };
        let distance = plain.norms[19][3];
        assert!(
            share > 0.1 && share <= 1. && (x.hypot(y) - share * distance).abs() < 1e-5 * distance,
            "{spec}: {share}"
        );
    }
    // Around the start, the surface has the loss of the first epoch.
    let losses = numbers("0.surface");
    let size = losses.len().isqrt();
    let cell = |axis: usize| {
        let [from, to] = [0, 1].map(|side| problem["surface"]["range"][axis][side].as_f64().unwrap());
        ((0. - from) / (to - from) * size as f64) as usize
    };
    let first: f64 =
        folder.read("outputs/losses.csv").lines().nth(1).unwrap().split(',').nth(3).unwrap().parse().unwrap();
    let found = losses[cell(1) * size + cell(0)];
    assert!((found - first).abs() < 0.02 * first, "{found} {first}");
}

#[test]
fn other_folders_are_refused_and_nothing_changes() {
    let folder = Folder::new();
    fs::create_dir(folder.path("empty")).unwrap();
    folder.refuses("report empty", "empty", &["'empty' has no summary.json; allowed: a folder with the results"]);
    folder.refuses("report nowhere", "empty", &["'nowhere' is no folder"]);
    fs::create_dir(folder.path("foreign")).unwrap();
    for text in ["", "{", "[1]", "{\"a\": 1}", "\u{0}"] {
        fs::write(folder.path("foreign/summary.json"), text).unwrap();
        folder.refuses("report foreign", "foreign", &["summary.json"]);
    }
    fs::create_dir(folder.path("begun")).unwrap();
    fs::write(folder.path("begun/experiment.toml"), "").unwrap();
    folder.refuses("report begun", "begun", &["the comparison in 'begun' is not complete"]);

    folder.run("train --epochs 3 --optimizer adam --quiet --out half");
    folder.run(
        "sweep --trials 2 --seeds 2 --confirm-seeds 2 --epochs 3 --samples 60 --optimizer adam --quiet --out sweep",
    );
    for (name, out, words) in [
        ("losses.csv", "half", "the files of 'train' are not those that summary.json names"),
        ("details.safetensors", "half", "the files of 'train' are not those that summary.json names"),
        ("details.safetensors", "sweep", "'details.safetensors'"),
        ("losses.csv", "sweep", "'losses.csv'"),
        ("runs.csv", "sweep", "'runs.csv'"),
        ("timings.csv", "sweep", "'timings.csv'"),
        ("experiment.toml", "sweep", "experiment.toml"),
    ] {
        let path = folder.path(format!("{out}/{name}"));
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() * 2 / 3 + 1]).unwrap();
        folder.refuses(&format!("report {out}"), out, &[words]);
        fs::write(&path, &whole).unwrap();
    }
    // What is in the way is named before anything is replaced.
    fs::remove_file(folder.path("half/norms.png")).unwrap();
    fs::create_dir(folder.path("half/norms.png")).unwrap();
    folder.refuses("report half", "half", &["norms.png' is a folder, where a result file is to be written"]);
}

#[test]
fn an_overlay_lies_on_our_curves() {
    let folder = Folder::new();
    folder.run("train --epochs 5 --optimizer adam --optimizer sgd --quiet --out a");
    folder.run("train --epochs 5 --optimizer adam --optimizer sgd --overlay a/losses.csv --quiet --out b");
    let page = folder.read("b/report.html");
    assert!(
        page.contains("Thin lines are of losses.csv. Largest distance from it: adam: equal bits; sgd: equal bits.")
    );
    let series = &folder.data("b/report.html")["sections"][0]["figures"][0]["panels"][0]["series"];
    assert_eq!(
        series.as_array().unwrap().iter().map(|series| &series["shape"]).collect::<Vec<_>>(),
        ["line", "line", "thin", "thin"]
    );
    // Another framework knows fewer optimizers, and its losses differ.
    let theirs = "optimizer,seed,epoch,train_loss,test_loss,train_accuracy,test_accuracy\n".to_owned();
    let theirs = theirs + &(1..=5).map(|epoch| format!("adam,42,{epoch},0.5,nan,,\n")).collect::<String>();
    fs::write(folder.path("torch.csv"), &theirs).unwrap();
    folder.run("report a --overlay torch.csv --quiet");
    let page = folder.read("a/report.html");
    assert!(
        page.contains("Thin lines are of torch.csv. Largest distance from it: adam: infinite at epoch 1 (test loss).")
    );
    // It stands on the page alone: without it, the page is as before.
    folder.run("report a --quiet");
    assert!(!folder.read("a/report.html").contains("torch.csv"));

    for (text, words) in [
        ("", "it has no column 'optimizer'"),
        ("a,b\n1,2\n", "it has no column 'optimizer'"),
        (&theirs.replace("test_loss", "loss"), "it has no column 'test_loss'"),
        (&theirs.replace("adam,42,5,0.5,nan,,\n", ""), "has 4 epochs of adam; allowed: 5, as this run has"),
        (&theirs.replace("adam", "lion"), "has no curve of the optimizers of this run; allowed: adam, sgd"),
        (&theirs.replace("42,2,", "42,7,"), "line 3: epoch 7 follows no epoch before it"),
        (&theirs.replace("0.5", "half"), "line 2, column 'train_loss': 'half' is no number"),
        (theirs.lines().next().unwrap(), "it has no epochs"),
    ] {
        fs::write(folder.path("other.csv"), text).unwrap();
        folder.refuses("report a --overlay other.csv", "a", &["--overlay '", "other.csv'", words]);
        folder.refuses("train --epochs 5 --optimizer adam --optimizer sgd --out a --overlay other.csv", "a", &[words]);
    }
    folder.refuses("report a --overlay nowhere.csv", "a", &["--overlay 'nowhere.csv'"]);
    folder.run("minimize --quiet --out m");
    folder.refuses("report m --overlay torch.csv", "m", &["--overlay is for a training"]);
}

#[test]
fn names_are_text_and_short() {
    let folder = Folder::new();
    let script = "<script>hacked</script>";
    let long = format!("{script}\u{202e}\"'{}", "x".repeat(10_000));
    let rows: String =
        (0..40).map(|i| format!("{},{},{}\n", i % 5, i % 7, if i % 2 == 0 { script } else { "b" })).collect();
    let table = format!("\"{}\",{script},y\n{rows}", long.replace('"', "\"\""));
    fs::write(folder.path("<i>.csv"), table).unwrap();
    folder.run("train --data <i>.csv --target y --epochs 3 --optimizer adam --quiet --out train");
    let label = serde_json::to_string(&long).unwrap();
    folder.run(
        "sweep --trials 2 --seeds 2 --confirm-seeds 2 --epochs 3 --samples 60 --optimizer adam --quiet --out plain",
    );
    let experiment = folder.read("plain/experiment.toml").replace("label = \"adam\"", &format!("label = {label}"));
    fs::write(folder.path("hostile.toml"), experiment).unwrap();
    folder.run("run hostile.toml --quiet --out sweep");
    for report in ["train/report.html", "sweep/report.html"] {
        let page = folder.read(report);
        assert_eq!(page.matches("<script").count(), 3, "{report}");
        assert!(!page.contains("<i>") && !page.contains('\u{202e}') && !page.contains(&"x".repeat(200)), "{report}");
        assert!(page.contains("&lt;script&gt;hacked&lt;/script&gt;"), "{report}");
    }
}

#[test]
fn it_stays_small_and_can_be_left_out() {
    let folder = Folder::new();
    // 2,000 tuning runs and confirmations of ten optimizers.
    let optimizers: String = ["adam", "sgd", "rmsprop", "lion", "nadam", "radam", "adamax", "adagrad", "adan", "yogi"]
        .map(|name| format!(" --optimizer {name}"))
        .concat();
    folder.run(&format!(
        "sweep{optimizers} --trials 20 --seeds 9 --confirm-seeds 20 --epochs 30 --samples 60 --quiet --out sweep"
    ));
    assert_eq!(folder.read("sweep/runs.csv").lines().count(), 2001);
    assert!(folder.all("sweep")["report.html"].len() <= 2_000_000);
    let all = folder.run("list");
    let known = all.lines().filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    assert!(known.count() > 30, "{all}");

    folder.run("train --epochs 2 --optimizer adam --quiet --out a");
    folder.run("train --epochs 2 --optimizer adam --no-report --quiet --out a");
    let left: Vec<String> = folder.all("a").into_keys().filter(|name| name != "details.safetensors").collect();
    assert_eq!(
        left,
        ["comparison.png", "comparison.svg", "losses.csv", "summary.json"],
        "an old report is of other files"
    );
    folder.run("sweep --trials 2 --seeds 2 --confirm-seeds 2 --epochs 3 --samples 60 --optimizer adam --no-report --quiet --out b");
    assert!(!folder.path("b/report.html").exists() && !folder.path("b/details.safetensors").exists());
    // The same command without it draws a folder that is complete; `report` needs no training.
    folder.run("report b --quiet");
    assert!(!ids(&folder.data("b/report.html")).contains(&"predictions".into()));
    fs::remove_file(folder.path("b/report.html")).unwrap();
    folder.run("run b/experiment.toml --quiet --out b");
    assert!(ids(&folder.data("b/report.html")).contains(&"predictions".into()));
}

#[test]
fn event_files_are_of_this_command_and_the_same_bytes() {
    let folder = Folder::new();
    let names = |out: &str| {
        let entries = fs::read_dir(folder.path(format!("{out}/tensorboard"))).unwrap().map(|entry| entry.unwrap());
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let file = |out: &str, run: &str| {
        fs::read(folder.path(format!("{out}/tensorboard/{run}/events.out.tfevents.0.candle-optim"))).unwrap()
    };
    folder.run("train --epochs 4 --optimizer adam --optimizer sgd:lr=0.1,momentum=0.9 --tensorboard --quiet --out a");
    assert_eq!(names("a"), ["01-adam", "02-sgd-lr=0.1-momentum=0.9"]);
    let adam = file("a", "01-adam");
    // What somebody else has there stays.
    fs::create_dir(folder.path("a/tensorboard/mine")).unwrap();
    fs::write(folder.path("a/tensorboard/mine/note"), "").unwrap();
    folder.run("train --epochs 4 --optimizer adam --tensorboard --quiet --out a");
    assert_eq!(names("a"), ["01-adam", "mine"]);
    assert!(file("a", "01-adam") == adam);
    folder.run("sweep --trials 2 --seeds 2 --confirm-seeds 3 --epochs 3 --samples 60 --optimizer adam --tensorboard --quiet --out b");
    assert_eq!(names("b").len(), 3);
}
