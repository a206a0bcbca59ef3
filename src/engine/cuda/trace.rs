//! A number that records the operations on it. A rule that computes with such numbers prints its own source.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::real::Real;
use crate::rule::{Fields, Parts, Rule};

/// A number of the function that is being recorded on this thread, by its position in the record.
#[derive(Clone, Copy, PartialEq)]
struct Sym(usize);

#[derive(Clone)]
enum Node {
    Input(String),
    Literal(f64),
    Negated(Sym),
    /// A function of `kernel/numbers.cu`.
    Call(&'static str, Vec<Sym>),
    /// With its sign, `+`, `-`, `*` or `/`.
    Binary(char, Sym, Sym),
}

#[derive(Default)]
struct Record {
    nodes: Vec<Node>,
    /// The names that the rule gave.
    named: Vec<(Sym, &'static str)>,
}

thread_local! {
    static RECORD: RefCell<Record> = RefCell::default();
}

fn record(node: Node) -> Sym {
    RECORD.with_borrow_mut(|Record { nodes, .. }| {
        nodes.push(node);
        Sym(nodes.len() - 1)
    })
}

fn input(name: &str) -> Sym {
    record(Node::Input(name.into()))
}

macro_rules! operator {
    ($($name:ident $method:ident $sign:literal;)*) => {$(
        impl $name for Sym {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                record(Node::Binary($sign, self, other))
            }
        }
    )*};
}
operator! { Add add '+'; Sub sub '-'; Mul mul '*'; Div div '/'; }

impl Neg for Sym {
    type Output = Self;
    fn neg(self) -> Self {
        record(Node::Negated(self))
    }
}

impl Real for Sym {
    fn lit(x: f64) -> Self {
        record(Node::Literal(x))
    }
    fn sqrt(self) -> Self {
        record(Node::Call("root", vec![self]))
    }
    fn cbrt(self) -> Self {
        record(Node::Call("cube_root", vec![self]))
    }
    fn abs(self) -> Self {
        record(Node::Call("magnitude", vec![self]))
    }
    fn sign(self) -> Self {
        record(Node::Call("sign", vec![self]))
    }
    fn max(self, other: Self) -> Self {
        record(Node::Call("larger", vec![self, other]))
    }
    fn min(self, other: Self) -> Self {
        record(Node::Call("smaller", vec![self, other]))
    }
    fn if_positive(self, yes: Self, no: Self) -> Self {
        record(Node::Call("if_positive", vec![self, yes, no]))
    }
    fn named(self, name: &'static str) -> Self {
        RECORD.with_borrow_mut(|Record { named, .. }| named.push((self, name)));
        self
    }
}

/// Which function of a rule.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Part {
    Init,
    MeasureGroup,
    Measure,
    Update,
}

/// A function of a rule as straight-line code in C, over the types and functions of `kernel/numbers.cu`.
pub(super) struct Traced {
    /// Statements, one per line, from `p`, `g`, the state, the scalars and the sums, by name.
    pub(super) body: Vec<String>,
    /// The inputs that it reads.
    pub(super) reads: Vec<String>,
}

/// Records one function of a rule with the flags of `k`.
pub(super) fn trace<K: Rule<f64>>(k: &K, part: Part) -> Traced {
    RECORD.take();
    let k: K::At<Sym> = k.map(|name, _| input(name));
    let (p, g, names) = (input("p"), input("g"), k.state_names());
    let grad = if part == Part::Init { g } else { (g * input("grad_scale")).named("grad") };
    let before: Vec<Sym> = names.iter().map(|name| input(name)).collect();
    let s = k.load(|i| before[i]);
    // What is set: its name, where it goes, and its value.
    let mut results: Vec<(String, String, Sym)> = vec![];
    match part {
        Part::Init | Part::Update => {
            let mut s = s;
            let next = if part == Part::Init {
                k.init(p, &mut s);
                p
            } else {
                k.update(p, grad, &mut s)
            };
            k.store(s, |i, x| results.push((format!("next_{}", names[i]), format!("state[{i}]"), x)));
            // Before the first step, unchanged state is not set.
            results.retain(|(_, _, x)| !before.contains(x) || part == Part::Update);
            if part == Part::Update {
                results.push(("next_p".into(), "p".into(), next));
            }
        }
        Part::MeasureGroup => {
            let terms = <<K::At<Sym> as Parts<Sym>>::Totals as Fields<Sym>>::NAMES;
            let set = |i: usize, x| results.push((format!("term_{}", terms[i]), format!("terms[{i}]"), x));
            k.measure_group(p, grad, s).each(set);
        }
        Part::Measure => {
            let terms = <<K::At<Sym> as Parts<Sym>>::Norms as Fields<Sym>>::NAMES;
            let set = |i: usize, x| results.push((format!("term_{}", terms[i]), format!("terms[{i}]"), x));
            k.measure(p, grad, s).each(set);
        }
    }
    print(&results)
}

fn print(results: &[(String, String, Sym)]) -> Traced {
    let Record { nodes, named } = RECORD.take();
    let mut printer = Printer { names: vec![None; nodes.len()], nodes };
    for (name, _, x) in results {
        printer.name(*x, name.clone());
    }
    for (x, name) in named {
        printer.name(x, name.into());
    }
    let uses = printer.count_uses(results.iter().map(|(_, _, x)| *x));
    printer.name_shared(&uses);
    let mut body = vec![];
    printer.statements(&mut body);
    for (_, to, x) in results {
        body.push(format!("{to} = {};", printer.operand(*x, 0)));
    }
    let read = |(node, uses): (&Node, &usize)| match node {
        Node::Input(name) if *uses > 0 => Some(name.clone()),
        _ => None,
    };
    Traced { body, reads: printer.nodes.iter().zip(&uses).filter_map(read).collect() }
}

