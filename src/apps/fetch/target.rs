//! URLs: an authority to connect to and a request target (RFC 9112 §3.2).
//!
//! In: a URL as typed, or a `Location` relative to another. Out: a [`Target`] whose parts are valid in
//! a request head. Does not resolve names. A link-local address may have a zone (RFC 6874), which is not
//! part of the request.

use std::net::Ipv6Addr;

use url::Url;

/// Longest accepted URL, in bytes: its path must fit an application request.
pub const MAX_URL_BYTES: usize = 8192;

/// Longest zone of an address, in bytes: that of the name of an interface of Linux.
const MAX_ZONE_BYTES: usize = 15;

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
    /// A zone of an address that has none, or that is not the name of an interface.
    #[error("only IPv6 addresses of a link have a zone: [fe80::1%25eth0]")]
    Zone,
    /// Longer than [`MAX_URL_BYTES`].
    #[error("the URL is longer than {MAX_URL_BYTES} bytes")]
    TooLong,
}

/// A parsed `http` URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    url: Url,
    /// The zone of its address: an interface.
    zone: Option<String>,
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
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme, rest),
            Some(_) | None => ("http", text),
        };
        let (rest, zone) = without_zone(rest)?;
        let parsed = Url::parse(&format!("{scheme}://{rest}"));
        Self::checked(parsed.map_err(|_| TargetError::Malformed)?, zone)
    }

    /// Resolves a `Location` in the response to this URL (RFC 9110 §10.2.2).
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn join(&self, location: &str) -> Result<Self, TargetError> {
        if location.len() > MAX_URL_BYTES {
            return Err(TargetError::TooLong);
        }
        let joined = self.url.join(location);
        let joined = joined.map_err(|_| TargetError::Malformed)?;
        // No server knows the zones of its client.
        let same_host = joined.host() == self.url.host();
        Self::checked(joined, self.zone.clone().filter(|_| same_host))
    }

    fn checked(url: Url, zone: Option<String>) -> Result<Self, TargetError> {
        if url.scheme() != "http" {
            return Err(TargetError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TargetError::Credentials);
        }
        if url.host_str().is_none() {
            return Err(TargetError::Malformed);
        }
        let of_link = |address: Ipv6Addr| address.is_unicast_link_local();
        let is_of_link = matches!(url.host(), Some(url::Host::Ipv6(address)) if of_link(address));
        if zone.is_some() && !is_of_link {
            return Err(TargetError::Zone);
        }
        Ok(Self { url, zone })
    }

    /// The zone of a link-local address: the interface of its link.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
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
        match (&self.zone, self.url.as_str().split_once(']')) {
            (Some(zone), Some((host, rest))) => write!(f, "{host}%25{zone}]{rest}"),
            _ => self.url.fmt(f),
        }
    }
}

/// Splits the zone off the address in brackets with which a URL begins after its scheme. Like curl, takes a `%` that
/// is not encoded, too.
fn without_zone(text: &str) -> Result<(String, Option<String>), TargetError> {
    let authority = text.split(['/', '?', '#']).next().unwrap_or_default();
    let address = authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'));
    let Some((address, zone)) = address.and_then(|(inner, _)| inner.split_once('%')) else {
        return Ok((text.to_owned(), None));
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let name = zone.strip_prefix("25").filter(|name| !name.is_empty());
    let name = name.unwrap_or(zone);
    if !(1..=MAX_ZONE_BYTES).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(TargetError::Zone);
    }
    let rest = text.get(1 + address.len() + 1 + zone.len()..);
    let rest = rest.unwrap_or_default();
    Ok((format!("[{address}{rest}"), Some(name.to_owned())))
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
    fn zones() {
        for (text, zone) in [
            ("http://[fe80::1%25eth0]:81/a%20b", "eth0"),
            ("[fe80::1%eth0.1]", "eth0.1"),
            ("http://[FE80::1%25]/", "25"),
            ("http://[fe80::1%3]/", "3"),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!(
                (target.zone(), target.host()),
                (Some(zone), "[fe80::1]"),
                "{text}"
            );
            let shown = Target::parse(&target.to_string());
            assert_eq!(shown.as_ref(), Ok(&target), "{text}");
            assert_eq!(target.join("/x").unwrap().zone(), Some(zone));
            assert_eq!(target.join("http://[fe80::2]/").unwrap().zone(), None);
        }
        assert_eq!(
            Target::parse("http://[fe80::1%25e]:81/")
                .unwrap()
                .authority(),
            "[fe80::1]:81"
        );
        assert_eq!(
            Target::parse("http://h/[fe80::1%25e]").unwrap().zone(),
            None
        );
        for text in [
            "[2001:db8::1%25eth0]",
            "[fe80::1%]",
            "[fe80::1%25a b]",
            "[fe80::1%25abcdefghijklmnop]",
            "[fe80::1%25a%2fb]",
        ] {
            assert_eq!(Target::parse(text), Err(TargetError::Zone), "{text}");
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
