//! Devices as vhost-user back-ends: the same models beside QEMU, which has the
//! virtual machine's memory in a shared memfd and hands it over a unix socket.
//!
//! Used by the QEMU driver in `app/machine`, in its own process. The front-end
//! (QEMU) is trusted as far as memory mappings and queue addresses go; the guest
//! behind it is not.

mod config_change;

use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
};

use rustix::event::{PollFd, PollFlags};
use vhost::vhost_user::{Listener, message::VhostUserProtocolFeatures};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringMutex, VringT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic};
use vmm_sys_util::{
    epoll::EventSet,
    event::{EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier},
    eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd},
};

pub use self::config_change::ConfigChange;
use super::TRANSPORT_FEATURES;
use crate::devices::{GuestMemory, VirtioDevice, Virtqueues};

/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL_FEATURES: u64 = 1 << 30;

/// The largest queue. QEMU's virtio-mmio offers its driver this much (its
/// `VIRTQUEUE_MAX_SIZE`), whatever the back-end would prefer.
const MAX_QUEUE_SIZE: usize = 1024;

type Memory = GuestMemoryAtomic<GuestMemory>;
type Vring = VringMutex<Memory>;

/// A back-end that waits for its front-end, or serves it.
pub struct Server {
    stop: EventFd,
    thread: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Waits until the front-end has gone.
    ///
    /// # Errors
    /// Why it could not be served.
    pub fn wait(self) -> io::Result<()> {
        self.thread
            .join()
            .map_err(|_| io::Error::other("a vhost-user back-end panicked"))?
    }

    /// Stops waiting for a front-end. One that is connected is served until it
    /// goes: stop QEMU first.
    ///
    /// # Errors
    /// As for [`Self::wait`].
    pub fn stop(self) -> io::Result<()> {
        self.stop.write(1)?;
        self.wait()
    }

    /// Whether it has ended: the front-end has gone, or it failed.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// Serves `device` to the first front-end that connects to `listener`, on threads of
/// its own, which have what `on_start` gives the first of them. The front-end hears of
/// changes of the configuration space through `config_change`, if the connection passes
/// through that.
///
/// # Errors
/// When threads or event file descriptors cannot be made.
pub fn serve(
    device: Box<dyn VirtioDevice>,
    listener: UnixListener,
    config_change: ConfigChange,
    on_start: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Server> {
    let name = format!("{:?}", device.device_type()).to_lowercase();
    let stop = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let stopped = stop.try_clone()?;
    let thread = thread::Builder::new()
        .name(format!("vhost-{name}"))
        .spawn(move || {
            // Told at once: who waits for it may first wait for QEMU.
            on_start()
                .and_then(|()| run(device, &name, listener, config_change, &stopped))
                .inspect_err(|error| tracing::error!(%error))
        })?;
    Ok(Server { stop, thread })
}

fn run(
    device: Box<dyn VirtioDevice>,
    name: &str,
    listener: UnixListener,
    config_change: ConfigChange,
    stop: &EventFd,
) -> io::Result<()> {
    if !wait_for_connection(&listener, stop)? {
        return Ok(());
    }
    let memory = Memory::new(GuestMemory::new());
    let queues = device.queue_sizes().len() as u64;
    let event_source = device
        .event_source()
        .map(|fd| fd.try_clone_to_owned())
        .transpose()?;
    let back_end = Arc::new(BackEnd::new(device, memory.clone(), config_change)?);
    let describe = |error: vhost_user_backend::Error| {
        io::Error::other(format!("vhost-user back-end for {name}: {error}"))
    };
    let mut daemon = VhostUserDaemon::new(format!("vhost-{name}"), back_end.clone(), memory)
        .map_err(describe)?;
    for handler in daemon.get_epoll_handlers() {
        if let Some(source) = &event_source {
            handler.register_listener(source.as_raw_fd(), EventSet::IN, queues + DEVICE_EVENT)?;
        }
        handler.register_listener(back_end.again.as_raw_fd(), EventSet::IN, queues + AGAIN)?;
    }
    daemon
        .start(&mut Listener::from(listener))
        .map_err(describe)?;
    match daemon.wait() {
        // How a front-end that ends looks like.
        Ok(())
        | Err(vhost_user_backend::Error::HandleRequest(
            vhost::vhost_user::Error::Disconnected | vhost::vhost_user::Error::PartialMessage,
        )) => Ok(()),
        Err(error) => Err(describe(error)),
    }
}

/// Waits for a connection (true) or for `stop` (false).
fn wait_for_connection(listener: &UnixListener, stop: &EventFd) -> io::Result<bool> {
    // SAFETY: `stop` outlives this borrow of its file descriptor.
    let stop = unsafe { std::os::fd::BorrowedFd::borrow_raw(stop.as_raw_fd()) };
    loop {
        let mut fds = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
        ];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        let [connection, stop] = &fds;
        if !stop.revents().is_empty() {
            return Ok(false);
        }
        if !connection.revents().is_empty() {
            return Ok(true);
        }
    }
}

/// Tokens of events after those of the queues and the one that ends the thread.
const DEVICE_EVENT: u64 = 1;
const AGAIN: u64 = 2;

struct BackEnd {
    device: Mutex<Box<dyn VirtioDevice>>,
    memory: Memory,
    /// A queue had more than one call may take.
    again: EventFd,
    queues: usize,
    config_change: ConfigChange,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Queues to call again.
    again: u64,
    /// The device is broken until it is reset.
    failed: bool,
}

impl BackEnd {
    fn new(
        device: Box<dyn VirtioDevice>,
        memory: Memory,
        config_change: ConfigChange,
    ) -> io::Result<Self> {
        Ok(Self {
            config_change,
            queues: device.queue_sizes().len(),
            device: Mutex::new(device),
            memory,
            again: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            state: Mutex::default(),
        })
    }

