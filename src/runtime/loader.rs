//! A thread that reads hot files into memory, so that the loop never waits for a disk or a long copy.
//!
//! In: jobs of the origin, at most [`MAX_LOADING`] at a time. Out: contents, in the order of the jobs.
//! It must be a thread of its own: the one that digests may be busy with a large tree for minutes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::apps::origin::hot::{Job, Loaded, Loader, MAX_LOADING};

/// The thread, and the ways to and from it.
#[derive(Debug)]
pub struct ThreadLoader {
    /// `None` only while dropping.
    jobs: Option<SyncSender<Job>>,
    loaded: Receiver<Loaded>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ThreadLoader {
    /// Starts the thread.
    ///
    /// # Errors
    /// What the operating system says about it.
    pub fn start() -> io::Result<Self> {
        // Neither can be full: a job is under way until its outcome is taken.
        let (jobs, queue) = sync_channel::<Job>(MAX_LOADING);
        let (done, loaded) = sync_channel(MAX_LOADING);
        let stopped = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stopped);
        let thread = thread::Builder::new()
            .name("loader".to_owned())
            .spawn(move || {
                for job in queue {
                    let loaded = job.run(&mut || !told.load(Ordering::Relaxed));
                    if done.send(loaded).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            jobs: Some(jobs),
            loaded,
            stopped,
            thread: Some(thread),
        })
    }
}

impl Loader for ThreadLoader {
    fn load(&mut self, job: Job) -> bool {
        let sent = self.jobs.as_ref().map(|jobs| jobs.try_send(job));
        sent.is_some_and(|sent| sent.is_ok())
    }

    fn loaded(&mut self) -> Option<Loaded> {
        self.loaded.try_recv().ok()
    }
}

impl Drop for ThreadLoader {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the loader thread panicked");
        }
    }
}
