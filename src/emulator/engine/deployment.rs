//! Deploys a group: pulls images, creates the network, runs init containers, starts the containers,
//! supervises them.
//!
//! In: a group from the store. Out: containers in the engine, and a report of each step. If the engine
//! refuses to create something, the group fails. If it refuses to start a container, only that
//! container fails: its command may be the reason, and the restart policy decides what happens next.

use std::future::Future;
use std::net::Ipv4Addr;
use std::sync::Arc;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::EngineError;
use super::groups::EngineParts;
use super::{images, spec, volumes};
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::lifecycle::EmulatedGroup;
use crate::emulator::group::model::{Container, Properties};
use crate::emulator::group::run::{DueChange, EmulatedRun, add_event};
use crate::emulator::group::stage::GroupStage;
use crate::emulator::state::EmulatorState;

/// Why a deployment ends early.
pub(super) enum DeploymentHalt {
    /// Nothing is left to do: the group has failed, or a newer deployment or command has replaced this
    /// one.
    Superseded,
    /// The engine refused a call.
    Failed(EngineError),
}

impl From<EngineError> for DeploymentHalt {
    fn from(error: EngineError) -> Self {
        Self::Failed(error)
    }
}

/// One deployment of a group.
pub(super) struct Deployment {
    /// The emulator's shared state.
    pub shared: Arc<EmulatorState>,
    /// The engine.
    pub parts: Arc<EngineParts>,
    /// The group.
    pub key: GroupKey,
    /// The properties to deploy.
    pub properties: Properties,
    /// The number of this deployment. Only unique together with `operation`: a group that is deleted
    /// and created again starts at one.
    pub generation: u64,
    /// The operation that started this deployment.
    pub operation: Uuid,
    interrupt: CancellationToken,
}

/// A container's position in the group's lists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum DeploymentTarget {
    /// In `initContainers`.
    Init(usize),
    /// In `containers`.
    App(usize),
}

impl Deployment {
    /// The current deployment of a group. `None` if the group does not exist. `interrupt` ends all
    /// waits.
    pub fn begin(
        shared: &Arc<EmulatorState>,
        parts: &Arc<EngineParts>,
        key: &GroupKey,
        interrupt: CancellationToken,
    ) -> Option<Self> {
        let store = shared.store();
        let group = store.groups.get(key)?;
        Some(Self {
            shared: shared.clone(),
            parts: parts.clone(),
            key: key.clone(),
            properties: group.body.properties.clone()?,
            generation: group.generation,
            operation: group.operation,
            interrupt,
        })
    }

    /// Deploys the group, then supervises its containers until all have ended for good.
    pub async fn run(&self) {
        match self.deploy().await {
            Ok(()) | Err(DeploymentHalt::Superseded) => {}
            Err(DeploymentHalt::Failed(error)) => {
                let error = error.error_chain();
                tracing::warn!(group = self.key.name, error, "cannot deploy a group");
                self.fail(&error);
            }
        }
    }

    async fn deploy(&self) -> Result<(), DeploymentHalt> {
        self.wait_for_capacity().await?;
        self.report(|group, at, _| {
            if !matches!(group.stage, GroupStage::Pulling { .. }) {
                group.begin_pulling(at);
            }
        })?;
        self.unless_interrupted(images::pull(&self.parts.client, &self.properties))
            .await??;
        volumes::make(&self.parts.instance, &self.key, &self.properties).await?;
        let address = self.create_network().await?;
        self.report(|group, at, _| {
            // A rootless engine's network has no address that can be reached: keep the emulated one.
            group.next_ip = address.unwrap_or(group.next_ip);
            group.finish_pulling(at);
        })?;
        self.run_init_containers().await?;
        let refused = self.start_all().await?;
        self.report(EmulatedGroup::finish_starting)?;
        self.supervise(refused).await
    }

    /// Waits until the region has capacity for the group.
    async fn wait_for_capacity(&self) -> Result<(), DeploymentHalt> {
        loop {
            let now = self.shared.clock.now();
            self.shared.store().advance(&self.key, now);
            match self.report(|group, _, _| (group.lacks_capacity, group.next_at()))? {
                (true, Some(next)) => self.sleep_until(next).await?,
                _ => return Ok(()),
            }
        }
    }

    /// Creates the infra container unless it is still running, and returns the group's address.
    async fn create_network(&self) -> Result<Option<Ipv4Addr>, DeploymentHalt> {
        let (client, instance) = (&self.parts.client, &self.parts.instance);
        let name = instance.infra_name(&self.key);
        let inspected = client.inspect(&name).await?;
        if !inspected.is_some_and(|inspected| inspected.state.running) {
            client.remove(&name).await?;
            let labels = instance.labels(&self.key, "");
            client
                .create(&name, spec::infra(&self.key.name, &self.properties, labels))
                .await?;
            client.start(&name).await?;
        }
        let address = client
            .inspect(&name)
            .await?
            .and_then(|inspected| inspected.address());
        if address.is_none() {
            tracing::warn!(
                group = self.key.name,
                "the engine gives containers no address of their own"
            );
        }
        Ok(address)
    }

