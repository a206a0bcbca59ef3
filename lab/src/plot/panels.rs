//! A figure of the report on paper: its panels side by side, and the last frame of maps.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::legend::{Entry, LEGEND_ROW, Legend, Line, framed, legend_font, longest};
use super::look::{PALETTE, marker};
use super::paper::{Axis, Drawn, FONT, GRAY, INK, Picture, fitted, mesh, register_font, title_font};
use super::scale::Scale;
use crate::report::figure::{self, Figure, Map, Optimizer, Panel, Series, Shape};

/// Pixels of the width of a picture, and of a picture of one panel.
const WIDTH: u32 = 1600;
const WIDTH_OF_ONE: u32 = 900;
/// Pixels of the height of a panel: with lines, with a map, and with a map alone.
const LINES: u32 = 420;
const MAP: u32 = 370;
const ONE: u32 = 700;
/// Pixels above and below the panels, together.
const AROUND: u32 = 90;
/// The most panels of maps; a picture of many more could not be printed.
const MOST: usize = 16;
/// Bands of levels, which look like contours.
const BANDS: f64 = 16.;
/// Each cell is divided into this many along each axis, so that bands have smooth edges.
const FINER: usize = 3;

/// A figure to draw.
pub struct Panels<'a> {
    title: String,
    figure: &'a Figure,
    panels: &'a [Panel],
    optimizers: &'a [Optimizer],
}

impl<'a> Panels<'a> {
    /// The picture of a figure.
    pub fn new(title: &str, figure: &'a Figure, optimizers: &'a [Optimizer]) -> Self {
        register_font();
        let shown = if figure.panels.iter().any(|panel| panel.map.is_some()) { MOST } else { figure.panels.len() };
        let mut this =
            Self { title: String::new(), figure, panels: &figure.panels[..shown.min(figure.panels.len())], optimizers };
        let epoch = figure.frames.last().map_or(String::new(), |epoch| format!(", epoch {epoch}"));
        let more = figure.panels.len() - this.panels.len();
        let more = if more > 0 { format!(" ({more} more on the page)") } else { String::new() };
        this.title = fitted(&format!("{}: {title}{epoch}{more}", figure.title), &title_font(1), this.width() - 60);
        this
    }

    fn is_map(&self) -> bool {
        self.panels.iter().any(|panel| panel.map.is_some())
    }

    fn width(&self) -> u32 {
        if self.panels.len() == 1 { WIDTH_OF_ONE } else { WIDTH }
    }

    /// The number of columns, and pixels of the height of a panel.
    fn layout(&self) -> (usize, u32) {
        match (self.panels.len(), self.is_map()) {
            (1, true) => (1, ONE),
            (n, true) => (n.clamp(1, 4), MAP),
            (n, false) => (n.clamp(1, 2), LINES),
        }
    }

    fn rows(&self) -> usize {
        self.panels.len().div_ceil(self.layout().0)
    }

    /// The optimizers that have a line in some panel.
    fn legend(&self) -> Legend {
        let drawn = |number: &usize| {
            let has = |series: &Series| series.optimizer == *number && !series.points.is_empty();
            self.panels.iter().flat_map(|panel| &panel.series).any(has)
        };
        let entry = |number: usize| {
            let optimizer = &self.optimizers[number];
            let label = fitted(&optimizer.name, &legend_font(1), longest(self.width()));
            Entry { label, line: Some(Line::of(optimizer.look, 3)) }
        };
        Legend::new((0..self.optimizers.len()).filter(drawn).map(entry), self.width())
    }
}

impl Picture for Panels<'_> {
    fn size(&self) -> (u32, u32) {
        let legend = self.legend().rows() as u32 * LEGEND_ROW;
        (self.width(), AROUND + self.layout().1 * self.rows() as u32 + legend)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, zoom: u32) -> Drawn<B> {
        let inner = framed(area, &self.title, &self.legend(), zoom)?;
        let (columns, _) = self.layout();
        let places = inner.split_evenly((self.rows(), columns));
        for (panel, place) in self.panels.iter().zip(&places) {
            Drawing { panel, figure: self.figure, optimizers: self.optimizers, zoom }.draw(place)?;
        }
        Ok(())
    }
}

