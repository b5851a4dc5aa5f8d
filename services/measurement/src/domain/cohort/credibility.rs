//! Value per unit of exposure with unequal exposures, shrunk by credibility.

use serde::{Deserialize, Serialize};

use crate::domain::error::{InputError, at_most, finite, positive};

/// Groups and cells that one fit reads at most.
pub const MAX_GROUPS: usize = 100_000;
const MAX_CELLS_PER_GROUP: usize = 10_000;

/// One observation: a value per unit of exposure and the exposure it rests on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ExposureCell {
    /// For example value per 1,000 reads, or value per unit of spend.
    pub value_per_exposure: f64,
    /// Greater than zero.
    pub exposure: f64,
}

/// A group's share in the fit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GroupCredibility {
    /// Z: weight of the group's own experience, in [0, 1].
    pub credibility: f64,
    /// The exposure-weighted mean of the group's cells.
    pub own_mean: f64,
    /// Z · own mean + (1 − Z) · collective mean.
    pub estimate: f64,
    pub exposure: f64,
}

/// A fitted Bühlmann-Straub model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CredibilityFit {
    /// v: expected variance inside a group at exposure 1.
    pub within_variance: f64,
    /// a: variance between the groups' true means, zero or more.
    pub between_variance: f64,
    /// v/a; `None` when a = 0, when every group gets the collective mean.
    pub k: Option<f64>,
    pub collective_mean: f64,
    /// In the order of the input.
    pub groups: Vec<GroupCredibility>,
}

/// Fits the empirical credibility model of Bühlmann & Straub (1970), with the unbiased estimators in Bühlmann & Gisler
/// (2005), ch. 4: v from the spread inside groups, a from the spread between their means (cut at 0),
/// Z = w/(w + v/a), and the credibility-weighted collective mean.
///
/// With one group, or with no group that has two cells, v or a cannot be told from the data; a is then 0 and every
/// group gets the exposure-weighted grand mean.
///
/// # Errors
/// `Empty` without groups or with a group without cells; `OutOfRange` for an exposure that is not positive;
/// `NotFinite`; `TooMany`.
pub fn fit_buhlmann_straub(groups: &[Vec<ExposureCell>]) -> Result<CredibilityFit, InputError> {
    if groups.is_empty() {
        return Err(InputError::Empty { field: "groups" });
    }
    at_most("groups", groups.len(), MAX_GROUPS)?;
    let mut summaries = Vec::with_capacity(groups.len());
    let (mut inside, mut freedom) = (0.0, 0_usize);
    for cells in groups {
        let (exposure, own_mean) = group_mean(cells)?;
        inside += cells.iter().map(|cell| cell.exposure * (cell.value_per_exposure - own_mean).powi(2)).sum::<f64>();
        freedom += cells.len() - 1;
        summaries.push((exposure, own_mean));
    }
    let total: f64 = summaries.iter().map(|(w, _)| w).sum();
    let total_of_squares: f64 = summaries.iter().map(|(w, _)| w * w).sum();
    let grand_mean = summaries.iter().map(|(w, mean)| w * mean).sum::<f64>() / total;
    let within = if freedom > 0 { inside / freedom as f64 } else { 0.0 };
    let between = if freedom > 0 && groups.len() > 1 {
        let spread: f64 = summaries.iter().map(|(w, mean)| w * (mean - grand_mean).powi(2)).sum();
        let noise = (groups.len() - 1) as f64 * within;
        ((spread - noise) / (total - total_of_squares / total)).max(0.0)
    } else {
        0.0
    };
    let k = (between > 0.0).then(|| within / between);
    let credibility = |w: f64| k.map_or(0.0, |k| w / (w + k));
    let collective_mean = if k.is_some() {
        let weights: f64 = summaries.iter().map(|&(w, _)| credibility(w)).sum();
        summaries.iter().map(|&(w, mean)| credibility(w) * mean).sum::<f64>() / weights
    } else {
        grand_mean
    };
    let groups = summaries
        .iter()
        .map(|&(exposure, own_mean)| {
            let z = credibility(exposure);
            let estimate = z * own_mean + (1.0 - z) * collective_mean;
            GroupCredibility { credibility: z, own_mean, estimate, exposure }
        })
        .collect();
    finite("exposure or value", collective_mean)?;
    finite("exposure or value", within + between)?;
    Ok(CredibilityFit { within_variance: within, between_variance: between, k, collective_mean, groups })
}