struct Printer {
    nodes: Vec<Node>,
    /// The names of the numbers that get their own statement.
    names: Vec<Option<String>>,
}

impl Printer {
    fn is_plain(&self, at: usize) -> bool {
        matches!(self.nodes[at], Node::Input(_) | Node::Literal(_))
    }

    /// Names a number, unless it is an input or has a name. A name that is taken gets a numeric suffix.
    fn name(&mut self, Sym(at): Sym, name: String) {
        if self.is_plain(at) || self.names[at].is_some() {
            return;
        }
        let alike = |other: &&String| other.split_once("__").map_or(other.as_str(), |(stem, _)| stem) == name;
        let same = self.names.iter().flatten().filter(alike).count();
        self.names[at] = Some(if same == 0 { name } else { format!("{name}__{}", same + 1) });
    }

    /// How often each number is used. Names of unused numbers are dropped.
    fn count_uses(&mut self, results: impl Iterator<Item = Sym>) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for Sym(at) in results {
            uses[at] += 1;
        }
        for at in (0..self.nodes.len()).rev() {
            if uses[at] > 0 {
                for Sym(operand) in operands(&self.nodes[at]) {
                    uses[operand] += 1;
                }
            } else {
                self.names[at] = None;
            }
        }
        uses
    }

    /// Names the numbers that are used more than once, so that none is computed twice.
    fn name_shared(&mut self, uses: &[usize]) {
        let mut shared = 0;
        for (at, &uses) in uses.iter().enumerate() {
            if uses > 1 && !self.is_plain(at) && self.names[at].is_none() {
                shared += 1;
                self.names[at] = Some(format!("shared_{shared}"));
            }
        }
    }

    fn statements(&self, body: &mut Vec<String>) {
        for (at, name) in self.names.iter().enumerate() {
            if let Some(name) = name {
                body.push(format!("const Real {name} = {};", self.expression(at, 0)));
            }
        }
    }

    /// A number where it is used, in parentheses if it binds less than `binding`.
    fn operand(&self, Sym(at): Sym, binding: u8) -> String {
        self.names[at].clone().unwrap_or_else(|| self.expression(at, binding))
    }

    fn expression(&self, at: usize, binding: u8) -> String {
        const SUM: u8 = 1;
        const PRODUCT: u8 = 2;
        const SIGN: u8 = 3;
        let (own, text) = match &self.nodes[at] {
            Node::Input(name) => return name.clone(),
            Node::Literal(x) => return format!("Real({x:?})"),
            Node::Call(function, of) => {
                let list: Vec<_> = of.iter().map(|x| self.operand(*x, 0)).collect();
                return format!("{function}({})", list.join(", "));
            }
            Node::Negated(x) => (SIGN, format!("-{}", self.operand(*x, SIGN + 1))),
            Node::Binary(sign, x, y) => {
                let own = if "+-".contains(*sign) { SUM } else { PRODUCT };
                // The right side binds tighter: a + (b + c) is not rounded as a + b + c is.
                (own, format!("{} {sign} {}", self.operand(*x, own), self.operand(*y, own + 1)))
            }
        };
        if own < binding { format!("({text})") } else { text }
    }
}

fn operands(node: &Node) -> Vec<Sym> {
    match node {
        Node::Input(_) | Node::Literal(_) => vec![],
        Node::Negated(x) => vec![*x],
        Node::Call(_, of) => of.clone(),
        Node::Binary(_, x, y) => vec![*x, *y],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule;
    use crate::rule::Zero;

    rule! {
        struct Nested { k, l2 }
        flags { decays }
        state Two { s, kept }
    }

    impl<R: Real> Rule<R> for Nested<R> {
        fn init(&self, p: R, s: &mut Two<R>) {
            s.kept = p;
        }
        fn update(&self, p: R, mut g: R, s: &mut Two<R>) -> R {
            if self.decays {
                g = g + self.l2 * p;
            }
            let d = g * self.k;
            let _unused = d * d;
            let next = p - (s.s - d) / (d * (p / self.k));
            s.s = R::lit(2.) + -(s.s + d).sqrt().max(d).if_positive(d, s.kept);
            next
        }
    }

    #[test]
    fn what_is_recorded_keeps_its_grouping_and_is_computed_once() {
        let traced = trace(&Nested { decays: true, ..Nested::ZERO }, Part::Update);
        let expected = [
            "const Real grad = g * grad_scale;",
            "const Real shared_1 = (grad + l2 * p) * k;",
            "const Real next_p = p - (s - shared_1) / (shared_1 * (p / k));",
            "const Real next_s = Real(2.0) + -if_positive(larger(root(s + shared_1), shared_1), shared_1, kept);",
            "state[0] = next_s;",
            "state[1] = kept;",
            "p = next_p;",
        ];
        assert_eq!(traced.body, expected);
        assert_eq!(traced.reads, ["k", "l2", "p", "g", "grad_scale", "s", "kept"]);
        let traced = trace(&Nested::ZERO, Part::Update);
        assert_eq!(traced.body[1], "const Real shared_1 = grad * k;");
        assert!(!traced.reads.contains(&"l2".into()));
    }

    #[test]
    fn only_the_state_that_init_sets_is_set() {
        assert_eq!(trace(&Nested::ZERO, Part::Init).body, ["state[1] = p;"]);
    }
}
