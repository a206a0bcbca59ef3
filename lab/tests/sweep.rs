//! The comparison as a user runs it: what is tried, what is said, which files it leaves.

#[path = "../../tests/common/mod.rs"]
mod common;
mod folder;

use std::collections::BTreeMap;
use std::fs;

use candle_optim_lab::sweep::runs::{Phase, Runs};
use candle_optim_lab::sweep::statistics::{Which, statistics};
use folder::{Files, Folder};
use serde_json::Value;

/// Few enough runs for a test.
const SMALL: &str = "--trials 3 --seeds 3 --confirm-seeds 4 --epochs 20 --samples 100";

impl Folder {
    fn runs(&self, folder: &str) -> Runs {
        Runs::read(fs::File::open(self.path(folder).join("runs.csv")).unwrap()).unwrap()
    }

    /// Runs the program, which must fail with one line on standard error.
    fn fail(&self, arguments: &[&str]) -> String {
        let output = self.command("").args(arguments).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?}: {error}");
        assert!(error.starts_with("error: ") && error.lines().count() == 1, "{arguments:?}: {error}");
        error
    }

    /// The learning rates that a search tries, as the file spells them.
    fn tried(&self, range: &str, options: &str) -> Vec<String> {
        let out = tempfile::tempdir_in(self.0.path()).unwrap();
        let mut command = self.command("sweep --seeds 1 --confirm-seeds 1 --epochs 1 --samples 40 --quiet");
        command.args(options.split_whitespace()).args(["--optimizer", &format!("adam@{range}")]);
        let output = command.arg("--out").arg(out.path()).output().unwrap();
        assert!(output.status.success(), "{range}: {output:?}");
        let runs = self.runs(out.path().to_str().unwrap());
        let tuning = runs.rows.iter().filter(|run| run.phase == Phase::Tune);
        tuning.map(|run| run.searched.iter().flatten().cloned().collect::<Vec<_>>().join(" ")).collect()
    }
}

#[test]
fn ranges_are_the_values_that_people_mean() {
    let folder = Folder::new();
    let tenths = ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "1"];
    assert_eq!(folder.tried("lr=0..1/0.1", ""), tenths);
    assert_eq!(folder.tried("lr=lin 0..1", "--trials 11"), tenths);
    assert_eq!(folder.tried("lr=1e-4..1e-1", "--trials 4"), ["0.0001", "0.001", "0.01", "0.1"]);
    assert_eq!(folder.tried("lr=1e-4..1e-1#4", ""), ["0.0001", "0.001", "0.01", "0.1"]);
    assert_eq!(folder.tried("lr=0.01..0.01", "--trials 1"), ["0.01"]);
    assert_eq!(folder.tried("lr=0..1/0.3", ""), ["0", "0.3", "0.6", "0.9"]);
    // The last key is the fastest.
    assert_eq!(folder.tried("amsgrad=false|true,lr=0.1|0.2", ""), ["false 0.1", "false 0.2", "true 0.1", "true 0.2"]);
    // Lists are taken in full; the ranges share what is left of 25 trials: 3 each.
    assert_eq!(folder.tried("amsgrad=false|true,lr=1e-3..1,beta1=lin 0.5..0.9", "").len(), 2 * 3 * 3);
    assert_eq!(folder.tried("lr=0.1|0.10|1e-1", ""), ["0.1"]);
}

#[test]
fn whole_numbers_are_rounded_and_what_is_left_out_is_said() {
    let folder = Folder::new();
    let search = "lookahead:base=adam,base_lr=0.01@k=lin 1..11";
    let arguments = ["--optimizer", search, "--trials", "10", "--out", "a"];
    let output = folder.command("sweep --seeds 1 --confirm-seeds 1 --epochs 1 --samples 40").args(arguments).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    let runs = folder.runs("a");
    let tuning = runs.rows.iter().filter(|run| run.phase == Phase::Tune);
    let tried: Vec<&str> = tuning.map(|run| run.searched[0].as_deref().unwrap()).collect();
    assert_eq!(tried, ["1", "2", "3", "4", "5", "7", "8", "9", "10", "11"]);

    let search = "lookahead:base=adam,base_lr=0.01@k=lin 1..3";
    let arguments = ["--optimizer", search, "--trials", "10", "--out", "b"];
    let output = folder.command("sweep --seeds 1 --confirm-seeds 1 --epochs 1 --samples 40").args(arguments).output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(
        said.contains("7 settings of lookahead:base=adam,base_lr=0.01 repeated others and were left out."),
        "{said}"
    );
}

