//! Sessions with a correct peer, and with peers that misbehave.

use tokio::io::{DuplexStream, ReadHalf, WriteHalf};

use super::*;

/// The deadline of every step.
const DEADLINE: Duration = Duration::from_secs(30);

/// A fake peer: what it sends, and what it receives.
struct FakePeer {
    encoder: FrameEncoder,
    decoder: FrameDecoder,
    read: ReadHalf<DuplexStream>,
    write: WriteHalf<DuplexStream>,
    bytes: BytesMut,
    unsent: BytesMut,
}

impl FakePeer {
    /// Sends a frame. If this is cancelled, the next call sends what is left.
    async fn send(&mut self, frame: SpdyFrame) {
        self.encoder.encode(&frame, &mut self.unsent);
        let sent = self.write.write_all_buf(&mut self.unsent).await;
        sent.expect("it is read");
    }

    async fn open(&mut self, id: u32) {
        let headers = vec![("streamtype".to_owned(), "data".to_owned())];
        let fin = false;
        self.send(SpdyFrame::Open { id, fin, headers }).await;
    }

    /// The next frame that the peer receives, except for pings; `None` at the end.
    async fn receive(&mut self) -> Option<SpdyFrame> {
        loop {
            match self.decoder.decode(&mut self.bytes).expect("a frame") {
                Some(SpdyFrame::Ping { id }) if id % 2 == 0 => {}
                Some(frame) => return Some(frame),
                None => {
                    let read = self.read.read_buf(&mut self.bytes);
                    if read.await.expect("it is open") == 0 {
                        return None;
                    }
                }
            }
        }
    }
}

fn connected() -> (SpdySession, FakePeer) {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let (read, write) = tokio::io::split(theirs);
    let peer = FakePeer {
        encoder: FrameEncoder::default(),
        decoder: FrameDecoder::default(),
        read,
        write,
        bytes: BytesMut::new(),
        unsent: BytesMut::new(),
    };
    (SpdySession::new(ours), peer)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("in time")
}

#[tokio::test]
async fn a_stream_carries_bytes_in_both_directions_that_end_separately() {
    let (mut session, mut peer) = connected();
    peer.open(1).await;
    let stream = soon(session.accept()).await.expect("a stream");
    assert_eq!(stream.header("streamtype"), Some("data"));
    stream.accept().await;
    assert_eq!(
        soon(peer.receive()).await,
        Some(SpdyFrame::Accepted { id: 1 })
    );
    let (mut parts, sender, _reset) = stream.split();
    let part = Bytes::from_static(b"there");
    let (id, fin) = (1, true);
    peer.send(SpdyFrame::Data { id, fin, part }).await;
    assert_eq!(soon(parts.recv()).await.as_deref(), Some(&b"there"[..]));
    assert_eq!(soon(parts.recv()).await, None);
    assert!(sender.send(Bytes::from_static(b"back")).await);
    sender.finish().await;
    let (fin, part) = (false, Bytes::from_static(b"back"));
    assert_eq!(
        soon(peer.receive()).await,
        Some(SpdyFrame::Data { id, fin, part })
    );
    let (fin, part) = (true, Bytes::new());
    assert_eq!(
        soon(peer.receive()).await,
        Some(SpdyFrame::Data { id, fin, part })
    );
    peer.send(SpdyFrame::Ping { id: 7 }).await;
    assert_eq!(soon(peer.receive()).await, Some(SpdyFrame::Ping { id: 7 }));
}

#[tokio::test]
async fn too_many_streams_are_refused_and_the_open_ones_continue() {
    let (mut session, mut peer) = connected();
    let accepting = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Some(stream) = session.accept().await {
            streams.push(stream);
        }
        streams.len()
    });
    let last = 2 * u32::try_from(MAX_STREAMS).expect("few") + 101;
    let mut refused = 0;
    for id in (1..=last).step_by(2) {
        peer.open(id).await;
    }
    peer.send(SpdyFrame::Ping { id: 9 }).await;
    loop {
        match soon(peer.receive()).await {
            Some(SpdyFrame::Reset { code, .. }) if code == reset::REFUSED_STREAM => refused += 1,
            Some(SpdyFrame::Ping { id: 9 }) => break,
            other => unreachable!("{other:?}"),
        }
    }
    assert_eq!(refused, 51);
    peer.send(SpdyFrame::GoAway { last: 0, code: 0 }).await;
    assert_eq!(soon(accepting).await.expect("it ends"), MAX_STREAMS);
}

#[tokio::test]
async fn a_stream_with_an_unexpected_id_is_refused() {
    let (_session, mut peer) = connected();
    for id in [3, 3, 1, 2] {
        peer.open(id).await;
    }
    for id in [3, 1, 2] {
        let code = reset::PROTOCOL_ERROR;
        assert_eq!(
            soon(peer.receive()).await,
            Some(SpdyFrame::Reset { id, code })
        );
    }
}

