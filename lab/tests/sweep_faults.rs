//! What can go wrong around a comparison: kills, signals, disks, damaged journals, other programs, tasks of many machines.
//!
//! The property: trainings that are over are kept, and the files at the end are the same bytes as those of a comparison that
//! nothing disturbed; or one line that names what is wrong. `FAULTS=1000` tries 50 kills.

#![cfg(unix)]

#[path = "../../tests/common/mod.rs"]
mod common;
mod folder;

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use folder::{Files, Folder, PROGRAM, assert_error, rounds};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// 38 trainings that take some tenths of a second.
const SWEEP: &str =
    "sweep --optimizer adam --optimizer sgd --trials 8 --seeds 2 --confirm-seeds 3 --epochs 200 --samples 400";

impl Folder {
    fn journals(&self, out: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path(out)).into_iter().flatten().map(|entry| entry.unwrap());
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("journal-"))
            .map(|entry| entry.path())
            .collect()
    }

    /// Lines of all journals that are whole, without their headers.
    fn over(&self, out: &str) -> Vec<String> {
        let texts = self.journals(out).into_iter().map(|path| fs::read_to_string(path).unwrap_or_default());
        let lines = texts.flat_map(|text| text.split_inclusive('\n').skip(1).map(str::to_owned).collect::<Vec<_>>());
        lines.filter(|line| line.ends_with('\n')).collect()
    }

    fn start(&self, arguments: &str) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs a comparison until so many trainings are over, and sends a signal.
    fn stopped(&self, arguments: &str, out: &str, trainings: usize, signal: &str) -> Output {
        let child = self.start(&format!("{arguments} --out {out}"));
        let begin = Instant::now();
        while self.over(out).len() < trainings {
            assert!(begin.elapsed() < Duration::from_secs(60), "{arguments}");
            sleep(Duration::from_millis(1));
        }
        send(signal, &child);
        child.wait_with_output().unwrap()
    }

    fn fail(&self, arguments: &str) -> String {
        assert_error(arguments, &self.command(arguments).output().unwrap(), 1)
    }
}

fn send(signal: &str, child: &Child) {
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
}

/// A comparison that nothing disturbs, in the folder `whole`.
fn whole() -> (Folder, Files) {
    let folder = Folder::new();
    folder.run(&format!("{SWEEP} --out whole --quiet"));
    let files = folder.comparison("whole");
    (folder, files)
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let folder = Folder::new();
    let begin = Instant::now();
    folder.run(&format!("{SWEEP} --out whole --quiet"));
    // Less than that of a busy machine.
    let time = begin.elapsed().min(Duration::from_millis(600));
    let files = folder.comparison("whole");
    let mut random = StdRng::seed_from_u64(15);
    let mut kills = 0;
    while kills < rounds(10, 20) {
        // The same folder is killed until it is complete.
        let out = format!("killed{kills}");
        loop {
            let mut child = folder.start(&format!("{SWEEP} --out {out} --quiet"));
            sleep(time.mul_f64(random.random_range(0.0..1.2)));
            child.kill().unwrap();
            kills += usize::from(child.wait().unwrap().signal().is_some());
            if random.random_bool(0.5) {
                break;
            }
        }
        folder.run(&format!("{SWEEP} --out {out} --quiet"));
        assert_eq!(files, folder.comparison(&out), "after {kills} kills");
    }
}

#[test]
fn each_training_is_run_once_whoever_runs_it() {
    let (folder, files) = whole();
    let output = folder.stopped(&format!("{SWEEP} --workers 4"), "a", 3, "-KILL");
    assert_eq!(output.status.signal(), Some(9));
    let first = folder.over("a");
    let output = folder.stopped(&format!("{SWEEP} --workers 2"), "a", first.len() + 8, "-KILL");
    assert_eq!(output.status.signal(), Some(9));
    let mut keys: Vec<String> =
        folder.over("a").iter().map(|line| line.split(',').skip(1).take(5).collect::<Vec<_>>().join(",")).collect();
    let all = keys.len();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), all);
    folder.run(&format!("{SWEEP} --workers 3 --out a --quiet"));
    assert_eq!(files, folder.comparison("a"));
}

