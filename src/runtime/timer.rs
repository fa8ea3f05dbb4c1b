//! A timer of microsecond resolution for a loop whose `poll` counts milliseconds.
//!
//! mio rounds a timeout up to whole milliseconds, too coarse for pacing. In: how long to sleep;
//! out: a readable descriptor then. Sources: timerfd_create(2), epoll_wait(2).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Sleeps from here on may come up to a millisecond late: no pacing waits so long.
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

    /// Prepares to sleep for `pause` and returns the timeout to give to `poll`. Setting the timer
    /// also clears an expiry that was not read, so nothing needs to read it.
    pub(crate) fn arm(&self, pause: Duration) -> io::Result<Option<Duration>> {
        if pause.is_zero() || pause >= COARSE {
            return Ok(Some(pause));
        }
        self.arm_exactly(pause)?;
        // Should the timer fail to fire, `poll` still ends.
        Ok(Some(pause + Duration::from_millis(2)))
    }

    /// Makes the descriptor readable after `pause`, however long, but for zero, which disarms.
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

    /// Sleeps for `pause`, which is not zero, or until a signal comes.
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
