//! Secrets are planted wherever a service has them, and looked for in all that is written.

use flowtap_tests::rabbitmq::BOTH;
use flowtap_tests::secrets::files_with;
use lapin::BasicProperties;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};

use crate::support::{channel, scene};

const PASSWORD: &str = "planted-password-4711";
const SECRETS: [&str; 11] = [
    PASSWORD,
    "planted-bearer-4712",
    "planted-token-4713",
    "planted-cookie-4714",
    "planted-card-4715",
    "planted-body-4716",
    "planted-mail-4717",
    "planted-nested-4718",
    "planted-binding-4719",
    "planted-queue-4720",
    "planted-consumer-4721",
];

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_found_in_spool_store_or_logs() {
    for version in BOTH {
        let Some(scene) = scene(version) else { continue };
        let vhost = scene.vhost.name();
        let user = format!("keeper-{vhost}");
        scene.broker.ctl(&["add_user", &user, PASSWORD]);
        scene.broker.ctl(&["set_permissions", "-p", vhost, &user, ".*", ".*", ".*"]);
        let mut shop = scene.sidecar("shop");
        let url = format!("amqp://{user}:{PASSWORD}@127.0.0.1:{}/{vhost}", shop.port());
        let (connection, channel) = channel(&url).await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
        let queue = QueueDeclareOptions::default();
        let arguments = |secret: &str| {
            let mut arguments = FieldTable::default();
            let text = |text: &str| AMQPValue::LongString(text.into());
            arguments.insert("session_token".into(), text(secret));
            arguments.insert("tenant".into(), text("edison"));
            arguments
        };
        channel.queue_declare("q".into(), queue, arguments(SECRETS[9])).await.expect("declared");
        let bind = QueueBindOptions::default();
        channel
            .queue_bind("q".into(), "amq.headers".into(), "".into(), bind, arguments(SECRETS[8]))
            .await
            .expect("bound");
        let consume = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume("q".into(), "c".into(), consume, arguments(SECRETS[10]))
            .await
            .expect("consuming");
        let cancel = BasicCancelOptions::default();
        channel.basic_cancel("c".into(), cancel).await.expect("cancelled");
        drop(consumer);

        let mut headers = FieldTable::default();
        let mut header = |name: &str, value: &str| {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        };
        header("Authorization", SECRETS[1]);
        header("x-api-token", SECRETS[2]);
        header("Set-Cookie", SECRETS[3]);
        header("transaction_id", "flow-1");
        let body = format!(
            r#"{{"order_id": "order-1", "card_id": "{}", "note": "{}", "email_id": "{}",
                "customer": {{"session_id": "{}"}}}}"#,
            SECRETS[4], SECRETS[5], SECRETS[6], SECRETS[7]
        );
        // Routed and unroutable: both ways of a content are looked at.
        for key in ["q", "missing"] {
            let properties = BasicProperties::default()
                .with_content_type("application/json".into())
                .with_message_id("m-1".into())
                .with_headers(headers.clone());
            let options = BasicPublishOptions::default();
            let confirm = channel
                .basic_publish("".into(), key.into(), options, body.as_bytes(), properties)
                .await
                .expect("published");
            confirm.await.expect("confirmed");
        }
        let got = channel.basic_get("q".into(), lapin::options::BasicGetOptions::default()).await;
        assert_eq!(got.expect("got").expect("a message").data, body.as_bytes());
        connection.close(200, "done".into()).await.expect("closed");

        // While rows may still lie in the spool, and when all is in the store.
        let look = |when: &str| {
            for folder in [shop.folder(), scene.folder.path()] {
                let found = files_with(folder, &SECRETS);
                assert!(found.is_empty(), "{when}: {found:?}");
            }
        };
        look("running");
        let metrics = shop.metrics();
        shop.terminate();
        let folders = [shop.folder(), scene.folder.path()];
        for folder in folders {
            let found = files_with(folder, &SECRETS);
            assert!(found.is_empty(), "after the end: {found:?}");
        }

        // Parquet is compressed: what it holds shows only as rows.
        let rows = scene.store.sql("SELECT * FROM history");
        assert!(rows.iter().any(|row| row["principal"] == user.as_str()), "the user is recorded");
        assert!(rows.iter().any(|row| row["event_id"] == "m-1"), "so is the message");
        let kept = r#""arguments":{"tenant":"edison"}"#;
        let kept = |row: &serde_json::Value| row["details"].as_str().unwrap_or("").contains(kept);
        let with_arguments = rows.iter().filter(|row| kept(row)).count();
        assert_eq!(with_arguments, 3, "the rest of the arguments of queue, binding and consumer");
        let dump = format!("{}{metrics}", serde_json::Value::from(rows));
        for secret in SECRETS {
            assert!(!flowtap_tests::secrets::contains(dump.as_bytes(), secret), "{secret} in rows");
        }
    }
}