#[test]
fn signals_leave_a_folder_that_the_same_command_completes() {
    let (folder, files) = whole();
    for (signal, number) in [("-INT", 2), ("-TERM", 15)] {
        let out = format!("stopped{number}");
        let output = folder.stopped(SWEEP, &out, 3, signal);
        assert_eq!(output.status.signal(), Some(number), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let over = folder.over(&out).len();
        assert_eq!(
            stderr,
            format!("error: interrupted; {over} trainings are over and kept in '{out}'; the same command goes on\n")
        );
        folder.run(&format!("{SWEEP} --out {out} --quiet"));
        assert_eq!(files, folder.comparison(&out));
    }
}

#[test]
fn other_options_are_refused_and_named() {
    let folder = Folder::new();
    folder.stopped(SWEEP, "a", 3, "-KILL");
    folder.run(&format!("{SWEEP} --out finished --quiet"));
    let before = ["a", "finished"].map(|out| folder.comparison(out));
    for (from, to, said) in [
        ("--epochs 200", "--epochs 100", "training.epochs (200 there, 100 here)"),
        ("--seeds 2", "--seeds 3", "tuning.seeds (2 there, 3 here)"),
        ("sgd", "rmsprop", "optimizer[1].spec (\"sgd\" there, \"rmsprop\" here)"),
    ] {
        for out in ["a", "finished"] {
            let error = folder.fail(&format!("{} --out {out}", SWEEP.replacen(from, to, 1)));
            assert!(error.contains(&format!("'{out}' is the folder of another experiment")), "{error}");
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(before, ["a", "finished"].map(|out| folder.comparison(out)));
    }
}

#[test]
fn a_journal_that_is_cut_goes_on_and_one_that_is_damaged_is_named() {
    let (folder, files) = whole();
    folder.stopped(SWEEP, "a", 8, "-KILL");
    let journal = folder.journals("a").remove(0);
    let name = journal.file_name().unwrap().to_str().unwrap();
    let bytes = fs::read(&journal).unwrap();
    let lines: Vec<usize> =
        bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();

    // Damage within is an error that removes nothing.
    let mut damaged = bytes.clone();
    damaged[lines[3] + 12] ^= 1;
    fs::write(&journal, &damaged).unwrap();
    let error = folder.fail(&format!("{SWEEP} --out a"));
    assert!(error.contains(name) && error.contains("line 5 is damaged"), "{error}");
    assert_eq!(fs::read(&journal).unwrap(), damaged);
    // Without the line, its training is run again.
    let without = [&bytes[..lines[3]], &bytes[lines[4]..]].concat();
    // A kill cuts the last line, and leaves others with no line at all.
    fs::write(&journal, &without[..without.len() - 7]).unwrap();
    File::create(folder.path("a/journal-0-elsewhere-1-x")).unwrap();
    folder.run(&format!("{SWEEP} --out a --quiet"));
    assert_eq!(files, folder.comparison("a"));
}

#[test]
fn journals_of_others_are_refused() {
    let folder = Folder::new();
    folder.stopped(SWEEP, "a", 3, "-KILL");
    folder.stopped(&SWEEP.replace("--seeds 2", "--seeds 3"), "b", 3, "-KILL");
    let (journal, other) = (folder.journals("a").remove(0), folder.journals("b").remove(0));
    fs::copy(&other, folder.path("a/journal-1-b-2-y")).unwrap();
    let error = folder.fail(&format!("{SWEEP} --out a"));
    assert!(error.contains("journal-1-b-2-y") && error.contains("it is of another experiment"), "{error}");
    fs::remove_file(folder.path("a/journal-1-b-2-y")).unwrap();

    let text = fs::read_to_string(&journal).unwrap();
    let (header, rest) = text.split_once('\n').unwrap();
    let header = header[9..].replace(env!("CARGO_PKG_VERSION"), "0.0.1");
    fs::write(&journal, format!("{:08x},{header}\n{rest}", crc32fast::hash(header.as_bytes()))).unwrap();
    let error = folder.fail(&format!("{SWEEP} --out a"));
    assert!(error.contains("it is of version 0.0.1 of the program"), "{error}");

    // Two journals that say different things of the same training.
    fs::write(&journal, &text).unwrap();
    let record = text.lines().nth(1).unwrap()[9..].to_owned();
    let mut cells: Vec<&str> = record.split(',').collect();
    cells[6] = "0.25";
    let record = cells.join(",");
    let lines =
        [text.lines().next().unwrap().to_owned(), format!("{:08x},{record}", crc32fast::hash(record.as_bytes()))];
    fs::write(folder.path("a/journal-1-b-2-z"), lines.join("\n") + "\n").unwrap();
    let error = folder.fail(&format!("{SWEEP} --out a"));
    assert!(error.contains("journal-1-b-2-z") && error.contains("the run 'tune' of problem 0, optimizer "), "{error}");
}

#[test]
fn programs_in_one_folder_at_once_do_not_mix() {
    let (folder, files) = whole();
    let children: Vec<Child> = (0..3).map(|_| folder.start(&format!("{SWEEP} --out a --quiet"))).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    assert_eq!(files, folder.comparison("a"));

    let other = SWEEP.replace("--epochs 200", "--epochs 201");
    let children = [SWEEP, &other].map(|sweep| folder.start(&format!("{sweep} --out b --quiet")));
    let outputs = children.map(|child| child.wait_with_output().unwrap());
    let refused: Vec<&Output> = outputs.iter().filter(|output| !output.status.success()).collect();
    assert_eq!(refused.len(), 1, "{outputs:?}");
    assert!(assert_error("two experiments", refused[0], 1).contains("training.epochs (20"));
}

#[test]
fn a_disk_that_is_full_keeps_what_is_over() {
    let (folder, files) = whole();
    // Blocks of 512 bytes, of which a process can write no more to a file.
    for blocks in [1, 4, 8, 16, 32, 64, 128, 1024] {
        let out = format!("full{blocks}");
        let arguments = format!("{SWEEP} --out {out} --quiet");
        let output = folder.limited(&format!("trap '' XFSZ; ulimit -f {blocks}"), &arguments).output().unwrap();
        let complete = folder.path(format!("{out}/summary.json")).exists();
        if !output.status.success() {
            let error = assert_error(&out, &output, 1);
            assert!(error.contains("cannot write"), "{error}");
            assert_eq!(complete, error.contains("the comparison is complete, but not its report"), "{error}");
        }
        let over = folder.over(&out).len();
        assert!(blocks < 8 || over > 0 || complete, "{blocks}: {output:?}");
        folder.run(&arguments);
        assert_eq!(files, folder.comparison(&out), "{blocks}");
    }
}

#[test]
fn tasks_and_merge_leave_what_one_machine_leaves() {
    let (folder, files) = whole();
    let task = |i: usize| folder.run(&format!("{SWEEP} --out a --task {i}/3"));
    let said = task(1);
    assert!(said.starts_with("This is task 1 of 3, from 0, by --task\n"), "{said}");
    assert!(said.contains("tuning runs of other tasks are missing; submit the same command again"), "{said}");
    assert_eq!(folder.over("a").len(), 11);
    task(0);

    // Incomplete: the next command is printed, and works.
    let error = folder.fail("merge a");
    let command = error.trim_end().split_once("complete it here: candle-optim ").unwrap().1.replace('\'', "");
    let copy = Command::new("cp").args(["-r", "a", "b"]).current_dir(folder.0.path()).status();
    assert!(copy.unwrap().success());
    folder.run(&format!("{} --quiet", command.replace("a/", "b/").replace("--out a", "--out b")));
    assert_eq!(files, folder.comparison("b"));

    // The last task of the first round finds all of tuning, and confirms.
    for i in [2, 2, 0, 1] {
        task(i);
    }
    let said = task(0);
    assert!(said.contains("all trainings are over; `candle-optim merge` ends the work"), "{said}");
    assert_eq!(folder.over("a").len(), 38);
    let said = folder.run("merge a");
    assert!(said.starts_with("On circles (400 rows, 2-16-16-1), 8 settings each on 2 seeds"), "{said}");
    assert_eq!(files, folder.comparison("a"));
    folder.run("merge a --quiet");
}

#[test]
fn a_task_may_be_one_of_a_scheduler() {
    let folder = Folder::new();
    for (variables, said) in [
        (
            "SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MIN=1 SLURM_ARRAY_TASK_MAX=4 SLURM_ARRAY_TASK_STEP=1 \
             SLURM_ARRAY_TASK_COUNT=4",
            "This is task 2 of 4, from 0, by Slurm",
        ),
        ("JOB_COMPLETION_INDEX=2 JOB_COMPLETIONS=4", "This is task 2 of 4, from 0, by Kubernetes"),
        ("OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4", "This is task 0 of 4, from 0, by MPI"),
    ] {
        let mut command = folder.command(&format!("{SWEEP} --task auto --out a"));
        command.envs(variables.split_whitespace().map(|pair| pair.split_once('=').unwrap()));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().next(), Some(said));
    }
    // Without --task, nothing is read from the environment.
    let mut command = folder.command(&format!("{SWEEP} --out b --quiet"));
    assert!(command.env("SLURM_ARRAY_TASK_ID", "nonsense").status().unwrap().success());
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_before_any_training() {
    let folder = Folder::new();
    fs::write(folder.path("file"), "").unwrap();
    assert!(folder.fail(&format!("{SWEEP} --out file")).contains("--out 'file' is a file"));
    fs::create_dir_all(folder.path("a/runs.csv")).unwrap();
    let error = folder.fail(&format!("{SWEEP} --out a"));
    assert!(error.contains("'a/runs.csv' is a folder, where a result file is to be written"), "{error}");
    assert!(folder.journals("a").is_empty() && PathBuf::from(PROGRAM).is_file());
}

#[test]
fn the_manifest_of_kubernetes_sets_what_a_task_reads() {
    let manifest = fs::read_to_string(common::path("examples/kubernetes/job.yaml")).unwrap();
    let value = |key: &str| {
        let lines: Vec<&str> = manifest.lines().map(str::trim).filter(|line| line.starts_with(key)).collect();
        assert_eq!(lines.len(), 1, "{key}");
        lines[0][key.len()..].trim().trim_matches('"').to_owned()
    };
    assert_eq!(value("completionMode:"), "Indexed");
    assert_eq!(value("- name: JOB_COMPLETIONS"), "");
    let (completions, of) = (value("completions:"), value("value:"));
    assert_eq!(completions, of);
    // The command as the manifest has it, in a pod's environment.
    let command = value("command: [candle-optim,");
    let words: Vec<&str> = command.trim_end_matches(']').split(',').map(|word| word.trim().trim_matches('"')).collect();
    let folder = Folder::new();
    let out = folder.path("results");
    let words = words.iter().map(|word| if *word == "/results/sweep" { out.to_str().unwrap() } else { word });
    let mut pod = folder.command("");
    pod.args(words).args(["--trials", "2", "--seeds", "1", "--confirm-seeds", "1", "--epochs", "1"]);
    let output = pod.env("JOB_COMPLETION_INDEX", "1").env("JOB_COMPLETIONS", of).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with(&format!("This is task 1 of {completions}, from 0, by Kubernetes\n")), "{said}");
}
