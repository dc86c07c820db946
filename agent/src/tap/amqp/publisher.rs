//! The publishing side of a channel: publishes, the broker's answers to them, and the returns that
//! the tap provokes by setting `mandatory` (facts: returns carry no tag, come in publish order, and
//! always before the ack that covers them).

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use flowtap_record::{Fingerprint, Kind, Outcome, RowRef, Seq, escape_bytes};

use super::content::{Assembly, fill_message};
use super::context::Context;
use super::method::{Method, Publish};
use super::wire::{Header, body_size, lookup};
use crate::identify::PayloadWhen;
use crate::tap::kept::{Kept, Repeat};

/// Why a publish carries the mandatory bit or not: the column `details.mandatory`.
pub(crate) mod mandatory {
    /// The client asked for it.
    pub(crate) const CLIENT: &str = "client";
    /// The tap set it.
    pub(crate) const SET: &str = "set";
    /// Switched off by configuration.
    pub(crate) const OFF: &str = "off";
    /// The broker did not say that it is RabbitMQ.
    pub(crate) const NOT_RABBITMQ: &str = "not_rabbitmq";
    /// `immediate`: the broker ends the connection; nothing of ours may mix in.
    pub(crate) const IMMEDIATE: &str = "immediate";
    /// Direct reply-to: delivered and returned on RabbitMQ before 4.2.
    pub(crate) const REPLY_TO: &str = "reply_to";
    /// The whole body would come back.
    pub(crate) const LARGE: &str = "large";
    /// Other frames stand between the method and its header, so the size was not known.
    pub(crate) const INTERLEAVED: &str = "interleaved";
    /// A delayed-message exchange answers that nobody takes it, and delivers it later.
    pub(crate) const DELAYED: &str = "delayed";
    /// The client does not read; returns would pile up behind what it leaves unread.
    pub(crate) const SLOW_CLIENT: &str = "slow_client";
    /// The channel is closing: the broker ignores what comes.
    pub(crate) const CLOSING: &str = "closing";
}

/// Publishes remembered for matching returns, per channel. What falls out at the far end has
/// almost surely been routed: the broker works through a channel in order.
const MAX_RETURNABLE: usize = 65_536;

const REPLY_TO_PREFIX: &[u8] = b"amq.rabbitmq.reply-to.";

#[derive(Default)]
pub(crate) struct Publisher {
    /// In confirm mode: the number of the next publish.
    next_tag: Option<u64>,
    unconfirmed: BTreeMap<u64, Kept>,
    returnable: VecDeque<Returnable>,
    /// Number of publishes that were ever put into `returnable`: the position of its end.
    returnable_end: u64,
    /// Whether the client, and whether the tap, ever asked for returns on this channel.
    client_asks: bool,
    tap_asks: bool,
    /// Publishes fell out at the far end of `returnable`.
    forgot: bool,
}

/// What of a message's header frame decides whether its publish may be made mandatory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    pub(crate) body_size: u64,
    pub(crate) delayed: bool,
}

impl Ahead {
    /// Reads it from the payload of a header frame.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let body_size = body_size(payload).ok()?;
        // Few messages have the header: the others are not decoded for it.
        let delayed = payload.windows(DELAY.len()).any(|bytes| bytes == DELAY)
            && Header::decode(payload).is_ok_and(|header| is_delayed(&header));
        Some(Self { body_size, delayed })
    }
}

/// The name, with its length before it, of the header that the plugin `x-delayed-message` reads.
const DELAY: &[u8] = b"\x07x-delay";

fn is_delayed(header: &Header<'_>) -> bool {
    lookup(&header.headers, "x-delay").is_some()
}

/// A publish that may still be returned. Small: without confirms there are many.
struct Returnable {
    /// Of exchange and routing key.
    place: u64,
    digest: Option<u128>,
    size: u64,
    seq: Option<Seq>,
    tag: Option<u64>,
    by_client: bool,
}

