//! AMQP's basic properties. `message_id` and `type` mean what they say, mostly; `correlation_id`
//! is by itself no transaction id: Celery and others put the message's own id there, and every
//! request waits for its reply with it.

use super::{Field, Found, View};
use crate::identify::text::{Text, id_of_bytes, is_mime};

pub(super) fn detect<'a>(view: &View<'_, 'a>, found: &mut Found<'a>) {
    let content = view.content;
    let message_id = content.message_id.and_then(id_of_bytes);
    if let Some(id) = message_id {
        found.offer(Field::EventId, Text::Lent(id), Text::Lent("property:message_id"), None);
    }
    if let Some(name) = content.message_type.and_then(id_of_bytes).filter(|text| !is_mime(text)) {
        found.offer(Field::EventType, Text::Lent(name), Text::Lent("property:type"), None);
    }
    let Some(id) = content.correlation_id.and_then(id_of_bytes) else { return };
    let own = message_id == Some(id) || found.value(Field::EventId) == Some(id);
    let waits_for_reply = content.reply_to.is_some_and(|queue| !queue.is_empty());
    let is_reply = [b"amq.rabbitmq.reply-to".as_slice(), b"amq.gen-"]
        .iter()
        .any(|prefix| content.routing_key.starts_with(prefix));
    if !own && !waits_for_reply && !is_reply {
        let from = Text::Lent("property:correlation_id");
        found.offer(Field::TransactionId, Text::Lent(id), from, None);
    }
}