fn group_mean(cells: &[ExposureCell]) -> Result<(f64, f64), InputError> {
    at_most("cells", cells.len(), MAX_CELLS_PER_GROUP)?;
    if cells.is_empty() {
        return Err(InputError::Empty { field: "cells" });
    }
    let (mut exposure, mut weighted) = (0.0, 0.0);
    for cell in cells {
        exposure += positive("exposure", cell.exposure)?;
        weighted += cell.exposure * finite("value_per_exposure", cell.value_per_exposure)?;
    }
    Ok((exposure, weighted / exposure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(values: &[[f64; 4]], exposures: &[[f64; 4]]) -> Vec<Vec<ExposureCell>> {
        let cell = |(&value_per_exposure, &exposure)| ExposureCell { value_per_exposure, exposure };
        values.iter().zip(exposures).map(|(x, w)| x.iter().zip(w).map(cell).collect()).collect()
    }

    #[test]
    fn the_fit_matches_actuarcredibility() {
        // PyPI actuarcredibility 0.1.1 on the same cells.
        let fit = fit_buhlmann_straub(&groups(
            &[[1.2, 0.8, 1.5, 1.1], [0.4, 0.6, 0.5, 0.9], [2.0, 1.7, 2.6, 1.9]],
            &[[10.0, 12.0, 8.0, 10.0], [20.0, 18.0, 25.0, 22.0], [5.0, 6.0, 4.0, 7.0]],
        ))
        .expect("positive exposures");
        assert!((fit.k.expect("groups differ") - 2.071_102_6).abs() < 5e-8, "{fit:?}");
        for (group, (z, premium)) in
            fit.groups.iter().zip([(0.950_771, 1.120_252), (0.976_214, 0.615_936), (0.913_959, 1.928_879)])
        {
            assert!((group.credibility - z).abs() < 5e-7);
            assert!((group.estimate - premium).abs() < 5e-7);
        }
    }

    #[test]
    fn groups_that_do_not_differ_all_get_the_grand_mean() {
        let fit = fit_buhlmann_straub(&groups(&[[1.0, 3.0, 1.0, 3.0]; 3], &[[1.0; 4]; 3])).expect("positive exposures");
        assert_eq!(fit.k, None);
        assert!(fit.groups.iter().all(|group| (group.estimate - 2.0).abs() < 1e-12));
    }

    #[test]
    fn an_exposure_of_zero_is_refused() {
        let cells = vec![vec![ExposureCell { value_per_exposure: 1.0, exposure: 0.0 }]];
        assert!(matches!(fit_buhlmann_straub(&cells), Err(InputError::OutOfRange { field: "exposure", .. })));
    }

    proptest! {
        #[test]
        fn estimates_lie_between_the_own_and_the_collective_mean(
            cells in prop::collection::vec(prop::collection::vec((0.0_f64..100.0, 0.1_f64..1e4), 1..6), 1..8)
        ) {
            let groups: Vec<Vec<ExposureCell>> = cells
                .iter()
                .map(|g| g.iter().map(|&(v, w)| ExposureCell { value_per_exposure: v, exposure: w }).collect())
                .collect();
            let fit = fit_buhlmann_straub(&groups).expect("positive exposures");
            for group in &fit.groups {
                prop_assert!((0.0..=1.0).contains(&group.credibility));
                let (low, high) = (group.own_mean.min(fit.collective_mean), group.own_mean.max(fit.collective_mean));
                prop_assert!(group.estimate >= low - 1e-9 && group.estimate <= high + 1e-9);
            }
        }
    }
}
