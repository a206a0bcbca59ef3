//! `sweep`, `run` and `merge`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::args::{MergeArgs, RunArgs, Running, SweepArgs};
use super::experiment::Experiment;
use super::files::{self, ALL, ANSWER, EXPERIMENT};
use super::journal::{self, Header, Journals};
use super::plan::Key;
use super::runs::Phase;
use super::task::Task;
use super::work::Workers;
use super::{Sweep, answer, sha256};
use crate::cli::quoted;
use crate::folder::Folder;
use crate::interruption::Interruption;
use crate::live::Live;
use crate::output::SUMMARY;
use crate::tables::print;
use crate::tensorboard;

/// Compares according to the options.
///
/// # Errors
/// Input that is not allowed, results that cannot be written, an interruption, or no training that finished.
pub fn sweep(args: &SweepArgs) -> Result<()> {
    let given: Vec<PathBuf> = args.data.iter().cloned().collect();
    perform(&Sweep::new(args.experiment()?, &given, Path::new(""))?, &args.running, Work::Train)
}

/// Compares according to a file.
///
/// # Errors
/// See [`sweep`].
pub fn run(args: &RunArgs) -> Result<()> {
    let folder = args.file.parent().unwrap_or(Path::new(""));
    perform(&Sweep::new(Experiment::open(&args.file)?, &args.data, folder)?, &args.running, Work::Train)
}

/// Completes the comparison of several tasks.
///
/// # Errors
/// Missing runs, or see [`sweep`].
pub fn merge(args: MergeArgs) -> Result<()> {
    let file = args.folder.join(EXPERIMENT);
    ensure!(file.is_file(), "'{}' has no {EXPERIMENT}; allowed: the --out folder of a sweep", args.folder.display());
    let sweep = Sweep::new(Experiment::open(&file)?, &args.data, &args.folder)?;
    let running = Running {
        out: args.folder,
        quiet: args.quiet,
        json: args.json,
        no_report: args.no_report,
        ..Running::default()
    };
    perform(&sweep, &running, Work::Read)
}

/// Where the runs of a comparison come from.
#[derive(Clone, Copy, PartialEq)]
enum Work {
    /// Missing runs are trained.
    Train,
    /// All runs are in the journals.
    Read,
}

fn perform(sweep: &Sweep, running: &Running, by: Work) -> Result<()> {
    let workers = running.workers.unwrap_or_else(rayon::current_num_threads);
    if running.dry_run {
        return print(sweep.forecast(workers)?);
    }
    if by == Work::Train {
        let less = |error| anyhow!("{error}; fewer --workers than {workers} need less");
        sweep.check_memory(workers).map_err(less)?;
    }
    let folder = Folder::open(&running.out, &ALL)?;
    let interruption = Interruption::deferred()?;
    claim(sweep, &folder, &interruption)?;
    if sweep.is_complete_in(folder.path()) {
        return end(sweep, running, &folder, &interruption);
    }
    let header = Header { version: env!("CARGO_PKG_VERSION").into(), experiment: sha256(sweep.experiment.text()?) };
    let mut journals = Journals::read(folder.path(), header, &sweep.plan)?;
    let task = running.task.clone().unwrap_or(Task::ALONE);
    if running.task.is_some() && !running.quiet {
        print(format_args!("This is {task}"))?;
    }

    let tuning = sweep.plan.tuning();
    let train = |keys: &[Key], journals: &mut Journals| match by {
        Work::Train => work(sweep, running, workers, &task, keys, journals, &interruption),
        Work::Read => Ok(()),
    };
    train(&tuning, &mut journals)?;
    let untuned = missing(&tuning, &journals);
    // The confirmed settings are known only after all of tuning.
    let confirmation = if untuned == 0 {
        let winners = sweep.winners(&sweep.statistics(&sweep.runs(&tuning, &journals.records)));
        let confirmation = sweep.plan.confirmation(&winners);
        train(&confirmation, &mut journals)?;
        confirmation
    } else {
        vec![]
    };
    let unconfirmed = missing(&confirmation, &journals);
    if sweep.is_complete_in(folder.path()) {
        // Another program has finished first.
        return end(sweep, running, &folder, &interruption);
    }
    if running.task.is_some() {
        let state = match (untuned, unconfirmed) {
            (0, 0) => "all trainings are over; `candle-optim merge` ends the work".into(),
            (0, left) => format!("{left} confirmations of other tasks are missing"),
            (left, _) => {
                format!("{left} tuning runs of other tasks are missing; submit the same command again after them")
            }
        };
        return if running.quiet { Ok(()) } else { print(format_args!("The share is done; {state}")) };
    }
    if untuned + unconfirmed > 0 {
        let (left, all) = if untuned > 0 { (untuned, "tuning runs") } else { (unconfirmed, "confirmations") };
        let word = |path: &Path| quoted(&path.to_string_lossy());
        let (file, out) = (word(&folder.path().join(EXPERIMENT)), word(folder.path()));
        let files = sweep.problems.iter().filter_map(|problem| problem.problem.data.as_ref());
        let data: String = files.map(|file| format!(" --data {}", quoted(file))).collect();
        bail!(
            "{left} {all} are missing; submit the tasks again, or complete it here: candle-optim run {file} --out \
             {out}{data}"
        );
    }

    let all: Vec<Key> = tuning.iter().chain(&confirmation).copied().collect();
    let runs = sweep.runs(&all, &journals.records);
    let statistics = sweep.statistics(&runs);
    sweep.write(&folder, &interruption, &journals, &runs, &statistics, &all)?;
    drop(journals);
    end(sweep, running, &folder, &interruption)
}

