//! Environment variables for Services, as the kubelet creates them (pkg/kubelet/envvars in its source).
//!
//! In: Services. Out: variables. They contain cluster IPs, which a pod on ACI reaches only through the kube-proxy
//! extension (decision D17). A variable whose name ACI does not accept (longer than 63 characters) is left out: the
//! pod did not request that Service explicitly.

use super::resolved_references::ServiceAddress;

/// The variables for all `services`, in their order.
pub(super) fn variables(services: &[ServiceAddress]) -> Vec<(String, String)> {
    services.iter().flat_map(service_variables).collect()
}

fn service_variables(service: &ServiceAddress) -> Vec<(String, String)> {
    let prefix = env_name(&service.name);
    let address = &service.address;
    let mut variables = vec![(format!("{prefix}_SERVICE_HOST"), address.clone())];
    for (index, (name, protocol, port)) in service.ports.iter().enumerate() {
        let lower = protocol.to_lowercase();
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.clone()
        };
        let url = format!("{lower}://{host}:{port}");
        if index == 0 {
            variables.push((format!("{prefix}_SERVICE_PORT"), port.to_string()));
            variables.push((format!("{prefix}_PORT"), url.clone()));
        }
        if let Some(name) = name {
            let name = format!("{prefix}_SERVICE_PORT_{}", env_name(name));
            variables.push((name, port.to_string()));
        }
        let link = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
        variables.push((format!("{link}_PROTO"), lower));
        variables.push((format!("{link}_PORT"), port.to_string()));
        variables.push((format!("{link}_ADDR"), address.clone()));
        variables.push((link, url));
    }
    variables
}

fn env_name(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_the_variables_that_a_kubelet_gives_it() {
        let service = ServiceAddress {
            name: "web-db".into(),
            address: "10.0.0.7".into(),
            ports: vec![
                (None, "TCP".into(), 80),
                (Some("dns-udp".into()), "UDP".into(), 53),
            ],
        };
        let mut variables = variables(&[service]);
        variables.sort();
        let shown: Vec<String> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            shown,
            [
                "WEB_DB_PORT=tcp://10.0.0.7:80",
                "WEB_DB_PORT_53_UDP=udp://10.0.0.7:53",
                "WEB_DB_PORT_53_UDP_ADDR=10.0.0.7",
                "WEB_DB_PORT_53_UDP_PORT=53",
                "WEB_DB_PORT_53_UDP_PROTO=udp",
                "WEB_DB_PORT_80_TCP=tcp://10.0.0.7:80",
                "WEB_DB_PORT_80_TCP_ADDR=10.0.0.7",
                "WEB_DB_PORT_80_TCP_PORT=80",
                "WEB_DB_PORT_80_TCP_PROTO=tcp",
                "WEB_DB_SERVICE_HOST=10.0.0.7",
                "WEB_DB_SERVICE_PORT=80",
                "WEB_DB_SERVICE_PORT_DNS_UDP=53",
            ]
        );
    }

    #[test]
    fn an_ipv6_address_is_bracketed_in_urls() {
        let service = ServiceAddress {
            name: "a".into(),
            address: "fd00::1".into(),
            ports: vec![(None, "TCP".into(), 80)],
        };
        let variables = variables(&[service]);
        assert!(variables.contains(&("A_PORT".into(), "tcp://[fd00::1]:80".into())));
        assert!(variables.contains(&("A_SERVICE_HOST".into(), "fd00::1".into())));
    }
}
