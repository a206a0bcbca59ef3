//! The report of a comparison: a section for each problem, and one for all of them.

use std::collections::{BTreeMap, HashMap};

use super::experiment::Experiment;
use super::files::{ANSWER, EXPERIMENT, LossRow, SUMMARY_KEY, Times, read_times};
use super::rates::{baseline, rates};
use super::runs::{Phase, Run, Runs};
use super::statistics::{self, Problem, Statistics, Verdict, quartiles, statistics};
use crate::data::TaskType;
use crate::output::SUMMARY;
use crate::plot::looks;
use crate::report::figure::{Axis, Figure, Mark, Optimizer, Panel, Section, Series, Shape, Table, short};
use crate::report::{Files, curves, facts, look, networks};
use crate::shown::shown;
use crate::tables;
use anyhow::{Context, Result, ensure};

/// The most epochs of a line.
const EPOCHS: usize = 200;

/// Whether a summary is that of a comparison.
pub fn is_comparison(summary: &serde_json::Value) -> bool {
    summary.get(SUMMARY_KEY).is_some()
}

/// The sections of a comparison with this summary, with at most `points` points per line.
///
/// # Errors
/// Files that the program did not write.
pub fn sections(summary: &serde_json::Value, files: &Files, points: usize) -> Result<Vec<Section>> {
    let experiment = Experiment::open(&files.path(EXPERIMENT))?;
    let runs = files.read("runs.csv", |file| Runs::read(file))?;
    let times = files.read("timings.csv", |file| {
        let (times, rows) = read_times(file)?;
        ensure!(rows == runs.rows.len(), "it has {rows} rows, and there are {} runs", runs.rows.len());
        Ok(times)
    })?;
    let statistics = statistics(&runs, experiment.tuning.score, experiment.seed);
    // The other numbers are read from text, so ours must be too.
    let ours: serde_json::Value = serde_json::from_str(&serde_json::to_string(&statistics)?)?;
    ensure!(summary["statistics"] == ours, "'runs.csv' is not the one that {SUMMARY} is of");
    let answer = files.text(ANSWER)?;
    let epochs = experiment.training.epochs;
    let confirmed = runs.rows.iter().filter(|run| run.phase == Phase::Confirm);
    let rows = confirmed.map(|run| run.outcome.diverged_at.unwrap_or(epochs)).sum();
    let bands = files.read("losses.csv", |file| bands(file, rows, epochs, points.min(EPOCHS)))?;
    let details = networks::recorded(files)?;
    let facts = facts(&summary[SUMMARY_KEY], &summary["versions"]);

    let labels: Vec<&str> = experiment.optimizer.iter().map(|optimizer| optimizer.label.as_str()).collect();
    let optimizers = look::optimizers(labels.iter().copied(), &looks(labels.iter().map(|_| false)));
    let mut paragraphs = answer.trim_end().split("\n\n");
    let several = statistics.problems.0.len() > 1;
    let mut sections = vec![];
    for (at, (label, found)) in statistics.problems.0.iter().enumerate() {
        let of = experiment.problem.get(at).context("an experiment of other problems")?;
        let task = of.task_type()?;
        let of_problem = OfProblem {
            experiment: &experiment,
            label,
            found,
            runs: &runs,
            rows: runs.rows.iter().filter(|run| run.problem == *label).collect(),
            times: &times,
            bands: bands.get(label.as_str()),
            labels: &labels,
            optimizers: &optimizers,
            is_function: of.function().is_some(),
            task,
        };
        let paragraph = paragraphs.next().map_or_else(String::new, |text| shortened(text, &labels, &optimizers));
        let paragraph: Vec<&str> = paragraph.lines().collect();
        let command = paragraph.iter().find_map(|line| line.strip_prefix("Train with it:  "));
        let prefix = if several { format!("{}-", at + 1) } else { String::new() };
        let mut figures = of_problem.figures(&prefix);
        figures.extend(details.get(at).into_iter().flat_map(|details| {
            let mut figures = networks::figures(details, &labels, &optimizers, &prefix);
            for figure in &mut figures {
                figure.note += " Shown is the training on the first of the fresh seeds.";
            }
            figures
        }));
        let again = format!("candle-optim run {EXPERIMENT} --out DIR");
        let commands = [("This comparison, in its folder".into(), again)].into_iter();
        let best = command.map(|command| ("The best setting".into(), command.to_owned()));
        sections.push(Section {
            id: format!("problem-{}", at + 1),
            title: format!("Optimizers on {}", shown(label)),
            answer: paragraph
                .iter()
                .filter(|line| !line.starts_with("Train with it:"))
                .map(|line| (*line).into())
                .collect(),
            commands: commands.chain(best).collect(),
            optimizers: optimizers.clone(),
            results: of_problem.results(),
            tables: vec![],
            figures,
            facts: if several { vec![] } else { facts.clone() },
        });
    }
    let over = paragraphs.next().map(|text| shortened(text, &labels, &optimizers));
    if let Some(all) = over_problems(&statistics, &labels, &optimizers, over) {
        sections.insert(0, Section { facts, ..all });
    }
    Ok(sections)
}

