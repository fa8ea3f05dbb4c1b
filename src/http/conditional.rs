//! Entity tags and preconditions (RFC 9110 §8.8.3, §13).
//!
//! In: the request's fields and the validators of the selected representation. Out: proceed, 304 or
//! 412. For GET and HEAD of an existing representation.

use core::fmt::{self, Display};

use crate::http::date;
use crate::http::headers::Headers;

/// An entity tag without its quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntityTag {
    /// Whether the tag is weak: good for weak comparison only.
    pub weak: bool,
    /// The opaque part.
    pub opaque: String,
}

/// The form of `ETag` and `If-*` fields.
impl Display for EntityTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weak = if self.weak { "W/" } else { "" };
        write!(f, "{weak}\"{}\"", self.opaque)
    }
}

impl EntityTag {
    /// Creates a strong tag. `opaque` must be visible ASCII without `"`.
    #[must_use]
    pub fn strong(opaque: impl Into<String>) -> Self {
        Self {
            weak: false,
            opaque: opaque.into(),
        }
    }

    /// Parses `text` as exactly one tag.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (tag, rest) = Self::parse_first(text.trim_ascii())?;
        rest.is_empty().then_some(tag)
    }

    /// Compares strongly (RFC 9110 §8.8.3.2).
    #[must_use]
    pub fn equals_strongly(&self, other: &Self) -> bool {
        !self.weak && !other.weak && self.opaque == other.opaque
    }

    /// Compares weakly (RFC 9110 §8.8.3.2).
    #[must_use]
    pub fn equals_weakly(&self, other: &Self) -> bool {
        self.opaque == other.opaque
    }

    /// Parses a tag; also returns the bytes after its closing quote.
    fn parse_first(text: &[u8]) -> Option<(Self, &[u8])> {
        let (weak, quoted) = text
            .strip_prefix(b"W/")
            .map_or((false, text), |quoted| (true, quoted));
        let inner = quoted.strip_prefix(b"\"")?;
        let end = inner.iter().position(|&byte| byte == b'"')?;
        let (opaque, rest) = inner.split_at_checked(end)?;
        let opaque = str::from_utf8(opaque).ok()?;
        let visible = opaque.bytes().all(|byte| byte > b' ' && byte != 0x7f);
        visible.then(|| {
            (
                Self {
                    weak,
                    opaque: opaque.to_owned(),
                },
                rest.get(1..).unwrap_or(&[]),
            )
        })
    }
}

/// The validators of the selected representation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// Its entity tag.
    pub etag: Option<EntityTag>,
    /// Its modification date in seconds since 1970, if all replicas agree on it.
    pub last_modified: Option<u64>,
}

/// The outcome of the preconditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionVerdict {
    /// Answer as if there were none.
    Proceed,
    /// Answer 304.
    NotModified,
    /// Answer 412.
    Failed,
}

/// Evaluates the preconditions of a GET or HEAD in the order of RFC 9110 §13.2.2. A condition on
/// dates is ignored without a modification date (§13.1.3, §13.1.4).
#[must_use]
pub fn evaluate(headers: &Headers, validators: &Validators) -> ConditionVerdict {
    let etag = validators.etag.as_ref();
    if headers.get("if-match").is_some() {
        if !any_tag(headers, "if-match", etag, EntityTag::equals_strongly) {
            return ConditionVerdict::Failed;
        }
    } else if let (Some(limit), Some(modified)) = (
        date_field(headers, "if-unmodified-since"),
        validators.last_modified,
    ) && modified > limit
    {
        return ConditionVerdict::Failed;
    }
    if headers.get("if-none-match").is_some() {
        if any_tag(headers, "if-none-match", etag, EntityTag::equals_weakly) {
            return ConditionVerdict::NotModified;
        }
    } else if let (Some(limit), Some(modified)) = (
        date_field(headers, "if-modified-since"),
        validators.last_modified,
    ) && modified <= limit
    {
        return ConditionVerdict::NotModified;
    }
    ConditionVerdict::Proceed
}

/// Whether to honour `Range` given `If-Range` (RFC 9110 §13.1.5): a tag must match strongly, a date
/// exactly.
#[must_use]
pub fn range_applies(headers: &Headers, validators: &Validators) -> bool {
    let Some(value) = headers.get("if-range") else {
        return true;
    };
    if let Some(tag) = EntityTag::parse(value) {
        return validators
            .etag
            .as_ref()
            .is_some_and(|etag| etag.equals_strongly(&tag));
    }
    let dated = date_field(headers, "if-range");
    dated.is_some() && dated == validators.last_modified
}

