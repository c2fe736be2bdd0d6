//! Reads what a pod needs of its images' configurations, before its container group is created.
//!
//! In: the pod and its pull secrets. Out: the configurations, each with the digest that was read; or, for the pod's
//! status and an Event, why an image cannot be read, in the kubelet's words. The pod then waits as a kubelet lets it
//! wait (`aci::image` has the back-off). Only this pod waits: each worker is a task of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;

use super::PodWorker;
use crate::aci::image::{
    INVALID_IMAGE_NAME, ImagePullBackoff, ImageRead, ImageReadError, ImageReader, ImageReference,
    InvalidImageName,
};
use crate::aci::translate::resolved_references::ResolvedImage;
use crate::aci::translate::{self, ImageRequest, ResolvedReferences};
use crate::node::pod_plan::PodAction;

/// The kubelet's reason of an Event about an image that cannot be pulled.
const FAILED: &str = "Failed";
/// How long a pod waits whose image has an invalid name: a user may correct it.
const INVALID_NAME_RETRY: Duration = Duration::from_secs(60);

/// Why the configuration of an image is not known.
enum ImageFailure {
    Name(InvalidImageName),
    Read(ImageReadError),
}

impl PodWorker {
    /// Adds the images that the pod needs to `resolved`. Returns `false` if one cannot be read now, or if the pod was
    /// deleted meanwhile.
    pub async fn read_images(&mut self, resolved: &mut ResolvedReferences) -> bool {
        let context = self.context.clone();
        let settings = context.settings();
        let accepted = self.accepted_losses();
        let target = context.translation_target(&settings, &accepted);
        // The translation, which follows, refuses a pod that ACI cannot run whatever its images are, and pull secrets
        // that cannot be used.
        if translate::eligible(self.state.pod(), self.state.unknown_fields(), &target).is_err() {
            return true;
        }
        let Ok(mut requests) = translate::image_requests(self.state.pod(), resolved, &target)
        else {
            return true;
        };
        requests.sort_by(|a, b| a.image.cmp(&b.image));
        requests.dedup_by(|a, b| a.image == b.image);
        let namespace = self
            .state
            .pod()
            .metadata
            .namespace
            .clone()
            .unwrap_or_default();
        let reads = requests.iter();
        let reads = reads.map(|request| read_image(&context.images, &namespace, request));
        let mut reads = Box::pin(join_all(reads));
        let results = loop {
            tokio::select! {
                biased;
                results = &mut reads => break results,
                () = self.pod_update() => {
                    self.drain_updates();
                    if self.state.is_leaving() {
                        return false;
                    }
                }
            }
        };
        drop(reads);
        let mut failures = Vec::new();
        for (request, result) in requests.iter().zip(results) {
            match result {
                Ok(image) => {
                    resolved.images.insert(request.image.clone(), image);
                }
                Err(failure) => failures.push((request, failure)),
            }
        }
        self.record_image_failures(&failures, Timestamp::now());
        failures.is_empty()
    }

    /// Delays the next attempt, and records why the pod waits. The pod cannot start before all its images are read, so
    /// that it waits for the image with the longest back-off.
    fn record_image_failures(
        &mut self,
        failures: &[(&ImageRequest, ImageFailure)],
        now: Timestamp,
    ) {
        let mut backoffs = BTreeMap::new();
        let mut pause = Duration::ZERO;
        for (index, (request, failure)) in failures.iter().enumerate() {
            let image = &request.image;
            let (reason, message, event, wait) = match failure {
                ImageFailure::Name(error) => {
                    let message = error.to_string();
                    (
                        INVALID_IMAGE_NAME,
                        message.clone(),
                        message,
                        INVALID_NAME_RETRY,
                    )
                }
                ImageFailure::Read(error) => {
                    let previous = self.image_backoffs.get(image);
                    let backoff = ImagePullBackoff::after(previous, error, now);
                    let state = backoff.waiting_state(image);
                    let wait = Duration::try_from(backoff.retry_at().duration_since(now));
                    let event = backoff.event(image);
                    backoffs.insert(image.clone(), backoff);
                    (state.reason, state.message, event, wait.unwrap_or_default())
                }
            };
            tracing::warn!(%message, "cannot read an image's configuration");
            if index == 0 {
                self.state.set_waiting(reason, &message);
            }
            self.warn(FAILED, &event);
            pause = pause.max(wait);
        }
        self.image_backoffs = backoffs;
        if !failures.is_empty() {
            self.state.pause_action(PodAction::Create, pause, now);
        }
    }
}

