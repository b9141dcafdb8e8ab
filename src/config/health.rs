use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Refusal, read::host, sources::Sources};

/// Which server on this machine to ask about its health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    pub address: SocketAddr,
    /// Whether it should be sent work, and not only whether it lives.
    pub ready: bool,
}

pub(super) fn health(sources: &Sources<'_>) -> Result<HealthConfig, Refusal> {
    Ok(HealthConfig {
        address: address(sources)?,
        ready: sources.switch("ready"),
    })
}

/// The HTTP port of the server that is asked.
pub(super) fn address(sources: &Sources<'_>) -> Result<SocketAddr, Refusal> {
    let port = sources.need("http_port")?;
    if matches!(port.text.as_str(), "off" | "0") {
        return Err(port.refuse(format!("{}: there is no such port to ask", port.text)));
    }
    // Who listens on every address can be asked on this one.
    let host = match host(sources, "http_host")? {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok(SocketAddr::new(host, sources.need_number("http_port")?))
}
