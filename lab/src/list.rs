//! Every optimizer and every test function, as text.

use std::fmt::Write;

use candle_optim::rules::REGISTRY;

use super::minimize::FUNCTIONS;

/// What `list` prints.
pub fn text() -> String {
    let mut text = String::from("Optimizers: NAME[:KEY=VALUE[,KEY=VALUE]...]\n");
    for entry in REGISTRY {
        let params = (entry.defaults)();
        let _ = write!(text, "\n{}\n  {}; {}\n", entry.name, entry.summary, entry.source);
        for field in params.fields() {
            let default = params.get(field.key).map_or_else(String::new, |value| value.to_string());
            let _ = writeln!(
                text,
                "    {:<13} {default:<7} {}; {}",
                field.key,
                field.doc.trim().trim_end_matches('.'),
                field.allowed
            );
        }
    }
    text +=
        "\n`train` and `minimize` use their --lr where a spec sets no lr.\n\nFunctions: minimize --function NAME\n\n";
    for function in FUNCTIONS {
        let start: Vec<String> = function.start.iter().map(f64::to_string).collect();
        let _ = writeln!(text, "{:<11} {}; from {}", function.name, function.formula, start.join(","));
    }
    text.trim_end().to_owned()
}
