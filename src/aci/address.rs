//! Reserved addresses: addresses that never belong to a workload. Pure.
//!
//! In: an address that a user or Azure provides. Out: whether the address is reserved, because it belongs to the
//! cloud (for example the metadata service, which hands out credentials to every caller on the machine) or because
//! it is not the address of a single host. IPv6 can embed the same IPv4 address in several forms; all of them are
//! checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address at which Azure's virtual machines reach platform services:
/// <https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>.
const AZURE_PLATFORM: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The address of Alibaba Cloud's metadata service. It is not a link-local address.
const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
/// The IPv6 address of AWS's metadata service. It is not a link-local address.
const AWS_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Whether an address is reserved: a link-local address (where clouds serve metadata and credentials), another
/// metadata or platform address of a cloud, or an address that belongs to no single host. A NAT64 prefix that a
/// network has chosen for itself is not recognized, because it looks like any other address.
pub fn is_reserved(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            is_of_the_cloud(v4) || v4.is_multicast() || v4.is_broadcast() || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_reserved(v4.into()),
            None => {
                v6.is_unicast_link_local()
                    || v6.is_multicast()
                    || v6.is_unspecified()
                    || v6 == AWS_METADATA
                    || embedded(v6).into_iter().any(is_of_the_cloud)
            }
        },
    }
}

/// Whether an address is the machine itself, in any form (`::ffff:127.0.0.1` and `::127.0.0.1` too), or reserved.
pub fn is_loopback_or_reserved(address: IpAddr) -> bool {
    let is_loopback = match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.to_ipv4().is_some_and(|v4| v4.is_loopback()),
    };
    is_loopback || is_reserved(address)
}

/// Whether an address belongs to a private network: not to be reached from the Internet.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private_v4(v4),
            // Unique local addresses, and the site-local ones before them.
            None => {
                v6.is_unique_local()
                    || v6.segments()[0] & 0xffc0 == 0xfec0
                    || embedded(v6).into_iter().any(is_private_v4)
            }
        },
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    // Shared by carriers (RFC 6598), which clouds give to nodes and pods too; and for benchmarks (RFC 2544).
    let is_shared = matches!(v4.octets(), [100, 64..=127, ..] | [198, 18..=19, ..]);
    v4.is_private() || is_shared
}

fn is_of_the_cloud(v4: Ipv4Addr) -> bool {
    v4.is_link_local() || v4 == AZURE_PLATFORM || v4 == ALIBABA_METADATA
}

/// The IPv4 addresses to which a network may translate or tunnel an IPv6 address.
fn embedded(v6: Ipv6Addr) -> Vec<Ipv4Addr> {
    let o = v6.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| o[place]));
    let last = at([12, 13, 14, 15]);
    match v6.segments() {
        // IPv4-compatible (RFC 4291), SIIT (RFC 2765), and the well-known prefix of NAT64 (RFC 6052).
        [0, 0, 0, 0, 0 | 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            vec![last]
        }
        // The local-use prefix of NAT64 (RFC 8215), in every prefix length for which RFC 6052 defines a format.
        [0x64, 0xff9b, 1, ..] => vec![
            at([6, 7, 9, 10]),
            at([7, 9, 10, 11]),
            at([9, 10, 11, 12]),
            last,
        ],
        // 6to4 (RFC 3056).
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // Teredo (RFC 4380): the server's address, and the client's address with all bits inverted.
        [0x2001, 0, ..] => vec![at([4, 5, 6, 7]), Ipv4Addr::from_bits(!last.to_bits())],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_cloud_is_reserved_in_every_form() {
        for reserved in [
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::169.254.169.254",
            "::ffff:0:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::168.63.129.16",
            "64:ff9b::100.100.100.200",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:0:a9:fea9:fe00:0",
            "2002:a9fe:a9fe::1",
            "2001:0:a9fe:a9fe::1",
            "2001:0:1:2:3:4:5601:5601",
        ] {
            assert!(is_reserved(reserved.parse().expect(reserved)), "{reserved}");
        }
        for other in [
            "127.0.0.1",
            "10.0.0.4",
            "198.18.0.1",
            "::1",
            "::5",
            "fd00::1",
            "::ffff:10.0.0.4",
            "64:ff9b::10.0.0.4",
            "64:ff9b:1::10.0.0.4",
            "2002:a00:4::1",
            "2001:db8::a9fe:a9fe",
        ] {
            assert!(!is_reserved(other.parse().expect(other)), "{other}");
        }
    }

    #[test]
    fn addresses_of_private_networks_are_known_in_every_form() {
        for private in [
            "10.0.0.4",
            "172.31.0.1",
            "192.168.0.1",
            "100.127.0.1",
            "198.19.0.1",
            "fd00::1",
            "fec0::1",
            "::ffff:10.0.0.4",
            "::10.0.0.4",
            "64:ff9b::10.0.0.4",
            "2002:a00:4::1",
        ] {
            assert!(is_private(private.parse().expect(private)), "{private}");
        }
        for public in [
            "20.0.0.4",
            "172.32.0.1",
            "100.128.0.1",
            "2001:db8::1",
            "64:ff9b::20.0.0.4",
        ] {
            assert!(!is_private(public.parse().expect(public)), "{public}");
        }
    }
}
