//! Runs the real program under ptrace, counts the calls by which it changes what a disk holds, and kills it before a chosen one.
//!
//! This is `kill -9` at every put, sync and rename, without a hook in the program. Counted are the calls that make, sync, name and remove files, from all
//! threads in the order in which the kernel takes them.

use std::collections::HashMap;
use std::process::{Command, Stdio};

use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What became of a traced run.
#[derive(Debug)]
pub(crate) struct Traced {
    /// The counted calls, in order; the last one was not made if the program was killed.
    pub(crate) calls: Vec<&'static str>,
    /// How it ended, if it was not killed.
    pub(crate) code: Option<i32>,
}

#[cfg(target_arch = "x86_64")]
fn name(number: u64) -> Option<&'static str> {
    Some(match number {
        74 => "fsync",
        75 => "fdatasync",
        76 | 77 => "truncate",
        82 => "rename",
        83 | 258 => "mkdir",
        84 => "rmdir",
        86 | 265 => "link",
        87 | 263 => "unlink",
        264 | 316 => "rename",
        277 => "sync_file_range",
        _ => return None,
    })
}

/// Runs `command` to its end, or kills it with all its threads before its counted call number `kill_before` (from 0).
pub(crate) fn run(command: &Command, kill_before: Option<usize>) -> Traced {
    let mut stopped = Command::new("sh");
    stopped
        .args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""])
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(folder) = command.get_current_dir() {
        stopped.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => stopped.env(name, value),
            None => stopped.env_remove(name),
        };
    }
    #[expect(
        clippy::zombie_processes,
        reason = "it is waited for below, by its id, as a tracer does"
    )]
    let child = stopped.spawn().unwrap();
    let main = Pid::from_raw(child.id() as i32);
    waitpid(main, Some(WaitPidFlag::WUNTRACED)).unwrap();
    ptrace::attach(main).unwrap();
    waitpid(main, Some(WaitPidFlag::__WALL)).unwrap();
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    ptrace::setoptions(main, options).unwrap();
    kill(main, Signal::SIGCONT).unwrap();
    ptrace::syscall(main, None).unwrap();

    let mut calls = Vec::new();
    // Whether a thread is inside of a call.
    let mut inside: HashMap<Pid, bool> = HashMap::new();
    loop {
        let status = waitpid(None, Some(WaitPidFlag::__WALL)).unwrap();
        match status {
            WaitStatus::Exited(pid, code) if pid == main => {
                return Traced {
                    calls,
                    code: Some(code),
                };
            }
            WaitStatus::Signaled(pid, signal, _) if pid == main => {
                assert_eq!(signal, Signal::SIGKILL, "nothing else ends it");
                return Traced { calls, code: None };
            }
            WaitStatus::PtraceSyscall(pid) => {
                let inside = inside.entry(pid).or_default();
                *inside = !*inside;
                if *inside
                    && let Ok(registers) = ptrace::getregs(pid)
                    && let Some(name) = name(registers.orig_rax)
                {
                    calls.push(name);
                    if kill_before == Some(calls.len() - 1) {
                        // At the entry of the call: the kernel does not make it any more.
                        kill(main, Signal::SIGKILL).unwrap();
                        continue;
                    }
                }
                let _ = ptrace::syscall(pid, None);
            }
            // A new thread begins with a stop of its own; a call that made a thread or another program has its end yet to come.
            WaitStatus::PtraceEvent(pid, _, _) | WaitStatus::Stopped(pid, Signal::SIGSTOP | Signal::SIGCONT) => {
                let _ = ptrace::syscall(pid, None);
            }
            WaitStatus::Stopped(pid, signal) => {
                let _ = ptrace::syscall(pid, Some(signal));
            }
            _ => {}
        }
    }
}
