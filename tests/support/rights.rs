//! The operator's rights, from its manifests in `config`, without the operator itself, which would need
//! its image.

use serde_json::{Value, json};

use super::{Cluster, Error};

/// The operator's account and namespace in the manifests.
pub const OPERATOR: &str = "burstpool";

impl Cluster {
    /// Runs kubectl as the administrator, and returns its output.
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

    /// Installs everything that the manifests of `config` require: the resources, and these namespaces.
    pub async fn install_kinds(&self, namespaces: &[&str]) -> Result<(), Error> {
        self.install_crds().await?;
        self.install_service_monitors()?;
        for namespace in namespaces {
            self.namespace(namespace).await?;
        }
        Ok(())
    }

    /// Installs the Prometheus operator's resource that `config/prometheus` uses, and waits until it is
    /// served.
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

    /// Gives the operator its rights, also in the namespace `default`. Returns its user entry for a
    /// kubeconfig.
    pub fn install_rights(&self) -> Result<Value, Error> {
        // Another field manager may have installed the resource already.
        self.apply("default", &["--force-conflicts"])?;
        self.apply("namespace", &["--namespace", "default"])?;
        let deployment = format!("deployment/{OPERATOR}");
        self.ask(&["scale", "-n", OPERATOR, &deployment, "--replicas=0"])?;
        self.operator()
    }

    /// Gives the operator all rights of the manifests in every namespace. Returns its user entry for a
    /// kubeconfig.
    pub fn install_all_rights(&self) -> Result<Value, Error> {
        self.apply_kustomization("tests/fixtures/rights", &[])?;
        self.operator()
    }

    /// The operator's user entry for a kubeconfig, with a new token.
    pub fn operator(&self) -> Result<Value, Error> {
        let token = self.ask(&["create", "token", OPERATOR, "-n", OPERATOR])?;
        Ok(json!({"token": token.trim()}))
    }
}
