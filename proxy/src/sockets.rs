//! Listening sockets by name: bound here, or given by a supervisor or by the process before.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
};

use crate::listen::ProxyError;

/// Listening sockets. As long as one of their copies is open, in whatever process, the kernel keeps
/// taking connections for it.
#[derive(Debug, Default)]
pub struct Sockets {
    held: BTreeMap<String, TcpListener>,
    given: bool,
}

impl Sockets {
    /// Sockets that a supervisor keeps open, whatever becomes of this process.
    pub fn given(held: BTreeMap<String, TcpListener>) -> Self {
        Self { given: !held.is_empty(), held }
    }

    /// Sockets of the process before.
    pub fn handed_over(held: BTreeMap<String, TcpListener>) -> Self {
        Self { given: false, held }
    }

    /// The socket of a name: the one that is open, if it is at `addr` (any port where that is 0),
    /// else a new one. A copy is kept.
    pub fn open(&mut self, name: &str, addr: SocketAddr) -> Result<TcpListener, ProxyError> {
        let failed = |source| ProxyError::Bind { addr, source };
        let fits = |socket: &TcpListener| {
            socket.local_addr().is_ok_and(|at| at.ip() == addr.ip() && (addr.port() == 0 || at.port() == addr.port()))
        };
        let known = self.held.remove(name).filter(fits);
        let socket = known.map_or_else(|| TcpListener::bind(addr), Ok).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let copy = socket.try_clone().map_err(failed)?;
        self.held.insert(name.to_owned(), copy);
        Ok(socket)
    }

    /// Closes those that are not in `names`, and says which: nothing listens there any more.
    pub fn keep_only(&mut self, names: &[String]) -> Vec<String> {
        let surplus: Vec<String> = self.held.keys().filter(|name| !names.contains(name)).cloned().collect();
        self.held.retain(|name, _| names.contains(name));
        surplus
    }

    /// Name and socket, in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TcpListener)> {
        self.held.iter().map(|(name, socket)| (name.as_str(), socket))
    }

    /// Whether somebody else keeps them open when this process ends.
    pub fn outlive_us(&self) -> bool {
        self.given
    }
}

/// Name of the agents' door.
pub const AGENTS: &str = "agents";
/// Name of the admins' door.
pub const ADMIN: &str = "admin";

/// Name of a route's own listener.
pub fn of_route(route: &str) -> String {
    format!("route:{route}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_socket_is_used_where_it_is_what_the_file_says() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = open.local_addr().unwrap();
        let mut sockets = Sockets::given(BTreeMap::from([(AGENTS.to_owned(), open)]));
        let any = "127.0.0.1:0".parse().unwrap();
        assert_eq!(sockets.open(AGENTS, any).unwrap().local_addr().unwrap(), at);
        assert_eq!(sockets.open(AGENTS, at).unwrap().local_addr().unwrap(), at);
        assert_ne!(sockets.open(ADMIN, any).unwrap().local_addr().unwrap(), at);
        let elsewhere = "127.0.0.2:0".parse().unwrap();
        assert_ne!(sockets.open(AGENTS, elsewhere).unwrap().local_addr().unwrap().ip(), at.ip());
        assert_eq!(sockets.keep_only(&[AGENTS.to_owned()]), [ADMIN]);
        assert_eq!(sockets.iter().count(), 1);
    }
}
