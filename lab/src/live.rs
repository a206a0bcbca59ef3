//! The progress display: on a terminal, a bar and a line for each optimizer; elsewhere, a plain line from time to time.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::plot::ends;
use super::shown::shown;

/// The most lines on a terminal; more optimizers share the bar's message.
const MOST: usize = 20;
/// The fewest values of a long sparkline; it has less than twice as many.
const WIDTH: usize = 20;
/// The time between two plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// The progress of some work.
pub struct Live {
    all: MultiProgress,
    bar: ProgressBar,
    lines: Mutex<Vec<Line>>,
    /// When the last plain line was printed; none on a terminal, and none if nothing is to be printed.
    plain: Option<Mutex<Instant>>,
}

struct Line {
    name: String,
    bar: Option<ProgressBar>,
    history: History,
}

impl Live {
    /// The progress of `length` steps, with a bar of this template.
    pub fn new(template: &str, length: u64, quiet: bool) -> Self {
        let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(length) };
        let all = MultiProgress::new();
        if let (false, Ok(style)) = (quiet, ProgressStyle::with_template(template)) {
            bar.set_style(style);
            all.add(bar.clone());
        }
        let plain = !quiet && !std::io::stderr().is_terminal();
        Self { all, bar, lines: Mutex::default(), plain: plain.then(|| Mutex::new(Instant::now())) }
    }

    /// Replaces the lines by one for each of these names.
    pub fn set_lines<'a>(&self, names: impl ExactSizeIterator<Item = &'a str>) {
        let drawn = names.len() <= MOST && !self.bar.is_hidden();
        let line = |name: &str| {
            let bar = drawn.then(|| self.all.insert_before(&self.bar, ProgressBar::no_length()));
            if let (Some(bar), Ok(style)) = (&bar, ProgressStyle::with_template("{prefix:24!} {wide_msg}")) {
                bar.set_style(style);
                bar.set_prefix(shown(name));
            }
            Line { name: shown(name), bar, history: History::default() }
        };
        let lines = names.map(line).collect();
        for line in std::mem::replace(&mut *locked(&self.lines), lines) {
            line.bar.iter().for_each(ProgressBar::finish_and_clear);
        }
    }

    /// Shows what `text` says on a line, and its latest loss.
    pub fn show(&self, line: usize, loss: f64, text: impl Fn() -> String) {
        if self.bar.is_hidden() && self.plain.is_none() {
            return;
        }
        let mut lines = locked(&self.lines);
        let Some(line) = lines.get_mut(line) else { return };
        line.history.push(loss);
        match (&line.bar, &self.plain) {
            (Some(bar), _) => bar.set_message(format!("{}  {}", text(), line.history.sparkline())),
            (None, Some(last)) => {
                let mut last = locked(last);
                if last.elapsed() >= PAUSE {
                    *last = Instant::now();
                    let _ = writeln!(std::io::stderr(), "{}: {}", line.name, text());
                }
            }
            (None, None) => self.bar.set_message(line.name.clone()),
        }
    }

    /// Sets the text beside the bar.
    pub fn set_message(&self, message: impl Into<String>) {
        self.bar.set_message(message.into());
    }

    /// Advances the bar by one.
    pub fn inc(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.set_lines([].into_iter());
        self.bar.finish_and_clear();
    }
}

/// Ignores poisoning: a thread that panicked leaves the data whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Evenly spaced losses, as many as a sparkline shows.
#[derive(Default)]
struct History {
    values: Vec<f64>,
    /// The number of losses that each value represents, and how many of them the last value has so far.
    stride: usize,
    pending: usize,
}

impl History {
    fn push(&mut self, loss: f64) {
        if self.values.len() == 2 * WIDTH && self.pending == 0 {
            let mut at = 0;
            self.values.retain(|_| {
                at += 1;
                at % 2 == 0
            });
            self.stride *= 2;
        }
        self.stride = self.stride.max(1);
        match self.values.last_mut() {
            Some(last) if self.pending > 0 => *last = loss,
            _ => self.values.push(loss),
        }
        self.pending = (self.pending + 1) % self.stride;
    }

    /// Blocks from the lowest to the highest, logarithmic if losses span more than a decade; a cross if a loss is not
    /// finite.
    fn sparkline(&self) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let finite = || self.values.iter().copied().filter(|loss| loss.is_finite());
        let (low, high) = ends(finite());
        let log = low > 0. && high / low > 10.;
        let at = |x: f64| if log { x.ln() } else { x };
        let block = |&loss: &f64| {
            if !loss.is_finite() {
                return '×';
            }
            let share = (at(loss) - at(low)) / (at(high) - at(low));
            BLOCKS[if share.is_nan() { 0 } else { (share * 7.).round() as usize }]
        };
        self.values.iter().map(block).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparkline(losses: &[f64]) -> String {
        let mut history = History::default();
        losses.iter().for_each(|loss| history.push(*loss));
        history.sparkline()
    }

    #[test]
    fn sparklines_go_from_the_highest_loss_to_the_lowest() {
        assert_eq!(sparkline(&[7., 6., 5., 4., 3., 2., 1., 0.]), "█▇▆▅▄▃▂▁");
        assert_eq!(sparkline(&[1., 0.1, 0.001]), "█▆▁");
        assert_eq!(sparkline(&[0.5, f64::NAN, f64::INFINITY]), "▁××");
        assert_eq!(sparkline(&[f64::MAX, f64::MIN]).chars().count(), 2);
        assert_eq!((sparkline(&[]), sparkline(&[0.7])), (String::new(), "▁".into()));
    }

    #[test]
    fn long_histories_are_short_and_have_their_shape() {
        for n in [WIDTH, 2 * WIDTH, 2 * WIDTH + 1, 1000, 100_000] {
            let falling: Vec<f64> = (0..n).map(|i| (n - i) as f64).collect();
            let line: Vec<char> = sparkline(&falling).chars().collect();
            assert!(line.len() <= 2 * WIDTH && line.len() >= WIDTH.min(n), "{n}: {}", line.len());
            assert!(line.is_sorted_by(|a, b| a >= b) && line[0] == '█' && line[line.len() - 1] == '▁', "{n}: {line:?}");
        }
    }
}