/// A panel on paper.
struct Drawing<'a> {
    panel: &'a Panel,
    figure: &'a Figure,
    optimizers: &'a [Optimizer],
    zoom: u32,
}

impl Drawing<'_> {
    /// The scale of an axis for these numbers.
    fn scale(axis: &figure::Axis, numbers: impl Iterator<Item = f64> + Clone) -> Scale {
        let most = axis.most.unwrap_or(f64::INFINITY);
        let numbers = numbers.filter(|x| *x <= most).chain(axis.most);
        match axis.range {
            Some([from, to]) => Scale::exact(from, to),
            None if axis.log => Scale::new(numbers.filter(|x| x.is_finite()), true),
            None => Scale::linear(numbers.filter(|x| x.is_finite())),
        }
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Drawn<B> {
        let &Self { panel, zoom, .. } = self;
        let font = |size: u32| (FONT, size * zoom).into_font().color(&INK);
        let ends = |pick: fn(&Series) -> &Vec<[f64; 2]>| panel.series.iter().flat_map(pick).flatten().copied();
        let points = |axis: usize| panel.series.iter().flat_map(|series| &series.points).map(move |point| point[axis]);
        let x = Self::scale(&panel.x, points(0).chain(ends(|series| &series.whiskers)));
        let level = panel.level.iter().map(|(level, _)| *level);
        let y = Self::scale(&panel.y, points(1).chain(ends(|series| &series.band)).chain(level));
        let names = &panel.y.names;
        let (y, y_axis) = match names.len() {
            0 => {
                let axis = y.axis();
                (y, axis)
            }
            n => (
                Scale::exact(n as f64 - 0.5, -0.5),
                Axis::with_ticks(n as f64 - 0.5, -0.5, (0..n).map(|i| i as f64).collect()),
            ),
        };
        let name_of =
            |at: f64| names.get(at.round() as usize).map_or(String::new(), |name| fitted(name, &legend_font(1), 190));
        let title = fitted(&panel.title, &(FONT, 21).into_font(), area.dim_in_pixel().0 / zoom - 80);
        let mut chart = ChartBuilder::on(area)
            .caption(title, font(21))
            .margin_top(12 * zoom)
            .margin_right(14 * zoom)
            .x_label_area_size(52 * zoom)
            .y_label_area_size(if names.is_empty() { 78 } else { 200 } * zoom)
            .build_cartesian_2d(x.axis(), y_axis)?;
        if let Some(map) = &panel.map {
            self.draw_map(&mut chart, map)?;
        }
        let mut grid = mesh(&mut chart, zoom);
        if panel.map.is_some() {
            grid.disable_mesh();
        }
        grid.x_desc(panel.x.name.as_str())
            .y_desc(if names.is_empty() { panel.y.name.as_str() } else { "" })
            .x_label_formatter(&|at| x.label(*at))
            .y_label_formatter(&|at| if names.is_empty() { y.label(*at) } else { name_of(*at) })
            .draw()?;
        if let Some((level, name)) = &panel.level {
            let at = y.at(*level);
            let style = GRAY.stroke_width(2 * zoom);
            chart.draw_series(DashedLineSeries::new([(x.from, at), (x.to, at)], 8 * zoom, 6 * zoom, style))?;
            let text = (FONT, 15 * zoom).into_font().color(&GRAY).pos(Pos::new(HPos::Left, VPos::Bottom));
            let start = EmptyElement::at((x.from + 0.01 * (x.to - x.from), at));
            chart.draw_series([start + Text::new(name.clone(), (0, -7 * zoom as i32), text)])?;
        }
        let place = |[a, b]: [f64; 2]| (x.at(a), y.at(b));
        let is_drawn = |[a, b]: [f64; 2]| a.is_finite() && b.is_finite() && (!x.log || a > 0.) && (!y.log || b > 0.);
        // A scale clamps points beyond its ends: a line would run along the frame.
        let fits = |axis: &figure::Axis, x: f64| {
            x <= axis.most.unwrap_or(f64::INFINITY) && axis.range.is_none_or(|[from, to]| (from..=to).contains(&x))
        };
        let is_inside = |at: [f64; 2]| is_drawn(at) && fits(&panel.x, at[0]) && fits(&panel.y, at[1]);
        for series in &panel.series {
            let look = self.optimizers.get(series.optimizer).map(|optimizer| optimizer.look);
            let thin = series.shape == Shape::Thin;
            let line = match look {
                Some(look) if thin => Line { dash: Some([3, 3]), ..Line::of(look, 1) },
                Some(look) => Line::of(look, 3 + 4 * series.beneath as u32),
                None => Line { color: GRAY, dash: None, width: 3, marker: 0 },
            };
            self.draw_ends(&mut chart, series, line.color, &place, &is_drawn)?;
            let parts = series.points.split(|point| !is_inside(*point)).filter(|part| !part.is_empty());
            for part in parts {
                let points: Vec<(f64, f64)> = part.iter().map(|point| place(*point)).collect();
                let is_line = series.shape != Shape::Points && points.len() > 1;
                if is_line {
                    line.draw(&mut chart, points.clone(), zoom)?;
                }
                if is_line && series.shape == Shape::Line {
                    if look.is_some() {
                        line.draw_markers(&mut chart, &points, zoom)?;
                    }
                } else if !thin {
                    let shape = |at| {
                        EmptyElement::at(at) + Polygon::new(marker(line.marker, (0, 0), zoom), line.color.filled())
                    };
                    chart.draw_series(points.into_iter().map(shape))?;
                }
            }
            for mark in series.marks.iter().filter(|mark| is_inside(mark.at)) {
                let (at, style) = (place(mark.at), line.color.stroke_width(2 * zoom));
                if mark.cross {
                    chart.draw_series([Cross::new(at, 6 * zoom, style)])?;
                } else {
                    chart.draw_series([Circle::new(at, 9 * zoom, style)])?;
                }
            }
        }
        Ok(())
    }

    /// Bands and whiskers.
    fn draw_ends<B: DrawingBackend>(
        &self,
        chart: &mut ChartContext<B, Cartesian2d<Axis, Axis>>,
        series: &Series,
        color: RGBColor,
        place: &impl Fn([f64; 2]) -> (f64, f64),
        is_drawn: &impl Fn([f64; 2]) -> bool,
    ) -> Drawn<B> {
        let style = color.stroke_width(4 * self.zoom);
        let both = |a: [f64; 2], b: [f64; 2]| (is_drawn(a) && is_drawn(b)).then(|| [place(a), place(b)]);
        // An infinite end is the end of the axis, where the scale clamps it.
        let ends = |ends: [f64; 2]| ends.map(|end| if end.is_infinite() { f64::MAX.copysign(end) } else { end });
        let band = series.points.iter().zip(&series.band);
        let band: Vec<_> = band.filter_map(|(&[x, _], &[low, high])| both([x, low], [x, high])).collect();
        if series.shape == Shape::Points {
            chart.draw_series(band.iter().map(|ends| PathElement::new(ends.to_vec(), style)))?;
        } else if band.len() > 1 {
            let lower = band.iter().map(|ends| ends[0]);
            let upper = band.iter().rev().map(|ends| ends[1]);
            chart.draw_series([Polygon::new(lower.chain(upper).collect::<Vec<_>>(), color.mix(0.12))])?;
        }
        let whiskers = series.points.iter().zip(&series.whiskers);
        let whiskers = whiskers.filter_map(|(&[_, y], &[left, right])| {
            let [left, right] = ends([left, right]);
            both([left, y], [right, y])
        });
        chart.draw_series(whiskers.map(|ends| PathElement::new(ends.to_vec(), style)))?;
        Ok(())
    }

    fn draw_map<B: DrawingBackend>(&self, chart: &mut ChartContext<B, Cartesian2d<Axis, Axis>>, map: &Map) -> Drawn<B> {
        let (Some([left, right]), Some([low, high])) = (self.panel.x.range, self.panel.y.range) else { return Ok(()) };
        let cells = map.frames.last().and_then(|frame| STANDARD.decode(frame).ok()).unwrap_or_default();
        let is_classes = !map.classes.is_empty();
        let (cells, n) = if is_classes { (cells, map.cells) } else { finer(&cells, map.cells) };
        if cells.len() != n * n {
            return Ok(());
        }
        let edge = |[from, to]: [f64; 2], at: usize| from + (to - from) * at as f64 / n as f64;
        for (row, cells) in cells.chunks_exact(n).enumerate() {
            let (bottom, top) = (edge([low, high], row), edge([low, high], row + 1));
            let mut column = 0;
            for equal in cells.chunk_by(|a, b| shade(*a, is_classes) == shade(*b, is_classes)) {
                let ends = [edge([left, right], column), edge([left, right], column + equal.len())];
                column += equal.len();
                let color = shade(equal[0], is_classes);
                chart.draw_series([Rectangle::new([(ends[0], bottom), (ends[1], top)], color.filled())])?;
            }
        }
        for tested in [false, true] {
            for point in self.figure.points.iter().filter(|point| point.tested == tested) {
                let color = match is_classes {
                    true => PALETTE[point.is as usize % PALETTE.len()],
                    false => mix(DARK, WHITE, point.is.clamp(0., 1.)),
                };
                let at = (point.at[0], point.at[1]);
                let radius = if tested { 3 } else { 2 } * self.zoom;
                chart.draw_series([Circle::new(at, radius + self.zoom, WHITE.filled())])?;
                if tested {
                    let r = radius as i32 + 1;
                    let diamond = Polygon::new(vec![(0, -r), (r, 0), (0, r), (-r, 0)], color.filled());
                    chart.draw_series([EmptyElement::at(at) + diamond])?;
                } else {
                    chart.draw_series([Circle::new(at, radius, color.filled())])?;
                }
            }
        }
        Ok(())
    }
}

