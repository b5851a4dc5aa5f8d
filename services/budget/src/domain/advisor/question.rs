//! What advice is asked for: money, items, and the policies that bound a split.

use super::{VERSION, curve::Curve, grid::Choice, hierarchy};
use crate::domain::plan::ResourceClass;
use sha2::{Digest, Sha256};

/// Basis points in the whole.
const WHOLE_BP: i128 = 10_000;

/// What money may go to. Amounts are in minor units.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub class: Option<ResourceClass>,
    pub curve: Curve,
    pub lower: i64,
    pub upper: Option<i64>,
    pub current: Option<i64>,
    pub ticket: Option<i64>,
}

/// The reserve's share in basis points of the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReserveShare {
    pub min_bp: i32,
    pub max_bp: i32,
    /// That of a reserve without a curve.
    pub default_bp: i32,
}

impl Default for ReserveShare {
    fn default() -> Self {
        Self { min_bp: 500, max_bp: 1_500, default_bp: 1_000 }
    }
}

/// How far amounts may move from the current ones, in basis points of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeBounds {
    pub down_bp: i32,
    pub up_bp: i32,
}

impl Default for ChangeBounds {
    fn default() -> Self {
        Self { down_bp: 3_000, up_bp: 3_000 }
    }
}

/// Items that share bounds: a class of resources, or what stands below one envelope. Amounts are in minor units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Which items, by index; an item is in one group at most, and the reserve in none.
    pub members: Vec<usize>,
    pub lower: i64,
    pub upper: Option<i64>,
    /// Its share of the total in basis points.
    pub min_bp: Option<i32>,
    pub max_bp: Option<i32>,
}

/// A question whose rules hold: `total` is 1 to [`super::MAX_TOTAL_MINOR`], one item at most is of the reserve, curves' parameters are
/// finite and more than zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    pub total: i64,
    pub items: Vec<Item>,
    pub groups: Vec<Group>,
    pub share: ReserveShare,
    /// None: no change is bounded.
    pub change: Option<ChangeBounds>,
    /// The marginal value below which money stays unspent; zero for none.
    pub hurdle: f64,
}

text_enum! {
    /// What holds an amount.
    Bound {
        Lower = "LOWER",
        Upper = "UPPER",
        ChangeDown = "CHANGE_DOWN",
        ChangeUp = "CHANGE_UP",
        ReserveMin = "RESERVE_MIN",
        ReserveMax = "RESERVE_MAX",
        ReserveDefault = "RESERVE_DEFAULT",
        Indivisible = "INDIVISIBLE",
        ShareMin = "SHARE_MIN",
        ShareMax = "SHARE_MAX",
    }
}

text_enum! {
    /// A policy that bounds a split.
    Policy {
        ReserveShare = "RESERVE_SHARE",
        ChangeBounds = "CHANGE_BOUNDS",
        Hurdle = "HURDLE",
        Minima = "MINIMA",
        GroupBounds = "GROUP_BOUNDS",
    }
}

/// What an item or a group may get, and what says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub low: i64,
    pub high: i64,
    pub low_by: Bound,
    pub high_by: Bound,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Infeasible {
    /// The least amounts sum to more than the total: the items, by index, whose minimum is above zero, and the groups that ask for more
    /// than their items do.
    MinimaExceedBudget { minima: Vec<(usize, Range)>, groups: Vec<(usize, Range)>, sum: i128 },
    /// An item's range is empty.
    BoundsContradict { item: usize },
    /// A group's range is empty, or beyond what its items may get.
    GroupContradicts { group: usize },
}

impl Question {
    /// What each item may get, without one of the policies if so asked.
    pub fn ranges(&self, without: Option<Policy>) -> Result<Vec<Range>, Infeasible> {
        let ranges: Vec<Range> = self.items.iter().map(|item| self.range(item, without)).collect();
        if let Some(item) = ranges.iter().position(|range| range.low > range.high) {
            return Err(Infeasible::BoundsContradict { item });
        }
        let sum: i128 = ranges.iter().map(|range| i128::from(range.low)).sum();
        if sum > i128::from(self.total) {
            let minima = ranges.into_iter().enumerate().filter(|(_, range)| range.low > 0).collect();
            return Err(Infeasible::MinimaExceedBudget { minima, groups: Vec::new(), sum });
        }
        Ok(ranges)
    }

