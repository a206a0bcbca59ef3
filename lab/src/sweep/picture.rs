//! The picture of a comparison. Left, the score by learning rate; right, the losses of the confirmation.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Sweep;
use super::answer::{counted, network, settings};
use super::rates::{Rate, baseline, rates};
use super::runs::{Phase, Run, Runs};
use super::statistics::Statistics;
use crate::plot::{
    Axis, Drawn, FONT, GRAY, INK, PALETTE, Picture, Scale, dash, fitted, marker, mesh, register_font, title_font,
};

/// Pixels of the width.
const WIDTH: u32 = 1600;
/// Pixels above the panels, and the least pixels of a row of panels.
const TOP: u32 = 64;
const ROW: u32 = 560;
/// Pixels of an optimizer's line in the right panel, and of the space around all lines.
const LINE: u32 = 30;
const AROUND: u32 = 130;
/// Pixels of the note below a row of panels, and of the note below all rows.
const NOTE: u32 = 30;
/// The most pixels for the names of optimizers.
const NAMES: u32 = 330;
/// Pixels of the line beside a name: two of the longest dashes, because a single dash looks like a solid line.
const SAMPLE: u32 = 67;
/// The most optimizers with bands and prominent lines: those of more optimizers would hide each other.
const MOST_BANDS: usize = 8;
/// The most optimizers that are drawn. A picture of thousands takes gigabytes.
const MOST_ROWS: usize = 64;
/// Losses above this many times the loss of a constant prediction are drawn at the end of their axis.
const MOST_OF_BASELINE: f64 = 10.;
/// The most problems that are drawn.
const MOST: usize = 6;

/// A picture of all problems, or of the first ones.
pub struct Comparison {
    title: String,
    problems: Vec<Panels>,
    /// Which problems are not drawn; empty if all are.
    left_out: String,
}

/// A problem.
struct Panels {
    /// The heading of both panels; empty if there is one problem.
    name: String,
    /// Whether it is a function, which has no test rows.
    is_function: bool,
    /// Optimizers, from the lowest test loss.
    optimizers: Vec<Optimizer>,
    /// The number of optimizers that are not drawn.
    left_out: usize,
    /// The score of a constant prediction.
    baseline: f64,
}

struct Optimizer {
    name: String,
    /// Its number in the experiment.
    look: usize,
    /// By learning rate, from the lowest; empty if it is not searched.
    rates: Vec<Rate>,
    /// The winner's score, or the lowest score if no setting won.
    best: Option<f64>,
    /// Finite test losses of the confirmation, and the number of those that are not finite.
    losses: Vec<f64>,
    diverged: usize,
    quartiles: Option<[f64; 3]>,
}

impl Comparison {
    /// The picture of these runs.
    pub fn new(sweep: &Sweep, runs: &Runs, statistics: &Statistics) -> Self {
        register_font();
        let tuning = &sweep.experiment.tuning;
        let found = &statistics.problems.0;
        let what = match (found.as_slice(), sweep.problems.as_slice()) {
            ([(name, _)], [of]) if of.rows().is_some() => format!("{name}: {} network", network(of)),
            ([(name, _)], _) => format!("{name}: a test function"),
            (all, _) => format!("{} problems", all.len()),
        };
        let title = format!(
            "Optimizers on {what}, {} on {}, the best on {}",
            settings(sweep),
            counted(tuning.seeds, "seed"),
            counted(tuning.confirm_seeds, "fresh seed")
        );
        let several = found.len() > 1;
        let panels = |(at, (name, _)): (usize, &(String, super::statistics::Problem))| {
            let name = if several { name.clone() } else { String::new() };
            Panels::new(sweep, at, name, runs, statistics)
        };
        let problems = found.iter().enumerate().take(MOST).map(panels).collect();
        let others: Vec<&str> = found.iter().skip(MOST).map(|(name, _)| name.as_str()).collect();
        let left_out = if others.is_empty() { String::new() } else { format!("Not drawn: {}", others.join(", ")) };
        Self {
            title: fitted(&title, &title_font(1), WIDTH - 60),
            problems,
            left_out: fitted(&left_out, &note_font(1), WIDTH - 60),
        }
    }
}

