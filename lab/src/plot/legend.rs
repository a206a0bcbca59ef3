//! The surroundings of panels: the title above, and the legend below.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::look::{Look, PALETTE, marker};
use super::paper::{Axis, Drawn, FONT, INK, title_font};

/// Pixels of the height of a legend row.
pub const LEGEND_ROW: u32 = 34;
/// Pixels of the line beside a label, and of the gap between entries.
const SAMPLE: u32 = 44;
const GAP: u32 = 36;
/// Pixels of the margin beside all rows.
const MARGIN: u32 = 60;

/// How a line is drawn.
#[derive(Clone, Copy)]
pub struct Line {
    /// Its color.
    pub color: RGBColor,
    /// Pixels of a dash and of a gap.
    pub dash: Option<[u32; 2]>,
    /// Pixels of its width.
    pub width: u32,
    /// The number of its marker, which lines of similar gray do not share.
    pub marker: usize,
}

/// How many markers a line has.
const MARKERS: usize = 6;

impl Line {
    /// A line of this look.
    pub fn of(look: Look, width: u32) -> Self {
        Self { color: look.color, dash: look.dash, width, marker: look.marker }
    }

    /// Draws some markers on a line through points. Lines that overlap have them at different points.
    ///
    /// # Errors
    /// An error of the backend.
    pub fn draw_markers<B: DrawingBackend>(
        self,
        chart: &mut ChartContext<B, Cartesian2d<Axis, Axis>>,
        points: &[(f64, f64)],
        zoom: u32,
    ) -> Drawn<B> {
        let step = points.len().div_ceil(MARKERS).max(1);
        let first = self.marker * step.div_ceil(PALETTE.len()) % step;
        let marker = |at: &(f64, f64)| {
            EmptyElement::at(*at) + Polygon::new(marker(self.marker, (0, 0), zoom), self.color.filled())
        };
        chart.draw_series(points.iter().skip(first).step_by(step).map(marker)).map(|_| ())
    }

    /// Draws a line through points.
    ///
    /// # Errors
    /// An error of the backend.
    pub fn draw<B: DrawingBackend>(
        self,
        chart: &mut ChartContext<B, Cartesian2d<Axis, Axis>>,
        points: Vec<(f64, f64)>,
        zoom: u32,
    ) -> Drawn<B> {
        let style = self.style(zoom);
        if let Some([dash, gap]) = self.dash {
            chart.draw_series(DashedLineSeries::new(points, dash * zoom, gap * zoom, style))?;
        } else if zoom == 1 {
            chart.draw_series(LineSeries::new(points, style))?;
        } else {
            // The bitmap's joints protrude at sharp turns, where SVG's are blunt: draw round ones instead.
            chart.draw_series(points.windows(2).map(|segment| PathElement::new(segment.to_vec(), style)))?;
            let joint = |&point: &(f64, f64)| Circle::new(point, self.width * zoom / 2, self.color.filled());
            chart.draw_series(points.iter().map(joint))?;
        }
        Ok(())
    }

    fn style(self, zoom: u32) -> ShapeStyle {
        self.color.stroke_width(self.width * zoom)
    }
}

/// A label with its line, if it has one.
pub struct Entry {
    /// The label.
    pub label: String,
    /// How its line is drawn.
    pub line: Option<Line>,
}

impl Entry {
    fn width(&self, zoom: u32) -> u32 {
        let text = legend_font(zoom).box_size(&self.label).map_or(0, |(width, _)| width);
        text + (SAMPLE + GAP) * zoom
    }
}

/// Entries in rows, with as many in a row as fit.
pub struct Legend(Vec<Vec<Entry>>);

impl Legend {
    /// The legend of a picture that is `width` pixels wide.
    pub fn new(entries: impl IntoIterator<Item = Entry>, width: u32) -> Self {
        let mut rows: Vec<Vec<Entry>> = vec![];
        let mut used = u32::MAX / 2;
        for entry in entries {
            let own = entry.width(1);
            if used + own > width - MARGIN {
                rows.push(vec![]);
                used = 0;
            }
            used += own;
            if let Some(row) = rows.last_mut() {
                row.push(entry);
            }
        }
        Self(rows)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.0.len()
    }
}

/// The font of labels.
pub fn legend_font(zoom: u32) -> FontDesc<'static> {
    (FONT, 17 * zoom).into_font()
}

/// The most pixels of a label in a picture of this width.
pub fn longest(width: u32) -> u32 {
    width - MARGIN - SAMPLE - GAP
}

/// Draws the title and the legend. Returns what is between them.
///
/// # Errors
/// An error of the backend.
pub fn framed<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    title: &str,
    legend: &Legend,
    zoom: u32,
) -> Result<DrawingArea<B, Shift>, DrawingAreaErrorKind<B::ErrorType>> {
    let z = zoom as i32;
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (width as i32, height as i32);
    let centered = title_font(zoom).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
    area.draw(&Text::new(title, (width / 2, 18 * z), centered))?;
    let row_height = LEGEND_ROW as i32 * z;
    let legend_height = row_height * legend.rows() as i32 + 12 * z;
    for (row, entries) in legend.0.iter().enumerate() {
        let y = height - legend_height + row_height * row as i32 + row_height / 2;
        let mut x = (width - entries.iter().map(|entry| entry.width(zoom) as i32).sum::<i32>()) / 2;
        for entry in entries {
            let end = x + SAMPLE as i32 * z;
            if let Some(line) = entry.line {
                let [dash, gap] = line.dash.unwrap_or([SAMPLE, 0]);
                for start in (x..end).step_by(((dash + gap) * zoom) as usize) {
                    let stop = end.min(start + (dash * zoom) as i32);
                    area.draw(&PathElement::new([(start, y), (stop, y)], line.style(zoom)))?;
                }
                let shape = marker(line.marker, ((x + end) / 2, y), zoom);
                area.draw(&Polygon::new(shape, line.color.filled()))?;
            }
            let font = legend_font(zoom).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(entry.label.as_str(), (end + 10 * z, y), font))?;
            x += entry.width(zoom) as i32;
        }
    }
    Ok(area.clone().margin(58 * z, legend_height, 14 * z, 24 * z))
}
