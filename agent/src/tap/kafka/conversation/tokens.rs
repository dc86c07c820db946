//! SASL as clients of before 1.0 speak it: after a SaslHandshake of version 0, tokens go as bare
//! frames, without headers, in both directions. How many is not on the wire but follows from the
//! mechanism.

use bytes::BytesMut;
use flowtap_record::Micros;

use super::{Conversation, Step, peek_i32};
use crate::tap::Side;

/// Most that a first token may take for the user's name to be read.
const MAX_FIRST: usize = 64 * 1024;
/// No mechanism says more at once.
const MAX_TOKEN: usize = 1024 * 1024;

/// Bare frames that are still to come from each side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tokens {
    client: u8,
    broker: u8,
    /// The client's first token, with his name, is still to come.
    first: bool,
}

impl Tokens {
    /// How many a mechanism takes; `None` where that depends on what they say.
    pub(super) fn of(mechanism: &[u8]) -> Option<Self> {
        let rounds = match mechanism {
            b"PLAIN" | b"OAUTHBEARER" => 1,
            _ if mechanism.starts_with(b"SCRAM-SHA-") => 2,
            _ => return None,
        };
        Some(Self { client: rounds, broker: rounds, first: true })
    }

    fn left(&mut self, side: Side) -> &mut u8 {
        match side {
            Side::Client => &mut self.client,
            Side::Broker => &mut self.broker,
        }
    }
}

impl Conversation {
    /// Whether the next frame of this side has no header.
    pub(super) fn expects_token(&self, side: Side) -> bool {
        self.tokens.is_some_and(|mut tokens| *tokens.left(side) > 0)
    }

    /// Passes a bare frame on.
    pub(super) fn token(&mut self, side: Side, now: Micros, input: &mut BytesMut) -> Step {
        let (Some(length), Some(mut tokens)) = (peek_i32(input), self.tokens) else {
            return Step::More;
        };
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_TOKEN);
        let Some(length) = length else {
            self.go_opaque(now, "a SASL token that is none");
            return self.step(side, now, input);
        };
        if side == Side::Client && tokens.first {
            if length <= MAX_FIRST && input.len() < 4 + length {
                return Step::More;
            }
            if let Some(token) = input.get(4..4 + length) {
                let token = token.to_vec();
                self.principal(now, &token);
            }
            tokens.first = false;
        }
        *tokens.left(side) -= 1;
        let done = (tokens.client, tokens.broker) == (0, 0);
        self.tokens = (!done).then_some(tokens);
        self.pass_on(side, now, 4 + length, input)
    }
}
