//! Where an endpoint may be: nowhere inside the network that the service itself stands in.

use koc_chassis::fault::Violation;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address to post to, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub encrypted: bool,
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// As the header `host` says it.
    pub authority: String,
}

impl Target {
    /// Takes a URL apart. Unless `local`, it must be https and its host, where it is an address, public; of a name that shows when it is
    /// looked up.
    pub fn parse(field: &str, url: &str, local: bool) -> Result<Self, Violation> {
        let wrong = |shape: &str| Violation::new(field, "WEBHOOK_URL", shape);
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("must begin with https://"))?;
        let encrypted = match scheme {
            "https" => true,
            "http" if local => false,
            _ => return Err(wrong("must begin with https://")),
        };
        if !url.bytes().all(|b| b.is_ascii_graphic()) || url.contains(['#', '\\', '<', '>', '"']) {
            return Err(wrong("must be ASCII without blanks and fragment; escape what is not"));
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(wrong("must hold no name and password: requests are signed"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(six) => six.split_once(']').ok_or_else(|| wrong("must have a host"))?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("must have a port from 1 to 65535"))?,
            None if port.is_empty() => {
                if encrypted {
                    443
                } else {
                    80
                }
            }
            None => return Err(wrong("must have a host")),
        };
        let literal: Option<IpAddr> = host.parse().ok();
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || (literal.is_none() && !host.chars().all(is_name)) {
            return Err(wrong("must have a host"));
        }
        if !local && literal.is_some_and(|address| !is_public(address)) {
            return Err(wrong("must be a public address"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { encrypted, host: host.to_owned(), port, path, authority: authority.to_owned() })
    }
}

/// Whether an address is of the public internet: not of this machine, of a private network, of one link (where clouds keep their
/// metadata), nor one of these in another dress.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => is_public_v4(four),
        IpAddr::V6(six) => is_public_v6(six),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let reserved = match (a, b, c) {
        // This network, private, loopback.
        (0 | 10 | 127, ..) => true,
        // Shared by carriers, link-local, private.
        (100, 64..=127, _) | (169, 254, _) | (172, 16..=31, _) | (192, 168, _) => true,
        // Protocols, documentation, 6to4 relays, benchmarks.
        (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) | (198, 51, 100) | (203, 0, 113) => true,
        // Multicast, reserved, broadcast.
        (224.., ..) => true,
        _ => false,
    };
    !reserved
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let four = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b) {
        // IPv4 in IPv6: mapped, translated.
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0xffff) => four(g, h),
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => four(g, h),
        // 6to4.
        (0x2002, _) => four(b, c),
        // Teredo and other protocols, documentation.
        (0x2001, 0..=0x1ff | 0xdb8) | (0x3fff, 0..=0xfff) => false,
        // What else is unicast of the internet.
        (0x2000..=0x3fff, _) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().expect("an address"))
    }

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for inside in [
            "0.0.0.0",
            "10.0.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "100::1",
        ] {
            assert!(!public(inside), "{inside}");
        }
        for outside in
            ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(public(outside), "{outside}");
        }
    }

    #[test]
    fn a_url_is_taken_apart() {
        let target = Target::parse("url", "https://crm.example.com:8443/hooks?a=b", false).expect("a target");
        let seen = (target.encrypted, target.host.as_str(), target.port, target.path.as_str(), target.authority.as_str());
        assert_eq!(seen, (true, "crm.example.com", 8443, "/hooks?a=b", "crm.example.com:8443"));
        let bare = Target::parse("url", "https://[2606:4700::1111]?a", false).expect("a target");
        assert_eq!((bare.host.as_str(), bare.port, bare.path.as_str()), ("2606:4700::1111", 443, "/?a"));
        let here = Target::parse("url", "http://127.0.0.1:9000/hook", true).expect("allowed here");
        assert_eq!((here.encrypted, here.port), (false, 9000));
    }

    #[test]
    fn what_is_no_public_https_address_is_refused() {
        for url in [
            "",
            "crm.example.com",
            "http://crm.example.com",
            "ftp://crm.example.com",
            "https://",
            "https:///hook",
            "https://a:0/",
            "https://a:b/",
            "https://user:secret@crm.example.com/",
            "https://crm.example.com/a b",
            "https://crm.example.com/#top",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://169.254.169.254/latest",
            "https://[::ffff:10.0.0.1]/",
            "https://x[::1]/",
            "https://[::1/",
            "https://[::1]x/",
            "https://crm example.com/",
            "https://a\\b/",
        ] {
            assert_eq!(Target::parse("url", url, false).expect_err(url).rule, "WEBHOOK_URL", "{url}");
        }
    }
}
