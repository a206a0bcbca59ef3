//! The chapter's figure: train loss left, test loss right, on one scale.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::legend::{Entry, LEGEND_ROW, Legend, Line, framed, legend_font, longest};
use super::look::{DASHES, PALETTE, looks};
use super::paper::{Axis, Drawn, FONT, INK, Picture, fitted, mesh, power_of_ten, register_font, title_font};
use super::scale::ends;
use super::thin;
use crate::train::{self, Run};

/// The size of a picture whose legend has at most [`ROWS`] rows; one with more rows is taller.
const SIZE: (u32, u32) = (1600, 760);
const ROWS: usize = 2;
/// A curve with more points than two for each pixel of a panel is thinned.
const POINTS: usize = 1600;
/// The most curves that have distinct looks. The legend names no more.
const MOST_NAMED: usize = PALETTE.len() * (DASHES.len() + 1);

/// The curves of several runs.
pub struct Figure {
    title: String,
    curves: Vec<Curve>,
    /// The number of curves that the legend does not name.
    unnamed: usize,
    scale: Scale,
    epochs: usize,
}

struct Curve {
    label: String,
    line: Line,
    built_in: bool,
    /// Epochs and train losses, epochs and test losses; all finite.
    panels: [Vec<(f64, f64)>; 2],
}

/// The axis of the losses, the same in both panels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    /// The unit of the axis: losses far from 1 are drawn as multiples of a power of ten.
    unit: f64,
    from: f64,
    to: f64,
    /// Whether some loss lies above the axis.
    cut: bool,
}

impl Scale {
    /// An axis for `curves`. A run that explodes leaves the axis at the top, so that it does not flatten the others.
    fn new(curves: &[Curve]) -> Self {
        const MOST_OF_FIRST: f64 = 3.;
        /// Losses that differ by less than this share are drawn as equal.
        const LEAST_SPREAD: f64 = 1e-3;
        let points = || curves.iter().flat_map(|curve| &curve.panels).flatten();
        let largest = points().map(|(_, loss)| loss.abs()).fold(0., f64::max);
        if largest < f64::MIN_POSITIVE {
            return Self { unit: 1., from: 0., to: 1., cut: false };
        }
        let first = curves.iter().filter_map(|curve| curve.panels[0].first()).map(|(_, loss)| *loss).fold(0., f64::max);
        // No more than `MOST_OF_FIRST` times the first loss is drawn: the unit suits the losses that are drawn.
        let drawn = if first > 0. { largest.min(MOST_OF_FIRST * first) } else { largest };
        let unit = if (1e-2..1e5).contains(&drawn) { 1. } else { power_of_ten(drawn) };
        let first = first / unit;
        let losses = points().map(|(_, loss)| loss / unit);
        let (least, most) = ends(losses);
        let cut = first > 0. && most > MOST_OF_FIRST * first;
        let top = if cut { MOST_OF_FIRST * first } else { most };
        let margin = 0.04 * (top - least).max(LEAST_SPREAD * top.abs().max(least.abs()));
        Self { unit, from: least - margin, to: top + margin, cut }
    }

    fn label(self, at: f64) -> String {
        let decimals = (1.5 - (self.to - self.from).log10()).round().clamp(0., 9.);
        format!("{at:.0$}", decimals as usize)
    }

    /// The name of the axis.
    fn name(self) -> String {
        let unit = if self.unit == 1. { String::new() } else { format!(" in {:e}", self.unit) };
        let cut = if self.cut { " (higher ones are not shown)" } else { "" };
        format!("Loss{unit}{cut}")
    }

    /// The parts of a line that lie below the top.
    fn visible(self, points: &[(f64, f64)]) -> Vec<Vec<(f64, f64)>> {
        let top = self.to;
        let mut parts: Vec<Vec<(f64, f64)>> = vec![];
        let mut previous: Option<(f64, f64)> = None;
        for &(x, y) in points {
            let crossing = previous.filter(|&(_, before)| (before > top) != (y > top)).map(|(x0, y0)| {
                let share = (top - y0) / (y - y0);
                (x0 + share * (x - x0), top)
            });
            let starts = previous.is_none_or(|(_, before)| before > top);
            if y <= top && starts {
                parts.push(vec![]);
            }
            let inside = if y <= top { Some((x, y)) } else { None };
            if let Some(part) = parts.last_mut() {
                part.extend(crossing.into_iter().chain(inside));
            }
            previous = Some((x, y));
        }
        parts
    }
}

