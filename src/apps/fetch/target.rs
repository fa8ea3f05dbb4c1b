//! URLs: an authority to connect to and a request target (RFC 9112 §3.2).
//!
//! In: a URL as typed, or a `Location` relative to another. Out: a [`Target`] whose parts are valid in
//! a request head. Does not resolve names.

use url::Url;

/// Longest accepted URL, in bytes: its path must fit an application request.
pub const MAX_URL_BYTES: usize = 8192;

/// Why a URL cannot be fetched; the user, or the server that redirected, is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Not a URL.
    #[error("malformed URL")]
    Malformed,
    /// A scheme other than `http`.
    #[error("unsupported protocol: only http URLs can be fetched")]
    Scheme,
    /// A user name or password, which would be sent in the clear.
    #[error("credentials in URLs are not supported")]
    Credentials,
    /// Longer than [`MAX_URL_BYTES`].
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
}

/// A parsed `http` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
}

impl Target {
    /// Parses a URL; like curl, allows to omit `http://`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn parse(text: &str) -> Result<Self, TargetError> {
        if text.len() > MAX_URL_BYTES {
            return Err(TargetError::TooLong);
        }
        // A query may hold a URL of its own.
        let is_scheme = |part: &str| {
            let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
            part.starts_with(|first: char| first.is_ascii_alphabetic()) && part.bytes().all(rest)
        };
        let absolute = text.split_once("://");
        let parsed = if absolute.is_some_and(|(scheme, _)| is_scheme(scheme)) {
            Url::parse(text)
        } else {
            Url::parse(&format!("http://{text}"))
        };
        Self::checked(parsed.map_err(|_| TargetError::Malformed)?)
    }

    /// Resolves a `Location` in the response to this URL (RFC 9110 §10.2.2).
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn join(&self, location: &str) -> Result<Self, TargetError> {
        if location.len() > MAX_URL_BYTES {
            return Err(TargetError::TooLong);
        }
        Self::checked(
            self.url
                .join(location)
                .map_err(|_| TargetError::Malformed)?,
        )
    }

    fn checked(url: Url) -> Result<Self, TargetError> {
        if url.scheme() != "http" {
            return Err(TargetError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        if url.host_str().is_none() {
            return Err(TargetError::Malformed);
        }
        Ok(Self { url })
    }

    /// The host: a name in lower case, `192.0.2.1` or `[2001:db8::1]`.
    #[must_use]
    pub fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.url.port_or_known_default().unwrap_or(80)
    }

    /// The value of the `Host` field (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        match self.url.port() {
            Some(port) => format!("{}:{port}", self.host()),
            None => self.host().to_owned(),
        }
    }

    /// The request target in origin form.
    #[must_use]
    pub fn path_and_query(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    /// The last path segment as the name of a local file, as written in the URL, like curl: it has no
    /// separator. `None` if there is no safe one.
    #[must_use]
    pub fn file_name(&self) -> Option<&str> {
        let name = self.url.path_segments()?.next_back()?;
        (!name.is_empty() && name != "." && name != "..").then_some(name)
    }
}

impl core::fmt::Display for Target {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.url.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        type Parts = (&'static str, u16, &'static str, &'static str);
        let cases: [(&str, Result<Parts, TargetError>); 12] = [
            (
                "http://10.0.0.1/a/b?c#d",
                Ok(("10.0.0.1", 80, "10.0.0.1", "/a/b?c")),
            ),
            ("10.0.0.1", Ok(("10.0.0.1", 80, "10.0.0.1", "/"))),
            (
                "http://[fd00::1]:8080/x",
                Ok(("[fd00::1]", 8080, "[fd00::1]:8080", "/x")),
            ),
            (
                "HTTP://Files/A%20b c",
                Ok(("files", 80, "files", "/A%20b%20c")),
            ),
            (
                "h:8080/x?u=http://y/",
                Ok(("h", 8080, "h:8080", "/x?u=http://y/")),
            ),
            ("h?u=http://y/", Ok(("h", 80, "h", "/?u=http://y/"))),
            ("http://h/a/../../b", Ok(("h", 80, "h", "/b"))),
            ("https://h/", Err(TargetError::Scheme)),
            ("file:///etc/passwd", Err(TargetError::Scheme)),
            ("http://u:p@h/", Err(TargetError::Credentials)),
            ("http://", Err(TargetError::Malformed)),
            ("http://[fd00::1/", Err(TargetError::Malformed)),
        ];
        for (text, want) in cases {
            let got = Target::parse(text);
            let got = got.as_ref().map(|target| {
                (
                    target.host(),
                    target.port(),
                    target.authority(),
                    target.path_and_query(),
                )
            });
            let want = want.map(|(host, port, authority, path)| {
                (host, port, authority.to_owned(), path.to_owned())
            });
            assert_eq!(got.map_err(|error| *error), want, "{text}");
        }
    }

    #[test]
    fn length_bound() {
        let longest = format!("http://h/{}", "a".repeat(MAX_URL_BYTES - 9));
        assert!(Target::parse(&longest).is_ok());
        assert_eq!(
            Target::parse(&format!("{longest}a")),
            Err(TargetError::TooLong)
        );
    }

    #[test]
    fn locations() {
        let base = Target::parse("http://10.0.0.1:81/dir/file").unwrap();
        let cases = [
            ("other", Ok("http://10.0.0.1:81/dir/other")),
            ("/top", Ok("http://10.0.0.1:81/top")),
            ("//10.0.0.2/x", Ok("http://10.0.0.2/x")),
            ("http://10.0.0.3/", Ok("http://10.0.0.3/")),
            ("https://10.0.0.3/", Err(TargetError::Scheme)),
        ];
        for (location, want) in cases {
            let got = base.join(location).map(|target| target.to_string());
            assert_eq!(got, want.map(str::to_owned), "{location}");
        }
    }

    #[test]
    fn file_names() {
        let cases = [
            ("http://h/a/b.iso?x=1", Some("b.iso")),
            ("http://h/a/", None),
            ("http://h", None),
            ("http://h/a/..%2f..%2fetc", Some("..%2f..%2fetc")),
        ];
        for (text, want) in cases {
            assert_eq!(Target::parse(text).unwrap().file_name(), want, "{text}");
        }
    }
}
