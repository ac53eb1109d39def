//! Seccomp: the system calls of each kind of thread.
//!
//! A call that is not listed raises SIGSYS, whose handler says which call it was
//! and ends the process. A thread that blocks or ignores SIGSYS is killed by the
//! kernel instead. Of threads that answer requests for shared files it fails with
//! EPERM instead: their calls depend on files that the host's user has, and one that
//! nobody thought of is to cost a request, not the machine.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::{mem, ptr};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use crate::exit::Reason;

/// `_IO(KVMIO, 0x80)`.
const KVM_RUN: u64 = 0xae80;
/// `_IO(KVMIO, 0xad)`.
const KVM_KVMCLOCK_CTRL: u64 = 0xaead;
/// `_IOR(KVMIO, 0x81, struct kvm_regs)`: where the guest was, for an error message.
const KVM_GET_REGS: u64 = 0x8090_ae81;

/// `_IOW(KVMIO, 0x6a, struct kvm_irq_routing)`: the guest sets up an interrupt.
const KVM_SET_GSI_ROUTING: u64 = 0x4008_ae6a;

/// One thread's filter, compiled: of several programs the strictest answer counts.
#[derive(Clone)]
pub(crate) struct Filter(Arc<[BpfProgram]>);

impl Filter {
    /// Of a thread that answers requests for shared files.
    pub(crate) fn shares() -> io::Result<Self> {
        compile(shares()?, SeccompAction::Errno(libc::EPERM as u32))
    }

    /// Of a thread that serves a device over vhost-user. It opens no file: that fails, and
    /// ends nothing, because the allocator asks for some that it can do without.
    pub(crate) fn device_server() -> io::Result<Self> {
        let files = Rules::from([(libc::SYS_openat, Vec::new())]);
        let no_files = program(
            files,
            SeccompAction::Allow,
            SeccompAction::Errno(libc::EPERM as u32),
        )?;
        let calls = program(device_server()?, SeccompAction::Trap, SeccompAction::Allow)?;
        Ok(Self(Arc::new([no_files, calls])))
    }

    /// Confines the calling thread, for good.
    pub(crate) fn apply(&self) -> io::Result<()> {
        self.0
            .iter()
            .try_for_each(|program| seccompiler::apply_filter(program))
            .map_err(io::Error::other)
    }
}

/// A filter for each kind of thread of a monitor, but for those that answer for files.
pub(crate) struct Filters {
    /// Runs a virtual CPU.
    pub(crate) vcpu: Filter,
    /// Runs devices.
    pub(crate) devices: Filter,
    /// Serves the control socket and ends the machine.
    pub(crate) main: Filter,
}

impl Filters {
    /// Compiles them.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            vcpu: compile(vcpu()?, SeccompAction::Trap)?,
            devices: compile(devices()?, SeccompAction::Trap)?,
            main: compile(main()?, SeccompAction::Trap)?,
        })
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(rules: Rules, otherwise: SeccompAction) -> io::Result<Filter> {
    let program = program(rules, otherwise, SeccompAction::Allow)?;
    Ok(Filter(Arc::new([program])))
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> io::Result<BpfProgram> {
    SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)
        .and_then(BpfProgram::try_from)
        .map_err(io::Error::other)
}

/// What the standard library and the allocator need on any thread.
const COMMON: [i64; 28] = [
    libc::SYS_brk,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_wait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
];

fn common() -> io::Result<Rules> {
    let mut rules: Rules = COMMON.iter().map(|call| (*call, Vec::new())).collect();
    // Memory, but none to run code from.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let executable = libc::PROT_EXEC as u64;
        rules.insert(call, vec![rule(2, SeccompCmpOp::MaskedEq(executable), 0)?]);
    }
    // What the standard library does to file descriptors: it checks them, makes
    // duplicates and sets them not to block.
    let commands = [
        libc::F_GETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
    ];
    rules.insert(
        libc::SYS_fcntl,
        requests(&commands.map(|command| command as u64))?,
    );
    Ok(rules)
}

fn vcpu() -> io::Result<Rules> {
    let mut rules = common()?;
    let ioctls = [
        KVM_RUN,
        KVM_KVMCLOCK_CTRL,
        KVM_GET_REGS,
        KVM_SET_GSI_ROUTING,
    ];
    rules.insert(libc::SYS_ioctl, requests(&ioctls)?);
    Ok(rules)
}

