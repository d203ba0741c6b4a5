//! Times and durations as Go reads them, with the texts of `time.Parse` and `time.ParseDuration`, written canonically.

use oarlock_model::time::{format_micro_time, format_time};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Precision {
    /// `metav1.Time`
    Seconds,
    /// `metav1.MicroTime`
    Micros,
}

impl Precision {
    fn layout(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// What Go could not read: the rest of the text, the element of the layout it was looking for, or another reason.
enum Bad<'a> {
    Cannot(&'a str, &'static str),
    OutOfRange(&'static str),
    Extra(&'a str),
}

/// An RFC 3339 time, in UTC and cut to the precision; or the text of Go's error.
pub(super) fn parse(text: &str, precision: Precision) -> Result<String, String> {
    // The canonical spelling is by far the most common one, and already what is wanted.
    if let Err(bad) = check(text, precision) {
        let quoted = format!("{text:?}");
        return Err(match bad {
            Bad::Cannot(rest, element) => {
                format!(
                    "parsing time {quoted} as {:?}: cannot parse {rest:?} as {element:?}",
                    precision.layout()
                )
            }
            Bad::OutOfRange(what) => format!("parsing time {quoted}: {what} out of range"),
            Bad::Extra(rest) => format!("parsing time {quoted}: extra text: {rest:?}"),
        });
    }
    let at: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("parsing time {text:?}: day out of range"))?;
    Ok(match precision {
        Precision::Seconds => format_time(at),
        Precision::Micros => format_micro_time(at),
    })
}

/// Walks the layout as Go's parser does.
fn check(text: &str, precision: Precision) -> Result<(), Bad<'_>> {
    let mut rest = text;
    let year = digits(&mut rest, 4, "2006")?;
    literal(&mut rest, "-")?;
    let month = digits(&mut rest, 2, "01")?;
    if !(1..=12).contains(&month) {
        return Err(Bad::OutOfRange("month"));
    }
    literal(&mut rest, "-")?;
    let day = digits(&mut rest, 2, "02")?;
    literal(&mut rest, "T")?;
    let hour = digits(&mut rest, 2, "15")?;
    if hour > 23 {
        return Err(Bad::OutOfRange("hour"));
    }
    literal(&mut rest, ":")?;
    let minute = digits(&mut rest, 2, "04")?;
    if minute > 59 {
        return Err(Bad::OutOfRange("minute"));
    }
    literal(&mut rest, ":")?;
    let second = digits(&mut rest, 2, "05")?;
    if second > 59 {
        return Err(Bad::OutOfRange("second"));
    }
    fraction(&mut rest, precision)?;
    zone(&mut rest)?;
    if day < 1 || day > days_in(year, month) {
        return Err(Bad::OutOfRange("day"));
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Bad::Extra(rest))
    }
}

fn digits<'a>(rest: &mut &'a str, count: usize, element: &'static str) -> Result<u32, Bad<'a>> {
    let before = *rest;
    match before
        .get(..count)
        .filter(|head| head.bytes().all(|b| b.is_ascii_digit()))
    {
        Some(head) => {
            *rest = &before[count..];
            Ok(head.parse().unwrap_or(0))
        }
        None => Err(Bad::Cannot(before, element)),
    }
}

fn literal<'a>(rest: &mut &'a str, expected: &'static str) -> Result<(), Bad<'a>> {
    match rest.strip_prefix(expected) {
        Some(after) => {
            *rest = after;
            Ok(())
        }
        None => Err(Bad::Cannot(rest, expected)),
    }
}

/// A layout with `.000000` wants exactly six digits; without one, any fraction behind the seconds is taken.
fn fraction<'a>(rest: &mut &'a str, precision: Precision) -> Result<(), Bad<'a>> {
    const MICRO_DIGITS: usize = 6;
    let before = *rest;
    let digits = before
        .strip_prefix('.')
        .map_or(0, |d| d.bytes().take_while(u8::is_ascii_digit).count());
    match precision {
        Precision::Seconds if digits > 0 => *rest = &before[1 + digits..],
        Precision::Seconds => {}
        Precision::Micros if digits >= MICRO_DIGITS => *rest = &before[1 + MICRO_DIGITS..],
        Precision::Micros => return Err(Bad::Cannot(before, ".000000")),
    }
    Ok(())
}

