//! The threads that run virtual CPUs.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use kvm_ioctls::VcpuFd;

use super::address_space::AddressSpace;
use crate::kvm::vcpu::{self, Kicker, ThreadId};
use crate::sandbox::Filter;

/// What a vCPU thread needs is little and known; the default of 2 MiB would only
/// cost address space, but 64 of them show up in every memory map.
const STACK_BYTES: usize = 256 << 10;

/// All virtual CPUs of one machine, at work.
pub(super) struct Cpus {
    cpus: Vec<(Kicker, ThreadId, JoinHandle<()>)>,
}

impl Cpus {
    /// Starts a thread for each, confined by `filter`.
    pub(super) fn start(
        vcpus: Vec<VcpuFd>,
        space: &Arc<AddressSpace>,
        filter: &Filter,
    ) -> io::Result<Self> {
        vcpu::handle_kicks()?;
        let mut cpus = Vec::with_capacity(vcpus.len());
        for (id, mut vcpu) in vcpus.into_iter().enumerate() {
            let kicker = Kicker::new(&vcpu)?;
            let (ready, is_ready) = mpsc::sync_channel(1);
            let space = Arc::clone(space);
            let filter = filter.clone();
            let thread = thread::Builder::new()
                .name(format!("vcpu{id}"))
                .stack_size(STACK_BYTES)
                .spawn(move || {
                    let id = ThreadId::current();
                    let confined = filter.apply();
                    let failed = confined.is_err();
                    // The starting thread waits for it.
                    let _ = ready.send(confined.map(|()| id));
                    if !failed {
                        let end = vcpu::run(&mut vcpu, space.as_ref());
                        space.lifecycle.end(end);
                    }
                })?;
            let id = is_ready
                .recv()
                .map_err(|_| io::Error::other("a virtual CPU's thread did not start"))??;
            cpus.push((kicker, id, thread));
        }
        Ok(Self { cpus })
    }

    pub(super) fn count(&self) -> usize {
        self.cpus.len()
    }

    /// Makes every virtual CPU leave the guest and look at its orders.
    pub(super) fn kick(&self) {
        for (kicker, thread, _) in &self.cpus {
            kicker.kick(*thread);
        }
    }

    /// Waits for the threads, which must have ended or be about to.
    pub(super) fn join(self) -> io::Result<()> {
        for (_, _, thread) in self.cpus {
            thread
                .join()
                .map_err(|_| io::Error::other("a virtual CPU's thread panicked"))?;
        }
        Ok(())
    }
}
