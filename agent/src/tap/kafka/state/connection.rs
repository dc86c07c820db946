//! One connection: frames as they arrive, in both directions, and which request an answer belongs
//! to. What they say is told to the parts of the state that it is about.

use std::collections::VecDeque;
use std::sync::Arc;

use flowtap_record::{Kind, Micros, Outcome, escape_bytes};
use serde_json::json;

use super::answers;
use super::context::{Context, Peer, Unseen};
use super::fetches::{self, Fetches, Tools};
use super::groups::Client;
use super::producing::Producing;
use super::requests::{self, Question};
use super::sums::Sums;
use super::{Shared, fault_details};
use crate::tap::Side;
use crate::tap::kafka::feed::{Ends, Head, Loss, What};
use crate::tap::kafka::wire::{Fault, api, key};

/// Requests that wait for an answer. A client with more of them sends without ever reading.
const MAX_ASKED: usize = 4096;
/// How often it is said again that a connection is only passed on.
const OPAQUE_US: i64 = 10_000_000;

/// The state of one connection.
pub(crate) struct Connection {
    pub(crate) peer: Arc<Peer>,
    pub(crate) client: Client,
    ends: Box<Ends>,
    client_id: Option<Box<[u8]>>,
    pub(crate) software: Option<String>,
    opened: bool,
    up: Receiving,
    down: Receiving,
    asked: VecDeque<Asked>,
    pub(crate) fetches: Fetches,
    sums: Sums,
    opaque: Option<Opaque>,
}

/// Nothing of the connection is read any more.
struct Opaque {
    why: &'static str,
    /// Up to when a row says so.
    told: Micros,
}

/// A request that waits for its answer.
struct Asked {
    correlation: i32,
    question: Question,
}

/// The frame that is being received on one side.
enum Receiving {
    Nothing,
    Whole { head: Box<Head>, body: Vec<u8> },
    Produce(Box<Producing>),
    Fetch { head: Box<Head>, answer: Box<fetches::Answer> },
    Skipped,
}

impl Connection {
    pub(crate) fn new(number: i64, ends: Box<Ends>) -> Self {
        Self {
            peer: Arc::new(Peer { number, ..Peer::default() }),
            client: Arc::from(""),
            ends,
            client_id: None,
            software: None,
            opened: false,
            up: Receiving::Nothing,
            down: Receiving::Nothing,
            asked: VecDeque::new(),
            fetches: Fetches::default(),
            sums: Sums::default(),
            opaque: None,
        }
    }

    /// Something happened on the connection.
    pub(crate) fn take(&mut self, cx: &mut Context<'_>, shared: &mut Shared, what: What) {
        match what {
            What::Closed(reason) => self.closed(cx, shared, reason),
            // It was given up by the decoder; the relay does not know.
            _ if self.opaque.is_some() => {}
            What::Opened(_) => {}
            What::Begin(side, head) => self.begin(cx, shared, side, head),
            What::Piece(side, bytes) => self.piece(cx, shared, side, &bytes),
            What::End(side) => self.end(cx, shared, side),
            What::Lost(side, loss) => self.lost(cx, shared, side, loss),
            What::Missed { side, frames, since } => {
                if side == Side::Client {
                    shared.transactions.unread();
                }
                let what = json!({"from": format!("{side:?}").to_lowercase(), "frames": frames});
                let mut gap = Unseen::new("memory", what);
                (gap.from, gap.count) = (Some(since), Some(frames));
                cx.gap(&self.peer, &gap);
            }
            What::Principal(name) => {
                Arc::make_mut(&mut self.peer).principal = Some(name);
            }
            What::Unread(head) => {
                self.open(cx);
                if head.key == key::END_TXN {
                    shared.transactions.unread();
                }
                let name = api(head.key).map(|api| api.name);
                let what = json!({"api": name, "key": head.key, "version": head.version});
                self.sums.add(cx, &self.peer, Unseen::new("version_unknown", what));
            }
            What::Opaque(reason) => self.give_up(cx, shared, "opaque", reason),
        }
    }

