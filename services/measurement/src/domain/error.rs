//! Why a computation refused its input.

/// A fact about an input that makes a computation meaningless. Computations return it instead of panicking or of
/// letting a NaN travel on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InputError {
    #[error("{field} is not a finite number")]
    NotFinite { field: &'static str },
    #[error("{field} is {value}, outside {min} to {max}")]
    OutOfRange { field: &'static str, value: f64, min: f64, max: f64 },
    #[error("{field} is {value_minor} minor units, a negative amount")]
    NegativeAmount { field: &'static str, value_minor: i64 },
    #[error("{field} is empty")]
    Empty { field: &'static str },
    #[error("{field} has {len} entries, at most {max} are read")]
    TooMany { field: &'static str, len: usize, max: usize },
    #[error("{field} is {value}, more than the {limit} of {limit_field}")]
    Exceeds { field: &'static str, value: u64, limit_field: &'static str, limit: u64 },
    #[error("{field} does not fit in 64-bit minor units")]
    AmountOverflow { field: &'static str },
}

/// `value` if it is neither NaN nor infinite.
pub(crate) fn finite(field: &'static str, value: f64) -> Result<f64, InputError> {
    if value.is_finite() { Ok(value) } else { Err(InputError::NotFinite { field }) }
}

/// `value` if it lies in the closed interval `min..=max`.
pub(crate) fn in_range(field: &'static str, value: f64, min: f64, max: f64) -> Result<f64, InputError> {
    finite(field, value)?;
    if (min..=max).contains(&value) { Ok(value) } else { Err(InputError::OutOfRange { field, value, min, max }) }
}

/// `value` if it lies in [0, 1].
pub(crate) fn share(field: &'static str, value: f64) -> Result<f64, InputError> {
    in_range(field, value, 0.0, 1.0)
}

/// `value` if it is greater than zero.
pub(crate) fn positive(field: &'static str, value: f64) -> Result<f64, InputError> {
    in_range(field, value, f64::MIN_POSITIVE, f64::MAX)
}

/// `value_minor` if it is zero or more.
pub(crate) fn non_negative_minor(field: &'static str, value_minor: i64) -> Result<i64, InputError> {
    if value_minor >= 0 { Ok(value_minor) } else { Err(InputError::NegativeAmount { field, value_minor }) }
}

/// Refuses a list longer than `max`.
pub(crate) fn at_most(field: &'static str, len: usize, max: usize) -> Result<(), InputError> {
    if len <= max { Ok(()) } else { Err(InputError::TooMany { field, len, max }) }
}