/// What is to be done with a return, judged by its method alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Swallow,
    Forward,
    /// Both the client and the tap asked for returns from this place: the content decides.
    Ambiguous,
}

impl Publisher {
    /// `confirm.select`: publishes are counted from 1. A second one changes nothing.
    pub(crate) fn confirm_select(&mut self) {
        self.next_tag.get_or_insert(1);
    }

    /// Whether the tap is to set the mandatory bit; the answer says why (not).
    pub(crate) fn mandatory(
        cx: &Context<'_>,
        publish: &Publish<'_>,
        ahead: Option<Ahead>,
        closing: bool,
    ) -> &'static str {
        let env = cx.env;
        let reply = publish.exchange.is_empty() && publish.routing_key.starts_with(REPLY_TO_PREFIX);
        match ahead {
            _ if publish.mandatory => mandatory::CLIENT,
            _ if !env.detect_unroutable => mandatory::OFF,
            _ if !cx.connection.is_rabbitmq => mandatory::NOT_RABBITMQ,
            _ if publish.immediate => mandatory::IMMEDIATE,
            _ if reply => mandatory::REPLY_TO,
            _ if closing => mandatory::CLOSING,
            _ if cx.connection.client_is_slow => mandatory::SLOW_CLIENT,
            None => mandatory::INTERLEAVED,
            Some(ahead) if ahead.delayed => mandatory::DELAYED,
            Some(ahead) if ahead.body_size > env.unroutable_max_body => mandatory::LARGE,
            Some(_) => mandatory::SET,
        }
    }

    /// The client's message is complete.
    pub(crate) fn published(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        assembly: &Assembly,
        broker_txn: Option<&str>,
        closing: bool,
    ) {
        let Ok(Method::Publish(publish)) = Method::decode(&assembly.method) else {
            return cx.undecodable("publish", channel);
        };
        let complete = assembly.message();
        let content = complete.content(publish.exchange, publish.routing_key);
        let identified = cx.env.identifier.identify(&content);
        let message = complete.digest.map(Fingerprint::text);
        let destination = escape_bytes(publish.exchange);
        let routing_key = escape_bytes(publish.routing_key);
        let content_type = complete.header.content_type.map(escape_bytes);
        let payload = complete.payload(cx, PayloadWhen::Passed);
        let mut details = format!(r#"{{"mandatory":"{}""#, assembly.mandatory);
        if !complete.decodable {
            cx.undecodable("headers", channel);
            details.push_str(r#","undecodable":"headers""#);
        }
        if payload.as_ref().is_some_and(|payload| payload.cut) {
            details.push_str(r#","payload":"truncated""#);
        }
        details.push('}');

        // What the broker ignores gets no number: the channel is closing.
        let tag = if closing { None } else { self.take_tag() };
        let mut row = cx.row(Kind::Publish, Some(channel));
        fill_message(&mut row, &complete, &identified, message.as_deref(), content_type.as_deref());
        row.reason = closing.then_some("channel_closing");
        row.details = Some(&details);
        row.message.payload = payload.as_ref().map(|payload| payload.bytes.as_ref());
        row.place.destination = Some(&destination);
        row.place.routing_key = Some(&routing_key);
        row.who.delivery_tag = tag.map(|tag| tag as i64);
        row.session.confirm_expected = Some(tag.is_some());
        row.session.broker_txn = broker_txn;
        let seq = cx.record(&row);
        if closing {
            return;
        }

        if let Some(tag) = tag {
            let failed = complete.payload(cx, PayloadWhen::Failed);
            let repeat = Repeat {
                message: message.as_deref(),
                ids: row.message.ids,
                destination: Some(&destination),
                routing_key: Some(&routing_key),
                ..Repeat::default()
            };
            self.unconfirmed.insert(tag, cx.keep(seq, &repeat, failed.as_ref()));
        }
        let by_client = assembly.mandatory == mandatory::CLIENT;
        if by_client || assembly.mandatory == mandatory::SET {
            self.client_asks |= by_client;
            self.tap_asks |= !by_client;
            self.returnable_end += 1;
            self.returnable.push_back(Returnable {
                place: place_of(publish.exchange, publish.routing_key),
                digest: complete.digest,
                size: complete.size,
                seq,
                tag,
                by_client,
            });
            if self.returnable.len() > MAX_RETURNABLE {
                self.returnable.pop_front();
                if !std::mem::replace(&mut self.forgot, true) {
                    tracing::info!(
                        connection = cx.connection.number,
                        channel,
                        limit = MAX_RETURNABLE,
                        "publishes without confirms: a return that comes this late will not be \
                         matched with its publish"
                    );
                }
            }
        }
    }

    fn take_tag(&mut self) -> Option<u64> {
        let tag = self.next_tag?;
        self.next_tag = Some(tag + 1);
        Some(tag)
    }

    /// basic.ack or basic.nack from the broker. Returns the last row that it concludes.
    pub(crate) fn confirmed(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        tag: u64,
        multiple: bool,
        outcome: Outcome,
    ) -> Option<Seq> {
        let mut newest = None;
        while let Some(number) = self.next_confirmed(tag, multiple) {
            let Some(kept) = self.unconfirmed.remove(&number) else { break };
            let mut row = cx.row(Kind::Confirm, Some(channel));
            kept.fill(&mut row);
            row.outcome = Some(outcome);
            let refused = outcome == Outcome::Refused;
            if refused {
                row.reason = Some("nack");
                row.message.payload = kept.payload();
            }
            let details = kept.details(Some(multiple), refused);
            row.details = details.as_deref();
            row.who.delivery_tag = Some(number as i64);
            row.session.took_us = Some(cx.now.since(kept.at));
            cx.record(&row);
            newest = newest.max(kept.seq());
        }
        // The return of a publish comes before its answer: what is answered cannot come back.
        while let Some(first) = self.returnable.front()
            && first.tag.is_some_and(|tag| !self.unconfirmed.contains_key(&tag))
        {
            self.returnable.pop_front();
        }
        newest
    }

    /// `multiple` covers what is still unconfirmed up to the tag; tag 0 stands for all.
    fn next_confirmed(&self, tag: u64, multiple: bool) -> Option<u64> {
        if !multiple {
            return self.unconfirmed.contains_key(&tag).then_some(tag);
        }
        let first = *self.unconfirmed.first_key_value()?.0;
        (first <= tag || tag == 0).then_some(first)
    }

    /// Where the end of the returnable publishes stands now; see [`Self::processed`].
    pub(crate) fn fence(&self) -> u64 {
        self.returnable_end
    }

    /// The broker has answered a method that was sent when the end stood at `fence`: it has gone
    /// through every publish before it, and their returns are out.
    pub(crate) fn processed(&mut self, fence: u64) {
        let start = self.returnable_end - self.returnable.len() as u64;
        let done = fence.saturating_sub(start).min(self.returnable.len() as u64);
        self.returnable.drain(..done as usize);
    }

    /// Whether a return from this place is the client's or the tap's.
    pub(crate) fn judge(&self, exchange: &[u8], routing_key: &[u8]) -> Verdict {
        if !self.client_asks || !self.tap_asks {
            return if self.tap_asks { Verdict::Swallow } else { Verdict::Forward };
        }
        let place = place_of(exchange, routing_key);
        let mut candidates = self.returnable.iter().filter(|publish| publish.place == place);
        let Some(first) = candidates.next() else {
            // Forgotten. A return too many is harmless to the client, one too few is not.
            return Verdict::Forward;
        };
        match candidates.any(|other| other.by_client != first.by_client) {
            true => Verdict::Ambiguous,
            false if first.by_client => Verdict::Forward,
            false => Verdict::Swallow,
        }
    }

    /// The same for a return whose content is known: the first in order that is equal to it.
    pub(crate) fn judge_content(
        &self,
        exchange: &[u8],
        routing_key: &[u8],
        returned: &Assembly,
    ) -> Verdict {
        let complete = returned.message();
        match self.find(exchange, routing_key, complete.digest, complete.size) {
            Some(index) if !self.returnable[index].by_client => Verdict::Swallow,
            _ => Verdict::Forward,
        }
    }

    fn find(&self, exchange: &[u8], key: &[u8], digest: Option<u128>, size: u64) -> Option<usize> {
        let place = place_of(exchange, key);
        let same_place = |publish: &Returnable| publish.place == place;
        self.returnable
            .iter()
            .position(|p| same_place(p) && p.size == size && p.digest == digest)
            .or_else(|| self.returnable.iter().position(|p| same_place(p) && p.size == size))
            .or_else(|| self.returnable.iter().position(same_place))
    }

    /// A return is complete, forwarded or swallowed.
    pub(crate) fn returned(
        &mut self,
        cx: &mut Context<'_>,
        channel: u16,
        assembly: &Assembly,
        broker_txn: Option<&str>,
    ) {
        let Ok(Method::Return { code, text, exchange, routing_key }) =
            Method::decode(&assembly.method)
        else {
            return cx.undecodable("return", channel);
        };
        if assembly.swallow {
            cx.env.metrics.returns_swallowed.inc();
        }
        let complete = assembly.message();
        let found = self.find(exchange, routing_key, complete.digest, complete.size);
        // Returns come in order: what was published before this one is through.
        let publish = found.and_then(|index| self.returnable.drain(..=index).next_back());

        let content = complete.content(exchange, routing_key);
        let identified = cx.env.identifier.identify(&content);
        let message = complete.digest.map(Fingerprint::text);
        let (destination, key) = (escape_bytes(exchange), escape_bytes(routing_key));
        let content_type = complete.header.content_type.map(escape_bytes);
        let reason = format!("{code} {}", escape_bytes(text));
        let payload = complete.payload(cx, PayloadWhen::Failed);
        let mut row = cx.row(Kind::Return, Some(channel));
        fill_message(&mut row, &complete, &identified, message.as_deref(), content_type.as_deref());
        row.outcome = Some(Outcome::Unroutable);
        row.reason = Some(&reason);
        let mut details =
            format!(r#"{{"asked_by":"{}""#, if assembly.swallow { "tap" } else { "client" });
        if is_delayed(&complete.header) {
            details.push_str(r#","delayed":true"#);
        }
        if payload.as_ref().is_some_and(|payload| payload.cut) {
            details.push_str(r#","payload":"truncated""#);
        }
        if publish.is_none() && self.forgot {
            details.push_str(r#","publish":"forgotten""#);
        }
        details.push('}');
        row.details = Some(&details);
        row.concludes =
            publish.as_ref().and_then(|publish| publish.seq).map(|seq| RowRef { boot: None, seq });
        row.place.destination = Some(&destination);
        row.place.routing_key = Some(&key);
        row.who.delivery_tag =
            publish.as_ref().and_then(|publish| publish.tag).map(|tag| tag as i64);
        row.message.payload = payload.as_ref().map(|payload| payload.bytes.as_ref());
        row.session.broker_txn = broker_txn;
        cx.record(&row);
    }

    /// The row of the publish that a return from this place would conclude, for holding it back.
    pub(crate) fn last_row(&self) -> Option<Seq> {
        self.returnable.back().and_then(|publish| publish.seq)
    }
}

fn place_of(exchange: &[u8], routing_key: &[u8]) -> u64 {
    let mut hasher = std::collections::hash_map::DefaultHasher::new();
    exchange.hash(&mut hasher);
    routing_key.hash(&mut hasher);
    hasher.finish()
}