    fn device(&self) -> MutexGuard<'_, Box<dyn VirtioDevice>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(
        &self,
        vrings: &[Vring],
        call: impl FnOnce(&mut dyn VirtioDevice, &mut Virtqueues<'_>),
    ) -> io::Result<()> {
        let memory = self.memory.memory();
        let mut device = self.device();
        let mut guards: Vec<_> = vrings.iter().map(VringT::get_mut).collect();
        let failed = self.state().failed;
        let started = !failed && guards.iter().any(|vring| vring.is_enabled());
        let queues = guards.iter_mut().map(|vring| vring.get_queue_mut());
        let queues = queues.take(if started { usize::MAX } else { 0 });
        let mut queues = Virtqueues::new(queues, &memory);
        call(device.as_mut(), &mut queues);
        let outcome = queues.finish();

        if let Some(why) = outcome.failure {
            tracing::warn!(device = ?device.device_type(), why, "a device needs a reset");
            self.state().failed = true;
        }
        if outcome.again != 0 {
            self.state().again |= outcome.again;
            self.again.write(1)?;
        }
        for (index, vring) in guards.iter().enumerate() {
            if outcome.notify >> index & 1 != 0 {
                vring.signal_used_queue()?;
            }
        }
        drop(guards);
        // Unlocked: the front-end comes back for the new configuration.
        drop(device);
        if outcome.config_changed {
            self.config_change.notify()?;
        }
        Ok(())
    }
}

impl VhostUserBackend for BackEnd {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.queues
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        self.device().features() | TRANSPORT_FEATURES | PROTOCOL_FEATURES
    }

    /// QEMU says this each time that a driver starts: what an earlier one left is void.
    fn acked_features(&self, features: u64) {
        self.reset_device();
        let mut device = self.device();
        let features = features & device.features();
        device.acknowledge_features(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        self.device().reset();
        *self.state() = State::default();
    }

    /// The rings know it themselves.
    fn set_event_idx(&self, _enabled: bool) {}

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        // The protocol's configuration space has 256 bytes.
        let mut data = vec![0; size.min(256) as usize];
        self.device().read_config(offset as usize, &mut data);
        data
    }

    fn set_config(&self, offset: u32, data: &[u8]) -> io::Result<()> {
        self.device().write_config(offset as usize, data);
        Ok(())
    }

    /// The memory is shared with [`BackEnd::memory`].
    fn update_memory(&self, _memory: Memory) -> io::Result<()> {
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)
            .inspect_err(|error| tracing::error!(%error, "a back-end's thread cannot be ended"))
            .ok()
    }

    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        vrings: &[Vring],
        _thread: usize,
    ) -> io::Result<()> {
        let queues = self.queues;
        let event = usize::from(event);
        if event < queues {
            return self.run(vrings, |device, queues| device.process_queue(event, queues));
        }
        match (event - queues) as u64 {
            DEVICE_EVENT => self.run(vrings, |device, queues| device.process_event(queues)),
            AGAIN => {
                let _ = self.again.read();
                let again = std::mem::take(&mut self.state().again);
                for index in (0..queues).filter(|index| again >> index & 1 != 0) {
                    self.run(vrings, |device, queues| device.process_queue(index, queues))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
