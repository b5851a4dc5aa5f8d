//! Where an estimate becomes money.

use super::error::{InputError, finite};

/// The largest magnitude, in minor units, at which every integer is still an exact `f64` (2^53).
pub const EXACT_FLOAT_LIMIT_MINOR: f64 = 9_007_199_254_740_992.0;

/// Rounds an estimate in minor units to whole minor units, half to even (IEEE 754 roundTiesToEven), which has no
/// drift over many roundings. This is the only place where a float becomes an amount.
///
/// # Errors
/// `NotFinite`; `AmountOverflow` past 2^53 minor units, where a float no longer holds every integer.
pub fn round_to_minor(field: &'static str, estimate_minor: f64) -> Result<i64, InputError> {
    let rounded = finite(field, estimate_minor)?.round_ties_even();
    if rounded.abs() > EXACT_FLOAT_LIMIT_MINOR {
        return Err(InputError::AmountOverflow { field });
    }
    Ok(rounded as i64)
}

/// Adds amounts without wrapping.
///
/// # Errors
/// `AmountOverflow`.
pub fn sum_minor(field: &'static str, amounts_minor: impl IntoIterator<Item = i64>) -> Result<i64, InputError> {
    amounts_minor.into_iter().try_fold(0_i64, i64::checked_add).ok_or(InputError::AmountOverflow { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let rounded: Vec<i64> = [0.5, 1.5, 2.5, -0.5, -1.5, 2.500_1]
            .into_iter()
            .map(|x| round_to_minor("x", x).expect("a small number rounds"))
            .collect();
        assert_eq!(rounded, [0, 2, 2, 0, -2, 3]);
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        assert_eq!(round_to_minor("x", f64::NAN), Err(InputError::NotFinite { field: "x" }));
        assert_eq!(round_to_minor("x", 1e17), Err(InputError::AmountOverflow { field: "x" }));
        assert_eq!(sum_minor("x", [i64::MAX, 1]), Err(InputError::AmountOverflow { field: "x" }));
    }
}
