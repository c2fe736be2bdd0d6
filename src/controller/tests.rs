//! How often statuses follow plans.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{STATUS_PACE, paced};

#[tokio::test(start_paused = true)]
async fn what_is_said_all_the_time_is_written_once_a_second_and_the_last_of_it_too() {
    let (say, mut said) = mpsc::unbounded_channel();
    let words = futures::stream::poll_fn(move |context| said.poll_recv(context));
    let talk = tokio::spawn(async move {
        for _ in 0..500 {
            say.send(()).expect("somebody listens");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let began = Instant::now();
    let written = paced(words).map(|()| began.elapsed());
    let written: Vec<Duration> = written.collect().await;
    talk.await.expect("it ends");
    let (collects, pause) = STATUS_PACE;
    assert_eq!(written.first(), Some(&collects), "the first is soon");
    assert!(
        written.windows(2).all(|two| two[1] >= two[0] + pause),
        "{written:?}"
    );
    assert_eq!(written.len(), 6);
    let last = written.last().copied().unwrap_or_default();
    assert!(last >= Duration::from_millis(4990), "{written:?}");
}
