//! Kubernetes quantities (`250m`, `1.5Gi`, `2e3`) as exact numbers.
//!
//! In: a quantity as text. Out: an amount in billionths. The format is
//! <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>: a signed decimal with a
//! binary or decimal suffix, or an exponent. Amounts finer than a billionth are rounded up.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Billionths in one unit.
const NANOS_PER_UNIT: i128 = 1_000_000_000;

/// An amount in billionths of its unit (cores or bytes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct NanoAmount(i128);

impl NanoAmount {
    /// An amount of `count` whole units.
    pub const fn whole(count: u64) -> Self {
        // This cannot overflow: 2^64 times 10^9 is below 2^127.
        Self(count as i128 * NANOS_PER_UNIT)
    }

    /// An amount of `count` thousandths of a unit.
    pub const fn thousandths(count: u64) -> Self {
        Self(count as i128 * (NANOS_PER_UNIT / 1000))
    }

    /// Parses `quantity`; `None` if it is invalid, negative, or more than Kubernetes can store (2^63 - 1).
    pub fn from_quantity(quantity: &Quantity) -> Option<Self> {
        let amount = parse(quantity.0.trim())?;
        (0..=i128::from(i64::MAX) * NANOS_PER_UNIT)
            .contains(&amount)
            .then_some(Self(amount))
    }

    /// Whether the amount is zero.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The amount as a multiple of `step`, rounded up.
    pub fn in_steps_of(self, step: Self) -> u64 {
        let step = step.0.max(1);
        let steps = self.0 / step + i128::from(self.0 % step > 0);
        u64::try_from(steps).unwrap_or(u64::MAX)
    }

    /// The sum of both amounts.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

fn parse(text: &str) -> Option<i128> {
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let (base, exponent) = scale(suffix)?;
    let amount = scaled(whole, fraction, base, exponent)?;
    Some(if negative { -amount } else { amount })
}

/// The factor of a suffix, as an exponent of 1024 and an exponent of ten; `None` if the suffix is invalid.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    Some(match suffix {
        "" => (0, 0),
        "n" => (0, -9),
        "u" => (0, -6),
        "m" => (0, -3),
        "k" => (0, 3),
        "M" => (0, 6),
        "G" => (0, 9),
        "T" => (0, 12),
        "P" => (0, 15),
        "E" => (0, 18),
        "Ki" => (1, 0),
        "Mi" => (2, 0),
        "Gi" => (3, 0),
        "Ti" => (4, 0),
        "Pi" => (5, 0),
        "Ei" => (6, 0),
        _ => (0, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    })
}

/// `whole.fraction` times 1024^`base` times 10^`exponent`, in billionths, rounded up.
fn scaled(whole: &str, fraction: &str, base: u32, exponent: i32) -> Option<i128> {
    // Further digits can only round the result up.
    let kept = &fraction[..fraction.len().min(24)];
    let has_more = fraction[kept.len()..].bytes().any(|digit| digit != b'0');
    let digits = format!("{whole}{kept}");
    let digits = digits.trim_start_matches('0');
    let mut value: i128 = if digits.is_empty() {
        0
    } else {
        digits.parse().ok()?
    };
    value = value.checked_mul(1024_i128.checked_pow(base)?)?;
    let shift = exponent
        .checked_add(9)?
        .checked_sub(i32::try_from(kept.len()).ok()?)?;
    if value == 0 {
        return Some(i128::from(has_more));
    }
    if shift >= 0 {
        value = value.checked_mul(10_i128.checked_pow(shift.unsigned_abs())?)?;
        return value.checked_add(i128::from(has_more));
    }
    let Some(divisor) = 10_i128.checked_pow(shift.unsigned_abs()) else {
        return Some(1);
    };
    Some(value / divisor + i128::from(value % divisor > 0 || has_more))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amount(text: &str) -> Option<NanoAmount> {
        NanoAmount::from_quantity(&Quantity(text.to_owned()))
    }

    #[test]
    fn quantities_are_parsed_as_in_kubernetes() {
        for (text, thousandths) in [
            ("0", 0),
            ("1", 1000),
            ("250m", 250),
            ("0.1", 100),
            (".5", 500),
            ("5.", 5000),
            ("+2", 2000),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("12e-2", 120),
            ("1M", 1_000_000_000),
            ("00012", 12_000),
        ] {
            assert_eq!(
                amount(text),
                Some(NanoAmount::thousandths(thousandths)),
                "{text}"
            );
        }
        assert_eq!(
            amount("1E"),
            Some(NanoAmount::whole(1_000_000_000_000_000_000))
        );
        assert_eq!(amount("7Ei"), Some(NanoAmount::whole(7 << 60)));
    }

    #[test]
    fn an_amount_that_is_too_fine_is_rounded_up() {
        for text in [
            "1n",
            "0.1n",
            "0.0000000000000000000000000000000000001",
            "1e-400",
        ] {
            assert_eq!(amount(text), Some(NanoAmount(1)), "{text}");
        }
        assert_eq!(
            amount("0.00000000000000000000000000000000000"),
            Some(NanoAmount(0))
        );
    }

    #[test]
    fn an_invalid_amount_is_none() {
        for text in [
            "",
            " ",
            "-1",
            "m",
            "1.2.3",
            "1x",
            "1Kib",
            "1e",
            "e3",
            "1 Gi",
            "--1",
            "9Ei",
            "é",
            "1é",
            "99999999999999999999999999999999999999999999",
            "1e300",
            "1e99999999999",
            "Ei",
        ] {
            assert_eq!(amount(text), None, "{text}");
        }
    }

    #[test]
    fn steps_are_rounded_up() {
        let step = NanoAmount::thousandths(10);
        for (text, steps) in [("0", 0), ("1m", 1), ("10m", 1), ("11m", 2), ("1.981", 199)] {
            assert_eq!(
                amount(text).expect("an amount").in_steps_of(step),
                steps,
                "{text}"
            );
        }
        assert_eq!(
            NanoAmount::whole(u64::MAX).in_steps_of(NanoAmount(0)),
            u64::MAX
        );
    }
}
