//! The table of all runs, `runs.csv`.

use std::fmt::Display;
use std::io::{Read, Write};
use std::str::FromStr;

use anyhow::{Result, anyhow, bail, ensure};
use csv::{ReaderBuilder, StringRecord};

use serde::{Deserialize, Serialize};

use crate::folder::csv_writer;
use crate::shown::shown;

/// Columns before the searched keys.
const BEFORE: [&str; 5] = ["problem", "optimizer", "phase", "trial", "seed"];
/// Columns behind the searched keys.
const AFTER: [&str; 10] = [
    "status",
    "validation_loss",
    "validation_best",
    "best_epoch",
    "baseline_loss",
    "test_loss",
    "test_accuracy",
    "epochs_to_target",
    "gradient_evaluations",
    "evaluations_to_target",
];
/// The status of a run that reached the last epoch.
const OK: &str = "ok";
/// The status of a diverged run; its epoch follows.
const DIVERGED: &str = "diverged@";
/// The searched key that is the learning rate.
pub(super) const RATE: &str = "lr";

/// The purpose of a run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// To find the best setting of an optimizer.
    Tune,
    /// To measure that setting, on fresh seeds.
    Confirm,
}

impl Phase {
    const ALL: [Self; 2] = [Self::Tune, Self::Confirm];

    /// How a file spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tune => "tune",
            Self::Confirm => "confirm",
        }
    }
}

/// The outcome of one training.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Outcome {
    /// The first epoch, from 1, whose training or validation loss is not finite.
    pub diverged_at: Option<usize>,
    /// Validation loss after the last epoch; infinite if the run diverged.
    pub validation_loss: f64,
    /// Lowest validation loss of all epochs; infinite if the run diverged.
    pub validation_best: f64,
    /// The epoch, from 1, of that loss.
    pub best_epoch: Option<usize>,
    /// The loss of the best constant prediction on the run's validation rows.
    pub baseline_loss: f64,
    /// Loss on the test rows, in a confirmation; infinite if the run diverged.
    pub test_loss: Option<f64>,
    /// Share of test rows predicted correctly, in a confirmation.
    pub test_accuracy: Option<f64>,
    /// Epochs until the validation loss was at most the target, in a confirmation; infinite if it never was.
    pub epochs_to_target: Option<f64>,
    /// Gradients that the whole run computed.
    pub gradient_evaluations: u64,
    /// Gradients computed until the target, in a confirmation; infinite if the target was never reached.
    pub evaluations_to_target: Option<f64>,
}

/// A row: a training and its outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The problem's name.
    pub problem: String,
    /// The optimizer's label.
    pub optimizer: String,
    /// The purpose of the run.
    pub phase: Phase,
    /// The number of the setting, from 0.
    pub trial: usize,
    /// The seed.
    pub seed: u32,
    /// The text of each key of the table; none if the optimizer does not search the key.
    pub searched: Vec<Option<String>>,
    /// The outcome of the run.
    pub outcome: Outcome,
}

/// All runs of an experiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Runs {
    /// The keys that any optimizer searches.
    pub keys: Vec<String>,
    /// The runs, in the order of the file.
    pub rows: Vec<Run>,
}

impl Runs {
    /// Reads a table.
    ///
    /// # Errors
    /// A missing column, or a cell that does not fit its column; the message names line and column.
    pub fn read(from: impl Read) -> Result<Self> {
        let reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(from);
        let mut records = reader.into_records();
        let Some(header) = records.next().transpose()? else { bail!("the file is empty") };
        let keys = keys(&header)?;
        let row = |record: csv::Result<StringRecord>| Row::new(&header, &record?)?.run();
        Ok(Self { keys, rows: records.map(row).collect::<Result<_>>()? })
    }

    /// Writes the table.
    ///
    /// # Errors
    /// A failing writer, or a row with another number of searched keys than the table.
    pub fn write(&self, to: impl Write) -> Result<()> {
        let mut writer = csv_writer(to);
        writer.write_record(BEFORE.into_iter().chain(self.keys.iter().map(String::as_str)).chain(AFTER))?;
        for run in &self.rows {
            writer.write_record(cells(run))?;
        }
        writer.flush()?;
        Ok(())
    }
}

