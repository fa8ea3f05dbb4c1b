//! A thread that reads hot files into memory, so that the loop never waits for a disk or a long copy.
//!
//! In: jobs of the origin, at most [`MAX_LOADING`] at a time. Out: contents, in the order of the
//! jobs. Separate from the workers, one of which may spend minutes on a large tree.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::apps::origin::hot::{Job, Loaded, Loader, MAX_LOADING};

/// The thread and its channels.
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
    /// The operating system's error.
    pub fn start() -> io::Result<Self> {
        // Neither channel can be full: a job counts as loading until its result is taken.
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
