//! Which API servers are reached without the proxy of HTTPS_PROXY: NO_PROXY, by the rules that kubectl follows
//! (golang.org/x/net/http/httpproxy). kube 5.0 compares NO_PROXY with the proxy's own address, so it is done here.

use std::net::IpAddr;

use kube::Config;
use kube::config::Kubeconfig;

/// Takes the proxy out of a configuration whose server is to be reached directly.
pub(super) fn settle(config: &mut Config, kubeconfig: &Kubeconfig, context: &str) {
    if config.proxy_url.is_none() || has_its_own(kubeconfig, context) {
        return;
    }
    let list = ["NO_PROXY", "no_proxy"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    let Some(host) = config.cluster_url.host() else { return };
    let port = config.cluster_url.port_u16().unwrap_or(443);
    if is_direct(&list, host, port) {
        config.proxy_url = None;
    }
}

/// A cluster's own `proxy-url` always counts.
fn has_its_own(kubeconfig: &Kubeconfig, context: &str) -> bool {
    let cluster = kubeconfig.contexts.iter().find(|c| c.name == context).and_then(|c| c.context.as_ref());
    let named = |name: &str| kubeconfig.clusters.iter().find(|c| c.name == name)?.cluster.as_ref();
    let proxy = cluster.and_then(|c| named(&c.cluster)?.proxy_url.as_deref());
    proxy.is_some_and(|url| !url.is_empty())
}

fn is_direct(list: &str, host: &str, port: u16) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
    let ip: Option<IpAddr> = host.parse().ok();
    if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
        return true;
    }
    let mut words =
        list.split(',').map(|word| word.trim().to_ascii_lowercase()).filter(|word| !word.is_empty());
    words.any(|word| {
        if word == "*" {
            return true;
        }
        if let Some(ip) = ip
            && let Some((network, bits)) = word.split_once('/')
        {
            return network
                .parse()
                .is_ok_and(|network| bits.parse().is_ok_and(|bits| is_in(ip, network, bits)));
        }
        let (name, wanted) = match word.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse().ok()),
            _ => (word.as_str(), None),
        };
        if wanted.is_some_and(|wanted: u16| wanted != port) {
            return false;
        }
        let name = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(other) = name.parse::<IpAddr>() {
            return ip == Some(other);
        }
        let suffix = name.trim_start_matches("*.").trim_start_matches('.');
        let below = host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
        below || (!name.starts_with('.') && !name.starts_with("*.") && host == suffix)
    })
}

fn is_in(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let same = |a: u128, b: u128, width: u32| bits <= width && (bits == 0 || (a ^ b) >> (width - bits) == 0);
    match (ip, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_read_as_go_does() {
        for (list, host, direct) in [
            ("", "api.example.com", false),
            ("*", "api.example.com", true),
            ("example.com", "api.example.com", true),
            ("example.com", "example.com", true),
            (".example.com", "example.com", false),
            (".example.com, other", "api.example.com", true),
            ("ample.com", "api.example.com", false),
            ("api.example.com:6443", "api.example.com", true),
            ("api.example.com:443", "api.example.com", false),
            ("10.0.0.0/8", "10.9.8.7", true),
            ("10.0.0.0/8", "11.9.8.7", false),
            ("10.0.0.0/99", "10.9.8.7", false),
            ("10.9.8.7", "10.9.8.7", true),
            ("fd00::/8", "[fd12::1]", true),
            ("[fd12::1]:6443", "[fd12::1]", true),
            ("", "localhost", true),
            ("", "127.0.0.2", true),
        ] {
            assert_eq!(is_direct(list, host, 6443), direct, "{list} {host}");
        }
    }
}