impl Figure {
    /// The figure of `runs`, with this title.
    pub fn new(title: &str, runs: &[Run]) -> Self {
        register_font();
        let mut curves: Vec<Curve> = runs
            .iter()
            .zip(looks(runs.iter().map(|run| run.built_in)))
            .map(|(run, look)| {
                let label = match run.diverged_at() {
                    Some(epoch) => format!("{} (diverged at epoch {epoch})", run.optimizer),
                    None => run.optimizer.clone(),
                };
                let label = fitted(&label, &legend_font(1), longest(SIZE.0));
                let width = if run.built_in { 2 } else { 3 };
                let panels = [|epoch: &train::Epoch| epoch.train_loss, |epoch: &train::Epoch| epoch.test_loss];
                let panels = panels.map(|loss| thinned(&run.epochs, loss));
                Curve { label, line: Line::of(look, width), built_in: run.built_in, panels }
            })
            .collect();
        let scale = Scale::new(&curves);
        // A curve that another curve covers is wider, so that it shows on both sides.
        let ours: Vec<usize> = (0..runs.len()).filter(|&i| !runs[i].built_in).collect();
        for (n, &i) in ours.iter().enumerate() {
            if ours[n + 1..].iter().any(|&later| are_alike(&runs[i], &runs[later], scale)) {
                curves[i].line.width += 4;
            }
        }
        let epochs = runs.iter().map(|run| run.epochs.len()).max().unwrap_or(0);
        let title = fitted(title, &title_font(1), SIZE.0 - 60);
        Self { title, unnamed: runs.len().saturating_sub(MOST_NAMED), curves, scale, epochs }
    }

    fn draw_panel<B: DrawingBackend>(
        &self,
        panel: &DrawingArea<B, Shift>,
        title: &str,
        column: usize,
        zoom: u32,
    ) -> Drawn<B> {
        let font = |size: u32| (FONT, size * zoom).into_font().color(&INK);
        let Self { scale, epochs, .. } = *self;
        // A single epoch is centered.
        let (first, last) = if epochs <= 1 { (0.5, 1.5) } else { (1., epochs as f64) };
        let x = Axis::new(first, last, 1.);
        let y = Axis::new(scale.from, scale.to, 0.);
        let mut chart = ChartBuilder::on(panel)
            .caption(title, font(21))
            .margin_right(14 * zoom)
            .x_label_area_size(52 * zoom)
            .y_label_area_size(74 * zoom)
            .build_cartesian_2d(x, y)?;
        mesh(&mut chart, zoom)
            .x_desc("Epoch")
            .y_desc(scale.name())
            .x_label_formatter(&|epoch| format!("{epoch:.0}"))
            .y_label_formatter(&|&loss| scale.label(loss))
            .draw()?;
        for curve in &self.curves {
            let points: Vec<_> = curve.panels[column].iter().map(|&(epoch, loss)| (epoch, loss / scale.unit)).collect();
            for part in scale.visible(&points) {
                let Line { color, width, .. } = curve.line;
                if part.iter().all(|point| *point == part[0]) {
                    // Candle's point is a ring around ours, and a point that another covers is larger.
                    let style = if curve.built_in { color.stroke_width(width * zoom) } else { color.filled() };
                    let radius = if curve.built_in { 11 } else { width + 2 };
                    chart.draw_series(part.first().map(|&point| Circle::new(point, radius * zoom, style)))?;
                } else {
                    curve.line.draw_markers(&mut chart, &part, zoom)?;
                    curve.line.draw(&mut chart, part, zoom)?;
                }
            }
        }
        Ok(())
    }

    fn legend(&self) -> Legend {
        let named = self.curves.len() - self.unnamed;
        let entry = |curve: &Curve| Entry { label: curve.label.clone(), line: Some(curve.line) };
        let more = (self.unnamed > 0).then(|| Entry { label: format!("and {} more", self.unnamed), line: None });
        Legend::new(self.curves[..named].iter().map(entry).chain(more), SIZE.0)
    }
}

