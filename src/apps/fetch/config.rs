//! The options of a transfer, and the request head they result in.
//!
//! In: validated options. Out: the bytes of a request. Never emits a field with a line break.

use crate::apps::fetch::TransferFailure;
use crate::apps::fetch::output::Held;
use crate::apps::fetch::target::Target;
use crate::apps::fetch::verify::{GoOn, Sha256};
use crate::http::headers::{FieldError, Headers};
use crate::http::request::{Method, RequestHead};
use crate::transport::application::MAX_REQUEST_BYTES;

/// Default `User-Agent`.
const USER_AGENT: &str = concat!("headwater/", env!("CARGO_PKG_VERSION"));

/// The options of a transfer; see [`builder`](Self::builder).
#[derive(Clone, Debug)]
pub struct TransferConfig {
    /// GET or HEAD.
    pub(crate) method: Method,
    /// A byte range, as after `bytes=`; not used when resuming.
    pub(crate) range: Option<String>,
    /// Whether to follow redirects.
    pub(crate) follow: bool,
    /// Whether a status of 400 or above is a failure.
    pub(crate) fail: bool,
    /// Fields to add, or to replace default ones.
    pub(crate) headers: Vec<Field>,
    /// Most bytes of a request head.
    pub(crate) request_limit: usize,
    /// Whether to verify the body against the server's digest.
    pub(crate) verify: bool,
    /// Moves the digest computation elsewhere, such as to a thread.
    pub(crate) hasher: GoOn,
}

impl Default for TransferConfig {
    fn default() -> Self {
        Self {
            method: Method::Get,
            range: None,
            follow: false,
            fail: false,
            headers: Vec::new(),
            request_limit: MAX_REQUEST_BYTES,
            verify: true,
            hasher: Sha256::go_on,
        }
    }
}

impl TransferConfig {
    /// Starts a configuration with the defaults: a GET of the whole object, with digest verification.
    pub fn builder() -> TransferBuilder {
        TransferBuilder(Self::default())
    }
}

/// Why a configuration is invalid. The caller is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferConfigError {
    /// The range is malformed.
    #[error("range `{have}`: use FIRST-LAST, FIRST- or -LENGTH, in bytes from 0")]
    Range {
        /// The range given.
        have: String,
    },
    /// A range with a method whose response has no body.
    #[error("a range of a HEAD request: use GET, or no range")]
    RangeOfHead,
}

/// Builds a [`TransferConfig`].
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct TransferBuilder(TransferConfig);

impl TransferBuilder {
    /// Sets the method. Default: [`Method::Get`].
    pub const fn method(mut self, method: Method) -> Self {
        self.0.method = method;
        self
    }

    /// Sets the range of the object to request: `FIRST-LAST`, `FIRST-` or `-LENGTH`, in bytes from 0.
    /// Default: the whole object.
    pub fn range(mut self, range: impl Into<Option<String>>) -> Self {
        self.0.range = range.into();
        self
    }

    /// Sets whether the transfer follows redirects, at most 10. Default: `false`.
    pub const fn follow(mut self, follow: bool) -> Self {
        self.0.follow = follow;
        self
    }

    /// Sets whether a status of 400 or above is a failure; otherwise its body is the object. Default:
    /// `false`.
    pub const fn fail(mut self, fail: bool) -> Self {
        self.0.fail = fail;
        self
    }

    /// Sets header fields to add, or to replace default ones. Default: none.
    pub fn headers(mut self, headers: impl Into<Vec<Field>>) -> Self {
        self.0.headers = headers.into();
        self
    }

    /// Sets the longest request head in bytes. Default: [`MAX_REQUEST_BYTES`], the bound of our
    /// transport.
    pub const fn request_limit(mut self, bytes: usize) -> Self {
        self.0.request_limit = bytes;
        self
    }

    /// Sets whether the transfer verifies the body against the server's digest. Default:
    /// `true`.
    pub const fn verify(mut self, verify: bool) -> Self {
        self.0.verify = verify;
        self
    }

    /// Sets the function that moves the digest elsewhere, such as to a thread. Default: in place.
    pub fn hasher(mut self, hasher: GoOn) -> Self {
        self.0.hasher = hasher;
        self
    }

