//! The figures of a problem.

use super::OfProblem;
use super::bands::Band;
use crate::report::curves;
use crate::report::figure::{Axis, Figure, Mark, Panel, Series, Shape, short};
use crate::shown::shown;
use crate::sweep::rates::{Rate, baseline, rates};
use crate::sweep::runs::{Phase, Run};
use crate::sweep::statistics::{self, Verdict};

impl OfProblem<'_> {
    /// Its figures, with pictures whose names begin with `prefix`.
    pub(super) fn figures(&self, prefix: &str) -> Vec<Figure> {
        let all = [self.curves(), self.rates(), self.best_of_k(), self.differences(), self.cost()];
        let is_drawn = |figure: &Figure| {
            figure.panels.iter().any(|panel| panel.series.iter().any(|series| !series.points.is_empty()))
        };
        let named = |figure: Figure| Figure { picture: Some(format!("{prefix}{}", figure.id)), ..figure };
        all.into_iter().filter(is_drawn).map(named).collect()
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
            let rates = rates(self.keys, &tune, found, which);
            let mark = |rate: &Rate| {
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
}