/// Whether a listed tag, or `*`, matches. The first malformed tag ends the list.
fn any_tag(
    headers: &Headers,
    name: &str,
    etag: Option<&EntityTag>,
    equal: fn(&EntityTag, &EntityTag) -> bool,
) -> bool {
    headers.all(name).any(|value| {
        if value == b"*" {
            return true;
        }
        let mut rest = value;
        loop {
            rest = rest.trim_ascii_start();
            while let Some(after) = rest.strip_prefix(b",") {
                rest = after.trim_ascii_start();
            }
            let Some((tag, after)) = EntityTag::parse_first(rest) else {
                return false;
            };
            if etag.is_some_and(|etag| equal(etag, &tag)) {
                return true;
            }
            rest = after;
        }
    })
}

fn date_field(headers: &Headers, name: &str) -> Option<u64> {
    headers.get_str(name).and_then(date::parse)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ConditionVerdict::{Failed, NotModified, Proceed};
    use super::*;

    const BEFORE: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const AT: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const AFTER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in fields {
            headers.push(name, value.as_bytes()).unwrap();
        }
        headers
    }

    fn validators() -> Validators {
        Validators {
            etag: Some(EntityTag::strong("a,b")),
            last_modified: Some(784_111_777),
        }
    }

    /// Fields and the expected outcome.
    type Row = (&'static [(&'static str, &'static str)], ConditionVerdict);

    const TABLE: &[Row] = &[
        (&[], Proceed),
        (&[("If-None-Match", "\"a,b\"")], NotModified),
        (&[("If-None-Match", "W/\"a,b\"")], NotModified),
        (&[("If-None-Match", "\"x\" ,, \"a,b\"")], NotModified),
        (&[("If-None-Match", "*")], NotModified),
        (&[("If-None-Match", "\"a\", \"b\"")], Proceed),
        (&[("If-None-Match", "a,b")], Proceed),
        (&[("If-Match", "\"a,b\"")], Proceed),
        (&[("If-Match", "*")], Proceed),
        (&[("If-Match", "W/\"a,b\"")], Failed),
        (&[("If-Match", "\"c\"")], Failed),
        (&[("If-Modified-Since", BEFORE)], Proceed),
        (&[("If-Modified-Since", AT)], NotModified),
        (&[("If-Modified-Since", AFTER)], NotModified),
        (&[("If-Modified-Since", "x")], Proceed),
        (&[("If-Unmodified-Since", BEFORE)], Failed),
        (&[("If-Unmodified-Since", AT)], Proceed),
        (
            &[("If-None-Match", "\"c\""), ("If-Modified-Since", AFTER)],
            Proceed,
        ),
        (
            &[("If-Match", "\"a,b\""), ("If-Unmodified-Since", BEFORE)],
            Proceed,
        ),
        (
            &[("If-None-Match", "\"a,b\""), ("If-Match", "\"c\"")],
            Failed,
        ),
        (
            &[("If-None-Match", "\"a,b\""), ("If-Match", "\"a,b\"")],
            NotModified,
        ),
    ];

    #[test]
    fn preconditions_follow_the_order_of_the_rfc() {
        for (fields, want) in TABLE {
            assert_eq!(
                evaluate(&headers(fields), &validators()),
                *want,
                "{fields:?}"
            );
        }
    }

    #[test]
    fn dates_are_ignored_without_a_modification_date() {
        let undated = Validators {
            last_modified: None,
            ..validators()
        };
        for name in ["If-Modified-Since", "If-Unmodified-Since"] {
            for date in [BEFORE, AFTER] {
                assert_eq!(evaluate(&headers(&[(name, date)]), &undated), Proceed);
            }
        }
    }

    #[test]
    fn if_range_needs_a_strong_match() {
        for (name, value, want) in [
            ("same", "\"a,b\"", true),
            ("weak", "W/\"a,b\"", false),
            ("other", "\"c\"", false),
            ("date", AT, true),
            ("other date", AFTER, false),
            ("nonsense", "x", false),
        ] {
            let fields = headers(&[("If-Range", value)]);
            assert_eq!(range_applies(&fields, &validators()), want, "{name}");
        }
        assert!(range_applies(&Headers::new(), &validators()));
        let bare = Validators::default();
        assert!(!range_applies(&headers(&[("If-Range", "x")]), &bare));
    }

    proptest! {
        #[test]
        fn tags_survive_emit_and_parse(opaque in "[!#-~]{0,20}", weak: bool) {
            let tag = EntityTag { weak, opaque };
            prop_assert_eq!(EntityTag::parse(tag.to_string().as_bytes()), Some(tag));
        }

        #[test]
        fn no_input_panics(value in "[^\r\n\0]{0,40}") {
            let fields = headers(&[("If-Match", &value), ("If-None-Match", &value)]);
            let _ = evaluate(&fields, &validators());
            let _ = range_applies(&headers(&[("If-Range", &value)]), &validators());
        }
    }
}
