//! HTTP dates (RFC 9110 §5.6.7) as whole seconds since 1970-01-01T00:00:00Z.

use core::fmt::Display;
use std::time::{Duration, SystemTime};

/// Formats the preferred form, 29 bytes: `Sun, 06 Nov 1994 08:49:37 GMT`. 32 bits reach to the year
/// 2106.
#[must_use]
pub fn format(unix_seconds: u32) -> impl Display {
    httpdate::HttpDate::from(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(unix_seconds)))
}

/// Parses any of the three forms; `None` if it matches none or lies before 1970.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let time = httpdate::parse_http_date(text.trim_ascii()).ok()?;
    time.duration_since(SystemTime::UNIX_EPOCH)
        .ok()
        .map(|since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_read() {
        for (name, text, want) in [
            (
                "fixdate",
                "Sun, 06 Nov 1994 08:49:37 GMT",
                Some(784_111_777),
            ),
            (
                "rfc850",
                "Sunday, 06-Nov-94 08:49:37 GMT",
                Some(784_111_777),
            ),
            ("asctime", "Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("nonsense", "yesterday", None),
            ("empty", "", None),
        ] {
            assert_eq!(parse(text), want, "{name}");
        }
    }

    #[test]
    fn the_whole_range_is_written() {
        assert_eq!(
            format(784_111_777).to_string(),
            "Sun, 06 Nov 1994 08:49:37 GMT"
        );
        assert_eq!(format(0).to_string(), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(
            parse(&format(u32::MAX).to_string()),
            Some(u64::from(u32::MAX))
        );
    }
}