/// The searched keys of a header, which must have all other columns in their order.
fn keys(header: &StringRecord) -> Result<Vec<String>> {
    let names: Vec<&str> = header.iter().collect();
    let end = names.iter().position(|&name| name == AFTER[0]).unwrap_or(names.len());
    let keys = names.get(BEFORE.len()..end).unwrap_or_default();
    let expected = [&BEFORE, keys, &AFTER].concat();
    for i in 0..expected.len().max(names.len()) {
        let (column, name) = (i + 1, names.get(i).map_or_else(String::new, |name| shown(name)));
        match expected.get(i) {
            None => bail!("line 1: column {column}, '{name}', is one too many"),
            Some(expected) if i >= names.len() => bail!("line 1: column {column} is missing; it must be '{expected}'"),
            Some(expected) if *expected != names[i] => {
                bail!("line 1: column {column} is '{name}', but must be '{expected}'")
            }
            Some(_) => ensure!(!names[..i].contains(&names[i]), "line 1: the column '{name}' stands twice"),
        }
    }
    Ok(keys.iter().map(|&key| key.into()).collect())
}

/// A line of a file, below its header.
struct Row<'a> {
    header: &'a StringRecord,
    cells: &'a StringRecord,
    line: u64,
}

impl<'a> Row<'a> {
    fn new(header: &'a StringRecord, cells: &'a StringRecord) -> Result<Self> {
        let line = cells.position().map_or(0, csv::Position::line);
        let (n, expected) = (cells.len(), header.len());
        ensure!(n == expected, "line {line}: the number of cells is {n}, but the header has {expected}");
        Ok(Self { header, cells, line })
    }

    /// The text in a column.
    fn text(&self, column: &str) -> &'a str {
        let at = self.header.iter().position(|name| name == column);
        at.and_then(|at| self.cells.get(at)).unwrap_or_default()
    }

    fn error(&self, column: &str, allowed: &str) -> anyhow::Error {
        let (line, text) = (self.line, shown(self.text(column)));
        anyhow!("line {line}, column '{}': '{text}'; allowed: {allowed}", shown(column))
    }

    fn whole<T: FromStr>(&self, column: &str) -> Result<T> {
        self.text(column).parse().map_err(|_| self.error(column, "a whole number"))
    }

    fn number(&self, column: &str, allowed: &str) -> Result<Option<f64>> {
        if self.text(column).is_empty() {
            return Ok(None);
        }
        let number = self.text(column).parse().ok().filter(|x: &f64| *x > f64::NEG_INFINITY);
        number.map(Some).ok_or_else(|| self.error(column, allowed))
    }

    fn run(&self) -> Result<Run> {
        const RATES: &str = "a number, or nothing";
        let text = |column| match self.text(column) {
            "" => Err(self.error(column, "a name")),
            text => Ok(text.into()),
        };
        let spelled = |phase: &Phase| phase.as_str() == self.text("phase");
        let phase = Phase::ALL.into_iter().find(spelled).ok_or_else(|| self.error("phase", "tune, confirm"))?;
        let keys = BEFORE.len()..self.header.len() - AFTER.len();
        let searched = keys.map(|i| self.cells.get(i).filter(|text| !text.is_empty()).map(Into::into)).collect();
        // The width of the working range of learning rates is computed from it.
        let rate = self.number(RATE, RATES)?;
        ensure!(rate.is_none_or(f64::is_finite), self.error(RATE, RATES));
        Ok(Run {
            problem: text("problem")?,
            optimizer: text("optimizer")?,
            phase,
            trial: self.whole("trial")?,
            seed: self.whole("seed")?,
            searched,
            outcome: self.outcome(phase)?,
        })
    }

    fn outcome(&self, phase: Phase) -> Result<Outcome> {
        const LOSS: &str = "a number, inf";
        const BASELINE: &str = "a number";
        let diverged_at = match self.text("status") {
            OK => None,
            status => {
                let epoch =
                    status.strip_prefix(DIVERGED).and_then(|epoch| epoch.parse().ok()).filter(|&epoch| epoch > 0);
                Some(epoch.ok_or_else(|| self.error("status", "ok, diverged@E with an epoch E from 1"))?)
            }
        };
        let diverged = diverged_at.is_some();
        let validation = |column| match self.number(column, LOSS)? {
            _ if diverged => Ok(f64::INFINITY),
            loss => loss.ok_or_else(|| self.error(column, LOSS)),
        };
        let measured = |column| self.number(column, "a number, inf, or nothing");
        let test_loss = measured("test_loss")?;
        let best_epoch = if self.text("best_epoch").is_empty() { None } else { Some(self.whole("best_epoch")?) };
        let baseline = self.number("baseline_loss", BASELINE)?.filter(|loss| loss.is_finite());
        Ok(Outcome {
            diverged_at,
            validation_loss: validation("validation_loss")?,
            validation_best: validation("validation_best")?,
            best_epoch,
            baseline_loss: baseline.ok_or_else(|| self.error("baseline_loss", BASELINE))?,
            test_loss: if diverged { (phase == Phase::Confirm).then_some(f64::INFINITY) } else { test_loss },
            test_accuracy: measured("test_accuracy")?,
            epochs_to_target: measured("epochs_to_target")?,
            gradient_evaluations: self.whole("gradient_evaluations")?,
            evaluations_to_target: measured("evaluations_to_target")?,
        })
    }
}

