//! One channel: the methods of both sides in their order, so that each answer finds its question.

use std::borrow::Cow;
use std::collections::VecDeque;

use flowtap_record::{Kind, Outcome, Seq, escape_bytes};

use super::consumer::{Consumer, Consumers, End, Got, unanswered};
use super::content::Assembly;
use super::context::Context;
use super::method::Method;
use super::publisher::Publisher;
use super::topology::{Change, table_json};

/// A channel from channel.open to channel.close-ok.
#[derive(Default)]
pub(crate) struct Channel {
    pub(crate) number: u16,
    pub(crate) publisher: Publisher,
    consumers: Consumers,
    pub(crate) from_client: Assembly,
    pub(crate) from_broker: Assembly,
    /// Questions of the client that the broker has yet to answer; it answers in order.
    questions: VecDeque<Question>,
    transaction: Option<Transaction>,
    /// The queue that an empty name stands for.
    last_queue: Option<String>,
    anonymous_queues: u32,
    prefetch: Option<u16>,
    /// The bound that all consumers of the channel share.
    shared_prefetch: Option<u16>,
    /// How many questions there were.
    asked: u64,
    doubt: Option<Doubt>,
    /// One side has said channel.close: the broker ignores what the client still sends.
    pub(crate) closing: bool,
    opened: bool,
}

/// A broker transaction; they follow one another from tx.select on.
struct Transaction {
    number: u64,
    name: String,
    /// Something was published or settled in it.
    used: bool,
}

/// A method of the client that the broker answers.
struct Question {
    number: u64,
    /// Where the returnable publishes ended when it was asked.
    fence: u64,
    answer: Answer,
}

/// The client has settled what is not open. RabbitMQ closes the channel for that, and ignores what
/// comes behind it: those settlements count only if it turns out that the channel lives on.
struct Doubt {
    /// How many questions there were before: the answer to a later one ends the doubt.
    asked: u64,
    settlements: Vec<(u64, bool, Outcome)>,
}

/// So many settlements after one that should have closed the channel, it has not closed it.
const MAX_DOUBTFUL: usize = 4096;

/// The answer that is expected, and what it brings about.
enum Answer {
    Ok(Option<Box<Change>>),
    Declared { change: Option<Box<Change>> },
    Consuming(Box<Consumer>),
    Got(Got),
    Cancelled,
    Recovered,
    Committed,
    RolledBack,
}

impl Channel {
    pub(crate) fn new(number: u16) -> Self {
        Self { number, ..Self::default() }
    }

    /// A method of the client that carries no content. Returns the newest row that it concludes:
    /// it may be relayed only when that row is written.
    pub(crate) fn client_method(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method<'_>,
    ) -> Option<Seq> {
        if self.closing {
            return None;
        }
        let channel = self.number;
        match method {
            Method::Ack { tag, multiple } => {
                return self.settle(cx, *tag, *multiple, Outcome::Acked);
            }
            Method::Nack { tag, multiple, requeue } => {
                return self.settle(cx, *tag, *multiple, refusal(*requeue));
            }
            Method::Reject { tag, requeue } => {
                return self.settle(cx, *tag, false, refusal(*requeue));
            }
            Method::RecoverAsync { requeue: true } => return self.recover(cx),
            Method::Recover { requeue: true } => self.ask(Answer::Recovered),
            Method::ConfirmSelect { nowait } => {
                self.publisher.confirm_select();
                self.ask_unless(*nowait, Answer::Ok(None));
            }
            Method::TxSelect => {
                if self.transaction.is_none() {
                    self.begin_transaction(cx, 1);
                }
                self.ask(Answer::Ok(None));
            }
            Method::ChannelFlow => self.ask(Answer::Ok(None)),
            Method::TxCommit => self.ask(Answer::Committed),
            Method::TxRollback => self.ask(Answer::RolledBack),
            Method::Qos { prefetch, global } => {
                let bound = if *global { &mut self.shared_prefetch } else { &mut self.prefetch };
                *bound = Some(*prefetch);
                self.ask(Answer::Ok(None));
            }
            Method::Consume { queue, tag, no_ack, exclusive, nowait, arguments } => {
                let mut consumer = Consumer {
                    queue: named(queue),
                    no_ack: *no_ack,
                    exclusive: *exclusive,
                    prefetch: self.prefetch,
                    channel_prefetch: self.shared_prefetch,
                    arguments: table_json(arguments),
                };
                if *nowait {
                    consumer.queue = consumer.queue.or_else(|| self.last_queue.clone());
                    self.consumers.opened(cx, channel, tag, consumer);
                } else {
                    self.ask(Answer::Consuming(Box::new(consumer)));
                }
            }
            Method::Cancel { tag, nowait: true } => {
                self.consumers.closed(cx, channel, tag, "cancelled by the client");
            }
            Method::Cancel { .. } => self.ask(Answer::Cancelled),
            Method::Get { queue, no_ack } => {
                let queue = named(queue).or_else(|| self.last_queue.clone());
                self.ask(Answer::Got(Got { queue, no_ack: *no_ack }));
            }
            Method::QueueDeclare { queue, passive, nowait, .. } => {
                let change = if *passive { None } else { Change::asked(method) };
                self.declare(cx, named(queue), *nowait, change.map(|(change, _)| change));
            }
            Method::ExchangeDeclare { passive: true, nowait, .. } => {
                self.ask_unless(*nowait, Answer::Ok(None));
            }
            other => {
                if let Some((change, waits)) = Change::asked(other) {
                    if waits {
                        self.ask(Answer::Ok(Some(Box::new(change))));
                    } else {
                        change.record(cx, channel, self.last_queue.as_deref());
                    }
                }
            }
        }
        None
    }

