use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where a connection comes from, as far as it is told apart from others: by the
/// address, or in IPv6 by the network, of which everybody has a whole one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin(u64);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // IPv6 has no networks that begin with 32 zeros (RFC 4291, 2.5).
            IpAddr::V4(address) => Self(u32::from(address).into()),
            IpAddr::V6(address) => Self((u128::from(address) >> 64) as u64),
        }
    }
}

impl Origin {
    /// The address, or in IPv6 the network's first.
    pub fn address(self) -> IpAddr {
        match u32::try_from(self.0) {
            Ok(bits) => Ipv4Addr::from(bits).into(),
            Err(_) => Ipv6Addr::from(u128::from(self.0) << 64).into(),
        }
    }
}