    /// Runs the init containers one after the other.
    async fn run_init_containers(&self) -> Result<(), DeploymentHalt> {
        loop {
            let stage = self.report(|group, _, _| group.stage.clone())?;
            let index = match stage {
                GroupStage::Initialising { index } => index,
                GroupStage::Failed => return Err(DeploymentHalt::Superseded),
                _ => return Ok(()),
            };
            if let Some((at, DueChange::Start)) =
                self.report(|group, _, _| group.init[index].due)?
            {
                self.sleep_until(at).await?;
            }
            let target = DeploymentTarget::Init(index);
            self.create(target).await?;
            let code = match self.start(target).await? {
                Some(code) => code,
                None => self.unless_interrupted(self.wait_for_exit(target)).await?,
            };
            self.report(|group, at, effects| {
                group.finish_init_container(at, index, code, effects);
            })?;
        }
    }

    /// Starts all containers. For each, returns the exit code to report if the engine refused to start
    /// it.
    async fn start_all(&self) -> Result<Vec<Option<i32>>, DeploymentHalt> {
        self.report(|group, at, _| {
            if !matches!(group.stage, GroupStage::Starting { .. }) {
                group.begin_starting(at);
            }
        })?;
        let containers = 0..self.properties.containers().len();
        let starts = containers.map(|index| async move {
            self.create(DeploymentTarget::App(index)).await?;
            self.start(DeploymentTarget::App(index)).await
        });
        // Wait for all, even if one fails: a call that creates something must not be cancelled.
        futures::future::join_all(starts)
            .await
            .into_iter()
            .collect()
    }

    /// Creates a container. Removes an old one of the same name first: the previous run.
    pub(super) async fn create(&self, target: DeploymentTarget) -> Result<(), EngineError> {
        let (client, instance) = (&self.parts.client, &self.parts.instance);
        let (container, name) = (self.container(target), self.name(target));
        client.remove(&name).await?;
        let placement = spec::PlacedContainer {
            labels: instance.labels(&self.key, container.name()),
            mounts: volumes::mounts(instance, &self.key, &self.properties, container),
            infra: instance.infra_name(&self.key),
            cpus: self.parts.cpus,
        };
        client
            .create(&name, spec::container(container, placement))
            .await
            .map(drop)
    }

    /// Starts a container. Returns the exit code to report if the engine refuses.
    pub(super) async fn start(
        &self,
        target: DeploymentTarget,
    ) -> Result<Option<i32>, DeploymentHalt> {
        let result = self.parts.client.start(&self.name(target)).await;
        self.report(|group, at, _| {
            let run: &mut EmulatedRun = match target {
                DeploymentTarget::Init(index) => &mut group.init[index],
                DeploymentTarget::App(index) => &mut group.containers[index],
            };
            run.start(at);
            let error = result.err()?.error_chain();
            add_event(
                &mut run.events,
                at,
                "Failed",
                &format!("Error: {error}"),
                true,
            );
            Some(exit_code(&error))
        })
    }

    /// A container's name in the engine.
    pub(super) fn name(&self, target: DeploymentTarget) -> String {
        self.parts
            .instance
            .container_name(&self.key, self.container(target).name())
    }

    /// The container's specification.
    pub(super) fn container(&self, target: DeploymentTarget) -> &Container {
        match target {
            DeploymentTarget::Init(index) => &self.properties.init_containers()[index],
            DeploymentTarget::App(index) => &self.properties.containers()[index],
        }
    }

    /// Waits until the emulated time is `at`. Fails if interrupted.
    pub(super) async fn sleep_until(&self, at: Timestamp) -> Result<(), DeploymentHalt> {
        self.unless_interrupted(self.shared.clock.sleep_until(at))
            .await
    }

    /// Waits for `what`. Fails with [`DeploymentHalt::Superseded`] if a newer command for the group interrupts it.
    pub(super) async fn unless_interrupted<T>(
        &self,
        what: impl Future<Output = T>,
    ) -> Result<T, DeploymentHalt> {
        tokio::select! {
            biased;
            () = self.interrupt.cancelled() => Err(DeploymentHalt::Superseded),
            outcome = what => Ok(outcome),
        }
    }
}

/// The exit code to report for a container that the engine could not start: the shell's codes if the
/// program is missing (127) or not executable (126), otherwise 128.
fn exit_code(message: &str) -> i32 {
    let message = message.to_lowercase();
    if message.contains("not found") || message.contains("no such file") {
        127
    } else if message.contains("permission denied") {
        126
    } else {
        128
    }
}
