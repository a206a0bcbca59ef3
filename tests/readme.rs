//! The README's table of optimizers is that of the registry.

mod common;

use candle_optim::rules::REGISTRY;
use common::path;

#[test]
fn the_table_of_optimizers_is_the_registry() {
    let readme = std::fs::read_to_string(path("README.md")).unwrap();
    let rows: Vec<&str> =
        readme.lines().skip_while(|line| *line != "## The optimizers").filter(|line| line.starts_with("| `")).collect();
    let expected: Vec<String> = REGISTRY
        .iter()
        .map(|entry| {
            let params = (entry.defaults)();
            let keys = params.fields().iter().filter(|field| field.key != "lr").map(|field| format!("`{}`", field.key));
            let cells = [
                format!("`{}`", entry.name),
                format!("{} ({})", entry.summary, entry.source),
                keys.collect::<Vec<_>>().join(", "),
            ];
            cells.iter().filter(|cell| !cell.is_empty()).fold("|".to_owned(), |row, cell| format!("{row} {cell} |"))
        })
        .collect();
    assert_eq!(rows.len(), expected.len(), "rows of the table");
    for (row, expected) in rows.iter().zip(&expected) {
        assert!(row.starts_with(expected), "the README has\n{row}\nwhere the registry has\n{expected}");
    }
}