/// Reads one image.
async fn read_image(
    reader: &ImageReader,
    namespace: &str,
    request: &ImageRequest,
) -> Result<ResolvedImage, ImageFailure> {
    let reference = ImageReference::parse(&request.field, &request.image);
    let reference = reference.map_err(ImageFailure::Name)?;
    let read = reader.read_for(namespace, &reference, &request.access);
    let ImageRead { digest, config, .. } = read.await.map_err(ImageFailure::Read)?;
    Ok(ResolvedImage {
        pinned: reference.pinned(digest),
        config,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU16;

    use serde_json::{Value, json};

    use super::super::fixtures::{kubernetes, listed_worker};
    use super::super::state::GroupProblem;
    use super::*;
    use crate::node::pods::group_list::ListedState;

    fn worker(containers: &Value) -> PodWorker {
        let client = kubernetes(&Arc::new(AtomicU16::new(201)));
        let mut worker = listed_worker(client, ListedState::NotListed);
        let pod =
            json!({"metadata": worker.state.pod().metadata, "spec": {"containers": containers}});
        *worker.state.pod_mut() = serde_json::from_value(pod).expect("a pod");
        worker
    }

    fn waiting(worker: &PodWorker) -> (String, String) {
        let GroupProblem::Waiting { reason, message } = worker.state.problem() else {
            return ("it does not wait".to_owned(), String::new());
        };
        (reason.clone(), message.clone())
    }

    #[tokio::test]
    async fn a_pod_that_needs_no_image_reads_none() {
        // A host that no request may go to: reading the image would fail.
        let mut worker = worker(&json!([{"name": "a", "image": "127.0.0.1/a", "command": ["a"]}]));
        let mut resolved = ResolvedReferences::default();
        assert!(worker.read_images(&mut resolved).await);
        assert_eq!(resolved, ResolvedReferences::default());
        assert_eq!(*worker.state.problem(), GroupProblem::None);
    }

    #[tokio::test]
    async fn a_pod_whose_image_cannot_be_read_waits_in_the_kubelets_words() {
        let mut worker = worker(&json!([
            {"name": "a", "image": "127.0.0.1/a", "args": ["a"]},
            {"name": "b", "image": "127.0.0.1/a", "args": ["b"]},
        ]));
        let mut resolved = ResolvedReferences::default();
        assert!(!worker.read_images(&mut resolved).await);
        let (reason, message) = waiting(&worker);
        assert_eq!(reason, "ErrImagePull");
        assert!(message.contains("127.0.0.1 is not requested"), "{message}");
        let event = worker.events.pop().expect("an Event");
        assert_eq!(event.reason, "Failed");
        assert!(
            event
                .message
                .starts_with("Failed to pull image \"127.0.0.1/a\": "),
            "{}",
            event.message
        );
        assert!(worker.events.is_empty(), "one for an image");
        let first = worker.state.pod_state().retry_times.get(PodAction::Create);
        assert!(!worker.read_images(&mut resolved).await);
        let (reason, message) = waiting(&worker);
        assert_eq!(reason, "ImagePullBackOff");
        assert!(message.starts_with("Back-off pulling image"), "{message}");
        assert!(worker.state.pod_state().retry_times.get(PodAction::Create) > first);
        assert!(resolved.images.is_empty());
    }

    #[tokio::test]
    async fn a_pod_whose_image_has_an_invalid_name_waits() {
        let mut worker = worker(&json!([{"name": "a", "image": "Nginx", "args": ["a"]}]));
        let mut resolved = ResolvedReferences::default();
        assert!(!worker.read_images(&mut resolved).await);
        let (reason, message) = waiting(&worker);
        assert_eq!(reason, "InvalidImageName");
        assert!(
            message.starts_with("spec.containers[0].image: couldn't parse image name"),
            "{message}"
        );
    }
}
