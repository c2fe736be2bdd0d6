//! One session of a container's terminal, made ready for a script.

use std::time::Duration;

use bytes::Bytes;

use super::environment::Environment;
use super::script::{self, Mark};
use super::sieve::Sieve;
use crate::aci::client::{Keyboard, Screen};
use crate::aci::error::Error;
use crate::kubelet_api::nodes::Found;
use crate::kubelet_api::remote_command::Size;

/// How long a shell may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(20);
/// How wide a terminal is that nobody sees: what is typed is not broken.
const UNSEEN: Size = Size {
    width: 1000,
    height: 24,
};

/// A container of a pod.
#[derive(Clone)]
pub struct Place {
    /// The pod.
    pub found: Found,
    /// The container's name.
    pub container: String,
}

/// A terminal, and what it has shown that nobody has taken yet.
pub struct Shell {
    pub keyboard: Keyboard,
    pub screen: Screen,
    pub shown: Bytes,
    /// What the container's environment is.
    pub environment: Environment,
}

/// What came of asking for a shell.
pub enum Asked {
    /// It waits for a script.
    Ready(Shell),
    /// There is none in the image, or it has no `stty`. What was shown instead.
    None(String),
}

impl Place {
    /// A terminal in which `program` runs.
    pub async fn open(&self, program: &str, size: Option<Size>) -> Result<Shell, Error> {
        let (node, pod) = (&self.found.node, &self.found.pod);
        let Size { width, height } = size.unwrap_or(UNSEEN);
        let (group, size) = (pod.group.as_str(), (height, width));
        let session = node
            .azure
            .exec(&node.scope, group, &self.container, program, size)
            .await?;
        let (keyboard, screen) = node.azure.connect(&session).await?;
        Ok(Shell {
            keyboard,
            screen,
            shown: Bytes::new(),
            environment: Environment::default(),
        })
    }

    /// A shell that waits for a script.
    pub async fn shell(&self, size: Option<Size>) -> Result<Asked, Error> {
        let mut shell = self.open("/bin/sh", size).await?;
        let mark = Mark::new();
        shell.keyboard.send(script::boot(&mark).into()).await;
        let mut parts = Parts::new(&mark);
        let ready = async {
            while let Some(bytes) = shell.screen.next().await {
                if let Some(rest) = parts.take(bytes) {
                    shell.shown = rest;
                    return true;
                }
            }
            false
        };
        let is_ready = tokio::time::timeout(PATIENCE, ready).await.unwrap_or(false);
        let [before, given, container, after] = &parts.all;
        if is_ready {
            shell.environment = Environment::read(given, container, after);
            return Ok(Asked::Ready(shell));
        }
        let before = String::from_utf8_lossy(before).into_owned();
        shell.keyboard.leave().await;
        Ok(Asked::None(before))
    }
}

/// What a shell says before it waits for a script: parts, each with the mark after it.
struct Parts<'a> {
    mark: &'a Mark,
    sieve: Sieve,
    all: [Vec<u8>; 4],
    at: usize,
}

impl<'a> Parts<'a> {
    fn new(mark: &'a Mark) -> Self {
        Self {
            mark,
            sieve: Sieve::new(mark.bytes()),
            all: Default::default(),
            at: 0,
        }
    }

    /// Takes in what is shown. Once the last part is whole, what comes after it.
    fn take(&mut self, mut shown: Bytes) -> Option<Bytes> {
        loop {
            let (through, said) = self.sieve.take(&shown);
            self.all[self.at].extend_from_slice(&through);
            said?;
            let next = Sieve::new(self.mark.bytes());
            shown = std::mem::replace(&mut self.sieve, next).rest();
            self.at += 1;
            if self.at == self.all.len() {
                return Some(shown);
            }
        }
    }
}

impl Shell {
    /// What is shown next.
    pub async fn next(&mut self) -> Option<Bytes> {
        if self.shown.is_empty() {
            return self.screen.next().await;
        }
        Some(std::mem::take(&mut self.shown))
    }

    /// Reads up to a mark: what is said after it. What was shown before is none of anybody's business.
    pub async fn until(&mut self, mark: &Mark) -> Option<String> {
        let mut sieve = Sieve::new(mark.bytes());
        loop {
            let bytes = self.next().await?;
            if let (_, Some(said)) = sieve.take(&bytes) {
                self.shown = sieve.rest();
                return Some(said);
            }
        }
    }
}
