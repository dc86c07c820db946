//! Methods of AMQP 0-9-1 (spec section 1, RabbitMQ's extensions included) as far as the tap has to
//! understand them. What is not listed here is forwarded untouched, as is what does not decode.

use super::wire::{Malformed, Reader, Table};

/// A decoded method, borrowed from its frame. Numbers in the comments are class and method.
#[derive(Clone, Debug)]
pub(crate) enum Method<'a> {
    /// 10,10
    ConnectionStart { server_properties: Table<'a> },
    /// 10,11: the response holds credentials and must not leave the handshake.
    ConnectionStartOk { client_properties: Table<'a>, mechanism: &'a [u8], response: &'a [u8] },
    /// 10,40
    ConnectionOpen { vhost: &'a [u8] },
    /// 10,41
    ConnectionOpenOk,
    /// 10,50
    ConnectionClose { code: u16, text: &'a [u8] },
    /// 10,60
    ConnectionBlocked { reason: &'a [u8] },
    /// 10,61
    ConnectionUnblocked,
    /// 20,10
    ChannelOpen,
    /// 20,11
    ChannelOpenOk,
    /// 20,20: from either side
    ChannelFlow,
    /// 20,40
    ChannelClose { code: u16, text: &'a [u8], class: u16, method: u16 },
    /// 20,41
    ChannelCloseOk,
    /// 40,10
    ExchangeDeclare {
        exchange: &'a [u8],
        kind: &'a [u8],
        passive: bool,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        nowait: bool,
        arguments: Table<'a>,
    },
    /// 40,20
    ExchangeDelete { exchange: &'a [u8], nowait: bool },
    /// 40,30 and 40,40
    ExchangeBind {
        unbind: bool,
        destination: &'a [u8],
        source: &'a [u8],
        routing_key: &'a [u8],
        nowait: bool,
        arguments: Table<'a>,
    },
    /// 50,10
    QueueDeclare {
        queue: &'a [u8],
        passive: bool,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        nowait: bool,
        arguments: Table<'a>,
    },
    /// 50,11
    QueueDeclareOk { queue: &'a [u8], messages: u32, consumers: u32 },
    /// 50,20 and 50,50 (which has no nowait)
    QueueBind {
        unbind: bool,
        queue: &'a [u8],
        exchange: &'a [u8],
        routing_key: &'a [u8],
        nowait: bool,
        arguments: Table<'a>,
    },
    /// 50,30
    QueuePurge { queue: &'a [u8], nowait: bool },
    /// 50,40
    QueueDelete { queue: &'a [u8], nowait: bool },
    /// 60,10
    Qos { prefetch: u16, global: bool },
    /// 60,20
    Consume {
        queue: &'a [u8],
        tag: &'a [u8],
        no_ack: bool,
        exclusive: bool,
        nowait: bool,
        arguments: Table<'a>,
    },
    /// 60,21
    ConsumeOk { tag: &'a [u8] },
    /// 60,30: from either side
    Cancel { tag: &'a [u8], nowait: bool },
    /// 60,31
    CancelOk { tag: &'a [u8] },
    /// 60,40
    Publish(Publish<'a>),
    /// 60,50
    Return { code: u16, text: &'a [u8], exchange: &'a [u8], routing_key: &'a [u8] },
    /// 60,60
    Deliver {
        consumer: &'a [u8],
        tag: u64,
        redelivered: bool,
        exchange: &'a [u8],
        routing_key: &'a [u8],
    },
    /// 60,70
    Get { queue: &'a [u8], no_ack: bool },
    /// 60,71
    GetOk { tag: u64, redelivered: bool, exchange: &'a [u8], routing_key: &'a [u8] },
    /// 60,72
    GetEmpty,
    /// 60,80: from either side
    Ack { tag: u64, multiple: bool },
    /// 60,90
    Reject { tag: u64, requeue: bool },
    /// 60,100
    RecoverAsync { requeue: bool },
    /// 60,110
    Recover { requeue: bool },
    /// 60,111
    RecoverOk,
    /// 60,120: from either side; a broker's has no requeue
    Nack { tag: u64, multiple: bool, requeue: bool },
    /// 85,10
    ConfirmSelect { nowait: bool },
    /// 90,10, 90,20 and 90,30
    TxSelect,
    /// 90,20
    TxCommit,
    /// 90,21
    TxCommitOk,
    /// 90,30
    TxRollback,
    /// 90,31
    TxRollbackOk,
    /// Answers that prove only that the broker has come this far on the channel.
    OtherOk,
    /// Anything else.
    Other,
}

/// basic.publish (60,40).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) exchange: &'a [u8],
    pub(crate) routing_key: &'a [u8],
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
}

/// The bit of basic.publish's last octet that asks for unroutable messages to be returned.
pub(crate) const MANDATORY: u8 = 1;

/// Class and method of a method frame's payload.
pub(crate) fn ids(payload: &[u8]) -> Option<(u16, u16)> {
    let mut reader = Reader::new(payload);
    Some((reader.u16().ok()?, reader.u16().ok()?))
}

impl<'a> Method<'a> {
    /// Decodes the payload of a method frame.
    pub(crate) fn decode(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(payload);
        let method = match (r.u16()?, r.u16()?) {
            (10, 10) => {
                r.take(2)?;
                Method::ConnectionStart { server_properties: r.table()? }
            }
            (10, 11) => Method::ConnectionStartOk {
                client_properties: r.table()?,
                mechanism: r.short_string()?,
                response: r.long_string()?,
            },
            (10, 40) => Method::ConnectionOpen { vhost: r.short_string()? },
            (10, 41) => Method::ConnectionOpenOk,
            (10, 50) => Method::ConnectionClose { code: r.u16()?, text: r.short_string()? },
            (10, 60) => Method::ConnectionBlocked { reason: r.short_string()? },
            (10, 61) => Method::ConnectionUnblocked,
            (20, 10) => Method::ChannelOpen,
            (20, 11) => Method::ChannelOpenOk,
            (20, 20) => Method::ChannelFlow,
            (20, 40) => Method::ChannelClose {
                code: r.u16()?,
                text: r.short_string()?,
                class: r.u16()?,
                method: r.u16()?,
            },
            (20, 41) => Method::ChannelCloseOk,
            (40, 10) => {
                r.take(2)?;
                let (exchange, kind, bits) = (r.short_string()?, r.short_string()?, r.u8()?);
                Method::ExchangeDeclare {
                    exchange,
                    kind,
                    passive: bits & 1 != 0,
                    durable: bits & 2 != 0,
                    auto_delete: bits & 4 != 0,
                    internal: bits & 8 != 0,
                    nowait: bits & 16 != 0,
                    arguments: r.table()?,
                }
            }
            (40, 20) => {
                r.take(2)?;
                let (exchange, bits) = (r.short_string()?, r.u8()?);
                Method::ExchangeDelete { exchange, nowait: bits & 2 != 0 }
            }
            (40, which @ (30 | 40)) => {
                r.take(2)?;
                Method::ExchangeBind {
                    unbind: which == 40,
                    destination: r.short_string()?,
                    source: r.short_string()?,
                    routing_key: r.short_string()?,
                    nowait: r.u8()? & 1 != 0,
                    arguments: r.table()?,
                }
            }
            (50, 10) => {
                r.take(2)?;
                let (queue, bits) = (r.short_string()?, r.u8()?);
                Method::QueueDeclare {
                    queue,
                    passive: bits & 1 != 0,
                    durable: bits & 2 != 0,
                    exclusive: bits & 4 != 0,
                    auto_delete: bits & 8 != 0,
                    nowait: bits & 16 != 0,
                    arguments: r.table()?,
                }
            }
            (50, 11) => Method::QueueDeclareOk {
                queue: r.short_string()?,
                messages: r.u32()?,
                consumers: r.u32()?,
            },
            (50, which @ (20 | 50)) => {
                r.take(2)?;
                let unbind = which == 50;
                Method::QueueBind {
                    unbind,
                    queue: r.short_string()?,
                    exchange: r.short_string()?,
                    routing_key: r.short_string()?,
                    nowait: !unbind && r.u8()? & 1 != 0,
                    arguments: r.table()?,
                }
            }
            (50, 30) => {
                r.take(2)?;
                Method::QueuePurge { queue: r.short_string()?, nowait: r.u8()? & 1 != 0 }
            }
            (50, 40) => {
                r.take(2)?;
                Method::QueueDelete { queue: r.short_string()?, nowait: r.u8()? & 4 != 0 }
            }
            (60, 10) => {
                r.take(4)?;
                Method::Qos { prefetch: r.u16()?, global: r.u8()? & 1 != 0 }
            }
            (60, 20) => {
                r.take(2)?;
                let (queue, tag, bits) = (r.short_string()?, r.short_string()?, r.u8()?);
                Method::Consume {
                    queue,
                    tag,
                    no_ack: bits & 2 != 0,
                    exclusive: bits & 4 != 0,
                    nowait: bits & 8 != 0,
                    arguments: r.table()?,
                }
            }
            (60, 21) => Method::ConsumeOk { tag: r.short_string()? },
            (60, 30) => Method::Cancel { tag: r.short_string()?, nowait: r.u8()? & 1 != 0 },
            (60, 31) => Method::CancelOk { tag: r.short_string()? },
            (60, 40) => {
                r.take(2)?;
                let (exchange, routing_key, bits) = (r.short_string()?, r.short_string()?, r.u8()?);
                if !r.is_empty() {
                    // The bits must be the frame's last octet: that is where the tap sets one.
                    return Err(Malformed);
                }
                Method::Publish(Publish {
                    exchange,
                    routing_key,
                    mandatory: bits & MANDATORY != 0,
                    immediate: bits & 2 != 0,
                })
            }
            (60, 50) => Method::Return {
                code: r.u16()?,
                text: r.short_string()?,
                exchange: r.short_string()?,
                routing_key: r.short_string()?,
            },
            (60, 60) => Method::Deliver {
                consumer: r.short_string()?,
                tag: r.u64()?,
                redelivered: r.u8()? & 1 != 0,
                exchange: r.short_string()?,
                routing_key: r.short_string()?,
            },
            (60, 70) => {
                r.take(2)?;
                Method::Get { queue: r.short_string()?, no_ack: r.u8()? & 1 != 0 }
            }
            (60, 71) => Method::GetOk {
                tag: r.u64()?,
                redelivered: r.u8()? & 1 != 0,
                exchange: r.short_string()?,
                routing_key: r.short_string()?,
            },
            (60, 72) => Method::GetEmpty,
            (60, 80) => Method::Ack { tag: r.u64()?, multiple: r.u8()? & 1 != 0 },
            (60, 90) => Method::Reject { tag: r.u64()?, requeue: r.u8()? & 1 != 0 },
            (60, 100) => Method::RecoverAsync { requeue: r.u8()? & 1 != 0 },
            (60, 110) => Method::Recover { requeue: r.u8()? & 1 != 0 },
            (60, 111) => Method::RecoverOk,
            (60, 120) => {
                let (tag, bits) = (r.u64()?, r.u8()?);
                Method::Nack { tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 }
            }
            (85, 10) => Method::ConfirmSelect { nowait: r.u8()? & 1 != 0 },
            (90, 10) => Method::TxSelect,
            (90, 20) => Method::TxCommit,
            (90, 21) => Method::TxCommitOk,
            (90, 30) => Method::TxRollback,
            (90, 31) => Method::TxRollbackOk,
            (20, 21) | (40, 11 | 21 | 31 | 51) | (50, 21 | 31 | 41 | 51) | (60 | 85 | 90, 11) => {
                Method::OtherOk
            }
            _ => Method::Other,
        };
        Ok(method)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_publish_is_read_and_its_bits_are_its_last_octet() {
        let payload = b"\x00\x3c\x00\x28\x00\x00\x06orders\x06placed\x01";
        let Ok(Method::Publish(publish)) = Method::decode(payload) else { panic!("a publish") };
        assert_eq!((publish.exchange, publish.routing_key), (&b"orders"[..], &b"placed"[..]));
        assert!(publish.mandatory && !publish.immediate);
        let longer = b"\x00\x3c\x00\x28\x00\x00\x06orders\x06placed\x01\x00";
        assert!(Method::decode(longer).is_err());
    }

    #[test]
    fn methods_that_are_not_known_are_no_error() {
        assert!(matches!(Method::decode(b"\x00\x0a\x00\x46\xff"), Ok(Method::Other)));
        assert!(matches!(Method::decode(b"\x03\xe7\x00\x01"), Ok(Method::Other)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(class in 0u16..100, method in 0u16..125, rest: Vec<u8>) {
            let mut payload = class.to_be_bytes().to_vec();
            payload.extend(method.to_be_bytes());
            payload.extend(rest);
            let _ = Method::decode(&payload);
        }
    }
}