/// If the stream is not read, the data that a peer can make the process keep is limited.
#[tokio::test]
async fn a_peer_is_not_read_while_its_data_is_not_consumed() {
    let (mut session, mut peer) = connected();
    peer.open(1).await;
    let stream = soon(session.accept()).await.expect("a stream");
    let part = Bytes::from(vec![0; 32 << 10]);
    let (mut sent, max) = (0, 2 * MAX_QUEUED_PARTS + 8);
    let sending = async {
        loop {
            let (id, fin, part) = (1, false, part.clone());
            peer.send(SpdyFrame::Data { id, fin, part }).await;
            sent += 1;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(1), sending).await;
    assert!(
        waited.is_err() && sent >= MAX_QUEUED_PARTS && sent <= max,
        "{sent}"
    );
    // Dropping the stream drops the data that follows.
    drop(stream);
    let (id, fin) = (1, true);
    soon(peer.send(SpdyFrame::Data {
        id,
        fin,
        part: Bytes::new(),
    }))
    .await;
    soon(peer.send(SpdyFrame::Ping { id: 5 })).await;
    assert_eq!(soon(peer.receive()).await, Some(SpdyFrame::Ping { id: 5 }));
}

#[tokio::test]
async fn a_peer_that_does_not_speak_spdy_gets_goaway() {
    let (mut session, mut peer) = connected();
    let invalid = b"\x80\x02\x00\x01\x00\x00\x00\x00";
    peer.write.write_all(invalid).await.expect("it is read");
    assert_eq!(
        soon(peer.receive()).await,
        Some(SpdyFrame::GoAway { last: 0, code: 1 })
    );
    assert!(soon(session.accept()).await.is_none());
    soon(session.gone().cancelled_owned()).await;
}

#[tokio::test]
async fn a_peer_that_closes_the_connection_is_gone() {
    let (mut session, peer) = connected();
    drop(peer);
    assert!(soon(session.accept()).await.is_none());
    soon(session.gone().cancelled_owned()).await;
}

/// A user reads the output page by page, after the command has ended.
#[tokio::test(start_paused = true)]
async fn the_last_frames_reach_a_slow_peer_before_the_connection_ends() {
    let (mut session, mut peer) = connected();
    peer.open(1).await;
    let stream = session.accept().await.expect("a stream");
    let sender = tokio::spawn(async move {
        let part = Bytes::from(vec![7; 4 << 10]);
        for _ in 0..60 {
            assert!(stream.sender().send(part.clone()).await);
        }
        stream.sender().finish().await;
        session.close().await;
    });
    tokio::time::sleep(Duration::from_mins(5)).await;
    let (mut bytes, mut has_ended) = (0, false);
    while let Some(frame) = peer.receive().await {
        match frame {
            SpdyFrame::Data { part, fin, .. } => (bytes, has_ended) = (bytes + part.len(), fin),
            SpdyFrame::GoAway { .. } => {}
            other => unreachable!("{other:?}"),
        }
    }
    assert!(bytes == 60 * (4 << 10) && has_ended, "{bytes}");
    sender.await.expect("it closes");
}

#[tokio::test]
async fn an_aborted_stream_is_reported_also_after_its_end() {
    let (mut session, mut peer) = connected();
    for (id, has_ended_before) in [(1, false), (3, true)] {
        peer.open(id).await;
        let (mut parts, _sender, reset) = soon(session.accept()).await.expect("a stream").split();
        if has_ended_before {
            let (fin, part) = (true, Bytes::new());
            peer.send(SpdyFrame::Data { id, fin, part }).await;
            assert_eq!(soon(parts.recv()).await, None);
        }
        peer.send(SpdyFrame::Reset { id, code: 5 }).await;
        soon(reset).await.expect_err("only the end is reported");
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_stays_and_a_silent_one_goes() {
    let (session, silent) = connected();
    let gone = session.gone();
    let is_gone = tokio::time::timeout(2 * SILENCE_TIMEOUT, gone.cancelled()).await;
    assert!(is_gone.is_ok(), "it answers no pings");
    drop(silent);

    let (session, mut peer) = connected();
    let gone = session.gone();
    let answering = async {
        loop {
            match peer.decoder.decode(&mut peer.bytes).expect("a frame") {
                Some(frame @ SpdyFrame::Ping { .. }) => peer.send(frame).await,
                Some(other) => unreachable!("{other:?}"),
                None => {
                    let read = peer.read.read_buf(&mut peer.bytes);
                    assert_ne!(read.await.expect("it is open"), 0);
                }
            }
        }
    };
    tokio::select! {
        () = gone.cancelled() => unreachable!("it answers pings"),
        () = answering => {}
        () = tokio::time::sleep(2 * SILENCE_TIMEOUT) => {}
    }
}