    /// What each group may get, given what its items may.
    pub fn group_ranges(&self, ranges: &[Range]) -> Result<Vec<Range>, Infeasible> {
        let own: Vec<Range> = self.groups.iter().map(|group| self.own_range(group)).collect();
        let items: Vec<(i64, i64)> = self.groups.iter().map(|group| reach(group, ranges)).collect();
        let empty = |(own, (low, high)): (&Range, &(i64, i64))| own.low > own.high || own.low > *high || own.high < *low;
        if let Some(group) = own.iter().zip(&items).position(empty) {
            return Err(Infeasible::GroupContradicts { group });
        }
        let more = |nr: &usize| i128::from((own[*nr].low - items[*nr].0).max(0));
        let all = 0..own.len();
        let sum: i128 =
            ranges.iter().map(|range| i128::from(range.low)).sum::<i128>() + all.clone().map(|nr| more(&nr)).sum::<i128>();
        if sum > i128::from(self.total) {
            let groups: Vec<(usize, Range)> = all.filter(|nr| more(nr) > 0).map(|nr| (nr, own[nr])).collect();
            let covered = |i: usize| groups.iter().any(|(nr, _)| self.groups[*nr].members.contains(&i));
            let minima = ranges.iter().copied().enumerate().filter(|(i, range)| range.low > 0 && !covered(*i)).collect();
            return Err(Infeasible::MinimaExceedBudget { minima, groups, sum });
        }
        Ok(own.into_iter().zip(items).map(|(own, reach)| within(own, reach)).collect())
    }

    /// What a solver is asked of each group but one, where other ranges than the question's own may have moved what the bounds allow.
    pub fn shares(&self, ranges: &[Range], without: Option<usize>) -> Vec<hierarchy::Group> {
        let share = |group: &Group| {
            let range = within(self.own_range(group), reach(group, ranges));
            hierarchy::Group { members: group.members.clone(), low: range.low as f64, high: range.high as f64 }
        };
        self.groups.iter().enumerate().filter(|(nr, _)| Some(*nr) != without).map(|(_, group)| share(group)).collect()
    }

    fn own_range(&self, group: &Group) -> Range {
        let own = Range {
            low: group.lower,
            high: group.upper.unwrap_or(self.total).min(self.total),
            low_by: Bound::Lower,
            high_by: Bound::Upper,
        };
        let min = group.min_bp.map_or(0, |bp| share(self.total, bp, true));
        let max = group.max_bp.map_or(self.total, |bp| share(self.total, bp, false));
        let (low, low_by) = if min > own.low { (min, Bound::ShareMin) } else { (own.low, own.low_by) };
        let (high, high_by) = if max < own.high { (max, Bound::ShareMax) } else { (own.high, own.high_by) };
        Range { low, high, low_by, high_by }
    }