    /// A method of the broker that carries no content. Returns the newest row that it concludes.
    pub(crate) fn broker_method(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method<'_>,
    ) -> Option<Seq> {
        let concluded = self.broker_answer(cx, method);
        let oldest = self.questions.front().map_or(self.asked + 1, |question| question.number);
        match &self.doubt {
            Some(doubt) if oldest > doubt.asked + 1 => concluded.max(self.trust(cx)),
            _ => concluded,
        }
    }

    fn broker_answer(&mut self, cx: &mut Context<'_>, method: &Method<'_>) -> Option<Seq> {
        let channel = self.number;
        match method {
            Method::Ack { tag, multiple } => {
                return self.publisher.confirmed(cx, channel, *tag, *multiple, Outcome::Confirmed);
            }
            Method::Nack { tag, multiple, .. } => {
                return self.publisher.confirmed(cx, channel, *tag, *multiple, Outcome::Refused);
            }
            Method::ChannelOpenOk => self.open(cx),
            Method::Cancel { tag, .. } => {
                self.consumers.closed(cx, channel, tag, "cancelled by the broker");
            }
            Method::QueueDeclareOk { queue, messages, consumers } => {
                let queue = escape_bytes(queue).into_owned();
                self.last_queue = Some(queue.clone());
                if let Some(Answer::Declared { change: Some(mut change) }) =
                    self.answered(|answer| matches!(answer, Answer::Declared { .. }))
                {
                    change.declared(queue, *messages, *consumers);
                    change.record(cx, channel, None);
                }
            }
            Method::ConsumeOk { tag } => {
                if let Some(Answer::Consuming(mut consumer)) =
                    self.answered(|answer| matches!(answer, Answer::Consuming(_)))
                {
                    consumer.queue = consumer.queue.or_else(|| self.last_queue.clone());
                    if self.closing {
                        self.consumers.opened_late(tag, *consumer);
                    } else {
                        self.consumers.opened(cx, channel, tag, *consumer);
                    }
                }
            }
            Method::CancelOk { tag } => {
                self.answered(|answer| matches!(answer, Answer::Cancelled));
                self.consumers.closed(cx, channel, tag, "cancelled by the client");
            }
            Method::GetEmpty => {
                self.answered(|answer| matches!(answer, Answer::Got(_)));
            }
            Method::RecoverOk => {
                self.answered(|answer| matches!(answer, Answer::Recovered));
                return self.recover(cx);
            }
            Method::TxCommitOk => {
                self.answered(|answer| matches!(answer, Answer::Committed));
                return self.end_transaction(cx, Outcome::Committed);
            }
            Method::TxRollbackOk => {
                self.answered(|answer| matches!(answer, Answer::RolledBack));
                return self.end_transaction(cx, Outcome::Aborted);
            }
            Method::OtherOk => {
                if let Some(Answer::Ok(Some(change))) =
                    self.answered(|answer| matches!(answer, Answer::Ok(_)))
                {
                    change.record(cx, channel, self.last_queue.as_deref());
                }
            }
            _ => {}
        }
        None
    }

