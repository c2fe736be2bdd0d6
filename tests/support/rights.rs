//! The operator's rights, as its manifests in `config` give them; not the operator itself, which would need
//! its image.

use serde_json::{Value, json};

use super::{Cluster, Error};

/// The operator's account and namespace, as the manifests have them.
pub const OPERATOR: &str = "burstpool";

impl Cluster {
    /// What kubectl says, as the administrator, if it could.
    pub fn ask(&self, arguments: &[&str]) -> Result<String, Error> {
        let done = self.kubectl().args(arguments).output();
        let done = done.map_err(Error::io("running kubectl"))?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        Err(Error::Kubectl {
            what: arguments.join(" "),
            said: String::from_utf8_lossy(&done.stderr).into_owned(),
        })
    }

    /// Applies a kustomization of `config`.
    pub fn apply(&self, directory: &str, more: &[&str]) -> Result<(), Error> {
        self.apply_kustomization(&format!("config/{directory}"), more)
    }

    fn apply_kustomization(&self, directory: &str, more: &[&str]) -> Result<(), Error> {
        let path = format!("{}/{directory}", env!("CARGO_MANIFEST_DIR"));
        let arguments = [&["apply", "--server-side", "-k", &path], more].concat();
        self.ask(&arguments).map(drop)
    }

    /// What must be there for every manifest of `config` to be accepted: the resources, and these namespaces.
    pub async fn install_kinds(&self, namespaces: &[&str]) -> Result<(), Error> {
        self.install_crds().await?;
        self.install_service_monitors()?;
        for namespace in namespaces {
            self.namespace(namespace).await?;
        }
        Ok(())
    }

    /// Installs the resource of the Prometheus operator that `config/prometheus` has one of, and returns when
    /// it is served.
    fn install_service_monitors(&self) -> Result<(), Error> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/prometheus-operator/servicemonitors.yaml"
        );
        self.ask(&["apply", "--server-side", "-f", path])?;
        let resource = "crd/servicemonitors.monitoring.coreos.com";
        let established = ["wait", "--for=condition=Established", resource];
        self.ask(&established).map(drop)
    }

    /// Gives the operator its rights, also in the namespace `default`; the operator as a kubeconfig has it.
    pub fn install_rights(&self) -> Result<Value, Error> {
        // The resource may have been installed already, by another hand.
        self.apply("default", &["--force-conflicts"])?;
        self.apply("namespace", &["--namespace", "default"])?;
        let deployment = format!("deployment/{OPERATOR}");
        self.ask(&["scale", "-n", OPERATOR, &deployment, "--replicas=0"])?;
        self.operator()
    }

    /// Gives the operator all rights that the manifests have for it, in every namespace; the operator as a
    /// kubeconfig has it.
    pub fn install_all_rights(&self) -> Result<Value, Error> {
        self.apply_kustomization("tests/fixtures/rights", &[])?;
        self.operator()
    }

    /// The operator as a kubeconfig has it, with a new token.
    pub fn operator(&self) -> Result<Value, Error> {
        let token = self.ask(&["create", "token", OPERATOR, "-n", OPERATOR])?;
        Ok(json!({"token": token.trim()}))
    }
}
