//! Numbers that may be percentages.

use serde_json::Value;

/// `5`, `"5"` or `"25%"` of `total`; percentages are rounded up or down. `None`: it is neither.
pub fn resolve(value: &Value, total: i64, round_up: bool) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    let text = value.as_str()?;
    let Some(percent) = text.strip_suffix('%') else {
        return text.parse().ok();
    };
    let share = percent.parse::<i64>().ok()?.checked_mul(total)?;
    Some(if round_up {
        (share + 99).div_euclid(100)
    } else {
        share.div_euclid(100)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn resolves() {
        for (value, up, expect) in [
            (json!(3), true, Some(3)),
            (json!("25%"), true, Some(3)),
            (json!("25%"), false, Some(2)),
            (json!("0%"), true, Some(0)),
            (json!("x%"), true, None),
            (json!(null), true, None),
        ] {
            assert_eq!(resolve(&value, 10, up), expect, "{value}");
        }
    }
}
