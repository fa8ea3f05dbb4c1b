//! From a URL to whom is asked, and in what words.
//!
//! In: a URL as typed, and which addresses can be reached. Out: an address, and the head of a
//! request; or a failure whose line says what to do.

use std::net::IpAddr;
use std::path::Path;

use crate::apps::fetch::target::Target;
use crate::cli::exit::{Exit, Failed};
use crate::cli::hosts::{HOSTS, Hosts};
use crate::http::request::{Method, RequestHead};

/// What is asked for, and of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) address: IpAddr,
    /// The TCP port.
    pub(super) port: u16,
    pub(super) head: Vec<u8>,
}

/// Reads a URL; `reachable` tells which addresses of its host will do.
pub(super) fn ask(url: &str, reachable: impl Fn(IpAddr) -> bool) -> Result<Asked, Failed> {
    let bad = |error: &dyn core::fmt::Display| Failed::new(Exit::BadUrl, format!("{url}: {error}"));
    let target = Target::parse(url).map_err(|error| bad(&error))?;
    let host = target.host();
    let mut known = Hosts::read(Path::new(HOSTS)).lookup(host).into_iter();
    let Some(address) = known.find(|address| reachable(*address)) else {
        let advice = format!(
            "{host} has no address of the family of an --address: use an IP address as the host"
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
