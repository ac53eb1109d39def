//! The monitor as a process, with guests of a few instructions on this machine's
//! `/dev/kvm`: each way to end, hostile input and output, the control socket.
//!
//! The guests are simple enough for a KVM that interprets kernel code. Where
//! `/dev/kvm` cannot be opened, each test says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking; helpers outside of test functions do, too"
)]

mod machine;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use dctl_vmm::control::{Answer, Request, RunState};
use dctl_vmm::exit::Reason;

use machine::{Machine, kvm_opens};

/// `xor eax, eax; out 0xf4, al; hlt`
const POWER_OFF: &[u8] = &[0x31, 0xc0, 0xe6, 0xf4, 0xf4];
/// `mov al, 0xfe; out 0x64, al; hlt`
const RESET: &[u8] = &[0xb0, 0xfe, 0xe6, 0x64, 0xf4];
/// `out 0x80, al; jmp` to it: leaves the guest as often as it can.
const BUSY: &[u8] = &[0xe6, 0x80, 0xeb, 0xfc];

macro_rules! needs_kvm {
    () => {
        if !kvm_opens() {
            return;
        }
    };
}

#[test]
fn a_guest_powers_off() {
    needs_kvm!();
    let ended = Machine::new(POWER_OFF).run();
    assert_eq!(ended.reason, Reason::PoweredOff, "{}", ended.line);
    assert_eq!(ended.line, "the machine powered off\n");
}

#[test]
fn a_guest_of_several_cpus_powers_off() {
    needs_kvm!();
    let ended = Machine::new(POWER_OFF).cpus(3).run();
    assert_eq!(ended.reason, Reason::PoweredOff, "{}", ended.line);
}

#[test]
fn a_guest_resets_itself() {
    needs_kvm!();
    let ended = Machine::new(RESET).run();
    assert_eq!(ended.reason, Reason::Reset, "{}", ended.line);
    assert_eq!(ended.line, "the guest reset itself\n");
}

#[test]
fn an_exception_that_nothing_handles_is_a_triple_fault() {
    needs_kvm!();
    // ud2, with no interrupt descriptor table.
    let ended = Machine::new(&[0x0f, 0x0b]).run();
    assert_eq!(ended.reason, Reason::TripleFault, "{}", ended.line);
}

#[test]
fn code_that_is_not_memory_is_an_internal_error_of_kvm() {
    needs_kvm!();
    // mov eax, 0xe0000000; jmp rax
    let ended = Machine::new(&[0xb8, 0, 0, 0, 0xe0, 0xff, 0xe0]).run();
    assert_eq!(ended.reason, Reason::KvmInternalError, "{}", ended.line);
    assert!(ended.line.contains("suberror 1"), "{}", ended.line);
    assert_eq!(ended.line.lines().count(), 1);
}

#[test]
fn what_is_nowhere_reads_as_ones() {
    needs_kvm!();
    let mut code = vec![
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xed, // in eax, dx
        0x83, 0xf8, 0xff, // cmp eax, -1
        0x75, 0x0d, // jne to the reset
        0xbb, 0, 0, 0, 0xe0, // mov ebx, 0xe0000000
        0x89, 0x03, // mov [rbx], eax
        0x8b, 0x0b, // mov ecx, [rbx]
        0x39, 0xc1, // cmp ecx, eax
        0x74, 0x05, // je past the reset
    ];
    code.extend(RESET);
    code.extend(POWER_OFF);
    let ended = Machine::new(&code).run();
    assert_eq!(ended.reason, Reason::PoweredOff, "{}", ended.line);
}

#[test]
fn a_hot_port_costs_neither_memory_nor_log_lines() {
    needs_kvm!();
    let mut code = vec![
        0xb9, 0x20, 0x4e, 0x00, 0x00, // mov ecx, 20000
        0xe6, 0x80, // out 0x80, al
        0xe4, 0x80, // in al, 0x80
        0xff, 0xc9, // dec ecx
        0x75, 0xf8, // jnz to the out
    ];
    code.extend(POWER_OFF);
    let ended = Machine::new(&code).run();
    assert_eq!(ended.reason, Reason::PoweredOff, "{}", ended.line);
    assert_eq!(ended.line, "the machine powered off\n");
    assert!(
        ended.peak_memory < 48 << 20,
        "{} bytes at the peak",
        ended.peak_memory
    );
}