#[test]
fn random_and_sobol_settings_lie_in_the_range_and_do_not_depend_on_others() {
    let folder = Folder::new();
    for sampler in ["random", "sobol"] {
        let options = format!("--sampler {sampler} --trials 8");
        let tried = folder.tried("lr=1e-3..1,beta1=lin 0.5..0.9", &options);
        assert_eq!(tried.len(), 8);
        for setting in &tried {
            let (lr, beta1) = setting.split_once(' ').unwrap();
            assert!((1e-3..=1.).contains(&lr.parse().unwrap()) && (0.5..=0.9).contains(&beta1.parse().unwrap()));
        }
        // Every half of the logarithmic range is tried.
        let low = tried.iter().filter(|setting| setting.split_once(' ').unwrap().0.parse::<f64>().unwrap() < 0.0316);
        assert!((1..8).contains(&low.count()), "{tried:?}");
        let more = folder.tried("lr=1e-3..1,beta1=lin 0.5..0.9", &format!("{options} --optimizer sgd"));
        assert!(more.iter().any(|setting| *setting == tried[0]), "{more:?}");
        assert_ne!(tried, folder.tried("lr=1e-3..1,beta1=lin 0.5..0.9", &format!("{options} --seed 43")));
    }
}

#[test]
fn a_setting_that_diverges_never_wins() {
    let folder = Folder::new();
    // Of a trillion, some runs stay finite: dead units. With momentum, all diverge.
    folder.run(&format!("sweep {SMALL} --optimizer sgd@lr=0.01|1e30|0.1 --optimizer sgd:momentum=0.9@lr=1e30 --out a"));
    let summary = folder.json("a/summary.json");
    let of = |name: &str| &summary["statistics"]["problems"]["circles"]["optimizers"][name];
    assert_ne!(of("sgd")["winner"], 1);
    assert!(of("sgd")["winner"].is_number());
    for run in folder.runs("a").rows.iter().filter(|run| run.outcome.diverged_at.is_some()) {
        assert!(run.outcome.validation_loss == f64::INFINITY && run.outcome.test_loss != Some(f64::NAN));
    }
    let scores = of("sgd")["scores"].as_object().unwrap();
    assert!(scores.values().all(Value::is_number), "{scores:?}");
}

#[test]
fn nothing_finished_is_said_and_is_an_error() {
    let folder = Folder::new();
    let sweep = "sweep --optimizer sgd@lr=1e38 --problem rosenbrock --epochs 5 --seeds 2 --quiet --out a";
    let sweep: Vec<&str> = sweep.split(' ').collect();
    let error = folder.fail(&sweep);
    assert_eq!(error, "error: none finished: every training diverged\n");
    assert!(folder.read("a/answer.txt").contains("none finished: every training diverged."));
    let best = &folder.json("a/summary.json")["statistics"]["problems"]["rosenbrock"]["best"];
    assert_eq!(*best, Value::Null);
    // The folder is complete, and the same command says the same.
    assert_eq!(folder.fail(&sweep), error);
}

