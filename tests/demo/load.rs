//! The load of the peak: measured by Prometheus if it is installed, otherwise simulated by a person who
//! scales.

use crate::stage::Stage;
use crate::support::monitoring::{Load, Prometheus};
use serde_json::{Value, json};

/// Requests per second that one replica can serve.
const EACH: usize = 100;

/// What changes the number of replicas.
pub enum Source {
    /// The pool, by the values of this Prometheus.
    Prometheus(Box<Prometheus>, Load),
    /// This program, in place of a person.
    Person,
}

impl Source {
    pub async fn find() -> Self {
        if Prometheus::is_installed() {
            let load = Load::start().await;
            return Self::Prometheus(Box::new(Prometheus::start(&load).await), load);
        }
        println!("    Prometheus is not installed: the workload is scaled by hand");
        Self::Person
    }

    /// Makes the sample's pool scale its workload by the load.
    pub async fn prepare(
        &self,
        stage: &Stage<'_>,
        least: usize,
        most: usize,
    ) -> anyhow::Result<()> {
        let Self::Prometheus(prometheus, load) = self else {
            return Ok(());
        };
        load.set(as_load(least));
        let scale = json!({"minReplicas": least, "maxReplicas": most, "triggers": ["requests"],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}});
        let trigger = json!({"name": "requests", "prometheus": {"serverAddress": prometheus.address(),
            "query": "sum(load)", "threshold": EACH.to_string(), "interval": "1s"}});
        let patch = json!({"spec": {
            "spill": {"afterWhenTriggered": "5s"},
            "workloads": [{"name": "web", "target": target(), "scale": scale}],
            "triggers": [trigger],
        }});
        change(stage, &patch).await
    }

    /// Resets the pool to the sample: while it scales the workload, a person cannot.
    pub async fn leave_to_people(&self, stage: &Stage<'_>) -> anyhow::Result<()> {
        let Self::Prometheus(..) = self else {
            return Ok(());
        };
        let patch = json!({"spec": {
            "spill": {"afterWhenTriggered": null},
            "workloads": [{"name": "web", "target": target()}],
            "triggers": null,
        }});
        change(stage, &patch).await
    }

    /// Sets the load for this many replicas. Returns a description.
    pub async fn set(&self, stage: &Stage<'_>, replicas: usize) -> anyhow::Result<String> {
        match self {
            Self::Prometheus(_, load) => {
                load.set(as_load(replicas));
                Ok(format!(
                    "{} requests a second, by Prometheus: the pool wants {replicas} replicas",
                    replicas * EACH
                ))
            }
            Self::Person => {
                let replicas_flag = format!("--replicas={replicas}");
                stage
                    .kubectl(&["scale", "deployment/web", &replicas_flag])
                    .await?;
                Ok(format!("scaled to {replicas} replicas"))
            }
        }
    }
}

/// The workload of the sample.
fn target() -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "default", "name": "web"})
}

/// Patches the pool.
async fn change(stage: &Stage<'_>, patch: &Value) -> anyhow::Result<()> {
    let patch = patch.to_string();
    let patch = ["patch", "burstpool/peak", "--type=merge", "--patch", &patch];
    stage.kubectl(&patch).await.map(drop)
}

#[allow(clippy::cast_precision_loss, reason = "a dozen replicas")]
fn as_load(replicas: usize) -> f64 {
    (replicas * EACH) as f64
}