#[test]
fn device_registers_take_anything() {
    needs_kvm!();
    // Each register of each device's page, written with a changing number and
    // read back, twice over.
    let mut code = vec![
        0xbd, 2, 0, 0, 0, // mov ebp, 2
        0xbb, 0, 0, 0, 0xd0, // again: mov ebx, 0xd0000000
        0xb9, 0, 0x0c, 0, 0, // mov ecx, 0xc00
        0x89, 0x0b, // next: mov [rbx], ecx
        0x8b, 0x03, // mov eax, [rbx]
        0x83, 0xc3, 0x08, // add ebx, 8
        0xff, 0xc9, // dec ecx
        0x75, 0xf5, // jnz next
        0xff, 0xcd, // dec ebp
        0x75, 0xe7, // jnz again
    ];
    code.extend(POWER_OFF);
    let ended = Machine::new(&code).run();
    assert_eq!(ended.reason, Reason::PoweredOff, "{}", ended.line);
    assert_eq!(ended.line, "the machine powered off\n");
}

#[test]
fn a_paused_machine_uses_no_processor_until_it_is_resumed() {
    needs_kvm!();
    let running = Machine::new(BUSY).cpus(2).start();
    let mut client = running.client();
    let state = client.state().unwrap();
    assert_eq!(state.run_state, RunState::Running);
    assert_eq!((state.cpus, state.memory_mib), (2, 32));
    assert_eq!(state.process_id, running.process_id());
    assert!(state.seccomp);

    client.pause().unwrap();
    client.pause().unwrap();
    assert_eq!(client.state().unwrap().run_state, RunState::Paused);
    let before = running.processor_time();
    std::thread::sleep(Duration::from_millis(200));
    let used = running.processor_time().saturating_sub(before);
    assert!(used < Duration::from_millis(50), "{used:?} while paused");

    client.resume().unwrap();
    assert_eq!(client.state().unwrap().run_state, RunState::Running);
    let before = running.processor_time();
    running.wait_for("the guest to run on", |running| {
        running.processor_time() > before + Duration::from_millis(20)
    });
    client.power_off(Duration::ZERO).unwrap();
    let ended = running.wait();
    assert_eq!(ended.reason, Reason::Forced, "{}", ended.line);
}

