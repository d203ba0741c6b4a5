//! Cron schedules: whether a text is one, and what is said if it is not.

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const DESCRIPTORS: [&str; 7] = [
    "@yearly",
    "@annually",
    "@monthly",
    "@weekly",
    "@daily",
    "@midnight",
    "@hourly",
];

struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
    /// The number of the first name.
    first: u32,
}

const FIELDS: [Bounds; 5] = [
    Bounds {
        least: 0,
        most: 59,
        names: &[],
        first: 0,
    },
    Bounds {
        least: 0,
        most: 23,
        names: &[],
        first: 0,
    },
    Bounds {
        least: 1,
        most: 31,
        names: &[],
        first: 0,
    },
    Bounds {
        least: 1,
        most: 12,
        names: &MONTHS,
        first: 1,
    },
    Bounds {
        least: 0,
        most: 6,
        names: &DAYS,
        first: 0,
    },
];

/// `Err`: why it is no schedule.
pub fn parse(schedule: &str) -> Result<(), String> {
    if schedule.starts_with('@') {
        let every = schedule
            .strip_prefix("@every ")
            .is_some_and(|d| d.bytes().any(|b| b.is_ascii_digit()));
        return if every || DESCRIPTORS.contains(&schedule) {
            Ok(())
        } else {
            Err(format!("unrecognized descriptor: {schedule}"))
        };
    }
    let schedule = match schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest,
        _ => schedule,
    };
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    }
    for (field, bounds) in fields.iter().zip(&FIELDS) {
        for part in field.split(',') {
            range(part, bounds)?;
        }
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    if let Some(at) = bounds
        .names
        .iter()
        .position(|n| n.eq_ignore_ascii_case(text))
    {
        return Ok(at as u32 + bounds.first);
    }
    text.parse::<u32>().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")
    })
}

fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let (span, step) = text
        .split_once('/')
        .map_or((text, None), |(s, step)| (s, Some(step)));
    let (low, high) = match span.split_once('-') {
        _ if matches!(span, "*" | "?") => (bounds.least, bounds.most),
        Some((low, high)) => (number(low, bounds)?, number(high, bounds)?),
        None => {
            let low = number(span, bounds)?;
            (low, if step.is_some() { bounds.most } else { low })
        }
    };
    let step = step.map(|s| number(s, &FIELDS[0])).transpose()?;
    if low < bounds.least {
        return Err(format!(
            "beginning of range ({low}) below minimum ({}): {text}",
            bounds.least
        ));
    }
    if high > bounds.most {
        return Err(format!(
            "end of range ({high}) above maximum ({}): {text}",
            bounds.most
        ));
    }
    if low > high {
        return Err(format!(
            "beginning of range ({low}) beyond end of range ({high}): {text}"
        ));
    }
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn schedules() {
        for fine in [
            "* * * * *",
            "*/5 0-6 1,15 JAN-mar sun",
            "@daily",
            "@every 1h",
            "TZ=UTC 0 0 * * *",
            "0/15 * ? * 1",
        ] {
            assert_eq!(parse(fine), Ok(()), "{fine}");
        }
        let check =
            |schedule: &str, expect: &str| assert_eq!(parse(schedule), Err(expect.to_owned()));
        check("61 * * * *", "end of range (61) above maximum (59): 61");
        check("* *", "expected exactly 5 fields, found 2: [* *]");
        check(
            "5-1 * * * *",
            "beginning of range (5) beyond end of range (1): 5-1",
        );
        check(
            "*/0 * * * *",
            "step of range should be a positive number: */0",
        );
        check("@often", "unrecognized descriptor: @often");
    }
}
