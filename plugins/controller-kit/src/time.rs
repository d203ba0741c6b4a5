//! Kubernetes' time texts to and from milliseconds since 1970, without a time zone database.

const DAY_MS: u64 = 86_400_000;

/// Now, as metadata and conditions write it.
pub fn now() -> String {
    format_ms(oarlock_sdk::host::now_ms())
}

/// `2026-01-01T00:00:00Z`
pub fn format_ms(ms: u64) -> String {
    let (days, rest) = (ms / DAY_MS, ms % DAY_MS / 1_000);
    let (year, month, day) = civil(days as i64);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3_600,
        rest % 3_600 / 60,
        rest % 60
    )
}

/// RFC 3339 in UTC, with or without a fraction.
pub fn parse_ms(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z')?;
    let (date, clock) = text.split_once('T')?;
    let mut date = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = whole.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let milli = fraction
        .bytes()
        .chain(*b"000")
        .take(3)
        .try_fold(0u64, |sum, digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + u64::from(digit - b'0'))
        })?;
    let days = u64::try_from(days(year, month, day)).ok()?;
    Some(days * DAY_MS + (hour * 3_600 + minute * 60 + second) * 1_000 + milli)
}

/// Days since 1970 of a civil date. Source: Howard Hinnant, chrono-Compatible Low-Level Date Algorithms.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        for text in [
            "1970-01-01T00:00:00Z",
            "2024-02-29T23:59:59Z",
            "2026-11-23T20:45:01Z",
            "2100-03-01T00:00:00Z",
        ] {
            assert_eq!(parse_ms(text).map(format_ms).as_deref(), Some(text));
        }
        assert_eq!(parse_ms("1970-01-02T00:00:01.5Z"), Some(86_401_500));
        assert_eq!(parse_ms("1970-01-01T00:00:00.123456Z"), Some(123));
        for bad in ["", "yesterday", "2026-01-01", "2026-01-01T00:00Z"] {
            assert_eq!(parse_ms(bad), None);
        }
    }
}