impl Panels {
    fn new(sweep: &Sweep, at: usize, name: String, runs: &Runs, statistics: &Statistics) -> Self {
        let (label, found) = &statistics.problems.0[at];
        let which = sweep.experiment.tuning.score;
        let of_problem: Vec<&Run> = runs.rows.iter().filter(|run| run.problem == *label).collect();
        let mut optimizers: Vec<Optimizer> = found
            .optimizers
            .0
            .iter()
            .enumerate()
            .map(|(look, (name, statistics))| {
                let own = of_problem.iter().filter(|run| run.optimizer == *name);
                let (tune, confirm): (Vec<&Run>, Vec<&Run>) = own.partition(|run| run.phase == Phase::Tune);
                let rates = rates(&runs.keys, &tune, statistics, which);
                let losses: Vec<f64> = confirm.iter().filter_map(|run| run.outcome.test_loss).collect();
                let finite: Vec<f64> = losses.iter().copied().filter(|loss| loss.is_finite()).collect();
                let won = statistics.winner.and_then(|trial| statistics.scores.get(&trial).copied());
                let scores = statistics.scores.0.iter().map(|&(_, score)| score);
                Optimizer {
                    name: fitted(name, &names_font(1), NAMES),
                    look,
                    rates,
                    best: won.or_else(|| scores.min_by(f64::total_cmp)),
                    diverged: losses.len() - finite.len(),
                    losses: finite,
                    quartiles: statistics.confirmed.as_ref().map(|confirmed| confirmed.test_loss_quartiles),
                }
            })
            .collect();
        let middle = |optimizer: &Optimizer| optimizer.quartiles.map_or(f64::INFINITY, |[_, middle, _]| middle);
        optimizers.sort_by(|a, b| middle(a).total_cmp(&middle(b)));
        let left_out = optimizers.len().saturating_sub(MOST_ROWS);
        optimizers.truncate(MOST_ROWS);
        let baseline = baseline(&of_problem);
        let is_function = sweep.problems[at].rows().is_none();
        Self { name, is_function, optimizers, left_out, baseline }
    }

    /// Pixels of the width of the names with their lines.
    fn names(&self) -> u32 {
        let width = |optimizer: &Optimizer| names_font(1).box_size(&optimizer.name).map_or(0, |(width, _)| width);
        self.optimizers.iter().map(width).max().unwrap_or(0).min(NAMES) + SAMPLE + 40
    }

    /// Pixels of the height.
    fn height(&self) -> u32 {
        ROW.max(self.optimizers.len() as u32 * LINE + AROUND)
    }
}

impl Picture for Comparison {
    fn size(&self) -> (u32, u32) {
        let note = if self.left_out.is_empty() { 0 } else { NOTE };
        (WIDTH, TOP + self.problems.iter().map(Panels::height).sum::<u32>() + note)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Drawn<B> {
        let z = zoom as i32;
        let title = title_font(zoom).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(self.title.as_str(), (WIDTH as i32 * z / 2, 18 * z), title))?;
        let (_, mut rest) = area.split_vertically(TOP as i32 * z);
        for panels in &self.problems {
            let (row, below) = rest.split_vertically(panels.height() as i32 * z);
            let (row, notes) = row.split_vertically((panels.height() - NOTE) as i32 * z);
            let (left, right) = row.split_horizontally((WIDTH / 2 - 60) as i32 * z);
            panels.draw_rates(&left, zoom)?;
            panels.draw_losses(&right, zoom)?;
            let middles = [WIDTH / 4, WIDTH * 3 / 4].map(|x| x as i32 * z);
            for (note, x) in panels.notes().into_iter().zip(middles) {
                notes.draw(&Text::new(fitted(&note, &note_font(1), WIDTH / 2 - 80), (x, 6 * z), note_style(zoom)))?;
            }
            rest = below;
        }
        rest.draw(&Text::new(self.left_out.as_str(), (WIDTH as i32 * z / 2, 0), note_style(zoom)))
    }
}

impl Panels {
    fn caption(&self, what: &str) -> String {
        let name = if self.name.is_empty() { String::new() } else { format!(", {}", self.name) };
        fitted(&format!("{what}{name}"), &(FONT, 21).into_font(), WIDTH / 2 - 80)
    }

