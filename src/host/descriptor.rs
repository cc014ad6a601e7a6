//! Open descriptors: keeping inherited ones from children, and naming our own.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::Once;

use super::fault::{Weakness, weakened};

static ONCE: Once = Once::new();

/// The name under which a descriptor can be used as a path.
pub(crate) fn path(descriptor: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

/// Marks every inherited descriptor but the standard three close-on-exec, so that no
/// child of ours holds apt's pipes open (apt would wait for it).
pub(crate) fn keep_from_children() {
    ONCE.call_once(|| {
        if weakened(Weakness::KeepDescriptors) {
            return;
        }
        let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
            return;
        };
        let open: Vec<RawFd> = entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|descriptor| *descriptor > 2)
            .collect();
        for descriptor in open {
            // The listing's own descriptor is closed by now; the failure of its call is harmless.
            let borrowed = borrow(descriptor);
            let _ = rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC);
        }
    });
}

#[expect(unsafe_code, reason = "only a number is passed to fcntl(2); a closed one gives EBADF")]
fn borrow(descriptor: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the borrow does not outlive the call it is made for, and fcntl(F_SETFD) on a
    // closed descriptor only returns an error.
    unsafe { BorrowedFd::borrow_raw(descriptor) }
}
