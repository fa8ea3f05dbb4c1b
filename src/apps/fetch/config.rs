//! The options of a transfer, and the request head they result in.
//!
//! In: validated options. Out: the bytes of a request. Never emits a field with a line break.

use crate::apps::fetch::TransferFailure;
use crate::apps::fetch::output::Held;
use crate::apps::fetch::target::Target;
use crate::apps::fetch::verify::{GoOn, Sha256};
use crate::http::headers::{FieldError, Headers};
use crate::http::request::{Method, RequestHead};

/// Default `User-Agent`.
const USER_AGENT: &str = concat!("headwater/", env!("CARGO_PKG_VERSION"));

/// The options of a transfer.
#[derive(Clone, Debug)]
pub struct TransferConfig {
    /// GET or HEAD.
    pub method: Method,
    /// A byte range, as after `bytes=`; not used when resuming.
    pub range: Option<String>,
    /// Whether to follow redirects.
    pub follow: bool,
    /// Whether a status of 400 or above is a failure.
    pub fail: bool,
    /// Fields to add, or to replace default ones.
    pub headers: Vec<Field>,
    /// Most bytes of a request head.
    pub request_limit: usize,
    /// Whether to verify the body against the server's digest.
    pub verify: bool,
    /// Moves the digest computation elsewhere, such as to a thread.
    pub hasher: GoOn,
}

impl Default for TransferConfig {
    fn default() -> Self {
        Self {
            method: Method::Get,
            range: None,
            follow: false,
            fail: false,
            headers: Vec::new(),
            request_limit: usize::MAX,
            verify: true,
            hasher: Sha256::go_on,
        }
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
