//! Kubernetes time texts: `Time` (whole seconds, RFC 3339, UTC) and `MicroTime` (six digits). No clock is read here.

use jiff::Timestamp;

/// `2026-11-23T20:45:00Z`: metadata and conditions.
pub fn format_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-11-23T20:45:00.123456Z`: leases and events.
pub fn format_micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Any RFC 3339 time.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// A duration as kubectl prints an age: `5s`, `3m20s`, `12m`, `3h5m`, `12h`, `3d4h`, `20d`, `2y35d`, `9y`.
/// Source: k8s.io/apimachinery/pkg/util/duration HumanDuration (the thresholds).
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, big_unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{big}{big_unit}")
        } else {
            format!("{big}{big_unit}{small}{small_unit}")
        }
    };
    match seconds {
        s if s < -1 => "<invalid>".to_owned(),
        s if s < 0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, "m", s % MINUTE, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, "h", s % HOUR / MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, "d", s % DAY / HOUR, "h"),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, "y", s % YEAR / DAY, "d"),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats() {
        let at: Timestamp = "2026-11-23T20:45:01.1234567Z".parse().unwrap();
        assert_eq!(format_time(at), "2026-11-23T20:45:01Z");
        assert_eq!(format_micro_time(at), "2026-11-23T20:45:01.123456Z");
        assert_eq!(
            parse_time("2026-11-23T20:45:01Z")
                .map(format_time)
                .as_deref(),
            Some("2026-11-23T20:45:01Z")
        );
        assert_eq!(parse_time("yesterday"), None);
    }

    #[test]
    fn ages() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (700, "11m"),
            (3 * 3600 + 300, "3h5m"),
            (86_400 * 3 + 3600 * 4, "3d4h"),
            (86_400 * 20, "20d"),
            (86_400 * (365 * 2 + 35), "2y35d"),
            (86_400 * 365 * 9, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text);
        }
    }
}
