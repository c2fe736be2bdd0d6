//! `kubectl exec`: commands in containers.
//!
//! In: a command and the client's streams. Out: the command's output and exit code. ACI has a single stream for
//! input and output and reports no exit code: `script` explains how a shell script provides both. If the image has
//! no shell, the client gets ACI's terminal as it is, with a notice.

mod environment;
mod plain;
mod script;
mod shell;
mod sieve;
mod terminal;

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::sync::mpsc;

use self::script::Mark;
use self::sieve::{Sieve, Strainer};
use super::remote_command::{Out, Outcome, Streams, Wanted};
use crate::aci::client::{Keyboard, Screen};
use crate::aci::error::Error;
pub use shell::Place;
use shell::{Asked, Shell};

/// The most input that is sent to the script in one part, in bytes.
const PART: usize = 256 << 10;
/// How long to wait for the rest of stderr after the command has ended.
const LAST: Duration = Duration::from_secs(5);

/// Runs a command until it ends or its client disconnects, which also ends the command.
pub async fn run(place: &Place, wanted: &Wanted, streams: Streams) -> Outcome {
    let gone = streams.gone.clone();
    let ran = async {
        if wanted.tty {
            terminal::run(place, wanted, streams).await
        } else {
            apart(place, wanted, streams).await
        }
    };
    let ran = tokio::select! {
        ran = ran => ran,
        // Dropping a terminal ends the program in it.
        () = gone.cancelled() => return Outcome::Failed("the client is gone".to_owned()),
    };
    ran.unwrap_or_else(|error| Outcome::Failed(error.story()))
}

/// Runs a command without a terminal for the client: stdout and stderr are separate.
async fn apart(place: &Place, wanted: &Wanted, streams: Streams) -> Result<Outcome, Error> {
    let asked = if wanted.stderr {
        tokio::try_join!(place.shell(None), async {
            place.shell(None).await.map(Some)
        })?
    } else {
        (place.shell(None).await?, None)
    };
    let (mut main, errors) = match asked {
        (Asked::None(shown), _) => return plain::run(place, wanted, streams, &shown).await,
        (Asked::Ready(main), Some(Asked::Ready(errors))) => (main, Some(errors)),
        (Asked::Ready(main), _) => (main, None),
    };
    let mark = Mark::new();
    let errors = match errors {
        Some(mut shell) => {
            shell.keyboard.send(script::errors(&mark).into()).await;
            // Without a named pipe there is nothing to read: stderr comes with stdout.
            let said = shell.until(&mark).await;
            said.is_some_and(|said| said == "1").then_some(shell)
        }
        None => None,
    };
    let taken = Mark::new();
    let script = script::apart(wanted, &main.environment, &mark, &taken);
    main.keyboard.send(script.into()).await;
    let Streams { stdin, out, .. } = streams;
    let Shell {
        mut keyboard,
        screen,
        shown,
        ..
    } = main;
    let (told, turns) = mpsc::channel(1);
    let turns_told = wanted.stdin.then(|| Taken {
        strainer: Strainer::new(taken.bytes()),
        told,
    });
    let output = carry((screen, shown), Out::Stdout, &out, &mark, turns_told);
    let failed = async {
        if let Some(Shell { screen, shown, .. }) = errors {
            carry((screen, shown), Out::Stderr, &out, &mark, None).await;
        }
    };
    let typed = async {
        if wanted.stdin {
            type_in(&mut keyboard, stdin, turns).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::pin!(output, failed, typed);
    let mut has_failed = false;
    let said = loop {
        tokio::select! {
            said = &mut output => break said,
            () = &mut failed, if !has_failed => has_failed = true,
            () = &mut typed => {}
        }
    };
    while !has_failed {
        has_failed = tokio::time::timeout(LAST, &mut failed).await.is_ok();
        // A background process of the command may hold the pipe open for ever, so do not wait for it. But do wait
        // for a slow client: its channel is full.
        if out.capacity() > 0 {
            break;
        }
    }
    Ok(outcome(said))
}

/// The outcome of a command, from the exit code that its script printed.
fn outcome(said: Option<String>) -> Outcome {
    match said.map(|said| said.parse()) {
        Some(Ok(code)) => Outcome::Exited(code),
        _ => Outcome::Failed(
            "the container's terminal was closed before the command ended".to_owned(),
        ),
    }
}

/// Removes from the output the markers that acknowledge a part of the input, and passes them on.
struct Taken {
    strainer: Strainer,
    told: mpsc::Sender<()>,
}

impl Taken {
    fn strain(&mut self, bytes: &[u8]) -> Bytes {
        let (through, times) = self.strainer.take(bytes);
        if times > 0 {
            // After the last part, the receiver is gone.
            let _ = self.told.try_send(());
        }
        through
    }
}

/// Sends the terminal's output to the client up to the marker; returns the text after the marker.
async fn carry(
    (mut screen, shown): (Screen, Bytes),
    to: Out,
    out: &mpsc::Sender<(Out, Bytes)>,
    mark: &Mark,
    mut taken: Option<Taken>,
) -> Option<String> {
    let mut sieve = Sieve::new(mark.bytes());
    let mut next = Some(shown);
    while let Some(mut bytes) = next {
        if let Some(taken) = &mut taken {
            bytes = taken.strain(&bytes);
        }
        let (through, said) = sieve.take(&bytes);
        if !through.is_empty() && out.send((to, through)).await.is_err() {
            return None;
        }
        if said.is_some() {
            return said;
        }
        next = screen.next().await;
    }
    let held = taken.map(|taken| taken.strainer.rest()).unwrap_or_default();
    for rest in [sieve.rest(), held] {
        if !rest.is_empty() {
            // The client may have disconnected.
            let _ = out.send((to, rest)).await;
        }
    }
    None
}

/// Sends the client's input in parts, each with its length in front, and each after the previous part was
/// acknowledged. A part of length 0 marks the end.
async fn type_in(
    keyboard: &mut Keyboard,
    mut stdin: mpsc::Receiver<Bytes>,
    mut turns: mpsc::Receiver<()>,
) {
    while let Some(first) = stdin.recv().await {
        let mut part = BytesMut::from(first);
        while part.len() < PART
            && let Ok(more) = stdin.try_recv()
        {
            part.put(more);
        }
        // One message may be larger than a part.
        while !part.is_empty() {
            let now = part.split_to(part.len().min(PART));
            let mut typed = BytesMut::from(format!("{}\n", now.len()).as_bytes());
            typed.put(now);
            if !keyboard.send(typed.freeze()).await || turns.recv().await.is_none() {
                return;
            }
        }
    }
    keyboard.send(Bytes::from_static(b"0\n")).await;
}