fn devices() -> io::Result<Rules> {
    let mut rules = common()?;
    for call in [
        libc::SYS_accept4,
        libc::SYS_connect,
        libc::SYS_dup,
        libc::SYS_eventfd2,
        libc::SYS_fallocate,
        libc::SYS_fdatasync,
        libc::SYS_fstat,
        libc::SYS_fsync,
        libc::SYS_ftruncate,
        libc::SYS_getpeername,
        libc::SYS_getsockname,
        libc::SYS_getsockopt,
        libc::SYS_lseek,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_pread64,
        libc::SYS_preadv,
        libc::SYS_preadv2,
        libc::SYS_pwrite64,
        libc::SYS_pwritev,
        libc::SYS_pwritev2,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_setsockopt,
        libc::SYS_shutdown,
        libc::SYS_statx,
        libc::SYS_timerfd_create,
        libc::SYS_timerfd_settime,
        libc::SYS_unlink,
    ] {
        rules.insert(call, Vec::new());
    }
    rules.insert(libc::SYS_ioctl, requests(&[libc::FIONBIO])?);
    rules.insert(libc::SYS_socket, unix_sockets()?);
    Ok(rules)
}

/// What a device does, and what its server does before that: it accepts a connection and
/// starts a thread for each queue.
fn device_server() -> io::Result<Rules> {
    let mut rules = devices()?;
    for call in [
        libc::SYS_clone3,
        libc::SYS_epoll_create1,
        libc::SYS_openat,
        libc::SYS_prctl,
        libc::SYS_rseq,
        libc::SYS_sched_getaffinity,
    ] {
        rules.insert(call, Vec::new());
    }
    Ok(rules)
}

/// Files, memory, and streams to the guest. No process is made (threads are), and
/// nothing is executed, mounted, traced or given another identity.
fn shares() -> io::Result<Rules> {
    let mut rules = common()?;
    for call in [
        // Names.
        libc::SYS_faccessat,
        libc::SYS_faccessat2,
        libc::SYS_fchmodat,
        libc::SYS_fchmodat2,
        libc::SYS_fchownat,
        libc::SYS_linkat,
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_newfstatat,
        libc::SYS_openat,
        libc::SYS_openat2,
        libc::SYS_readlinkat,
        libc::SYS_renameat2,
        libc::SYS_statx,
        libc::SYS_symlinkat,
        libc::SYS_unlinkat,
        libc::SYS_utimensat,
        // Extended attributes: those of files that cannot be opened go by name, of a
        // descriptor in /proc.
        libc::SYS_fgetxattr,
        libc::SYS_flistxattr,
        libc::SYS_fremovexattr,
        libc::SYS_fsetxattr,
        libc::SYS_getxattr,
        libc::SYS_lgetxattr,
        libc::SYS_listxattr,
        libc::SYS_llistxattr,
        libc::SYS_lremovexattr,
        libc::SYS_lsetxattr,
        libc::SYS_removexattr,
        libc::SYS_setxattr,
        // Open files.
        libc::SYS_copy_file_range,
        libc::SYS_dup,
        libc::SYS_fallocate,
        libc::SYS_fchmod,
        libc::SYS_fchown,
        libc::SYS_fcntl,
        libc::SYS_fdatasync,
        libc::SYS_flock,
        libc::SYS_fstat,
        libc::SYS_fstatfs,
        libc::SYS_fsync,
        libc::SYS_ftruncate,
        libc::SYS_getdents64,
        libc::SYS_lseek,
        libc::SYS_pread64,
        libc::SYS_preadv,
        libc::SYS_preadv2,
        libc::SYS_pwrite64,
        libc::SYS_pwritev,
        libc::SYS_pwritev2,
        libc::SYS_statfs,
        libc::SYS_syncfs,
        // What changes on the host.
        libc::SYS_inotify_add_watch,
        libc::SYS_inotify_init1,
        libc::SYS_inotify_rm_watch,
        // Streams to the guest, and threads.
        libc::SYS_accept4,
        libc::SYS_clone3,
        libc::SYS_connect,
        libc::SYS_epoll_create1,
        libc::SYS_eventfd2,
        libc::SYS_getegid,
        libc::SYS_geteuid,
        libc::SYS_getgid,
        libc::SYS_getsockopt,
        libc::SYS_getuid,
        libc::SYS_pipe2,
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_prctl,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_rseq,
        libc::SYS_sched_getaffinity,
        libc::SYS_sendmsg,
        libc::SYS_sendto,
        libc::SYS_setsockopt,
        libc::SYS_shutdown,
        libc::SYS_splice,
        libc::SYS_umask,
        libc::SYS_unshare,
    ] {
        rules.insert(call, Vec::new());
    }
    rules.insert(libc::SYS_ioctl, requests(&[libc::FIONBIO])?);
    rules.insert(libc::SYS_socket, unix_sockets()?);
    Ok(rules)
}

