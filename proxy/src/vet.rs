//! Which addresses may be dialled: public ones, those that the route allows, and never our own.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
};

use ipnet::IpNet;
use parking_lot::RwLock;

/// Our own listeners: a route must not lead back to us.
#[derive(Default)]
pub(crate) struct OwnListeners(RwLock<BTreeSet<SocketAddr>>);

impl OwnListeners {
    pub(crate) fn add(&self, addr: SocketAddr) {
        self.0.write().insert(addr);
    }

    /// Whether dialling `addr` would reach one of them.
    fn has(&self, addr: SocketAddr) -> bool {
        let ip = plain(addr.ip());
        self.0.read().iter().filter(|own| own.port() == addr.port()).any(|own| {
            let own = plain(own.ip());
            // A listener on every address is reached at each of this machine's; to dial no address
            // in particular is to dial this machine.
            own == ip || (own.is_unspecified() && is_this_machine(ip)) || (ip.is_unspecified() && is_this_machine(own))
        })
    }
}

/// The address to dial, in its one spelling, if it may be dialled.
pub(crate) fn vet(addr: SocketAddr, allowed: &[IpNet], own: &OwnListeners) -> Option<SocketAddr> {
    let addr = SocketAddr::new(plain(addr.ip()), addr.port());
    let allows = |ip: IpAddr| !is_internal(ip) || allowed.iter().any(|net| net.contains(&ip));
    let ok = addr.port() != 0 && !own.has(addr) && allows(addr.ip()) && embedded(addr.ip()).is_none_or(allows);
    ok.then_some(addr)
}

/// IPv4 in the forms of IPv6 that the kernel itself takes for IPv4.
fn plain(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

/// IPv4 behind a translator or a tunnel: whoever dials this reaches that.
fn embedded(ip: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = ip else { return None };
    let v4 = |hi: u16, lo: u16| {
        let ([a, b], [c, d]) = (hi.to_be_bytes(), lo.to_be_bytes());
        Some(IpAddr::V4(Ipv4Addr::new(a, b, c, d)))
    };
    match v6.segments() {
        // NAT64 (RFC 6052), 6to4 (RFC 3056), ISATAP (RFC 5214).
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => v4(hi, lo),
        [0x2002, hi, lo, ..] => v4(hi, lo),
        [_, _, _, _, 0 | 0x200, 0x5efe, hi, lo] => v4(hi, lo),
        _ => None,
    }
}

/// Everything that is not the public internet, by IANA's special-purpose registries, and addresses
/// that clouds answer themselves.
fn is_internal(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && (18..20).contains(&b))
                || a >= 240
                || v4 == AZURE_PLATFORM
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            let global = (first & 0xe000) == 0x2000;
            let nat64 = matches!(v6.segments(), [0x64, 0xff9b, 0, 0, 0, 0, ..]);
            // Only 2000::/3 is given out; of it not Teredo and its kin, not documentation.
            !(global || nat64)
                || (first == 0x2001 && (second < 0x200 || second == 0xdb8))
                || (first == 0x3fff && second < 0x1000)
        }
    }
}

/// Whether a packet to this address stays on this machine. Asked of the kernel, because addresses
/// come and go: it lets nobody bind one that is not its own.
fn is_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