#[test]
fn files_are_the_same_for_any_number_of_workers_and_from_the_experiment_alone() {
    let folder = Folder::new();
    let search = "--optimizer adam@lr=1e-3..1 --optimizer sgd:momentum=0.9";
    folder.run(&format!("sweep {SMALL} {search} --workers 1 --out a"));
    folder.run(&format!("sweep {SMALL} {search} --workers 3 --out b"));
    folder.run("run a/experiment.toml --out c --quiet");
    let files = folder.comparison("a");
    let names = |known: &Files| known.0.keys().filter(|name| !name.ends_with("g")).cloned().collect::<Vec<_>>();
    assert_eq!(
        names(&files),
        [
            "answer.txt",
            "details.safetensors",
            "experiment.toml",
            "losses.csv",
            "report.html",
            "runs.csv",
            "summary.json"
        ]
    );
    let pictures = ["budget", "comparison", "curves", "differences", "norms", "predictions", "rates", "surface"];
    let pictures = pictures.iter().flat_map(|name| [format!("{name}.png"), format!("{name}.svg")]);
    assert_eq!(
        files.0.keys().filter(|name| name.ends_with("g")).cloned().collect::<Vec<_>>(),
        pictures.collect::<Vec<_>>()
    );
    assert_eq!(files, folder.comparison("b"));
    assert_eq!(files, folder.comparison("c"));
    // Complete: nothing is trained again, and the answer is printed again.
    let said = folder.run(&format!("sweep {SMALL} {search} --out a"));
    assert!(said.starts_with(&folder.read("a/answer.txt")), "{said}");
    assert_eq!(files, folder.comparison("a"));
}

#[test]
fn the_summary_holds_the_statistics_of_the_runs() {
    let folder = Folder::new();
    folder
        .run(&format!("sweep {SMALL} --optimizer adam --optimizer rmsprop --problem circles --problem moons --out a"));
    let runs = folder.runs("a");
    let expected = serde_json::to_string(&statistics(&runs, Which::Final, 42)).unwrap();
    let compact = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    let summary = folder.read("a/summary.json");
    assert!(compact(&summary).contains(&format!("\"statistics\":{},", compact(&expected))), "{summary}");
    assert!(expected.contains("\"over_problems\":{\"mean_rank\":{\"adam\":"), "{expected}");

    // Each setting is trained on each seed, the best of each optimizer again on others.
    let count = |phase| runs.rows.iter().filter(|run| run.phase == phase).count();
    assert_eq!((count(Phase::Tune), count(Phase::Confirm)), (2 * 2 * 3 * 3, 2 * 2 * 4));
    let seeds = |phase| runs.rows.iter().filter(|run| run.phase == phase).map(|run| run.seed).collect::<Vec<_>>();
    assert!(seeds(Phase::Confirm).iter().all(|seed| !seeds(Phase::Tune).contains(seed)));

    // The curve of each confirmation ends with its loss.
    let mut losses = csv::Reader::from_path(folder.path("a/losses.csv")).unwrap();
    let mut last = BTreeMap::new();
    for row in losses.deserialize() {
        let row: BTreeMap<String, String> = row.unwrap();
        last.insert([&row["problem"], &row["optimizer"], &row["seed"]].map(String::clone), row["test_loss"].clone());
    }
    for run in runs.rows.iter().filter(|run| run.phase == Phase::Confirm) {
        let loss = &last[&[run.problem.clone(), run.optimizer.clone(), run.seed.to_string()]];
        assert_eq!(loss.parse().ok(), run.outcome.test_loss);
    }
}

#[test]
fn the_answer_repeats_what_was_found() {
    let folder = Folder::new();
    let said = folder.run(&format!("sweep {SMALL} --optimizer adam@lr=0.01..0.1 --optimizer sgd@lr=1e-9 --out a"));
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines[0],
        "On circles (100 rows, 2-16-16-1), 1 to 3 settings each on 3 seeds, confirmed on 4 fresh seeds, constant learning \
         rate:"
    );
    assert!(lines[1].starts_with("adam is best: median test loss "), "{said}");
    // A learning rate that is far too small trains nothing.
    let failed = lines.iter().any(|line| line.starts_with("sgd is worse by ") || line.starts_with("sgd failed in "));
    assert!(failed || said.contains("sgd has "), "{said}");

    // The command trains with the setting that won.
    let command = lines.iter().find_map(|line| line.strip_prefix("Train with it:  candle-optim ")).unwrap();
    let winner =
        folder.json("a/summary.json")["statistics"]["problems"]["circles"]["optimizers"]["adam"]["winner"].clone();
    let lr = ["0.01", "0.0316228", "0.1"][winner.as_u64().unwrap() as usize];
    assert_eq!(command, format!("train --optimizer adam:lr={lr} --samples 100 --epochs 20"));
    folder.run(&format!("{command} --quiet"));
}

