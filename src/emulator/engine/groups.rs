//! The engine's interface for the rest of the emulator. Each group has one worker task.
//!
//! In: commands for a group. Callers hold the store's lock, so no command waits. Out: the work on that
//! group, one command after the other; only the newest one counts. A command that arrives during the
//! work on an older one interrupts that work's waits, and starts once the work has returned.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::EngineClient;
use super::deployment::Deployment;
use super::error::EngineError;
use super::images::{self, InaccessibleImage};
use super::instance::EmulatorInstance;
use super::teardown::{self, TeardownManner, TeardownScope};
use super::terminal::{self, Terminal};
use super::{cleanup, logs, pause, socket};
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::model::GroupBody;
use crate::emulator::options::EngineSocket;
use crate::emulator::state::EmulatorState;

/// A container engine that runs the groups of one emulator.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<EngineParts>,
}

/// What the workers of all groups share.
pub(super) struct EngineParts {
    /// The engine's API.
    pub client: EngineClient,
    /// This emulator's labels and directory.
    pub instance: EmulatorInstance,
    /// All tasks.
    pub tasks: TaskTracker,
    /// Ends all tasks.
    pub cancel: CancellationToken,
    /// How many CPUs the machine has.
    pub cpus: f64,
    workers: Mutex<HashMap<GroupKey, watch::Sender<GroupCommand>>>,
}

/// A command for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupCommand {
    /// Deploy the group from scratch.
    Deploy,
    /// Restart its containers; keep its address and volumes.
    Restart,
    /// Stop it.
    Stop,
    /// Remove it.
    Remove,
}

impl Engine {
    /// Connects to an engine, removes what crashed emulators left there, and prepares the infra
    /// containers' image.
    pub async fn connect(socket: &EngineSocket) -> Result<Self, EngineError> {
        let client = socket::connect(socket).await?;
        let instance = EmulatorInstance::new()?;
        if let Err(error) = cleanup::remove_orphans(&client).await {
            tracing::warn!(
                error = error.error_chain(),
                "containers of emulators that have ended were not removed"
            );
        }
        pause::ensure(&client).await?;
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let parts = EngineParts {
            client,
            instance,
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
            cpus: f64::from(u32::try_from(cpus).unwrap_or(u32::MAX)),
            workers: Mutex::default(),
        };
        Ok(Self {
            parts: Arc::new(parts),
        })
    }

    /// Checks that the engine has, or can pull, every image of the group.
    pub async fn accessible(&self, body: &GroupBody) -> Result<(), InaccessibleImage> {
        match &body.properties {
            Some(properties) => images::check_accessible(&self.parts.client, properties).await,
            None => Ok(()),
        }
    }

    /// Deploys a group once its region has capacity. First removes the containers of an older
    /// deployment.
    pub fn deploy(&self, shared: &Arc<EmulatorState>, key: GroupKey) {
        self.send_command(shared, key, GroupCommand::Deploy);
    }

    /// Restarts a group's containers. The group keeps its address and volumes.
    pub fn restart(&self, shared: &Arc<EmulatorState>, key: GroupKey) {
        self.send_command(shared, key, GroupCommand::Restart);
    }

    /// Stops a group: keeps its logs, removes its containers and volumes.
    pub fn stop(&self, shared: &Arc<EmulatorState>, key: GroupKey) {
        self.send_command(shared, key, GroupCommand::Stop);
    }

    /// Removes a group.
    pub fn remove(&self, shared: &Arc<EmulatorState>, key: GroupKey) {
        self.send_command(shared, key, GroupCommand::Remove);
    }

    /// The log of a container's current or last run. Empty if it never ran.
    pub async fn logs(
        &self,
        key: &GroupKey,
        container: &str,
        tail: Option<usize>,
        timestamps: bool,
    ) -> String {
        let name = self.parts.instance.container_name(key, container);
        logs::text(&self.parts.client, &name, tail, timestamps).await
    }

    /// Runs a command in a container, in a terminal of `size` (rows and columns).
    pub async fn exec(
        &self,
        key: &GroupKey,
        container: &str,
        command: Vec<String>,
        size: (u16, u16),
    ) -> Result<Terminal, EngineError> {
        let name = self.parts.instance.container_name(key, container);
        terminal::exec(&self.parts, &name, command, size).await
    }