/// Replaces long labels in a text by their short names in the legend.
fn shortened(text: &str, labels: &[&str], optimizers: &[Optimizer]) -> String {
    let mut long: Vec<(&&str, &Optimizer)> =
        labels.iter().zip(optimizers).filter(|(label, optimizer)| **label != optimizer.name).collect();
    // Long labels first: a label may begin with another.
    long.sort_by_key(|(label, _)| std::cmp::Reverse(label.len()));
    long.iter().fold(text.to_owned(), |text, (label, optimizer)| text.replace(**label, &optimizer.name))
}

/// Quartiles over seeds of the columns of `losses.csv`, by problem and optimizer; each epoch has its own.
type Bands = HashMap<String, BandsOfProblem>;
type BandsOfProblem = HashMap<String, Vec<Band>>;
type Band = (usize, [Option<[f64; 3]>; 4]);

/// Reads `rows` rows for `epochs` epochs; some epochs are drawn.
fn bands(file: &mut dyn std::io::Read, rows: usize, epochs: usize, most: usize) -> Result<Bands> {
    let mut read = 0;
    let stride = epochs.div_ceil(most.max(2)).max(1);
    let is_drawn = |epoch: usize| (epoch - 1).is_multiple_of(stride) || epoch == epochs;
    let mut all = HashMap::<String, HashMap<String, BTreeMap<usize, [Vec<f64>; 4]>>>::new();
    for row in csv::Reader::from_reader(file).into_deserialize() {
        let row: LossRow = row?;
        read += 1;
        let (epoch, losses) = (row.epoch, row.losses());
        if epoch > 0 && is_drawn(epoch) {
            let columns =
                all.entry(row.problem).or_default().entry(row.optimizer).or_default().entry(epoch).or_default();
            for (column, values) in columns.iter_mut().enumerate() {
                values.push(curves::value(&losses, column));
            }
        }
    }
    ensure!(read == rows, "it has {read} rows, and the runs have {rows} epochs");
    // A diverged run has no later epochs: they count as worse than all others.
    let of_epoch = |(epoch, columns): (usize, [Vec<f64>; 4]), seeds: usize| {
        let band = |(column, mut values): (usize, Vec<f64>)| {
            let worst = if column < 2 { f64::INFINITY } else { f64::NEG_INFINITY };
            values.iter_mut().filter(|x| x.is_nan()).for_each(|x| *x = worst);
            values.resize(seeds.max(values.len()), worst);
            quartiles(&values)
        };
        let mut columns = columns.into_iter().enumerate().map(band);
        (epoch, [(); 4].map(|()| columns.next().flatten()))
    };
    let of_optimizer = |epochs: BTreeMap<usize, [Vec<f64>; 4]>| {
        let seeds = epochs.values().map(|columns| columns[0].len()).max().unwrap_or(0);
        epochs.into_iter().map(|epoch| of_epoch(epoch, seeds)).collect()
    };
    let of_problem = |optimizers: HashMap<String, BTreeMap<usize, [Vec<f64>; 4]>>| {
        optimizers.into_iter().map(|(name, epochs)| (name, of_optimizer(epochs))).collect()
    };
    Ok(all.into_iter().map(|(name, optimizers)| (name, of_problem(optimizers))).collect())
}

