//! Figures of recorded networks: predictions, the loss around the paths, norms.

use anyhow::Result;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Files;
use super::figure::{Axis, Figure, Map, Optimizer, Panel, Point, Series, Table, short};
use crate::details::{self, DETAILS, Norm, Problem};
use crate::plot::ends;
use crate::shown::shown;

/// The recorded details of each problem; empty if the folder has none.
///
/// # Errors
/// A file that the program did not write.
pub fn recorded(files: &Files) -> Result<Vec<Problem>> {
    if !files.has(DETAILS) {
        return Ok(vec![]);
    }
    files.read(DETAILS, |file| {
        let mut bytes = vec![];
        file.read_to_end(&mut bytes)?;
        details::read(&bytes)
    })
}

/// The figures of a problem. Its recorded optimizers are among those of the section, found by their full `names`;
/// `prefix` begins the names of the picture files.
pub fn figures(problem: &Problem, names: &[&str], optimizers: &[Optimizer], prefix: &str) -> Vec<Figure> {
    let number = |recorded: &details::Optimizer| names.iter().position(|name| *name == recorded.name);
    let numbers: Vec<usize> =
        problem.optimizers.iter().map(|recorded| number(recorded).unwrap_or(usize::MAX)).collect();
    [
        predictions(problem, &numbers, optimizers),
        surface(problem, &numbers, optimizers),
        norms(problem, &numbers, optimizers),
    ]
    .into_iter()
    .flatten()
    .map(|figure| Figure { picture: Some(format!("{prefix}{}", figure.id)), ..figure })
    .collect()
}

/// Predictions over the plane of inputs.
fn predictions(problem: &Problem, numbers: &[usize], optimizers: &[Optimizer]) -> Option<Figure> {
    let view = problem.view.as_ref()?;
    let is_classes = !view.classes.is_empty();
    let classes: Vec<String> = view.classes.iter().map(|class| shown(class)).collect();
    let cells = view.cells * view.cells;
    let panel = |(recorded, &number): (&details::Optimizer, &usize)| {
        let name = optimizers.get(number).map_or("", |optimizer| optimizer.name.as_str());
        let frames = recorded.predictions.chunks_exact(cells);
        let alt = match frames.clone().last() {
            Some(last) if is_classes => {
                let said = shares(last, true).into_iter().zip(&classes).take(NAMED);
                let said = said.map(|(share, class)| format!("{share:.0} % as {class}"));
                format!("Predictions of {name} in the end: {} of the plane.", said.collect::<Vec<_>>().join(", "))
            }
            _ => {
                let [low, high] = view.levels.map(short);
                format!("Predictions of {name} over the plane, from {low} to {high}.")
            }
        };
        let [x, y] =
            [0, 1].map(|axis| Axis { name: shown(&view.axes[axis]), range: Some(view.range[axis]), ..Axis::default() });
        let frames = frames.map(|frame| STANDARD.encode(frame)).collect();
        let map = Map { cells: view.cells, frames, classes: classes.clone() };
        // The legend shows and hides the panel by this empty series.
        let series = vec![Series { optimizer: number, ..Series::default() }];
        Panel { title: name.into(), alt, x, y, map: Some(map), series, ..Panel::default() }
    };
    let panels = problem.optimizers.iter().zip(numbers).map(panel).collect();
    let level = |target: f64| {
        let [low, high] = view.levels;
        if is_classes { target } else { (target - low) / (high - low) }
    };
    let first_tested = view.targets.len() - view.tested;
    let points = view.points.as_chunks::<2>().0.iter().zip(&view.targets).enumerate();
    let points = points
        .map(|(at, (point, target))| Point { at: *point, is: level(*target), tested: at >= first_tested })
        .collect();
    let plane = if view.projected {
        " The plane is that of the first two principal components of the training rows; rows lie off it, so that a point \
         may stand on the wrong color and be predicted correctly."
    } else {
        ""
    };
    let colors = if is_classes { "Strong colors are confident predictions." } else { "Dark cells are low numbers." };
    Some(Figure {
        id: "predictions".into(),
        title: if is_classes { "Decision boundaries" } else { "Predictions" }.into(),
        note: format!("{colors} Dots are training rows, diamonds test rows.{plane}"),
        panels,
        frames: problem.frames.clone(),
        points,
        tables: vec![shares_by_epoch(problem, numbers, optimizers, &classes, cells)],
        picture: None,
    })
}

/// The share of the plane of each class, or of each quarter of the levels, at the beginning, in the middle and at the
/// end.
fn shares_by_epoch(
    problem: &Problem,
    numbers: &[usize],
    optimizers: &[Optimizer],
    classes: &[String],
    cells: usize,
) -> (String, Table) {
    let names: Vec<String> = match classes {
        [] => ["lowest quarter", "second", "third", "highest quarter"].map(Into::into).into(),
        classes => classes.iter().take(NAMED).cloned().collect(),
    };
    let header = ["Optimizer", "Epoch"].map(Into::into).into_iter();
    let header = header.chain(names.iter().map(|name| format!("% {name}"))).collect();
    let last = problem.frames.len().saturating_sub(1);
    let mut rows = vec![];
    for (recorded, &number) in problem.optimizers.iter().zip(numbers) {
        for at in [0, last / 2, last] {
            let frame = recorded.predictions.chunks_exact(cells).nth(at).unwrap_or_default();
            let shares = shares(frame, !classes.is_empty()).into_iter().take(names.len());
            let name = optimizers.get(number).map_or("", |optimizer| &optimizer.name);
            let cells = [name.to_owned(), problem.frames[at].to_string()].into_iter();
            rows.push(cells.chain(shares.map(|share| format!("{share:.1}"))).collect());
        }
    }
    ("Shares of the plane".into(), Table { header, rows })
}

