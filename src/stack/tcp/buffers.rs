//! Send buffers that grow with use, under one budget.
//!
//! In: the bytes that the host is about to send on a connection. Out: a buffer that suits them. A
//! connection begins with [`SMALLEST_SEND_BYTES`], may always have [`FLOOR_SEND_BYTES`], and shares
//! [`MAX_GROWN_BYTES`] with all others beyond that: each gets at most a fixed part of the rest, so
//! that many large downloads leave room for the next one. smoltcp cannot exchange a buffer, so a
//! connection with nothing in flight is replayed to a new socket.

use smoltcp::socket::tcp::{Socket, State};

use super::connection::{Side, TcpConnection, new_socket};
use super::replay::{Isns, Replay};
use super::{Connections, SERVER, SERVER_RECEIVE_BYTES, SERVER_SEND_BYTES, TcpId};
use crate::time::Instant;

/// Send buffer of a new connection, in bytes.
pub const SMALLEST_SEND_BYTES: usize = 4 << 10;

/// Send buffer that every connection may have, in bytes.
pub const FLOOR_SEND_BYTES: usize = 16 << 10;

/// Most bytes of all send buffers beyond [`FLOOR_SEND_BYTES`] each.
pub const MAX_GROWN_BYTES: usize = 256 << 20;

/// The part of the remaining budget that one connection may take.
const SHARE: usize = 64;

/// Most idle connections whose buffers one growing connection takes back.
const MAX_RECLAIMED: usize = 8;

impl Connections {
    /// Announces that the host will send `bytes`; zero if it has no more for now.
    pub(crate) fn expect_to_send(&mut self, now: Instant, id: TcpId, bytes: u64) {
        let Some(connection) = self.table.get_mut(&id) else {
            return;
        };
        let Side::Server { .. } = connection.side else {
            return;
        };
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        connection.wanted = bytes.min(SERVER_SEND_BYTES);
        let grown = connection.socket().send_capacity() > FLOOR_SEND_BYTES;
        if connection.wanted == 0 && grown {
            self.spare.insert(id);
        } else {
            self.spare.remove(&id);
        }
        self.grow(now, id);
    }

    /// Enlarges the send buffer of a connection that wants it and has nothing in flight.
    pub(super) fn grow(&mut self, now: Instant, id: TcpId) {
        let fits = |connection: &TcpConnection| {
            let socket = connection.socket();
            connection.wanted > socket.send_capacity() && is_replaceable(socket)
        };
        let Some(wanted) = self.table.get(&id).filter(|c| fits(c)).map(|c| c.wanted) else {
            return;
        };
        let size = self.allotment(now, wanted);
        let have = self.table.get(&id).map(|c| c.socket().send_capacity());
        match self.table.get_mut(&id) {
            Some(connection) if have.is_some_and(|have| size > have) => {
                self.grown -= beyond_floor(connection);
                resize(now, connection, size);
                self.grown += beyond_floor(connection);
            }
            // There is no more: its buffer stays.
            Some(connection) => connection.wanted = 0,
            None => {}
        }
    }

    /// Returns the size of a send buffer for a connection that wants `wanted` bytes.
    fn allotment(&mut self, now: Instant, wanted: usize) -> usize {
        let size = wanted.next_power_of_two().min(SERVER_SEND_BYTES);
        let beyond = size.saturating_sub(FLOOR_SEND_BYTES);
        for _ in 0..MAX_RECLAIMED {
            if beyond <= (MAX_GROWN_BYTES - self.grown) / SHARE || !self.reclaim(now) {
                break;
            }
        }
        let share = (MAX_GROWN_BYTES - self.grown) / SHARE;
        size.min(FLOOR_SEND_BYTES + share)
    }

    /// Takes back the buffer of the next idle connection; false if none is listed.
    fn reclaim(&mut self, now: Instant) -> bool {
        let Some(id) = self.spare.pop_first() else {
            return false;
        };
        if let Some(connection) = self.table.get_mut(&id)
            && is_replaceable(connection.socket())
        {
            self.grown -= beyond_floor(connection);
            resize(now, connection, SMALLEST_SEND_BYTES);
            self.grown += beyond_floor(connection);
        }
        true
    }
}

/// Bytes of a connection's buffer that count against the budget.
pub(super) fn beyond_floor(connection: &TcpConnection) -> usize {
    match connection.side {
        Side::Server { .. } => connection
            .socket()
            .send_capacity()
            .saturating_sub(FLOOR_SEND_BYTES),
        Side::Client => 0,
    }
}

/// Whether a socket can be replaced: open for sending, and with nothing in flight.
fn is_replaceable(socket: &Socket<'_>) -> bool {
    let open = matches!(socket.state(), State::Established | State::CloseWait);
    open && socket.send_queue() == 0
}

/// Replays a connection to a socket with a send buffer of `size` bytes. Bytes that the host has not
/// read yet are replayed too; those received out of order are not, and the peer sends them again.
fn resize(now: Instant, connection: &mut TcpConnection, size: usize) -> Option<()> {
    let Side::Server { isns, offer } = connection.side else {
        return None;
    };
    let low = |count: u64| u32::try_from(count & u64::from(u32::MAX)).unwrap_or(0);
    let isns = Isns {
        local: isns.local.wrapping_add(low(connection.acknowledged())),
        remote: isns.remote.wrapping_add(low(connection.received())),
    };
    let socket = new_socket(SERVER_RECEIVE_BYTES, size, SERVER);
    let mut replay = Replay::begin(now, connection.pair, isns, offer, socket)?;
    let mut unread = vec![0; connection.socket().recv_queue()];
    let finished = connection.socket().state() == State::CloseWait;
    connection.socket_mut().peek_slice(&mut unread).ok()?;
    let mut header = replay.header(isns.remote.wrapping_add(1), connection.window);
    (header.ack, header.fin) = (true, finished);
    header.acknowledgment_number = isns.local.wrapping_add(1);
    replay.feed(now, header, &unread)?;
    connection.replace(replay.sockets, isns, offer);
    Some(())
}
