//! The section over several problems.

use crate::report::figure::{Axis, Figure, Optimizer, Panel, Section, Series, Table, short};
use crate::sweep::statistics::Statistics;

/// The section over several problems.
pub(super) fn over_problems(
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
