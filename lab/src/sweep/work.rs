//! Trains the missing runs, one training per core.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use anyhow::{Context, Result, anyhow};

use super::Sweep;
use super::journal::Journals;
use super::loaded::Subject;
use super::plan::Key;
use super::training::{Job, run};
use crate::live::Live;

/// The threads that train.
pub struct Workers<'a> {
    /// The comparison.
    pub sweep: &'a Sweep,
    /// The number of threads.
    pub threads: usize,
    /// The index of the task, which is part of the journal's name.
    pub task: usize,
    /// Whether to stop: running trainings are dropped at the end of an epoch.
    pub stop: &'a (dyn Fn() -> bool + Sync),
    /// Counts the runs, with a line for each optimizer.
    pub live: &'a Live,
}

impl Workers<'_> {
    /// Trains these runs and writes each to the journal. A `stop` ends the work early, without an error.
    ///
    /// # Errors
    /// The first error of any thread; the others then stop.
    pub fn run(&self, mut keys: Vec<Key>, journals: &mut Journals) -> Result<()> {
        // Trainings on the same rows are consecutive, so that few data sets are in memory.
        keys.sort_by_key(|key| (key.problem, key.seed, key.optimizer, key.trial));
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let (journals, subjects) = (Mutex::new(journals), Mutex::new(HashMap::new()));
        let stop = || failed.load(Ordering::Relaxed) || (self.stop)();
        let worker = || -> Result<()> {
            // One thread per training: parallel operations of a training run on its own thread.
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread();
            let _pool = pool.build().context("cannot start a thread")?;
            let mut subject = None;
            while let Some(&key) = keys.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop() {
                    break;
                }
                let subject = subject.insert(self.subject(key, &subjects)?);
                let job = Job::new(self.sweep, key, self.sweep.experiment.training.epochs);
                let what = || format!("'{}' with seed {}", self.sweep.plan.setting(key).spec.text(), job.seed);
                let Some(trained) = run(&job, subject, &stop).with_context(what)? else { break };
                locked(&journals).append(key, &trained, self.task)?;
                self.live.inc();
                let loss = trained.outcome.validation_loss;
                self.live.show(key.optimizer, loss, || {
                    let what = self.sweep.plan.setting(key).pairs.iter().map(|(key, value)| format!("{key}={value}"));
                    let what = what.collect::<Vec<_>>().join(",");
                    format!("{what:16} validation loss {loss:.4}")
                });
            }
            Ok(())
        };
        let worker = || worker().inspect_err(|_| failed.store(true, Ordering::Relaxed));
        thread::scope(|scope| {
            let spawn = |_| thread::Builder::new().spawn_scoped(scope, worker).context("cannot start a thread");
            let threads: Vec<_> = (0..self.threads.min(keys.len())).map(spawn).collect();
            let join = |thread: thread::ScopedJoinHandle<Result<()>>| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a training ended the thread that it ran in")))
            };
            let results: Vec<Result<()>> = threads.into_iter().map(|thread| thread.and_then(join)).collect();
            results.into_iter().collect::<Result<()>>()
        })?;
        locked(&journals).sync()
    }

    /// The subject of a run, shared by all active runs of its seed.
    fn subject(&self, key: Key, subjects: &Mutex<HashMap<(usize, usize), Weak<Subject>>>) -> Result<Arc<Subject>> {
        let mut subjects = locked(subjects);
        if let Some(subject) = subjects.get(&(key.problem, key.seed)).and_then(Weak::upgrade) {
            return Ok(subject);
        }
        let subject = Arc::new(self.sweep.subject(key.problem, self.sweep.plan.seed(key))?);
        subjects.insert((key.problem, key.seed), Arc::downgrade(&subject));
        Ok(subject)
    }
}

/// Ignores poisoning: the data change only at the end of an operation, so a thread that panicked leaves them whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