fn zone<'a>(rest: &mut &'a str) -> Result<(), Bad<'a>> {
    let before = *rest;
    if let Some(after) = before.strip_prefix('Z') {
        *rest = after;
        return Ok(());
    }
    let bytes = before.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let shape = matches!(bytes.first(), Some(b'+' | b'-'))
        && digit(1)
        && digit(2)
        && bytes.get(3) == Some(&b':')
        && digit(4)
        && digit(5);
    if !shape {
        return Err(Bad::Cannot(before, "Z07:00"));
    }
    *rest = &before[6..];
    Ok(())
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

const UNITS: [(&str, i128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A Go duration (`1h30m`, `1.5s`) as `Duration.String` prints it (`1h30m0s`, `1.5s`).
pub(super) fn canonical_duration(text: &str) -> Result<String, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok("0s".to_owned());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if number.is_empty() || number == "." || number.matches('.').count() > 1 {
            return Err(invalid());
        }
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        nanos += scaled(number, *scale).ok_or_else(invalid)?;
        if nanos > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    Ok(show_duration(negative, nanos))
}

fn scaled(number: &str, scale: i128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: i128 = if whole.is_empty() {
        0
    } else {
        whole.parse::<u64>().ok()?.into()
    };
    let mut value = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.bytes() {
        place /= 10;
        value += i128::from(digit - b'0') * place;
    }
    Some(value)
}

fn show_duration(negative: bool, nanos: i128) -> String {
    const SECOND: i128 = 1_000_000_000;
    let decimal = |value: i128, unit: i128, name: &str| {
        let fraction = format!("{:0width$}", value % unit, width = unit.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() || unit == 1 {
            ""
        } else {
            "."
        };
        format!(
            "{}{dot}{}{name}",
            value / unit,
            if unit == 1 { "" } else { fraction }
        )
    };
    let sign = if negative && nanos != 0 { "-" } else { "" };
    let text = match nanos {
        0 => "0s".to_owned(),
        n if n < 1_000 => decimal(n, 1, "ns"),
        n if n < 1_000_000 => decimal(n, 1_000, "\u{b5}s"),
        n if n < SECOND => decimal(n, 1_000_000, "ms"),
        n => {
            let (minutes, seconds) = (n / (60 * SECOND), n % (60 * SECOND));
            let seconds = decimal(seconds, SECOND, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, precision, expect: Result<&str, &str>| {
            assert_eq!(
                parse(text, precision).as_deref().map_err(String::as_str),
                expect,
                "{text}"
            );
        };
        use Precision::{Micros, Seconds};
        check("2026-11-23T20:45:00Z", Seconds, Ok("2026-11-23T20:45:00Z"));
        check(
            "2026-11-23T20:45:00.123Z",
            Seconds,
            Ok("2026-11-23T20:45:00Z"),
        );
        check(
            "2026-11-23T20:45:00+02:00",
            Seconds,
            Ok("2026-11-23T18:45:00Z"),
        );
        check(
            "2026-11-23T20:45:00.123456Z",
            Micros,
            Ok("2026-11-23T20:45:00.123456Z"),
        );
        check(
            "yesterday",
            Micros,
            Err(
                r#"parsing time "yesterday" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "yesterday" as "2006""#,
            ),
        );
        check(
            "2024-01-01",
            Micros,
            Err(
                r#"parsing time "2024-01-01" as "2006-01-02T15:04:05.000000Z07:00": cannot parse "" as "T""#,
            ),
        );
        check(
            "2011-02-12T04:26:35.957535Zx",
            Micros,
            Err(r#"parsing time "2011-02-12T04:26:35.957535Zx": extra text: "x""#),
        );
        check(
            "2023-02-30T00:00:00Z",
            Seconds,
            Err(r#"parsing time "2023-02-30T00:00:00Z": day out of range"#),
        );
    }

    #[test]
    fn durations() {
        for (text, expect) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5s", "1.5s"),
            ("0", "0s"),
            ("250ms", "250ms"),
            ("-5m", "-5m0s"),
        ] {
            assert_eq!(canonical_duration(text).as_deref(), Ok(expect));
        }
        assert_eq!(
            canonical_duration("5x"),
            Err(r#"time: unknown unit "x" in duration "5x""#.to_owned())
        );
        assert_eq!(
            canonical_duration("5"),
            Err(r#"time: missing unit in duration "5""#.to_owned())
        );
    }
}
