//! Watches that a single object cannot end, and whose failures are visible.
//!
//! In: a watch of objects behind a guard ([`DeserializeGuard`]), which turns an object that the operator's types
//! cannot decode into an error of its own instead of an error of the whole list. Out: the same watch with its
//! failures counted and logged; or only the objects that can be decoded.

use futures::{Stream, StreamExt as _};
use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};

use crate::telemetry::{self, FailureStreak};

/// The watch, with its failures counted and logged. `watch` names the watched objects in the log and the metric.
pub fn report_errors<K>(
    watch: &'static str,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>> {
    let mut streak = FailureStreak::new(watch);
    events.inspect(move |event| match event {
        // This event comes before the list request is answered: it does not prove that the watch works.
        Ok(Event::Init) => {}
        Ok(_) => streak.record_success(),
        Err(error) => report_failure(&mut streak, error),
    })
}

/// The same for any other stream of a watcher: each item except an error proves that the watch works.
pub fn report_item_errors<T>(
    watch: &'static str,
    items: impl Stream<Item = watcher::Result<T>>,
) -> impl Stream<Item = watcher::Result<T>> {
    let mut streak = FailureStreak::new(watch);
    items.inspect(move |item| match item {
        Ok(_) => streak.record_success(),
        Err(error) => report_failure(&mut streak, error),
    })
}

fn report_failure(streak: &mut FailureStreak, error: &watcher::Error) {
    // The API server forgets old versions of objects that change often; the watcher then lists again.
    let is_expired = matches!(error, watcher::Error::WatchError(status) if status.code == 410);
    if is_expired {
        tracing::debug!(%error, "a watch starts again");
    } else {
        streak.record_failure(error);
    }
}

/// Only the objects that can be decoded. An object that cannot be decoded is logged by name and skipped.
pub fn skip_unreadable<K>(
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
            Event::Apply(object) => Event::Apply(ok_or_log(object)?),
            Event::InitApply(object) => Event::InitApply(ok_or_log(object)?),
            Event::Delete(object) => Event::Delete(ok_or_log(object)?),
        }))
    })
}

/// The object; if it cannot be decoded, `None`, and a log entry with its name.
pub fn ok_or_log<K: Resource<DynamicType = ()>>(object: DeserializeGuard<K>) -> Option<K> {
    match object.0 {
        Ok(object) => Some(object),
        Err(invalid) => {
            let metadata = &invalid.metadata;
            let name = metadata.name.clone().unwrap_or_default();
            let namespace = metadata.namespace.as_deref();
            let name = namespace.map_or(name.clone(), |namespace| format!("{namespace}/{name}"));
            telemetry::record_unreadable(&K::kind(&()), &name, &invalid.error);
            None
        }
    }
}