#[test]
fn a_guest_that_does_not_power_off_in_time_is_forced() {
    needs_kvm!();
    let running = Machine::new(BUSY).start();
    let mut client = running.client();
    let asked = Instant::now();
    client.power_off(Duration::from_millis(300)).unwrap();
    assert_eq!(client.state().unwrap().run_state, RunState::PoweringOff);
    let ended = running.wait();
    assert_eq!(ended.reason, Reason::Forced, "{}", ended.line);
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_paused_machine_can_be_powered_off() {
    needs_kvm!();
    let running = Machine::new(BUSY).start();
    let mut client = running.client();
    client.pause().unwrap();
    client.power_off(Duration::ZERO).unwrap();
    assert_eq!(running.wait().reason, Reason::Forced);
}

#[test]
fn two_termination_signals_are_force() {
    needs_kvm!();
    let running = Machine::new(BUSY).start();
    let mut client = running.client();
    running.terminate();
    running.wait_for("the first signal to arrive", |_| {
        client.state().unwrap().run_state == RunState::PoweringOff
    });
    running.terminate();
    assert_eq!(running.wait().reason, Reason::Forced);
}

#[test]
fn every_thread_is_confined() {
    needs_kvm!();
    let running = Machine::new(BUSY).cpus(2).start();
    running.wait_for("the sandbox", |running| {
        let threads = running.threads();
        // Main, devices, and two virtual CPUs; KVM may add threads of its own.
        let ours: Vec<_> = threads
            .iter()
            .filter(|thread| !thread.contains("Name:\tkvm"))
            .collect();
        assert!(ours.len() >= 4, "{threads:#?}");
        ours.iter().all(|thread| {
            thread.contains("\nSeccomp:\t2\n") && thread.contains("\nNoNewPrivs:\t1\n")
        })
    });
}

#[test]
fn the_balloon_answers_without_a_driver() {
    needs_kvm!();
    let running = Machine::new(BUSY).start();
    let statistics = running.client().balloon().unwrap();
    assert_eq!(
        (statistics.reported_bytes, statistics.balloon_bytes),
        (0, 0)
    );
}

#[test]
fn control_clients_cannot_disturb_each_other() {
    needs_kvm!();
    let running = Machine::new(BUSY).start();
    let mut well_behaved = running.client();
    // More than are served: those beyond are turned away.
    let silent: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(running.control_socket()).unwrap())
        .collect();
    let mut noisy = silent.first().unwrap();
    noisy.write_all(&vec![b'x'; 100_000]).ok();
    let mut rest = Vec::new();
    noisy
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    noisy.read_to_end(&mut rest).ok();
    assert!(!rest.is_empty(), "told why");
    assert_eq!(well_behaved.state().unwrap().run_state, RunState::Running);
    drop(silent);
    running.wait_for("a place for a new client", |running| {
        running.try_client().is_ok()
    });
    assert!(matches!(
        running.client().ask(&Request::Resume).unwrap(),
        Answer::Done
    ));
}

#[test]
fn sockets_and_logs_are_private_and_go_with_the_machine() {
    needs_kvm!();
    let running = Machine::new(BUSY).start();
    let mut client = running.client();
    let config = running.config().clone();
    for path in [
        &config.control_socket,
        &config.vsock.socket,
        &config.console_log,
        &config.lock_file,
    ] {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", path.display());
    }
    client.power_off(Duration::ZERO).unwrap();
    let ended = running.wait();
    assert_eq!(ended.reason, Reason::Forced);
    assert!(!config.control_socket.exists());
    assert!(!config.vsock.socket.exists());
}

#[test]
fn one_machine_has_one_monitor_and_a_killed_one_leaves_no_trace() {
    needs_kvm!();
    let machine = Machine::new(BUSY);
    let running = machine.start();
    running.client();
    let second = machine.start_again().wait();
    assert_eq!(second.reason, Reason::Locked, "{}", second.line);
    assert!(second.line.contains("lock"), "{}", second.line);
    running.kill();
    let third = machine.start_again();
    assert_eq!(third.client().state().unwrap().run_state, RunState::Running);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_reason() {
    type Spoil = fn(&mut dctl_vmm::config::VmConfig);
    needs_kvm!();
    let cases: [(&str, Spoil); 6] = [
        ("cannot read /nonexistent/vmlinux", |config| {
            config.kernel = "/nonexistent/vmlinux".into();
        }),
        ("is not a bootable vmlinux", |config| {
            config.kernel = config.initramfs.clone();
        }),
        ("cannot read /nonexistent/initramfs", |config| {
            config.initramfs = "/nonexistent/initramfs".into();
        }),
        ("CPUs", |config| config.cpus = 0),
        ("command line", |config| {
            config.command_line = "x".repeat(4000);
        }),
        ("/nonexistent/disk", |config| {
            config.disks.push(dctl_vmm::config::DiskConfig {
                path: "/nonexistent/disk".into(),
                read_only: false,
                journal: None,
            });
        }),
    ];
    for (expected, spoil) in cases {
        let ended = Machine::new(POWER_OFF).configure(spoil).run();
        assert_eq!(ended.reason, Reason::BadConfiguration, "{}", ended.line);
        assert!(ended.line.contains(expected), "{}", ended.line);
        assert_eq!(ended.line.lines().count(), 1, "{}", ended.line);
    }
}
