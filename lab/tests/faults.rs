//! What can go wrong around the program: names, threads, memory, disks, streams, signals and nasty arguments.
//!
//! The property: no panic and no abort, no results that are half written or mixed, one line that names what is wrong, and exit
//! status 1 or 2; or right results. `FAULTS=10000` tries as many command lines and a fifth as many signals.

#![cfg(unix)]

mod folder;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use folder::{Folder, PROGRAM, assert_error, rounds};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;

impl Folder {
    fn summary(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("outputs/summary.json")).unwrap()).unwrap()
    }

    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        files(self.0.path())
    }
}

/// All files below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { drop(all.insert(path.clone(), fs::read(&path).unwrap())) }
    }
    all
}

fn with_results() -> Folder {
    let folder = Folder::new();
    folder.run("--quiet");
    folder
}

/// Checks that the summary speaks of no file but as it is, and gives its sections.
fn assert_whole(folder: &Path) -> Vec<String> {
    let Ok(text) = fs::read(folder.join("summary.json")) else { return vec![] };
    let summary: BTreeMap<String, Value> = serde_json::from_slice(&text).unwrap();
    for (section, content) in &summary {
        let files = content["files"].as_array().unwrap();
        assert!(!files.is_empty(), "{section}");
        for file in files {
            let bytes = fs::read(folder.join(file["name"].as_str().unwrap())).unwrap();
            assert_eq!(file["bytes"].as_u64(), Some(bytes.len() as u64), "{section}: {file}");
            assert_eq!(file["crc32"], format!("{:08x}", crc32fast::hash(&bytes)), "{section}: {file}");
        }
    }
    summary.into_keys().collect()
}

/// Hidden files. They are not read, since a program that runs may remove them.
fn hidden(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().as_bytes().starts_with(b".")).collect()
}