    /// From here on nothing of the connection is read.
    pub(crate) fn give_up(
        &mut self,
        cx: &mut Context<'_>,
        shared: &mut Shared,
        reason: &'static str,
        why: &'static str,
    ) {
        if let Receiving::Fetch { mut answer, .. } =
            std::mem::replace(&mut self.down, Receiving::Skipped)
        {
            answer.end(cx, &mut self.tools(shared));
        }
        self.cut(cx, shared, Side::Client);
        self.forget_asked(shared, cx.now);
        shared.transactions.goes_blind();
        cx.gap(&self.peer, &Unseen::new(reason, json!({"why": why})));
        self.opaque = Some(Opaque { why, told: cx.now });
    }

    /// Lets time pass: says what is not read.
    pub(crate) fn tick(&mut self, cx: &mut Context<'_>) {
        self.sums.tick(cx, &self.peer);
        if self.opaque.as_ref().is_some_and(|opaque| cx.now.since(opaque.told) >= OPAQUE_US) {
            self.still_opaque(cx);
        }
    }

    fn still_opaque(&mut self, cx: &mut Context<'_>) {
        let Some(opaque) = &mut self.opaque else { return };
        let mut gap = Unseen::new("opaque", json!({"why": opaque.why}));
        gap.from = Some(opaque.told);
        opaque.told = cx.now;
        cx.gap_row(&self.peer, &gap);
    }

    /// Bytes that are kept until more come.
    pub(crate) fn kept(&self) -> usize {
        let kept = |receiving: &Receiving| match receiving {
            Receiving::Nothing | Receiving::Skipped => 0,
            Receiving::Whole { body, .. } => body.capacity(),
            Receiving::Produce(producing) => producing.kept(),
            Receiving::Fetch { answer, .. } => answer.kept(),
        };
        kept(&self.up) + kept(&self.down)
    }

    fn receiving(&mut self, side: Side) -> &mut Receiving {
        match side {
            Side::Client => &mut self.up,
            Side::Broker => &mut self.down,
        }
    }

    fn begin(&mut self, cx: &mut Context<'_>, shared: &mut Shared, side: Side, head: Box<Head>) {
        if side == Side::Client {
            self.identify(&head);
            if !matches!(head.key, key::API_VERSIONS | key::SASL_HANDSHAKE | key::SASL_AUTHENTICATE)
            {
                self.open(cx);
            }
        }
        let receiving = match (side, head.key) {
            (Side::Client, key::PRODUCE) => Receiving::Produce(Box::new(Producing::new(head))),
            (Side::Broker, key::FETCH) => {
                let (asked, since) = match self.answered(shared, cx.now, head.correlation) {
                    Some(Question::Fetch(asked)) => (Some(asked), cx.now),
                    Some(Question::Unread(since)) => (None, since),
                    _ => (None, cx.now),
                };
                let answer = Box::new(self.fetches.answer(head.version, asked, cx.now, since));
                Receiving::Fetch { head, answer }
            }
            _ => Receiving::Whole { body: Vec::with_capacity(head.size.min(1 << 20)), head },
        };
        *self.receiving(side) = receiving;
    }

    fn piece(&mut self, cx: &mut Context<'_>, shared: &mut Shared, side: Side, bytes: &[u8]) {
        let receiving = std::mem::replace(self.receiving(side), Receiving::Skipped);
        let receiving = match receiving {
            Receiving::Whole { head, mut body } => {
                body.extend_from_slice(bytes);
                Receiving::Whole { head, body }
            }
            Receiving::Produce(mut producing) => {
                match producing.piece(cx, shared, &self.peer, bytes) {
                    Ok(()) => Receiving::Produce(producing),
                    Err(fault) => {
                        self.misread(cx, &producing.head, fault);
                        self.sent(shared, cx.now, &mut producing);
                        Receiving::Skipped
                    }
                }
            }
            Receiving::Fetch { head, mut answer } => {
                let mut tools = self.tools(shared);
                match answer.piece(cx, &mut tools, bytes) {
                    Ok(()) => Receiving::Fetch { head, answer },
                    Err(fault) => {
                        answer.end(cx, &mut tools);
                        self.misread(cx, &head, fault);
                        Receiving::Skipped
                    }
                }
            }
            skipped => skipped,
        };
        *self.receiving(side) = receiving;
    }

