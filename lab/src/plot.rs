//! The chapter's figure: train loss left, test loss right, on one scale.

use std::sync::Once;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::train::{Epoch, Run};

/// Pixels of the picture.
const SIZE: (u32, u32) = (1600, 760);
/// The PNG is drawn this much larger and averaged down, which smooths every edge.
const OVERSAMPLING: u32 = 2;
/// A curve with more points than a panel has pixels is thinned.
const MOST_POINTS: usize = 800;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(0x26, 0x26, 0x26);
const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
/// Okabe and Ito, 2008, "Color universal design", without black and yellow.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];
/// Candle's own are dashed, so that they show on top of ours where the curves are the same.
const BUILT_IN: [RGBColor; 2] = [RGBColor(0x00, 0x00, 0x00), RGBColor(0x8c, 0x8c, 0x8c)];

/// The curves of several runs.
pub struct Figure {
    title: String,
    curves: Vec<Curve>,
    scale: Scale,
    epochs: f64,
}

struct Curve {
    label: String,
    color: RGBColor,
    dashed: bool,
    /// Pixels across.
    width: u32,
    /// Epoch, train loss and test loss, which need not be finite.
    points: Vec<[f64; 3]>,
}

/// The axis of the losses, the same in both panels.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Scale {
    from: f64,
    to: f64,
    /// Whether some loss lies above it.
    cut: bool,
}

impl Scale {
    /// An axis for `curves`. A run that explodes leaves it at the top, lest it press the others flat.
    fn new(curves: &[Curve]) -> Self {
        const MOST_OF_FIRST: f64 = 3.;
        let first = curves
            .iter()
            .filter_map(|curve| Some(curve.points.first()?[1]))
            .filter(|x| x.is_finite())
            .fold(0., f64::max);
        let points = || curves.iter().flat_map(|curve| &curve.points);
        let losses = || points().flat_map(|point| &point[1..]).copied().filter(|loss| loss.is_finite());
        let (least, most) = losses().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        if !most.is_finite() {
            return Self { from: 0., to: 1., cut: false };
        }
        let cut = most > MOST_OF_FIRST * first;
        let top = if cut { MOST_OF_FIRST * first } else { most };
        let margin = 0.04 * (top - least).max(1e-3);
        Self { from: least - margin, to: top + margin, cut }
    }

    fn label(self, at: f64) -> String {
        let decimals = (1.5 - (self.to - self.from).log10()).round().clamp(0., 6.);
        format!("{at:.0$}", decimals as usize)
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
    pub fn new(title: String, runs: &[Run]) -> Self {
        let (mut ours, mut built_in) = (PALETTE.into_iter().cycle(), BUILT_IN.into_iter().cycle());
        let mut curves: Vec<Curve> = runs
            .iter()
            .map(|run| {
                let dashed = run.built_in;
                let color = if dashed { built_in.next() } else { ours.next() };
                let label = match run.diverged_at() {
                    Some(epoch) => format!("{} (diverged at epoch {epoch})", run.optimizer),
                    None => run.optimizer.clone(),
                };
                let width = if dashed { 2 } else { 3 };
                Curve { label, color: color.unwrap_or(INK), dashed, width, points: points(&run.epochs) }
            })
            .collect();
        let scale = Scale::new(&curves);
        for i in 0..curves.len() {
            let (curve, later) = (&curves[i], &curves[i + 1..]);
            if !curve.dashed && later.iter().any(|other| !other.dashed && curve.is_covered_by(other, scale)) {
                curves[i].width += 4;
            }
        }
        let epochs = runs.iter().map(|run| run.epochs.len()).max().unwrap_or(1).max(2) as f64;
        Self { title, curves, scale, epochs }
    }

    /// As a PNG file.
    pub fn png(&self) -> Result<Vec<u8>> {
        let (width, height) = (SIZE.0 * OVERSAMPLING, SIZE.1 * OVERSAMPLING);
        let mut pixels = vec![0; (width * height * 3) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area(), OVERSAMPLING)?;

        let mut file = vec![];
        let mut encoder = png::Encoder::new(&mut file, SIZE.0, SIZE.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&average(&pixels, width as usize, OVERSAMPLING as usize))?;
        Ok(file)
    }

    /// As an SVG file.
    pub fn svg(&self) -> Result<String> {
        let mut file = String::new();
        self.draw(&SVGBackend::with_string(&mut file, SIZE).into_drawing_area(), 1)?;
        Ok(file)
    }

    /// Draws everything, `zoom` times as large.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Result<()> {
        register_font();
        let failed = |error: DrawingAreaErrorKind<_>| anyhow!("cannot draw the figure: {error}");
        area.fill(&WHITE).map_err(failed)?;
        let z = zoom as i32;
        let (width, height) = (SIZE.0 as i32 * z, SIZE.1 as i32 * z);

        let title = (FONT, 26 * zoom).into_font().color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw(&Text::new(self.title.as_str(), (width / 2, 18 * z), title)).map_err(failed)?;

        let legend = self.legend_rows(zoom);
        let legend_height = 34 * z * legend.len() as i32 + 12 * z;
        let panels = area.clone().margin(58 * z, legend_height, 14 * z, 24 * z).split_evenly((1, 2));
        for ((panel, title), column) in panels.iter().zip(["Train loss", "Test loss"]).zip([1, 2]) {
            self.draw_panel(panel, title, column, zoom).map_err(failed)?;
        }
        for (row, curves) in legend.iter().enumerate() {
            let y = height - legend_height + 34 * z * row as i32 + 17 * z;
            self.draw_legend_row(area, curves, y, width, zoom).map_err(failed)?;
        }
        area.present().map_err(failed)
    }

