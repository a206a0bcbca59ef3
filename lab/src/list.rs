//! Every optimizer and every test function, as text.

use std::fmt::Write;

use candle_optim::Registry;

use super::minimize::FUNCTIONS;

/// What `list` prints.
pub fn text(registry: &Registry) -> String {
    let mut text = String::from("Optimizers: NAME[:KEY=VALUE[,KEY=VALUE]...]\n");
    let width = registry.all().flat_map(|algorithm| algorithm.keys()).map(|key| key.len()).max().unwrap_or_default();
    for algorithm in registry.all() {
        let _ = write!(text, "\n{}\n  {}; {}", algorithm.name(), algorithm.summary(), algorithm.source());
        let reference = algorithm.reference();
        text += &if reference.is_empty() { "\n".to_owned() } else { format!("; compared with {reference}\n") };
        for field in algorithm.fields() {
            let (key, default, doc) = (field.key, field.value.text(), field.doc.trim_end_matches('.'));
            let _ = writeln!(text, "    {key:<width$} {default:<8} {doc}; {}", field.allowed());
        }
        if algorithm.runs().is_some() {
            let base = registry.names().next().unwrap_or_default();
            let _ =
                writeln!(text, "    {:<width$} {base:<8} The optimizer that it wraps; base_KEY sets its keys", "base");
        }
    }
    text += "\nEvery optimizer takes maximize=true. Where a spec sets no lr, --lr of `train` and `minimize` does; without it, the\n\
             chapter's optimizers and Candle's take 0.01 in `train` and 0.1 in `minimize`.\n\n\
             Functions: minimize --function NAME\n\n";
    for function in FUNCTIONS {
        let start: Vec<String> = function.start.iter().map(f64::to_string).collect();
        let _ = writeln!(text, "{:<11} {}; from {}", function.name, function.formula, start.join(","));
    }
    text.trim_end().to_owned()
}