    /// A container's output from now on.
    pub async fn attach(&self, key: &GroupKey, container: &str) -> Result<Terminal, EngineError> {
        let name = self.parts.instance.container_name(key, container);
        terminal::attach(&self.parts.client, &name).await
    }

    /// Starts the shutdown: the workers kill and remove all containers.
    pub fn begin_shutdown(&self) {
        self.parts.cancel.cancel();
    }

    /// Shuts down, waits, and removes everything that this emulator created.
    pub async fn clean_up(&self) {
        self.begin_shutdown();
        self.parts.tasks.close();
        self.parts.tasks.wait().await;
        let client = &self.parts.client;
        let result = match client.list(&[self.parts.instance.label()]).await {
            Ok(containers) => cleanup::remove(client, containers).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::warn!(
                error = error.error_chain(),
                "containers were not removed at the shutdown"
            );
        }
        super::instance::remove_directory(self.parts.instance.directory());
    }

    fn send_command(&self, shared: &Arc<EmulatorState>, key: GroupKey, command: GroupCommand) {
        if self.parts.cancel.is_cancelled() {
            return;
        }
        match self.parts.workers().entry(key) {
            Entry::Occupied(worker) => drop(worker.get().send_replace(command)),
            Entry::Vacant(entry) => {
                let (sender, commands) = watch::channel(command);
                let worker = GroupWorker {
                    shared: shared.clone(),
                    parts: self.parts.clone(),
                    key: entry.key().clone(),
                };
                entry.insert(sender);
                self.parts.tasks.spawn(worker.run(commands));
            }
        }
    }
}

impl EngineParts {
    fn workers(&self) -> MutexGuard<'_, HashMap<GroupKey, watch::Sender<GroupCommand>>> {
        self.workers.lock()
    }
}

/// The worker of one group.
struct GroupWorker {
    shared: Arc<EmulatorState>,
    parts: Arc<EngineParts>,
    key: GroupKey,
}

impl GroupWorker {
    async fn run(self, mut commands: watch::Receiver<GroupCommand>) {
        loop {
            let command = *commands.borrow_and_update();
            let interrupt = self.parts.cancel.child_token();
            let mut work = std::pin::pin!(self.execute(command, &interrupt));
            tokio::select! {
                () = &mut work => {}
                _ = commands.changed() => {
                    interrupt.cancel();
                    work.await;
                    continue;
                }
            }
            if command == GroupCommand::Remove && self.finish_if_idle(&commands) {
                return;
            }
            tokio::select! {
                _ = commands.changed() => {}
                () = self.parts.cancel.cancelled() => break,
            }
        }
        teardown::containers(
            &self.parts,
            &self.key,
            TeardownScope::All,
            TeardownManner::Kill,
        )
        .await;
    }

    /// Ends this worker if no newer command has arrived. Returns whether it has ended.
    fn finish_if_idle(&self, commands: &watch::Receiver<GroupCommand>) -> bool {
        let mut workers = self.parts.workers();
        let is_idle = !commands.has_changed().unwrap_or(false);
        if is_idle {
            workers.remove(&self.key);
        }
        is_idle
    }

    async fn execute(&self, command: GroupCommand, interrupt: &CancellationToken) {
        tracing::debug!(
            group = self.key.name,
            ?command,
            "a worker executes a command"
        );
        let scope = if command == GroupCommand::Restart {
            TeardownScope::ContainersOnly
        } else {
            TeardownScope::All
        };
        let stopped = match command {
            GroupCommand::Stop => {
                teardown::stop_and_collect(&self.parts, &self.shared, &self.key).await
            }
            _ => HashMap::new(),
        };
        teardown::containers(&self.parts, &self.key, scope, TeardownManner::Gracefully).await;
        match command {
            GroupCommand::Deploy | GroupCommand::Restart => {
                let interrupt = interrupt.clone();
                if let Some(deployment) =
                    Deployment::begin(&self.shared, &self.parts, &self.key, interrupt)
                {
                    deployment.run().await;
                }
            }
            GroupCommand::Stop => teardown::report_stopped(&self.shared, &self.key, stopped),
            GroupCommand::Remove => teardown::report_gone(&self.shared, &self.key),
        }
    }
}