#[test]
fn what_is_no_better_than_a_constant_prediction_is_said() {
    let folder = Folder::new();
    let climbs = "--optimizer adam:maximize=true@lr=0.01|0.1";
    let said = folder.run(&format!("sweep {SMALL} {climbs} --optimizer adam@lr=0.1 --out a"));
    assert!(said.contains("adam:maximize=true failed in 4 of 4 seeds."), "{said}");
    assert!(said.contains("No setting of adam:maximize=true is better than a constant prediction."), "{said}");
    assert!(!said.contains("No setting of adam is"), "{said}");
}

#[test]
fn every_optimizer_of_the_list_can_be_compared() {
    let folder = Folder::new();
    let names: Vec<String> =
        candle_optim_lab::twins::registry().unwrap().names().map(|name| format!("--optimizer {name}")).collect();
    let options = "--trials 2 --seeds 1 --confirm-seeds 2 --epochs 3 --samples 40";
    let said = folder.run(&format!("sweep {options} {} --out a", names.join(" ")));
    let summary = folder.json("a/summary.json");
    let optimizers = summary["statistics"]["problems"]["circles"]["optimizers"].as_object().unwrap();
    assert_eq!(optimizers.len(), names.len());
    assert!(optimizers.values().all(|optimizer| optimizer["winner"].is_number()), "{said}");
    assert!(said.contains("muon moves 0.weight, 2.weight, 4.weight; adamw at its defaults moves"), "{said}");
    // A step of SAM takes two gradients.
    let runs = folder.runs("a");
    let gradients =
        |name: &str| runs.rows.iter().find(|run| run.optimizer == name).unwrap().outcome.gradient_evaluations;
    assert_eq!((gradients("adam"), gradients("sam")), (3, 6));
}

#[test]
fn a_file_of_the_user_has_the_same_test_rows_for_all_seeds() {
    let folder = Folder::new();
    let data = common::path("data/breast_cancer.csv");
    fs::copy(&data, folder.path("mine.csv")).unwrap();
    let options = "--trials 2 --seeds 2 --confirm-seeds 3 --epochs 5 --target-column diagnosis --optimizer adam";
    let said = folder.run(&format!("sweep --data mine.csv {options} --out a"));
    assert!(said.starts_with("On mine (569 rows, 30-16-16-1)"), "{said}");
    assert!(said.contains("All seeds have the same test rows: intervals hold for these."), "{said}");
    assert!(said.contains("--data mine.csv --target diagnosis"), "{said}");
    let experiment = folder.read("a/experiment.toml");
    assert!(experiment.contains("data = \"mine.csv\"\nsha256 = \""), "{experiment}");

    // The file lies beside the experiment or where --data says, and no other is taken.
    let error = folder.fail(&["run", "a/experiment.toml", "--out", "b"]);
    assert!(error.contains("mine.csv': it is not there; allowed: --data FILE"), "{error}");
    folder.run("run a/experiment.toml --data mine.csv --out b --quiet");
    assert_eq!(folder.comparison("a"), folder.comparison("b"));
    fs::write(folder.path("mine.csv"), folder.read("mine.csv").replace("17.99", "17.98")).unwrap();
    let error = folder.fail(&["run", "a/experiment.toml", "--data", "mine.csv", "--out", "c"]);
    assert!(error.contains("its SHA-256 is") && !folder.path("c").exists(), "{error}");
}

