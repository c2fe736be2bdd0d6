//! Waiting for objects to come to a state, on watches, with a deadline.
//!
//! In: an API, and what to wait for as a function of what is seen. Out: what was seen then, or an
//! error with what was seen last. Nothing here sleeps: an event is looked at when it comes. Only of what
//! cannot be watched [`by_and_by`] asks again and again.

use std::{
    fmt::{Debug, Write},
    future,
    time::Duration,
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt, reflector,
        watcher::{self, Config, Event},
    },
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time;

use crate::support::Error;

/// Long enough for a machine under load; a test that passes never comes near it.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Returns when something is so that cannot be watched: asks again and again.
pub async fn by_and_by(what: &str, is_so: impl AsyncFn() -> bool) {
    let mut again = time::interval(Duration::from_millis(50));
    let asking = async {
        while !is_so().await {
            again.tick().await;
        }
    };
    let asked = time::timeout(DEADLINE, asking).await;
    assert!(asked.is_ok(), "waited for {what}");
}

/// Returns when the object of that name, or its absence, is as `wanted` says.
pub async fn until<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    wanted: impl Fn(Option<&K>) -> bool,
) -> Result<(), Error>
where
    K: Resource + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    get(api, name, what, |object| wanted(object).then_some(())).await
}

/// Returns what `found` makes of the object of that name, as soon as it makes something of it.
pub async fn get<K, T>(
    api: Api<K>,
    name: &str,
    what: &str,
    found: impl Fn(Option<&K>) -> Option<T>,
) -> Result<T, Error>
where
    K: Resource + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    let states = watcher::watch_object(api, name).default_backoff();
    first(states, what, |object| found(object.as_ref())).await
}

/// Returns the objects that the selection of `config` (labels, fields) holds, as soon as they
/// together are as `wanted` says.
pub async fn until_all<K>(
    api: Api<K>,
    config: Config,
    what: &str,
    wanted: impl Fn(&[K]) -> bool,
) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + Serialize + DeserializeOwned,
    K: 'static,
{
    let (store, writer) = reflector::store();
    let events = watcher::watcher(api, config)
        .default_backoff()
        .reflect(writer);
    let states = events.filter_map(|event| {
        future::ready(match event {
            // The list is not complete yet: the store holds what it held before.
            Ok(Event::Init | Event::InitApply(_)) => None,
            Ok(_) => Some(Ok(store
                .state()
                .iter()
                .map(|object| K::clone(object))
                .collect())),
            Err(error) => Some(Err(error)),
        })
    });
    first(states, what, |objects: &Vec<K>| {
        wanted(objects).then(|| objects.clone())
    })
    .await
}

/// The first state of which `found` makes something.
async fn first<S: Serialize, T>(
    states: impl Stream<Item = Result<S, watcher::Error>>,
    what: &str,
    found: impl Fn(&S) -> Option<T>,
) -> Result<T, Error> {
    let mut states = Box::pin(states); // a watch is large, and would be so in every test
    let (mut last, mut trouble) = (None, None);
    let looking = async {
        loop {
            match states.next().await {
                Some(Ok(state)) => match found(&state) {
                    Some(found) => return found,
                    None => last = Some(state),
                },
                // The watch tries again by itself, also while the API server is down.
                Some(Err(error)) => trouble = Some(error),
                None => future::pending().await,
            }
        }
    };
    time::timeout(DEADLINE, looking).await.map_err(|_| {
        let mut seen = last.map_or_else(
            || "nothing\n".to_owned(),
            |state| serde_yaml::to_string(&state).expect("objects are plain data"),
        );
        if let Some(error) = trouble {
            let _ = write!(seen, "and the watch said: {error}"); // a string takes everything
        }
        Error::NotSeen {
            what: what.to_owned(),
            after: DEADLINE,
            seen,
        }
    })
}