    /// The note below both panels.
    fn notes(&self) -> [String; 2] {
        let any = |is: fn(&Rate) -> bool| self.optimizers.iter().flat_map(|optimizer| &optimizer.rates).any(is);
        let without = self.optimizers.iter().any(|optimizer| optimizer.rates.is_empty());
        let left = [
            (any(|rate| rate.wins), "circle: the best"),
            (any(|rate| rate.diverged > 0.), "×: some runs diverged"),
            (without, "line without points: no learning rate searched"),
            (self.optimizers.len() > MOST_BANDS, "strong: the 8 lowest test losses"),
        ];
        let left: Vec<&str> = left.into_iter().filter_map(|(is, said)| is.then_some(said)).collect();
        let right = match self.left_out {
            0 => String::new(),
            n => format!("{} with higher losses not drawn", counted(n, "optimizer")),
        };
        [left.join("; "), right]
    }

    fn draw_rates<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Drawn<B> {
        let font = |size: u32| (FONT, size * zoom).into_font().color(&INK);
        let all = || self.optimizers.iter().flat_map(|optimizer| &optimizer.rates);
        let bands = self.optimizers.len() <= MOST_BANDS;
        let rates: Vec<f64> = all().map(|rate| rate.lr).filter(|lr| lr.is_finite()).collect();
        let mut scores: Vec<f64> = all().map(|rate| rate.score).collect();
        scores.extend(self.optimizers.iter().filter_map(|optimizer| optimizer.best).chain([self.baseline]));
        if bands {
            // A band is cut a decade below all scores, so that a single lucky seed does not flatten the others.
            let least = scores.iter().copied().fold(f64::INFINITY, f64::min);
            let lowest = if least > 0. { least / 10. } else { f64::NEG_INFINITY };
            scores.extend(all().flat_map(|rate| [rate.low.max(lowest), rate.high]));
        }
        scores.retain(|x| x.is_finite());
        let (x, y) = (Scale::new(rates.iter().copied(), true), Scale::new(scores.iter().copied(), false));
        let x_axis = if rates.is_empty() { Axis::with_ticks(x.from, x.to, vec![]) } else { x.axis() };
        let mut chart = ChartBuilder::on(area)
            .caption(self.caption("Score by learning rate"), font(21))
            .margin_left(24 * zoom)
            .margin_right(14 * zoom)
            .x_label_area_size(52 * zoom)
            .y_label_area_size(84 * zoom)
            .build_cartesian_2d(x_axis, y.axis())?;
        mesh(&mut chart, zoom)
            .x_desc("Learning rate")
            .y_desc(if self.is_function { "Mean value" } else { "Mean validation loss" })
            .x_label_formatter(&|at| x.label(*at))
            .y_label_formatter(&|at| y.label(*at))
            .draw()?;

        let base = y.at(self.baseline);
        let ends = [(x.from, base), (x.to, base)];
        chart.draw_series(DashedLineSeries::new(ends, 8 * zoom, 6 * zoom, GRAY.stroke_width(2 * zoom)))?;
        let name = if self.is_function { "start" } else { "constant prediction" };
        let style = note_font(zoom).color(&GRAY).pos(Pos::new(HPos::Left, VPos::Bottom));
        let start = EmptyElement::at((x.from + 0.01 * (x.to - x.from), base));
        chart.draw_series([start + Text::new(name, (0, -7 * zoom as i32), style)])?;

        for optimizer in &self.optimizers {
            let color = PALETTE[optimizer.look % PALETTE.len()];
            let at = |rate: &Rate, value: f64| (x.at(rate.lr), y.at(value));
            let upper = optimizer.rates.iter().map(|rate| at(rate, rate.high));
            let lower = optimizer.rates.iter().rev().map(|rate| at(rate, rate.low));
            if optimizer.rates.len() > 1 && bands {
                chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), color.mix(0.12))])?;
            }
        }
        // The best are drawn last, on top.
        for (rank, optimizer) in self.optimizers.iter().enumerate().rev() {
            let strong = rank < MOST_BANDS;
            let color = PALETTE[optimizer.look % PALETTE.len()].mix(if strong { 1. } else { 0.3 });
            let mut points: Vec<(f64, f64)> =
                optimizer.rates.iter().map(|rate| (x.at(rate.lr), y.at(rate.score))).collect();
            if let (true, Some(best)) = (points.is_empty(), optimizer.best) {
                points = vec![(x.from, y.at(best)), (x.to, y.at(best))];
            }
            let style = color.stroke_width(if strong { 3 } else { 2 } * zoom);
            if let Some([dash, gap]) = dash(optimizer.look) {
                chart.draw_series(DashedLineSeries::new(points, dash * zoom, gap * zoom, style))?;
            } else {
                // Separate segments: the bitmap's joints protrude at sharp turns.
                chart.draw_series(points.windows(2).map(|part| PathElement::new(part.to_vec(), style)))?;
            }
            for rate in &optimizer.rates {
                let point = (x.at(rate.lr), y.at(rate.score));
                if rate.diverged > 0. {
                    chart.draw_series([Cross::new(point, 6 * zoom, color.stroke_width(2 * zoom))])?;
                } else {
                    let marker = Polygon::new(marker(optimizer.look, (0, 0), zoom), color);
                    chart.draw_series([EmptyElement::at(point) + marker])?;
                }
                if rate.wins {
                    chart.draw_series([Circle::new(point, 10 * zoom, color.stroke_width(style.stroke_width))])?;
                }
            }
        }
        Ok(())
    }

    fn draw_losses<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Drawn<B> {
        let z = zoom as i32;
        let font = |size: u32| (FONT, size * zoom).into_font().color(&INK);
        let losses: Vec<f64> = self.optimizers.iter().flat_map(|optimizer| &optimizer.losses).copied().collect();
        let limit = if self.baseline > 0. { MOST_OF_BASELINE * self.baseline } else { f64::INFINITY };
        let x = Scale::new(losses.iter().copied().filter(|loss| *loss <= limit), false);
        let rows = self.optimizers.len() as f64;
        let what = if self.is_function { "Value on fresh seeds" } else { "Test loss on fresh seeds" };
        let mut chart = ChartBuilder::on(area)
            .caption(self.caption(what), font(21))
            .margin_right(30 * zoom)
            .x_label_area_size(52 * zoom)
            .y_label_area_size(self.names() * zoom)
            .build_cartesian_2d(x.axis(), Axis::with_ticks(-0.5, rows - 0.5, vec![]))?;
        mesh(&mut chart, zoom)
            .x_desc(if self.is_function {
                "Value: quartiles and each seed"
            } else {
                "Test loss: quartiles and each seed"
            })
            .x_label_formatter(&|at| x.label(*at))
            .draw()?;

        for (row, optimizer) in self.optimizers.iter().enumerate() {
            let color = PALETTE[optimizer.look % PALETTE.len()];
            let y = rows - 1. - row as f64;
            let seed = |&loss: &f64| Circle::new((x.at(loss), y), 3 * zoom, color.mix(0.35).filled());
            chart.draw_series(optimizer.losses.iter().map(seed))?;
            if let Some([low, middle, high]) = optimizer.quartiles.filter(|[low, ..]| low.is_finite()) {
                let end = |loss: f64| if loss.is_finite() { x.at(loss) } else { x.to };
                let between = vec![(end(low), y), (end(high), y)];
                chart.draw_series([PathElement::new(between, color.stroke_width(4 * zoom))])?;
                chart.draw_series([Circle::new((end(middle), y), 7 * zoom, color.filled())])?;
                chart.draw_series([Circle::new((end(middle), y), 3 * zoom, WHITE.filled())])?;
            }
            let beyond = optimizer.losses.iter().filter(|loss| **loss > limit).count();
            let counts = [(beyond, "beyond"), (optimizer.diverged, "diverged")];
            let said = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}"));
            let said = match optimizer.quartiles {
                None => "none finished".into(),
                Some(_) => said.collect::<Vec<_>>().join(", "),
            };
            if !said.is_empty() {
                let style = note_font(zoom).color(&color).pos(Pos::new(HPos::Right, VPos::Bottom));
                chart.draw_series([EmptyElement::at((x.to, y)) + Text::new(said, (0, -7 * z), style)])?;
            }
            // The name with its line, left of the axis.
            let (left, middle) = chart.backend_coord(&(x.from, y));
            let (origin_x, origin_y) = area.get_base_pixel();
            let (left, middle) = (left - origin_x, middle - origin_y);
            let [dash, gap] = dash(optimizer.look).unwrap_or([SAMPLE, 0]);
            let (start, end) = (left - (SAMPLE as i32 + 12) * z, left - 12 * z);
            for from in (start..end).step_by(((dash + gap) * zoom) as usize) {
                let part = [(from, middle), (end.min(from + (dash * zoom) as i32), middle)];
                area.draw(&PathElement::new(part, color.stroke_width(3 * zoom)))?;
            }
            area.draw(&Polygon::new(marker(optimizer.look, ((start + end) / 2, middle), zoom), color))?;
            let style = names_font(zoom).color(&INK).pos(Pos::new(HPos::Right, VPos::Center));
            area.draw(&Text::new(optimizer.name.as_str(), (start - 10 * z, middle), style))?;
        }
        Ok(())
    }
}

