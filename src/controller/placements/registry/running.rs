//! The running tasks of placements, by [`PlacementId`].

use std::collections::{BTreeMap, HashMap};

use super::task::PlacementTask;
use crate::controller::placements::PlacementId;
use crate::controller::placements::drain_pace::DrainDelay;

/// The placements whose tasks run, and the pools that have or had some.
#[derive(Default)]
pub(super) struct RunningPlacements {
    tasks: BTreeMap<PlacementId, PlacementTask>,
    /// By pool name, when its drain continues. A pool is here from the start of its first placement until all its
    /// placements have been drained.
    drain_delays: HashMap<String, DrainDelay>,
}

impl RunningPlacements {
    /// The tasks of a placement, if they run.
    pub fn get(&self, id: &PlacementId) -> Option<&PlacementTask> {
        self.tasks.get(id)
    }

    /// The tasks of a placement, if they run.
    pub fn get_mut(&mut self, id: &PlacementId) -> Option<&mut PlacementTask> {
        self.tasks.get_mut(id)
    }

    /// Adds the tasks of a placement.
    pub fn insert(&mut self, id: PlacementId, task: PlacementTask) {
        self.drain_delays.entry(id.pool.clone()).or_default();
        self.tasks.insert(id, task);
    }

    /// Takes out the tasks of a placement whose tasks will be started again.
    pub fn take(&mut self, id: &PlacementId) -> Option<PlacementTask> {
        self.tasks.remove(id)
    }

    /// Takes out the tasks of those of a pool's placements that are drained. Forgets the pool if no placement is
    /// left.
    pub fn take_drained(&mut self, pool: &str, ids: &[PlacementId]) -> Vec<PlacementTask> {
        let drained =
            |id: &PlacementId, task: &mut PlacementTask| task.is_draining() && ids.contains(id);
        let taken = self.tasks.extract_if(.., drained);
        let taken = taken.map(|(_, task)| task).collect();
        if self.of_pool(pool).next().is_none() {
            self.drain_delays.remove(pool);
        }
        taken
    }

    /// Takes out all tasks.
    pub fn drain(&mut self) -> impl Iterator<Item = PlacementTask> + use<> {
        self.drain_delays.clear();
        std::mem::take(&mut self.tasks).into_values()
    }

    /// The placements of a pool, and their tasks.
    pub fn of_pool(&self, pool: &str) -> impl Iterator<Item = (&PlacementId, &PlacementTask)> {
        // No placement has an empty name, so this key is before all placements of the pool.
        let first = PlacementId::new(pool, "");
        let rest = self.tasks.range(first..);
        rest.take_while(move |(id, _)| id.pool == pool)
    }

    /// All placements and their tasks.
    pub fn all(&self) -> impl Iterator<Item = (&PlacementId, &PlacementTask)> {
        self.tasks.iter()
    }

    /// The names of the pools that have or had placements.
    pub fn pool_names(&self) -> impl Iterator<Item = &String> {
        self.drain_delays.keys()
    }

    /// Whether the pool has or had placements.
    pub fn is_tracked(&self, pool: &str) -> bool {
        self.drain_delays.contains_key(pool)
    }

    /// When the drain of a pool continues.
    pub fn drain_delay_mut(&mut self, pool: &str) -> Option<&mut DrainDelay> {
        self.drain_delays.get_mut(pool)
    }

    /// The pool whose tasks keep this node registered, as text; `None` if no task does.
    pub fn node_holder(&self, node: &str) -> Option<String> {
        let mut holders = self
            .tasks
            .iter()
            .filter(|(_, task)| !task.has_lost_node() && task.node_config.borrow().name() == node);
        let (id, _) = holders.next()?;
        Some(format!("pool {}", id.pool))
    }
}