/// Where Azure's virtual machines reach their platform, metadata included.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn allowed(text: &str, nets: &[&str]) -> bool {
        let nets: Vec<IpNet> = nets.iter().map(|n| n.parse().unwrap()).collect();
        vet(SocketAddr::new(text.parse().unwrap(), 80), &nets, &OwnListeners::default()).is_some()
    }

    /// At least 80, in every form in which a resolver can hand them out.
    pub(crate) const INTERNAL: &[&str] = &[
        // this machine, any address
        "127.0.0.1",
        "127.0.0.2",
        "127.1.2.3",
        "127.255.255.254",
        "0.0.0.0",
        "0.0.0.1",
        "0.255.255.255",
        "::",
        "::1",
        // private, shared, benchmarking, protocol assignments
        "10.0.0.0",
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.254",
        "192.168.0.1",
        "192.168.255.255",
        "100.64.0.1",
        "100.127.255.254",
        "198.18.0.1",
        "198.19.255.255",
        "192.0.0.1",
        "192.0.0.170",
        "192.88.99.1",
        // link-local and metadata
        "169.254.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "169.254.255.255",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
        "fe80::a9fe:a9fe",
        // documentation, multicast, reserved, broadcast
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.254",
        "255.255.255.255",
        "2001:db8::1",
        "3fff::1",
        "ff02::1",
        "ff05::2",
        "ff0e::1",
        // unique local, link-local, site-local, discard, unassigned
        "fc00::1",
        "fd12:3456:789a::1",
        "fdff:ffff::1",
        "fe80::1",
        "fe80::1ff:fe23:4567:890a",
        "febf::1",
        "fec0::1",
        "feff::1",
        "100::1",
        "5f00::1",
        "1::1",
        "200::1",
        "4000::1",
        "8000::1",
        "c000::1",
        // Teredo, ORCHID, benchmarking
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
        "2001:1ff::1",
        // mapped
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::ffff:192.168.1.1",
        "::ffff:0.0.0.0",
        "::ffff:100.64.0.1",
        "::ffff:255.255.255.255",
        // compatible, translated (SIIT)
        "::127.0.0.1",
        "::7f00:1",
        "::10.0.0.1",
        "::169.254.169.254",
        "::8.8.8.8",
        "::ffff:0:127.0.0.1",
        "::ffff:0:10.0.0.1",
        "::ffff:0:a9fe:a9fe",
        "::ffff:0:8.8.8.8",
        // NAT64, well-known and local prefixes
        "64:ff9b::127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b::10.0.0.1",
        "64:ff9b::192.168.0.1",
        "64:ff9b:1::1",
        "64:ff9b:1::a9fe:a9fe",
        "64:ff9b:1:7f00:0:100::",
        "64:ff9b:0:1::8.8.8.8",
        // 6to4, ISATAP
        "2002:7f00:1::",
        "2002:7f00:1::1",
        "2002:a00:1::",
        "2002:a9fe:a9fe::",
        "2002:c0a8:101::1",
        "2606:4700::5efe:127.0.0.1",
        "2606:4700::200:5efe:10.0.0.1",
        "fe80::5efe:169.254.169.254",
    ];

    #[test]
    fn internal_addresses_are_refused_in_every_spelling() {
        assert!(INTERNAL.len() >= 80, "{}", INTERNAL.len());
        let passed: Vec<_> = INTERNAL.iter().filter(|text| allowed(text, &[])).collect();
        assert!(passed.is_empty(), "{passed:?}");
        for public in [
            "140.82.121.6",
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "169.253.1.1",
            "2606:50c0:8000::153",
            "2a00:1450:4001:80b::200e",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(allowed(public, &[]), "{public}");
        }
    }

    #[test]
    fn a_route_allows_blocks_and_nothing_beside_them() {
        assert!(allowed("127.0.0.1", &["127.0.0.0/8"]));
        assert!(allowed("::ffff:127.0.0.1", &["127.0.0.0/8"]));
        assert!(!allowed("127.0.0.1", &["10.0.0.0/8"]));
        assert!(!allowed("64:ff9b:1::1", &["127.0.0.0/8"]));
        assert!(!allowed("::127.0.0.1", &["127.0.0.0/8"]));
        assert!(allowed("64:ff9b::10.0.0.1", &["10.0.0.0/8"]));
        // The tunnel is allowed, what is behind it is not.
        assert!(!allowed("fd00::5efe:10.0.0.1", &["fd00::/8"]));
        assert!(allowed("fd00::5efe:10.0.0.1", &["fd00::/8", "10.0.0.0/8"]));
        assert!(vet("1.1.1.1:0".parse().unwrap(), &[], &OwnListeners::default()).is_none());
    }

    #[test]
    fn what_is_vetted_is_what_is_dialled() {
        let nets = ["127.0.0.0/8".parse().unwrap()];
        let dialled = vet("[::ffff:127.0.0.1]:80".parse().unwrap(), &nets, &OwnListeners::default());
        assert_eq!(dialled, Some("127.0.0.1:80".parse().unwrap()));
    }

    #[test]
    fn our_own_listeners_are_never_dialled() {
        let own = OwnListeners::default();
        let every: [IpNet; 2] = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let may = |text: &str| vet(text.parse().unwrap(), &every, &own).is_some();
        own.add("127.0.0.1:8080".parse().unwrap());
        for ours in ["127.0.0.1:8080", "[::ffff:127.0.0.1]:8080", "0.0.0.0:8080", "[::]:8080"] {
            assert!(!may(ours), "{ours}");
        }
        assert!(may("127.0.0.1:8081"));
        for (wildcard, port) in [("0.0.0.0", 9090), ("[::]", 9091)] {
            own.add(format!("{wildcard}:{port}").parse().unwrap());
            for ours in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]"] {
                assert!(!may(&format!("{ours}:{port}")), "{wildcard} {ours}");
            }
            assert!(may(&format!("8.8.8.8:{port}")));
        }
    }

    #[test]
    fn every_address_of_this_machine_is_its_own() {
        // Whichever address the kernel would send from is one of ours; documentation addresses are nobody's.
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        if probe.connect("192.0.2.1:9").is_ok() {
            assert!(is_this_machine(probe.local_addr().unwrap().ip()));
        }
        assert!(!is_this_machine("192.0.2.1".parse().unwrap()));
        assert!(!is_this_machine("2001:db8::1".parse().unwrap()));
    }
}