/// The data for the figures of a problem.
struct OfProblem<'a> {
    experiment: &'a Experiment,
    label: &'a str,
    found: &'a Problem,
    runs: &'a Runs,
    rows: Vec<&'a Run>,
    times: &'a Times,
    bands: Option<&'a BandsOfProblem>,
    labels: &'a [&'a str],
    optimizers: &'a [Optimizer],
    is_function: bool,
    task: TaskType,
}

impl OfProblem<'_> {
    fn figures(&self, prefix: &str) -> Vec<Figure> {
        let all = [self.curves(), self.rates(), self.best_of_k(), self.differences(), self.cost()];
        let is_drawn = |figure: &Figure| {
            figure.panels.iter().any(|panel| panel.series.iter().any(|series| !series.points.is_empty()))
        };
        let named = |figure: Figure| Figure { picture: Some(format!("{prefix}{}", figure.id)), ..figure };
        all.into_iter().filter(is_drawn).map(named).collect()
    }

    /// Each optimizer of the experiment with its index.
    fn each(&self) -> impl Iterator<Item = (usize, &statistics::Optimizer)> {
        let of = |(at, label): (usize, &&str)| Some((at, self.found.optimizers.get(*label)?));
        self.labels.iter().enumerate().filter_map(of)
    }

    /// The name of a test loss.
    fn loss(&self) -> &'static str {
        if self.is_function { "Value" } else { "Test loss" }
    }

    fn curves(&self) -> Figure {
        let series = |column: usize| {
            let line = |(optimizer, label): (usize, &&str)| {
                let epochs = self.bands?.get(*label)?;
                let of = |(epoch, columns): &Band| Some((*epoch as f64, columns[column]?));
                let (mut points, mut band) = (vec![], vec![]);
                for (epoch, [low, middle, high]) in epochs.iter().filter_map(of) {
                    points.push([epoch, middle]);
                    band.push([low, high]);
                }
                let diverged = self.diverged(label);
                let last = points.iter().rfind(|[_, y]| y.is_finite()).copied();
                let mark = |at: [f64; 2]| Mark { at, text: format!("{diverged} seeds diverged"), cross: true };
                let marks = last.filter(|_| diverged > 0 && column < 2).map(mark).into_iter().collect();
                Some(Series { optimizer, points, band, marks, ..Series::default() })
            };
            self.labels.iter().enumerate().filter_map(line).collect()
        };
        let seeds = self.experiment.tuning.confirm_seeds;
        let note = format!(
            "The best setting of each optimizer on {seeds} fresh seeds: medians, with bands from the lower to the upper \
             quartile. A run that diverged counts as worse than all others; a cross is where the last of its line is."
        );
        let mut figure = curves::figure(self.task, self.optimizers, note, series);
        if self.is_function {
            // The values before and after a step are the same column, shifted by one.
            figure.panels.truncate(1);
        }
        figure
    }

    fn diverged(&self, label: &str) -> usize {
        let own = self.rows.iter().filter(|run| run.optimizer == label && run.phase == Phase::Confirm);
        own.filter(|run| run.outcome.diverged_at.is_some()).count()
    }

    fn rates(&self) -> Figure {
        let which = self.experiment.tuning.score;
        let (mut scores, mut failed) = (vec![], vec![]);
        for (optimizer, found) in self.each() {
            let tune: Vec<&Run> = self
                .rows
                .iter()
                .copied()
                .filter(|run| run.phase == Phase::Tune && run.optimizer == self.labels[optimizer])
                .collect();
            let rates = rates(&self.runs.keys, &tune, found, which);
            let mark = |rate: &super::rates::Rate| {
                let cross = !rate.wins;
                let text = if cross { format!("{:.0} % diverged", 100. * rate.diverged) } else { "best".into() };
                (rate.wins || rate.diverged > 0.).then_some(Mark { at: [rate.lr, rate.score], text, cross })
            };
            scores.push(Series {
                optimizer,
                shape: Shape::Marked,
                points: rates.iter().map(|rate| [rate.lr, rate.score]).collect(),
                band: rates.iter().map(|rate| [rate.low, rate.high]).collect(),
                marks: rates.iter().filter_map(mark).collect(),
                ..Series::default()
            });
            let points = rates.iter().map(|rate| [rate.lr, 100. * rate.failed]).collect();
            failed.push(Series { optimizer, shape: Shape::Marked, points, ..Series::default() });
            if rates.iter().any(|rate| rate.diverged > 0.) {
                let points = rates.iter().map(|rate| [rate.lr, 100. * rate.diverged]).collect();
                let name = "diverged".into();
                failed.push(Series { optimizer, name, shape: Shape::Thin, points, ..Series::default() });
            }
        }
        let panel = |title: &str, y: Axis, series, level| {
            Panel { title: title.into(), x: Axis::log("Learning rate"), y, series, level, ..Panel::default() }
                .described(self.optimizers)
        };
        let constant = if self.is_function { "start" } else { "constant prediction" };
        let loss = if self.is_function { "Mean value" } else { "Mean validation loss" };
        let positive = scores.iter().flat_map(|series| &series.points).all(|[_, y]| *y > 0.);
        let y = if positive { Axis::log(loss) } else { Axis::linear(loss) };
        Figure {
            id: "rates".into(),
            title: "Sensitivity to the learning rate".into(),
            note: format!(
                "Tuning runs, {} seeds for each setting; of other searched keys, the best value counts for each learning rate. \
                 Bands are quartiles over seeds, rings the winners, crosses settings of which a run diverged. No loss counts \
                 more than a constant prediction. Thin lines: shares that diverged.",
                self.experiment.tuning.seeds
            ),
            panels: vec![
                panel("Score", y, scores, Some((baseline(&self.rows), constant.into()))),
                panel("Failed runs", Axis::linear("% of the seeds"), failed, None),
            ],
            ..Figure::default()
        }
    }

    fn best_of_k(&self) -> Figure {
        let line = |values: &[f64]| values.iter().enumerate().map(|(k, score)| [(k + 1) as f64, *score]).collect();
        let of = |(optimizer, found): (usize, &statistics::Optimizer)| {
            let mean = Series { optimizer, points: line(&found.expected_best), ..Series::default() };
            let name = "median".into();
            let median =
                Series { optimizer, name, shape: Shape::Thin, points: line(&found.median_best), ..Series::default() };
            [mean, median]
        };
        let ranges = self.experiment.optimizer.iter().zip(self.optimizers).map(|(optimizer, named)| {
            let search =
                optimizer.search.as_ref().map_or(String::new(), |search| format!(" ({})", shown(&search.to_string())));
            format!("{}{search}", named.name)
        });
        let ranges = ranges.take(12).collect::<Vec<_>>().join("; ");
        let series: Vec<Series> = self.each().flat_map(of).filter(|series| series.points.len() > 1).collect();
        let positive = series.iter().flat_map(|series| &series.points).all(|[_, y]| *y > 0.);
        let score = if positive { Axis::log("Score") } else { Axis::linear("Score") };
        let panel = Panel {
            title: "Best score of k settings".into(),
            x: Axis::linear("k"),
            y: score,
            series,
            ..Panel::default()
        };
        Figure {
            id: "budget".into(),
            title: "Best of k settings".into(),
            note: format!(
                "What a smaller budget gives: the mean (thin: the lower median) of the best score of k settings drawn at random \
                 from those tried. It depends on the ranges: {ranges}."
            ),
            panels: vec![panel.described(self.optimizers)],
            ..Figure::default()
        }
    }

    fn differences(&self) -> Figure {
        let Some(best) = &self.found.best else { return Figure::default() };
        let mut found: Vec<_> = self.found.differences.0.iter().collect();
        found.sort_by(|a, b| a.1.median.total_cmp(&b.1.median));
        let name = |label: &str| {
            let at = self.labels.iter().position(|other| *other == label);
            at.map_or_else(String::new, |at| self.optimizers[at].name.clone())
        };
        let row = |(row, (label, difference)): (usize, &&(String, statistics::Difference))| {
            let optimizer = self.labels.iter().position(|other| other == label)?;
            let whiskers = difference.interval.into_iter().collect();
            let points = vec![[difference.median, row as f64]];
            Some(Series { optimizer, shape: Shape::Points, points, whiskers, ..Series::default() })
        };
        let zero = Series {
            optimizer: usize::MAX,
            name: "no difference".into(),
            points: vec![[0., -0.5], [0., found.len() as f64 - 0.5]],
            ..Series::default()
        };
        let said = found.iter().take(8).map(|(label, difference)| {
            let verdict = match difference.verdict {
                Verdict::Worse => "worse",
                Verdict::Better => "better",
                Verdict::NotDistinguished => "not distinguished",
                Verdict::TooFewSeeds => "too few seeds",
            };
            format!("{} {} ({verdict})", name(label), short(difference.median))
        });
        let alt = format!("Differences to {}: {}.", name(best), said.collect::<Vec<_>>().join("; "));
        let series: Vec<Series> = found.iter().enumerate().filter_map(row).chain([zero]).collect();
        let y = Axis { names: found.iter().map(|(label, _)| name(label)).collect(), ..Axis::default() };
        let level = found.first().map_or(0.95, |(_, difference)| difference.level);
        let panel = Panel {
            title: format!("Difference to {}", name(best)),
            alt,
            x: Axis::linear(&format!("{} minus that of {}", self.loss(), name(best))),
            y,
            series: if found.is_empty() { vec![] } else { series },
            ..Panel::default()
        };
        Figure {
            id: "differences".into(),
            title: "Differences to the best".into(),
            note: format!(
                "Medians of the differences on the same seeds, with {:.1} % intervals of order statistics. An interval that contains 0: not \
                 distinguished from the best. An interval without an end is infinite.",
                100. * level
            ),
            panels: vec![panel],
            ..Figure::default()
        }
    }

    fn cost(&self) -> Figure {
        let of = |x: &dyn Fn(usize, &statistics::Confirmed) -> Option<f64>| -> Vec<Series> {
            let point = |(optimizer, found): (usize, &statistics::Optimizer)| {
                let confirmed = found.confirmed.as_ref()?;
                let [low, middle, high] = confirmed.test_loss_quartiles;
                let x = x(optimizer, confirmed).filter(|x| x.is_finite())?;
                let (points, band) = (vec![[x, middle]], vec![[low, high]]);
                middle.is_finite().then(|| Series {
                    optimizer,
                    shape: Shape::Points,
                    points,
                    band,
                    ..Series::default()
                })
            };
            self.each().filter_map(point).collect()
        };
        let time = |optimizer: usize, _: &statistics::Confirmed| {
            let times = self.times.get(&(self.label.to_owned(), self.labels[optimizer].to_owned()))?;
            Some(1e3 * statistics::median(times)?)
        };
        let evaluations =
            |_: usize, confirmed: &statistics::Confirmed| Some(confirmed.evaluations_to_target_quartiles[1]);
        let panel = |title: &str, x: &str, series: Vec<Series>| {
            let said = series.iter().take(8).map(|series| {
                let [x, y] = series.points[0];
                format!("{} {} at {}", self.optimizers[series.optimizer].name, short(y), short(x))
            });
            let alt = format!("{title}: {}.", said.collect::<Vec<_>>().join("; "));
            Panel {
                title: title.into(),
                alt,
                x: Axis::log(x),
                y: Axis::linear(self.loss()),
                series,
                ..Panel::default()
            }
        };
        let panels = [
            panel("Time of a training", "Milliseconds, median", of(&time)),
            panel("Gradients to the target", "Gradient evaluations, median", of(&evaluations)),
        ];
        Figure {
            id: "cost".into(),
            title: "Cost and quality".into(),
            note: "Medians of the confirmation, with quartiles of the loss. An optimizer whose median run misses the target has \
                   no point on the right. Times are of this machine, with a training on each core."
                .into(),
            panels: panels.into_iter().filter(|panel| !panel.series.is_empty()).collect(),
            ..Figure::default()
        }
    }

    fn results(&self) -> Table {
        let accuracy = if self.task == TaskType::Regression { "R²" } else { "Accuracy" };
        let header =
            ["Optimizer", self.loss(), "Quartiles", accuracy, "Failed", "Epochs to target", "Difference", "Wins"];
        let mut all: Vec<(usize, &statistics::Confirmed)> =
            self.each().filter_map(|(at, found)| Some((at, found.confirmed.as_ref()?))).collect();
        all.sort_by(|a, b| a.1.test_loss_quartiles[1].total_cmp(&b.1.test_loss_quartiles[1]));
        let row = |(at, confirmed): (usize, &statistics::Confirmed)| {
            let [low, middle, high] = confirmed.test_loss_quartiles;
            let share =
                confirmed.test_accuracy_quartiles.map_or("none".into(), |share| tables::accuracy(share[1], self.task));
            let epochs = confirmed.epochs_to_target_quartiles[1];
            let epochs = if epochs.is_finite() { short(epochs) } else { "never".into() };
            let difference = self.found.differences.get(self.labels[at]);
            let (median, wins) = difference.map_or(("best".into(), String::new()), |difference| {
                let wins = difference.seeds - difference.best_wins - difference.equal;
                (short(difference.median), format!("{wins} of {}", difference.seeds))
            });
            let range = format!("{} to {}", short(low), short(high));
            let failed = format!("{:.0} %", 100. * confirmed.failed);
            vec![self.optimizers[at].name.clone(), short(middle), range, share, failed, epochs, median, wins]
        };
        Table { header: header.map(Into::into).into(), rows: all.into_iter().map(row).collect() }
    }
}

