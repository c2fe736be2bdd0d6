//! A test's own part of a shared cluster: a namespace, and home nodes that only its pods can use.
//!
//! In: a cluster and a hint for the name. Out: created nodes, and pods and Deployments to create.
//!
//! A taint separates the tests of a cluster: `burstpool.test/tenant=<namespace>:NoSchedule` on a
//! tenant's home nodes, with a toleration on its pods. A node selector would also keep the pods off
//! virtual nodes, which they must be able to reach. Virtual nodes have their own taint, as in
//! production. A test that builds a pod without the constructors here must add [`Tenant::toleration`].
//!
//! The taint does not separate pods that tolerate everything (`DaemonSet`s), or a topology spread over
//! `kubernetes.io/hostname`, which counts tainted nodes as domains. Tests of these start their own
//! cluster.

use std::fmt::Debug;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Taint, Toleration},
};
use kube::{Api, Client, api::PostParams, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::support::{Cluster, Error, objects, wait};

const TAINT: &str = "burstpool.test/tenant";

/// One test in a cluster.
pub struct Tenant {
    /// Its namespace, which is also its name. Unique in this cluster.
    pub namespace: String,
    /// A client of the administrator, on this test's runtime.
    pub client: Client,
}

impl Cluster {
    /// Creates a tenant. The hint makes its names readable.
    pub async fn tenant(&self, hint: &str) -> Result<Tenant, Error> {
        let unique = Uuid::new_v4().simple().to_string();
        let namespace = format!("{hint}-{}", &unique[..8]);
        self.namespace(&namespace).await?;
        Ok(Tenant {
            namespace,
            client: self.client()?,
        })
    }
}

impl Tenant {
    /// The API of a namespaced kind, in this tenant's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object in this tenant's namespace.
    pub async fn create<K>(&self, object: &K) -> Result<K, Error>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        Ok(self.api().create(&PostParams::default(), object).await?)
    }

    /// Creates a home node of this tenant and waits until it is Ready. Returns its name,
    /// `<namespace>-<name>`.
    pub async fn home_node(&self, name: &str, cpu: &str, memory: &str) -> Result<String, Error> {
        self.tainted_node(name, cpu, memory, self.taint()).await
    }

    /// Creates a node with only this taint, and waits until it is Ready.
    pub async fn tainted_node(
        &self,
        name: &str,
        cpu: &str,
        memory: &str,
        taint: Taint,
    ) -> Result<String, Error> {
        let name = format!("{}-{name}", self.namespace);
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = objects::kwok_node(&name, cpu, memory, &[taint]);
        nodes.create(&PostParams::default(), &node).await?;
        let ready = |node: Option<&Node>| node.is_some_and(objects::is_ready);
        wait::until(nodes, &name, &format!("node {name} to be ready"), ready).await?;
        Ok(name)
    }

    /// A pod that this tenant's home nodes accept. The caller creates it.
    pub fn pod(&self, name: &str, cpu: &str, memory: &str) -> Pod {
        objects::pod(name, cpu, memory, &[self.toleration()])
    }

    /// A Deployment that this tenant's home nodes accept; its pods are labelled `app: NAME`. The caller
    /// creates it.
    pub fn deployment(&self, name: &str, replicas: i32, cpu: &str, memory: &str) -> Deployment {
        objects::deployment(name, replicas, cpu, memory, &[self.toleration()])
    }

    /// The taint that keeps other tenants' pods off this tenant's nodes.
    pub fn taint(&self) -> Taint {
        objects::no_schedule(TAINT, &self.namespace)
    }

    /// The toleration of that taint.
    pub fn toleration(&self) -> Toleration {
        Toleration {
            key: Some(TAINT.to_owned()),
            operator: Some("Equal".to_owned()),
            value: Some(self.namespace.clone()),
            effect: Some("NoSchedule".to_owned()),
            toleration_seconds: None,
        }
    }
}