    /// Checks every value and returns the configuration.
    ///
    /// # Errors
    /// [`TransferConfigError`].
    pub fn build(self) -> Result<TransferConfig, TransferConfigError> {
        let Self(config) = self;
        if let Some(range) = &config.range {
            if !is_range(range) {
                return Err(TransferConfigError::Range {
                    have: range.clone(),
                });
            }
            if config.method == Method::Head {
                return Err(TransferConfigError::RangeOfHead);
            }
        }
        Ok(config)
    }
}

/// Whether `text` is `FIRST-LAST`, `FIRST-` or `-LENGTH`, as behind `bytes=` (RFC 9110 §14.1.2).
#[must_use]
pub fn is_range(text: &str) -> bool {
    let Some((first, last)) = text.split_once('-') else {
        return false;
    };
    let number = |text: &str| -> Option<u64> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits)
    };
    match (first.is_empty(), last.is_empty()) {
        (true, true) => false,
        (true, false) => number(last).is_some(),
        (false, true) => number(first).is_some(),
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) => first <= last,
            (_, None) | (None, _) => false,
        },
    }
}

/// A header field set by the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, a token.
    pub name: String,
    /// Its value; `None` removes a default field.
    pub value: Option<String>,
}

impl Field {
    /// Parses `Name: value`, `Name:` to remove a default field, or `Name;` for an empty value, like
    /// curl.
    ///
    /// # Errors
    /// [`FieldError`] if the field is not valid in a request head.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let (name, value) = match (text.split_once(':'), text.strip_suffix(';')) {
            (Some((name, value)), _) => {
                (name, Some(value.trim()).filter(|value| !value.is_empty()))
            }
            (None, Some(name)) => (name, Some("")),
            (None, None) => return Err(FieldError::Name),
        };
        Headers::new().push(name, value.unwrap_or_default().as_bytes())?;
        Ok(Self {
            name: name.to_owned(),
            value: value.map(str::to_owned),
        })
    }
}

impl TransferConfig {
    /// Emits a request; `resume`: the bytes held, to request the rest.
    pub(super) fn emit(
        &self,
        method: Method,
        target: &Target,
        resume: Option<&Held>,
    ) -> Result<Vec<u8>, TransferFailure> {
        let range = match resume {
            Some(held) => Some(format!("bytes={}-", held.bytes)),
            None if method == Method::Get => {
                self.range.as_ref().map(|range| format!("bytes={range}"))
            }
            None => None,
        };
        let mut fields: Vec<(&str, &str)> = vec![("User-Agent", USER_AGENT)];
        if let Some(range) = &range {
            fields.push(("Range", range));
        }
        if let Some(etag) = resume.and_then(|held| held.etag.as_deref()) {
            fields.push(("If-Range", etag));
        }
        fields.retain(|(name, _)| !self.names(name));
        let own = self
            .headers
            .iter()
            .filter(|field| !field.name.eq_ignore_ascii_case("host"));
        fields.extend(own.filter_map(|field| Some((field.name.as_str(), field.value.as_deref()?))));
        let host = self
            .headers
            .iter()
            .find(|field| field.name.eq_ignore_ascii_case("host"));
        let host = host
            .and_then(|field| field.value.clone())
            .unwrap_or(target.authority());
        let head = RequestHead::emit(method, &target.path_and_query(), &host, &fields)?;
        if head.len() > self.request_limit {
            return Err(TransferFailure::RequestTooLong {
                have: head.len(),
                limit: self.request_limit,
            });
        }
        Ok(head)
    }

    fn names(&self, name: &str) -> bool {
        self.headers
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_checked() {
        let with = |range: &str| TransferConfig::builder().range(range.to_owned());
        for range in ["0-0", "1-2", "5-", "-5"] {
            assert!(with(range).build().is_ok(), "{range}");
        }
        for range in ["", "-", "2-1", "x-", "+1-2", "1-2,4-5", "1"] {
            let have = range.to_owned();
            let refused = with(range).build().err();
            assert_eq!(
                refused,
                Some(TransferConfigError::Range { have }),
                "{range}"
            );
        }
        let head = with("1-2").method(Method::Head).build().err();
        assert_eq!(head, Some(TransferConfigError::RangeOfHead));
    }
}
