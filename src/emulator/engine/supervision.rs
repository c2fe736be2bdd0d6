//! Supervises a group's containers: waits for their ends, kills unhealthy ones, and restarts them.

use std::time::Duration;

use futures::future::join_all;

use super::deployment::{Deployment, DeploymentHalt, DeploymentTarget};
use super::probe;
use crate::emulator::group::run::{DueChange, add_event};

/// How long to wait before asking the engine again after an error.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// The exit code of a container that was killed, or whose exit code is unknown (128 + SIGKILL).
const KILLED_EXIT_CODE: i32 = 137;

impl Deployment {
    /// Supervises all containers until each has ended for good. `refused` has the exit codes of those
    /// that the engine refused to start.
    pub(super) async fn supervise(&self, refused: Vec<Option<i32>>) -> Result<(), DeploymentHalt> {
        let lives = refused
            .into_iter()
            .enumerate()
            .map(|(index, code)| self.supervise_container(index, code));
        // Wait for all, even if one fails: a call that creates something must not be cancelled.
        join_all(lives).await.into_iter().collect()
    }

    async fn supervise_container(
        &self,
        index: usize,
        mut refused: Option<i32>,
    ) -> Result<(), DeploymentHalt> {
        loop {
            let code = match refused {
                Some(code) => code,
                // Boxed, because the future with its probes is large.
                None => {
                    self.unless_interrupted(Box::pin(self.run_once(index)))
                        .await?
                }
            };
            let due = self.report(|group, at, _| {
                let policy = group.policy();
                group.containers[index].exit(at, code, policy);
                group.containers[index].due
            })?;
            let Some((at, DueChange::Start)) = due else {
                return Ok(());
            };
            self.sleep_until(at).await?;
            refused = self.start_again(index).await?;
        }
    }

    /// Creates and starts a container again. Returns the exit code to report if the engine refuses.
    async fn start_again(&self, index: usize) -> Result<Option<i32>, DeploymentHalt> {
        let Err(error) = self.create(DeploymentTarget::App(index)).await else {
            return self.start(DeploymentTarget::App(index)).await;
        };
        self.report(|group, at, _| {
            let (run, message) = (&mut group.containers[index], error.error_chain());
            run.start(at);
            add_event(
                &mut run.events,
                at,
                "Failed",
                &format!("Error: {message}"),
                true,
            );
            Some(KILLED_EXIT_CODE)
        })
    }

    /// Waits until the current run ends, or kills it when it is unhealthy. Returns the exit
    /// code.
    async fn run_once(&self, index: usize) -> i32 {
        let target = DeploymentTarget::App(index);
        let mut ended = std::pin::pin!(self.wait_for_exit(target));
        tokio::select! {
            code = &mut ended => return code,
            () = probe::until_unhealthy(self, index) => {}
        }
        if let Err(error) = self.parts.client.kill(&self.name(target)).await {
            tracing::warn!(
                error = error.error_chain(),
                "an unhealthy container was not killed"
            );
        }
        ended.await
    }

    /// Waits until a container has ended and returns its exit code.
    pub(super) async fn wait_for_exit(&self, target: DeploymentTarget) -> i32 {
        let (client, name) = (&self.parts.client, self.name(target));
        loop {
            match client.wait(&name).await {
                Ok(code) => return i32::try_from(code).unwrap_or(KILLED_EXIT_CODE),
                Err(error) => {
                    tracing::debug!(
                        error = error.error_chain(),
                        "the wait for a container failed"
                    );
                }
            }
            // The engine may be down for a while, or another client has removed the container.
            match client.inspect(&name).await {
                Ok(None) => return KILLED_EXIT_CODE,
                Ok(Some(inspected)) if !inspected.state.running => {
                    return inspected.state.exit_code;
                }
                Ok(Some(_)) | Err(_) => {}
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}
