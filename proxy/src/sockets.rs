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

/// Whose a listener is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Listener {
    /// The agents' door, the forward proxy included.
    #[default]
    Agents,
    /// A route's own.
    Route(String),
    /// TLS, by SNI.
    Tls,
}

impl Listener {
    /// The name of its socket.
    pub fn name(&self) -> String {
        match self {
            Self::Agents => AGENTS.to_owned(),
            Self::Tls => TLS.to_owned(),
            Self::Route(route) => format!("{ROUTE}{route}"),
        }
    }

    /// The listener of a socket's name; `None` for the admins' door, which is not the proxy's, and for names that are nobody's.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            AGENTS => Some(Self::Agents),
            TLS => Some(Self::Tls),
            _ => name.strip_prefix(ROUTE).map(|route| Self::Route(route.to_owned())),
        }
    }
}

/// Name of the admins' door.
pub const ADMIN: &str = "admin";
const AGENTS: &str = "agents";
const TLS: &str = "tls";
/// Before the name of the route.
const ROUTE: &str = "route:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_its_listener_are_one() {
        for listener in [Listener::Agents, Listener::Tls, Listener::Route("tls".into())] {
            assert_eq!(Listener::of_name(&listener.name()), Some(listener));
        }
        assert_eq!(Listener::of_name(ADMIN), None);
    }

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