    fn tools<'t>(&'t mut self, shared: &'t mut Shared) -> Tools<'t> {
        Tools {
            cluster: &mut shared.cluster,
            groups: &mut shared.groups,
            fetches: &mut self.fetches,
            sums: &mut self.sums,
            peer: &self.peer,
            client: &self.client,
            scratch: &mut shared.scratch,
            texts: &mut shared.texts,
        }
    }

    fn end(&mut self, cx: &mut Context<'_>, shared: &mut Shared, side: Side) {
        match std::mem::replace(self.receiving(side), Receiving::Nothing) {
            Receiving::Whole { head, body } if side == Side::Client => {
                match requests::read(self, shared, &head, &body) {
                    Ok(Some(question)) => self.ask(shared, cx.now, head.correlation, question),
                    Ok(None) => {}
                    Err(fault) => {
                        self.misread(cx, &head, fault);
                        self.unread(shared, cx.now, &head);
                    }
                }
            }
            Receiving::Whole { head, body } => {
                let question = self.answered(shared, cx.now, head.correlation);
                let read = question.map_or(Ok(()), |question| {
                    answers::read(cx, self, shared, &head, question, &body)
                });
                if let Err(fault) = read {
                    self.misread(cx, &head, fault);
                }
            }
            Receiving::Produce(mut producing) => self.sent(shared, cx.now, &mut producing),
            Receiving::Fetch { mut answer, .. } => answer.end(cx, &mut self.tools(shared)),
            Receiving::Nothing | Receiving::Skipped => {}
        }
    }

    /// The rest of a frame was not kept.
    fn lost(&mut self, cx: &mut Context<'_>, shared: &mut Shared, side: Side, loss: Loss) {
        let reason = match loss {
            Loss::Memory => "memory",
            Loss::Size => "frame_too_large",
            Loss::Cut => return self.cut(cx, shared, side),
        };
        let name = |head: &Head| api(head.key).map(|api| api.name);
        match std::mem::replace(self.receiving(side), Receiving::Skipped) {
            Receiving::Fetch { head, mut answer } => {
                let mut gap = Unseen::new(reason, json!({"api": name(&head), "size": head.size}));
                answer.lost(&mut gap);
                cx.gap(&self.peer, &gap);
                answer.end(cx, &mut self.tools(shared));
            }
            Receiving::Produce(mut producing) => {
                let details = json!({"api": "Produce", "size": producing.head.size});
                let mut gap = Unseen::new(reason, details);
                if let Some((topic, partition)) = &producing.spot {
                    (gap.topic, gap.partition) = (Some(topic.as_ref()), Some(*partition));
                }
                cx.gap(&self.peer, &gap);
                self.sent(shared, cx.now, &mut producing);
            }
            Receiving::Whole { head, .. } => {
                let details = json!({"api": name(&head), "size": head.size});
                cx.gap(&self.peer, &Unseen::new(reason, details));
                match side {
                    Side::Client => self.unread(shared, cx.now, &head),
                    Side::Broker => {
                        if let Some(question) = self.answered(shared, cx.now, head.correlation) {
                            unanswered(shared, cx.now, question);
                        }
                    }
                }
            }
            Receiving::Nothing | Receiving::Skipped => {}
        }
    }

    /// The connection ended within a frame: nobody got it either.
    fn cut(&mut self, cx: &mut Context<'_>, shared: &mut Shared, side: Side) {
        match std::mem::replace(self.receiving(side), Receiving::Skipped) {
            Receiving::Fetch { answer, .. } => answer.cut(cx, &mut self.tools(shared)),
            Receiving::Produce(producing) => {
                unanswered(shared, cx.now, Question::Produce(producing.batches));
            }
            Receiving::Whole { .. } | Receiving::Nothing | Receiving::Skipped => {}
        }
    }

    fn misread(&mut self, cx: &mut Context<'_>, head: &Head, fault: Fault) {
        cx.gap(&self.peer, &Unseen::new("undecodable", fault_details(head, fault)));
    }

