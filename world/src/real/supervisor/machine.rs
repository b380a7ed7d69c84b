//! What the supervisor asks of the kernel: signals as readable bytes, ends of
//! children with their costs, limits of children.
//!
//! All `unsafe` of the supervisor is here: calls that neither std nor nix
//! offers. What must hold: signal handlers only store flags and write a byte,
//! and they keep `errno`. Handlers are used, and neither a blocked mask nor
//! ignored signals, since children inherit the latter two and not the first.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

/// Milliseconds since the machine's start, its sleep included.
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    u64::try_from(now.tv_sec()).expect("time since boot is positive") * 1000
        + u64::try_from(now.tv_nsec()).expect("nanoseconds are positive") / 1_000_000
}

static WAKE_FD: AtomicI32 = AtomicI32::new(-1);
/// A byte lies in the pipe already.
static AWAKE: AtomicBool = AtomicBool::new(false);
static CHILD_ENDED: AtomicBool = AtomicBool::new(false);
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(number: libc::c_int) {
    match number {
        libc::SIGCHLD => CHILD_ENDED.store(true, Ordering::SeqCst),
        libc::SIGTERM => STOP.store(true, Ordering::SeqCst),
        _ => return,
    }
    wake();
}

/// Makes [`Signals::fd`] readable. From any thread and from a signal handler.
#[expect(unsafe_code, reason = "a signal handler may only make raw calls")]
pub fn wake() {
    if !AWAKE.swap(true, Ordering::SeqCst) {
        // SAFETY: write(2) is async-signal-safe, the byte lives through the
        // call, and the descriptor is that of a socket kept for the life of
        // the process; `errno` is this thread's and is put back.
        unsafe {
            let errno = *libc::__errno_location();
            libc::write(WAKE_FD.load(Ordering::SeqCst), [1_u8].as_ptr().cast(), 1);
            *libc::__errno_location() = errno;
        }
    }
}

/// The process's signals, to be polled.
#[derive(Debug)]
pub struct Signals {
    wake: UnixStream,
}

impl Signals {
    /// Takes over SIGCHLD and SIGTERM; SIGHUP and SIGINT do nothing from now on.
    #[expect(unsafe_code, reason = "installing a signal handler is unsafe in every binding")]
    pub fn install() -> io::Result<Self> {
        let (wake, waker) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        WAKE_FD.store(waker.as_raw_fd(), Ordering::SeqCst);
        // The handler may run until the process is gone.
        std::mem::forget(waker);
        let action = SigAction::new(SigHandler::Handler(on_signal), SaFlags::SA_RESTART, SigSet::empty());
        // A shell starts background jobs with some ignored, and tasks must not
        // inherit that. (SIGPIPE std restores by itself.)
        for signal in Signal::iterator() {
            let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
            if !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP | Signal::SIGPIPE) {
                // SAFETY: no handler is installed.
                unsafe { sigaction(signal, &default) }?;
            }
        }
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
            // SAFETY: the handler only makes async-signal-safe calls.
            unsafe { sigaction(signal, &action) }?;
        }
        // Nor blocked ones.
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        Ok(Self { wake })
    }

    /// Readable when a signal came, or somebody called [`wake`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    /// Empties the pipe, to be called before looking at what may have come. The
    /// order matters: whoever comes before the flag is down leaves no byte, but
    /// is seen by that look; whoever comes after it leaves one.
    pub fn clear(&mut self) {
        let mut bytes = [0; 64];
        while self.wake.read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
        AWAKE.store(false, Ordering::SeqCst);
    }

    /// Whether a child ended since the last question.
    pub fn take_child_ended(&self) -> bool {
        CHILD_ENDED.swap(false, Ordering::SeqCst)
    }

    /// Whether SIGTERM came.
    pub fn stop(&self) -> bool {
        STOP.load(Ordering::SeqCst)
    }
}

/// Closes all descriptors but the first three: whatever started this process
/// may have left it some, and someone may wait for their end.
#[expect(unsafe_code, reason = "nix has no close_range")]
pub fn close_inherited() {
    // SAFETY: called first of all, when nothing in this process owns one. An
    // old kernel without the call leaves them open.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}

/// What [`ended_child`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// This one ended and waits to be collected: its number is still its own.
    Ended(Pid),
    /// Some live, none has ended.
    Running,
    /// There are none.
    None,
}