    fn draw_panel<B: DrawingBackend>(
        &self,
        panel: &DrawingArea<B, Shift>,
        title: &str,
        column: usize,
        zoom: u32,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let font = |size: u32| (FONT, size * zoom).into_font().color(&INK);
        let mut chart = ChartBuilder::on(panel)
            .caption(title, font(21))
            .margin_right(14 * zoom)
            .x_label_area_size(52 * zoom)
            .y_label_area_size(74 * zoom)
            .build_cartesian_2d(1f64..self.epochs, self.scale.from..self.scale.to)?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID.stroke_width(zoom))
            .axis_style(INK.stroke_width(zoom))
            .x_desc("Epoch")
            .y_desc(if self.scale.cut { "Loss (higher ones are not shown)" } else { "Loss" })
            .axis_desc_style(font(18))
            .label_style(font(16))
            .x_labels(8)
            .y_labels(8)
            .x_label_formatter(&|epoch| format!("{epoch:.0}"))
            .y_label_formatter(&|&loss| self.scale.label(loss))
            .draw()?;
        for curve in &self.curves {
            let points = curve.points.iter().map(|point| (point[0], point[column]));
            let points: Vec<_> = points.take_while(|(_, loss)| loss.is_finite()).collect();
            for part in self.scale.visible(&points) {
                let style = curve.style(zoom);
                if curve.dashed {
                    chart.draw_series(DashedLineSeries::new(part, DASH * zoom, GAP * zoom, style))?;
                } else if zoom == 1 {
                    chart.draw_series(LineSeries::new(part, style))?;
                } else {
                    // The bitmap's joints shoot out at sharp turns, where SVG's are blunt: round ones instead.
                    chart.draw_series(part.windows(2).map(|segment| PathElement::new(segment.to_vec(), style)))?;
                    let joint = |&point: &(f64, f64)| Circle::new(point, curve.width * zoom / 2, curve.color.filled());
                    chart.draw_series(part.iter().map(joint))?;
                }
            }
        }
        Ok(())
    }

    /// Curves by the row of the legend they stand in, as many in a row as fit.
    fn legend_rows(&self, zoom: u32) -> Vec<Vec<&Curve>> {
        let mut rows: Vec<Vec<&Curve>> = vec![];
        let mut used = u32::MAX / 2;
        for curve in &self.curves {
            let width = curve.legend_width(zoom);
            if used + width > (SIZE.0 - 60) * zoom {
                rows.push(vec![]);
                used = 0;
            }
            used += width;
            if let Some(row) = rows.last_mut() {
                row.push(curve);
            }
        }
        rows
    }

    fn draw_legend_row<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        curves: &[&Curve],
        y: i32,
        width: i32,
        zoom: u32,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let z = zoom as i32;
        let mut x = (width - curves.iter().map(|curve| curve.legend_width(zoom) as i32).sum::<i32>()) / 2;
        for curve in curves {
            let end = x + SAMPLE as i32 * z;
            let (dash, gap) = if curve.dashed { (DASH, GAP) } else { (SAMPLE, 0) };
            for start in (x..end).step_by(((dash + gap) * zoom) as usize) {
                let stop = end.min(start + (dash * zoom) as i32);
                area.draw(&PathElement::new([(start, y), (stop, y)], curve.style(zoom)))?;
            }
            let font = legend_font(zoom).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(curve.label.as_str(), (end + 10 * z, y), font))?;
            x += curve.legend_width(zoom) as i32;
        }
        Ok(())
    }
}