    /// What a solver is asked of each item.
    pub fn choices<'a>(&'a self, ranges: &[Range]) -> Vec<Choice<'a>> {
        let choice = |(item, range): (&'a Item, &Range)| {
            // A ticket binds only who may get nothing; else it is part of the range.
            let ticket = item.ticket.filter(|ticket| *ticket > range.low).unwrap_or(0);
            Choice { curve: &item.curve, low: range.low as f64, high: range.high as f64, ticket: ticket as f64 }
        };
        self.items.iter().zip(ranges).map(choice).collect()
    }

    fn range(&self, item: &Item, without: Option<Policy>) -> Range {
        let lower = if without == Some(Policy::Minima) { 0 } else { item.lower };
        let upper = item.upper.unwrap_or(self.total).min(self.total);
        // Who gets something gets a ticket at least, and who may not get a ticket gets nothing.
        let ticket = item.ticket.unwrap_or(0);
        let lower = if lower > 0 { lower.max(ticket) } else { lower };
        let upper = if lower == 0 && upper < ticket { 0 } else { upper };
        let own = Range { low: lower, high: upper, low_by: Bound::Lower, high_by: Bound::Upper };
        match (item.class, &item.curve) {
            (Some(ResourceClass::StrategicReserve), curve) => self.of_reserve(own, curve, without),
            (_, Curve::Menu(_)) => own,
            _ => self.of_change(own, item, without),
        }
    }

    fn of_reserve(&self, own: Range, curve: &Curve, without: Option<Policy>) -> Range {
        let free = without == Some(Policy::ReserveShare);
        let min = share(self.total, self.share.min_bp, true);
        let max = share(self.total, self.share.max_bp, false);
        match curve {
            // Nothing says what it brings: it gets a share that is set, or without the policy what it must.
            Curve::Unknown if free => Range { high: own.low, ..own },
            Curve::Unknown => {
                let amount = share(self.total, self.share.default_bp, false).max(min).clamp(own.low.min(own.high), own.high);
                Range { low: amount, high: amount, low_by: Bound::ReserveDefault, high_by: Bound::ReserveDefault }
            }
            _ if free => own,
            _ => {
                let (low, low_by) = if min > own.low { (min, Bound::ReserveMin) } else { (own.low, own.low_by) };
                let (high, high_by) = if max < own.high { (max, Bound::ReserveMax) } else { (own.high, own.high_by) };
                Range { low, high, low_by, high_by }
            }
        }
    }

    /// An item's own bounds come before those on changes, and so does its ticket.
    fn of_change(&self, own: Range, item: &Item, without: Option<Policy>) -> Range {
        let (Some(change), Some(current @ 1..)) = (self.change, item.current) else { return own };
        let least = own.low.max(item.ticket.unwrap_or(0));
        if without == Some(Policy::ChangeBounds) || current < least || least > own.high {
            return own;
        }
        let down = share(current, 10_000 - change.down_bp, true).clamp(least, own.high);
        let up = share(current, 10_000_i32.saturating_add(change.up_bp), false).clamp(least, own.high);
        Range {
            low: down,
            high: up,
            low_by: if down > own.low { Bound::ChangeDown } else { own.low_by },
            high_by: if up < own.high { Bound::ChangeUp } else { own.high_by },
        }
    }

    /// SHA-256 of the version and of all that an answer is computed from.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut number = |n: i64| hash.update(n.to_be_bytes());
        let float = |x: f64| i64::from_be_bytes(x.to_bits().to_be_bytes());
        number(self.total);
        number(float(self.hurdle));
        let ReserveShare { min_bp, max_bp, default_bp } = self.share;
        let change = self.change.map_or([-1, -1], |change| [change.down_bp, change.up_bp]);
        [min_bp, max_bp, default_bp].iter().chain(&change).for_each(|bp| number(i64::from(*bp)));
        for item in &self.items {
            number(item.class.map_or(-1, |class| class as i64));
            // Absent amounts as one that no amount is.
            number(item.lower);
            [item.upper, item.current, item.ticket].iter().for_each(|amount| number(amount.unwrap_or(i64::MIN)));
            let (shape, parameters) = match &item.curve {
                Curve::Logarithmic { a, b } => (1, vec![*a, *b]),
                Curve::Exponential { a, b } => (2, vec![*a, *b]),
                Curve::MichaelisMenten { a, b } => (3, vec![*a, *b]),
                Curve::SquareRoot { a, b } => (4, vec![*a, *b]),
                Curve::Power { theta, g } => (5, vec![*theta, *g]),
                Curve::Hill { a, b, s } => (6, vec![*a, *b, *s]),
                Curve::Menu(lots) => (7, lots.iter().flat_map(|lot| [lot.cost, lot.value]).collect()),
                Curve::Unknown => (8, Vec::new()),
            };
            number(shape);
            number(i64::try_from(parameters.len()).unwrap_or(i64::MAX));
            parameters.into_iter().for_each(|x| number(float(x)));
        }
        for group in &self.groups {
            number(i64::try_from(group.members.len()).unwrap_or(i64::MAX));
            group.members.iter().for_each(|i| number(i64::try_from(*i).unwrap_or(i64::MAX)));
            number(group.lower);
            number(group.upper.unwrap_or(i64::MIN));
            [group.min_bp, group.max_bp].iter().for_each(|bp| number(bp.map_or(-1, i64::from)));
        }
        hash.update(VERSION);
        hash.finalize().into()
    }
}

/// The least and the most that a group's items may get together.
fn reach(group: &Group, ranges: &[Range]) -> (i64, i64) {
    let sum = |of: fn(&Range) -> i64| group.members.iter().map(|i| of(&ranges[*i])).fold(0, i64::saturating_add);
    (sum(|range| range.low), sum(|range| range.high))
}

/// A group's own range as far as its items reach.
fn within(own: Range, (low, high): (i64, i64)) -> Range {
    let most = own.high.min(high).max(low);
    Range { low: own.low.max(low).min(most), high: most, ..own }
}

/// A share of an amount in whole minor units.
fn share(amount: i64, bp: i32, up: bool) -> i64 {
    let exact = i128::from(amount) * i128::from(bp);
    let rounded = if up { (exact + WHOLE_BP - 1).div_euclid(WHOLE_BP) } else { exact.div_euclid(WHOLE_BP) };
    i64::try_from(rounded).unwrap_or(i64::MAX)
}
