//! Resolves a URL to an address and the head of a request.
//!
//! In: a URL as typed, a predicate on addresses. Out: the address and the request head, or a failure
//! with the remedy.

use std::net::IpAddr;

use crate::apps::fetch::target::Target;
use crate::cli::exit::{Exit, Failed};
use crate::http::request::{Method, RequestHead};
use crate::runtime::resolver::read_hosts;

/// A resolved request: the address to connect to and the head to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) address: IpAddr,
    /// The TCP port.
    pub(super) port: u16,
    pub(super) head: Vec<u8>,
}

/// Resolves a URL to the first address of its host that `reachable` accepts.
pub(super) fn ask(url: &str, reachable: impl Fn(IpAddr) -> bool) -> Result<Asked, Failed> {
    let bad = |error: &dyn core::fmt::Display| Failed::new(Exit::BadUrl, format!("{url}: {error}"));
    let target = Target::parse(url).map_err(|error| bad(&error))?;
    let host = target.host();
    let mut known = read_hosts().lookup(host).into_iter();
    let Some(address) = known.find(|address| reachable(*address)) else {
        let advice = format!(
            "could not resolve host {host} to an address of the family of an --address: use an IP \
             address as the host"
        );
        return Err(Failed::new(Exit::CannotResolve, advice));
    };
    let (path, authority) = (target.path_and_query(), target.authority());
    let head = RequestHead::emit(Method::Get, &path, &authority, &[]);
    Ok(Asked {
        address,
        port: target.port(),
        head: head.map_err(|error| bad(&error))?,
    })
}