/// Pixels of the line beside a label of the legend.
const SAMPLE: u32 = 44;
/// Pixels of a dash, and between two.
const DASH: u32 = 10;
const GAP: u32 = 7;

fn legend_font(zoom: u32) -> FontDesc<'static> {
    (FONT, 17 * zoom).into_font()
}

impl Curve {
    /// Whether `other`, drawn on top, would hide this curve: it is then drawn wider, to show on both sides.
    fn is_covered_by(&self, other: &Self, scale: Scale) -> bool {
        let differ = |(a, b): (&[f64; 3], &[f64; 3])| (a[1] - b[1]).abs() > 0.01 * (scale.to - scale.from);
        self.points.len() == other.points.len() && !self.points.iter().zip(&other.points).any(differ)
    }

    fn style(&self, zoom: u32) -> ShapeStyle {
        self.color.stroke_width(self.width * zoom)
    }

    fn legend_width(&self, zoom: u32) -> u32 {
        let text = legend_font(zoom).box_size(&self.label).map_or(0, |(width, _)| width);
        text + (SAMPLE + 36) * zoom
    }
}

fn points(epochs: &[Epoch]) -> Vec<[f64; 3]> {
    let last = epochs.len().saturating_sub(1);
    let stride = epochs.len().div_ceil(MOST_POINTS).max(1);
    let all = epochs.iter().enumerate().filter(|(i, _)| i % stride == 0 || *i == last);
    all.map(|(i, epoch)| [(i + 1) as f64, epoch.train_loss, epoch.test_loss]).collect()
}

/// Means of squares of `factor` by `factor` RGB pixels.
fn average(pixels: &[u8], width: usize, factor: usize) -> Vec<u8> {
    let rows = pixels.chunks_exact(width * 3 * factor);
    let mut small = Vec::with_capacity(pixels.len() / (factor * factor));
    for block in rows {
        for x in 0..width / factor {
            for channel in 0..3 {
                let square = (0..factor * factor)
                    .map(|i| usize::from(block[((i / factor) * width + x * factor + i % factor) * 3 + channel]));
                small.push((square.sum::<usize>() / (factor * factor)) as u8);
            }
        }
    }
    small
}

/// Makes the bundled font known, so that a picture is the same everywhere.
fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only for a file that is not a font, which the tests would show.
        let _ = plotters::style::register_font(FONT, FontStyle::Normal, include_bytes!("font/Roboto-Regular.ttf"));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(losses: &[f64]) -> Curve {
        let points = losses.iter().enumerate().map(|(i, &loss)| [i as f64, loss, loss]).collect();
        Curve { label: String::new(), color: INK, dashed: false, width: 1, points }
    }

    #[test]
    fn the_scale_holds_all_losses_but_those_of_an_explosion() {
        let calm = Scale::new(&[curve(&[0.7, 0.02])]);
        assert!(!calm.cut && calm.from < 0.02 && calm.to > 0.7);
        let cut = Scale::new(&[curve(&[0.7, 0.02]), curve(&[0.7, 1e12])]);
        assert!(cut.cut && cut.to > 2.1 && cut.to < 2.3);
        assert_eq!(Scale::new(&[curve(&[])]), Scale { from: 0., to: 1., cut: false });
        let constant = Scale::new(&[curve(&[0.5])]);
        assert!(constant.from < 0.5 && constant.to > 0.5);
    }

    #[test]
    fn lines_are_cut_where_they_cross_the_top() {
        let scale = Scale { from: 0., to: 1., cut: true };
        let parts = scale.visible(&[(0., 2.), (1., 0.), (2., 1.), (3., 3.), (4., 5.), (5., 0.)]);
        assert_eq!(parts, [vec![(0.5, 1.), (1., 0.), (2., 1.), (2., 1.)], vec![(4.8, 1.), (5., 0.)]]);
        assert!(scale.visible(&[(0., 2.), (1., 2.)]).is_empty());
    }

    #[test]
    fn averaging_takes_each_square_to_its_mean() {
        let row = |a: u8, b: u8| [a, a, a, b, b, b];
        assert_eq!(average(&[row(0, 4), row(8, 12)].concat(), 2, 2), [6, 6, 6]);
    }
}
