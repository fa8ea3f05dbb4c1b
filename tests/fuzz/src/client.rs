//! Target of `transport::client`: a live connection whose network does whatever the input says.
//!
//! In: any bytes, read as a list of events. Laws: nothing panics; the client comes to rest after
//! every event; its datagrams parse; no timer stands still; and as long as
//! nothing was forged, every byte is right and the stream comes to its end.

use headwater::internals::transport::application::MAX_STREAM_BYTES;
use headwater::internals::transport::client::ClientEvent;
use headwater::internals::wire::flight::Ecn;
use headwater::internals::wire::segment::{ResponseKind, ToClient, ToServer, Wait, put_chunk};

use super::input::{Input, mutate};
use super::session::Session;

/// Most things that happen.
const MAX_STEPS: usize = 200;

/// A client in a hostile network.
pub fn client(data: &[u8]) {
    let mut input = Input::new(data);
    let mut session = Session::new(input.u8() & 1 == 1, None);
    let mut forged = false;
    let request = format!("{} bytes", 1 + input.below(60_000));
    session.request(request.as_bytes());
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        session.now_us += u64::from(input.u8()) * 100;
        forged |= step(&mut input, &mut session);
        for datagram in &session.to_server {
            ToServer::parse(datagram).expect("what the client sends can be read");
            assert!(datagram.len() <= 1472);
        }
        // A network that holds back everything is not under test.
        session.to_server.truncate(256);
        session.to_client.truncate(1024);
    }
    settle(&mut session, forged);
}

/// Lets everything come to an end in peace.
fn settle(session: &mut Session, forged: bool) {
    if !forged {
        session.finish();
        assert!(session.intact, "a byte is wrong");
        assert!(session.ended == Some(ClientEvent::Finished) || session.now_us > 60_000_000);
        return;
    }
    // Lies of a server can end a stream in any way, but not keep the client busy without time
    // going by.
    let mut still = 0;
    for _ in 0..2_000 {
        if session.ended.is_some() {
            return;
        }
        let before = session.now_us;
        if let Some(datagram) = session.to_client.pop_front() {
            session.answer(Ecn::Ect0, &datagram);
        } else if let Some(datagram) = session.to_server.pop_front() {
            session.now_us += 1000;
            session.serve(&datagram);
        } else if !session.wait() {
            return;
        } else {
            still = if session.now_us == before {
                still + 1
            } else {
                0
            };
            assert!(
                still < 1000,
                "a timer that does not move: {:?}",
                session.client.poll_timeout()
            );
        }
    }
}

/// One thing that happens; whether it was a forgery.
fn step(input: &mut Input<'_>, session: &mut Session) -> bool {
    let index = |input: &mut Input<'_>, length: usize| input.below(length.max(1)) % 64;
    match input.u8() % 13 {
        0..=2 => {
            if let Some(datagram) = session.to_server.pop_front() {
                session.serve(&datagram);
            }
        }
        3..=5 => {
            let ecn = if input.u8() == 0xff {
                Ecn::Ce
            } else {
                Ecn::Ect0
            };
            if let Some(datagram) = session.to_client.pop_front() {
                session.answer(ecn, &datagram);
            }
        }
        6 => {
            let at = index(input, session.to_client.len());
            drop(session.to_client.remove(at));
        }
        7 => {
            let at = index(input, session.to_server.len());
            drop(session.to_server.remove(at));
        }
        8 => {
            // Late, or twice.
            let at = index(input, session.to_client.len());
            if let Some(datagram) = session.to_client.get(at).cloned() {
                session.answer(Ecn::Ect0, &datagram);
            }
        }
        9 => {
            session.wait();
        }
        10 => {
            let at = index(input, session.to_client.len());
            let Some(mut datagram) = session.to_client.get(at).cloned() else {
                return false;
            };
            mutate(input, &mut datagram);
            session.answer(Ecn::Ect0, &datagram);
            return true;
        }
        11 => {
            if let Some(datagram) = wait(input, session) {
                session.answer(Ecn::NotEct, &datagram);
            }
        }
        _ => {
            let at = index(input, session.to_client.len());
            let Some(datagram) = session.to_client.get(at).cloned() else {
                return false;
            };
            let datagram = altered(input, &datagram);
            session.answer(Ecn::Ect0, &datagram);
            return true;
        }
    }
    false
}

/// The request to wait for a flight under way, mostly.
fn wait(input: &mut Input<'_>, session: &Session) -> Option<Vec<u8>> {
    let at = input.below(session.to_server.len().max(1)) % 64;
    let Ok(ToServer::Request(request)) = ToServer::parse(session.to_server.get(at)?) else {
        return None;
    };
    let mut datagram = Vec::new();
    Wait {
        connection: request.connection,
        server: input.u16(),
        number: input.near(request.upto) as u32,
        stream: request.stream,
        delay_ms: input.u16(),
    }
    .emit(&mut datagram);
    Some(datagram)
}

/// The datagram with one field put to another value.
fn altered(input: &mut Input<'_>, datagram: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match ToClient::parse(datagram) {
        Ok(ToClient::Response(response)) => {
            let mut header = response.header;
            let mut user = response.user;
            match input.u8() % 9 {
                0 => header.number = input.near(header.number.into()) as u32,
                1 => header.x ^= input.number(),
                2 => header.void = input.u8(),
                3 => header.stream = input.u8(),
                4 => header.changed ^= true,
                5 => header.server = input.u16(),
                6 => {
                    if let ResponseKind::Opened { echo, size, count } = header.kind {
                        let size = input.near(size.into()) as u16;
                        let count = input.near(count.into()) as u8;
                        header.kind = ResponseKind::Opened { echo, size, count };
                    }
                }
                7 => {
                    if let Some(user) = &mut user {
                        let length = user.length.unwrap_or(MAX_STREAM_BYTES);
                        let length = input.near(length) % (1 << 48);
                        user.length = Some(length).filter(|_| input.u8() != 0);
                    }
                }
                _ => header.connection ^= input.number(),
            }
            header.multi = true;
            header.emit(&mut out, response.continuation, user);
            for (offset, bytes) in response.chunks() {
                let offset = if input.u8() == 0 {
                    input.number() % (1 << 48)
                } else {
                    offset
                };
                put_chunk(&mut out, offset, u16::try_from(bytes.len()).ok());
                out.extend(bytes);
            }
        }
        Ok(ToClient::Challenge(mut challenge)) => {
            challenge.moved ^= true;
            challenge.emit(&mut out);
        }
        Ok(ToClient::Probed(mut probed)) => {
            probed.probe ^= input.u32();
            probed.emit(&mut out);
        }
        Ok(ToClient::Wait(mut wait)) => {
            wait.number = input.near(wait.number.into()) as u32;
            wait.emit(&mut out);
        }
        Err(_) => out.extend(datagram),
    }
    out
}
