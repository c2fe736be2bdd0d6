//! Waits until objects reach a state, with watches and a deadline.
//!
//! In: an API, and a function that checks what the watch shows. Out: the value found, or an error with
//! the last state. Nothing here sleeps: each event is checked when it arrives. Only [`by_and_by`]
//! polls, for states that cannot be watched.

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

/// The timeout of all waits. Long enough for a machine under load; passing tests need far less.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// Polls every 50 ms until `is_so`. For states that cannot be watched.
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

/// Waits until the object of this name, or its absence, is as `wanted`.
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

/// Waits until `found` returns a value for the object of this name, and returns it.
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

/// Waits until the objects that `config` selects (labels, fields) are together as `wanted`. Returns
/// them.
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
            // The list is not complete yet: the store still has the old objects.
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

/// The first value that `found` returns for a state.
async fn first<S: Serialize, T>(
    states: impl Stream<Item = Result<S, watcher::Error>>,
    what: &str,
    found: impl Fn(&S) -> Option<T>,
) -> Result<T, Error> {
    let mut states = Box::pin(states); // boxed: the future is large
    let (mut last, mut trouble) = (None, None);
    let looking = async {
        loop {
            match states.next().await {
                Some(Ok(state)) => match found(&state) {
                    Some(found) => return found,
                    None => last = Some(state),
                },
                // The watch retries by itself, also while the API server is down.
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
            let _ = write!(seen, "and the watch said: {error}"); // writing to a string never fails
        }
        Error::NotSeen {
            what: what.to_owned(),
            after: DEADLINE,
            seen,
        }
    })
}
