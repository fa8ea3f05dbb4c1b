//! Requests to the kernel over rtnetlink: addresses, routes and the settings of a device.
//!
//! In: requests, one at a time. Out: their answers, or the kernel's error. Needs no program beside this
//! one, so that a capability of the file suffices (`setcap cap_net_admin=ep`). A request waits for the
//! kernel's lock on its network configuration: none belongs on the loop.
//! Sources: rtnetlink(7), netlink(7); `ip monitor` and `ip route` of iproute2 for the values.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::io::Errno;
use rustix::net::netdevice::{index_to_name, name_to_index};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily as SocketFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv,
    sendto, socket_with,
};

/// Longest wait for an answer; the kernel gives it before `sendto` returns.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Longest datagram of the kernel (`NLMSG_GOODSIZE`, 32 KiB since Linux 4.9), and more.
const BUFFER_BYTES: usize = 1 << 16;

/// Multicast group of the changes of links (`RTMGRP_LINK`).
const LINK_GROUP: u32 = 1;

/// Bytes of a message's header.
const HEADER_BYTES: usize = 16;

/// A socket to the kernel's network configuration.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The treatment of a route that exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// Fail with `EEXIST`.
    Keep,
    /// Put the new one in its place.
    Replace,
}

impl Netlink {
    /// Opens a socket for requests.
    pub(super) fn open() -> io::Result<Self> {
        let netlink = Self::bound(0, SocketFlags::CLOEXEC)?;
        set_socket_timeout(&netlink.socket, Timeout::Recv, Some(ANSWER_TIME))?;
        Ok(netlink)
    }

    /// Opens a socket that receives the changes of links, without blocking.
    pub(super) fn watch_links() -> io::Result<Self> {
        Self::bound(LINK_GROUP, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    fn bound(groups: u32, flags: SocketFlags) -> io::Result<Self> {
        let socket = socket_with(SocketFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// The index of a device.
    pub(super) fn index_of(&self, name: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.socket, name)?)
    }

    /// The name of a device, or its index if it has just vanished.
    pub(super) fn name_of(&self, index: u32) -> String {
        index_to_name(&self.socket, index).unwrap_or_else(|_| index.to_string())
    }

    /// Finds the device to which the kernel itself has assigned `address`.
    pub(super) fn owner(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        let mut owner = None;
        let all = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.request(NLM_F_DUMP, all, |answer| {
            let RouteNetlinkMessage::NewAddress(held) = answer else {
                return;
            };
            let mut local = None;
            for attribute in &held.attributes {
                if let AddressAttribute::Local(own) = attribute {
                    local = Some(*own);
                } else if let AddressAttribute::Address(own) = attribute {
                    // Of a point-to-point link it is the peer's; the own one has the other attribute.
                    local.get_or_insert(*own);
                }
            }
            if local == Some(address) {
                owner = Some(held.header.index);
            }
        })?;
        Ok(owner)
    }

    /// Finds the device of the host route to `address`; `Some(None)` if it leads to none.
    pub(super) fn host_route(&mut self, address: IpAddr) -> io::Result<Option<Option<u32>>> {
        let mut found = None;
        let mut wanted = RouteMessage::default();
        wanted.header = RouteHeader {
            address_family: family(address),
            destination_prefix_length: bits(address),
            flags: RouteFlags::FibMatch,
            ..RouteHeader::default()
        };
        wanted
            .attributes
            .push(RouteAttribute::Destination(RouteAddress::from(address)));
        let asked = self.request(0, RouteNetlinkMessage::GetRoute(wanted), |answer| {
            let RouteNetlinkMessage::NewRoute(route) = answer else {
                return;
            };
            if route.header.destination_prefix_length == bits(address) {
                let index = |attribute: &RouteAttribute| {
                    if let RouteAttribute::Oif(index) = attribute {
                        return Some(*index);
                    }
                    None
                };
                let device = route.attributes.iter().find_map(index);
                found = Some(device);
            }
        });
        match asked.map_err(|error| Errno::from_io_error(&error).ok_or(error)) {
            // No route at all, or one that rejects packets.
            Err(Ok(Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::ACCESS | Errno::INVAL)) => {
                Ok(None)
            }
            Err(Ok(error)) => Err(error.into()),
            Err(Err(error)) => Err(error),
            Ok(()) => Ok(found),
        }
    }

    /// Sets the MTU and the length of the transmit queue of a device.
    pub(super) fn set_size(&mut self, index: u32, mtu: u16, slots: u32) -> io::Result<()> {
        let mut link = of_link(index);
        link.attributes = vec![
            LinkAttribute::Mtu(mtu.into()),
            LinkAttribute::TxQueueLen(slots),
        ];
        self.change(link)
    }

    /// Keeps the kernel from generating a link-local address; no error where there is no IPv6.
    pub(super) fn no_own_address(&mut self, index: u32) -> io::Result<()> {
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let mut link = of_link(index);
        link.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
            vec![mode],
        )])];
        match self.change(link) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AFNOSUPPORT) => Ok(()),
            changed => changed,
        }
    }

    /// Sets a device up, without multicast.
    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut link = of_link(index);
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up | LinkFlags::Multicast;
        self.change(link)
    }

    fn change(&mut self, link: LinkMessage) -> io::Result<()> {
        self.request(0, RouteNetlinkMessage::SetLink(link), |_| {})
    }

    /// Adds a host route over a device.
    pub(super) fn add_route(
        &mut self,
        address: IpAddr,
        index: u32,
        existing: Existing,
    ) -> io::Result<()> {
        let flags = NLM_F_CREATE
            | match existing {
                Existing::Keep => NLM_F_EXCL,
                Existing::Replace => NLM_F_REPLACE,
            };
        let route = RouteNetlinkMessage::NewRoute(host_route(address, index));
        self.request(flags, route, |_| {})
    }

    /// Deletes a host route over a device, if there is one.
    pub(super) fn delete_route(&mut self, address: IpAddr, index: u32) -> io::Result<()> {
        let route = RouteNetlinkMessage::DelRoute(host_route(address, index));
        match self.request(0, route, |_| {}) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(()),
            deleted => deleted,
        }
    }

    /// Sends a request, passes the answers to `each`, and returns the kernel's verdict.
    fn request(
        &mut self,
        flags: u16,
        message: RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut request = NetlinkMessage::new(header, NetlinkPayload::from(message));
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &bytes, SendFlags::empty(), &kernel)?;
        loop {
            let sequence = self.sequence;
            let mut verdict = None;
            self.receive(|header, payload| {
                if header.sequence_number != sequence {
                    return;
                }
                if let NetlinkPayload::InnerMessage(answer) = payload {
                    each(answer);
                } else if let NetlinkPayload::Done(_) = payload {
                    verdict = Some(Ok(()));
                } else if let NetlinkPayload::Error(error) = payload {
                    let failed = error.code.map(|_| error.to_io());
                    verdict = Some(failed.map_or(Ok(()), Err));
                }
            })?;
            if let Some(verdict) = verdict {
                return verdict;
            }
        }
    }

    /// Receives changes of the link `index`, and returns whether it is up after each.
    pub(super) fn link_changes(&mut self, index: u32) -> io::Result<Vec<bool>> {
        let mut changes = Vec::new();
        self.receive(|_, payload| {
            if let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) = payload
                && link.header.index == index
            {
                changes.push(link.header.flags.contains(LinkFlags::Up));
            }
        })?;
        Ok(changes)
    }

    /// Receives one datagram; ignores messages that cannot be parsed.
    fn receive(
        &mut self,
        mut each: impl FnMut(&NetlinkHeader, NetlinkPayload<RouteNetlinkMessage>),
    ) -> io::Result<()> {
        let (_, length) = loop {
            match recv(&self.socket, &mut *self.buffer, RecvFlags::empty()) {
                Err(Errno::INTR) => {}
                received => break received?,
            }
        };
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        while let Some(length) = rest.first_chunk().copied().map(u32::from_ne_bytes) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let Some(message) = rest.get(..length).filter(|_| length >= HEADER_BYTES) else {
                break;
            };
            if let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
                each(&message.header, message.payload);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn of_link(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

/// A host route as `ip route` makes it.
fn host_route(address: IpAddr, index: u32) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header = RouteHeader {
        address_family: family(address),
        destination_prefix_length: bits(address),
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Boot,
        scope: match address {
            IpAddr::V4(_) => RouteScope::Link,
            IpAddr::V6(_) => RouteScope::Universe,
        },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    route.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(address)),
        RouteAttribute::Oif(index),
    ];
    route
}

const fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

const fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no privilege: it reads the configuration of the namespace that the tests run in.
    #[test]
    fn the_kernel_answers() {
        let mut netlink = Netlink::open().unwrap();
        let loopback = netlink.index_of("lo").unwrap();
        assert_eq!(netlink.name_of(loopback), "lo");
        let missing = netlink.index_of("no-such-device").unwrap_err();
        assert_eq!(Errno::from_io_error(&missing), Some(Errno::NODEV));
        let documentation = "192.0.2.77".parse().unwrap();
        assert_eq!(netlink.owner(documentation).unwrap(), None);
        assert_eq!(netlink.host_route(documentation).unwrap(), None);
        assert_eq!(
            netlink.host_route("2001:db8::77".parse().unwrap()).unwrap(),
            None
        );
        let local = "127.0.0.1".parse().unwrap();
        // Where the loopback device is up, it has its address and a route to it.
        if let Some(owner) = netlink.owner(local).unwrap() {
            assert_eq!(owner, loopback);
        }
    }

    #[test]
    fn the_kernel_refuses() {
        let mut netlink = Netlink::open().unwrap();
        let error = netlink.set_up(u32::MAX >> 1).unwrap_err();
        let errno = Errno::from_io_error(&error);
        assert!(matches!(errno, Some(Errno::NODEV | Errno::PERM)), "{error}");
    }

    #[test]
    fn quiet_links_change_nothing() {
        let mut netlink = Netlink::watch_links().unwrap();
        let error = netlink.link_changes(u32::MAX).err();
        // Another device of the namespace may change meanwhile.
        assert!(error.is_none_or(|error| error.kind() == io::ErrorKind::WouldBlock));
    }
}
