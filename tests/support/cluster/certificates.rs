//! The cluster's certificates and keys, created for each cluster.
//!
//! In: a directory. Out: PEM files in it, named by the constants here; [`super::components`] and the
//! kubeconfigs refer to them. Keys are ECDSA P-256, which every component accepts, also for service
//! account tokens. Creating one takes a millisecond; an RSA key would take a second.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};

use crate::support::Error;

/// The CA of servers and clients: `ca.crt`, `ca.key`.
pub const CA: &str = "ca";
/// The CA of the front proxy. A separate one, so that no client certificate is valid for it.
pub const FRONT_PROXY_CA: &str = "front-proxy-ca";
/// The serving certificate of all components, for loopback.
pub const SERVING: &str = "serving";
/// The administrator's client certificate.
pub const ADMIN: &str = "admin";
/// The scheduler's client certificate.
pub const SCHEDULER: &str = "scheduler";
/// The controller manager's client certificate.
pub const CONTROLLER_MANAGER: &str = "controller-manager";
/// The client certificate that the API server uses for kubelets, including burstpool's virtual nodes.
pub const KUBELET_CLIENT: &str = "kubelet-client";
/// The client certificate that the API server uses for aggregated API servers (metrics-server).
pub const FRONT_PROXY: &str = "front-proxy";
/// The key pair of service account tokens: `service-accounts.key`, `service-accounts.pub`.
pub const SERVICE_ACCOUNTS: &str = "service-accounts";

/// The host name under which the API server reaches metrics-server.
const METRICS_HOST: &str = "metrics-server.kube-system.svc";

/// Writes all of them into the directory.
pub fn write(directory: &Path) -> Result<(), Error> {
    let ca = authority(directory, CA)?;
    let proxy_ca = authority(directory, FRONT_PROXY_CA)?;
    serving(directory, &ca)?;
    client(directory, &ca, ADMIN, "admin", Some("system:masters"))?;
    client(directory, &ca, SCHEDULER, "system:kube-scheduler", None)?;
    client(
        directory,
        &ca,
        CONTROLLER_MANAGER,
        "system:kube-controller-manager",
        None,
    )?;
    let kubelet_client = "kube-apiserver-kubelet-client";
    client(
        directory,
        &ca,
        KUBELET_CLIENT,
        kubelet_client,
        Some("system:masters"),
    )?;
    client(directory, &proxy_ca, FRONT_PROXY, FRONT_PROXY, None)?;
    let tokens = KeyPair::generate()?;
    put(
        directory,
        &format!("{SERVICE_ACCOUNTS}.key"),
        &tokens.serialize_pem(),
    )?;
    put(
        directory,
        &format!("{SERVICE_ACCOUNTS}.pub"),
        &tokens.public_key_pem(),
    )
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority(directory: &Path, name: &str) -> Result<Authority, Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name, None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    put(directory, &format!("{name}.crt"), &authority.pem())?;
    put(
        directory,
        &format!("{name}.key"),
        &authority.key().serialize_pem(),
    )?;
    Ok(authority)
}

fn serving(directory: &Path, ca: &Authority) -> Result<(), Error> {
    // 10.0.0.1 is the first address of the service range, that of the Service `kubernetes`.
    let names = [
        "localhost",
        "127.0.0.1",
        "10.0.0.1",
        "kubernetes.default.svc",
        METRICS_HOST,
    ];
    let mut params = CertificateParams::new(names.map(str::to_owned))?;
    params.distinguished_name = named("burstpool test cluster", None);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    issue(directory, ca, SERVING, params)
}

fn client(
    directory: &Path,
    ca: &Authority,
    file: &str,
    user: &str,
    group: Option<&str>,
) -> Result<(), Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(user, group);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    issue(directory, ca, file, params)
}

fn issue(
    directory: &Path,
    ca: &Authority,
    file: &str,
    mut params: CertificateParams,
) -> Result<(), Error> {
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, ca)?;
    put(directory, &format!("{file}.crt"), &certificate.pem())?;
    put(directory, &format!("{file}.key"), &key.serialize_pem())
}

fn named(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, user);
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name
}

fn put(directory: &Path, file: &str, text: &str) -> Result<(), Error> {
    fs::write(directory.join(file), text).map_err(Error::io(format!("writing {file}")))
}
