//! The advisor against another's solver: random splits as conic programmes, by an interior-point method that shares nothing with ours.

use super::{
    concave::{Span, fill},
    curve::Curve,
    grid::Choice,
    hierarchy::{Group, split_levels},
};
use clarabel::{
    algebra::CscMatrix,
    solver::{
        DefaultSettings, DefaultSolver, IPSolver, SolverStatus,
        SupportedConeT::{self, ExponentialConeT, NonnegativeConeT, PowerConeT, SecondOrderConeT, ZeroConeT},
    },
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How many random splits are compared, unless the variable says otherwise.
const SPLITS: u32 = 60;
const SPLITS_VARIABLE: &str = "KOC_ADVISOR_SPLITS";

/// `b − A·v` in a cone, a row at a time; the unknowns are the amounts and, after them, what each brings at most.
#[derive(Default)]
struct Programme {
    entries: Vec<(usize, usize, f64)>,
    constant: Vec<f64>,
    cones: Vec<SupportedConeT<f64>>,
}

impl Programme {
    /// A row that stands for constant + Σ factor · unknown.
    fn row(&mut self, constant: f64, factors: &[(usize, f64)]) {
        let row = self.constant.len();
        self.entries.extend(factors.iter().map(|(column, factor)| (row, *column, -factor)));
        self.constant.push(constant);
    }

    /// Unknown `t` is at most what unknown `x` brings.
    fn below(&mut self, curve: &Curve, x: usize, t: usize) {
        match *curve {
            Curve::Logarithmic { a, b } => {
                self.row(0.0, &[(t, 1.0 / a)]);
                self.row(1.0, &[]);
                self.row(1.0, &[(x, 1.0 / b)]);
                self.cones.push(ExponentialConeT());
            }
            Curve::Exponential { a, b } => {
                self.row(0.0, &[(x, -1.0 / b)]);
                self.row(1.0, &[]);
                self.row(1.0, &[(t, -1.0 / a)]);
                self.cones.push(ExponentialConeT());
            }
            // (1 − t/a)(1 + x/b) ≥ 1.
            Curve::MichaelisMenten { a, b } => {
                self.row(2.0, &[(t, -1.0 / a), (x, 1.0 / b)]);
                self.row(0.0, &[(t, -1.0 / a), (x, -1.0 / b)]);
                self.row(2.0, &[]);
                self.cones.push(SecondOrderConeT(3));
            }
            // (t/a + √b)² ≤ x + b.
            Curve::SquareRoot { a, b } => {
                self.row(b + 1.0, &[(x, 1.0)]);
                self.row(b - 1.0, &[(x, 1.0)]);
                self.row(2.0 * b.sqrt(), &[(t, 2.0 / a)]);
                self.cones.push(SecondOrderConeT(3));
            }
            Curve::Power { theta, g } => {
                self.row(0.0, &[(x, 1.0)]);
                self.row(1.0, &[]);
                self.row(0.0, &[(t, 1.0 / theta)]);
                self.cones.push(PowerConeT(g));
            }
            Curve::Hill { .. } | Curve::Menu(_) | Curve::Unknown => panic!("not concave"),
        }
    }

    /// The amounts of the best split; None when the solver gives up on its numbers.
    fn solve(mut self, n: usize) -> Option<Vec<f64>> {
        // By column, as the solver stores a matrix.
        self.entries.sort_by_key(|(row, column, _)| (*column, *row));
        let mut starts = vec![0; 2 * n + 1];
        self.entries.iter().for_each(|(_, column, _)| starts[column + 1] += 1);
        (0..2 * n).for_each(|column| starts[column + 1] += starts[column]);
        let rows = self.entries.iter().map(|(row, ..)| *row).collect();
        let factors = self.entries.iter().map(|(.., factor)| *factor).collect();
        let matrix = CscMatrix::new(self.constant.len(), 2 * n, starts, rows, factors);
        let goal: Vec<f64> = (0..2 * n).map(|column| if column < n { 0.0 } else { -1.0 }).collect();
        let settings =
            DefaultSettings { verbose: false, tol_gap_abs: 1e-9, tol_gap_rel: 1e-9, tol_feas: 1e-9, ..Default::default() };
        let quadratic = CscMatrix::<f64>::zeros((2 * n, 2 * n));
        let mut solver = DefaultSolver::new(&quadratic, &goal, &matrix, &self.constant, &self.cones, settings)
            .expect("a well-formed programme");
        solver.solve();
        let solved = matches!(solver.solution.status, SolverStatus::Solved | SolverStatus::AlmostSolved);
        solved.then(|| solver.solution.x[..n].to_vec())
    }
}

/// `groups` are members with the least and the most that they get together.
fn by_conic_solver(spans: &[Span], groups: &[Group], budget: f64) -> Option<Vec<f64>> {
    let n = spans.len();
    let mut programme = Programme::default();
    programme.row(budget, &(0..n).map(|x| (x, -1.0)).collect::<Vec<_>>());
    programme.cones.push(ZeroConeT(1));
    for (x, span) in spans.iter().enumerate() {
        programme.row(-span.low, &[(x, 1.0)]);
        programme.row(span.high, &[(x, -1.0)]);
    }
    for group in groups {
        let sum = |sign: f64| group.members.iter().map(|x| (*x, sign)).collect::<Vec<_>>();
        programme.row(-group.low, &sum(1.0));
        programme.row(group.high, &sum(-1.0));
    }
    programme.cones.push(NonnegativeConeT(2 * (n + groups.len())));
    for (x, span) in spans.iter().enumerate() {
        programme.below(span.curve, x, n + x);
    }
    programme.solve(n)
}

fn random_curve(random: &mut ChaCha8Rng) -> Curve {
    let (a, b) = (random.random_range(2.0..60.0), random.random_range(1.0..40.0));
    match random.random_range(0..5) {
        0 => Curve::Logarithmic { a, b },
        1 => Curve::Exponential { a, b },
        2 => Curve::MichaelisMenten { a, b },
        3 => Curve::SquareRoot { a, b },
        _ => Curve::Power { theta: a, g: random.random_range(0.2..0.9) },
    }
}

/// A random question: what its items bring within which bounds, and a budget that is between all of these.
fn random_split(random: &mut ChaCha8Rng) -> (Vec<(Curve, f64, f64)>, f64) {
    let item = |random: &mut ChaCha8Rng| {
        let curve = random_curve(random);
        let low = if random.random_bool(0.5) { random.random_range(0.0..5.0) } else { 0.0 };
        (curve, low, low + random.random_range(5.0..50.0))
    };
    let items: Vec<(Curve, f64, f64)> = (0..random.random_range(3..=25)).map(|_| item(random)).collect();
    let (low, high): (f64, f64) = (items.iter().map(|s| s.1).sum(), items.iter().map(|s| s.2).sum());
    let budget = low + (high - low) * random.random_range(0.05..0.95);
    (items, budget)
}

/// Compares so many random splits with what the other solver finds; `ours` also says which groups there are.
fn compare(seed: u64, ours: impl Fn(&[Span], f64, &mut ChaCha8Rng) -> (Vec<f64>, Vec<Group>)) {
    let splits = std::env::var(SPLITS_VARIABLE).ok().and_then(|n| n.parse().ok()).unwrap_or(SPLITS);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut given_up = 0;
    for nr in 0..splits {
        let (items, budget) = random_split(&mut random);
        let spans: Vec<Span> = items.iter().map(|(curve, low, high)| Span { curve, low: *low, high: *high }).collect();
        let (amounts, groups) = ours(&spans, budget, &mut random);
        let Some(theirs) = by_conic_solver(&spans, &groups, budget) else {
            given_up += 1;
            continue;
        };
        let worth = |amounts: &[f64]| -> f64 { spans.iter().zip(amounts).map(|(s, x)| s.curve.value(*x)).sum() };
        let (mine, other) = (worth(&amounts), worth(&theirs));
        let gap = (other - mine) / mine;
        assert!(gap.abs() <= 1e-6, "split {nr}: ours brings {mine}, theirs {other}: {gap:e}");
        let sum: f64 = amounts.iter().sum();
        assert!((sum - budget).abs() <= 1e-9 * budget, "split {nr} uses {sum} of {budget}");
        for group in &groups {
            let sum: f64 = group.members.iter().map(|i| amounts[*i]).sum();
            assert!(sum >= group.low - 1e-9 * budget && sum <= group.high + 1e-9 * budget, "split {nr} breaks {group:?}");
        }
    }
    assert!(given_up * 100 <= splits, "the solver gave up on {given_up} of {splits}");
}

#[test]
fn a_conic_solver_finds_no_better_split() {
    compare(20_260_101, |spans, budget, _| (fill(spans, budget, 0.0).amounts, Vec::new()));
}

#[test]
fn a_conic_solver_finds_no_better_split_among_groups_with_bounds() {
    compare(20_260_202, |spans, budget, random| {
        let choices: Vec<Choice> =
            spans.iter().map(|s| Choice { curve: s.curve, low: s.low, high: s.high, ticket: 0.0 }).collect();
        // What some split of the whole gives each group lies within its bounds, so that there is an answer.
        let (lows, highs): (f64, f64) = (spans.iter().map(|s| s.low).sum(), spans.iter().map(|s| s.high).sum());
        let part = (budget - lows) / (highs - lows);
        let group = |members: Vec<usize>, random: &mut ChaCha8Rng| {
            let sum = |of: fn(&Span) -> f64| members.iter().map(|i| of(&spans[*i])).sum::<f64>();
            let (least, most) = (sum(|s| s.low), sum(|s| s.high));
            let some = least + (most - least) * part;
            let low = least + (some - least) * random.random_range(0.5..1.0);
            Group { low, high: some + (most - some) * random.random_range(0.0..0.5), members }
        };
        let third = spans.len() / 3;
        let groups = vec![group((0..third).collect(), random), group((third..2 * third).collect(), random)];
        let found = split_levels(&choices, &groups, budget, 0.0, &|| false).expect("not stopped");
        // The bound is a proof: with concave curves it is met.
        assert!((found.split.bound - found.split.objective) / found.split.objective < 1e-9, "{:?}", found.split);
        (found.split.amounts, groups)
    });
}
