//! The engine as the rest of the emulator sees it: one worker a group.
//!
//! In: what is wished for a group, from whoever holds the store's lock: nothing here waits for it
//! then. Out: work on that group, one wish after the other, the newest one only. A wish that
//! arrives during the work on an older one interrupts that one's waiting and is taken up once it
//! has let go.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::client::Client;
use super::deployment::Deployment;
use super::error::Error;
use super::images::{self, Inaccessible};
use super::instance::Instance;
use super::teardown::{self, Manner, Scope};
use super::terminal::{self, Terminal};
use super::{logs, pause, socket, sweep};
use crate::emulator::group::id::GroupKey;
use crate::emulator::group::model::GroupBody;
use crate::emulator::options::EngineSocket;
use crate::emulator::shared::Shared;

/// A container engine that runs the groups of one emulator.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<Parts>,
}

/// What the work on all groups shares.
pub(super) struct Parts {
    /// The way to the engine.
    pub client: Client,
    /// This emulator's mark on things.
    pub instance: Instance,
    /// Every task.
    pub tasks: TaskTracker,
    /// Ends every task.
    pub cancel: CancellationToken,
    /// How many CPUs the machine has.
    pub cpus: f64,
    workers: Mutex<HashMap<GroupKey, watch::Sender<Wish>>>,
}

/// What is wished for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// It runs, from nothing.
    Deploy,
    /// Its containers run anew, with its address and its volumes.
    Restart,
    /// It does not run.
    Stop,
    /// It is not there.
    Remove,
}

impl Engine {
    /// Connects to an engine, removes what ended emulators have left there, and prepares the image
    /// of the infra containers.
    pub async fn connect(socket: &EngineSocket) -> Result<Self, Error> {
        let client = socket::connect(socket).await?;
        let instance = Instance::new()?;
        if let Err(error) = sweep::remove_orphans(&client).await {
            tracing::warn!(
                error = error.in_full(),
                "removing what ended emulators have left"
            );
        }
        pause::ensure(&client).await?;
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let parts = Parts {
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

    /// Whether the engine has, or can get, every image of a group.
    pub async fn accessible(&self, body: &GroupBody) -> Result<(), Inaccessible> {
        match &body.properties {
            Some(properties) => images::accessible(&self.parts.client, properties).await,
            None => Ok(()),
        }
    }

    /// Deploys a group, once its region has capacity; whatever runs of an older deployment ends.
    pub fn deploy(&self, shared: &Arc<Shared>, key: GroupKey) {
        self.wish(shared, key, Wish::Deploy);
    }

    /// Restarts a group's containers in place: its address and volumes stay.
    pub fn restart(&self, shared: &Arc<Shared>, key: GroupKey) {
        self.wish(shared, key, Wish::Restart);
    }

    /// Stops a group; its logs are kept, nothing else is.
    pub fn stop(&self, shared: &Arc<Shared>, key: GroupKey) {
        self.wish(shared, key, Wish::Stop);
    }

    /// Removes a group.
    pub fn remove(&self, shared: &Arc<Shared>, key: GroupKey) {
        self.wish(shared, key, Wish::Remove);
    }

    /// What a container's present or latest run has written; nothing if it never ran.
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
    ) -> Result<Terminal, Error> {
        let name = self.parts.instance.container_name(key, container);
        terminal::exec(&self.parts, &name, command, size).await
    }

    /// What a container writes from now on.
    pub async fn attach(&self, key: &GroupKey, container: &str) -> Result<Terminal, Error> {
        let name = self.parts.instance.container_name(key, container);
        terminal::attach(&self.parts.client, &name).await
    }

    /// Begins to end: every group's containers are killed and removed.
    pub fn end(&self) {
        self.parts.cancel.cancel();
    }

    /// Ends, and removes everything that was made here.
    pub async fn clean_up(&self) {
        self.end();
        self.parts.tasks.close();
        self.parts.tasks.wait().await;
        let client = &self.parts.client;
        let swept = match client.list(&[self.parts.instance.label()]).await {
            Ok(left) => sweep::remove(client, left).await,
            Err(error) => Err(error),
        };
        if let Err(error) = swept {
            tracing::warn!(error = error.in_full(), "removing containers at the end");
        }
        super::instance::remove_directory(self.parts.instance.directory());
    }

    fn wish(&self, shared: &Arc<Shared>, key: GroupKey, wish: Wish) {
        if self.parts.cancel.is_cancelled() {
            return;
        }
        match self.parts.workers().entry(key) {
            Entry::Occupied(worker) => drop(worker.get().send_replace(wish)),
            Entry::Vacant(place) => {
                let (sender, wishes) = watch::channel(wish);
                let worker = Worker {
                    shared: shared.clone(),
                    parts: self.parts.clone(),
                    key: place.key().clone(),
                };
                place.insert(sender);
                self.parts.tasks.spawn(worker.work(wishes));
            }
        }
    }
}

impl Parts {
    fn workers(&self) -> MutexGuard<'_, HashMap<GroupKey, watch::Sender<Wish>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The work on one group.
struct Worker {
    shared: Arc<Shared>,
    parts: Arc<Parts>,
    key: GroupKey,
}

impl Worker {
    async fn work(self, mut wishes: watch::Receiver<Wish>) {
        loop {
            let wish = *wishes.borrow_and_update();
            let interrupt = self.parts.cancel.child_token();
            let mut work = std::pin::pin!(self.carry_out(wish, &interrupt));
            tokio::select! {
                () = &mut work => {}
                _ = wishes.changed() => {
                    interrupt.cancel();
                    work.await;
                    continue;
                }
            }
            if wish == Wish::Remove && self.leave(&wishes) {
                return;
            }
            tokio::select! {
                _ = wishes.changed() => {}
                () = self.parts.cancel.cancelled() => break,
            }
        }
        teardown::containers(&self.parts, &self.key, Scope::All, Manner::AtOnce).await;
    }

    /// Whether nothing more was wished, so that the group is nobody's work any longer.
    fn leave(&self, wishes: &watch::Receiver<Wish>) -> bool {
        let mut workers = self.parts.workers();
        let done = !wishes.has_changed().unwrap_or(false);
        if done {
            workers.remove(&self.key);
        }
        done
    }

    async fn carry_out(&self, wish: Wish, interrupt: &CancellationToken) {
        tracing::debug!(group = self.key.name, ?wish, "working on a group");
        let scope = if wish == Wish::Restart {
            Scope::Joined
        } else {
            Scope::All
        };
        let kept = match wish {
            Wish::Stop => teardown::last_words(&self.parts, &self.shared, &self.key).await,
            _ => HashMap::new(),
        };
        teardown::containers(&self.parts, &self.key, scope, Manner::Gracefully).await;
        match wish {
            Wish::Deploy | Wish::Restart => {
                let interrupt = interrupt.clone();
                if let Some(deployment) =
                    Deployment::begin(&self.shared, &self.parts, &self.key, interrupt)
                {
                    deployment.run().await;
                }
            }
            Wish::Stop => teardown::report_stopped(&self.shared, &self.key, kept),
            Wish::Remove => teardown::report_gone(&self.shared, &self.key),
        }
    }
}
