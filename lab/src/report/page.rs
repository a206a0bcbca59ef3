//! The file: results as text and tables, the figures' numbers as JSON, and the script that draws them.

use std::io::Read;

use anyhow::Result;
use flate2::read::GzDecoder;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde::Serialize;

use super::figure::{Figure, Optimizer, Panel, Section, Table};
use crate::plot::PALETTE;
use crate::shown::visible;

/// Apache ECharts 6.1.0, `dist/echarts.min.js` of its npm package; `README.md` beside the file says where it is from.
const ECHARTS: &[u8] = include_bytes!("assets/echarts.min.js.gz");
const PAGE: &str = include_str!("assets/page.js");
const STYLE: &str = include_str!("assets/page.css");

/// The data that the script reads.
#[derive(Serialize)]
struct Data<'a> {
    sections: Vec<Drawn<'a>>,
    /// Colors of classes.
    classes: Vec<String>,
}

#[derive(Serialize)]
struct Drawn<'a> {
    id: &'a str,
    optimizers: &'a [Optimizer],
    figures: &'a [Figure],
}

/// The page of some sections.
///
/// # Errors
/// None is expected.
pub fn page(sections: &[Section]) -> Result<Vec<u8>> {
    let title = match sections {
        [section] => section.title.clone(),
        _ => "Optimizers compared".into(),
    };
    let title = shown_title(&title);
    let drawn = sections.iter().map(|Section { id, optimizers, figures, .. }| Drawn { id, optimizers, figures });
    let classes = PALETTE.iter().map(|color| super::look::css(*color)).collect();
    // Within a script element, only this character could end it.
    let data = serde_json::to_string(&Data { sections: drawn.collect(), classes })?.replace('<', "\\u003c");
    let mut echarts = String::new();
    GzDecoder::new(ECHARTS).read_to_string(&mut echarts)?;
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) }
                    @if sections.len() > 1 {
                        nav aria-label="Sections" {
                            @for section in sections { a href={ "#" (section.id) } { (shown_title(&section.title)) } }
                        }
                    }
                }
                main { @for section in sections { (section_of(section, sections.len() > 1)) } }
                footer { p { "Made by candle-optim. Figures are drawn by Apache ECharts." } }
                script id="data" type="application/json" { (PreEscaped(data)) }
                script { (PreEscaped(echarts)) }
                script { (PreEscaped(PAGE)) }
            }
        }
    };
    Ok(page.into_string().into_bytes())
}

/// A title without invisible characters, at most a line or two long.
fn shown_title(title: &str) -> String {
    const LONGEST: usize = 120;
    let visible = visible(title);
    if visible.chars().count() <= LONGEST { visible } else { visible.chars().take(LONGEST).chain(['…']).collect() }
}

fn section_of(section: &Section, is_named: bool) -> Markup {
    let Section { id, title, answer, commands, optimizers, results, tables, figures, facts } = section;
    html! {
        section id=(id) {
            // On a page of one section, the title is already the heading.
            h2 { @if is_named { (shown_title(title)) } @else { "Result" } }
            div.answer { @for paragraph in answer { p { (visible(paragraph)) } } }
            (table("Results", results))
            @for (name, numbers) in tables { (table(name, numbers)) }
            @for (name, command) in commands {
                div.command {
                    p { (name) ":" }
                    pre tabindex="0" role="region" aria-label=(name) { code { (visible(command)) } }
                }
            }
            noscript { p { "The figures need JavaScript. The tables below them hold the numbers." } }
            @if optimizers.len() > 1 {
                div.legend role="group" aria-label="Optimizers in the figures" {
                    @for (number, optimizer) in optimizers.iter().enumerate() {
                        button type="button" aria-pressed="true" data-optimizer=(number) {
                            svg width="34" height="12" aria-hidden="true" {}
                            span { (optimizer.name) }
                        }
                    }
                    button.all type="button" { "All or none" }
                }
            }
            @for figure in figures { (figure_of(id, figure, optimizers)) }
            @if !facts.is_empty() {
                details.facts {
                    summary { "Configuration and versions" }
                    div.scroll tabindex="0" role="region" aria-label="Configuration and versions" {
                        table {
                            thead { tr { th scope="col" { "Key" } th scope="col" { "Value" } } }
                            tbody { @for (key, value) in facts { tr { th scope="row" { (key) } td { (value) } } } }
                        }
                    }
                }
            }
        }
    }
}

fn figure_of(section: &str, figure: &Figure, optimizers: &[Optimizer]) -> Markup {
    let id = format!("{section}-{}", figure.id);
    let is_map = figure.panels.iter().any(|panel| panel.map.is_some());
    html! {
        figure id=(id) data-section=(section) data-figure=(figure.id) {
            h3 { (figure.title) }
            div.controls {
                @if figure.panels.iter().any(Panel::can_be_log) {
                    label { input type="checkbox" data-log; " logarithmic" }
                }
                @if figure.frames.len() > 1 {
                    label.slider {
                        "Epoch "
                        input type="range" data-frame min="0" max=(figure.frames.len() - 1) value=(figure.frames.len() - 1)
                            aria-label={ (figure.title) ", epoch" };
                        output { (figure.frames[figure.frames.len() - 1]) }
                    }
                }
                button type="button" data-download { "Data (CSV)" }
                @if let Some(picture) = &figure.picture {
                    span.pictures {
                        "Picture: "
                        a href={ (picture) ".svg" } { "SVG" span.hidden { " of " (figure.title) } } ", "
                        a href={ (picture) ".png" } { "PNG" span.hidden { " of " (figure.title) } }
                    }
                }
            }
            @if let Some(map) = figure.panels.iter().find_map(|panel| panel.map.as_ref()) {
                @if !map.classes.is_empty() {
                    ul.classes aria-label="Classes" {
                        @for (at, class) in map.classes.iter().enumerate().take(15) {
                            li { i data-class=(at) {} (class) }
                        }
                    }
                }
            }
            div.panels.maps[is_map] {
                @for (number, panel) in figure.panels.iter().enumerate() {
                    div.panel data-panel=(number) {
                        h4 { (panel.title) }
                        div.chart role="img" aria-label=(panel.alt) {}
                    }
                }
            }
            @if !figure.note.is_empty() { figcaption { (figure.note) } }
            @for (name, numbers) in &figure.tables {
                details {
                    summary { "Table: " (name) }
                    (table(name, numbers))
                }
            }
            @for panel in &figure.panels {
                @let numbers = panel.table(optimizers);
                @if !numbers.rows.is_empty() {
                    details {
                        summary { "Table: " (panel.title) }
                        (table(&panel.title, &numbers))
                    }
                }
            }
        }
    }
}

fn table(name: &str, Table { header, rows }: &Table) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label=(name) {
            table {
                caption { (name) }
                thead { tr { @for name in header { th scope="col" { (name) } } } }
                tbody {
                    @for row in rows {
                        tr {
                            @for (at, cell) in row.iter().enumerate() {
                                @if at == 0 { th scope="row" { (cell) } } @else { td { (cell) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