/// Looks for an ended child without collecting it.
pub fn ended_child() -> Children {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    loop {
        match waitid(Id::All, flags) {
            Ok(WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _)) => return Children::Ended(pid),
            Ok(_) => return Children::Running,
            Err(Errno::EINTR) => {}
            // A signal without a name in nix (a real-time one) ended it.
            Err(Errno::EINVAL) => return ended_by_odd_signal(),
            Err(_) => return Children::None,
        }
    }
}

/// nix cannot express an end by a real-time signal: asked again, rawly.
#[expect(unsafe_code, reason = "nix refuses the answer")]
fn ended_by_odd_signal() -> Children {
    // SAFETY: an all-zero siginfo_t is valid, and waitid only writes to it.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) != 0 {
            return Children::None;
        }
        info.si_pid()
    };
    if pid == 0 { Children::Running } else { Children::Ended(Pid::from_raw(pid)) }
}

/// How a child ended and what it cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct End {
    pub code: i32,
    pub signal: i32,
    pub cpu_ms: u64,
    pub max_rss_bytes: u64,
}

/// Collects an ended child.
#[expect(unsafe_code, reason = "only wait4 tells the cost of one child, and nix has no wait4")]
pub fn collect(pid: Pid) -> End {
    let mut status = 0;
    // SAFETY: an all-zero rusage is valid; wait4 writes to both places only
    // during the call.
    let (answer, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let answer = libc::wait4(pid.as_raw(), &raw mut status, libc::WNOHANG, &raw mut usage);
        (answer, usage)
    };
    if answer != pid.as_raw() {
        // Somebody else in this process collected it: only its end is known.
        return End { signal: libc::SIGKILL, ..End::default() };
    }
    let status = ExitStatus::from_raw(status);
    let micros = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_usec).unwrap_or(0)
    };
    End {
        code: status.code().unwrap_or(0),
        signal: status.signal().unwrap_or(0),
        cpu_ms: (micros(usage.ru_utime) + micros(usage.ru_stime)) / 1000,
        max_rss_bytes: trusted_peak(u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024),
    }
}

/// A spawned child shares the supervisor's memory until it runs its program,
/// and the kernel counts that into the child's peak. A peak no larger than the
/// supervisor's own says nothing: then 0.
fn trusted_peak(peak_bytes: u64) -> u64 {
    // It only grows: it is asked for again only by a peak above it.
    static OWN: AtomicU64 = AtomicU64::new(0);
    if peak_bytes > OWN.load(Ordering::Relaxed) {
        OWN.store(own_peak_bytes(), Ordering::Relaxed);
    }
    if peak_bytes > OWN.load(Ordering::Relaxed) { peak_bytes } else { 0 }
}

/// Not by getrusage: that one remembers whoever started this process.
fn own_peak_bytes() -> u64 {
    let status = own_file("/proc/self/status");
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    value.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What the supervisor holds of that which RLIMIT_DATA counts.
pub fn own_data_bytes() -> u64 {
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|bytes| u64::try_from(bytes).ok());
    let pages = own_file("/proc/self/statm").split(' ').nth(5).and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * page.unwrap_or(4096)
}

#[expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]
fn own_file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Sets a limit of a child, soft and hard: it cannot raise it again.
#[expect(unsafe_code, reason = "nix has no prlimit")]
pub fn limit_child(pid: Pid, resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the kernel reads one rlimit, which lives through the call. The
    // child is ours and not yet collected, so the number is its own.
    unsafe { libc::prlimit(pid.as_raw(), resource, &raw const limit, std::ptr::null_mut()) };
}

/// This process's children, by a look through /proc: slow, and only done when
/// something is there that should not be.
#[expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]
pub fn children() -> Vec<Pid> {
    let own = Pid::this().as_raw();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| parent(*pid) == Some(own)).map(Pid::from_raw).collect()
}

#[expect(clippy::disallowed_methods, reason = "the supervisor stands behind the world's traits")]
fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything.
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}
