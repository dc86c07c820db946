//! AMQP 0-9-1, RabbitMQ's dialect. Bytes come from the sockets ([`crate::tap::pump`]) in [`proxy`], pass through the
//! synchronous state machine in [`session`], which says what is to be forwarded and puts rows into
//! the sink, and go out again. Below it: [`frame`]s, [`method`]s and content headers ([`wire`]),
//! then one [`channel`] each with its [`publisher`] and [`consumer`] side.

mod channel;
mod connection;
mod consumer;
mod content;
mod context;
mod decide;
mod frame;
mod listener;
mod method;
mod proxy;
mod publisher;
mod session;
mod topology;
mod wire;

pub use connection::Peers;
pub use context::Env;
pub use listener::{AmqpTap, BoundTap};
pub use proxy::relay;
pub use session::{Session, Step};

#[cfg(test)]
mod tests;