impl Picture for Figure {
    fn size(&self) -> (u32, u32) {
        let more = self.legend().rows().saturating_sub(ROWS);
        (SIZE.0, SIZE.1 + LEGEND_ROW * more as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Drawn<B> {
        let legend = self.legend();
        let inner = framed(area, &self.title, &legend, zoom)?;
        for ((panel, title), column) in inner.split_evenly((1, 2)).iter().zip(["Train loss", "Test loss"]).zip([0, 1]) {
            self.draw_panel(panel, title, column, zoom)?;
        }
        Ok(())
    }
}

/// Whether the curve of `b` would cover that of `a`.
fn are_alike(a: &Run, b: &Run, scale: Scale) -> bool {
    let most = 0.01 * (scale.to - scale.from) * scale.unit;
    let near = |a: f64, b: f64| !a.is_finite() || (a - b).abs() <= most;
    let differ = |(a, b): (&train::Epoch, &train::Epoch)| !near(a.train_loss, b.train_loss);
    a.epochs.len() == b.epochs.len() && !a.epochs.iter().zip(&b.epochs).any(differ)
}

/// Epochs with their losses, up to the first loss that is not finite, thinned if there are many.
fn thinned(epochs: &[train::Epoch], loss: impl Fn(&train::Epoch) -> f64) -> Vec<(f64, f64)> {
    let finite = epochs.iter().take_while(|epoch| loss(epoch).is_finite()).count();
    let points = thin::thinned(finite, POINTS, |i| loss(&epochs[i]));
    points.into_iter().map(|i| ((i + 1) as f64, loss(&epochs[i]))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::paper::ticks;
    use super::*;
    use std::time::Duration;

    /// A run with these losses, train and test alike.
    fn run(optimizer: &str, losses: &[f64]) -> Run {
        let epoch =
            |&loss: &f64| train::Epoch { train_loss: loss, test_loss: loss, train_accuracy: None, test_accuracy: None };
        let built_in = optimizer.starts_with("candle");
        let epochs = losses.iter().map(epoch).collect();
        Run { optimizer: optimizer.into(), seed: 0, epochs, time: Duration::ZERO, built_in, note: None }
    }

    fn scale(losses: &[&[f64]]) -> Scale {
        let runs: Vec<Run> = losses.iter().map(|losses| run("a", losses)).collect();
        Figure::new("", &runs).scale
    }

    /// Width and height in pixels, and the number of pixels of each color that is not gray.
    fn pixels(figure: &Figure) -> ([u32; 2], std::collections::BTreeMap<[u8; 3], usize>) {
        let file = figure.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        let mut colors = std::collections::BTreeMap::new();
        for pixel in pixels.as_chunks::<3>().0 {
            if pixel[0] != pixel[1] || pixel[1] != pixel[2] {
                *colors.entry(*pixel).or_default() += 1;
            }
        }
        ([info.width, info.height], colors)
    }

    #[test]
    fn the_scale_holds_all_losses_but_those_of_an_explosion() {
        let calm = scale(&[&[0.7, 0.02]]);
        assert!(!calm.cut && calm.from < 0.02 && calm.to > 0.7);
        let cut = scale(&[&[0.7, 0.02], &[0.7, 1e12]]);
        assert!(cut.cut && cut.to > 2.1 && cut.to < 2.3);
        for nothing in [&[][..], &[f64::NAN, 1.], &[0., 5e-324]] {
            assert_eq!(scale(&[nothing]), Scale { unit: 1., from: 0., to: 1., cut: false });
        }
        for losses in [
            &[0.5][..],
            &[-0.5, -0.7],
            &[1e300, 9e299],
            &[1e-300, 1e-300],
            &[f64::MAX, -f64::MAX],
            &[f64::MIN_POSITIVE],
        ] {
            let scale = scale(&[losses]);
            assert!(losses.iter().all(|x| scale.from < x / scale.unit && x / scale.unit < scale.to), "{scale:?}");
            assert!((1e-2..1e5).contains(&scale.from.abs().max(scale.to.abs())), "{scale:?}");
            for tick in ticks(scale.from, scale.to, 0.) {
                assert!(scale.label(tick).len() <= 9, "{losses:?}: {}", scale.label(tick));
            }
        }
        assert_eq!([2e-7, 3e300].map(|x| scale(&[&[x]]).name()), ["Loss in 1e-7", "Loss in 1e300"]);
    }

    #[test]
    fn lines_are_cut_where_they_cross_the_top() {
        let scale = Scale { unit: 1., from: 0., to: 1., cut: true };
        let parts = scale.visible(&[(0., 2.), (1., 0.), (2., 1.), (3., 3.), (4., 5.), (5., 0.)]);
        assert_eq!(parts, [vec![(0.5, 1.), (1., 0.), (2., 1.), (2., 1.)], vec![(4.8, 1.), (5., 0.)]]);
        assert!(scale.visible(&[(0., 2.), (1., 2.)]).is_empty());
    }

    #[test]
    fn a_curve_of_one_point_has_a_mark() {
        let RGBColor(r, g, b) = PALETTE[0];
        for losses in [&[0.5][..], &[0.5, f64::NAN, 0.5]] {
            let figure = Figure::new("", &[run("", losses)]);
            let svg = figure.svg().unwrap();
            assert_eq!(svg.matches("<circle").count(), 2, "{losses:?}");
            // The line in the legend has fewer pixels.
            let (_, colors) = pixels(&figure);
            assert!(colors[&[r, g, b]] > 44 * 3 + 100, "{losses:?}: {colors:?}");
        }
        let svg = Figure::new("", &[run("", &[0.5])]).svg().unwrap();
        let labels = svg.lines().filter(|line| *line == "1").count();
        assert_eq!(labels, 2, "one tick in each panel");
    }

    #[test]
    fn extremes_of_many_epochs_are_drawn() {
        let mut losses = vec![0.5; 12345];
        for (i, loss) in losses.iter_mut().enumerate() {
            *loss -= i as f64 * 1e-5;
        }
        losses[7001] = 2.6;
        losses[7003] = -1.;
        losses[12344] = 0.77;
        let run = |losses: &[f64]| thinned(&run("", losses).epochs, |epoch| epoch.train_loss);
        let points = run(&losses);
        assert!(points.len() <= POINTS + 2 && points.is_sorted_by(|a, b| a.0 < b.0));
        for i in [0, 7001, 7003, 12344] {
            assert!(points.contains(&((i + 1) as f64, losses[i])), "{i}");
        }
        losses[10000] = f64::INFINITY;
        assert_eq!(run(&losses).last(), Some(&(10000., losses[9999])));
        losses[0] = f64::NAN;
        assert!(run(&losses).is_empty());
        assert_eq!(run(&losses[1..POINTS + 1]).len(), POINTS);
    }

    #[test]
    fn the_picture_grows_with_the_legend_and_no_two_curves_look_alike() {
        let figure = |n: usize| {
            let runs: Vec<Run> = (0..n).map(|i| run(&format!("adam:lr=0.{i:03}"), &[1., 0.1 * i as f64])).collect();
            Figure::new("", &runs)
        };
        assert_eq!(figure(1).size(), SIZE);
        let (rows, size) = (figure(30).legend().rows(), figure(30).size());
        assert!(rows > ROWS && size.1 == SIZE.1 + (rows - ROWS) as u32 * LEGEND_ROW);
        assert_eq!(pixels(&figure(30)).0, [size.0, size.1]);
        let looks: std::collections::HashSet<_> = figure(MOST_NAMED)
            .curves
            .iter()
            .map(|curve| (curve.line.color.0, curve.line.color.1, curve.line.color.2, curve.line.dash))
            .collect();
        assert_eq!(looks.len(), MOST_NAMED);
        assert!(figure(MOST_NAMED + 7).svg().unwrap().contains("\nand 7 more\n"));
        assert!(!figure(MOST_NAMED).svg().unwrap().contains("more"));
    }

    #[test]
    fn long_names_are_cut_and_none_makes_a_broken_file() {
        let long = "sgd:lr=0.1,".repeat(200);
        let figure = Figure::new(&long, &[run(&long, &[1., 0.5])]);
        for text in [&figure.title, &figure.curves[0].label] {
            assert!(text.ends_with('…') && text.len() > 100 && long.starts_with(text.trim_end_matches('…')), "{text}");
        }
        assert!(figure.legend().rows() == 1);
        for text in ["a\u{1}b\u{1b}[31m<&\"'>\u{ffff}", "電\u{301}\u{202e}\u{200b}🔥\n\t", ""] {
            let figure = Figure::new(text, &[run(text, &[1., 0.5])]);
            assert!(!figure.svg().unwrap().contains(|c: char| c.is_control() && c != '\n'));
            assert!(!figure.png().unwrap().is_empty());
        }
    }

    #[test]
    fn every_kind_of_numbers_is_drawn() {
        let numbers = [0., -0., 1., -1., 0.69, 1e-9, 1e9, 1e300, -1e300, 1e-300, f64::MAX, f64::MIN, 5e-324];
        let numbers = [&numbers[..], &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]].concat();
        for a in &numbers {
            for b in &numbers {
                for runs in [vec![run("a", &[*a, *b])], vec![run("candle", &[*a]), run("b", &[*b, *a, 0.5])]] {
                    assert!(Figure::new("", &runs).svg().unwrap().ends_with("</svg>\n"), "{a} {b}");
                }
            }
        }
        assert!(Figure::new("", &[]).svg().is_ok() && Figure::new("", &[run("", &[])]).png().is_ok());
    }
}
