//! A number that records what is done to it: run on it, a rule prints its own source.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

use crate::real::Real;
use crate::rule::{Decay, Rule};

/// A number of the function that is being recorded on this thread, by its place in the record.
#[derive(Clone, Copy)]
struct Sym(usize);

#[derive(Clone)]
enum Node {
    Input(String),
    Literal(f64),
    Negated(Sym),
    Sqrt(Sym),
    Max(Sym, Sym),
    /// With its sign, `+`, `-`, `*` or `/`.
    Binary(char, Sym, Sym),
}

thread_local! {
    static RECORD: RefCell<Vec<Node>> = const { RefCell::new(vec![]) };
}

fn record(node: Node) -> Sym {
    RECORD.with_borrow_mut(|nodes| {
        nodes.push(node);
        Sym(nodes.len() - 1)
    })
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
        record(Node::Sqrt(self))
    }

    fn max(self, other: Self) -> Self {
        record(Node::Max(self, other))
    }
}

/// An update as straight-line code in C, over the types and functions of `kernel/numbers.cu`.
pub(crate) struct Traced {
    /// Names of the state tensors.
    pub(crate) state: &'static [&'static str],
    /// Names of the scalars: what the engine adds, then the rule's.
    pub(crate) scalars: Vec<&'static str>,
    /// Statements, a line each, from `p`, `g`, the state and the scalars, by name, to the next `p` and `state`.
    pub(crate) body: Vec<String>,
}

/// Records one step of the rule `T` with the kind of decay of `decay`.
pub(in crate::fused) fn trace<T: Rule<S, K>, const S: usize, const K: usize>(decay: Decay) -> Traced {
    RECORD.with_borrow_mut(Vec::clear);
    let input = |name: &str| record(Node::Input(name.into()));
    let (p, g, grad_scale) = (input("p"), input("g"), input("grad_scale"));
    let mut scalars = vec!["grad_scale"];
    let decay = decay.map(|_| {
        let name = if matches!(decay, Decay::L2(_)) { "weight_decay" } else { "keep" };
        scalars.push(name);
        input(name)
    });
    let state = T::STATE.map(input);
    let (decayed_p, decayed_g) = decay.apply(p, g * grad_scale);
    let (next_p, next) = T::update(decayed_p, decayed_g, state, T::SCALARS.map(input));
    scalars.extend(T::SCALARS);

    let nodes = RECORD.take();
    let mut printer = Printer { names: vec![None; nodes.len()], nodes };
    let mut body = vec![];
    for (name, &result) in T::STATE.iter().chain(&["p"]).zip(next.iter().chain(&[next_p])) {
        printer.name(result, format!("next_{name}"));
    }
    printer.name(decayed_p, "decayed_p".into());
    printer.name(decayed_g, "grad".into());
    printer.name_shared(next.into_iter().chain([next_p]));
    printer.statements(&mut body);
    for (i, result) in next.into_iter().enumerate() {
        body.push(format!("state[{i}] = {};", printer.operand(result, 0)));
    }
    body.push(format!("p = {};", printer.operand(next_p, 0)));
    Traced { state: const { &T::STATE }, scalars, body }
}

struct Printer {
    nodes: Vec<Node>,
    /// Of the numbers that are worth a statement of their own.
    names: Vec<Option<String>>,
}

impl Printer {
    /// Names a number, unless it is an input or has a name.
    fn name(&mut self, Sym(at): Sym, name: String) {
        if !matches!(self.nodes[at], Node::Input(_)) {
            self.names[at].get_or_insert(name);
        }
    }

    /// Names the numbers that are used more than once, so that none is computed twice, and forgets unused ones.
    fn name_shared(&mut self, results: impl Iterator<Item = Sym>) {
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
        let mut shared = 0;
        for (at, &uses) in uses.iter().enumerate() {
            let plain = matches!(self.nodes[at], Node::Input(_) | Node::Literal(_));
            if uses > 1 && !plain && self.names[at].is_none() {
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
            Node::Sqrt(x) => return format!("root({})", self.operand(*x, 0)),
            Node::Max(x, y) => return format!("larger({}, {})", self.operand(*x, 0), self.operand(*y, 0)),
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
    match *node {
        Node::Input(_) | Node::Literal(_) => vec![],
        Node::Negated(x) | Node::Sqrt(x) => vec![x],
        Node::Max(x, y) | Node::Binary(_, x, y) => vec![x, y],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nested;

    impl Rule<2, 1> for Nested {
        const STATE: [&'static str; 2] = ["s", "kept"];
        const SCALARS: [&'static str; 1] = ["k"];

        fn update<R: Real>(p: R, g: R, [s, kept]: [R; 2], [k]: [R; 1]) -> (R, [R; 2]) {
            let d = g * k;
            let _unused = d * d;
            (p - (s - d) / (d * (p / k)), [R::lit(2.) + -(s + d).sqrt().max(d), kept])
        }
    }

    #[test]
    fn what_is_recorded_keeps_its_grouping_and_is_computed_once() {
        let traced = trace::<Nested, 2, 1>(Decay::L2(0.1));
        assert_eq!(traced.scalars, ["grad_scale", "weight_decay", "k"]);
        let expected = [
            "const Real grad = g * grad_scale + weight_decay * p;",
            "const Real shared_1 = grad * k;",
            "const Real next_p = p - (s - shared_1) / (shared_1 * (p / k));",
            "const Real next_s = Real(2.0) + -larger(root(s + shared_1), shared_1);",
            "state[0] = next_s;",
            "state[1] = kept;",
            "p = next_p;",
        ];
        assert_eq!(traced.body, expected);
        let traced = trace::<Nested, 2, 1>(Decay::Decoupled(0.9));
        assert_eq!(traced.scalars, ["grad_scale", "keep", "k"]);
        assert_eq!(traced.body[..2], ["const Real grad = g * grad_scale;", "const Real decayed_p = p * keep;"]);
    }
}
