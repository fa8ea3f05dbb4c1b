//! Sizes on the command line.
//!
//! In: `1500`, `64k`, `16M` or `2G`. Out: bytes.

/// Parses a size; `None` if `text` is not a size or exceeds `u64`.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix(['k', 'K', 'm', 'M', 'g', 'G']) {
        None => (text, 1),
        Some(digits) if text.ends_with(['k', 'K']) => (digits, 1 << 10),
        Some(digits) if text.ends_with(['m', 'M']) => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, want) in [
            ("0", Some(0)),
            ("1500", Some(1500)),
            ("64k", Some(64 << 10)),
            ("16M", Some(16 << 20)),
            ("2g", Some(2 << 30)),
            ("17179869184G", None),
            ("", None),
            ("k", None),
            ("-1", None),
            ("1.5M", None),
            ("1MB", None),
        ] {
            assert_eq!(parse(text), want, "{text}");
        }
    }
}
