//! What the standard library does not offer: accounts by name, signals, and what a child does before it runs.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Long enough for any entry of the account database; a longer one counts as absent.
const ACCOUNT_ENTRY_MAX_BYTES: usize = 16 * 1024;

/// The three ways in which the launcher ends a Postgres server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    /// Roll back what runs, write a checkpoint, leave.
    FastShutdown,
    /// Leave at once; the next start recovers.
    ImmediateShutdown,
    /// The kernel ends the process.
    Kill,
}

/// The user on whose behalf this process acts.
pub(super) fn effective_uid() -> u32 {
    // SAFETY: geteuid has no arguments, touches no memory of ours and cannot fail.
    unsafe { libc::geteuid() }
}

/// User and group id of the account with this name.
pub(super) fn account_named(name: &CStr) -> Option<(u32, u32)> {
    let mut buffer = vec![0_u8; ACCOUNT_ENTRY_MAX_BYTES];
    let mut found = std::ptr::null_mut();
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    // SAFETY: every pointer is to a live object of ours, the length is the buffer's; the re-entrant
    // form writes nowhere else.
    let code =
        unsafe { libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), &raw mut found) };
    if code != 0 || found.is_null() {
        return None;
    }
    // SAFETY: success with a non-null result means that `entry` has been filled in.
    let entry = unsafe { entry.assume_init() };
    Some((entry.pw_uid, entry.pw_gid))
}

/// Sends a signal. A process that has already gone is no error: that is what the caller wanted.
pub(super) fn send(pid: u32, signal: Signal) {
    let number = match signal {
        Signal::FastShutdown => libc::SIGINT,
        Signal::ImmediateShutdown => libc::SIGQUIT,
        Signal::Kill => libc::SIGKILL,
    };
    // Zero and negative numbers would mean whole process groups.
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1) else {
        return;
    };
    // SAFETY: kill takes two integers and touches no memory of ours.
    let _ = unsafe { libc::kill(pid, number) };
}

/// Asks the kernel to end the child by a fast shutdown when the thread that spawns it ends, however it
/// ends. Only Linux knows this; elsewhere a launcher that is killed leaves its server to the next start.
pub(super) fn die_with_parent(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let parent = std::process::id();
        // SAFETY: between fork and exec the closure only makes two system calls, which are
        // async-signal-safe, and builds an error without allocating.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGINT) != 0 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have gone before the request was made.
                if u32::try_from(libc::getppid()) != Ok(parent) {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = command;
}

/// Puts the child into a session of its own: no terminal, no test runner's group signal reaches it.
pub(super) fn lead_session(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and takes nothing; the error is built without allocating.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() == -1 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_a_known_account_and_a_made_up_name_is_not() {
        assert_eq!(account_named(c"root"), Some((0, 0)));
        assert_eq!(account_named(c"koc-no-such-account"), None);
    }
}
