use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, a core. The kernel cuts it to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Why no listener could be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", cause(.error))]
pub struct BindError {
    address: SocketAddr,
    error: io::Error,
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".into(),
        _ => error.to_string(),
    }
}

/// Opens a listener a core on one address; port 0 takes any free one. The
/// kernel spreads the connections over them (SO_REUSEPORT).
///
/// # Errors
/// If the address is taken, by whomever, or can't be had.
pub fn bind(address: SocketAddr, cores: usize) -> Result<Vec<TcpListener>, BindError> {
    open_all(address, cores).map_err(|error| BindError { address, error })
}

fn open_all(mut address: SocketAddr, cores: usize) -> io::Result<Vec<TcpListener>> {
    // With SO_REUSEPORT a second server would silently share the port, so it is
    // tried without first.
    if address.port() != 0 {
        open(address, false)?;
    }
    let mut listeners = Vec::with_capacity(cores);
    for _ in 0..cores {
        let listener = open(address, true)?;
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

fn open(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of a server that has just ended do not hold the port.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused() {
        let any = "127.0.0.1:0".parse().unwrap();
        let listeners = bind(any, 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let same = |listener: &TcpListener| listener.local_addr().unwrap() == address;
        assert!(listeners.iter().all(same));
        let error = bind(address, 1).unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
    }
}