fn main() -> io::Result<Rules> {
    let mut rules = common()?;
    for call in [
        libc::SYS_accept4,
        libc::SYS_connect,
        libc::SYS_epoll_create1,
        libc::SYS_getsockopt,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_shutdown,
        libc::SYS_unlink,
        // A thread that ended is joined, and the process ends.
        libc::SYS_rt_sigaction,
    ] {
        rules.insert(call, Vec::new());
    }
    rules.insert(libc::SYS_ioctl, requests(&[libc::FIONBIO])?);
    rules.insert(libc::SYS_socket, unix_sockets()?);
    Ok(rules)
}

fn unix_sockets() -> io::Result<Vec<SeccompRule>> {
    Ok(vec![rule(0, SeccompCmpOp::Eq, libc::AF_UNIX as u64)?])
}

fn requests(numbers: &[u64]) -> io::Result<Vec<SeccompRule>> {
    numbers
        .iter()
        .map(|number| rule(1, SeccompCmpOp::Eq, *number))
        .collect()
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(io::Error::other)
}

/// Makes a forbidden system call end the process with a line that names it.
pub(crate) fn handle_violations() -> io::Result<()> {
    // SAFETY: all zero is an empty `sigaction`.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = report_violation as extern "C" fn(_, _, _) as usize;
    // SAFETY: the handler writes and ends the process; it takes no lock and
    // allocates nothing.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

extern "C" fn report_violation(
    _signal: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    /// `struct siginfo` for SIGSYS (`linux/asm-generic/siginfo.h`): the common
    /// part, the calling address, then the number of the system call.
    #[repr(C)]
    struct SystemCallInfo {
        common: [libc::c_int; 4],
        address: *mut libc::c_void,
        number: libc::c_int,
    }
    // SAFETY: the kernel passes a `siginfo` of SIGSYS, which has this shape.
    let number = unsafe { (*info.cast::<SystemCallInfo>()).number };
    let mut line = [0_u8; 96];
    let mut rest = &mut line[..];
    let _ = writeln!(
        rest,
        "{}: system call {number} is not one of this thread's",
        Reason::Failed
    );
    let unused = rest.len();
    let written = &line[..line.len() - unused];
    // SAFETY: writes a buffer of that length, and ends the process at once.
    unsafe {
        libc::write(libc::STDERR_FILENO, written.as_ptr().cast(), written.len());
        libc::_exit(libc::c_int::from(Reason::Failed.code()));
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn filters_compile_and_let_the_ordinary_pass() {
        let filters = Filters::new().unwrap();
        let shares = Filter::shares().unwrap();
        for filter in [filters.vcpu, filters.devices, shares, filters.main] {
            thread::spawn(move || {
                filter.apply().unwrap();
                let grown: Vec<u8> = vec![1; 10 << 20];
                assert_eq!(
                    grown.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
                    10 << 20
                );
            })
            .join()
            .unwrap();
        }
    }

    #[test]
    fn who_answers_for_files_may_open_them_and_no_network() {
        let filter = Filter::shares().unwrap();
        let server = shares::Server::new(shares::Limits::default()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x");
        thread::spawn(move || {
            filter.apply().unwrap();
            std::fs::write(path, b"x").unwrap();
            // As an export is made.
            let root = shares::open_root(directory.path()).unwrap();
            let options = shares::ExportOptions::default();
            server.add_export("x", root, options).unwrap();
            let internet = std::net::UdpSocket::bind("127.0.0.1:0").unwrap_err();
            assert_eq!(internet.raw_os_error(), Some(libc::EPERM));
        })
        .join()
        .unwrap();
    }

    /// In a process of its own, as the violation ends it: this test runs itself.
    #[test]
    fn a_forbidden_call_ends_the_process_and_is_named() {
        const CHILD: &str = "DCTL_TEST_SECCOMP_CHILD";
        const NAME: &str =
            "sandbox::seccomp::tests::a_forbidden_call_ends_the_process_and_is_named";
        if std::env::var_os(CHILD).is_some() {
            handle_violations().unwrap();
            Filters::new().unwrap().vcpu.apply().unwrap();
            // SAFETY: takes nothing; it does not get to return.
            unsafe { libc::getppid() };
            return;
        }
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args([NAME, "--exact", "--nocapture"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stderr);
        assert_eq!(
            child.status.code(),
            Some(i32::from(Reason::Failed.code())),
            "{said}"
        );
        let named = format!("system call {} is not", libc::SYS_getppid);
        assert!(said.contains(&named), "{said}");
    }
}
