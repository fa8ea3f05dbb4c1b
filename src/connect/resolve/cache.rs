//! Answers, kept for their time to live.
//!
//! In: questions and their answers. Out: an answer, while it holds. Only the answer to a question that was asked is
//! kept, under that question: no record of another name gets in.

use std::collections::VecDeque;

use super::message::{Answer, Question};
use crate::time::Instant;

/// Most answers that are kept; the oldest makes room.
pub const MAX_KEPT_ANSWERS: usize = 256;

/// See the head of this file.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache(VecDeque<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    until: Instant,
    question: Question,
    answer: Answer,
}

impl Cache {
    /// The answer to a question, with the time for which it still holds.
    pub(super) fn get(&self, now: Instant, question: &Question) -> Option<Answer> {
        let mut fresh = self.0.iter().filter(|entry| entry.until > now);
        let entry = fresh.find(|entry| entry.question == *question)?;
        Some(Answer {
            ttl: entry.until.saturating_since(now),
            ..entry.answer.clone()
        })
    }

    /// Keeps an answer, unless it holds for one look-up only.
    pub(super) fn keep(&mut self, now: Instant, question: Question, answer: Answer) {
        self.0
            .retain(|entry| entry.question != question && entry.until > now);
        let until = now + answer.ttl;
        if until <= now {
            return;
        }
        if self.0.len() >= MAX_KEPT_ANSWERS {
            self.0.pop_front();
        }
        self.0.push_back(Entry {
            until,
            question,
            answer,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::message::{DnsName, RecordType, Records};
    use super::*;

    fn question(name: &str) -> Question {
        Question {
            name: DnsName::parse(name).unwrap(),
            kind: RecordType::A,
        }
    }

    fn answer(seconds: u64) -> Answer {
        Answer {
            records: Records::NoName,
            ttl: Duration::from_secs(seconds),
        }
    }

    const fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_no_other_name_gets_it() {
        let mut cache = Cache::default();
        cache.keep(at(1), question("a.test"), answer(10));
        assert_eq!(cache.get(at(4), &question("a.test")), Some(answer(7)));
        assert_eq!(cache.get(at(11), &question("a.test")), None);
        assert_eq!(cache.get(at(4), &question("b.test")), None);
        let aaaa = Question {
            kind: RecordType::Aaaa,
            ..question("a.test")
        };
        assert_eq!(cache.get(at(4), &aaaa), None);
        cache.keep(at(4), question("a.test"), answer(0));
        assert_eq!(cache.get(at(4), &question("a.test")), None, "replaced");
    }

    #[test]
    fn the_number_of_answers_is_bounded_and_the_oldest_makes_room() {
        let mut cache = Cache::default();
        for n in 0..=MAX_KEPT_ANSWERS {
            cache.keep(at(0), question(&format!("n{n}")), answer(10));
        }
        assert_eq!(cache.0.len(), MAX_KEPT_ANSWERS);
        assert_eq!(cache.get(at(1), &question("n0")), None);
        assert!(cache.get(at(1), &question("n1")).is_some());
        cache.keep(at(20), question("late"), answer(10));
        assert_eq!(cache.0.len(), 1, "those that hold no more make room, too");
    }
}
