//! TCP ports of this machine.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// Whether no server has a port, on any address. Nothing listens there meanwhile: the port is
/// only asked for.
pub fn is_free(port: u16) -> bool {
    // SAFETY: plain system calls; both structs are ours and outlive them, the descriptor is closed
    // with its owner.
    let error = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return true;
        }
        let socket = OwnedFd::from_raw_fd(fd);
        let yes: libc::c_int = 1;
        let mut place: libc::sockaddr_in = std::mem::zeroed();
        place.sin_family = libc::AF_INET as libc::sa_family_t;
        place.sin_port = port.to_be();
        // Connections that have ended are in nobody's way.
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_REUSEADDR,
            (&raw const yes).cast(),
            size_of_val(&yes) as libc::socklen_t,
        );
        let size = size_of_val(&place) as libc::socklen_t;
        match libc::bind(socket.as_raw_fd(), (&raw const place).cast(), size) {
            0 => None,
            _ => std::io::Error::last_os_error().raw_os_error(),
        }
    };
    error != Some(libc::EADDRINUSE)
}