/// The color of the lowest level: of points, and of cells.
const DARK: RGBColor = RGBColor(0x1d, 0x3c, 0x58);
const LOW: RGBColor = RGBColor(0x86, 0xa3, 0xbd);

/// The color of a cell, as on the page.
fn shade(byte: u8, is_classes: bool) -> RGBColor {
    match byte {
        u8::MAX => WHITE,
        _ if is_classes => {
            let class = PALETTE[usize::from(byte >> 4) % PALETTE.len()];
            mix(WHITE, class, 0.12 + 0.5 * f64::from(byte & 15) / 15.)
        }
        _ => mix(LOW, WHITE, (f64::from(byte) / 255. * BANDS).floor() / (BANDS - 1.)),
    }
}

fn mix(a: RGBColor, b: RGBColor, share: f64) -> RGBColor {
    let of = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
    RGBColor(of(a.0, b.0), of(a.1, b.1), of(a.2, b.2))
}

/// Levels interpolated between four cells.
fn finer(cells: &[u8], n: usize) -> (Vec<u8>, usize) {
    let m = n * FINER;
    let place = |at: usize| ((at as f64 + 0.5) / FINER as f64 - 0.5).clamp(0., n as f64 - 1.);
    let cell = |at: usize| {
        let (y, x) = (place(at / m), place(at % m));
        let (rows, columns) = ([y.floor(), y.ceil()], [x.floor(), x.ceil()]);
        let four = rows
            .map(|row| columns.map(|column| cells.get(row as usize * n + column as usize).copied().unwrap_or(u8::MAX)));
        if four.as_flattened().contains(&u8::MAX) {
            return u8::MAX;
        }
        let across = four.map(|[a, b]| f64::from(a) + (f64::from(b) - f64::from(a)) * x.fract());
        (across[0] + (across[1] - across[0]) * y.fract()).round() as u8
    };
    ((0..m * m).map(cell).collect(), m)
}
