//! Descriptors that were open before we started.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Once;

static ONCE: Once = Once::new();

/// Marks every inherited descriptor but the standard three close-on-exec, so that no
/// child of ours holds apt's pipes open (apt would wait for it).
pub(crate) fn keep_from_children() {
    ONCE.call_once(|| {
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
            return;
        };
        let open: Vec<RawFd> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|descriptor| *descriptor > 2)
            .collect();
        for descriptor in open {
            // The listing's own descriptor is closed by now: the call then fails, and may.
            let borrowed = borrow(descriptor);
            let _ = rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC);
        }
    });
}

#[expect(unsafe_code, reason = "only a number is passed to fcntl(2); a closed one gives EBADF")]
fn borrow(descriptor: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the borrow does not outlive the call it is made for, and fcntl(F_SETFD) on a
    // descriptor that was closed meanwhile is an error and nothing else.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}
