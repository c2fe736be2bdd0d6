//! The only child process: `controlplane supervise`, which runs the components as its children.
//!
//! In: orders to start, stop and kill a component. Out: the answers, process ids, and reports of
//! components that ended without an order. Only [`super::Cluster`] uses it.
//!
//! The supervisor creates the cluster's directory. As soon as its standard input ends, it kills all
//! components and removes the directory. This happens on drop, and when this process ends in any way,
//! because the kernel closes the pipe. Nothing here depends on a runtime: each test of a binary has its
//! own, and the cluster outlives them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};

use crate::support::Error;

/// A running supervisor and the pipe that keeps it alive.
pub struct Supervisor {
    child: Child,
    directory: PathBuf,
    line: AsyncMutex<Line>,
    deaths: watch::Receiver<Option<Death>>,
    processes: Mutex<BTreeMap<String, u32>>,
}

/// Both ends of the conversation. Locked from an order to its answer.
struct Line {
    orders: Option<ChildStdin>,
    answers: mpsc::UnboundedReceiver<Said>,
}

/// A component that ended without an order.
#[derive(Clone)]
pub struct Death {
    /// The component's name.
    pub component: String,
    /// The exit status of its process.
    pub status: String,
    /// The last lines of its log.
    pub log: String,
}

#[derive(Serialize)]
struct Order<'a> {
    r#do: &'static str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    args: Option<&'a [String]>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Said {
    Ready {
        directory: PathBuf,
    },
    Started {
        name: String,
        pid: u32,
    },
    Ended {
        name: String,
    },
    Refused {
        #[serde(default)]
        name: String,
        message: String,
    },
    Died {
        name: String,
        status: String,
        message: String,
    },
}

impl Supervisor {
    /// Starts the supervisor and reads the path of the directory that it created.
    pub async fn start(binary: &Path) -> Result<Self, Error> {
        let mut child = Command::new(binary)
            .arg("supervise")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A process group of its own: a signal to the tests' group must not end it before it has
            // cleaned up.
            .process_group(0)
            .spawn()
            .map_err(Error::io(format!("starting {}", binary.display())))?;
        let orders = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .expect("stdout is piped, four lines above");
        let (answers_in, mut answers) = mpsc::unbounded_channel();
        let (deaths_in, deaths) = watch::channel(None);
        thread::spawn(move || listen(stdout, &answers_in, &deaths_in));
        let Some(Said::Ready { directory }) = answers.recv().await else {
            return Err(Error::Supervisor("it did not start".to_owned()));
        };
        Ok(Self {
            child,
            directory,
            line: AsyncMutex::new(Line { orders, answers }),
            deaths,
            processes: Mutex::default(),
        })
    }

    /// The cluster's directory. The supervisor removes it at its end.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The process ids of the supervisor and of the running components, by name.
    pub fn processes(&self) -> BTreeMap<String, u32> {
        let mut processes = self.running().clone();
        processes.insert("supervisor".to_owned(), self.child.id());
        processes
    }

    /// Starts a component. Without arguments, it gets those of its last start.
    pub async fn start_component(&self, name: &str, args: Option<&[String]>) -> Result<(), Error> {
        self.order(&Order {
            r#do: "start",
            name,
            args,
        })
        .await
    }

    /// Sends SIGTERM to a component, and waits until it has ended.
    pub async fn stop_component(&self, name: &str) -> Result<(), Error> {
        self.order(&Order {
            r#do: "stop",
            name,
            args: None,
        })
        .await
    }

    /// Sends SIGKILL to a component, and waits until it has ended.
    pub async fn kill_component(&self, name: &str) -> Result<(), Error> {
        self.order(&Order {
            r#do: "kill",
            name,
            args: None,
        })
        .await
    }

    /// Waits until a component ends without an order.
    pub async fn death(&self) -> Death {
        let mut deaths = self.deaths.clone();
        match deaths.wait_for(Option::is_some).await {
            Ok(death) => death.clone().expect("waited for some"),
            Err(_) => Death {
                component: "the supervisor".to_owned(),
                status: "unknown".to_owned(),
                log: String::new(),
            },
        }
    }

    async fn order(&self, order: &Order<'_>) -> Result<(), Error> {
        let mut text = serde_json::to_vec(order).expect("an order is plain strings");
        text.push(b'\n');
        let mut line = self.line.lock().await;
        let orders = line.orders.as_mut().expect("only drop takes it");
        orders
            .write_all(&text)
            .map_err(Error::io("ordering the supervisor"))?;
        loop {
            match line.answers.recv().await {
                Some(Said::Started { name, pid }) => {
                    self.running().insert(name.clone(), pid);
                    if order.r#do == "start" && name == order.name {
                        return Ok(());
                    }
                }
                Some(Said::Ended { name }) => {
                    self.running().remove(&name);
                    if order.r#do != "start" && name == order.name {
                        return Ok(());
                    }
                }
                Some(Said::Refused { name, message }) if name == order.name => {
                    let text = format!("{} {name} refused: {message}", order.r#do);
                    return Err(Error::Supervisor(text));
                }
                // The answer to an order whose caller no longer waits.
                Some(_) => {}
                None => return Err(Error::Supervisor("it has ended".to_owned())),
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<String, u32>> {
        self.processes.lock()
    }
}

impl Drop for Supervisor {
    /// Ends every process of the cluster, and waits until the directory is gone.
    fn drop(&mut self) {
        drop(self.line.get_mut().orders.take());
        let _ = self.child.wait(); // fails only after another wait
    }
}

/// Sorts the supervisor's messages into answers and deaths, until it ends.
fn listen(
    stdout: ChildStdout,
    answers: &mpsc::UnboundedSender<Said>,
    deaths: &watch::Sender<Option<Death>>,
) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Said::Died {
                name,
                status,
                message,
            }) => {
                deaths.send_replace(Some(Death {
                    component: name,
                    status,
                    log: message,
                }));
            }
            Ok(answer) => {
                let _ = answers.send(answer); // during drop the receiver is gone
            }
            Err(error) => {
                let message = format!("unreadable line {line:?}: {error}");
                let _ = answers.send(Said::Refused {
                    name: String::new(),
                    message,
                });
            }
        }
    }
}
