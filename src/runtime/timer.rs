//! A timer of microsecond resolution for a loop whose `poll` counts milliseconds.
//!
//! mio rounds a timeout up to whole milliseconds, too coarse for pacing. In: the length of a sleep.
//! Out: a descriptor that becomes readable at its end. Sources: timerfd_create(2), epoll_wait(2).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Sleeps from which on a millisecond of delay is acceptable: longer than any pacing interval.
const COARSE: Duration = Duration::from_millis(100);

/// The timer.
#[derive(Debug)]
pub(crate) struct Timer {
    descriptor: OwnedFd,
}

impl Timer {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            descriptor: timerfd_create(TimerfdClockId::Monotonic, flags)?,
        })
    }

    /// Arms the timer for `pause` and returns the timeout for `poll`. Arming also clears an unread
    /// expiry, so the descriptor is never read.
    pub(crate) fn arm(&self, pause: Duration) -> io::Result<Option<Duration>> {
        if pause.is_zero() || pause >= COARSE {
            return Ok(Some(pause));
        }
        self.arm_exactly(pause)?;
        // A fallback, should the timer fail to fire.
        Ok(Some(pause + Duration::from_millis(2)))
    }

    /// Makes the descriptor readable after `pause`, of any length; zero disarms the timer.
    pub(crate) fn arm_exactly(&self, pause: Duration) -> io::Result<()> {
        let nanos = i64::from(pause.subsec_nanos());
        let seconds = i64::try_from(pause.as_secs()).unwrap_or(i64::MAX);
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: seconds,
                tv_nsec: nanos,
            },
        };
        timerfd_settime(&self.descriptor, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Sleeps for `pause`, which must not be zero, or until a signal arrives.
    pub(crate) fn sleep(&self, pause: Duration) -> io::Result<()> {
        self.arm_exactly(pause)?;
        let mut expiry = [PollFd::new(&self.descriptor, PollFlags::IN)];
        match poll(&mut expiry, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}
