//! A client other than kubectl.

use kube::api::AttachParams;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::text;
use crate::support::wait;
use crate::world::World;

/// kube-rs uses websockets in another way, with ports in the query.
pub async fn another_client(world: &World) {
    let wanted = AttachParams::default().stdin(true).stderr(true);
    let script = "cat; echo err >&2; exit 3";
    let command = ["sh", "-c", script];
    let mut process = world
        .pods()
        .exec("cmd-0", command, &wanted)
        .await
        .expect("it runs");
    let mut stdin = process.stdin().expect("it was asked for");
    let (mut stdout, mut stderr) = (process.stdout(), process.stderr());
    let status = process.take_status().expect("it was not taken");
    stdin.write_all(b"typed").await.expect("it is read");
    stdin.shutdown().await.expect("it is closed");
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    let read = async {
        tokio::try_join!(
            stdout
                .as_mut()
                .expect("it was asked for")
                .read_to_string(&mut out),
            stderr
                .as_mut()
                .expect("it was asked for")
                .read_to_string(&mut err),
        )
    };
    let read = tokio::time::timeout(wait::DEADLINE, read).await;
    read.expect("it ends").expect("text");
    let status = status.await.expect("a status");
    assert_eq!((&*out, &*err), ("typed", "err\n"));
    let causes = status.details.and_then(|details| details.causes);
    let code = causes.and_then(|causes| causes.into_iter().next()?.message);
    assert_eq!(code.as_deref(), Some("3"));

    let mut forwarder = world
        .pods()
        .portforward("cmd-1", &[80])
        .await
        .expect("it forwards");
    let mut port = forwarder.take_stream(80).expect("it was asked for");
    let request = b"GET /index.html HTTP/1.0\r\n\r\n";
    port.write_all(request).await.expect("it is sent");
    let mut page = Vec::new();
    let read = tokio::time::timeout(wait::DEADLINE, port.read_to_end(&mut page)).await;
    read.expect("it ends").expect("it is read");
    assert!(text(&page).ends_with("page 1\n"), "{}", text(&page));
}