/// Reports on a complete folder.
fn end(sweep: &Sweep, running: &Running, folder: &Folder, interruption: &Interruption) -> Result<()> {
    let lock = folder.lock(interruption)?;
    // The other files hold all runs now. A journal that remains is from a program that is late or was killed before
    // this.
    journal::paths(folder.path())?.iter().for_each(|path| drop(fs::remove_file(path)));
    let (runs, times) = files::read(folder.path())?;
    let statistics = sweep.statistics(&runs);
    let draw = || -> Result<()> {
        if !running.no_report {
            sweep.draw(folder, &statistics)?;
        }
        if running.tensorboard {
            tensorboard::write(folder.path(), &sweep.event_runs(folder)?)?;
        }
        Ok(())
    };
    let drawn = draw();
    drop(lock);
    if running.json {
        print(text(folder, SUMMARY)?.trim_end())?;
    } else if !running.quiet {
        for note in sweep.problems.iter().flat_map(|problem| problem.notes()) {
            print(format_args!("note: {note}"))?;
        }
        print(text(folder, ANSWER)?)?;
        print(answer::table(sweep, &runs, &statistics, &times))?;
        print(format_args!("Results are in {}", folder.path().join("").display()))?;
    }
    // The answer is worth more than its pictures: it is printed first.
    drawn.context("the comparison is complete, but not its report")?;
    let any = statistics.problems.0.iter().any(|(_, problem)| problem.best.is_some());
    ensure!(any, "none finished: every training diverged");
    Ok(())
}

fn text(folder: &Folder, name: &str) -> Result<String> {
    let path = folder.path().join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read '{}'", path.display()))
}

/// Makes the folder the folder of this comparison, or checks that it already is.
fn claim(sweep: &Sweep, folder: &Folder, interruption: &Interruption) -> Result<()> {
    let (path, text) = (folder.path().join(EXPERIMENT), sweep.experiment.text()?);
    let shown = folder.path().display();
    if !path.exists() {
        ensure!(
            !folder.path().join(SUMMARY).exists(),
            "'{shown}' has the results of another command; allowed: another --out"
        );
        let _lock = folder.lock(interruption)?;
        let (staged, _) = folder.stage(EXPERIMENT, &|out| Ok(out.write_all(text.as_bytes())?))?;
        if staged.persist_new()? {
            return Ok(());
        }
    }
    let known = fs::read_to_string(&path).with_context(|| format!("cannot read '{}'", path.display()))?;
    if known == text {
        return Ok(());
    }
    let differences = sweep.experiment.differences(&Experiment::open(&path)?)?;
    let more = differences.len().saturating_sub(DIFFERENCES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let differences = differences.iter().take(DIFFERENCES).cloned().collect::<Vec<_>>().join(", ");
    bail!(
        "'{shown}' is the folder of another experiment, which differs in {differences}{more}; allowed: another --out, or \
         the same experiment"
    )
}

/// The most keys that an error message names.
const DIFFERENCES: usize = 5;

/// The number of these runs that are not finished.
fn missing(keys: &[Key], journals: &Journals) -> usize {
    keys.iter().filter(|key| !journals.records.contains_key(key)).count()
}

/// Trains the missing runs, or a task's share of them, and reads the runs that others have finished meanwhile.
fn work(
    sweep: &Sweep,
    running: &Running,
    threads: usize,
    task: &Task,
    keys: &[Key],
    journals: &mut Journals,
    interruption: &Interruption,
) -> Result<()> {
    let share = keys.iter().skip(task.number).step_by(task.of);
    let left: Vec<Key> = share.filter(|key| !journals.records.contains_key(key)).copied().collect();
    let live = Live::new("{msg} {bar:40} {pos} of {len} trainings, {eta} left", left.len() as u64, running.quiet);
    live.set_lines(sweep.experiment.optimizer.iter().map(|optimizer| optimizer.label.as_str()));
    live.set_message(if keys.first().is_some_and(|key| key.phase == Phase::Tune) { "tuning" } else { "confirming" });
    let stop = || interruption.is_pending();
    let workers = Workers { sweep, threads, task: task.number, stop: &stop, live: &live };
    let worked = workers.run(left, journals);
    drop(live);
    let over = journals.records.len();
    let kept = || format!("{over} trainings are over and kept in '{}'", running.out.display());
    worked.with_context(kept)?;
    if interruption.is_pending() {
        // The signal ends the program before an error would be printed.
        let _ = writeln!(std::io::stderr(), "error: interrupted; {}; the same command goes on", kept());
        bail!("interrupted");
    }
    journals.refresh(&sweep.plan)
}