/// The section over several problems.
fn over_problems(
    statistics: &Statistics,
    labels: &[&str],
    optimizers: &[Optimizer],
    answer: Option<String>,
) -> Option<Section> {
    let over = statistics.over_problems.as_ref()?;
    let number = |label: &str| labels.iter().position(|other| *other == label);
    let mut ranks: Vec<_> = over.mean_rank.0.iter().filter_map(|(label, rank)| Some((number(label)?, *rank))).collect();
    ranks.sort_by(|a, b| a.1.total_cmp(&b.1));
    let rows = ranks.iter().map(|(at, rank)| vec![optimizers[*at].name.clone(), short(*rank)]).collect();
    let figure = over.profile.as_ref().map(|profile| {
        let line = |(label, shares): &(String, Vec<f64>)| {
            // A staircase: a share holds up to the next factor.
            let corners = profile.tau.iter().zip(shares).enumerate().flat_map(|(i, (tau, share))| {
                let earlier = i.checked_sub(1).map(|i| [*tau, 100. * shares[i]]);
                earlier.into_iter().chain([[*tau, 100. * share]])
            });
            let points = corners.collect();
            Some(Series { optimizer: number(label)?, points, ..Series::default() })
        };
        let panel = Panel {
            title: "Performance profile".into(),
            x: Axis::log("Gradient evaluations, as a multiple of the soonest"),
            y: Axis::linear("% of the problems"),
            series: profile.profile.0.iter().filter_map(line).collect(),
            ..Panel::default()
        };
        Figure {
            id: "profile".into(),
            title: "Problems solved".into(),
            note: "The share of the problems whose target the median run reaches within a multiple of the gradient evaluations \
                   of the soonest optimizer. A problem that nobody solves counts for nobody."
                .into(),
            panels: vec![panel.described(optimizers)],
            picture: Some("profile".into()),
            ..Figure::default()
        }
    });
    Some(Section {
        id: "all".into(),
        title: format!("All {} problems", statistics.problems.0.len()),
        answer: answer.into_iter().collect(),
        commands: vec![],
        optimizers: if figure.is_some() { optimizers.to_vec() } else { vec![] },
        results: Table { header: vec!["Optimizer".into(), "Mean rank".into()], rows },
        tables: vec![],
        figures: figure.into_iter().collect(),
        facts: vec![],
    })
}