fn cells(run: &Run) -> Vec<String> {
    fn cell(value: Option<impl Display>) -> String {
        value.map_or_else(String::new, |value| value.to_string())
    }
    // The shortest decimals, and an exponent where there would be many zeros.
    let number = |x: f64| format!("{x:?}");
    let outcome = &run.outcome;
    let mut cells = vec![
        run.problem.clone(),
        run.optimizer.clone(),
        run.phase.as_str().into(),
        run.trial.to_string(),
        run.seed.to_string(),
    ];
    cells.extend(run.searched.iter().map(|text| text.clone().unwrap_or_default()));
    cells.extend([
        outcome.diverged_at.map_or(OK.into(), |epoch| format!("{DIVERGED}{epoch}")),
        number(outcome.validation_loss),
        number(outcome.validation_best),
        cell(outcome.best_epoch),
        number(outcome.baseline_loss),
        cell(outcome.test_loss.map(number)),
        cell(outcome.test_accuracy.map(number)),
        cell(outcome.epochs_to_target),
        outcome.gradient_evaluations.to_string(),
        cell(outcome.evaluations_to_target),
    ]);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "problem,optimizer,phase,trial,seed,lr,nesterov,status,validation_loss,validation_best,best_epoch,\
        baseline_loss,test_loss,test_accuracy,epochs_to_target,gradient_evaluations,evaluations_to_target\n";

    fn read(rows: &str) -> Result<Runs> {
        Runs::read(format!("{HEADER}{rows}").as_bytes())
    }

    #[test]
    fn a_table_comes_back_as_it_was() {
        let rows = "\
circles,adam,tune,0,7,0.0001,,ok,0.25,1e-7,3,0.693147,,,,100,
circles,adam,tune,1,7,1.0,,diverged@3,inf,inf,,0.693147,,,,3,
circles,adam,confirm,0,4294967295,0.0001,,ok,1e300,5e-324,100,0.1,0.30000000000000004,0.995,23,100,23
circles,\"a \"\"b\"\", c\",confirm,12,8,,true,diverged@20,inf,inf,,1.0,inf,,inf,20,inf
";
        let runs = read(rows).unwrap();
        let mut written = vec![];
        runs.write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), format!("{HEADER}{rows}"));

        assert_eq!(runs.keys, ["lr", "nesterov"]);
        let last = &runs.rows[3];
        assert_eq!((last.optimizer.as_str(), last.phase, last.trial, last.seed), ("a \"b\", c", Phase::Confirm, 12, 8));
        assert_eq!(last.searched, [None, Some("true".into())]);
        assert_eq!(last.outcome.diverged_at, Some(20));
        assert_eq!(last.outcome.evaluations_to_target, Some(f64::INFINITY));
        assert_eq!((runs.rows[0].outcome.best_epoch, runs.rows[0].outcome.test_loss), (Some(3), None));
        assert_eq!(runs.rows[2].outcome.validation_best, 5e-324);
    }

    #[test]
    fn a_diverged_run_has_infinite_losses() {
        let rows = "p,o,tune,0,1,,,diverged@2,0.5,0.4,1,0.7,0.5,,,2,\np,o,confirm,0,1,,,diverged@2,,,,0.7,,,,2,\n";
        let [tune, confirm] = read(rows).unwrap().rows.try_into().unwrap();
        for outcome in [&tune.outcome, &confirm.outcome] {
            assert_eq!((outcome.validation_loss, outcome.validation_best), (f64::INFINITY, f64::INFINITY));
        }
        assert_eq!((tune.outcome.test_loss, confirm.outcome.test_loss), (None, Some(f64::INFINITY)));
    }

    #[test]
    fn a_bad_cell_is_named() {
        let good = "p,o,tune,0,1,0.1,,ok,0.5,0.5,9,0.7,0.5,0.9,5,9,5";
        assert!(read(good).is_ok());
        for (column, cell, allowed) in [
            ("problem", "", "a name"),
            ("optimizer", "", "a name"),
            ("phase", "Tune", "tune, confirm"),
            ("trial", "-1", "a whole number"),
            ("trial", "", "a whole number"),
            ("seed", "4294967296", "a whole number"),
            ("lr", "fast", "a number, or nothing"),
            ("lr", "inf", "a number, or nothing"),
            ("status", "diverged@0", "ok, diverged@E with an epoch E from 1"),
            ("status", "", "ok, diverged@E with an epoch E from 1"),
            ("validation_loss", "", "a number, inf"),
            ("validation_best", "nan", "a number, inf"),
            ("best_epoch", "1.5", "a whole number"),
            ("baseline_loss", "inf", "a number"),
            ("baseline_loss", "", "a number"),
            ("test_loss", "-inf", "a number, inf, or nothing"),
            ("test_accuracy", "x\u{1b}[m", "a number, inf, or nothing"),
            ("epochs_to_target", "never", "a number, inf, or nothing"),
            ("gradient_evaluations", "9.0", "a whole number"),
            ("evaluations_to_target", "\"5\n\"", "a number, inf, or nothing"),
        ] {
            let at = HEADER.trim_end().split(',').position(|name| name == column).unwrap();
            let mut cells: Vec<&str> = good.split(',').collect();
            cells[at] = cell;
            let error = read(&format!("{good}\n{}\n", cells.join(","))).unwrap_err().to_string();
            let start = format!("line 3, column '{column}': '");
            assert!(error.starts_with(&start) && error.ends_with(&format!("'; allowed: {allowed}")), "{error}");
            assert!(!error.contains(char::is_control), "{error}");
        }
        let error = |text: &str| Runs::read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(error(&format!("{HEADER}p,o")), "line 2: the number of cells is 2, but the header has 17");
        assert_eq!(error(&format!("{HEADER}{good}\n\"p,o")), "line 3: the number of cells is 1, but the header has 17");
        assert_eq!(error(""), "the file is empty");
    }

    #[test]
    fn a_bad_header_is_named() {
        let error = |from: &str, to: &str| Runs::read(HEADER.replace(from, to).as_bytes()).unwrap_err().to_string();
        assert_eq!(error("phase,", ""), "line 1: column 3 is 'trial', but must be 'phase'");
        assert_eq!(error("nesterov", "lr"), "line 1: the column 'lr' stands twice");
        assert_eq!(error("nesterov", "test_loss"), "line 1: the column 'test_loss' stands twice");
        assert_eq!(error("validation_best,", ""), "line 1: column 10 is 'best_epoch', but must be 'validation_best'");
        assert_eq!(
            error(",evaluations_to_target", ""),
            "line 1: column 17 is missing; it must be 'evaluations_to_target'"
        );
        assert_eq!(error("\n", ",more\n"), "line 1: column 18, 'more', is one too many");
        assert_eq!(error("status,", ""), "line 1: column 17 is missing; it must be 'status'");
    }
}
