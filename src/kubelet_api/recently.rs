//! What was answered a moment ago, so that it is not asked again.
//!
//! In: questions and answers. Out: answers that are not too old. Bounded: strangers choose the questions.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How many answers are kept at most.
const MOST: usize = 1024;

/// Answers by question.
pub struct Recently<K, V> {
    lifetime: Duration,
    answers: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> Recently<K, V> {
    /// Answers are good for so long.
    pub fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            answers: Mutex::default(),
        }
    }

    /// The answer, if there is one that is still good.
    pub fn get(&self, question: &K) -> Option<V> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, answer) = answers.get(question)?;
        (at.elapsed() < self.lifetime).then(|| answer.clone())
    }

    /// Keeps an answer.
    pub fn put(&self, question: K, answer: V) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MOST {
            answers.retain(|_, (at, _)| at.elapsed() < self.lifetime);
        }
        if answers.len() >= MOST {
            answers.clear();
        }
        answers.insert(question, (Instant::now(), answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_good_for_its_lifetime_and_a_flood_of_questions_is_bounded() {
        let recently = Recently::new(Duration::from_secs(10));
        recently.put(0, "yes");
        assert_eq!(recently.get(&0), Some("yes"));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(recently.get(&0), None);
        for question in 0..5000 {
            recently.put(question, "no");
        }
        let kept = recently
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        assert!(kept.len() <= MOST);
    }
}
