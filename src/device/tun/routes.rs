//! Host routes of a device, which stay although it is set down and up.
//!
//! In: the addresses to route; changes of the link. Out: routes. The kernel deletes the routes of a
//! device that is set down. A thread waits for the device to come up again, and puts back those that
//! are still wanted: a request of rtnetlink may wait for the kernel's lock, so it is not the loop that
//! makes it.

use std::collections::BTreeSet;
use std::io::{self, PipeReader, PipeWriter};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::device::tun::TunError;
use crate::device::tun::netlink::{Existing, Netlink};
use crate::device::tun::set_up::refused;

/// The host routes of an open [`Tun`](crate::Tun). Clones share them.
#[derive(Clone, Debug)]
pub struct TunRoutes(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    name: String,
    index: u32,
    /// At most `MAX_ADDRESSES`. Locked while requests are under way, so that the thread never adds a
    /// route that has just been withdrawn.
    wanted: Mutex<BTreeSet<IpAddr>>,
}

impl TunRoutes {
    /// Adds or deletes host routes to these addresses of the device. Waits for the kernel.
    ///
    /// # Errors
    /// The first error; the other routes are changed all the same.
    pub fn set(&self, addresses: &[IpAddr], present: bool) -> Result<(), TunError> {
        let Shared { name, index, .. } = &*self.0;
        let mut wanted = self.0.lock();
        let mut netlink = Netlink::open().map_err(|error| refused(name, "routes", error))?;
        let mut result = Ok(());
        for &address in addresses {
            let changed = if present {
                wanted.insert(address);
                netlink.add_route(address, *index, Existing::Replace)
            } else {
                wanted.remove(&address);
                netlink.delete_route(address, *index)
            };
            let changed =
                changed.map_err(|error| refused(name, &format!("route {address}"), error));
            result = result.and(changed);
        }
        result
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores the routes once the device is up again.
    fn restore(&self) {
        let name = &self.name;
        let wanted = self.lock();
        let restored = Netlink::open().and_then(|mut netlink| {
            wanted
                .iter()
                .try_for_each(|&address| netlink.add_route(address, self.index, Existing::Replace))
        });
        match restored {
            Ok(()) => log::warn!("{name} is up again: its host routes are restored"),
            Err(error) => log::error!(
                "{name} is up again, but its host routes cannot be restored ({error}): set it down and up"
            ),
        }
    }
}

/// The thread; it ends soon after this is dropped.
#[derive(Debug)]
pub(super) struct Keeper {
    routes: TunRoutes,
    _running: PipeWriter,
}

impl Keeper {
    /// Starts to keep the routes to `addresses`, which exist.
    pub(super) fn start(name: &str, index: u32, addresses: &[IpAddr]) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            index,
            wanted: Mutex::new(addresses.iter().copied().collect()),
        });
        let links = Netlink::watch_links()?;
        let (ended, running) = io::pipe()?;
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("routes".to_owned())
            .spawn(move || watch(links, &ended, &of_thread))?;
        Ok(Self {
            routes: TunRoutes(shared),
            _running: running,
        })
    }

    pub(super) fn routes(&self) -> TunRoutes {
        self.routes.clone()
    }
}

/// Waits for changes of the device until the other end of `ended` is closed.
fn watch(mut links: Netlink, ended: &PipeReader, shared: &Shared) {
    let mut up = true;
    loop {
        let mut ready = [
            PollFd::new(&links, PollFlags::IN),
            PollFd::new(ended, PollFlags::IN),
        ];
        match poll(&mut ready, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return log::error!("cannot watch {} ({error})", shared.name),
        }
        let [_, end] = ready;
        if !end.revents().is_empty() {
            return;
        }
        let changes = match links.link_changes(shared.index) {
            Ok(changes) => changes,
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::AGAIN) => continue,
                // Changes were lost: the device may have been down.
                Some(Errno::NOBUFS) => vec![false, true],
                _ => return log::error!("cannot watch {} ({error})", shared.name),
            },
        };
        for now_up in changes {
            if up && !now_up {
                log::warn!("{} is down: its host routes are gone", shared.name);
            } else if now_up && !up {
                shared.restore();
            }
            up = now_up;
        }
    }
}