#[test]
fn names_that_are_not_utf8_work() {
    let folder = Folder::new();
    let name = OsStr::from_bytes(b"data\xff.csv");
    if fs::write(folder.path(name), "a,b,target\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n").is_err() {
        return; // a file system that takes UTF-8 only
    }
    let mut command = folder.command("train --epochs 2 --optimizer adam");
    let output = command.arg("--data").arg(name).arg("--out").arg(OsStr::from_bytes(b"r\xfe")).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let results = folder.path(OsStr::from_bytes(b"r\xfe"));
    assert_eq!(assert_whole(&results), ["train"]);
    let summary: Value = serde_json::from_slice(&fs::read(results.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["train"]["configuration"]["data"]["file"], "data\u{fffd}.csv");
    assert!(fs::read_to_string(results.join("comparison.svg")).unwrap().contains("data\u{fffd}:"));

    let output = folder.command("train --target").arg(name).output().unwrap();
    assert_error("a column", &output, 2);
    let output = folder.command("train --data").arg("a\n\u{1b}[31mb").output().unwrap();
    assert!(assert_error("control characters", &output, 1).contains("'a\\n\\u{1b}[31mb'"));
}

#[cfg(target_os = "linux")]
#[test]
fn too_few_threads_are_enough() {
    let folder = Folder::new();
    // Large enough for both pools.
    let arguments = "train --epochs 2 --hidden 256,256 --samples 3000 --optimizer adam --quiet";
    folder.run(&format!("{arguments} --out one"));
    let scarce = [("ulimit -v 3000000", "4000"), ("ulimit -v 500000", "4000"), ("ulimit -v 300000", "64")];
    let odd = ["4000", "99999999999999999999", "0", "-3", "abc", ""].map(|threads| (":", threads));
    for (limit, threads) in scarce.into_iter().chain(odd) {
        let mut command = folder.limited(limit, arguments);
        let output = command.env("RAYON_NUM_THREADS", threads).env("CANDLE_NUM_THREADS", threads).output().unwrap();
        if output.status.success() {
            let losses = |out: &str| fs::read(folder.path(out).join("losses.csv")).unwrap();
            assert!(output.stderr.is_empty() && losses("outputs") == losses("one"), "{limit}, {threads}");
        } else {
            // The memory may be too little for the work.
            assert!(["ulimit -v 500000", "ulimit -v 300000"].contains(&limit), "{limit}, {threads}: {output:?}");
            assert_error(limit, &output, 1);
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn work_that_does_not_fit_is_refused_before_it_starts() {
    let folder = Folder::new();
    let many: String = (1..31).map(|i| format!(" --optimizer sgd:lr=0.{i:02}")).collect();
    for (limit, arguments, named) in [
        (4_000_000, "bench --parameters 10000000000", "--parameters 10000000000"),
        (4_000_000, "bench --parameters 300000000 --optimizer adam", "--parameters 300000000"),
        (4_000_000, "train --hidden 65536,65536", "--hidden 65536,65536"),
        (4_000_000, "train --hidden 65536,65536 --dtype bf16 --optimizer muon", "--hidden 65536,65536"),
        (4_000_000, &format!("train --epochs 10000000{many}"), "--epochs 10000000"),
        (4_000_000, &format!("minimize --steps 10000000{many}"), "--steps 10000000"),
        (
            4_000_000,
            "minimize --optimizer lbfgs:history_size=4000000000",
            "--optimizer 'lbfgs:history_size=4000000000'",
        ),
        (4_000_000, "train --optimizer lbfgs:history_size=4000000000", "--optimizer 'lbfgs:history_size=4000000000'"),
        (600_000, "train --samples 10000000", "--samples 10000000"),
        (800_000, "train --samples 2000000 --hidden 64", "--samples 2000000"),
        (4_000_000, "minimize --steps 10000000 --start 1,2,3,4,5,6,7,8,9", "--steps 10000000"),
    ] {
        let output = folder.limited(&format!("ulimit -v {limit}"), arguments).output().unwrap();
        let line = assert_error(arguments, &output, 1);
        // What the program itself takes of the limit depends on the machine, and so does which check fails.
        let needs = line.split_once(": this needs ").filter(|(option, _)| option.contains(named));
        assert!(needs.is_some_and(|(_, needs)| needs.contains("B of memory, and ")), "{line}");
        assert!(files(&folder.path(".")).is_empty(), "{arguments}");
    }
}

#[test]
fn each_section_of_the_summary_is_of_the_files_that_are_there() {
    let folder = with_results();
    let out = folder.path("outputs");
    assert_eq!(assert_whole(&out), ["minimize", "train"]);
    let text = |out: &Path| fs::read_to_string(out.join("summary.json")).unwrap();
    let train = |text: &str| text[text.find("  \"train\":").unwrap()..].to_owned();
    let first = text(&out);

    folder.run("minimize --function beale --quiet");
    assert_eq!(assert_whole(&out), ["minimize", "train"]);
    assert_eq!(folder.summary()["minimize"]["configuration"]["function"], "beale");
    assert_eq!(train(&text(&out)), train(&first), "the other run's section stays as it is, to the byte");
    assert!(fs::read_to_string(out.join("minimize.csv")).unwrap().contains(",x1,"));

    for change in [b"changed".as_slice(), b""] {
        folder.run("train --epochs 2 --quiet");
        assert_eq!(assert_whole(&out), ["minimize", "train"]);
        let losses = out.join("losses.csv");
        if change.is_empty() {
            fs::remove_file(losses).unwrap()
        } else {
            fs::write(losses, change).unwrap()
        }
        folder.run("minimize --steps 3 --quiet");
        assert_eq!(assert_whole(&out), ["minimize"]);
    }
}

#[test]
fn a_summary_of_somebody_else_is_not_overwritten() {
    let folder = with_results();
    for foreign in
        ["", "text", "[]", "3", "null", "{\"a\": 1}", "{\"train\": {\"loss\": 1}}", "{\"train\": 3}", "\u{0}"]
    {
        fs::write(folder.path("outputs/summary.json"), foreign).unwrap();
        let before = folder.files();
        for arguments in ["", "train --epochs 1", "minimize"] {
            let line = assert_error(foreign, &folder.command(arguments).output().unwrap(), 1);
            assert!(line.contains("outputs/summary.json' is not a summary of this program"), "{line}");
            assert!(folder.files() == before, "{foreign}: files have changed");
        }
    }
    // One of the version before, which named no files.
    let old =
        r#"{"minimize": {"configuration": {}}, "train": {"optimizers": []}, "versions": {"candle-optim": "0.1.0"}}"#;
    fs::write(folder.path("outputs/summary.json"), old).unwrap();
    folder.run("minimize --quiet");
    assert_eq!(assert_whole(&folder.path("outputs")), ["minimize"]);
}

#[test]
fn programs_that_finish_at_the_same_time_do_not_mix() {
    for _ in 0..rounds(3, 100) {
        let folder = Folder::new();
        let arguments = |i: usize| match i % 3 {
            0 => format!("minimize --steps {} --quiet", i + 1),
            1 => format!("train --epochs {} --samples 50 --optimizer sgd --quiet", i + 1),
            _ => "--quiet".into(),
        };
        let start = |i: usize| folder.command(&arguments(i)).stderr(Stdio::piped()).spawn().unwrap();
        let running: Vec<_> = (0..9).map(start).collect();
        for program in running {
            let output = program.wait_with_output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        }
        assert_eq!(assert_whole(&folder.path("outputs")), ["minimize", "train"]);
        assert_eq!(hidden(&folder.path("outputs")), <[PathBuf; 0]>::default());
    }
}

#[test]
fn a_run_that_diverges_has_no_accuracy() {
    let folder = Folder::new();
    let printed = folder.run("train --epochs 4 --optimizer sgd:lr=1e30 --optimizer adam --optimizer lbfgs:lr=1e30");
    let mut reader = csv::Reader::from_path(folder.path("outputs/losses.csv")).unwrap();
    let rows: Vec<BTreeMap<String, String>> = reader.deserialize().collect::<Result<_, _>>().unwrap();
    for row in &rows {
        for split in ["train", "test"] {
            let finite = row[&format!("{split}_loss")].parse::<f64>().unwrap().is_finite();
            assert_eq!(row[&format!("{split}_accuracy")].is_empty(), !finite, "{row:?}");
        }
    }
    // The train loss of the first epoch is from before the step.
    assert!(!rows[0]["train_accuracy"].is_empty() && rows[0]["test_accuracy"].is_empty(), "{:?}", rows[0]);
    let summary = folder.summary();
    let last = |i: usize| &summary["train"]["optimizers"][i]["final"];
    assert!(last(0)["test_accuracy"].is_null() && last(0)["test_loss"].is_null());
    assert!(last(1)["test_accuracy"].is_f64());
    let line = |name: &str| printed.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    assert!(line("sgd").contains(" - ") && !line("sgd").contains('%'), "{printed}");
    assert!(line("adam").contains('%'), "{printed}");
}

#[test]
fn tables_show_digits_where_numbers_are_small_or_large() {
    let folder = Folder::new();
    let printed = folder.run("minimize --start 1e-9 --steps 3 --optimizer sgd");
    assert!(printed.contains(" 1.0000e-09 \n") && printed.contains(" 5.1200e-10 \n"), "{printed}");
    let printed = folder.run("minimize --start 1e300 --steps 3 --optimizer sgd --optimizer adam");
    assert!(printed.contains("5.1200e+299") && printed.lines().all(|line| line.len() < 60), "{printed}");
}

#[test]
fn a_disk_that_is_full_at_any_byte_leaves_earlier_results() {
    let folder = with_results();
    let before = folder.files();
    let (mut written, mut drawings_failed) = (0, 0);
    // Blocks of 512 bytes.
    let sizes = if std::env::var_os("FAULTS").is_some() {
        (0..200).chain((200..5000).step_by(50)).collect()
    } else {
        vec![0, 1, 9, 40, 200, 1000, 3000, 5000]
    };
    for blocks in sizes {
        for arguments in ["--quiet", "train --epochs 3 --quiet", "minimize --steps 7 --quiet"] {
            // The signal that comes with the limit would end the program before it could see the error.
            let output = folder.limited(&format!("trap '' XFSZ; ulimit -f {blocks}"), arguments).output().unwrap();
            if output.status.success() {
                written += 1;
            } else {
                let line = assert_error(arguments, &output, 1);
                assert!(line.contains("cannot write 'outputs/"), "{line}");
                if !line.contains("the results are written, but not their report") {
                    assert!(line.contains("earlier results are unchanged"), "{line}");
                    assert!(folder.files() == before, "{arguments} with {blocks} blocks: files have changed");
                    continue;
                }
                // The results are smaller.
                drawings_failed += 1;
                assert!(!folder.path("outputs/report.html").exists());
            }
            assert_whole(&folder.path("outputs"));
            fs::remove_dir_all(folder.path("outputs")).unwrap();
            fs::create_dir(folder.path("outputs")).unwrap();
            before.iter().for_each(|(path, contents)| fs::write(path, contents).unwrap());
        }
    }
    assert!(written > 0 && drawings_failed > 0);
}

#[test]
fn a_folder_that_goes_away_during_the_run_is_made_again() {
    let folder = Folder::new();
    let mut program = folder.command("train --epochs 3000 --optimizer adam --quiet").spawn().unwrap();
    let begin = Instant::now();
    while fs::remove_dir(folder.path("outputs")).is_err() {
        assert!(begin.elapsed() < Duration::from_secs(60));
        sleep(Duration::from_millis(1));
    }
    assert!(program.wait().unwrap().success());
    assert_eq!(assert_whole(&folder.path("outputs")), ["train"]);
}

#[test]
fn what_a_killed_program_left_is_removed() {
    let folder = with_results();
    fs::write(folder.path("outputs/.candle-optim-Ab3"), "half").unwrap();
    fs::write(folder.path("outputs/.candle-optim.lock"), "").unwrap();
    fs::write(folder.path("outputs/.other"), "mine").unwrap();
    folder.run("minimize --quiet");
    assert_eq!(hidden(&folder.path("outputs")), [folder.path("outputs/.other")]);
}

#[test]
fn streams_that_nobody_reads_change_nothing_but_the_exit_status() {
    let folder = Folder::new();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    type Stream = Box<dyn Fn() -> Stdio>;
    let mut streams: Vec<(Stream, bool)> = vec![(Box::new(closed), false), (Box::new(Stdio::null), false)];
    if Path::new("/dev/full").exists() {
        streams.push((Box::new(|| Stdio::from(File::options().write(true).open("/dev/full").unwrap())), true));
    }
    for (stream, full) in &streams {
        for arguments in
            ["list", "--help", "train --epochs 1", "minimize", "kernel adam", "bench --parameters 9 --optimizer sgd"]
        {
            let output = folder.command(arguments).stdout(stream()).output().unwrap();
            if *full {
                assert!(assert_error(arguments, &output, 1).contains("cannot print to standard output"), "{arguments}");
            } else {
                assert!(output.status.success() && output.stderr.is_empty(), "{arguments}: {output:?}");
            }
        }
        assert_eq!(assert_whole(&folder.path("outputs")), ["minimize", "train"]);
        for (arguments, code) in [("trian", 2), ("train --data none.csv", 1), ("minimize", 0), ("list", 0)] {
            let output = folder.command(arguments).stderr(stream()).output().unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
        }
    }
    // None of the three at all.
    for (arguments, code) in [("trian", 2), ("train --data none.csv", 1), ("minimize", 0)] {
        let status = folder.limited("exec <&- >&- 2>&-", arguments).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments}");
    }
}

#[test]
fn signals_at_any_moment_leave_whole_results() {
    let mut random = StdRng::seed_from_u64(1);
    let folder = with_results();
    let out = folder.path("outputs");
    let begin = Instant::now();
    folder.run("--quiet");
    let usual = begin.elapsed();
    let mut ends = BTreeMap::<_, usize>::new();
    for _ in 0..rounds(30, 5) {
        let signal = *["INT", "TERM", "KILL"].choose(&mut random).unwrap();
        let arguments = *["--quiet", "minimize --quiet", "train --epochs 2 --quiet"].choose(&mut random).unwrap();
        let before = folder.files();
        let mut program = folder.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
        sleep(usual.mul_f64(random.random_range(0. ..1.1)));
        let pid = program.id().to_string();
        let _ = Command::new("kill").args([&format!("-{signal}"), &pid]).stderr(Stdio::null()).status().unwrap();
        let status = program.wait().unwrap();
        let output = program.wait_with_output().unwrap();
        assert!(output.stderr.is_empty(), "{arguments}, {signal}: {output:?}");
        let expected = match signal {
            "INT" => 2,
            "TERM" => 15,
            _ => 9,
        };
        assert!(status.success() || status.signal() == Some(expected), "{arguments}, {signal}: {status}");
        *ends.entry((signal, status.success())).or_default() += 1;

        // Whatever it was, the summary speaks of what is there.
        let sections = assert_whole(&out);
        if signal != "KILL" {
            assert_eq!(sections, ["minimize", "train"], "{arguments}, {signal}");
            assert_eq!(hidden(&out), <[PathBuf; 0]>::default(), "{arguments}, {signal}");
        }
        let after = folder.files();
        if sections.len() < 2 || after.len() != before.len() {
            folder.run("--quiet");
        }
        assert_eq!((assert_whole(&out).len(), hidden(&out).len()), (2, 0));
    }
    println!("signals, and whether the program was done: {ends:?}");
}

#[test]
fn a_signal_that_arrives_while_files_are_written_leaves_none_of_them() {
    for (signal, number) in [("HUP", 1), ("INT", 2), ("QUIT", 3), ("TERM", 15)] {
        let mut caught = 0;
        for _ in 0..rounds(3, 200) {
            let folder = Folder::new();
            let mut program = folder.command("--quiet").spawn().unwrap();
            while hidden(&folder.path("outputs")).is_empty() && program.try_wait().unwrap().is_none() {}
            let _ = Command::new("kill").args([&format!("-{signal}"), &program.id().to_string()]).output().unwrap();
            let status = program.wait().unwrap();
            assert!(status.success() || status.signal() == Some(number), "{signal}: {status}");
            assert_eq!(hidden(&folder.path("outputs")), <[PathBuf; 0]>::default(), "{signal}: {status}");
            assert_whole(&folder.path("outputs"));
            caught += usize::from(!status.success());
        }
        println!("SIG{signal} ended {caught}");
        // As under `nohup`.
        let folder = Folder::new();
        let mut program = folder.limited(&format!("trap '' {signal}"), "--quiet").spawn().unwrap();
        while hidden(&folder.path("outputs")).is_empty() && program.try_wait().unwrap().is_none() {}
        let _ = Command::new("kill").args([&format!("-{signal}"), &program.id().to_string()]).output().unwrap();
        assert!(cfg!(not(target_os = "linux")) || program.wait().unwrap().success(), "SIG{signal} is ignored");
    }
}

#[test]
fn what_is_no_file_is_not_read() {
    let folder = with_results();
    let pipe = |name: &str| {
        fs::remove_file(folder.path(name)).unwrap();
        assert!(Command::new("mkfifo").arg(folder.path(name)).status().unwrap().success());
    };
    // Reading one would wait for somebody who writes.
    let end = |arguments: &str| {
        let mut program = folder.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
        let begin = Instant::now();
        while program.try_wait().unwrap().is_none() {
            if begin.elapsed() > Duration::from_secs(20) {
                program.kill().unwrap();
            }
            sleep(Duration::from_millis(5));
        }
        program.wait_with_output().unwrap()
    };
    pipe("outputs/losses.csv");
    let output = end("minimize --steps 3 --quiet");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(assert_whole(&folder.path("outputs")), ["minimize"]);
    pipe("outputs/summary.json");
    let line = assert_error("a pipe", &end("minimize --steps 3 --quiet"), 1);
    assert!(line.contains("'outputs/summary.json' is not a file"), "{line}");
}

#[test]
fn few_open_files_are_enough() {
    let folder = Folder::new();
    // Three streams, the lock, a file and its folder, and one to spare.
    let output = folder.limited("ulimit -n 7", "--quiet").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    assert_eq!(assert_whole(&folder.path("outputs")), ["minimize", "train"]);
}

#[test]
fn no_command_line_is_answered_by_a_panic() {
    let mut random = StdRng::seed_from_u64(2);
    let folder = Folder::new();
    fs::write(folder.path("good.csv"), "a,b,target\n1,2,x\n3,4,y\n5,6,x\n7,8,y\n").unwrap();
    fs::write(folder.path("bad.csv"), "a,b,target\n1,\u{1b}[31m,x\n").unwrap();
    let long = "9".repeat(5000);
    let nasty = [
        "",
        " ",
        "0",
        "-0",
        "-1",
        "1",
        "2",
        "3",
        "1e-320",
        "1e308",
        "-1e308",
        "1e309",
        "nan",
        "inf",
        "-inf",
        "0x10",
        "１２",
        "٣",
        "1_000",
        "+1",
        "1.",
        ".5",
        "1e",
        "--",
        "-",
        "=",
        ",",
        ",,",
        "1,",
        "1,2,3",
        "true",
        "none",
        "adam",
        "\n",
        "\u{1b}[31m",
        "💥",
        "\u{202e}",
        "18446744073709551616",
        "10000001",
        "4294967296",
        "../..",
        "/dev/null",
        "good.csv",
        "bad.csv",
        "target",
        "%s%n",
        &long,
    ];
    let names = [
        "sgd",
        "adam",
        "muon",
        "lbfgs",
        "sam:base=sgd",
        "ema",
        "lookahead:base=adam",
        "candle-adamw",
        "prodigy",
        "rprop",
    ];
    let keys =
        ["lr", "beta1", "momentum", "eps", "base", "maximize", "decay", "k", "history_size", "weight_decay", "x", ""];
    let commands: [(&str, &[&str]); 7] = [
        (
            "train",
            &[
                "--optimizer",
                "--lr",
                "--epochs",
                "--batch-size",
                "--seed",
                "--samples",
                "--noise",
                "--factor",
                "--test-size",
            ],
        ),
        (
            "train",
            &["--hidden", "--dtype", "--device", "--data", "--target", "--out", "--quiet", "--optimizer", "--noise"],
        ),
        ("minimize", &["--function", "--start", "--steps", "--optimizer", "--lr", "--out", "--quiet"]),
        ("bench", &["--optimizer", "--dtype", "--state-dtype", "--device", "--json", "--parameters"]),
        ("kernel", &["--dtype", "--state-dtype"]),
        ("list", &["--markdown"]),
        ("", &["--out", "--quiet", "--version", "--help"]),
    ];
    let mut ends = BTreeMap::<_, usize>::new();
    for _ in 0..rounds(300, 1) {
        let (command, options) = *commands.choose(&mut random).unwrap();
        let mut arguments: Vec<String> = vec![];
        if !command.is_empty() {
            arguments.push(command.into());
        }
        // What is not set is small, and what is measured takes half a second.
        match command {
            "train" => arguments.extend(["--epochs=2", "--samples=20"].map(Into::into)),
            "bench" => arguments.extend(["--parameters=2", "--tensors=3", "--optimizer=sgd"].map(Into::into)),
            "kernel" => arguments.push("rmsprop".into()),
            _ => {}
        }
        for _ in 0..random.random_range(0..4) {
            let option = *options.choose(&mut random).unwrap();
            arguments.retain(|argument| !argument.starts_with(&format!("{option}=")));
            let value = match (option, random.random_range(0..3)) {
                ("--optimizer", 0..2) => {
                    let (name, key) = (names.choose(&mut random).unwrap(), keys.choose(&mut random).unwrap());
                    let colon = if name.contains(':') { ',' } else { ':' };
                    format!("{name}{colon}{key}={}", nasty.choose(&mut random).unwrap())
                }
                ("--data", 0..2) => "good.csv".into(),
                ("--function", 0..2) => "rosenbrock".into(),
                ("--out", 0..2) => "outputs".into(),
                ("--dtype", 0..2) => ["f64", "bf16", "f16"].choose(&mut random).unwrap().to_string(),
                ("--parameters", 0) => "10000000000".into(),
                _ => nasty.choose(&mut random).unwrap().to_string(),
            };
            if !["--quiet", "--json", "--markdown", "--version", "--help"].contains(&option) {
                arguments.push(format!("{option}={value}"));
            } else {
                arguments.push(option.into());
            }
        }
        if random.random_range(0..20) == 0 {
            arguments.push(nasty.choose(&mut random).unwrap().to_string());
        }
        let before = folder.files();
        let limit = r#"ulimit -v 8000000 2>/dev/null; exec "$@""#;
        let mut shell = Command::new("sh");
        shell.args(["-c", limit, "sh", PROGRAM]).args(&arguments).current_dir(folder.0.path());
        let output = shell.output().unwrap();
        let code = output.status.code();
        match code {
            Some(0) => {
                assert!(output.stderr.is_empty(), "{arguments:?}: {output:?}");
                assert_whole(&folder.path("outputs"));
            }
            Some(1 | 2) => {
                assert_error(&format!("{arguments:?}"), &output, code.unwrap());
                assert!(folder.files() == before, "{arguments:?}: files have changed");
            }
            _ => panic!("{arguments:?}: {output:?}"),
        }
        *ends.entry((command, code)).or_default() += 1;
    }
    println!("command lines by command and exit status: {ends:?}");
}
