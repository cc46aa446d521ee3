//! Requests of the outside on their way to the engine, and the answers on their way back.

use std::collections::HashMap;

use mixline_endpoint_engine::QueryError;
use mixline_endpoint_engine::command::{Command, Outcome, Question, RequestNumber};
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the engine; a caller who sends more waits.
const REQUESTS: usize = 256;

/// One request, and where its answer goes if it has one.
pub(crate) enum Request {
    /// To be done, without an answer.
    Command(Command),
    /// To be answered.
    Question(Question, oneshot::Sender<Outcome>),
}

/// The way to the engine.
#[derive(Clone)]
pub(crate) struct Requests(mpsc::Sender<Request>);

impl Requests {
    /// The way to the engine, and its other end.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(REQUESTS);
        (Self(sender), receiver)
    }

    /// Gives a command. It is lost if the endpoint has stopped.
    pub(crate) async fn command(&self, command: Command) {
        let _ = self.0.send(Request::Command(command)).await;
    }

    /// Asks a question and waits for its answer; [`QueryError::Stopped`] if the endpoint has
    /// stopped or stops meanwhile.
    pub(crate) async fn ask(&self, question: Question) -> Outcome {
        let (sender, answer) = oneshot::channel();
        self.0
            .send(Request::Question(question, sender))
            .await
            .map_err(|_| QueryError::Stopped)?;
        answer.await.unwrap_or(Err(QueryError::Stopped))
    }
}

/// Who waits for which answer. The engine answers each question once, after its deadline at the
/// latest, so an entry goes even if nobody waits for it any more.
#[derive(Default)]
pub(crate) struct Waiting {
    last: u64,
    senders: HashMap<RequestNumber, oneshot::Sender<Outcome>>,
}

impl Waiting {
    /// The number of a question whose answer is to go there.
    pub(crate) fn add(&mut self, sender: oneshot::Sender<Outcome>) -> RequestNumber {
        self.last += 1;
        let number = RequestNumber(self.last);
        self.senders.insert(number, sender);
        number
    }

    /// Hands an answer to the one who waits for it, who may have gone away.
    pub(crate) fn answer(&mut self, number: RequestNumber, outcome: Outcome) {
        if let Some(sender) = self.senders.remove(&number) {
            let _ = sender.send(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use mixline_endpoint_engine::command::Answer;

    use super::*;

    #[test]
    fn answers_reach_who_asked_and_nobody_is_kept() {
        let mut waiting = Waiting::default();
        let (first, mut first_answer) = oneshot::channel();
        let (second, second_answer) = oneshot::channel();
        let numbers = [waiting.add(first), waiting.add(second)];
        assert_ne!(numbers[0], numbers[1]);
        drop(second_answer);
        waiting.answer(numbers[1], Err(QueryError::Busy));
        assert!(first_answer.try_recv().is_err());
        waiting.answer(numbers[0], Ok(Answer::Done));
        assert!(matches!(first_answer.try_recv(), Ok(Ok(Answer::Done))));
        waiting.answer(numbers[0], Ok(Answer::Done));
        assert!(waiting.senders.is_empty());
    }
}
