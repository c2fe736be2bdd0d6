//! Watches that one object cannot end, and whose failures are seen.
//!
//! In: a watch of objects behind a guard ([`DeserializeGuard`]): an object that our types cannot read is an
//! error of its own then, and not of the whole list. Out: the same watch, its failures counted and logged;
//! and, for those who need nothing else, only the objects that can be read.

use futures::{Stream, StreamExt as _};
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};

use crate::telemetry::{self, Streak};

/// The watch, its failures counted and logged. `watch` says what is watched.
pub fn reported<K>(
    watch: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    let mut streak = Streak::new(watch);
    events.inspect(move |event| match event {
        // It comes before the list that it begins.
        Ok(Event::Init) => {}
        Ok(_) => streak.worked(),
        Err(error) => failed(&mut streak, error),
    })
}

/// The same for a watch of whatever is watched otherwise: each item but an error shows that it works.
pub fn reported_items<T>(
    watch: &'static str,
    items: impl Stream<Item = watcher::Result<T>>,
) -> impl Stream<Item = watcher::Result<T>> {
    let mut streak = Streak::new(watch);
    items.inspect(move |item| match item {
        Ok(_) => streak.worked(),
        Err(error) => failed(&mut streak, error),
    })
}

fn failed(streak: &mut Streak, error: &watcher::Error) {
    // The API server forgets old versions of what changes often: then the watcher lists again.
    let is_expired = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
    if is_expired {
        tracing::debug!(%error, "a watch begins again");
    } else {
        streak.failed(error);
    }
}

/// The objects that can be read. One that cannot is named in the log, and left out.
pub fn readable<K>(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()>,
{
    events.filter_map(async |event| {
        let event = match event {
            Ok(event) => event,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(match event {
            Event::Init => Event::Init,
            Event::InitDone => Event::InitDone,
            Event::Apply(object) => Event::Apply(read(object)?),
            Event::InitApply(object) => Event::InitApply(read(object)?),
            Event::Delete(object) => Event::Delete(read(object)?),
        }))
    })
}

/// The object, if it can be read; else it is named in the log.
pub fn read<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>) -> Option<K> {
    match object.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            let metadata = &invalid.metadata;
            let name = metadata.name.clone().unwrap_or_default();
            let namespace = metadata.namespace.as_deref();
            let name = namespace.map_or(name.clone(), |namespace| format!("{namespace}/{name}"));
            telemetry::unreadable(&K::kind(&()), &name, &invalid.error);
            None
        }
    }
}
