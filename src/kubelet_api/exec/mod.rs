//! Commands in containers.
//!
//! In: a command and a client's streams. Out: the command's output, and how it ended. ACI has one stream
//! for everything, and tells no exit code: `script` says what is done about that. Where the image has no
//! shell, the terminal is handed on as it is, and the client is told so.

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

/// How much input is typed at once.
const PART: usize = 256 << 10;
/// How long the rest of the errors may take once the command has ended.
const LAST: Duration = Duration::from_secs(5);

/// Runs a command until it ends or its client is gone; then it is ended, too.
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
        // Dropping a terminal ends what runs in it.
        () = gone.cancelled() => return Outcome::Failed("the client is gone".to_owned()),
    };
    ran.unwrap_or_else(|error| Outcome::Failed(error.story()))
}

/// Runs a command whose streams are apart.
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
            // Without a named pipe there is nothing to read: errors come with the output.
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
        // What the command has left behind may hold the pipe open for ever; a client that is slow is
        // waited for.
        if out.capacity() > 0 {
            break;
        }
    }
    Ok(outcome(said))
}

/// How a command ended, by what its script said.
fn outcome(said: Option<String>) -> Outcome {
    match said.map(|said| said.parse()) {
        Some(Ok(code)) => Outcome::Exited(code),
        _ => Outcome::Failed(
            "the container's terminal was closed before the command ended".to_owned(),
        ),
    }
}

/// Takes out of the output what says that a part of the input was taken, and tells it.
struct Taken {
    strainer: Strainer,
    told: mpsc::Sender<()>,
}

impl Taken {
    fn strain(&mut self, bytes: &[u8]) -> Bytes {
        let (through, times) = self.strainer.take(bytes);
        if times > 0 {
            // Nobody waits for it once all is typed.
            let _ = self.told.try_send(());
        }
        through
    }
}

/// Carries what a terminal shows up to the mark, and returns what is said after it.
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
            // The client may be gone.
            let _ = out.send((to, rest)).await;
        }
    }
    None
}

/// Types what the client sends, in parts with their lengths in front, each when the one before was taken;
/// the end is a part of no length.
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
        // One message may be longer.
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
