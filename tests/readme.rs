//! The tables of optimizers in the README and in docs/ are those of the registry.

mod common;

use candle_optim::Registry;
use common::path;

/// The rows of the table below a heading.
fn check(page: &str, heading: &str, expected: &str) {
    let text = std::fs::read_to_string(path(page)).unwrap();
    let section = text.lines().skip_while(|line| *line != heading).skip(1);
    let rows = section.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
    for (row, expected) in rows.clone().zip(expected.lines()) {
        assert_eq!(row, expected, "{page} has the first where the registry has the second");
    }
    assert_eq!(rows.count(), expected.lines().count(), "rows of the table of {page}");
}

#[test]
fn the_tables_of_optimizers_are_the_registry() {
    check("README.md", "## The optimizers", &Registry::default().overview());
    check("docs/optimizers.md", "## Keys", &Registry::default().markdown());
}