#[test]
fn an_experiment_that_is_wrong_is_an_error_in_a_line() {
    let folder = Folder::new();
    folder.run(&format!("sweep {SMALL} --optimizer adam --out a --quiet"));
    let text = folder.read("a/experiment.toml");
    for (from, to, said) in [
        ("epochs = 20", "epoch = 20", "line 14: unknown key 'epoch' (did you mean 'epochs'?)"),
        ("epochs = 20\n", "", "line 13: the key 'epochs' is missing"),
        ("samples = 100\n", "", "line 4: the key 'samples' is missing"),
        ("activation = \"relu\"\n", "", "line 4: the key 'activation' is missing"),
        ("seed = 42\n", "", "the key 'seed' is missing"),
        ("epochs = 20", "epochs = 20\nepochs = 30", "line 15: the key 'epochs' stands twice"),
        ("epochs = 20", "epochs = 'many'", "line 14: invalid type: string \"many\", allowed: a whole number"),
        ("epochs = 20", "epochs = 0", "training.epochs = 0 is not allowed: it must be from 1 to 10000000"),
        ("trials = 3", "trials = -3", "line 23: invalid value: integer `-3`"),
        ("target = 0.1", "target = nan", "training.target = NaN is not allowed: it must lie between 0 and 1"),
        ("\"grid\"", "\"gird\"", "line 25: unknown word 'gird' (did you mean 'grid'?)"),
        ("\"circles\"", "\"circels\"", "unknown problem 'circels' (did you mean 'circles'?)"),
        ("\"relu\"", "\"relo\"", "unknown activation 'relo' (did you mean 'relu'?)"),
        ("factor = 0.8", "centers = 3", "the problem 'circles' has no key 'centers'"),
        ("\"1e-6..1\"", "[]", "an empty list"),
        ("\"1e-6..1\"", "\"1..1e-6\"", "the range '1..1e-6' ends below its beginning"),
        ("\"1e-6..1\"", "\"0..1\"", "it must begin above 0; equal steps are 'lin 0..1'"),
        ("\"1e-6..1\"", "\"0..1/0\"", "allowed: a step above 0"),
        ("lr = ", "rate = ", "unknown key of adam 'rate'"),
        ("spec = \"adam\"", "spec = \"adam:lr=1\"", "'lr' is searched, and 'adam:lr=1' sets it"),
        ("\"1e-6..1\"", "[1, 2, 3, 4, 5]", "the search has 5 settings, and trials = 3 would drop lr=4 and lr=5"),
        ("[split]", "[splitt]", "unknown key 'splitt' (did you mean 'split'?)"),
        ("format = 1", "format = 2", "format = 2 is not allowed"),
        ("samples = 100", "samples = 6", "the validation rows"),
    ] {
        assert!(text.contains(from), "{from}");
        fs::write(folder.path("wrong.toml"), text.replacen(from, to, 1)).unwrap();
        let error = folder.fail(&["run", "wrong.toml", "--out", "b"]);
        assert!(error.contains("experiment 'wrong.toml'") || error.contains("problem") || error.contains("optimizer"));
        assert!(error.contains(said), "{to}: {error}");
        assert!(!folder.path("b").exists(), "{to}");
    }
    // A mark and line ends of Windows are no difference.
    fs::write(folder.path("windows.toml"), format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    folder.run("run windows.toml --out w --quiet");
    assert_eq!(folder.comparison("a"), folder.comparison("w"));
}

#[test]
fn options_that_are_wrong_are_an_error_in_a_line() {
    let folder = Folder::new();
    for (arguments, said) in [
        (&["--optimizer", "adm"][..], "unknown optimizer 'adm' (did you mean 'adam'?)"),
        (&["--optimizer", "adam@lr"], "allowed: KEY=RANGE"),
        (&["--optimizer", "adam@lr="], "cannot read the range ''"),
        (&["--optimizer", "adam", "--optimizer", "adam"], "two optimizers are named 'adam'"),
        (&["--optimizer", "muon", "--problem", "booth"], "variable 'x' is not for muon"),
        (&["--problem", "boot"], "unknown problem 'boot' (did you mean 'booth'?)"),
        (&["--problem", "booth", "--hidden", "3"], "no problem has --hidden"),
        (&["--centers", "3"], "no problem has --centers"),
        (&["--target", "species"], "the column of a file is --target-column"),
        (&["--score", "last"], "unknown word 'last'"),
        (&["--sampler", "sobol", "--trials", "70000"], "at most 65536"),
        (&["--task", "3/3"], "it must be I/N with whole numbers, I from 0 to N - 1, or auto"),
        (&["--data", "none.csv"], "the data file 'none.csv': cannot read it"),
    ] {
        let error = folder.fail(&[&["sweep", "--out", "b"], arguments].concat());
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert!(!folder.path("b").exists(), "{arguments:?}");
    }
    folder.run("train --epochs 1 --quiet --out train");
    let error = folder.fail(&["sweep", "--out", "train"]);
    assert!(error.contains("'train' has the results of another command"), "{error}");
    let error = folder.fail(&["merge", "train"]);
    assert!(error.contains("'train' has no experiment.toml"), "{error}");
}

#[test]
fn a_dry_run_says_what_it_would_take_and_writes_nothing() {
    let folder = Folder::new();
    let said = folder.run(&format!("sweep {SMALL} --optimizer adam --optimizer sam:base_lr=0.1 --dry-run --workers 2"));
    let lines: Vec<&str> = said.lines().collect();
    // SAM has one setting: nothing of it is searched.
    assert_eq!(lines[0], "20 trainings: 12 to tune 4 settings on 3 seeds each, and 8 to confirm the best of each");
    // 13 trainings of adam take 20 gradients each, and 7 of SAM 40.
    assert!(lines[1].starts_with("540 gradients, in about "), "{said}");
    assert!(fs::read_dir(folder.0.path()).unwrap().next().is_none());
}

#[test]
fn what_the_documentation_shows_works() {
    let folder = Folder::new();
    let text = fs::read_to_string(common::path("docs/comparison.md")).unwrap();
    let blocks = |kind: &str| {
        let fence = format!("```{kind}\n");
        text.split(&fence).skip(1).map(|block| block.split("```").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let commands = blocks("sh").concat();
    for command in commands.lines().map(|line| line.split('#').next().unwrap().trim()) {
        let words =
            command.replace(['\''], "").replace(" --dry-run", "").replace("nesterov=false|true", "nesterov=false");
        let words = words.replace("mine.csv --target-column species", &iris());
        let words = words.replace("data/penguins.csv", common::path("data/penguins.csv").to_str().unwrap());
        folder.run(&format!("{} --dry-run", words.strip_prefix("candle-optim ").unwrap()));
    }
    fs::write(folder.path("experiment.toml"), &blocks("toml")[0]).unwrap();
    let said = folder.run("run experiment.toml --dry-run");
    assert!(said.starts_with("260 trainings"), "{said}");
}

fn iris() -> String {
    format!("{} --target-column species", common::path("tests/fixtures/iris.csv").display())
}

#[test]
fn numbers_are_predicted_as_well_as_classes() {
    let folder = Folder::new();
    fs::copy(common::path("data/penguins.csv"), folder.path("penguins.csv")).unwrap();
    let options = "--trials 3 --seeds 2 --confirm-seeds 6 --epochs 60 --optimizer adam@lr=1e-3..0.1";
    let data = "--data penguins.csv --target-column body_mass_g --task-type regression --drop species";
    let said = folder.run(&format!("sweep {data} {options} --out a"));
    assert!(said.starts_with("On penguins (333 rows, 4-16-16-1)"), "{said}");
    assert!(said.contains("Its R² on the test rows is 0.8") && said.contains("R²  failed"), "{said}");
    let command = said.lines().find_map(|line| line.strip_prefix("Train with it:  candle-optim ")).unwrap();
    assert!(command.ends_with("--target body_mass_g --task-type regression --drop species --epochs 60"), "{command}");
    let said = folder.run(&format!("{command} --out train"));
    assert!(said.lines().next().unwrap().contains("test R²"), "{said}");

    // The baseline is the variance of the validation rows, near that of all rows, which is 1.
    for run in folder.runs("a").rows {
        assert!((0.5..2.).contains(&run.outcome.baseline_loss), "{run:?}");
        assert_eq!(run.phase == Phase::Confirm, run.outcome.test_accuracy.is_some());
    }
    for (target, said) in [
        ("species", "line 2, column 'species': 'Adelie' is not a finite number: write a number, or take --task-type"),
        ("same", "column 'same': every row has the number 7; allowed: numbers that differ"),
    ] {
        let text = folder.read("penguins.csv").replace('\n', ",7\n").replacen(",7", ",same", 1);
        fs::write(folder.path("same.csv"), text).unwrap();
        let data = ["train", "--data", "same.csv", "--target", target, "--task-type", "regression"];
        let drop: &[&str] = if target == "species" { &[] } else { &["--drop", "species"] };
        let error = folder.fail(&[&data, drop].concat());
        assert!(error.contains(said), "{error}");
    }
}
