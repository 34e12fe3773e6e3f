//! Which hosts certificates may be issued for: those of the routes in force and the gateway's own names.

use std::{collections::BTreeSet, net::IpAddr};

use aegis_broker::snapshot::Snapshot;
use rcgen::{CidrSubnet, GeneralSubtree, NameConstraints};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// Host names and addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Permitted {
    names: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Permitted {
    pub(super) fn of(snapshot: &Snapshot, own: &[String]) -> Self {
        Self::from_hosts(snapshot.hosts.names().chain(own.iter().map(String::as_str)))
    }

    pub(super) fn from_hosts<'a>(hosts: impl Iterator<Item = &'a str>) -> Self {
        let mut permitted = Self::default();
        for host in hosts {
            match host.parse() {
                Ok(address) => drop(permitted.addresses.insert(address)),
                Err(_) => drop(permitted.names.insert(host.to_owned())),
            }
        }
        permitted
    }

    /// Exactly, though the constraints of X.509 would permit subdomains as well.
    pub(super) fn covers(&self, host: &str) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.addresses.contains(&address),
            Err(_) => self.names.contains(host),
        }
    }

    /// As RFC 5280, section 4.2.1.10, puts it. A kind of name without an entry would be unlimited, so
    /// each kind has one.
    pub(super) fn constraints(&self) -> NameConstraints {
        let mut permitted: Vec<GeneralSubtree> = self.names.iter().cloned().map(GeneralSubtree::DnsName).collect();
        if permitted.is_empty() {
            permitted.push(GeneralSubtree::DnsName(NOWHERE.into()));
        }
        let one = |ip: &IpAddr| CidrSubnet::from_addr_prefix(*ip, if ip.is_ipv4() { 32 } else { 128 });
        permitted.extend(self.addresses.iter().map(one).map(GeneralSubtree::IpAddress));
        let everywhere = [CidrSubnet::V4([0; 4], [0; 4]), CidrSubnet::V6([0; 16], [0; 16])];
        let excluded = match self.addresses.is_empty() {
            true => everywhere.into_iter().map(GeneralSubtree::IpAddress).collect(),
            false => Vec::new(),
        };
        NameConstraints { permitted_subtrees: permitted, excluded_subtrees: excluded }
    }

    /// What a certificate of ours is limited to. `None` for one that we would not have made.
    pub(super) fn read(certificate: &X509Certificate<'_>) -> Option<Self> {
        let constraints = certificate.name_constraints().ok()??;
        let mut found = Self::default();
        for subtree in constraints.value.permitted_subtrees.as_ref()? {
            match &subtree.base {
                GeneralName::DNSName(NOWHERE) => {}
                GeneralName::DNSName(name) => drop(found.names.insert((*name).to_owned())),
                GeneralName::IPAddress(bytes) => drop(found.addresses.insert(single(bytes)?)),
                _ => return None,
            }
        }
        (constraints.value.excluded_subtrees.is_some() == found.addresses.is_empty()).then_some(found)
    }

    /// For the record.
    pub(super) fn listed(&self) -> Vec<String> {
        self.names.iter().cloned().chain(self.addresses.iter().map(IpAddr::to_string)).collect()
    }
}

/// Address and mask of a single address.
fn single(bytes: &[u8]) -> Option<IpAddr> {
    let (address, mask) = bytes.split_at_checked(bytes.len() / 2)?;
    if mask.iter().any(|b| *b != 0xff) {
        return None;
    }
    match address.len() {
        4 => <[u8; 4]>::try_from(address).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(address).ok().map(IpAddr::from),
        _ => None,
    }
}

/// Reserved never to exist (RFC 6761).
const NOWHERE: &str = "nowhere.invalid";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_listed_hosts_are_covered() {
        let permitted = Permitted::from_hosts(["api.example.com", "127.0.0.1", "::1"].into_iter());
        for yes in ["api.example.com", "127.0.0.1", "::1"] {
            assert!(permitted.covers(yes), "{yes}");
        }
        for no in ["x.api.example.com", "example.com", "127.0.0.2", "", "::2", "api.example.com."] {
            assert!(!permitted.covers(no), "{no}");
        }
    }

    #[test]
    fn no_kind_of_name_is_left_unlimited() {
        let none = Permitted::default().constraints();
        assert!(matches!(none.permitted_subtrees.as_slice(), [GeneralSubtree::DnsName(n)] if n == NOWHERE));
        assert_eq!(none.excluded_subtrees.len(), 2, "both kinds of address");
        let one = Permitted::from_hosts(["127.0.0.1"].into_iter()).constraints();
        assert_eq!((one.permitted_subtrees.len(), one.excluded_subtrees.len()), (2, 0));
    }
}