    /// basic.get-ok: the content that follows is the answer to the oldest basic.get.
    pub(crate) fn get_answered(&mut self) {
        let got = match self.answered(|answer| matches!(answer, Answer::Got(_))) {
            Some(Answer::Got(got)) => Some(got),
            _ => None,
        };
        self.consumers.got(got);
    }

    /// The client's message is complete.
    pub(crate) fn published(&mut self, cx: &mut Context<'_>) {
        let name = use_transaction(&mut self.transaction);
        self.publisher.published(cx, self.number, &self.from_client, name, self.closing);
        self.from_client.release();
    }

    /// A message of the broker is complete: delivered or returned.
    pub(crate) fn received(&mut self, cx: &mut Context<'_>) {
        if super::method::ids(&self.from_broker.method) == Some((60, 50)) {
            let name = self.transaction.as_ref().map(|transaction| transaction.name.as_str());
            self.publisher.returned(cx, self.number, &self.from_broker, name);
        } else {
            self.consumers.delivered(cx, self.number, &self.from_broker, self.closing);
        }
        self.from_broker.release();
    }

    fn open(&mut self, cx: &mut Context<'_>) {
        self.opened = true;
        let mut row = cx.row(Kind::Session, Some(self.number));
        row.outcome = Some(Outcome::Opened);
        row.details = Some(r#"{"what":"channel"}"#);
        cx.record(&row);
    }

    /// One side has said channel.close, or the connection has ended: what is open is abandoned,
    /// what stays unconfirmed is unknown. A second close changes nothing.
    ///
    /// Publisher and questions stay until close-ok: when it is the client that closes, the broker's
    /// answers to what came before are still on their way.
    pub(crate) fn close(&mut self, cx: &mut Context<'_>, reason: &str) {
        if self.closing {
            return;
        }
        self.closing = true;
        if let Some(unanswered) = self.end_open_transaction(cx, reason) {
            self.consumers.unanswered(cx, self.number, &unanswered, reason);
        }
        self.consumers.clear(cx, self.number, reason);
        self.doubt = None;
        if !self.opened {
            return;
        }
        let details = match self.shared_prefetch {
            None => Cow::from(r#"{"what":"channel"}"#),
            Some(bound) => format!(r#"{{"what":"channel","prefetch":{bound}}}"#).into(),
        };
        let mut row = cx.row(Kind::Session, Some(self.number));
        row.outcome = Some(Outcome::Closed);
        row.reason = Some(reason);
        row.details = Some(&details);
        cx.record(&row);
    }

    /// The channel ends within a transaction: the broker drops it, unless it was already asked to
    /// commit and has not answered. Then nobody here knows, the row has no outcome, and this is the
    /// transaction's name.
    fn end_open_transaction(&mut self, cx: &mut Context<'_>, reason: &str) -> Option<String> {
        // Behind each commit stands a next transaction; an empty one has nothing to abort.
        let transaction = self.transaction.take().filter(|transaction| transaction.used)?;
        let mut questions = self.questions.iter();
        if questions.any(|question| matches!(question.answer, Answer::Committed)) {
            let reason = unanswered(reason);
            transaction_row(cx, self.number, &transaction.name, None, Some(&reason));
            return Some(transaction.name);
        }
        let aborted = Some(Outcome::Aborted);
        transaction_row(cx, self.number, &transaction.name, aborted, Some(reason));
        None
    }

    /// The connection can't be followed any more: nothing can be said of how what is open ends. The
    /// channel and its consumers live as long as the connection, for all that is known.
    pub(crate) fn lose_sight(&mut self) {
        self.consumers.lose_sight();
        self.publisher = Publisher::default();
        self.questions.clear();
        self.transaction = None;
        self.doubt = None;
    }

    fn settle(
        &mut self,
        cx: &mut Context<'_>,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Option<Seq> {
        if let Some(doubt) = &mut self.doubt {
            doubt.settlements.push((tag, multiple, outcome));
            return if doubt.settlements.len() < MAX_DOUBTFUL { None } else { self.trust(cx) };
        }
        // A recover that is under way takes everything back before this settlement is looked at.
        let mut questions = self.questions.iter();
        let recovering = questions.any(|question| matches!(question.answer, Answer::Recovered));
        let all = multiple && tag == 0;
        if (recovering && !all) || !self.consumers.knows(tag, multiple) {
            cx.strange("delivery tag", self.number);
            let settlements = if recovering { vec![(tag, multiple, outcome)] } else { Vec::new() };
            self.doubt = Some(Doubt { asked: self.asked, settlements });
            return None;
        }
        if recovering {
            return None;
        }
        let name = use_transaction(&mut self.transaction);
        self.consumers.settled(cx, self.number, tag, multiple, outcome, name)
    }

    /// The channel has outlived a settlement that was in doubt: those behind it count.
    fn trust(&mut self, cx: &mut Context<'_>) -> Option<Seq> {
        let doubt = self.doubt.take()?;
        let settle = |(tag, multiple, outcome)| self.settle(cx, tag, multiple, outcome);
        doubt.settlements.into_iter().filter_map(settle).max()
    }

    fn recover(&mut self, cx: &mut Context<'_>) -> Option<Seq> {
        self.consumers.end(cx, self.number, &End { outcome: Outcome::Requeued, reason: "recover" })
    }

    fn declare(
        &mut self,
        cx: &mut Context<'_>,
        queue: Option<String>,
        nowait: bool,
        change: Option<Change>,
    ) {
        if !nowait {
            return self.ask(Answer::Declared { change: change.map(Box::new) });
        }
        // The server's name for it never appears on the wire.
        let name = queue.unwrap_or_else(|| {
            self.anonymous_queues += 1;
            format!("(anonymous #{}.{})", self.number, self.anonymous_queues)
        });
        if let Some(change) = change {
            change.record(cx, self.number, Some(&name));
        }
        self.last_queue = Some(name);
    }

    fn ask(&mut self, answer: Answer) {
        self.asked += 1;
        let fence = self.publisher.fence();
        self.questions.push_back(Question { number: self.asked, fence, answer });
    }

    fn ask_unless(&mut self, nowait: bool, answer: Answer) {
        if !nowait {
            self.ask(answer);
        }
    }

    /// Takes the oldest question that expects this answer. Questions before it will not be
    /// answered any more: the broker answers in order.
    fn answered(&mut self, expects: impl Fn(&Answer) -> bool) -> Option<Answer> {
        let index = self.questions.iter().position(|question| expects(&question.answer))?;
        let question = self.questions.drain(..=index).next_back()?;
        self.publisher.processed(question.fence);
        Some(question.answer)
    }

    fn begin_transaction(&mut self, cx: &Context<'_>, number: u64) {
        let name = format!("{}/{}/{number}", cx.connection.number, self.number);
        self.transaction = Some(Transaction { number, name, used: false });
    }

    fn end_transaction(&mut self, cx: &mut Context<'_>, outcome: Outcome) -> Option<Seq> {
        let transaction = self.transaction.take()?;
        if outcome == Outcome::Committed {
            self.consumers.committed(cx, self.number, &transaction.name);
        } else {
            self.consumers.rolled_back();
        }
        let seq = transaction_row(cx, self.number, &transaction.name, Some(outcome), None);
        self.begin_transaction(cx, transaction.number + 1);
        seq
    }
}

/// Name of the transaction that something becomes part of.
fn use_transaction(transaction: &mut Option<Transaction>) -> Option<&str> {
    transaction.as_mut().map(|transaction| {
        transaction.used = true;
        transaction.name.as_str()
    })
}

fn transaction_row(
    cx: &mut Context<'_>,
    channel: u16,
    name: &str,
    outcome: Option<Outcome>,
    reason: Option<&str>,
) -> Option<Seq> {
    let mut row = cx.row(Kind::Transaction, Some(channel));
    row.outcome = outcome;
    row.reason = reason;
    row.session.broker_txn = Some(name);
    cx.record(&row)
}

fn refusal(requeue: bool) -> Outcome {
    if requeue { Outcome::Requeued } else { Outcome::Rejected }
}

fn named(queue: &[u8]) -> Option<String> {
    (!queue.is_empty()).then(|| escape_bytes(queue).into_owned())
}
