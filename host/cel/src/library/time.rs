//! Timestamps and durations: their texts and their parts.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Outcome, no_overload};
use crate::decl::Library;
use crate::value::{EvalError, Value};

const SECOND: i64 = 1_000_000_000;

macro_rules! parts {
    ($name:literal) => {
        concat!(
            "timestamp: ",
            $name,
            "() -> int\n",
            "timestamp: ",
            $name,
            "(string) -> int",
        )
    };
}

pub(super) const LIBRARY: Library = &[
    (parts!("getFullYear"), |args| {
        part(args, |at| at.year().into(), None)
    }),
    (parts!("getMonth"), |args| {
        part(args, |at| i64::from(at.month()) - 1, None)
    }),
    (parts!("getDayOfYear"), |args| {
        part(args, |at| i64::from(at.day_of_year()) - 1, None)
    }),
    (parts!("getDate"), |args| {
        part(args, |at| at.day().into(), None)
    }),
    (parts!("getDayOfMonth"), |args| {
        part(args, |at| i64::from(at.day()) - 1, None)
    }),
    (parts!("getDayOfWeek"), |args| {
        part(args, |at| at.weekday().to_sunday_zero_offset().into(), None)
    }),
    (
        concat!("duration: getHours() -> int\n", parts!("getHours")),
        |args| part(args, |at| at.hour().into(), Some(3600 * SECOND)),
    ),
    (
        concat!("duration: getMinutes() -> int\n", parts!("getMinutes")),
        |args| part(args, |at| at.minute().into(), Some(60 * SECOND)),
    ),
    (
        concat!("duration: getSeconds() -> int\n", parts!("getSeconds")),
        |args| part(args, |at| at.second().into(), Some(SECOND)),
    ),
    (
        concat!(
            "duration: getMilliseconds() -> int\n",
            parts!("getMilliseconds")
        ),
        |args| part(args, |at| at.millisecond().into(), Some(SECOND / 1000)),
    ),
];

fn part<'a>(args: &[Value<'a>], of: fn(&jiff::Zoned) -> i64, unit: Option<i64>) -> Outcome<'a> {
    match (args, unit) {
        ([Value::Timestamp(at)], _) => Ok(Value::Int(of(&at.to_zoned(TimeZone::UTC)))),
        ([Value::Timestamp(at), Value::String(zone)], _) => {
            Ok(Value::Int(of(&at.to_zoned(zone_of(zone)?))))
        }
        ([Value::Duration(nanos)], Some(unit)) => Ok(Value::Int(nanos / unit)),
        _ => no_overload(),
    }
}

/// `+02:00`, `-08:30`, `UTC`, or a name of the zone database.
fn zone_of(text: &str) -> Result<TimeZone, EvalError> {
    if let Some((hours, minutes)) = text.split_once(':') {
        let (sign, hours) = match hours.strip_prefix('-') {
            Some(hours) => (-1, hours),
            None => (1, hours.strip_prefix('+').unwrap_or(hours)),
        };
        let (Ok(hours), Ok(minutes)) = (hours.parse::<i32>(), minutes.parse::<i32>()) else {
            return Err(EvalError::new(format!("unknown time zone {text}")));
        };
        return jiff::tz::Offset::from_seconds(sign * (hours * 3600 + minutes * 60))
            .map(TimeZone::fixed)
            .map_err(|_| EvalError::new(format!("unknown time zone {text}")));
    }
    if matches!(text, "" | "UTC") {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(text).map_err(|_| EvalError::new(format!("unknown time zone {text}")))
}

/// RFC 3339 as Go prints it with nanoseconds: no trailing zeros of a fraction.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    at.to_string()
}

/// `90s`, `1.5s`.
pub(crate) fn seconds_text(nanos: i64) -> String {
    let (sign, nanos) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (whole, fraction) = (nanos / SECOND as u64, nanos % SECOND as u64);
    if fraction == 0 {
        return format!("{sign}{whole}s");
    }
    let fraction = format!("{fraction:09}");
    format!("{sign}{whole}.{}s", fraction.trim_end_matches('0'))
}

pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // A `T`, a zone, and a year of the common era: jiff accepts more than RFC 3339.
    let bytes = text.as_bytes();
    let is_rfc =
        bytes.len() >= 20 && bytes[4] == b'-' && bytes[10] == b'T' && bytes[0].is_ascii_digit();
    is_rfc.then(|| text.parse().ok()).flatten()
}

pub(crate) fn parse_date(text: &str) -> Option<Timestamp> {
    let date: jiff::civil::Date = text.parse().ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Go's duration texts (`1h30m`, `-1.5s`), in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(end);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => i128::from(SECOND),
            "m" => 60 * i128::from(SECOND),
            "h" => 3600 * i128::from(SECOND),
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || whole.len() > 19 || fraction.contains('.') {
            return None;
        }
        let fraction = &fraction[..fraction.len().min(18)];
        total += whole.parse::<i128>().unwrap_or(0) * unit;
        total += fraction.parse::<i128>().unwrap_or(0) * unit / 10i128.pow(fraction.len() as u32);
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}