fn names_font(zoom: u32) -> FontDesc<'static> {
    (FONT, 17 * zoom).into_font()
}

fn note_font(zoom: u32) -> FontDesc<'static> {
    (FONT, 15 * zoom).into_font()
}

fn note_style(zoom: u32) -> TextStyle<'static> {
    note_font(zoom).color(&GRAY).pos(Pos::new(HPos::Center, VPos::Top))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::statistics::quartiles;

    fn optimizer(name: &str, look: usize, scores: &[f64], losses: &[f64]) -> Optimizer {
        let rate = |(i, &score): (usize, &f64)| Rate {
            lr: 10f64.powi(i as i32 - 3),
            score,
            low: score * 0.9,
            high: score * 1.1,
            diverged: f64::from(u8::from(i == 1)),
            failed: 0.,
            wins: i == 0,
        };
        let finite: Vec<f64> = losses.iter().copied().filter(|loss| loss.is_finite()).collect();
        Optimizer {
            name: fitted(name, &names_font(1), NAMES),
            look,
            rates: scores.iter().enumerate().map(rate).collect(),
            best: scores.iter().copied().min_by(f64::total_cmp),
            diverged: losses.len() - finite.len(),
            losses: finite,
            quartiles: quartiles(losses),
        }
    }

    fn picture(optimizers: Vec<Optimizer>, baseline: f64) -> Comparison {
        let panels = Panels { name: "a problem".into(), is_function: false, optimizers, left_out: 0, baseline };
        Comparison { title: "title".into(), problems: vec![panels], left_out: String::new() }
    }

    #[test]
    fn every_kind_of_numbers_is_drawn() {
        register_font();
        let numbers = [0., 1., -1., 0.69, 1e-9, 1e9, 1e300, -1e300, 5e-324, f64::INFINITY];
        for a in numbers {
            for b in numbers {
                for baseline in [0.69, 0., -1., 1e300] {
                    let optimizers = vec![
                        optimizer("a", 0, &[a, b], &[a, b, 0.5]),
                        optimizer("b", 1, &[b], &[b]),
                        optimizer("c", 2, &[], &[]),
                    ];
                    let file = picture(optimizers, baseline).svg().unwrap();
                    assert!(file.ends_with("</svg>\n") && !file.contains("NaN"), "{a} {b} {baseline}");
                }
            }
        }
        assert!(picture(vec![], 0.5).png().is_ok());
        assert!(Comparison { title: String::new(), problems: vec![], left_out: String::new() }.png().is_ok());
    }

    #[test]
    fn all_names_are_shown_and_the_picture_grows_with_them() {
        register_font();
        let optimizers = (0..36).map(|i| optimizer(&format!("optimizer{i}"), i, &[0.5, 0.1], &[0.1, 0.2])).collect();
        let many = picture(optimizers, 0.69);
        assert_eq!(many.size(), (WIDTH, TOP + 36 * LINE + AROUND));
        let file = many.svg().unwrap();
        assert!((0..36).all(|i| file.contains(&format!("\noptimizer{i}\n"))));

        let hostile = "<script>\"&'\u{202e}".to_owned() + &"x".repeat(10_000);
        let file = picture(vec![optimizer(&hostile, 0, &[0.5], &[0.5])], 0.69).svg().unwrap();
        assert!(!file.contains("<script>") && file.contains("&lt;script&gt;") && file.len() < 20_000);
    }

    #[test]
    fn no_two_of_64_optimizers_look_alike() {
        let look = |i: usize| (PALETTE[i % PALETTE.len()].0, dash(i), marker(i, (0, 0), 1));
        let looks: Vec<_> = (0..MOST_ROWS).map(look).collect();
        assert!((0..MOST_ROWS).all(|i| looks[..i].iter().all(|other| *other != looks[i])));
    }
}
