//! The queue of a client's transfers, and its policy after a failure.
//!
//! In: URLs with their destinations, the outcome of each transfer. Out: the next transfer to begin,
//! and the first failure. One transfer runs at a time, in the order they were queued. Never does
//! I/O: the caller opens destinations and runs the [`Transfer`](super::Transfer)s.

use std::collections::VecDeque;

use crate::apps::fetch::target::Target;

/// Most queued transfers: more URLs than a command line of Linux (2 MiB) can hold.
pub const MAX_QUEUED: usize = 1 << 18;

/// One URL and the destination of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferJob<D> {
    /// The URL to fetch.
    pub target: Target,
    /// The destination of the body.
    pub destination: D,
}

/// The policy for transfers after a failed one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterFailure {
    /// Begin them: transfers do not depend on each other.
    #[default]
    Continue,
    /// Drop them.
    Stop,
}

/// The queue has [`MAX_QUEUED`] transfers. The caller is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_QUEUED} transfers are queued: fetch fewer URLs at a time")]
pub struct QueueFull;

/// Transfers in order; `D` is a destination, `E` the caller's error.
///
/// ```
/// use headwater::{AfterFailure, Target, TransferJob, TransferQueue};
///
/// let mut queue = TransferQueue::new(AfterFailure::Continue);
/// for (url, destination) in [("http://10.0.0.1/a", "a"), ("http://10.0.0.1/b", "b")] {
///     let target = Target::parse(url)?;
///     queue.push(TransferJob { target, destination })?;
/// }
/// let mut begun = Vec::new();
/// while let Some(job) = queue.begin_next() {
///     begun.push(job.destination);
///     queue.end(Err("connection refused"));
/// }
/// assert_eq!(begun, ["a", "b"]);
/// assert_eq!(queue.into_first_failure(), Some("connection refused"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct TransferQueue<D, E> {
    waiting: VecDeque<TransferJob<D>>,
    after_failure: AfterFailure,
    running: bool,
    first_failure: Option<E>,
}

impl<D, E> TransferQueue<D, E> {
    /// Creates an empty queue.
    #[must_use]
    pub const fn new(after_failure: AfterFailure) -> Self {
        Self {
            waiting: VecDeque::new(),
            after_failure,
            running: false,
            first_failure: None,
        }
    }

    /// Appends a transfer.
    ///
    /// # Errors
    /// [`QueueFull`]; the queue is unchanged.
    pub fn push(&mut self, job: TransferJob<D>) -> Result<(), QueueFull> {
        if self.waiting.len() >= MAX_QUEUED {
            return Err(QueueFull);
        }
        self.waiting.push_back(job);
        Ok(())
    }

    /// Takes the next transfer out; `None` while one is running and after the last.
    pub fn begin_next(&mut self) -> Option<TransferJob<D>> {
        if self.running {
            return None;
        }
        let job = self.waiting.pop_front();
        self.running = job.is_some();
        job
    }

    /// Ends the running transfer. A failure drops the queued ones with [`AfterFailure::Stop`].
    pub fn end(&mut self, outcome: Result<(), E>) {
        self.running = false;
        let Err(failure) = outcome else {
            return;
        };
        if self.after_failure == AfterFailure::Stop {
            self.waiting.clear();
        }
        self.first_failure.get_or_insert(failure);
    }

    /// Iterates over the queued transfers, in order.
    pub fn waiting(&self) -> impl Iterator<Item = &TransferJob<D>> {
        self.waiting.iter()
    }

    /// Returns the first failure, if any transfer failed.
    #[must_use]
    pub fn into_first_failure(self) -> Option<E> {
        self.first_failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(destination: u32) -> TransferJob<u32> {
        TransferJob {
            target: Target::parse("http://10.0.0.1/file").unwrap(),
            destination,
        }
    }

    fn queue(after_failure: AfterFailure, count: u32) -> TransferQueue<u32, &'static str> {
        let mut queue = TransferQueue::new(after_failure);
        for destination in 0..count {
            queue.push(job(destination)).unwrap();
        }
        queue
    }

    #[test]
    fn one_transfer_runs_at_a_time_and_in_order() {
        let mut queue = queue(AfterFailure::Continue, 2);
        assert_eq!(queue.begin_next(), Some(job(0)));
        assert_eq!(queue.begin_next(), None, "one is running");
        queue.end(Ok(()));
        assert_eq!(queue.begin_next(), Some(job(1)));
        queue.end(Ok(()));
        assert_eq!(queue.begin_next(), None, "none is left");
        assert_eq!(queue.into_first_failure(), None);
    }

    #[test]
    fn the_first_failure_is_kept_and_the_rest_goes_on_or_not() {
        for (after_failure, begun) in [(AfterFailure::Continue, 3), (AfterFailure::Stop, 1)] {
            let mut queue = queue(after_failure, 3);
            let mut failures = ["first", "second", "third"].into_iter();
            let mut count = 0;
            while queue.begin_next().is_some() {
                count += 1;
                queue.end(failures.next().map_or(Ok(()), Err));
            }
            assert_eq!(count, begun, "{after_failure:?}");
            assert_eq!(queue.waiting().count(), 0, "{after_failure:?}");
            assert_eq!(queue.into_first_failure(), Some("first"));
        }
    }

    #[test]
    fn a_transfer_that_ended_well_keeps_the_rest_in_a_queue_that_stops() {
        let mut queue = queue(AfterFailure::Stop, 2);
        queue.begin_next();
        queue.end(Ok(()));
        assert_eq!(queue.begin_next(), Some(job(1)));
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut queue = queue(AfterFailure::Continue, u32::try_from(MAX_QUEUED).unwrap());
        assert_eq!(queue.push(job(0)), Err(QueueFull));
        assert_eq!(queue.waiting().count(), MAX_QUEUED);
        queue.begin_next();
        assert_eq!(queue.push(job(0)), Ok(()), "one has left");
    }
}
