//! Titles (头衔): what lifetime points are called. A title follows from the points when it is read, so that a new set of titles holds for
//! all members at once.

use koc_chassis::fault::{Violation, Violations};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// A title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Title {
    pub title_id: String,
    pub display_name: String,
    pub min_lifetime_points: i64,
}

/// One version of a programme's titles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TitleSet {
    /// From 1; 0 before the first.
    pub version: i32,
    /// Lowest first.
    titles: Vec<Title>,
}

impl TitleSet {
    /// Puts titles in order. Ids (TITLE_REPEATED) and thresholds (THRESHOLD_REPEATED) stand once.
    pub fn new(version: i32, mut titles: Vec<Title>) -> Result<Self, Vec<Violation>> {
        let mut violations = Violations::default();
        let (mut ids, mut thresholds) = (HashSet::new(), HashSet::new());
        for (i, title) in titles.iter().enumerate() {
            if !ids.insert(title.title_id.as_str()) {
                let text = format!("{} stands in the list twice", title.title_id);
                violations.push(Violation::new(format!("titles[{i}].title_id"), "TITLE_REPEATED", text));
            }
            if !thresholds.insert(title.min_lifetime_points) {
                let text = format!("{} points are the threshold of another title", title.min_lifetime_points);
                violations.push(Violation::new(format!("titles[{i}].min_lifetime_points"), "THRESHOLD_REPEATED", text));
            }
        }
        violations.finish()?;
        titles.sort_unstable_by_key(|title| title.min_lifetime_points);
        Ok(Self { version, titles })
    }

    pub fn titles(&self) -> &[Title] {
        &self.titles
    }

    /// The title that so many lifetime points have, and the next one.
    pub fn of(&self, lifetime_points: i64) -> (Option<&Title>, Option<&Title>) {
        let reached = self.titles.partition_point(|title| title.min_lifetime_points <= lifetime_points);
        (reached.checked_sub(1).and_then(|last| self.titles.get(last)), self.titles.get(reached))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(title_id: &str, min_lifetime_points: i64) -> Title {
        Title { title_id: title_id.into(), display_name: title_id.into(), min_lifetime_points }
    }

    #[test]
    fn a_title_is_reached_at_its_threshold_and_the_next_one_is_named() {
        let set = TitleSet::new(1, vec![title("HIGH", 100), title("LOW", 10)]).expect("in any order");
        let of = |points| {
            let (title, next) = set.of(points);
            (title.map(|t| t.title_id.as_str()), next.map(|t| t.title_id.as_str()))
        };
        assert_eq!(of(9), (None, Some("LOW")));
        assert_eq!(of(10), (Some("LOW"), Some("HIGH")));
        assert_eq!(of(99), (Some("LOW"), Some("HIGH")));
        assert_eq!(of(100), (Some("HIGH"), None));
        assert_eq!(TitleSet::default().of(7), (None, None));
    }

    #[test]
    fn ids_and_thresholds_that_stand_twice_are_reported_together() {
        let broken = TitleSet::new(1, vec![title("A", 1), title("B", 1), title("A", 2)]).expect_err("two rules");
        let rules: Vec<_> = broken.iter().map(|v| (v.field.as_str(), v.rule.as_str())).collect();
        assert_eq!(rules, [("titles[1].min_lifetime_points", "THRESHOLD_REPEATED"), ("titles[2].title_id", "TITLE_REPEATED")]);
    }
}