    /// What a request asked for is not known.
    fn unread(&mut self, shared: &mut Shared, now: Micros, head: &Head) {
        match head.key {
            key::FETCH => self.ask(shared, now, head.correlation, Question::Unread(now)),
            key::END_TXN => shared.transactions.unread(),
            _ => {}
        }
    }

    /// A Produce request is complete, or as much of it as could be read.
    fn sent(&mut self, shared: &mut Shared, now: Micros, producing: &mut Producing) {
        if producing.acks != 0 {
            let batches = std::mem::take(&mut producing.batches);
            self.ask(shared, now, producing.head.correlation, Question::Produce(batches));
        }
    }

    // === questions ===

    fn ask(&mut self, shared: &mut Shared, now: Micros, correlation: i32, question: Question) {
        if self.asked.len() == MAX_ASKED
            && let Some(oldest) = self.asked.pop_front()
        {
            unanswered(shared, now, oldest.question);
        }
        self.asked.push_back(Asked { correlation, question });
    }

    /// What an answer answers. Answers come in the order of the requests; earlier ones that are
    /// still here were not handed over.
    fn answered(&mut self, shared: &mut Shared, now: Micros, correlation: i32) -> Option<Question> {
        let at = self.asked.iter().position(|asked| asked.correlation == correlation)?;
        for earlier in self.asked.drain(..at) {
            unanswered(shared, now, earlier.question);
        }
        self.asked.pop_front().map(|asked| asked.question)
    }

    fn forget_asked(&mut self, shared: &mut Shared, now: Micros) {
        for asked in self.asked.drain(..) {
            unanswered(shared, now, asked.question);
        }
    }

    // === who ===

    fn identify(&mut self, head: &Head) {
        if self.client_id.is_none() && head.client_id.is_some() {
            self.client_id.clone_from(&head.client_id);
            self.describe();
        }
    }

    /// The client's software is known now.
    pub(crate) fn describe(&mut self) {
        let id = self.client_id.as_deref().map(escape_bytes);
        let client = match (&self.software, &id) {
            (Some(software), Some(id)) => Some(format!("{software} ({id})")),
            (Some(software), None) => Some(software.clone()),
            (None, Some(id)) => Some(format!("({id})")),
            (None, None) => None,
        };
        self.client = Arc::from(client.as_deref().unwrap_or_default());
        Arc::make_mut(&mut self.peer).client = client;
    }

    fn open(&mut self, cx: &mut Context<'_>) {
        if self.opened {
            return;
        }
        self.opened = true;
        let ends = &self.ends;
        let details = json!({
            "what": "connection",
            "client_address": ends.client,
            "client_id": self.client_id.as_deref().map(escape_bytes),
            "local_address": ends.local.map(|local| local.ip().to_string()),
            "local_port": ends.local.map(|local| local.port()),
            "broker_address": ends.broker,
            "broker_id": ends.broker_id,
        })
        .to_string();
        let mut row = cx.row(Kind::Session, &self.peer);
        row.outcome = Some(Outcome::Opened);
        row.details = Some(&details);
        cx.record(&row);
    }

    fn closed(&mut self, cx: &mut Context<'_>, shared: &mut Shared, reason: &str) {
        for side in [Side::Client, Side::Broker] {
            self.cut(cx, shared, side);
        }
        self.forget_asked(shared, cx.now);
        self.sums.end(cx, &self.peer);
        if self.opaque.is_some() {
            self.still_opaque(cx);
            shared.transactions.sees_again();
        }
        if self.opened {
            let mut row = cx.row(Kind::Session, &self.peer);
            row.outcome = Some(Outcome::Closed);
            row.reason = Some(reason);
            row.details = Some(r#"{"what":"connection"}"#);
            cx.record(&row);
        }
    }
}

/// The answer to a question was not seen, or could not be read.
pub(crate) fn unanswered(shared: &mut Shared, now: Micros, question: Question) {
    match question {
        Question::Produce(batches) => {
            for batch in batches {
                shared.publishes.unanswered(batch.number);
            }
        }
        Question::Join(joining) => {
            shared.groups.waits_no_more(&joining.group, &joining.member, now);
        }
        Question::Sync(group, member, _) => shared.groups.waits_no_more(&group, &member, now),
        _ => {}
    }
}
