//! `Quantity`: Kubernetes' fixed-point numbers with their suffixes (`100m`, `1.5Gi`, `1e3`).
//!
//! Held as an integer number of nano-units (10^-9); finer input is rounded up, away from zero, and magnitudes beyond
//! 2^63-1 are capped, as upstream does. Source: k8s.io/apimachinery/pkg/api/resource/quantity.go (documented rules).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;
/// More digits than any capped value has; beyond it digits of a text stop mattering.
const MAX_DIGITS: usize = 60;

/// The suffix family a quantity was written in; kept when it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `m`, none, `k`, `M`, …
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`, …
    BinarySi,
    /// `1e3`
    DecimalExponent,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// Upstream's text for any text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)]
pub struct ParseQuantityError;

impl Quantity {
    pub fn from_units(units: i64) -> Self {
        Self {
            nanos: i128::from(units) * NANO,
            format: Format::DecimalSi,
        }
    }

    pub fn from_milli(milli: i64) -> Self {
        Self {
            nanos: i128::from(milli) * (NANO / 1000),
            format: Format::DecimalSi,
        }
    }

    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    pub fn format(self) -> Format {
        self.format
    }

    /// Whole units, rounded up (away from zero). A sum beyond the range of `i64` wraps around, as upstream's does.
    pub fn value(self) -> i64 {
        let quotient = self.nanos / NANO;
        let value = if self.nanos % NANO == 0 {
            quotient
        } else {
            quotient + self.nanos.signum()
        };
        value as i64
    }

    /// Thousandths, rounded up (away from zero), capped to the range of `i64`.
    pub fn milli_value(self) -> i64 {
        div_away(self.nanos, NANO / 1000)
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// True if the value is a whole number.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }

    /// The value rounded up to thousandths, as defaulting stores resource quantities.
    pub fn rounded_to_milli(self) -> Self {
        let step = NANO / 1000;
        let rest = self.nanos % step;
        let nanos = if rest == 0 {
            self.nanos
        } else {
            self.nanos - rest + step * self.nanos.signum()
        };
        Self {
            nanos,
            format: self.format,
        }
    }

    /// Sum, in the format of `self` (of `other` if `self` is zero).
    pub fn plus(self, other: Self) -> Self {
        let format = if self.nanos == 0 {
            other.format
        } else {
            self.format
        };
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
            format,
        }
    }

    pub fn minus(self, other: Self) -> Self {
        let format = if self.nanos == 0 {
            other.format
        } else {
            self.format
        };
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
            format,
        }
    }

    /// From JSON: a string in any legal spelling, or a number.
    pub fn from_json(value: &serde_json::Value) -> Result<Self, ParseQuantityError> {
        match value {
            serde_json::Value::String(text) => text.trim().parse(),
            serde_json::Value::Number(number) => number.to_string().parse(),
            _ => Err(ParseQuantityError),
        }
    }
}

fn div_away(nanos: i128, unit: i128) -> i64 {
    let quotient = nanos / unit;
    let exact = nanos % unit == 0;
    let value = if exact {
        quotient
    } else {
        quotient + nanos.signum()
    };
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// (multiplier numerator as power of ten or of 1024, format)
enum Scale {
    Ten(i32),
    Binary(u32),
}

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    let decimal = |exponent| Some((Scale::Ten(exponent), Format::DecimalSi));
    let binary = |power| Some((Scale::Binary(power), Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let digits = suffix.strip_prefix(['e', 'E'])?;
            let exponent: i32 = digits.parse().ok()?;
            Some((Scale::Ten(exponent), Format::DecimalExponent))
        }
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            Some(_) => (false, text),
            None => return Err(ParseQuantityError),
        };
        let number_end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(number_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(ParseQuantityError);
        }
        let (scale, format) = scale(suffix).ok_or(ParseQuantityError)?;
        let magnitude = magnitude(
            whole.trim_start_matches('0'),
            fraction.trim_end_matches('0'),
            &scale,
        );
        let nanos = magnitude.min(MAX);
        Ok(Self {
            nanos: if negative { -nanos } else { nanos },
            format,
        })
    }
}

/// `whole.fraction` times the scale, in nano-units, rounded up, saturating at `MAX`.
fn magnitude(whole: &str, fraction: &str, scale: &Scale) -> i128 {
    if whole.is_empty() && fraction.is_empty() {
        return 0;
    }
    match *scale {
        Scale::Ten(exponent) => {
            // digits * 10^shift nano-units
            let digits: String = [whole, fraction].concat();
            let leading_zeros = digits.len() - digits.trim_start_matches('0').len();
            let significant = &digits[leading_zeros..];
            let shift = i64::from(exponent) + 9 - fraction.len() as i64;
            decimal_shift(significant, shift)
        }
        Scale::Binary(power) => {
            if whole.len() > 20 {
                return MAX;
            }
            let unit = 1i128 << (10 * power);
            let whole: i128 = whole.parse().unwrap_or(0);
            // The fraction is exact to 18 digits; what is finer only rounds up.
            let (head, tail) = fraction.split_at(fraction.len().min(18));
            let denominator = 10i128.pow(head.len() as u32);
            let head: i128 = head.parse().unwrap_or(0);
            let sticky = i128::from(!tail.is_empty());
            let scaled = head * unit; // < 10^18 * 2^60 < 2^127
            let whole_units = scaled / denominator;
            let rest = scaled % denominator;
            let nanos_rest = (rest * NANO + denominator - 1) / denominator;
            whole
                .saturating_mul(unit)
                .saturating_mul(NANO)
                .saturating_add(whole_units * NANO)
                .saturating_add(nanos_rest.max(sticky))
        }
    }
}

fn decimal_shift(digits: &str, shift: i64) -> i128 {
    if digits.is_empty() {
        return 0;
    }
    if shift >= 0 {
        if digits.len() as i64 + shift > 37 {
            return MAX;
        }
        let value: i128 = digits.parse().unwrap_or(MAX);
        return value.saturating_mul(10i128.pow(shift as u32));
    }
    let drop = shift.unsigned_abs();
    if drop >= digits.len() as u64 {
        return 1; // positive, below one nano-unit: rounds up
    }
    let keep = digits.len() - drop as usize;
    if keep > 37 || keep > MAX_DIGITS {
        return MAX;
    }
    let value: i128 = digits[..keep].parse().unwrap_or(MAX);
    value + i128::from(digits[keep..].bytes().any(|b| b != b'0'))
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that keeps the value exact.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let kilo = 1024 * NANO;
        if self.format == Format::BinarySi && self.is_integer() && self.nanos.abs() >= kilo {
            let mut units = self.nanos / NANO;
            let mut power = 0;
            while units % 1024 == 0 && power < 6 {
                units /= 1024;
                power += 1;
            }
            return write!(
                f,
                "{units}{}",
                ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]
            );
        }
        let mut mantissa = self.nanos;
        let mut exponent = -9i32;
        while mantissa % 1000 == 0 && exponent < 18 {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 {
                write!(f, "{mantissa}")
            } else {
                write!(f, "{mantissa}e{exponent}")
            };
        }
        let suffix =
            ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][((exponent + 9) / 3) as usize];
        write!(f, "{mantissa}{suffix}")
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::from_json(&value).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, expect) in [
            ("0", "0"),
            ("1000m", "1"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("1.", "1"),
            ("1500Ki", "1500Ki"),
            ("1.5Gi", "1536Mi"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e2", "1200"),
            ("1E", "1E"),
            ("100000", "100k"),
            ("250000u", "250m"),
            ("0.1n", "1n"),
            ("-1", "-1"),
            ("+3Mi", "3Mi"),
            ("1.1Ki", "1126400m"),
            ("99999999999999999999", "9223372036854775807"),
        ] {
            let parsed: Quantity = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.to_string(), expect, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "", "a", "1x", "1..2", "--1", "1ki", "1 Gi", ".", "1e", "1mi",
        ] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn rounding() {
        let q = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!(q("1m").value(), 1);
        assert_eq!(q("100u").milli_value(), 1);
        assert_eq!(q("-1m").value(), -1);
        assert_eq!(q("1001u").rounded_to_milli().to_string(), "2m");
        assert_eq!(q("1Gi").value(), 1 << 30);
        assert!(q("1Gi") > q("1G"));
        assert_eq!(q("1"), q("1000m"));
    }
}
