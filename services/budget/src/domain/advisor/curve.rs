//! Response curves: what an amount is expected to bring. A curve does not know its unit: amounts and values share one.

/// How often an inverse without a closed form is halved: beyond the digits of a double.
const HALVINGS: u32 = 80;

/// How value answers to money. All but the last three are concave and rise everywhere.
#[derive(Debug, Clone, PartialEq)]
pub enum Curve {
    /// a · ln(1 + x/b).
    Logarithmic { a: f64, b: f64 },
    /// a · (1 − e^(−x/b)).
    Exponential { a: f64, b: f64 },
    /// a · x/(x + b).
    MichaelisMenten { a: f64, b: f64 },
    /// a · (√(x + b) − √b).
    SquareRoot { a: f64, b: f64 },
    /// theta · x^g, 0 < g < 1.
    Power { theta: f64, g: f64 },
    /// a · x^s/(x^s + b^s), s > 1: convex up to a point of inflection, concave beyond.
    Hill { a: f64, b: f64, s: f64 },
    /// One of these or none.
    Menu(Vec<Lot>),
    /// Nothing that is known: money kept for what may come.
    Unknown,
}

/// What is bought as a whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lot {
    pub cost: f64,
    pub value: f64,
}

impl Curve {
    /// The same curve over amounts and values in a unit of which `per_unit` make one of the old.
    #[must_use]
    pub fn rescaled(self, per_unit: f64) -> Self {
        let k = per_unit;
        match self {
            Self::Logarithmic { a, b } => Self::Logarithmic { a: a * k, b: b * k },
            Self::Exponential { a, b } => Self::Exponential { a: a * k, b: b * k },
            Self::MichaelisMenten { a, b } => Self::MichaelisMenten { a: a * k, b: b * k },
            Self::SquareRoot { a, b } => Self::SquareRoot { a: a * k.sqrt(), b: b * k },
            Self::Power { theta, g } => Self::Power { theta: theta * k.powf(1.0 - g), g },
            Self::Hill { a, b, s } => Self::Hill { a: a * k, b: b * k, s },
            Self::Menu(lots) => {
                Self::Menu(lots.into_iter().map(|lot| Lot { cost: lot.cost * k, value: lot.value * k }).collect())
            }
            Self::Unknown => Self::Unknown,
        }
    }

    /// What `x` brings; of lots what the best one of at most that cost does.
    #[must_use]
    pub fn value(&self, x: f64) -> f64 {
        match self {
            Self::Logarithmic { a, b } => a * (x / b).ln_1p(),
            Self::Exponential { a, b } => -a * (-x / b).exp_m1(),
            Self::MichaelisMenten { a, b } => a * x / (x + b),
            // √(x+b) − √b without its cancellation.
            Self::SquareRoot { a, b } => a * x / ((x + b).sqrt() + b.sqrt()),
            Self::Power { theta, g } => theta * x.powf(*g),
            Self::Hill { a, b, s } => {
                let r = (x / b).powf(*s);
                if r.is_finite() { a * r / (1.0 + r) } else { *a }
            }
            Self::Menu(lots) => lots.iter().filter(|lot| lot.cost <= x).map(|lot| lot.value).fold(0.0, f64::max),
            Self::Unknown => 0.0,
        }
    }

    /// What one more at `x` brings. Infinite for a power at zero; none where the curve is a step.
    #[must_use]
    pub fn slope(&self, x: f64) -> f64 {
        match self {
            Self::Logarithmic { a, b } => a / (x + b),
            Self::Exponential { a, b } => a / b * (-x / b).exp(),
            Self::MichaelisMenten { a, b } => a * (b / (x + b)) / (x + b),
            Self::SquareRoot { a, b } => a / (2.0 * (x + b).sqrt()),
            Self::Power { theta, g } => theta * g * x.powf(g - 1.0),
            Self::Hill { a, b, s } => {
                let r = x / b;
                let p = r.powf(*s);
                if p > 1e150 { 0.0 } else { a * s / b * r.powf(s - 1.0) / ((1.0 + p) * (1.0 + p)) }
            }
            Self::Menu(_) | Self::Unknown => 0.0,
        }
    }

    /// From where on it is concave; None for steps.
    #[must_use]
    pub fn concave_from(&self) -> Option<f64> {
        match self {
            Self::Hill { b, s, .. } => Some(b * ((s - 1.0) / (s + 1.0)).powf(1.0 / s)),
            Self::Menu(_) => None,
            _ => Some(0.0),
        }
    }

    /// The x within [low, high] with the greatest value − lambda · x, where the curve is concave between them.
    #[must_use]
    pub fn best(&self, lambda: f64, low: f64, high: f64) -> f64 {
        if lambda <= 0.0 {
            return high;
        }
        let x = match self {
            Self::Logarithmic { a, b } => a / lambda - b,
            Self::Exponential { a, b } => b * (a / b / lambda).ln(),
            Self::MichaelisMenten { a, b } => (a * b / lambda).sqrt() - b,
            Self::SquareRoot { a, b } => (a / (2.0 * lambda)).powi(2) - b,
            Self::Power { theta, g } => (theta * g / lambda).powf(1.0 / (1.0 - g)),
            Self::Hill { .. } => return self.halve(lambda, low, high),
            Self::Menu(_) | Self::Unknown => low,
        };
        // In this order what is not a number becomes `low`, and no bound can make it panic.
        x.max(low).min(high)
    }

    /// Where the slope falls to lambda within [low, high].
    fn halve(&self, lambda: f64, low: f64, high: f64) -> f64 {
        if self.slope(low) <= lambda {
            return low;
        }
        if self.slope(high) >= lambda {
            return high;
        }
        let (mut low, mut high) = (low, high);
        for _ in 0..HALVINGS {
            let middle = 0.5 * (low + high);
            if self.slope(middle) > lambda {
                low = middle;
            } else {
                high = middle;
            }
        }
        0.5 * (low + high)
    }
}
