//! Status codes with their reason phrases (RFC 9110 §15).
//!
//! A [`Status`] is any three-digit code; only those this program sends have a phrase.

/// A three-digit status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Status(pub u16);

impl Status {
    /// 200.
    pub const OK: Self = Self(200);
    /// 206.
    pub const PARTIAL_CONTENT: Self = Self(206);
    /// 301.
    pub const MOVED_PERMANENTLY: Self = Self(301);
    /// 304.
    pub const NOT_MODIFIED: Self = Self(304);
    /// 400.
    pub const BAD_REQUEST: Self = Self(400);
    /// 403.
    pub const FORBIDDEN: Self = Self(403);
    /// 404.
    pub const NOT_FOUND: Self = Self(404);
    /// 405.
    pub const METHOD_NOT_ALLOWED: Self = Self(405);
    /// 412.
    pub const PRECONDITION_FAILED: Self = Self(412);
    /// 414.
    pub const URI_TOO_LONG: Self = Self(414);
    /// 416.
    pub const RANGE_NOT_SATISFIABLE: Self = Self(416);
    /// 431 (RFC 6585 §5).
    pub const HEADERS_TOO_LARGE: Self = Self(431);
    /// 500.
    pub const INTERNAL_ERROR: Self = Self(500);
    /// 501.
    pub const NOT_IMPLEMENTED: Self = Self(501);
    /// 502.
    pub const BAD_GATEWAY: Self = Self(502);
    /// 504.
    pub const GATEWAY_TIMEOUT: Self = Self(504);
    /// 505.
    pub const VERSION_NOT_SUPPORTED: Self = Self(505);

    /// The registered phrase, or an empty string.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self.0 {
            200 => "OK",
            206 => "Partial Content",
            301 => "Moved Permanently",
            304 => "Not Modified",
            400 => "Bad Request",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            412 => "Precondition Failed",
            414 => "URI Too Long",
            416 => "Range Not Satisfiable",
            431 => "Request Header Fields Too Large",
            500 => "Internal Server Error",
            501 => "Not Implemented",
            502 => "Bad Gateway",
            504 => "Gateway Timeout",
            505 => "HTTP Version Not Supported",
            _ => "",
        }
    }

    /// Whether another head follows: 100 ..= 199 (RFC 9110 §15.2).
    #[must_use]
    pub const fn is_interim(self) -> bool {
        self.0 / 100 == 1
    }

    /// Whether the status is 200 ..= 299.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 / 100 == 2
    }

    /// Whether the response never has a body (RFC 9112 §6.3 rule 1).
    #[must_use]
    pub const fn is_bodiless(self) -> bool {
        self.is_interim() || self.0 == 204 || self.0 == 304
    }
}
