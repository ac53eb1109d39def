//! The threads that work on requests beside the device's own.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use super::shared::Shared;
use crate::devices::DetachedChain;

/// One request, and whose it is.
struct Job {
    shared: Arc<Shared>,
    queue: usize,
    chain: DetachedChain,
}

/// A few threads. They end when the pool is dropped. What waits for them is bounded
/// by the queues that it came from.
pub struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts `threads` threads called `name`. Each calls `on_start` first, to confine
    /// itself.
    ///
    /// # Errors
    /// What `on_start` returned, or that a thread could not be made.
    pub fn start(
        name: &str,
        threads: usize,
        on_start: impl Fn() -> io::Result<()> + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (jobs, receiver) = mpsc::channel();
        let receiver = Arc::new(Mutex::new(receiver));
        let (started, has_started) = mpsc::channel();
        for _ in 0..threads {
            let (receiver, started) = (Arc::clone(&receiver), started.clone());
            let on_start = on_start.clone();
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || {
                    let outcome = on_start();
                    let failed = outcome.is_err();
                    // The spawning thread waits for it.
                    let _ = started.send(outcome);
                    drop(started);
                    if !failed {
                        work(&receiver);
                    }
                })?;
        }
        drop(started);
        has_started.iter().collect::<io::Result<()>>()?;
        Ok(Self { jobs })
    }

    pub(super) fn hand_over(&self, shared: &Arc<Shared>, queue: usize, chain: DetachedChain) {
        shared.begin();
        let job = Job {
            shared: Arc::clone(shared),
            queue,
            chain,
        };
        // Without threads, which cannot be while the pool is there, it is done here.
        if let Err(mpsc::SendError(job)) = self.jobs.send(job) {
            job.run();
        }
    }
}

impl Job {
    fn run(self) {
        if let Some(done) = self.shared.answer(self.queue, self.chain) {
            self.shared.finish(done);
        }
        self.shared.end();
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // Held while waiting: the next thread waits for the lock instead.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job.run(),
            Err(mpsc::RecvError) => return,
        }
    }
}
