//! The README's table of optimizers is that of the registry.

mod common;

use candle_optim::Registry;
use common::path;

#[test]
fn the_table_of_optimizers_is_the_registry() {
    let readme = std::fs::read_to_string(path("README.md")).unwrap();
    let section = readme.lines().skip_while(|line| *line != "## The optimizers").skip(1);
    let rows = section.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with('|'));
    let expected = Registry::default().markdown();
    for (row, expected) in rows.clone().zip(expected.lines()) {
        assert_eq!(row, expected, "the README has the first where the registry has the second");
    }
    assert_eq!(rows.count(), expected.lines().count(), "rows of the table");
}