/// The most classes that descriptions and tables name.
const NAMED: usize = 8;

/// Percentages of the cells of each class or, without classes, of each quarter of the levels.
fn shares(frame: &[u8], is_classes: bool) -> [f64; 16] {
    let mut counts = [0usize; 16];
    for cell in frame.iter().filter(|&&cell| cell != u8::MAX) {
        counts[usize::from(cell / if is_classes { 16 } else { 64 })] += 1;
    }
    counts.map(|count| 100. * count as f64 / frame.len() as f64)
}

/// The paths of the weights over the loss.
fn surface(problem: &Problem, numbers: &[usize], optimizers: &[Optimizer]) -> Option<Figure> {
    let surface = problem.surface.as_ref()?;
    let paths = problem.optimizers.iter().zip(numbers).filter(|(recorded, _)| recorded.in_plane.is_some());
    let series: Vec<Series> = paths
        .clone()
        .map(|(recorded, &optimizer)| Series::path(optimizer, recorded.path.as_chunks::<2>().0.to_vec()))
        .collect();
    let shares = paths.map(|(recorded, &number)| {
        let name = optimizers.get(number).map_or("", |optimizer| optimizer.name.as_str());
        format!("{name} {:.0} %", 100. * recorded.in_plane.unwrap_or_default())
    });
    let shares = shares.collect::<Vec<_>>().join(", ");
    let (map, [low, high]) = levels(&surface.losses, surface.cells);
    let axis = |name: &str, at: usize| Axis { range: Some(surface.range[at]), ..Axis::linear(name) };
    let panel = Panel {
        title: "Training loss around the paths".into(),
        alt: format!(
            "The training loss in a plane of weights, from {} to {}, with the path of each optimizer from the common start. \
             Length that lies in the plane: {shares}.",
            short(low),
            short(high)
        ),
        x: axis("first principal direction", 0),
        y: axis("second principal direction", 1),
        series,
        map: Some(map),
        level: None,
    };
    let left_out = problem.optimizers.len() - panel.series.len();
    let left_out = match left_out {
        0 => "",
        _ => " Optimizers whose loss did not fall are not drawn.",
    };
    Some(Figure {
        id: "surface".into(),
        title: "Loss surface".into(),
        note: format!(
            "The plane through the initial weights that holds most of the way to the middle and the end of each path; the \
             loss is that of {} training rows, from {} (dark) to {} (light) by equal ratios. What is drawn of a path is its \
             projection. Share of the way from the start to the end that lies in the plane: {shares}.{left_out}",
            surface.rows,
            short(low),
            short(high)
        ),
        panels: vec![panel],
        ..Figure::default()
    })
}

/// Numbers over a plane as a map with one frame, and the numbers of its lowest and highest level: logarithmic if none
/// is negative.
pub fn levels(numbers: &[f64], cells: usize) -> (Map, [f64; 2]) {
    let finite = || numbers.iter().copied().filter(|x| x.is_finite());
    let (low, high) = ends(finite());
    // A few tiny numbers would otherwise stretch the scale and leave one color for the rest.
    let (floor, is_log) = (low.max(high * 1e-6), low >= 0. && high > 0.);
    let at = |x: f64| if is_log { x.max(floor).ln() } else { x };
    let (from, to) = (at(low), at(high));
    let level = |&x: &f64| match x.is_finite() {
        true if to > from => ((at(x) - from) / (to - from) * 254.).round() as u8,
        true => 0,
        false => u8::MAX,
    };
    let bytes: Vec<u8> = numbers.iter().map(level).collect();
    (
        Map { cells, frames: vec![STANDARD.encode(bytes)], classes: vec![] },
        if is_log { [floor, high] } else { [low, high] },
    )
}

/// Norms by epoch.
fn norms(problem: &Problem, numbers: &[usize], optimizers: &[Optimizer]) -> Option<Figure> {
    let epochs: Vec<f64> = problem.norm_epochs.iter().map(|epoch| *epoch as f64).collect();
    if epochs.is_empty() {
        return None;
    }
    let of = |norm: Norm| move |recorded: &details::Optimizer| recorded.norms[norm as usize].clone();
    let ratio = |recorded: &details::Optimizer| {
        let pairs = recorded.norms[Norm::Update as usize].iter().zip(&recorded.norms[Norm::Weights as usize]);
        pairs.map(|(update, weights)| update / weights).collect()
    };
    type Pick<'a> = &'a dyn Fn(&details::Optimizer) -> Vec<f64>;
    let kinds: [(&str, Pick); 4] = [
        ("Gradient norm", &of(Norm::Gradient)),
        ("Update norm", &of(Norm::Update)),
        ("Update norm per weight norm", &ratio),
        ("Distance from the start", &of(Norm::Distance)),
    ];
    let panels = kinds.map(|(title, pick)| {
        let line = |(recorded, &optimizer): (&details::Optimizer, &usize)| {
            let points = epochs.iter().zip(pick(recorded)).map(|(epoch, value)| [*epoch, value]).collect();
            Series { optimizer, points, ..Series::default() }
        };
        let series = problem.optimizers.iter().zip(numbers).map(line).collect();
        let (x, y) = (Axis::linear("Epoch"), Axis::log(title));
        Panel { title: title.into(), x, y, series, ..Panel::default() }.described(optimizers)
    });
    Some(Figure {
        id: "norms".into(),
        title: "Gradients and updates".into(),
        note: "Euclidean norms over all weights, of the weights that the network is evaluated with. The gradient is that of \
               an epoch's last step, the update that of the whole epoch."
            .into(),
        panels: panels.into(),
        ..Figure::default()
    })
}
